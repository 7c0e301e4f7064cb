// Package agents is the console's side of what agents say (docs/formats/agents.md):
// it lets them in by tokens, gives them certificates of their project's
// authority, and hears their streams. An agent's project is that of the
// authority whose name it called and which signed its certificate; it can name
// no other.
package agents

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// Options are what a Server works with.
type Options struct {
	Console *store.Console
	// Authorities are a project's, the newest first.
	Authorities func(ctx context.Context, p *store.Project) ([]*authority.Authority, error)
	// Speaks says as what this console speaks.
	Speaks func() uplink.Console
	Now    func() time.Time
	Log    *slog.Logger
}

// Server hears the agents of all projects.
type Server struct {
	Options
	ctx     context.Context //nolint:containedctx // streams and what is kept of them end with the console
	running sync.WaitGroup
	// Tries of enrolments, by address and by token.
	address, token *account.Limit
	gate           *gate

	mu     sync.Mutex
	doors  map[string]*door // by server name
	looked time.Time
	rooms  map[string]*room // by project id
}

// door is a project, by one of its authorities.
type door struct {
	project     *store.Project
	authorities []*authority.Authority // the newest first
	config      *tls.Config
}

// NewServer returns a server that ends with the context.
func NewServer(ctx context.Context, o Options) *Server {
	const most = 10_000
	return &Server{
		Options: o, ctx: ctx, doors: map[string]*door{}, rooms: map[string]*room{},
		address: account.NewLimit(60, time.Second, most), token: account.NewLimit(10, 10*time.Second, most), gate: newGate(abreast),
	}
}

// Wait returns when nothing of the server runs any more, after the end of its context.
func (s *Server) Wait() {
	<-s.ctx.Done()
	s.running.Wait()
}

// errStranger says that no project of this console has the authority that was called.
var errStranger = errors.New("no project of this console has the authority that was called")

// errElsewhere sends agents to the active console.
var errElsewhere = fmt.Errorf("%w: this console is not the active one", store.ErrRefused)

// Config is the TLS of a connection by which an agent calls; nil for all others. While
// this console is not the active one, agents are turned away here, before anything
// costly was done: all of them call again and again until one is, and whoever is to
// take over has better to do. dial.ErrTurned is what they see of it.
func (s *Server) Config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !uplink.IsServerName(hello.ServerName) {
		return nil, nil //nolint:nilnil // as crypto/tls wants it
	}
	if !s.Speaks().Active {
		return nil, errElsewhere
	}
	d, err := s.door(hello.ServerName)
	if err != nil {
		return nil, err
	}
	if err := s.gate.pass(hello.Context()); err != nil {
		return nil, err
	}
	return d.config, nil
}

// lookAgain is how often projects are read for names that nobody has.
const lookAgain = time.Second

func (s *Server) door(name string) (*door, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.doors[name]; d != nil {
		return d, nil
	}
	if now := s.Now(); !s.looked.IsZero() && now.Sub(s.looked) < lookAgain && now.After(s.looked) {
		return nil, errStranger
	}
	s.looked = s.Now()
	if err := s.look(); err != nil {
		return nil, err
	}
	if d := s.doors[name]; d != nil {
		return d, nil
	}
	return nil, errStranger
}

// look reads which projects there are. One that cannot be opened is left out.
func (s *Server) look() error {
	all, err := s.Console.Projects(s.ctx)
	if err != nil {
		return err
	}
	for _, l := range all {
		p, err := s.Console.Project(s.ctx, l.Name)
		if err != nil {
			s.Log.Warn("the agents of a project cannot be heard", "project", l.Name, "err", err)
			continue
		}
		authorities, err := s.Authorities(s.ctx, p)
		if err != nil {
			s.Log.Warn("the agents of a project cannot be heard", "project", l.Name, "err", err)
			continue
		}
		s.open(p, authorities)
	}
	return nil
}

// open makes the doors of a project. s.mu is held.
func (s *Server) open(p *store.Project, authorities []*authority.Authority) {
	clients := x509.NewCertPool()
	for _, a := range authorities {
		clients.AddCert(a.Certificate)
	}
	for _, a := range authorities {
		name := uplink.ServerName(uplink.Pin(a.Certificate))
		d := &door{project: p, authorities: authorities}
		d.config = &tls.Config{
			MinVersion: tls.VersionTLS13, GetCertificate: s.certificate(a, name), NextProtos: []string{uplink.Protocol}, SessionTicketsDisabled: true, Time: s.Now,
			ClientAuth: tls.RequestClientCert, ClientCAs: clients, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
				if len(raw) == 0 { // it enrols
					return nil
				}
				cert, err := x509.ParseCertificate(raw[0])
				if err == nil {
					_, err = d.vouched(cert, s.Now())
				}
				return err
			},
		}
		s.doors[name] = d
	}
}

// vouched are the chains by which the project's authorities vouch for an agent's certificate.
// From when that counts, the clock of the console said that gave it: if it was ahead, the agent
// would be shut out until all clocks are there. It counts from when it was given.
func (d *door) vouched(cert *x509.Certificate, now time.Time) (chains [][]*x509.Certificate, err error) {
	for _, a := range d.authorities {
		at := now
		for _, from := range []time.Time{cert.NotBefore, a.Certificate.NotBefore} {
			if at.Before(from) {
				at = from
			}
		}
		roots := x509.NewCertPool()
		roots.AddCert(a.Certificate)
		found, not := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		chains, err = append(chains, found...), errors.Join(err, not)
	}
	if len(chains) > 0 {
		return chains, nil
	}
	return nil, err
}

// Refresh reads which authorities a project has now. Where they are others, its agents'
// streams are ended: they come back, by an authority that is trusted, and are told which
// are. One that cannot be read goes on with what it had. It is for whoever has changed
// them: read by another in the middle of that, they would be others than both.
func (s *Server) Refresh(p *store.Project) {
	s.mu.Lock()
	var known *door
	for _, d := range s.doors {
		if d.project.ID == p.ID {
			known = d
		}
	}
	s.mu.Unlock()
	if known == nil {
		return
	}
	authorities, err := s.Authorities(s.ctx, p)
	if err != nil {
		return
	}
	now := &door{project: known.project, authorities: authorities}
	if slices.Equal(now.pins(), known.pins()) {
		return
	}
	s.mu.Lock()
	maps.DeleteFunc(s.doors, func(_ string, of *door) bool { return of.project.ID == p.ID })
	s.open(known.project, authorities)
	s.mu.Unlock()
	s.Log.Info("a project's authorities are others: its agents are to call again", "project", p.Name, "newest", authorities[0].Number, "trusted", len(authorities))
	s.room(known.project).hangUp()
}

// Leave ends the streams of a project that was removed, and hears its agents no more.
func (s *Server) Leave(id string) {
	s.mu.Lock()
	r := s.rooms[id]
	delete(s.rooms, id)
	maps.DeleteFunc(s.doors, func(_ string, d *door) bool { return d.project.ID == id })
	s.mu.Unlock()
	if r != nil {
		r.close() // before: who comes in between is turned away
		r.hangUp()
	}
}

// pins are those of the authorities.
func (d *door) pins() []string {
	all := make([]string, 0, len(d.authorities))
	for _, a := range d.authorities {
		all = append(all, uplink.Pin(a.Certificate))
	}
	return all
}

// certificate makes the console's certificates, each for two thirds of its life.
func (s *Server) certificate(a *authority.Authority, name string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var mu sync.Mutex
	var now *tls.Certificate
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if now != nil && now.Leaf.NotAfter.Sub(s.Now()) > authority.ServerLife/3 {
			return now, nil
		}
		fresh, err := a.Server([]string{name}, s.Now())
		if err == nil {
			now = fresh
		}
		return fresh, err
	}
}

// Wants tells whether a request came by an agent's connection.
func Wants(r *http.Request) bool { return r.TLS != nil && uplink.IsServerName(r.TLS.ServerName) }

// call is one request of an agent.
type call struct {
	*door
	w    http.ResponseWriter
	r    *http.Request
	who  uplink.Identity   // none when it enrols
	cert *x509.Certificate // none when it enrols
	// chains are by which authorities vouch for it.
	chains [][]*x509.Certificate
}

func (c *call) act(now time.Time, by string) audit.Act {
	from, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		from = c.r.RemoteAddr
	}
	return audit.Act{By: by, From: from, At: now}
}

// Handler answers agents, on connections that Wants.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+uplink.EnrolPath, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, false, s.enrol) })
	mux.HandleFunc("POST "+uplink.RenewPath, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, true, s.renew) })
	mux.HandleFunc("POST "+uplink.StreamPath, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, true, s.stream) })
	return mux
}

// errRequest says that a request makes no sense.
var errRequest = errors.New("request not valid")

// errTooMany says that there were too many tries.
var errTooMany = errors.New("too many tries: wait a minute")

// serve finds out whose agent calls and hands it on.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, known bool, then func(*call) (any, error)) {
	d, err := s.door(r.TLS.ServerName)
	var out any
	if err == nil {
		c := &call{door: d, w: w, r: r}
		if known {
			err = c.identify(s.Now())
		}
		if err == nil {
			out, err = then(c)
		}
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	if out != nil {
		s.answer(w, http.StatusOK, out)
	}
}

// identify reads who calls. TLS has verified that the certificate's key is there.
func (c *call) identify(now time.Time) (err error) {
	if len(c.r.TLS.PeerCertificates) == 0 {
		return fmt.Errorf("%w: it takes a certificate", store.ErrRefused)
	}
	c.cert = c.r.TLS.PeerCertificates[0]
	if c.chains, err = c.vouched(c.cert, now); err != nil { // others than when the connection began
		return fmt.Errorf("%w: %w", store.ErrRefused, err)
	}
	who, err := uplink.IdentityOf(c.cert)
	if err == nil && who.Project != c.project.Name {
		err = fmt.Errorf("it is of project %s", who.Project)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrRefused, err)
	}
	c.who = who
	return nil
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	code, reason := http.StatusInternalServerError, "the console could not do it: its log says why"
	for _, known := range []struct {
		is   error
		code int
	}{{store.ErrRefused, http.StatusForbidden}, {errStranger, http.StatusForbidden}, {store.ErrUnconfirmed, http.StatusServiceUnavailable}, {store.ErrPassive, http.StatusServiceUnavailable}, {errTooMany, http.StatusTooManyRequests}, {errRequest, http.StatusBadRequest}, {uplink.ErrFrame, http.StatusBadRequest}} {
		if errors.Is(err, known.is) {
			code, reason = known.code, err.Error()
			break
		}
	}
	if code == http.StatusInternalServerError && s.ctx.Err() == nil {
		s.Log.Error("an agent's request failed", "err", err)
	}
	s.answer(w, code, uplink.Refusal{Reason: reason})
}

func (s *Server) answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.Log.Debug("an answer was not taken", "err", err)
	}
}
