// Package ssotest is a login provider that says whatever a test wants it to say,
// for the answers that no honest one gives. Only tests import it.
package ssotest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Claims are what a token says.
type Claims map[string]any

// Provider is the provider.
type Provider struct {
	URL string
	CA  string // PEM

	mu        sync.Mutex
	server    *httptest.Server
	key       *ecdsa.PrivateKey
	claims    Claims
	make      func(Claims) string
	challenge string
	silent    bool
	answered  bool // of the device flow
	asked     int  // what it is
	hanging   chan struct{}
	hung      chan struct{}
	Asked     int // how often for tokens
}

// New starts a provider.
func New() *Provider {
	p := &Provider{key: newKey(), claims: Claims{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		say(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("/token", p.token)
	mux.HandleFunc("/device", func(w http.ResponseWriter, _ *http.Request) {
		say(w, map[string]any{"device_code": "device", "user_code": "ABCD-EFGH", "verification_uri": p.URL + "/activate", "expires_in": 300, "interval": 1})
	})
	p.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/") {
			p.wait(r)
		}
		if p.isSilent() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	p.URL = p.server.URL
	p.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw}))
	p.make = p.Signed
	return p
}

// Close stops it.
func (p *Provider) Close() { p.server.Close() }

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func say(w http.ResponseWriter, v any) { answer(w, http.StatusOK, v) }

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	say(w, map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"device_authorization_endpoint": p.URL + "/device", "id_token_signing_alg_values_supported": []string{"ES256"},
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
	})
}

func (p *Provider) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

// Silence has it answer nothing of use, or again.
func (p *Provider) Silence(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
}

// wait counts a question what the provider is, and lets it hang.
func (p *Provider) wait(r *http.Request) {
	p.mu.Lock()
	p.asked++
	hanging := p.hanging
	if hanging != nil && p.hung != nil {
		close(p.hung)
		p.hung = nil
	}
	p.mu.Unlock()
	if hanging != nil {
		select {
		case <-hanging:
		case <-r.Context().Done():
		}
	}
}

// Hang has it not answer what it is, until Go; what it returns is closed when it was asked.
func (p *Provider) Hang() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hanging, p.hung = make(chan struct{}), make(chan struct{})
	return p.hung
}

// Go ends Hang.
func (p *Provider) Go() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.hanging)
	p.hanging = nil
}

// Discoveries is how often it was asked what it is.
func (p *Provider) Discoveries() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// Answer has the person of a device flow answer.
func (p *Provider) Answer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered = true
}

// Say sets what the next tokens say, and how they are made; nil is as Signed does.
func (p *Provider) Say(c Claims, how func(Claims) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claims, p.make = c, how; how == nil {
		p.make = p.Signed
	}
}

// Person is what a token says of a person at a moment.
func (p *Provider) Person(subject, name string, now time.Time, groups ...string) Claims {
	return Claims{
		"iss": p.URL, "sub": subject, "aud": "davit", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"preferred_username": name, "groups": groups,
	}
}

// Login is what a browser does at the provider: it takes the address that the
// console sent it to, and returns what it brings back.
func (p *Provider) Login(to string) (url.Values, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("response_type") != "code" || q.Get("client_id") != "davit" || q.Get("nonce") == "" || q.Get("state") == "" {
		return nil, fmt.Errorf("the console asks %s", to)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.challenge = q.Get("code_challenge")
	if _, given := p.claims["nonce"]; !given {
		p.claims["nonce"] = q.Get("nonce")
	}
	return url.Values{"code": {"the-code"}, "state": {q.Get("state")}}, nil
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Asked++
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch {
	case r.PostFormValue("grant_type") == "urn:ietf:params:oauth:grant-type:device_code" && !p.answered:
		answer(w, http.StatusBadRequest, map[string]string{"error": "authorization_pending"})
	case r.PostFormValue("grant_type") == "authorization_code" && (r.PostFormValue("code") != "the-code" || base64.RawURLEncoding.EncodeToString(sum[:]) != p.challenge):
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
	default:
		said := map[string]any{"access_token": "planted-access-token", "token_type": "Bearer", "expires_in": 300}
		if p.make != nil {
			said["id_token"] = p.make(p.claims)
		}
		say(w, said)
	}
}

// Signed makes a token with the provider's key.
func (p *Provider) Signed(c Claims) string { return signed(p.key, c) }

// Forged makes one with a key that the provider does not have.
func Forged(c Claims) string { return signed(newKey(), c) }

func signed(key *ecdsa.PrivateKey, c Claims) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		panic(err)
	}
	body, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	object, err := signer.Sign(body)
	if err != nil {
		panic(err)
	}
	text, err := object.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

// Unsigned makes a token of "alg": "none".
func Unsigned(c Claims) string {
	body, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + encode(body) + "."
}
