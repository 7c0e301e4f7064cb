package agents

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/quota"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
)

// Token makes a token of a project for the agent of a site.
func (s *Server) Token(ctx context.Context, p *store.Project, act audit.Act, site string, life time.Duration) (uplink.Token, time.Time, error) {
	all, err := s.Authorities(ctx, p)
	if err != nil {
		return uplink.Token{}, time.Time{}, err
	}
	return NewToken(ctx, p, all[0], act, site, life)
}

// NewToken makes a token that lets the agent of a site in, once.
func NewToken(ctx context.Context, p *store.Project, newest *authority.Authority, act audit.Act, site string, life time.Duration) (uplink.Token, time.Time, error) {
	secret := make([]byte, 40)
	if _, err := rand.Read(secret); err != nil {
		return uplink.Token{}, time.Time{}, fmt.Errorf("make token: %w", err)
	}
	t := uplink.Token{Project: p.Name, ID: hex.EncodeToString(secret[:8]), Secret: hex.EncodeToString(secret[8:]), Pin: uplink.Pin(newest.Certificate)}
	expires := act.At.Add(life).UTC()
	return t, expires, oneMore(ctx, p, site, act.At, func(full error) error {
		if full != nil {
			return full
		}
		return p.CreateEnrolment(ctx, act, store.Enrolment{ID: t.ID, Site: site, Hash: t.Hash(), Expires: expires})
	})
}

// oneMore does what lets an agent in; full says why not, if that is one more site than
// the project may have.
func oneMore(ctx context.Context, p *store.Project, site string, now time.Time, do func(full error) error) error {
	all, err := p.Agents(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(a store.Agent) bool { return a.Site == site }) {
		return do(nil)
	}
	return quota.Weigh(ctx, p, quota.Agents, now, do)
}

// enrol lets an agent in by its token. Whether the token is for another site or
// project, was used or is over, only its holder is told.
func (s *Server) enrol(c *call) (any, error) {
	now := s.Now()
	act := c.act(now, "stranger")
	if !s.address.Allow(act.From, now) {
		return nil, errTooMany
	}
	in, key, err := c.request()
	if err != nil {
		return nil, err
	}
	if vault.CheckName(in.Site) != nil {
		return nil, fmt.Errorf("%w: the site's name", errRequest)
	}
	t, err := uplink.ParseToken(in.Token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	if !s.token.Allow(c.project.ID+"\x00"+t.ID, now) {
		return nil, errTooMany
	}
	public, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: its key", errRequest)
	}
	sum := sha256.Sum256(public)
	var name string
	err = oneMore(c.r.Context(), c.project, in.Site, now, func(full error) (err error) {
		name, err = c.project.UseEnrolment(c.r.Context(), act, t.ID, t.Hash(), in.Site, sum[:], full, func(before string) string { return uplink.Enrolment(now, t.ID, before) })
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.grant(uplink.Identity{Project: c.project.Name, Site: in.Site, Enrolment: name}, key, now)
}

// renew gives an agent a new certificate while its old one counts.
func (s *Server) renew(c *call) (any, error) {
	_, key, err := c.request()
	if err != nil {
		return nil, err
	}
	now := s.Now()
	if err := c.project.AdmitAgent(c.r.Context(), c.act(now, "agent/"+c.who.Site), c.who.Site, c.who.Enrolment); err != nil {
		return nil, err
	}
	return c.grant(c.who, key, now)
}

// request reads a request and proves that who sent it has the key.
func (c *call) request() (uplink.Request, *ecdsa.PublicKey, error) {
	var in uplink.Request
	if err := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, uplink.MaxBody)).Decode(&in); err != nil {
		return in, nil, errRequest // its text could hold the token
	}
	csr, err := x509.ParseCertificateRequest(in.Request)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return in, nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return in, nil, fmt.Errorf("%w: the key is not of P-256", errRequest)
	}
	return in, key, nil
}

func (c *call) grant(who uplink.Identity, key *ecdsa.PublicKey, now time.Time) (uplink.Grant, error) {
	cert, err := c.authorities[0].Agent(key, who.Project+"/"+who.Site, who.URL(), now)
	if err != nil {
		return uplink.Grant{}, err
	}
	g := uplink.Grant{Project: who.Project, Site: who.Site, Certificate: cert.Raw}
	for _, a := range c.authorities {
		g.Authorities = append(g.Authorities, a.Certificate.Raw)
	}
	return g, nil
}
