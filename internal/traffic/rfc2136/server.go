// Package rfc2136 moves names in the DNS by dynamic update (RFC 2136) signed
// with a shared key (RFC 8945), with what was read as the update's
// prerequisites: the server itself refuses what has aged.
package rfc2136

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/names"
)

// exchangeTimeout bounds one question and its answer.
const exchangeTimeout = 3 * time.Second

// Key signs what is sent.
type Key struct{ Name, Algorithm, Secret string }

// ParseKey reads a Secret: name, algorithm (hmac-sha256 where it is missing)
// and secret, as tsig-keygen writes them.
func ParseKey(data map[string][]byte) (Key, error) {
	get := func(k string) string { return strings.TrimSpace(string(data[k])) }
	k := Key{Name: get("name"), Algorithm: strings.TrimSuffix(get("algorithm"), "."), Secret: get("secret")}
	if k.Algorithm == "" {
		k.Algorithm = "hmac-sha256"
	}
	if _, ok := dns.IsDomainName(k.Name); k.Name == "" || !ok {
		return k, errors.New("read DNS key: name is missing or not a name: give the Secret name, algorithm and secret, as tsig-keygen prints them")
	}
	if !slices.Contains([]string{"hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"}, k.Algorithm) {
		return k, fmt.Errorf("read DNS key: algorithm %q is not known: use hmac-sha256", k.Algorithm)
	}
	if raw, err := base64.StdEncoding.DecodeString(k.Secret); err != nil || len(raw) == 0 {
		return k, errors.New("read DNS key: secret is missing or not base64")
	}
	k.Name = dns.CanonicalName(k.Name)
	return k, nil
}

// Server is one authoritative server.
type Server struct {
	Address string // host:port
	Key     *Key   // nil: it is only asked, as clients do
	Now     func() time.Time
}

// NewServer returns a server at host or host:port.
func NewServer(address string, key *Key, now func() time.Time) *Server {
	if _, err := netip.ParseAddr(address); err == nil || !strings.Contains(address, ":") {
		address = net.JoinHostPort(address, "53")
	}
	return &Server{Address: address, Key: key, Now: now}
}

// Open returns the servers of a record, with the key in a Secret for those that
// take updates.
func Open(r *plan.Record, secret map[string][]byte, now func() time.Time) (*names.Service, error) {
	key, err := ParseKey(secret)
	if err != nil {
		return nil, err
	}
	service := &names.Service{Guard: execute.Fenced}
	for _, s := range r.Servers {
		with := &key
		if s.Watch {
			with = nil
		}
		service.Servers = append(service.Servers, names.Kept{Server: NewServer(s.Address, with, now), Watch: s.Watch})
	}
	return service, nil
}

// Name implements names.Server.
func (s *Server) Name() string { return s.Address }

// Read asks where a name leads, and for its guard.
func (s *Server) Read(ctx context.Context, zone, name string) (traffic.Seen, error) {
	var seen traffic.Seen
	if s.Key == nil { // as clients see it; the guard is the other servers' to keep
		return seen, s.values(ctx, zone, name, &seen)
	}
	if err := s.values(ctx, zone, name, &seen); err != nil {
		return seen, err
	}
	all, err := s.ask(ctx, zone, traffic.GuardName(name), dns.TypeTXT)
	if err != nil {
		return seen, err
	}
	if len(all) > 1 {
		return seen, &names.RefusedError{Server: s.Address, What: fmt.Sprintf("has %d TXT records at %s", len(all), traffic.GuardName(name)), Do: "remove those that Davit did not write"}
	}
	for _, rr := range all {
		if txt, ok := rr.(*dns.TXT); ok {
			seen.Text = txt.Txt
			if seen.Guard, err = traffic.ParseGuard(txt.Txt); err != nil {
				return seen, &names.RefusedError{Server: s.Address, What: "serves a guard at " + traffic.GuardName(name) + " that cannot be used", Do: err.Error()}
			}
		}
	}
	return seen, nil
}

func (s *Server) values(ctx context.Context, zone, name string, seen *traffic.Seen) error {
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME} {
		all, err := s.ask(ctx, zone, name, t)
		if err != nil {
			return err
		}
		for _, rr := range all {
			seen.TTL = time.Duration(rr.Header().Ttl) * time.Second
			switch rr := rr.(type) {
			case *dns.A:
				seen.Values = append(seen.Values, rr.A.String())
			case *dns.AAAA:
				seen.Values = append(seen.Values, rr.AAAA.String())
			case *dns.CNAME:
				seen.Values = append(seen.Values, dns.CanonicalName(rr.Target))
			}
		}
	}
	seen.Values = traffic.Sort(seen.Values)
	return nil
}

// ask returns the records of one type that stand at a name itself.
func (s *Server) ask(ctx context.Context, zone, name string, t uint16) ([]dns.RR, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), t)
	m.RecursionDesired = false
	r, err := s.exchange(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", s.Address, name, err)
	}
	switch {
	case r.Rcode == dns.RcodeServerFailure:
		return nil, fmt.Errorf("ask %s for %s: it fails (SERVFAIL): look at its log", s.Address, name)
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		return nil, s.refused(r, zone, "asked")
	case !r.Authoritative:
		return nil, &names.RefusedError{Server: s.Address, What: "does not serve zone " + zone, Do: "name the servers that do"}
	}
	var out []dns.RR
	for _, rr := range r.Answer {
		if rr.Header().Rrtype == t && dns.CanonicalName(rr.Header().Name) == dns.CanonicalName(name) {
			out = append(out, rr)
		}
	}
	return out, nil
}

// Swap implements names.Server: what was read is the update's prerequisite.
func (s *Server) Swap(ctx context.Context, m traffic.Move, seen traffic.Seen, values []string, guard traffic.Guard) error {
	text, err := guard.Strings()
	if err != nil {
		return &names.RefusedError{Server: s.Address, What: "was not asked", Do: err.Error()}
	}
	name, beside := dns.Fqdn(m.Name), dns.Fqdn(traffic.GuardName(m.Name))
	u := new(dns.Msg)
	u.SetUpdate(dns.Fqdn(m.Zone))
	expect(u, name, beside, seen)
	if !slices.Equal(values, seen.Values) {
		for _, t := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME} {
			u.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: name, Rrtype: t}}})
		}
		for _, v := range values {
			u.Insert([]dns.RR{leads(name, v, m.TTL)})
		}
	}
	u.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: beside, Rrtype: dns.TypeTXT}}})
	u.Insert([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: beside, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(m.TTL / time.Second)}, Txt: text}})
	return s.update(ctx, m.Zone, u)
}

// expect makes what was read the update's prerequisites.
func expect(u *dns.Msg, name, beside string, seen traffic.Seen) {
	if seen.Text == nil {
		u.RRsetNotUsed([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: beside, Rrtype: dns.TypeTXT}}})
	} else {
		u.Used([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: beside, Rrtype: dns.TypeTXT}, Txt: seen.Text}})
	}
	there := map[uint16]bool{}
	for _, v := range seen.Values {
		rr := leads(name, v, 0)
		there[rr.Header().Rrtype] = true
		u.Used([]dns.RR{rr})
	}
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME} {
		if !there[t] {
			u.RRsetNotUsed([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: name, Rrtype: t}}})
		}
	}
}

// leads is the record that makes a name lead to a value.
func leads(name, value string, ttl time.Duration) dns.RR {
	h := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
	addr, err := netip.ParseAddr(value)
	switch {
	case err != nil:
		h.Rrtype = dns.TypeCNAME
		return &dns.CNAME{Hdr: h, Target: dns.Fqdn(value)}
	case addr.Is4():
		h.Rrtype = dns.TypeA
		return &dns.A{Hdr: h, A: addr.AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: addr.AsSlice()}
}

// MayUpdate asks the server to take away what is not there, under the name
// and under its guard: nothing changes, and the server says whether the key may.
func (s *Server) MayUpdate(ctx context.Context, zone, name string) error {
	u := new(dns.Msg)
	u.SetUpdate(dns.Fqdn(zone))
	beside := dns.Fqdn(traffic.GuardName(name))
	u.Remove([]dns.RR{
		leads(dns.Fqdn(name), "0.0.0.0", 0),
		&dns.TXT{Hdr: dns.RR_Header{Name: beside, Rrtype: dns.TypeTXT}, Txt: []string{"davit asks whether it may"}},
	})
	return s.update(ctx, zone, u)
}

func (s *Server) update(ctx context.Context, zone string, u *dns.Msg) error {
	r, err := s.exchange(ctx, u)
	if err != nil {
		return fmt.Errorf("update zone %s at %s: %w", zone, s.Address, err)
	}
	switch r.Rcode {
	case dns.RcodeSuccess:
		return nil
	case dns.RcodeYXDomain, dns.RcodeYXRrset, dns.RcodeNXRrset, dns.RcodeNameError:
		return names.ErrChanged
	case dns.RcodeServerFailure:
		return fmt.Errorf("update zone %s at %s: it fails (SERVFAIL): look at its log", zone, s.Address)
	}
	return s.refused(r, zone, "told")
}

// refused says why a server refuses.
func (s *Server) refused(r *dns.Msg, zone, did string) error {
	e := &names.RefusedError{Server: s.Address}
	if t := r.IsTsig(); t != nil && t.Error != dns.RcodeSuccess {
		switch t.Error {
		case dns.RcodeBadTime:
			e.What, e.Do = "finds our clock wrong (BADTIME)", "set the clocks of both"
		case dns.RcodeBadKey:
			e.What, e.Do = fmt.Sprintf("does not know the key %s with %s (BADKEY)", s.Key.Name, s.Key.Algorithm), "compare name and algorithm with its configuration, and allow the key to update the name and its guard (Knot says the same where no ACL fits)"
		default:
			e.What, e.Do = fmt.Sprintf("does not accept the signature of key %s (%s)", s.Key.Name, dns.RcodeToString[int(t.Error)]), "compare the secret with its configuration"
		}
		return e
	}
	e.What = fmt.Sprintf("refuses to be %s about zone %s (%s)", did, zone, dns.RcodeToString[r.Rcode])
	switch r.Rcode {
	case dns.RcodeNotAuth, dns.RcodeNotZone:
		e.Do = "name the server that takes the zone's updates, and mark the others watch"
	case dns.RcodeNotImplemented:
		e.Do = "allow dynamic updates there"
	default:
		e.Do = "allow the key to update the name and its guard"
	}
	return e
}

// exchange sends a message and reads its answer, over TCP if it is signed.
func (s *Server) exchange(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	c := &dns.Client{Timeout: exchangeTimeout}
	if s.Key == nil {
		m.SetEdns0(1232, false)
		r, _, err := c.ExchangeContext(ctx, m, s.Address)
		if err == nil && !r.Truncated {
			return r, nil
		}
		c.Net = "tcp"
		r, _, err = c.ExchangeContext(ctx, m, s.Address)
		return r, err
	}
	c.Net, c.TsigSecret = "tcp", map[string]string{s.Key.Name: s.Key.Secret}
	m.SetTsig(s.Key.Name, dns.Fqdn(s.Key.Algorithm), 300, s.Now().Unix())
	r, _, err := c.ExchangeContext(ctx, m, s.Address)
	switch {
	case r != nil && r.Rcode == dns.RcodeNotAuth && r.IsTsig() != nil && r.IsTsig().Error != dns.RcodeSuccess:
		return r, nil // it is not signed, or not so that we could tell
	case err != nil:
		return nil, err
	case r.IsTsig() == nil && r.Rcode == dns.RcodeSuccess:
		return nil, errors.New("the answer is not signed")
	}
	return r, nil
}
