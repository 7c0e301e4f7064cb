package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
)

// starts is a site that notes which runs it was to begin, each once.
type starts struct {
	mu     sync.Mutex
	begun  []string
	silent bool // nothing comes of it
	tries  int
}

func (s *starts) Begin(_ context.Context, b uplink.Begin, refuse dial.Refusal) (uplink.Begun, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	switch {
	case slices.Contains(s.begun, b.ID):
		return uplink.Begun{State: uplink.Created, Why: "before"}, nil
	case refuse.Why != "":
		return uplink.Begun{State: uplink.Refused, Why: refuse.Why, Do: refuse.Do}, nil
	}
	s.begun = append(s.begun, b.ID)
	if s.silent {
		return uplink.Begun{}, errors.New("the API server went away")
	}
	return uplink.Begun{State: uplink.Created}, nil
}

func (s *starts) tried() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries
}

// starter is an agent of a site that lets the console begin some runs.
func (w *world) starter(site, runs string, s dial.Begins) *agent {
	w.t.Helper()
	l := w.link(w.token("acme", site))
	l.Runs = runs
	return w.agentFull(site, l, nil, s)
}

func (w *world) request(id, verb string) {
	w.t.Helper()
	now := w.time()
	r := store.Request{ID: id, Site: "west", Plan: "plan-" + id, Run: "run-" + id, Body: fmt.Appendf(nil, `{"verb":%q,"by":"anna@console/acme"}`, verb), Until: now.Add(2 * time.Minute)}
	if _, err := w.project("acme").Request(w.t.Context(), audit.Act{By: "user/anna", At: now}, r, "test"); err != nil {
		w.t.Fatal(err)
	}
}

// answered waits for what became of a request.
func (w *world) answered(id string) (r store.Request) {
	w.t.Helper()
	until(w.t, "answered: "+id, func() bool {
		var err error
		if r, err = w.project("acme").Requested(w.t.Context(), id); err != nil {
			w.t.Fatal(err)
		}
		return r.State != ""
	})
	return r
}

// A run is begun once, also when the console ends before it has the answer; and
// what comes after its time is not begun, though the clocks differ.
func TestBegun(t *testing.T) {
	w := newWorld(t)
	s := &starts{}
	a := w.starter("west", uplink.RunsAll, s)
	a.await(t, "connected", connected)
	w.request("one", "failover")
	if r := w.answered("one"); r.State != uplink.Created || r.Why != "" {
		t.Errorf("%+v", r)
	}
	s.mu.Lock()
	s.silent = true // the Run is made, and the answer never comes
	s.mu.Unlock()
	w.request("two", "drill")
	until(t, "tried", func() bool { return s.tried() > 1 })
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	w.pass(time.Hour)
	w.start()
	if r := w.answered("two"); r.State != uplink.Created || r.Why != "before" {
		t.Errorf("%+v", r)
	}
	// Another that was asked for while the agent was away comes too late.
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	w.request("late", "failover")
	w.pass(time.Hour)
	w.start()
	if r := w.answered("late"); r.State != uplink.Refused || r.Do == "" {
		t.Errorf("%+v", r)
	}
	// So does one that was asked for by a clock that was days ahead, when it is right again.
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	w.pass(240 * time.Hour)
	w.request("ahead", "failover")
	r, err := w.project("acme").Requested(t.Context(), "ahead")
	if err != nil || !r.Open(w.time()) {
		t.Errorf("the control: %+v, %v", r, err)
	}
	w.pass(-240 * time.Hour)
	if r.Open(w.time()) {
		t.Error("it keeps others of its plan away for ten days")
	}
	w.start()
	if r := w.answered("ahead"); r.State != uplink.Refused || r.Do == "" {
		t.Errorf("%+v", r)
	}
	if got := fmt.Sprint(s.begun); got != "[one two]" {
		t.Errorf("begun: %s", got)
	}
}

// A site that was not opened for it begins nothing, and says how to open it.
func TestClosed(t *testing.T) {
	w := newWorld(t)
	s := &starts{}
	w.starter("west", uplink.RunsDrill, s)
	w.request("one", "failover")
	if r := w.answered("one"); r.State != uplink.Refused || r.Do != dial.Allow || len(s.begun) != 0 {
		t.Errorf("%+v, begun: %v", r, s.begun)
	}
}

// brings is a site that restores what it was asked for: it says that it runs, and the
// end when it may.
type brings struct {
	mu     sync.Mutex
	begun  []string
	finish bool
	change chan struct{}
	// slow has dry runs wait for the end, too: open are under way, most were at once.
	slow       bool
	open, most int
}

func (b *brings) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finish = true
	close(b.change)
}

func (b *brings) Restore(ctx context.Context, r uplink.Restore, refuse dial.Refusal, say func(uplink.Restored)) error {
	b.mu.Lock()
	before := slices.Contains(b.begun, r.ID)
	switch {
	case !before && refuse.Why != "":
		b.mu.Unlock()
		say(uplink.Restored{State: uplink.Refused, Why: refuse.Why, Do: refuse.Do})
		return nil
	case r.DryRun:
		b.open++
		b.most = max(b.most, b.open)
		b.mu.Unlock()
		if b.slow {
			select {
			case <-b.change:
			case <-ctx.Done():
			}
		}
		b.mu.Lock()
		b.open--
		b.mu.Unlock()
		say(uplink.Restored{State: uplink.Planned, Result: []byte(`{"site":"west"}`)})
		return nil
	case !before:
		b.begun = append(b.begun, r.ID)
	}
	b.mu.Unlock()
	say(uplink.Restored{State: uplink.Running, Result: []byte(`{"step":"objects"}`)})
	select {
	case <-b.change:
	case <-ctx.Done():
		return ctx.Err()
	}
	say(uplink.Restored{State: uplink.Completed, Result: []byte(`{"restored":7}`)})
	return nil
}

// bringer is an agent of a site that lets the console restore.
func (w *world) bringer(site, restores string, r dial.Restores) *agent {
	w.t.Helper()
	l := w.link(w.token("acme", site))
	l.Restores = restores
	return w.agentWhole(site, l, nil, nil, r)
}

func (w *world) restore(id string, dry, clone bool) {
	w.t.Helper()
	w.restoreOf("shop", id, dry, clone)
}

func (w *world) restoreOf(app, id string, dry, clone bool) {
	w.t.Helper()
	now := w.time()
	r := store.Restoration{
		ID: id, Site: "west", Application: app, Point: "shop-1", Name: "restore-" + id, Dry: dry,
		Body: fmt.Appendf(nil, `{"clone":%v,"by":"anna@console/acme"}`, clone), Until: now.Add(2 * time.Minute),
	}
	if _, err := w.project("acme").Restore(w.t.Context(), audit.Act{By: "user/anna", At: now}, r, "test"); err != nil {
		w.t.Fatal(err)
	}
}

// restored waits until a restore stands as wanted.
func (w *world) restored(id, state string) (r store.Restoration) {
	w.t.Helper()
	until(w.t, id+" is "+state, func() bool {
		var err error
		if r, err = w.project("acme").Restoration(w.t.Context(), id); err != nil {
			w.t.Fatal(err)
		}
		return r.State == state
	})
	return r
}

// A restore is begun once and followed to its end, also when the console ends under
// way; what comes too late is not begun; and a dry run says what it found.
func TestRestored(t *testing.T) {
	w := newWorld(t)
	b := &brings{change: make(chan struct{})}
	a := w.bringer("west", uplink.RestoresAll, b)
	a.await(t, "connected", connected)
	w.restore("dry", true, false)
	if r := w.restored("dry", uplink.Planned); string(r.Preview) != `{"site":"west"}` || len(r.Outcome) != 0 {
		t.Errorf("%+v", r)
	}
	w.restore("one", false, false)
	w.restored("one", uplink.Running)
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	w.pass(time.Hour)
	w.start()
	b.end()
	if r := w.restored("one", uplink.Completed); string(r.Outcome) != `{"restored":7}` || len(r.Preview) != 0 {
		t.Errorf("%+v", r)
	}
	w.stop()
	a.await(t, "cut off", func(s dial.Status) bool { return !s.Connected })
	w.restore("late", false, true)
	w.pass(time.Hour)
	w.start()
	if r := w.restored("late", uplink.Refused); r.Do == "" {
		t.Errorf("%+v", r)
	}
	if got := fmt.Sprint(b.begun); got != "[one]" {
		t.Errorf("begun: %s", got)
	}
}

// Of dry runs a site has a few at a time, beside its restores, and the others when
// those are over.
func TestManyRestores(t *testing.T) {
	w := newWorld(t)
	b := &brings{change: make(chan struct{}), slow: true}
	a := w.bringer("west", uplink.RestoresAll, b)
	a.await(t, "connected", connected)
	const many, dry = 2, uplink.MostDryRuns + 3
	for i := range many {
		w.restoreOf(fmt.Sprint("app-", i), fmt.Sprint("many-", i), false, false)
	}
	for i := range dry {
		w.restore(fmt.Sprint("dry-", i), true, false)
	}
	for i := range many {
		w.restored(fmt.Sprint("many-", i), uplink.Running)
	}
	b.end()
	for i := range dry {
		w.restored(fmt.Sprint("dry-", i), uplink.Planned)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.most > uplink.MostDryRuns || len(b.begun) != many {
		t.Errorf("%d dry runs at once, %d restores", b.most, len(b.begun))
	}
}

// A site that was opened for copies restores nothing in place, and says how to open
// it; one that was not shows nothing either.
func TestRestoresClosed(t *testing.T) {
	w := newWorld(t)
	w.bringer("west", uplink.RestoresClone, &brings{change: make(chan struct{})})
	w.restore("place", false, false)
	if r := w.restored("place", uplink.Refused); r.Do != dial.AllowRestores {
		t.Errorf("%+v", r)
	}
	w.restore("copy", true, true)
	w.restored("copy", uplink.Planned) // the control
	w.restore("look", true, false)
	if r := w.restored("look", uplink.Refused); len(r.Preview) != 0 {
		t.Errorf("%+v", r)
	}
}

// What cannot be read is not kept: a page that shows it would show nothing.
func TestRestoredRefuses(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"state":"planned","result":{"objects":[]}}`: true, `{"state":"planned","result":{"objects":1}}`: false, `{"state":"running","result":{"restored":"x"}}`: false,
		`{"state":"running","result":{"restored":1}}`: true, `{"state":"burning"}`: false, `{"state":"refused","why":"no"}`: true,
	} {
		var r uplink.Restored
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		var talk talk
		if err := talk.restored(r); (err == nil) != ok || len(talk.back) > 0 != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
