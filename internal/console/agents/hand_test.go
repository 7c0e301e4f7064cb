package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
)

// hand is a site that remembers what it was handed.
type hand struct {
	mu    sync.Mutex
	all   []uplink.Document
	state string
	// gate holds answers back until it is closed; nil: there is none.
	gate chan struct{}
}

func (h *hand) Take(ctx context.Context, d uplink.Document) uplink.Told {
	h.mu.Lock()
	h.all = append(h.all, d)
	h.mu.Unlock()
	if h.gate != nil {
		select {
		case <-h.gate:
		case <-ctx.Done():
		}
	}
	if d.Gone {
		return uplink.Told{State: uplink.Gone}
	}
	return uplink.Told{State: h.state, Why: "as the test says"}
}

// got is what was handed over, in order.
func (h *hand) got() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, d := range h.all {
		name := d.Name
		if d.Gone {
			name = "-" + name
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// taker is an agent that takes documents for what it accepts.
func (w *world) taker(project, site string, accepts ...string) (*agent, *hand) {
	w.t.Helper()
	l := w.link(w.token(project, site))
	l.Documents = accepts
	h := &hand{state: uplink.Applied}
	return w.agentWith(site, l, h), h
}

func (w *world) write(project, kind, name, site string) store.Document {
	w.t.Helper()
	key := store.Key{Kind: kind, Namespace: "davit-system", Name: name}
	body := fmt.Sprintf(`{"metadata":{"annotations":{"davit.dev/sites":%q}},"spec":{"vault":"main","at":%q}}`, site, w.time())
	d, err := w.project(project).Apply(w.t.Context(), audit.Act{By: "test", At: w.time()}, key, json.RawMessage(body), store.Expect{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.pass(1)
	return d
}

func (w *world) drop(project, kind, name string) {
	w.t.Helper()
	key := store.Key{Kind: kind, Namespace: "davit-system", Name: name}
	if _, err := w.project(project).Delete(w.t.Context(), audit.Act{By: "test", At: w.time()}, key, store.Expect{}); err != nil {
		w.t.Fatal(err)
	}
}

// stand is how a project's documents stand.
func (w *world) stand(project string) string {
	w.t.Helper()
	all, err := w.server.Standings(w.t.Context(), w.project(project))
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, s := range all {
		out = append(out, s.Name+"@"+s.Site+"="+s.State)
	}
	return strings.Join(out, " ")
}

// Documents come to the sites that they are for, in order; what changed while the
// console was away comes when it is back, and nothing twice; what was deleted
// goes.
func TestHandedOver(t *testing.T) {
	w := newWorld(t)
	w.write("acme", "ProtectionPolicy", "hourly", "east")
	w.write("acme", "Application", "shop", "east")
	w.write("acme", "Application", "wiki", "west")
	a, h := w.taker("acme", "east", dial.Everywhere)
	until(t, "handed over", func() bool { return w.stand("acme") == "shop@east=applied wiki@west=waiting hourly@east=applied" })
	if got := h.got(); got != "hourly shop" {
		t.Errorf("handed over: %s", got)
	}
	w.write("acme", "Application", "shop", "east")
	until(t, "changed", func() bool {
		return h.got() == "hourly shop shop" && strings.Contains(w.stand("acme"), "shop@east=applied")
	})
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	w.write("acme", "Application", "mail", "east")
	w.drop("acme", "ProtectionPolicy", "hourly")
	w.start()
	until(t, "handed over later", func() bool { return w.stand("acme") == "mail@east=applied shop@east=applied wiki@west=waiting" })
	if got := h.got(); got != "hourly shop shop mail -hourly" {
		t.Errorf("handed over: %s", got)
	}
	// Another process of the agent has nothing yet, and is given all.
	a.stop()
	l, _ := a.keep.Load(t.Context())
	later := &hand{state: uplink.Conflict}
	w.agentWith("east", l, later)
	until(t, "handed over anew", func() bool { return w.stand("acme") == "mail@east=conflict shop@east=conflict wiki@west=waiting" })
	if got := later.got(); got != "shop mail" {
		t.Errorf("handed over: %s", got)
	}
}

// Many more documents than may be under way come all, also over a stream that
// breaks.
func TestManyDocuments(t *testing.T) {
	w := newWorld(t)
	const n = 2 * window
	for i := range n {
		w.write("acme", "Application", fmt.Sprintf("a%03d", i), "east")
	}
	l := w.link(w.token("acme", "east"))
	l.Documents = []string{dial.Everywhere}
	h := &hand{state: uplink.Applied, gate: make(chan struct{})}
	a := w.agentWith("east", l, h)
	until(t, "some", func() bool { return h.got() != "" })
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	close(h.gate)
	if got := w.stand("acme"); strings.Contains(got, "@east=applied") {
		t.Errorf("nothing broke: %s", got)
	}
	w.start()
	until(t, "all", func() bool { return strings.Count(w.stand("acme"), "@east=applied") == n })
}

// A project's agent gets nothing of another's, whatever site it says it is; and
// it can say nothing of what its site was not asked for.
func TestDocumentsApart(t *testing.T) {
	w := newWorld(t)
	w.write("other", "Application", "secret", "east")
	w.write("acme", "Application", "shop", "east")
	w.write("acme", "Application", "wiki", "west")
	_, h := w.taker("acme", "east", dial.Everywhere)
	until(t, "handed over", func() bool { return w.stand("acme") == "shop@east=applied wiki@west=waiting" })
	if got := h.got(); got != "shop" {
		t.Errorf("handed over: %s", got)
	}
	if got := w.stand("other"); got != "secret@east=waiting" {
		t.Errorf("the other project's: %s", got)
	}
	// An agent that lies about another site's document.
	wiki, err := w.project("acme").Document(t.Context(), store.Key{Kind: "Application", Namespace: "davit-system", Name: "wiki"})
	if err != nil {
		t.Fatal(err)
	}
	lie := store.Handed{Key: wiki.Key, UID: wiki.UID, Revision: wiki.Revision, State: uplink.Applied}
	if err := w.project("acme").HearAgents(t.Context(), []store.Word{{Site: "east", At: w.time(), Told: []store.Handed{lie}}}); err != nil {
		t.Fatal(err)
	}
	if got := w.stand("acme"); got != "shop@east=applied wiki@west=waiting" {
		t.Errorf("who was not asked has answered: %s", got)
	}
}

// A site takes what it said that it takes.
func TestAccepted(t *testing.T) {
	w := newWorld(t)
	w.write("acme", "Application", "shop", "east")
	w.write("acme", "Application", "shop", "west")
	w.write("acme", "ProtectionPolicy", "hourly", "east,west,north")
	_, none := w.taker("acme", "east")
	_, some := w.taker("acme", "west", "shop", "wiki")
	_, all := w.taker("acme", "north", "davit-system")
	until(t, "answered", func() bool {
		return w.stand("acme") == "shop@west=refused hourly@east=refused hourly@north=applied hourly@west=refused"
	})
	if none.got() != "" || some.got() != "" || all.got() != "hourly" {
		t.Errorf("%q %q %q", none.got(), some.got(), all.got())
	}
}

// A console that was replaced commands nobody: neither by its first word, nor in
// the middle of a stream. Without the higher epoch that was heard, the same
// words are obeyed.
func TestReplacedConsoleCommandsNobody(t *testing.T) {
	for epoch, want := range map[int64]string{0: "", 1: "shop"} {
		w := newWorld(t)
		a, h := w.taker("acme", "east", dial.Everywhere)
		a.await(t, "connected", connected)
		w.mu.Lock()
		w.speaks.Epoch = epoch
		w.mu.Unlock()
		w.write("acme", "Application", "shop", "east")
		if epoch == 0 {
			s := a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
			// By the agent, or at its next call by the console, which hears of the higher one.
			if !strings.Contains(s.Fault, dial.ErrStale.Error()) && !strings.Contains(s.Fault, "the agent has heard a console of epoch 1") {
				t.Error(s.Fault)
			}
		} else {
			until(t, "applied", func() bool { return w.stand("acme") == "shop@east=applied" })
		}
		if got := h.got(); got != want {
			t.Errorf("epoch %d: handed over %q", epoch, got)
		}
	}
}

// An agent of before, which knows no documents, is sent none.
func TestOldAgent(t *testing.T) {
	w := newWorld(t)
	w.write("acme", "Application", "shop", "east")
	a := w.agent("east", w.link(w.token("acme", "east")))
	a.Board.Put([]uplink.Object{object("shop", "Protected")})
	a.await(t, "connected", connected)
	until(t, "told", func() bool { return w.states("acme", "east") == "shop=Protected" })
	all, err := w.server.Standings(t.Context(), w.project("acme"))
	if err != nil || len(all) != 1 || all[0].State != placement.Waiting || !strings.Contains(all[0].Why, "upgrade") {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestAnswers(t *testing.T) {
	talk := &talk{call: &call{who: uplink.Identity{Site: "east"}}}
	for _, bad := range []uplink.Told{{State: "fine"}, {State: uplink.Gone}, {}} {
		if err := talk.answer(bad); !errors.Is(err, uplink.ErrFrame) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := talk.answer(uplink.Told{State: uplink.Applied, Why: strings.Repeat("x", 5000)}); err != nil || len(talk.told[0].Why) > 2048 {
		t.Error(err)
	}
}

// silence is the guard of a project whose vault can be made silent.
type silence struct {
	mu    sync.Mutex
	ends  chan struct{} // closed when it ends; nil: the vault answers
	waits int           // who wait for the vault now
}

func (s *silence) Ready() error { return nil }
func (s *silence) Wake()        {}

func (s *silence) Await(ctx context.Context, _ int64) error {
	s.mu.Lock()
	ends := s.ends
	s.waits++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waits--
	}()
	if ends == nil {
		return nil
	}
	select {
	case <-ends:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", store.ErrUnconfirmed, ctx.Err())
	}
}

// waiting is how many wait for the vault now.
func (s *silence) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waits
}

func (s *silence) set(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends != nil {
		close(s.ends)
		s.ends = nil
	}
	if silent {
		s.ends = make(chan struct{})
	}
}

// While the vault does not take what the console has on its disk, no agent is
// told anything that rests on it, also not one that comes anew: no document is
// handed over, and no event is acknowledged, for another console may take over
// that knows neither. The streams go on meanwhile.
func TestNothingBeforeTheVaultHasIt(t *testing.T) {
	w := newWorld(t)
	a, h := w.taker("acme", "east", dial.Everywhere)
	w.write("acme", "Application", "shop", "east")
	until(t, "applied", func() bool { return w.stand("acme") == "shop@east=applied" })
	vault := &silence{}
	w.console.Guards(func(*store.Project) store.Guard { return vault })
	vault.set(true)
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, err := w.project("acme").Apply(ctx, audit.Act{By: "test", At: w.time()}, store.Key{Kind: "Application", Namespace: "davit-system", Name: "wiki"},
			json.RawMessage(`{"metadata":{"annotations":{"davit.dev/sites":"east"}},"spec":{"vault":"main"}}`), store.Expect{})
		answered <- err
	}()
	until(t, "written", func() bool { return vault.waiting() == 1 })
	cancel()
	if err := <-answered; !errors.Is(err, store.ErrUnconfirmed) {
		t.Fatal(err)
	}
	until(t, "held back", func() bool { return vault.waiting() == 1 }) // its hands were woken
	if err := a.Outbox.Append(uplink.Event{Reason: "Lagging", Object: uplink.Key{Kind: "Application", Name: "shop"}}); err != nil {
		t.Fatal(err)
	}
	until(t, "kept", func() bool { return strings.Join(w.reasons("acme", "east"), " ") == "Lagging" && vault.waiting() == 2 })
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	w.start()
	a.await(t, "connected again", connected)
	// The documents, and the event that was sent again.
	until(t, "held back again", func() bool { return vault.waiting() == 2 })
	a.Board.Put([]uplink.Object{object("shop", "Protected")})
	until(t, "heard meanwhile", func() bool { return w.states("acme", "east") == "shop=Protected" })
	if got := h.got(); got != "shop" || a.Outbox.Len() != 1 {
		t.Errorf("handed over: %s; %d events are not acknowledged", got, a.Outbox.Len())
	}
	vault.set(false)
	until(t, "handed over", func() bool { return w.stand("acme") == "shop@east=applied wiki@east=applied" })
	until(t, "acknowledged", func() bool { return a.Outbox.Len() == 0 })
	if got := strings.Join(w.reasons("acme", "east"), " "); got != "Lagging" {
		t.Errorf("kept: %s", got)
	}
}
