package agents

import (
	"context"
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
