// Package dial is an agent's side of its way to a console (docs/formats/agents.md):
// it has itself let in, keeps its certificate fresh, and says what is to be
// said, again and again until it is told to end. It only ever calls; what the
// agent does besides does not wait for it.
package dial

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"davit.dev/davit/internal/uplink"
)

// Link is what is kept of a way to a console. It is a secret.
type Link struct {
	URLs        []string `json:"urls"`
	Token       string   `json:"token,omitempty"` // until it was used
	Key         []byte   `json:"key,omitempty"`   // PKCS #8
	Certificate []byte   `json:"certificate,omitempty"`
	Authorities [][]byte `json:"authorities,omitempty"` // the newest first
	// Epoch is the highest of a console that was heard.
	Epoch int64 `json:"epoch,omitempty"`
	// Console is the id of the console, as it said when it was last reached.
	Console string `json:"console,omitempty"`
	// Documents are the namespaces for which documents of the console are taken,
	// or Everywhere; none: none are.
	Documents []string `json:"documents,omitempty"`
	// Runs says which runs the console may begin: uplink.RunsDrill or RunsAll; all
	// else is none.
	Runs string `json:"runs,omitempty"`
	// Restores says what the console may restore: uplink.RestoresClone or
	// RestoresAll; all else is nothing.
	Restores string `json:"restores,omitempty"`
}

// CheckURL says whether a text is the address of a console.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("the address %q is none of a console: write https://HOST:PORT", text)
	}
	return nil
}

// Errors by which callers decide.
var (
	// ErrRefused says that the console said no: a person has to do something.
	ErrRefused = errors.New("the console refuses")
	// ErrEnrol says that the way in is lost, or was never given.
	ErrEnrol = errors.New("a new token is needed: `davit console enrol` there, `davit enrol` here")
	// ErrStale says that a console speaks that was replaced.
	ErrStale = errors.New("a console speaks that another one has replaced")
)

const (
	// dialLimit bounds the way to the console, and askLimit one request.
	dialLimit = 10 * time.Second
	askLimit  = 30 * time.Second
)

// newKey makes the key of an agent.
func newKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

func (l Link) signer() (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(l.Key)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok { // its text could hold the key
		return nil, fmt.Errorf("read key: it is none; %w", ErrEnrol)
	}
	return key, nil
}

// pins are those of the authorities.
func (l Link) pins() []string {
	all := make([]string, 0, len(l.Authorities))
	for _, raw := range l.Authorities {
		sum := sha256.Sum256(raw)
		all = append(all, hex.EncodeToString(sum[:]))
	}
	return all
}

// leaf is the certificate, if there is one.
func (l Link) leaf() (*x509.Certificate, error) {
	if len(l.Certificate) == 0 {
		return nil, nil //nolint:nilnil // there is none yet
	}
	c, err := x509.ParseCertificate(l.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return c, nil
}

// wire is a connection to one console by one of the authorities it may have.
type wire struct {
	base   string
	client *http.Client
}

func (w wire) close() { w.client.CloseIdleConnections() }

// open makes a wire to a console. turn says by which of its authorities.
func (l Link) open(base string, turn int, now func() time.Time) (wire, error) {
	if base == "" {
		return wire{}, fmt.Errorf("call the console: no address is known; %w", ErrEnrol)
	}
	if err := CheckURL(base); err != nil {
		return wire{}, err
	}
	config, err := l.tls(turn, now)
	if err != nil {
		return wire{}, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialLimit, KeepAlive: uplink.Beat}).DialContext,
		TLSHandshakeTimeout: dialLimit, TLSClientConfig: config, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10,
		ResponseHeaderTimeout: askLimit,
	}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return wire{base: strings.TrimSuffix(base, "/"), client: &http.Client{Transport: transport, CheckRedirect: noRedirect}}, nil
}

func (l Link) tls(authority int, now func() time.Time) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{uplink.Protocol}, Time: now}
	if len(l.Authorities) == 0 {
		t, err := uplink.ParseToken(l.Token)
		if err != nil {
			return nil, errors.Join(err, ErrEnrol)
		}
		config.ServerName = uplink.ServerName(t.Pin)
		config.InsecureSkipVerify = true //nolint:gosec // pinned verifies
		config.VerifyConnection = func(s tls.ConnectionState) error { return pinned(s, t.Pin, now()) }
		return config, nil
	}
	config.RootCAs = x509.NewCertPool()
	for i, raw := range l.Authorities {
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("read certificate of the authority: %w", err)
		}
		config.RootCAs.AddCert(c)
		if i == authority%len(l.Authorities) {
			config.ServerName = uplink.ServerName(uplink.Pin(c))
		}
	}
	if len(l.Certificate) > 0 {
		key, err := l.signer()
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{l.Certificate}, PrivateKey: key}}
	}
	return config, nil
}

// pinned checks that a server has a certificate of the authority with the pin.
func pinned(s tls.ConnectionState, pin string, now time.Time) error {
	for _, c := range s.PeerCertificates[1:] {
		if uplink.Pin(c) != pin {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: s.ServerName, CurrentTime: now})
		return err
	}
	return fmt.Errorf("who answers is not the console that the token was made by: its authority is another")
}

// enrol has the agent let in by its token. The key is one that is kept already: so
// the same request may be sent again when its answer was lost.
func (l Link) enrol(ctx context.Context, w wire, site, version string) (Link, error) {
	t, err := uplink.ParseToken(l.Token)
	if err != nil {
		return l, errors.Join(err, ErrEnrol)
	}
	key, err := l.signer()
	if err != nil {
		return l, err
	}
	g, err := w.grant(ctx, uplink.EnrolPath, uplink.Request{Token: l.Token, Site: site, Version: version}, key)
	if err != nil {
		return l, fmt.Errorf("enrol site %s: %w", site, err)
	}
	if g.Site != site || g.Project != t.Project {
		return l, fmt.Errorf("enrol site %s: the console answered for site %s of project %s", site, g.Site, g.Project)
	}
	return l.with(g, l.Key)
}

// renew gets a new certificate, with a new key.
func (l Link) renew(ctx context.Context, w wire, version string) (Link, error) {
	raw, err := newKey()
	if err != nil {
		return l, err
	}
	key, err := Link{Key: raw}.signer()
	if err != nil {
		return l, err
	}
	g, err := w.grant(ctx, uplink.RenewPath, uplink.Request{Version: version}, key)
	if err != nil {
		return l, fmt.Errorf("renew certificate: %w", err)
	}
	return l.with(g, raw)
}

// with takes up what the console gave, if it fits.
func (l Link) with(g uplink.Grant, raw []byte) (Link, error) {
	key, err := Link{Key: raw}.signer()
	if err != nil {
		return l, err
	}
	roots := x509.NewCertPool()
	for _, a := range g.Authorities {
		c, err := x509.ParseCertificate(a)
		if err != nil {
			return l, fmt.Errorf("read certificate of the authority: %w", err)
		}
		roots.AddCert(c)
	}
	c, err := x509.ParseCertificate(g.Certificate)
	if err != nil {
		return l, fmt.Errorf("read certificate: %w", err)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: c.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return l, fmt.Errorf("check certificate: %w", err)
	}
	if !key.PublicKey.Equal(c.PublicKey) {
		return l, errors.New("check certificate: it is for another key")
	}
	l.Key, l.Certificate, l.Authorities, l.Token = raw, g.Certificate, g.Authorities, ""
	return l, nil
}

func (w wire) grant(ctx context.Context, path string, in uplink.Request, key *ecdsa.PrivateKey) (uplink.Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var g uplink.Grant
	var err error
	if in.Request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return g, err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return g, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+path, bytes.NewReader(body))
	if err != nil {
		return g, err
	}
	answer, err := w.client.Do(r)
	if err != nil {
		return g, turned(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return g, refusal(answer)
	}
	return g, json.NewDecoder(io.LimitReader(answer.Body, uplink.MaxBody)).Decode(&g)
}

// ErrTurned says that a console ended the handshake before it said anything of itself:
// that costs it next to nothing, as is needed where thousands call in vain.
var ErrTurned = errors.New("the console takes no agent now: it is not the active one, or too many call at once, or it has no project whose authority this site knows: if that was replaced, enrol the site anew")

// turned is why a call failed, with ErrTurned if the console turned it away.
func turned(err error) error {
	if op := new(net.OpError); errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == turnedAway.Error() {
		return fmt.Errorf("%w (%w)", ErrTurned, err)
	}
	return err
}

// turnedAway is the alert that crypto/tls sends for a server that has no configuration
// for who calls; which it was, it says by its text alone.
const turnedAway = tls.AlertError(80) // internal_error of RFC 8446

// refusal is what an answer says is wrong.
func refusal(answer *http.Response) error {
	var said uplink.Refusal
	if err := json.NewDecoder(io.LimitReader(answer.Body, uplink.MaxBody)).Decode(&said); err != nil || said.Reason == "" {
		return fmt.Errorf("who answers is no console for agents: it said %s", answer.Status)
	}
	if answer.StatusCode == http.StatusForbidden {
		return fmt.Errorf("%w: %.300s", ErrRefused, said.Reason)
	}
	return fmt.Errorf("the console: %.300s", said.Reason)
}
