package authority

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"time"
)

// AgentLife is how long an agent's certificate lives. Agents have it renewed
// after a third of that, so that a console may be away for weeks.
const AgentLife = 30 * 24 * time.Hour

// Agent makes a certificate for the key of an agent of this identity. It is
// good for calling a console, and for nothing else.
func (a *Authority) Agent(public crypto.PublicKey, name string, identity *url.URL, now time.Time) (*x509.Certificate, error) {
	from := now.Add(-skew)
	if from.Before(a.Certificate.NotBefore) { // by a clock that is behind: nothing vouches for it then
		from = a.Certificate.NotBefore
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{"Davit agent"}},
		NotBefore: from, NotAfter: now.Add(AgentLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{identity},
	}
	leaf, err := sign(template, a.Certificate, public, a.signer)
	if err != nil {
		return nil, fmt.Errorf("make certificate of an agent: %w", err)
	}
	return leaf, nil
}

// Sign signs a SHA-256 of something that begins with its purpose, which no
// certificate does.
func (a *Authority) Sign(digest []byte) ([]byte, error) {
	return a.signer.Sign(rand.Reader, digest, crypto.SHA256)
}
