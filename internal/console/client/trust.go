package client

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Trust says by what a console is known. The zero value is the machine's own
// authorities.
type Trust struct {
	// CA is a certificate, or several, in PEM: whatever they vouch for, and nothing else.
	CA string
	// Pin is the fingerprint of a certificate that the console has to present, and
	// that has to vouch for it.
	Pin string
	// Pinned is told the certificate that Pin found, in PEM, to trust it from then on.
	Pinned func(ca string)
}

// ErrTrust says that the console could not show that it is the one that is meant.
var ErrTrust = errors.New("the console's certificate is not trusted")

// ParsePin reads a fingerprint: SHA-256 in hex, with colons or without.
func ParsePin(text string) (string, error) {
	bare := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), ":", ""))
	bare = strings.TrimPrefix(bare, "sha256")
	raw, err := hex.DecodeString(bare)
	if err != nil || len(raw) != sha256.Size {
		return "", fmt.Errorf("the fingerprint %.80q is not one: write the 64 hexadecimal digits of a SHA-256", text)
	}
	return bare, nil
}

// PinOf is the fingerprint of a certificate.
func PinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func (t Trust) config(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case t.CA != "":
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, errors.New("read certificate of the console's authority: there is none in PEM")
		}
	case t.Pin != "":
		config.InsecureSkipVerify = true // it is verified against the pin instead
		config.VerifyConnection = func(s tls.ConnectionState) error { return t.verify(s.PeerCertificates, host) }
	}
	return config, nil
}

// verify looks for the pinned certificate among those that the console presents,
// and lets it alone vouch for the console and its name.
func (t Trust) verify(chain []*x509.Certificate, host string) error {
	for _, pinned := range chain {
		if PinOf(pinned) != t.Pin {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(pinned)
		between := x509.NewCertPool()
		for _, c := range chain[1:] {
			between.AddCert(c)
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between}); err != nil {
			return fmt.Errorf("%w: %w", ErrTrust, err)
		}
		if t.Pinned != nil {
			t.Pinned(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pinned.Raw})))
		}
		return nil
	}
	return fmt.Errorf("%w: none of its certificates has the fingerprint that was given", ErrTrust)
}

// explain tells errors of certificates from others, and says which certificate
// was presented, for a person to compare.
func (t Trust) explain(address string, err error) error {
	var bad *tls.CertificateVerificationError
	if !errors.As(err, &bad) {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	shown := ""
	if n := len(bad.UnverifiedCertificates); n > 0 {
		last := bad.UnverifiedCertificates[n-1]
		shown = fmt.Sprintf(" (it presents %q with the fingerprint %s)", last.Subject.CommonName, PinOf(last))
	}
	return fmt.Errorf("ask %s: %w: %w%s", address, ErrTrust, bad.Err, shown)
}
