package agents

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/quota"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/uplink/dial/dialtest"
	"davit.dev/davit/internal/uplink/outbox"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// world is a console with two projects, acme and other, that can be stopped and
// started again at its address.
type world struct {
	t       *testing.T
	console *store.Console
	roots   map[string][]*authority.Authority
	vaults  map[string]*vault.Project
	// recovery are the keys of the projects.
	recovery map[string]vault.Identity
	vault    dial.Vault // that agents ask
	mu       sync.Mutex
	now      time.Time
	ahead    time.Duration // is the clock of agents
	speaks   uplink.Console
	// leaves is what agents have left that are gone: taken up by who comes next.
	leaves  []left
	server  *Server
	address string
	stop    func()
}

// left is what one of them left.
type left struct {
	id     string
	events []uplink.Event
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	c, err := store.Create(ctx, filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, console: c, now: time.Now(), roots: map[string][]*authority.Authority{}, vaults: map[string]*vault.Project{}, recovery: map[string]vault.Identity{}, speaks: uplink.Console{Epoch: 1, Active: true}, address: "127.0.0.1:0"}
	for _, name := range []string{"acme", "other"} {
		p, key, err := consoletest.New(ctx, mem.New(nil), name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := authority.Ensure(ctx, p, key, w.now)
		if err != nil {
			t.Fatal(err)
		}
		w.roots[name] = []*authority.Authority{a}
		w.vaults[name], w.recovery[name] = p, key
		if _, err := c.CreateProject(ctx, audit.Act{By: "test", At: w.now}, name); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		w.stop()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	w.start()
	return w
}

func (w *world) time() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// root changes the authorities of a project.
func (w *world) root(name string, all []*authority.Authority) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roots[name] = all
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.server = NewServer(ctx, Options{
		Console: w.console, Now: w.time, Log: slog.New(slog.DiscardHandler),
		Authorities: func(_ context.Context, p *store.Project) ([]*authority.Authority, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.roots[p.Name], nil
		},
		Speaks: func() uplink.Console {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.speaks
		},
	})
	listener, err := net.Listen("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.address = listener.Addr().String()
	handler := w.server.Handler()
	web := &http.Server{ReadHeaderTimeout: time.Minute, ReadTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !Wants(r) {
			http.NotFound(rw, r)
			return
		}
		handler.ServeHTTP(rw, r)
	})}
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, GetConfigForClient: w.server.Config, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		w.mu.Lock()
		a := w.roots["acme"][0]
		w.mu.Unlock()
		return a.Server([]string{"localhost"}, w.time())
	}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = web.Serve(tls.NewListener(listener, config))
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		_ = web.Close()
		<-ended
		w.server.Wait()
	})
}

func (w *world) project(name string) *store.Project {
	w.t.Helper()
	p, err := w.console.Project(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) token(project, site string) uplink.Token {
	w.t.Helper()
	t, _, err := w.server.Token(w.t.Context(), w.project(project), audit.Act{By: "test", At: w.time()}, site, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// refused counts what the audit log says was refused.
func (w *world) refused(project, because string) (n int) {
	w.t.Helper()
	all, err := w.project(project).Audit(w.t.Context(), 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range all {
		if r.Action == "agent.enrol" && strings.Contains(r.Refused, because) && r.Refused != "" {
			n++
		}
	}
	return n
}

// agent is one that runs.
type agent struct {
	*dial.Client
	keep *dialtest.Keeper
	stop func()

	mu   sync.Mutex
	says dial.Status
	ch   chan struct{} // closed when says changes
}

func (w *world) agent(site string, l dial.Link) *agent { return w.agentWith(site, l, nil) }

func (w *world) agentWith(site string, l dial.Link, hands dial.Hands) *agent {
	w.t.Helper()
	return w.agentFull(site, l, hands, nil)
}

func (w *world) agentFull(site string, l dial.Link, hands dial.Hands, begins dial.Begins) *agent {
	w.t.Helper()
	return w.agentWhole(site, l, hands, begins, nil)
}

func (w *world) agentWhole(site string, l dial.Link, hands dial.Hands, begins dial.Begins, restores dial.Restores) *agent {
	w.t.Helper()
	box, err := outbox.Open(filepath.Join(w.t.TempDir(), "outbox"), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	a := &agent{keep: dialtest.Keep(l), ch: make(chan struct{})}
	a.Client = &dial.Client{
		Hands: hands, Begins: begins, Restores: restores, Site: site, Version: "v1", Vault: w.vault, Keep: a.keep, Board: dial.NewBoard(), Outbox: box, Now: func() time.Time { return w.time().Add(w.ahead) },
		Tell: func(s dial.Status) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.says = s
			close(a.ch)
			a.ch = make(chan struct{})
		},
		Pause: func(ctx context.Context, _ int) {
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		},
	}
	for _, l := range w.leaves {
		left, err := outbox.Adopt(filepath.Join(w.t.TempDir(), l.id), l.id, l.events)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = left.Close() })
		a.Left = append(a.Left, left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); a.Run(ctx) }()
	a.stop = sync.OnceFunc(func() { cancel(); <-ended; _ = box.Close() })
	w.t.Cleanup(a.stop)
	return a
}

func (w *world) link(t uplink.Token) dial.Link {
	return dial.Link{URLs: []string{"https://" + w.address}, Token: t.String()}
}

// await waits until the agent's status is as wanted.
func (a *agent) await(t *testing.T, what string, want func(dial.Status) bool) dial.Status {
	t.Helper()
	late := time.After(time.Minute)
	for {
		a.mu.Lock()
		s, ch := a.says, a.ch
		a.mu.Unlock()
		if want(s) {
			return s
		}
		select {
		case <-ch:
		case <-late:
			t.Fatalf("not %s: %+v", what, s)
		}
	}
}

func connected(s dial.Status) bool { return s.Connected }

func (a *agent) happen(t *testing.T, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := a.Outbox.Append(uplink.Event{Reason: fmt.Sprint(i), Object: uplink.Key{Kind: "Application", Name: "shop"}}); err != nil {
			t.Fatal(err)
		}
	}
}

// until waits for a condition that nothing tells of.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 60_000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond) // between two looks
	}
	t.Fatal("not " + what)
}

// reasons are the events of a site as the console keeps them.
func (w *world) reasons(project, site string) (all []string) {
	w.t.Helper()
	events, err := w.project(project).AgentEvents(w.t.Context(), site, 0, 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range events {
		var one uplink.Event
		if err := json.Unmarshal(e.Body, &one); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, one.Reason)
	}
	return all
}

func numbers(from, to int) (all []string) {
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func object(name, state string) uplink.Object {
	return uplink.Object{Key: uplink.Key{Kind: "Application", Namespace: "davit-system", Name: name}, VaultName: name, State: state}
}

// states are what the console knows of a site's objects.
func (w *world) states(project, site string) string {
	var all []string
	for _, a := range w.server.Known(w.project(project)) {
		if a.Site == site {
			for _, o := range a.Objects {
				all = append(all, o.Name+"="+o.State)
			}
		}
	}
	return strings.Join(all, " ")
}

// What agents say arrives; and while the console is away, nothing waits for it,
// and all of it arrives later, in order and once.
func TestConsoleAway(t *testing.T) {
	w := newWorld(t)
	a := w.agent("east", w.link(w.token("acme", "east")))
	a.Board.Put([]uplink.Object{object("shop", "Protected"), object("wiki", "Lagging")})
	a.happen(t, 1, 3)
	a.await(t, "connected", connected)
	until(t, "told", func() bool {
		return w.states("acme", "east") == "shop=Protected wiki=Lagging" && len(w.reasons("acme", "east")) == 3
	})
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	a.happen(t, 4, 800)
	a.Board.Put([]uplink.Object{object("shop", "Lagging")})
	w.start()
	if got := w.states("acme", "east"); got != "shop=Protected wiki=Lagging" {
		t.Errorf("a console that begins anew has forgotten: %s", got)
	}
	a.await(t, "connected again", connected)
	until(t, "told", func() bool { return w.states("acme", "east") == "shop=Lagging" && a.Outbox.Len() == 0 })
	a.Board.Put([]uplink.Object{object("shop", "Protected")})
	until(t, "told of a change", func() bool { return w.states("acme", "east") == "shop=Protected" })
	if got := w.reasons("acme", "east"); !slices.Equal(got, numbers(1, 800)) {
		t.Errorf("not in order and once: %d events", len(got))
	}
	if l, _ := a.keep.Load(t.Context()); l.Token != "" || l.Epoch != 1 {
		t.Error("the token is still there, or no epoch is")
	}
	if got := w.states("other", "east"); got != "" {
		t.Error(got)
	}
}

// An answer that was lost is no loss, also of events: what is sent twice is kept once.
func TestTwice(t *testing.T) {
	w := newWorld(t)
	p := w.project("acme")
	events := []store.SentEvent{{Seq: 1, Body: []byte(`{"reason":"1"}`)}, {Seq: 2, Body: []byte(`{"reason":"2"}`)}}
	for range 2 {
		if err := p.HearAgents(t.Context(), []store.Word{{Site: "east", Outbox: "a", Events: events}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.reasons("acme", "east"); !slices.Equal(got, numbers(1, 2)) {
		t.Error(got)
	}
	if err := p.HearAgents(t.Context(), []store.Word{{Site: "east", Outbox: "b", Events: events}}); err != nil {
		t.Fatal(err)
	}
	if got := w.reasons("acme", "east"); len(got) != 4 {
		t.Error("another outbox is the same one", got)
	}
}

// What an agent has left that is gone, and not all of which it knew to have arrived, comes
// once and in order all the same, under its name; told as one's own, it would come twice.
func TestLeft(t *testing.T) {
	w := newWorld(t)
	a := w.agent("east", w.link(w.token("acme", "east")))
	a.happen(t, 1, 3)
	a.await(t, "connected", connected)
	until(t, "told", func() bool { return len(w.reasons("acme", "east")) == 3 })
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	a.happen(t, 4, 800)
	var kept []uplink.Event // with two that the console has
	for i := 2; i <= 800; i++ {
		kept = append(kept, uplink.Event{Seq: int64(i), Reason: fmt.Sprint(i)})
	}
	id := a.Outbox.ID()
	a.stop()
	l, err := a.keep.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	w.leaves = []left{{strings.Repeat("e", 32), []uplink.Event{{Seq: 1, Reason: "first"}}}, {id, kept}}
	b := w.agent("east", l)
	b.happen(t, 801, 900)
	until(t, "told", func() bool { return b.Outbox.Len() == 0 && len(w.reasons("acme", "east")) >= 901 })
	want := append(append(numbers(1, 3), "first"), numbers(4, 900)...)
	if got := w.reasons("acme", "east"); !slices.Equal(got, want) {
		t.Errorf("not in order and once: %d events, %v", len(got), got[:min(len(got), 8)])
	}
	// The negative control.
	for _, e := range kept {
		if err := b.Outbox.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "twice", func() bool { return len(w.reasons("acme", "east")) == 901+799 })
}

// A token counts once, for its site and project, and for its time; what is
// refused is noted.
func TestTokens(t *testing.T) {
	w := newWorld(t)
	refused := func(what, project, because, site string, l dial.Link) {
		t.Helper()
		before := w.refused(project, because)
		a := w.agent(site, l)
		s := a.await(t, "refused: "+what, func(s dial.Status) bool { return s.Fault != "" })
		if s.Connected || !strings.Contains(s.Fault, because) {
			t.Errorf("%s: %+v", what, s)
		}
		a.stop()
		if w.refused(project, because) == before {
			t.Errorf("%s: not noted", what)
		}
	}
	used := w.token("acme", "east")
	first := w.agent("east", w.link(used))
	first.await(t, "connected", connected)
	refused("used twice", "acme", "used already", "east", w.link(used))
	refused("another site", "acme", "another site", "west", w.link(w.token("acme", "east")))
	foreign := w.token("other", "east")
	foreign.Pin, foreign.Project = used.Pin, "acme"
	refused("another project", "acme", "no such token", "east", w.link(foreign))
	forged := w.token("acme", "east")
	forged.Secret = strings.Repeat("0", 64)
	refused("another secret", "acme", "no such token", "east", w.link(forged))
	late := w.token("acme", "late")
	w.pass(2 * time.Hour)
	refused("too late", "acme", "expired", "late", w.link(late))
	// The first agent is still the one that was let in.
	if l, _ := first.keep.Load(t.Context()); len(l.Certificate) == 0 {
		t.Error("it has no certificate")
	}
}

// Of a project that may have no more sites only who has a good token is told so: who has
// none learns nothing of it.
func TestQuotaIsNoNewsToStrangers(t *testing.T) {
	w := newWorld(t)
	good := w.token("acme", "west")
	w.agent("east", w.link(w.token("acme", "east"))).await(t, "connected", connected)
	if err := quota.Set(t.Context(), w.project("acme"), audit.Act{By: "user/anna", At: w.time()}, quota.Numbers{Agents: 1}, nil); err != nil {
		t.Fatal(err)
	}
	forged := good
	forged.Secret = strings.Repeat("0", 64)
	for because, token := range map[string]uplink.Token{"no such token": forged, "may have 1": good} {
		a := w.agent("west", w.link(token))
		s := a.await(t, "refused: "+because, func(s dial.Status) bool { return s.Fault != "" })
		a.stop()
		if s.Connected || !strings.Contains(s.Fault, because) || w.refused("acme", because) == 0 {
			t.Errorf("%s: %+v", because, s)
		}
	}
}

// Who has the token cannot be told a false console, and who tries too often waits.
func TestPinAndLimit(t *testing.T) {
	w := newWorld(t)
	good := w.token("acme", "east")
	wrong := good
	wrong.Pin = strings.Repeat("0", 64)
	a := w.agent("east", w.link(wrong))
	a.await(t, "refused", func(s dial.Status) bool { return s.Fault != "" })
	a.stop()
	if l, _ := a.keep.Load(t.Context()); len(l.Certificate) > 0 || w.refused("acme", "") > 0 {
		t.Error("the token was sent to a console with another authority")
	}
	bad := good
	bad.Secret = strings.Repeat("0", 64)
	b := w.agent("east", w.link(bad))
	b.await(t, "limited", func(s dial.Status) bool { return strings.Contains(s.Fault, "too many tries") })
	b.stop()
	if n := w.refused("acme", ""); n > 11 {
		t.Errorf("%d tries were looked at", n)
	}
}

// enrolled returns the link of an agent that was let in.
func (w *world) enrolled(project, site string) dial.Link {
	w.t.Helper()
	a := w.agent(site, w.link(w.token(project, site)))
	a.await(w.t, "connected", connected)
	a.stop()
	l, err := a.keep.Load(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// An agent of one project is no agent of another, whatever it calls.
func TestProjectsApart(t *testing.T) {
	w := newWorld(t)
	l := w.enrolled("acme", "east")
	l.Authorities = [][]byte{w.roots["other"][0].Certificate.Raw} // it calls the other one
	a := w.agent("east", l)
	a.Board.Put([]uplink.Object{object("shop", "Protected")})
	s := a.await(t, "refused", func(s dial.Status) bool { return s.Fault != "" })
	if got := w.server.Known(w.project("other")); len(got) > 0 || s.Connected {
		t.Errorf("the other project hears it: %+v, %+v", got, s)
	}
	// The negative control: the same with the authority that gave the certificate.
	l.Authorities = [][]byte{w.roots["acme"][0].Certificate.Raw}
	b := w.agent("east", l)
	b.await(t, "connected", connected)
}

// A certificate is made anew after a third of its life, by a newer authority if
// there is one by then; agents that know the former one alone still come.
func TestRenewalAndOverlap(t *testing.T) {
	w := newWorld(t)
	l := w.enrolled("acme", "east")
	key, cert := l.Key, l.Certificate
	p, recovery, err := consoletest.New(t.Context(), mem.New(nil), "acme")
	if err != nil {
		t.Fatal(err)
	}
	second, err := authority.Ensure(t.Context(), p, recovery, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(9 * 24 * time.Hour)
	a := w.agent("east", l)
	a.await(t, "connected", connected)
	a.stop()
	if l, _ = a.keep.Load(t.Context()); !slices.Equal(l.Certificate, cert) {
		t.Error("it was renewed too early")
	}
	w.pass(2 * 24 * time.Hour)
	w.roots["acme"] = []*authority.Authority{second, w.roots["acme"][0]}
	w.server.Refresh(w.project("acme"))
	b := w.agent("east", l)
	b.await(t, "connected", connected)
	b.stop()
	if l, _ = b.keep.Load(t.Context()); slices.Equal(l.Key, key) || slices.Equal(l.Certificate, cert) || len(l.Authorities) != 2 || !slices.Equal(l.Authorities[0], second.Certificate.Raw) {
		t.Error("it was not renewed, or does not know the newer authority")
	}
	// A console that has the former authority alone, as from a backup, is found too.
	w.roots["acme"] = w.roots["acme"][:1]
	w.server.Refresh(w.project("acme"))
	c := w.agent("east", l)
	c.await(t, "connected", connected)
	c.stop()
	w.pass(40 * 24 * time.Hour)
	d := w.agent("east", l)
	d.await(t, "told to enrol", func(s dial.Status) bool { return strings.Contains(s.Fault, dial.ErrEnrol.Error()) })
}

// A site that was enrolled anew or removed is not spoken for by its old agent; a
// new console, which knows none, takes up what its authority signed.
func TestEnrolledAnew(t *testing.T) {
	w := newWorld(t)
	old := w.enrolled("acme", "east")
	w.pass(time.Second)
	l := w.enrolled("acme", "east")
	a := w.agent("east", old)
	a.await(t, "refused", func(s dial.Status) bool { return strings.Contains(s.Fault, "enrolled anew") })
	a.stop()
	act := audit.Act{By: "test", At: w.time()}
	if err := w.project("acme").RemoveAgent(t.Context(), act, "east"); err != nil {
		t.Fatal(err)
	}
	b := w.agent("east", l)
	b.await(t, "refused", func(s dial.Status) bool { return strings.Contains(s.Fault, "removed") })
	b.stop()
	if err := w.project("acme").AdmitAgent(t.Context(), act, "west", uplink.Enrolment(w.time(), strings.Repeat("0", 16), "")); err != nil {
		t.Error("a new console does not go on with the old certificates:", err)
	}
}

// What a console gave by a clock that was days ahead is neither refused until all clocks are
// there, nor good for as much longer.
func TestGivenAhead(t *testing.T) {
	const ahead = 10 * 24 * time.Hour
	w := newWorld(t)
	w.pass(ahead)
	l, unused := w.enrolled("acme", "east"), w.token("acme", "west")
	w.pass(-ahead)
	cert, err := x509.ParseCertificate(l.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.roots["acme"][0].Certificate)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: w.time(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the control: by its dates the certificate counts")
	}
	a := w.agent("east", l)
	a.await(t, "connected", connected)
	a.stop()
	b := w.agent("west", w.link(unused))
	b.await(t, "refused", func(s dial.Status) bool { return strings.Contains(s.Fault, "expired") })
	b.stop()
	c := w.agent("east", w.link(w.token("acme", "east")))
	c.await(t, "connected anew", connected)
	c.stop()
	d := w.agent("east", l)
	d.await(t, "refused", func(s dial.Status) bool { return strings.Contains(s.Fault, "enrolled anew") })
}

// A certificate that a console gives by a clock that is so far behind that it is over is not
// taken: the former, and the token, serve until the clock is right.
func TestGivenFarBehind(t *testing.T) {
	const day = 24 * time.Hour
	w := newWorld(t)
	l := w.enrolled("acme", "east")
	w.pass(11*day - 40*day) // it is to be renewed
	w.ahead = 40 * day
	a := w.agent("east", l)
	a.await(t, "connected", connected)
	a.stop()
	if same, _ := a.keep.Load(t.Context()); !slices.Equal(same.Certificate, l.Certificate) {
		t.Error("it took a certificate that is over")
	}
	b := w.agent("west", w.link(w.token("acme", "west")))
	b.await(t, "told why", func(s dial.Status) bool { return strings.Contains(s.Fault, "its clock is wrong") })
	b.stop()
	if kept, _ := b.keep.Load(t.Context()); kept.Token == "" || len(kept.Certificate) != 0 {
		t.Error("it let go of its token for a certificate that is over")
	}
	w.pass(w.ahead)
	w.ahead = 0
	c := w.agent("east", l)
	c.await(t, "connected", connected)
	c.stop()
	renewed, err := c.keep.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if cert, err := x509.ParseCertificate(renewed.Certificate); err != nil || cert.NotAfter.Before(w.time().Add(29*day)) {
		t.Errorf("the control: when the clock is right it is not renewed: %v", err)
	}
}

// late is what an agent sends; something happens before its first word.
type late struct {
	before func()
	io.Reader
}

func (l *late) Read(p []byte) (int, error) {
	if l.before != nil {
		l.before()
		l.before = nil
	}
	return l.Reader.Read(p)
}

// An agent that is removed between its admission and its entry does not get in.
func TestRemovedOnItsWayIn(t *testing.T) {
	w := newWorld(t)
	p, act := w.project("acme"), audit.Act{By: "test", At: w.time()}
	who := uplink.Identity{Project: "acme", Site: "east", Enrolment: uplink.Enrolment(w.time(), strings.Repeat("0", 16), "")}
	for _, removed := range []bool{true, false} {
		if err := p.AdmitAgent(t.Context(), act, who.Site, who.Enrolment); err != nil {
			t.Fatal(err)
		}
		var hello bytes.Buffer
		if err := uplink.Write(&hello, uplink.Up{Hello: &uplink.Hello{Outbox: "o", Version: "test"}}); err != nil {
			t.Fatal(err)
		}
		body := &late{Reader: &hello}
		if removed {
			body.before = func() {
				if err := p.RemoveAgent(t.Context(), act, who.Site); err != nil {
					t.Error(err)
				}
				w.server.Remove(p, who.Site) // as the API does: there is no stream yet
			}
		}
		answer := httptest.NewRecorder()
		_, err := w.server.stream(&call{
			door: &door{project: p, authorities: w.roots["acme"]}, w: answer, r: httptest.NewRequestWithContext(t.Context(), http.MethodPost, uplink.StreamPath, body), who: who, cert: &x509.Certificate{},
		})
		if removed != (err != nil) || removed != (answer.Body.Len() == 0) || removed && !strings.Contains(err.Error(), "removed") {
			t.Errorf("removed: %v, but: %v, %q", removed, err, answer.Body)
		}
		if known := w.server.Known(p); removed && len(known) > 0 {
			t.Errorf("it is among the project's agents: %+v", known)
		}
		who.Enrolment = uplink.Enrolment(w.time().Add(time.Minute), strings.Repeat("1", 16), "") // enrolled anew
	}
}

// Nobody listens to a console that another one has replaced.
func TestStaleConsole(t *testing.T) {
	w := newWorld(t)
	l := w.enrolled("acme", "east")
	l.Epoch = 2
	a := w.agent("east", l)
	a.await(t, "refused", func(s dial.Status) bool { return strings.Contains(s.Fault, "epoch") })
	a.stop()
	w.mu.Lock()
	w.speaks = uplink.Console{Epoch: 2}
	w.mu.Unlock()
	b := w.agent("east", l)
	b.await(t, "refused", func(s dial.Status) bool { return strings.Contains(s.Fault, "not the active one") })
	b.stop()
	w.mu.Lock()
	w.speaks.Active = true
	w.mu.Unlock()
	c := w.agent("east", l)
	c.await(t, "connected", connected)
}

// A console that stalls, or is none, holds nothing up; the way to another one is
// found.
func TestGarbage(t *testing.T) {
	w := newWorld(t)
	l := w.enrolled("acme", "east")
	stall, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stall.Close()
	go func() {
		for {
			c, err := stall.Accept()
			if err != nil {
				return
			}
			if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n{}\n")); err != nil {
				_ = c.Close()
			}
		}
	}()
	l.URLs = []string{"https://" + stall.Addr().String(), l.URLs[0]}
	a := w.agent("east", l)
	a.happen(t, 1, 500) // returns, whatever the console does
	a.await(t, "connected", connected)
	until(t, "told", func() bool { return slices.Equal(w.reasons("acme", "east"), numbers(1, 500)) })
}

// The pages' door is none for agents, and theirs none for anyone else.
func TestDoors(t *testing.T) {
	w := newWorld(t)
	for name, certs := range map[string]bool{uplink.ServerName(uplink.Pin(w.roots["acme"][0].Certificate)): true, "localhost": false} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: name, InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		client := &http.Client{Transport: transport, Timeout: time.Minute}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+w.address+uplink.StreamPath, strings.NewReader("{}\n"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		want := http.StatusNotFound
		if certs {
			want = http.StatusForbidden
		}
		if err := answer.Body.Close(); err != nil || answer.StatusCode != want {
			t.Errorf("%s: %d", name, answer.StatusCode)
		}
		transport.CloseIdleConnections()
	}
	if _, err := w.server.Config(&tls.ClientHelloInfo{ServerName: uplink.ServerName(strings.Repeat("1", 64))}); !errors.Is(err, errStranger) {
		t.Error(err)
	}
}

// An agent that is connected goes over to another authority at once, and when the former
// one is retired it is in still, and trusts that no more. One that never went over is out.
func TestGoesOver(t *testing.T) {
	w := newWorld(t)
	p, recovery := w.vaults["acme"], w.recovery["acme"]
	l, away := w.enrolled("acme", "east"), w.enrolled("acme", "west")
	a := w.agent("east", l)
	a.await(t, "connected", connected)
	knows := func(what string, certificates ...*x509.Certificate) {
		t.Helper()
		a.await(t, what, func(s dial.Status) bool {
			l, err := a.keep.Load(t.Context())
			return err == nil && s.Connected && slices.EqualFunc(l.Authorities, certificates, func(raw []byte, c *x509.Certificate) bool { return slices.Equal(raw, c.Raw) })
		})
	}
	old := w.roots["acme"][0]
	both, err := authority.Rotate(t.Context(), p, recovery, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.root("acme", both.Trusted())
	w.server.Refresh(w.project("acme"))
	knows("over", both.Certificate, old.Certificate)
	over := func(site string, want int64) {
		t.Helper()
		if n, err := Issuer(t.Context(), w.project("acme"), site); err != nil || n != want {
			t.Errorf("%s came by authority %d, %v; want %d", site, n, err, want)
		}
	}
	over("east", 2)
	over("west", 0) // it has not called
	both, err = authority.Retire(t.Context(), p, recovery, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.root("acme", both.Trusted())
	w.server.Refresh(w.project("acme"))
	knows("alone", both.Certificate)
	b := w.agent("west", away)
	b.await(t, "shut out, and told what helps", func(s dial.Status) bool { return strings.Contains(s.Fault, "enrol the site anew") && !s.Connected })
}

// What one project takes up is no look at another's, which may be half written: agents
// would be told what neither was nor is to be.
func TestRefreshIsOfOneProject(t *testing.T) {
	w := newWorld(t)
	w.agent("east", w.link(w.token("other", "east"))).await(t, "connected", connected)
	was := w.roots["other"]
	w.root("other", []*authority.Authority{was[0], was[0]})
	pins := func() int {
		d, err := w.server.door(uplink.ServerName(uplink.Pin(was[0].Certificate)))
		if err != nil {
			t.Fatal(err)
		}
		return len(d.pins())
	}
	w.server.Refresh(w.project("acme"))
	if n := pins(); n != 1 {
		t.Errorf("%d authorities of another project", n)
	}
	w.server.Refresh(w.project("other")) // the control
	if n := pins(); n != 2 {
		t.Errorf("%d authorities of the project itself", n)
	}
}
