// Package uplink is what agents and consoles say to each other
// (docs/formats/agents.md): tokens, identities and frames. Both sides use it; it
// opens no connection and keeps nothing.
package uplink

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

const (
	tokenPrefix = "davit_enrol_"
	idSize      = 8
	secretSize  = 32
	pinSize     = sha256.Size
	// suffix of the server names by which agents call.
	suffix = ".agents.davit.internal"
	// named is how much of a pin a server name has.
	named = 32
)

// Protocol is that of agents' connections.
const Protocol = "h2"

// Paths of the requests.
const (
	Prefix     = "/agent/v1/"
	EnrolPath  = Prefix + "enrol"
	RenewPath  = Prefix + "renew"
	StreamPath = Prefix + "stream"
)

// ErrToken says that a text is no token.
var ErrToken = errors.New("this is no token of `davit console enrol`")

// Token lets one agent in, once.
type Token struct {
	Project string
	ID      string
	Secret  string
	Pin     string // of the authority that the console must have
}

// String is the token as people carry it. It is a secret.
func (t Token) String() string {
	return tokenPrefix + t.Project + "_" + t.ID + "_" + t.Secret + "_" + t.Pin
}

// Hash is what a console keeps of it.
func (t Token) Hash() []byte {
	sum := sha256.Sum256([]byte(t.String()))
	return sum[:]
}

// ParseToken reads a token. Its text is in no error.
func ParseToken(text string) (Token, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	parts := strings.Split(rest, "_")
	if !ok || len(parts) != 4 || len(parts[0]) > 253 || parts[0] == "" || !isHex(parts[1], idSize) || !isHex(parts[2], secretSize) || !isHex(parts[3], pinSize) {
		return Token{}, ErrToken
	}
	return Token{Project: parts[0], ID: parts[1], Secret: parts[2], Pin: parts[3]}, nil
}

func isHex(text string, size int) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == size && strings.ToLower(text) == text
}

// Pin is the pin of an authority's certificate.
func Pin(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

// ServerName is the name by which an agent calls the console of an authority.
func ServerName(pin string) string { return pin[:named] + suffix }

// IsServerName tells whether a server name is one by which agents call.
func IsServerName(name string) bool { return strings.HasSuffix(name, suffix) }

// Identity is who an agent is, by its certificate.
type Identity struct {
	Project string
	Site    string
	// Enrolment is when and by which token the site was let in. Of two, the
	// greater one is the newer.
	Enrolment string
}

// Enrolment names an enrolment. It is newer than the site's one before, also when that was
// given by a clock that was ahead; empty: there is none.
func Enrolment(at time.Time, id, before string) string {
	millis := at.UnixMilli()
	var last int64
	if _, err := fmt.Sscanf(before, "%013d-", &last); err == nil {
		millis = max(millis, last+1)
	}
	return fmt.Sprintf("%013d-%s", millis, id)
}

// URL is the identity as certificates have it.
func (i Identity) URL() *url.URL {
	return &url.URL{Scheme: "davit", Host: i.Project, Path: "/" + i.Site, RawQuery: url.Values{"enrolment": {i.Enrolment}}.Encode()}
}

// ErrIdentity says that a certificate is no agent's.
var ErrIdentity = errors.New("the certificate is no agent's")

// IdentityOf reads the identity in a certificate that was verified.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 {
		return Identity{}, ErrIdentity
	}
	u := c.URIs[0]
	i := Identity{Project: u.Host, Site: strings.TrimPrefix(u.Path, "/"), Enrolment: u.Query().Get("enrolment")}
	if u.Scheme != "davit" || i.Project == "" || i.Site == "" || strings.Contains(i.Site, "/") || !isEnrolment(i.Enrolment) {
		return Identity{}, ErrIdentity
	}
	return i, nil
}

func isEnrolment(text string) bool {
	millis, id, ok := strings.Cut(text, "-")
	return ok && len(millis) == 13 && strings.Trim(millis, "0123456789") == "" && isHex(id, idSize)
}

// ProjectLabel is a project's name as the label of what its console made has it.
func ProjectLabel(project string) string {
	const most = 63
	if len(project) <= most {
		return project
	}
	sum := sha256.Sum256([]byte(project))
	return hex.EncodeToString(sum[:16])
}
