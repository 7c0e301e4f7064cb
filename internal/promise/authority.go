// Package promise is how a site asks its peers, while the vault is silent, to stay passive for one lease, and how
// they answer: over TLS 1.3, with certificates that whoever has the project's data key makes for himself
// (docs/formats/promise.md, docs/decisions/0039-promises.md).
package promise

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"davit.dev/davit/internal/vault"
)

const (
	purpose = "peer-promises"
	// valid is for how long before and after now a certificate is: clocks of sites differ, and to have one made
	// takes the key that is in memory anyway.
	valid = time.Hour
)

// authority signs the certificates of a project's sites: it comes from a version of the data key.
type authority struct {
	name string // of its servers, in the handshake
	key  ed25519.PrivateKey
}

func newAuthority(secret []byte) authority {
	key := ed25519.NewKeyFromSeed(secret)
	public, _ := key.Public().(ed25519.PublicKey)
	sum := sha256.Sum256(public)
	return authority{name: hex.EncodeToString(sum[:16]) + ".promise.davit", key: key}
}

// Keys are what a process knows of a project, in memory: enough to ask and to answer while the vault is silent.
type Keys struct {
	// Site is who has them, Vault the id of the vault, Project that of the project's first data key.
	Site, Vault, Project string

	authorities []authority // newest first
}

// From takes the keys of an open project: of the newest two versions of its data key, as sites take up a new one
// one after the other.
func From(p *vault.Project, site, vaultID string) Keys {
	k := Keys{Site: site, Vault: vaultID, Project: p.KeyID()}
	versions := p.KeyVersions()
	for _, v := range slices.Backward(versions[max(len(versions)-2, 0):]) {
		k.authorities = append(k.authorities, newAuthority(p.Derive(v, purpose)))
	}
	return k
}

// pool trusts the authority alone.
func (a authority) pool() (*x509.CertPool, *x509.Certificate, error) {
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: a.name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<36, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, of, of, a.key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("make authority: %w", err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("make authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool, parsed, nil
}

// config is a side of the connection, as the site: each shows who it is, and sees who the other is.
func (a authority) config(site string, now func() time.Time) (*tls.Config, error) {
	pool, by, err := a.pool()
	if err != nil {
		return nil, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: site}, DNSNames: []string{a.name},
		NotBefore: now().Add(-valid), NotAfter: now().Add(valid), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, by, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate of site %s: %w", site, err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Time: now, ServerName: a.name, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: private}}, SessionTicketsDisabled: true,
	}, nil
}

var errNobody = errors.New("it showed no certificate")

// bearer is the site that the other side's certificate names.
func bearer(s *tls.ConnectionState) (string, error) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return "", errNobody
	}
	return s.PeerCertificates[0].Subject.CommonName, nil
}
