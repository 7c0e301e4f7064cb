// Package sso lets people into the console by a provider of OpenID Connect: in a
// browser by the authorization code flow, at the command line by the device flow.
// Nothing of the console waits for the provider but such a login.
package sso

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/manuscript"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/vault"
)

// Config is the file that --oidc-config names.
type Config struct {
	// Issuer is the provider's address, exactly as its tokens have it.
	Issuer   string `json:"issuer"`
	ClientID string `json:"clientID"`
	// ClientSecretFile holds the client's secret; none for a public client.
	ClientSecretFile string `json:"clientSecretFile,omitempty"`
	// CAFile vouches for the provider, in PEM; default the machine's authorities.
	CAFile string `json:"caFile,omitempty"`
	// URL is the console, as browsers call it.
	URL string `json:"url"`
	// Scopes are asked for beside openid.
	Scopes []string `json:"scopes,omitempty"`
	// NameClaim is what people are called by; nothing depends on it. Default preferred_username.
	NameClaim string `json:"nameClaim,omitempty"`
	// GroupsClaim holds what Roles speak of: a text or a list of them. Default groups.
	GroupsClaim string  `json:"groupsClaim,omitempty"`
	Roles       []Grant `json:"roles"`
	// SessionHours is how long a session lives at the most; default 8.
	SessionHours int `json:"sessionHours,omitempty"`

	secret string
	roots  *x509.CertPool
}

// Grant gives a group of the provider's a role in a project.
type Grant struct {
	Group   string       `json:"group"`
	Project string       `json:"project"`
	Role    account.Role `json:"role"`
}

// maxConfig bounds the file.
const maxConfig = 1 << 20

// ReturnPath is where the provider sends browsers back to.
const ReturnPath = "/login/sso/return"

// Load reads a configuration and the files that it names.
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration of the login by a provider: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if c.ClientSecretFile != "" {
		secret, err := os.ReadFile(c.ClientSecretFile)
		if err != nil {
			return nil, fmt.Errorf("read secret of the client: %w", err)
		}
		if c.secret = strings.TrimSpace(string(secret)); c.secret == "" {
			return nil, fmt.Errorf("read secret of the client: %s is empty", c.ClientSecretFile)
		}
	}
	if c.CAFile != "" {
		authorities, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read certificate of the provider's authority: %w", err)
		}
		c.roots = x509.NewCertPool()
		if !c.roots.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("read certificate of the provider's authority: %s holds none in PEM", c.CAFile)
		}
	}
	return c, nil
}

// Parse reads a configuration and checks it.
func Parse(text []byte) (*Config, error) {
	if len(text) > maxConfig {
		return nil, fmt.Errorf("it has more than %d bytes", maxConfig)
	}
	c := &Config{NameClaim: "preferred_username", GroupsClaim: "groups", SessionHours: 8}
	if err := manuscript.Read(bytes.TrimSpace(text), c, manuscript.Strict); err != nil {
		return nil, err
	}
	return c, c.check()
}

func (c *Config) check() error {
	u, err := url.Parse(c.Issuer)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("issuer: %q is not https://…, as the provider's tokens have it", c.Issuer)
	case c.ClientID == "":
		return errors.New("clientID is missing: the provider gives it when the console is registered there")
	case dial.CheckURL(c.URL) != nil:
		return fmt.Errorf("url: %w", dial.CheckURL(c.URL))
	case c.NameClaim == "" || c.GroupsClaim == "":
		return errors.New("nameClaim and groupsClaim may be left out, but not be empty")
	case c.SessionHours < 1 || c.SessionHours > 24*7:
		return fmt.Errorf("sessionHours: %d is not 1 to 168", c.SessionHours)
	case len(c.Roles) == 0:
		return errors.New("roles is empty: nobody could come in")
	}
	for i, g := range c.Roles {
		if _, err := account.ParseRole(string(g.Role)); err != nil {
			return fmt.Errorf("roles[%d]: %w", i, err)
		}
		if err := vault.CheckName(g.Project); err != nil || g.Group == "" {
			return fmt.Errorf("roles[%d]: group and project are needed", i)
		}
	}
	return nil
}

// life is how long a session lives.
func (c *Config) life() time.Duration { return time.Duration(c.SessionHours) * time.Hour }

func (c *Config) redirect() string { return strings.TrimRight(c.URL, "/") + ReturnPath }

// roles are what the groups have in each project that the configuration speaks of:
// the highest role, or none, which takes away what was given before.
func (c *Config) roles(groups []string) map[string]account.Role {
	rank := map[account.Role]int{}
	for i, role := range account.Roles() {
		rank[role] = i + 1
	}
	out := map[string]account.Role{}
	for _, g := range c.Roles {
		have := out[g.Project]
		for _, group := range groups {
			if group == g.Group && rank[g.Role] > rank[have] {
				have = g.Role
			}
		}
		out[g.Project] = have
	}
	return out
}
