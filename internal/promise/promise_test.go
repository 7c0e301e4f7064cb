package promise_test

import (
	"cmp"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/promise"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func project(t *testing.T) *vault.Project {
	t.Helper()
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	store := mem.New(nil)
	if _, err = vault.CreateProject(t.Context(), store, "acme", id.Recipient()); err != nil {
		t.Fatal(err)
	}
	p, err := vault.OpenProject(t.Context(), store, "acme", id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// site is one that answers.
type site struct {
	mu           sync.Mutex
	holds        map[string]string
	err          error
	newest, held int64
	server       promise.Server
	address      string
}

func serve(t *testing.T, k promise.Keys) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveAt(t, k, l)
}

func serveAt(t *testing.T, k promise.Keys, l net.Listener) *site {
	t.Helper()
	s := &site{}
	s.server = promise.Server{
		Holds: func(context.Context, string) (map[string]string, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.holds, s.err
		},
		Known:   func(string) (int64, int64) { return s.newest, s.held },
		Cluster: func() string { return "uid-" + k.Site }, Now: time.Now,
	}
	s.server.Learn(k)
	s.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestAPeerPromisesOrRefuses: what it answers by is read anew for each question.
func TestAPeerPromisesOrRefuses(t *testing.T) {
	p := project(t)
	other := project(t)
	east := promise.From(p, "east", "v")
	for name, c := range map[string]struct {
		before func(*site)
		keys   promise.Keys
		as     string // the peer's name
		epoch  int64
		want   string

		cluster string // the peer's
	}{
		"nothing is held":              {func(*site) {}, east, "west", 3, "", ""},
		"an older epoch is held":       {func(s *site) { s.holds = map[string]string{"shop": "3", "cart": "9"} }, east, "west", 3, "", ""},
		"a newer epoch is held":        {func(s *site) { s.holds = map[string]string{"shop": "4"} }, east, "west", 3, "epoch 4 was claimed", ""},
		"it cannot be read":            {func(s *site) { s.err = errors.New("silent") }, east, "west", 3, "cannot be read", ""},
		"it is no number":              {func(s *site) { s.holds = map[string]string{"shop": "x"} }, east, "west", 3, "is no epoch", ""},
		"a newer epoch is known":       {func(s *site) { s.newest = 4 }, east, "west", 3, "epoch 4 is known", ""},
		"it holds that epoch":          {func(s *site) { s.newest, s.held = 3, 3 }, east, "west", 3, "held 3", ""},
		"another vault":                {func(*site) {}, promise.From(p, "east", "w"), "west", 3, "not followed here", ""},
		"another project's key":        {func(*site) {}, promise.From(other, "east", "v"), "west", 3, "ask:", ""},
		"the peer is another":          {func(*site) {}, east, "south", 3, `it is site "west"`, ""},
		"it is asked by itself":        {func(*site) {}, promise.From(p, "west", "v"), "west", 3, "itself", ""},
		"no epoch":                     {func(*site) {}, east, "west", 0, "nothing was asked for", ""},
		"an older cluster of its name": {func(*site) {}, east, "west", 3, `it is cluster "uid-west"`, "uid-new"},
	} {
		s := serve(t, promise.From(p, "west", "v"))
		c.before(s)
		err := promise.All(t.Context(), c.keys, "shop", c.epoch, []fence.Peer{{Site: c.as, Cluster: cmp.Or(c.cluster, "uid-west"), Address: s.address}}, time.Now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryPeerMustPromise: one that is silent refuses, and so does nobody at all.
func TestEveryPeerMustPromise(t *testing.T) {
	p := project(t)
	east := promise.From(p, "east", "v")
	west, south := serve(t, promise.From(p, "west", "v")), serve(t, promise.From(p, "south", "v"))
	both := []fence.Peer{{Site: "west", Cluster: "uid-west", Address: west.address}, {Site: "south", Cluster: "uid-south", Address: south.address}}
	if err := promise.All(t.Context(), east, "shop", 3, both, time.Now); err != nil {
		t.Error(err)
	}
	south.mu.Lock()
	south.holds = map[string]string{"shop": "4"}
	south.mu.Unlock()
	if err := promise.All(t.Context(), east, "shop", 3, both, time.Now); !errors.Is(err, promise.ErrRefused) || !strings.Contains(err.Error(), "south") {
		t.Errorf("one refuses: %v", err)
	}
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := promise.All(ctx, east, "shop", 3, []fence.Peer{both[0], {Site: "north", Cluster: "uid-north", Address: mute.Addr().String()}}, time.Now); err == nil {
		t.Error("one is silent")
	}
	if err := promise.All(t.Context(), east, "shop", 3, nil, time.Now); err == nil {
		t.Error("nobody was asked")
	}
	if err := promise.All(t.Context(), east, "shop", 3, []fence.Peer{{Site: "north", Cluster: "uid-north", Address: west.address}}, time.Now); err == nil {
		t.Error("it is another")
	}
}

// door counts who is let in, and how many of them are in at once.
type door struct {
	net.Listener

	mu            sync.Mutex
	let, in, most int
}

type guest struct {
	net.Conn

	once  sync.Once
	leave func()
}

func (g *guest) Close() error {
	g.once.Do(g.leave)
	return g.Conn.Close()
}

func (d *door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.let, d.in = d.let+1, d.in+1
	d.most = max(d.most, d.in)
	return &guest{Conn: c, leave: func() { d.mu.Lock(); d.in--; d.mu.Unlock() }}, nil
}

func (d *door) counts() (let, most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.let, d.most
}

// TestACrowdIsLetInByParts: who only knocks takes no more of the process than a few connections, and a peer is
// answered once some of them are gone.
func TestACrowdIsLetInByParts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l}
	p := project(t)
	west := serveAt(t, promise.From(p, "west", "v"), d)
	var crowd []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", west.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		crowd = append(crowd, c)
	}
	for let := 0; let < 64; let, _ = d.counts() {
		time.Sleep(time.Millisecond) // between two looks
	}
	for _, c := range crowd {
		_ = c.Close()
	}
	if err := promise.All(t.Context(), promise.From(p, "east", "v"), "shop", 3, []fence.Peer{{Site: "west", Cluster: "uid-west", Address: west.address}}, time.Now); err != nil {
		t.Error(err)
	}
	if _, most := d.counts(); most > 64 {
		t.Errorf("%d were let in at once", most)
	}
}

// TestKeysRotate: a site that has not taken up the newest key asks and answers all the same; one that is two
// versions behind does not.
func TestKeysRotate(t *testing.T) {
	p := project(t)
	before := promise.From(p, "east", "v")
	if _, err := p.Rotate(t.Context(), vault.Rotation{}); err != nil {
		t.Fatal(err)
	}
	once := serve(t, promise.From(p, "west", "v"))
	if err := promise.All(t.Context(), before, "shop", 3, []fence.Peer{{Site: "west", Cluster: "uid-west", Address: once.address}}, time.Now); err != nil {
		t.Errorf("an older key asks: %v", err)
	}
	old := serve(t, before)
	if err := promise.All(t.Context(), promise.From(p, "west", "v"), "shop", 3, []fence.Peer{{Site: "east", Cluster: "uid-east", Address: old.address}}, time.Now); err != nil {
		t.Errorf("an older key answers: %v", err)
	}
	if _, err := p.Rotate(t.Context(), vault.Rotation{}); err != nil {
		t.Fatal(err)
	}
	twice := serve(t, promise.From(p, "west", "v"))
	if err := promise.All(t.Context(), before, "shop", 3, []fence.Peer{{Site: "west", Cluster: "uid-west", Address: twice.address}}, time.Now); err == nil {
		t.Error("a key of long ago still counts")
	}
}
