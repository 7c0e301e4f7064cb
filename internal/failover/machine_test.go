package failover

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

var origin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// rig carries a run: it answers every effect as if all went well, unless told
// otherwise, and lets time pass when nothing else happens.
type rig struct {
	t       *testing.T
	m       *Machine
	now     time.Duration
	records [][]Entry
	did     []string // "act scale/shop", "undo …", and refusals
	facts   *Facts
	// answer overrides; nil leaves it to the rig, an empty Kind gives no answer.
	answer func(e Effect) *Event
	hold   bool // give the journal no answer
}

func lease() plan.Fence {
	return plan.Fence{Timeout: 10 * time.Second, Lease: 15 * time.Second, Bound: 5 * time.Second}
}

func newRig(t *testing.T, verb plan.Verb, change func(p *plan.Plan, s *Spec)) *rig {
	t.Helper()
	p := &plan.Plan{Name: "p", Sites: []plan.Site{{Name: "east"}, {Name: "west"}}, Applications: []plan.Application{{Name: "shop"}, {Name: "cart"}}, Fence: plan.Fence{Timeout: 10 * time.Second}}
	s := Spec{Run: "r", Plan: "p", Verb: verb, From: "east", To: "west", By: "ann", At: origin, LostAt: origin.Add(-time.Second), Accept: TimedOut, Applications: []string{"cart", "shop"}}
	if verb == plan.Restore {
		s.To = "east"
	}
	if change != nil {
		change(p, &s)
	}
	g, err := p.Graph(verb)
	if err != nil {
		t.Fatal(err)
	}
	s.Steps, s.Fence = g.Steps, p.Fence
	m, err := New("e1", s)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, m: m, now: time.Hour, facts: &Facts{
		Epochs:  map[string]Held{"shop": {4, "east"}, "cart": {7, "east"}},
		Holders: map[string][]string{"shop": {"east"}, "cart": {"east"}},
	}}
	if verb == plan.Restore {
		r.facts.Holders = nil
	}
	return r
}

// tell steps the machine, and answers what it wants until it wants nothing.
func (r *rig) tell(e Event) {
	r.t.Helper()
	queue := []Event{e}
	for n := 0; len(queue) > 0; n++ {
		if n > 10000 {
			r.t.Fatalf("no end: %v", r.did[max(0, len(r.did)-20):])
		}
		e, queue = queue[0], queue[1:]
		for _, f := range r.m.Step(Moment{Mono: r.now, Wall: origin.Add(r.now - time.Hour)}, e) {
			if a := r.reply(f); a != nil && a.Kind != "" {
				a.ID = f.ID
				queue = append(queue, *a)
			}
		}
	}
}

func (r *rig) reply(f Effect) *Event {
	switch {
	case f.Action == Append:
		if r.hold {
			return nil
		}
		r.records = append(r.records, f.Entries)
		return &Event{Kind: Recorded}
	case f.Action == Refuse:
		r.did = append(r.did, "refuse "+f.Why)
		return nil
	case f.Action == Halt:
		r.did = append(r.did, "halt "+f.Why)
		return nil
	case f.Step != nil && f.Action != Look:
		r.did = append(r.did, string(f.Action)+" "+f.Step.Name)
	}
	if r.answer != nil {
		if a := r.answer(f); a != nil {
			return a
		}
	}
	return r.well(f)
}

// well is the answer when all goes well.
func (r *rig) well(f Effect) *Event {
	switch f.Action {
	case Evaluate:
		return &Event{Kind: Gathered, Facts: r.facts}
	case Verify:
		return &Event{Kind: Surveyed, Outcome: Done}
	case Look:
		return &Event{Kind: Looked, Outcome: NotDone}
	}
	a := &Event{Kind: Acted, Outcome: Done}
	switch f.Step.Kind {
	case plan.KindClaim:
		a.Epoch = f.Token.Epochs[f.Step.Application]
		if f.Action == Undo {
			a.Epoch++
		}
	case plan.KindFence:
		app := f.Step.Application
		a.Proofs = []Proof{{app, "east", f.Token.Epochs[app], "stopped"}}
	case plan.KindRestore:
		a.Point = &Point{"p1", origin.Add(-31 * time.Second)}
	case plan.KindSync:
		a.Point = &Point{"p2", origin.Add(time.Second)}
	}
	return a
}

// run lets time pass until the run is in a phase.
func (r *rig) run(until ...Phase) *rig {
	r.t.Helper()
	r.tell(Event{Kind: Begin})
	r.pass(until...)
	return r
}

func (r *rig) pass(until ...Phase) {
	r.t.Helper()
	for range 1000 {
		if slices.Contains(until, r.m.Phase()) {
			return
		}
		d := r.m.Deadline()
		if d == 0 {
			break
		}
		r.now = d
		r.tell(Event{Kind: Tick})
	}
	r.t.Fatalf("the run is %s (%v), want %v; did %v", r.m.Phase(), r.m.Waits(), until, r.did)
}

func (r *rig) says(kind EventKind, change func(e *Event)) string {
	r.t.Helper()
	before := len(r.did)
	e := Event{Kind: kind, By: "bob"}
	if change != nil {
		change(&e)
	}
	r.tell(e)
	for _, did := range r.did[before:] {
		if why, refused := strings.CutPrefix(did, "refuse "); refused {
			return why
		}
	}
	return ""
}

func (r *rig) order(names ...string) {
	r.t.Helper()
	last := -1
	for _, name := range names {
		i := slices.Index(r.did, name)
		if i <= last {
			r.t.Errorf("%q is not there or too early in %v", name, r.did)
		}
		last = i
	}
}

func (r *rig) never(name string) {
	r.t.Helper()
	if slices.Contains(r.did, name) {
		r.t.Errorf("%q in %v", name, r.did)
	}
}

// for_ answers effects of one action and step.
func answerTo(a Action, step string, e Event) func(f Effect) *Event {
	return func(f Effect) *Event {
		if f.Action == a && f.Step != nil && f.Step.Name == step {
			return &e
		}
		return nil
	}
}

func TestFailover(t *testing.T) {
	r := newRig(t, plan.Failover, nil).run(AwaitingCommit)
	r.order("act claim/cart", "act claim/shop", "act fence/cart", "act apply/cart", "act scale/cart", "act ready/cart")
	if why := r.says(Commit, nil); why != "" || r.m.Phase() != Completed || r.m.Waits() != nil {
		t.Errorf("commit: %s, %s", why, r.m.Phase())
	}
	res := r.m.State().Result()
	a := res.Applications[1]
	if res.State != Completed || res.Level != "proven" || a.Name != "shop" || a.Epoch != 5 || a.RPO != 30*time.Second || !a.RPOKnown || a.Fences["east"] != "proven" || a.Lossless {
		t.Errorf("result %+v", res)
	}
	if why := r.says(RollBack, nil); !strings.Contains(why, "the run is over") {
		t.Errorf("roll back after the end: %s", why)
	}
}

// TestRTO lets the workloads take a while, by a clock that people see.
func TestRTO(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.answer = func(f Effect) *Event {
		if f.Action == Act && f.Step.Kind == plan.KindReady && r.now < time.Hour+42*time.Second {
			return &Event{Kind: Acted, Outcome: NoAnswer}
		}
		return nil
	}
	r.run(AwaitingCommit)
	res := r.m.State().Result()
	if rto := res.Applications[0].RTO; rto < 42*time.Second || rto > 50*time.Second {
		t.Errorf("RTO %s", rto)
	}
	for _, s := range res.Steps {
		if s.Name == "ready/shop" && (s.Took < 42*time.Second || s.Attempts < 2) {
			t.Errorf("ready/shop = %+v", s)
		}
	}
}

func TestRefusedBeforeAnythingChanges(t *testing.T) {
	for name, test := range map[string]struct {
		facts Facts
		want  string
		phase Phase
	}{
		"preflight":  {Facts{Problems: []string{"no room"}}, "no room", Failed},
		"elsewhere":  {Facts{Epochs: map[string]Held{"shop": {4, "south"}, "cart": {7, "east"}}}, `shop is not at site east but at "south", by epoch 4: run from there`, Failed},
		"no epoch":   {Facts{Epochs: map[string]Held{"shop": {4, "east"}}}, "nobody could say which site holds cart: look at the vault", Failed},
		"two active": {Facts{Split: "both run it"}, "both run it", SplitBrain},
	} {
		r := newRig(t, plan.Failover, nil)
		r.facts = &test.facts
		r.run(test.phase)
		if len(r.did) > 0 || r.m.State().Result().Why != test.want {
			t.Errorf("%s: did %v, says %q, want %q", name, r.did, r.m.State().Result().Why, test.want)
		}
	}
}

// TestDeadSourceUnderALease: nothing is activated a nanosecond before the
// lease and the time to stop are over, counted from the claim and the hold.
func TestDeadSourceUnderALease(t *testing.T) {
	r := newRig(t, plan.Failover, func(p *plan.Plan, _ *Spec) {
		p.Declaration = plan.Declaration{Automatic: true, Vantages: []string{"a", "b", "c"}, Agree: 2, For: time.Minute, Block: 1}
		p.Fence = lease()
	})
	r.facts.Terms = map[string]plan.Fence{"east": {Lease: 15 * time.Second, Bound: 8 * time.Second}} // longer than the plan's
	var held, activated time.Duration
	r.answer = func(f Effect) *Event {
		switch {
		case f.Step == nil:
		case f.Step.Kind == plan.KindFence:
			return &Event{} // the dead say nothing
		case f.Step.Kind == plan.KindHold && f.Action == Act && r.now < time.Hour+3*time.Second:
			return &Event{Kind: Acted, Outcome: NoAnswer}
		case f.Step.Kind == plan.KindHold && f.Action == Act:
			held = r.now
		case f.Step.Activates() && activated == 0:
			activated = r.now
		}
		return nil
	}
	r.run(AwaitingCommit)
	if activated-held < 23*time.Second || activated-held > 23*time.Second+Patience {
		t.Errorf("activated %s after the hold, want 23s", activated-held)
	}
	if res := r.m.State().Result(); res.Level != "timed-out lease" {
		t.Errorf("level %q", res.Level)
	}
}

// What was said of a lost site with the order stands in the journal's first
// entry: it needs nobody to say it again, whoever carries the run.
func TestALossThatWasSaidWithTheOrder(t *testing.T) {
	silent := func(f Effect) *Event {
		if f.Step != nil && f.Step.Kind == plan.KindFence {
			return &Event{Kind: Looked, Outcome: NoAnswer}
		}
		return nil
	}
	lost := func(site string) func(*plan.Plan, *Spec) {
		return func(_ *plan.Plan, s *Spec) { s.Lost = []string{site} }
	}
	r := newRig(t, plan.Failover, lost("east"))
	r.answer = silent
	r.run(AwaitingCommit)
	if res := r.m.State().Result(); res.Level != "none (forced)" {
		t.Errorf("level %q", res.Level)
	}
	r = newRig(t, plan.Failover, lost("estate"))
	r.run(Failed)
	r.never("act claim/shop")
	if _, err := New("e1", Spec{Run: "r", Verb: plan.Switchover, From: "east", To: "west", By: "ann", Accept: TimedOut, Lost: []string{"east"}, Applications: []string{"shop"}}); err == nil || !strings.Contains(err.Error(), "fail over from one that is lost") {
		t.Errorf("a planned move from a lost site: %v", err)
	}
}

// TestDeadSourceWithoutALease asks a person, and takes nothing less than the
// site's name.
func TestDeadSourceWithoutALease(t *testing.T) {
	silent := func(f Effect) *Event {
		if f.Step != nil && f.Step.Kind == plan.KindFence {
			return &Event{Kind: Looked, Outcome: NoAnswer}
		}
		return nil
	}
	r := newRig(t, plan.Failover, nil)
	r.answer = silent
	r.run(Paused)
	for _, never := range []string{"act apply/shop", "act scale/shop"} {
		r.never(never)
	}
	r.order("act data/shop") // this may come before
	if waits := r.m.Waits(); !strings.Contains(strings.Join(waits, " "), "nothing proves that site east has stopped") {
		t.Errorf("waits: %v", waits)
	}
	for site, text := range map[string]string{"east": "yes", "west": "west"} {
		if why := r.says(Consent, func(e *Event) { e.Site, e.Text = site, text }); why == "" {
			t.Errorf("consent of %s with %q was enough", site, text)
		}
	}
	if why := r.says(Skip, func(e *Event) { e.Step = "fence/shop" }); !strings.Contains(why, "cannot be skipped") {
		t.Errorf("skip: %s", why)
	}
	if why := r.says(Consent, func(e *Event) { e.Site, e.Text, e.Note = "east", "east", "its power is off" }); why != "" {
		t.Fatal(why)
	}
	if !slices.ContainsFunc(slices.Concat(r.records...), func(e Entry) bool { return e.Kind == Consented && e.Note == "its power is off" }) {
		t.Errorf("what was said with it is not in the journal: %+v", r.records)
	}
	r.pass(AwaitingCommit)
	if res := r.m.State().Result(); res.Level != "none (forced)" {
		t.Errorf("level %q", res.Level)
	}
	// The source comes back while the run waits: its proof is taken.
	r = newRig(t, plan.Failover, nil)
	r.answer = silent
	r.run(Paused)
	r.answer = func(f Effect) *Event {
		if f.Step != nil && f.Step.Kind == plan.KindFence {
			return &Event{Kind: Looked, Outcome: Done, Proofs: []Proof{{f.Step.Application, "east", 9, "stopped"}}}
		}
		return nil
	}
	r.pass(AwaitingCommit)
	if res := r.m.State().Result(); res.Level != "proven" {
		t.Errorf("level %q", res.Level)
	}
}

// TestProofsThatDoNotCount: of an older epoch, of another site, of nobody asked.
func TestProofsThatDoNotCount(t *testing.T) {
	for name, proof := range map[string]Proof{
		"older epoch":         {"shop", "east", 4, "stopped"},
		"another site":        {"shop", "west", 5, "stopped"},
		"another application": {"till", "east", 5, "stopped"},
	} {
		r := newRig(t, plan.Failover, nil)
		r.answer = answerTo(Act, "fence/shop", Event{Kind: Acted, Outcome: Done, Proofs: []Proof{proof}})
		r.run(Paused, AwaitingCommit)
		r.never("act scale/shop")
		if r.m.Phase() != Paused {
			t.Errorf("%s: the run is %s", name, r.m.Phase())
		}
	}
}

func TestEveryFormerHolder(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.facts.Holders["shop"] = []string{"east", "south"}
	r.run(Paused)
	r.never("act scale/shop")
	if got := r.m.State().Level("shop"); got != None {
		t.Errorf("level %s", got)
	}
}

func TestAskedIsEnoughWhereAccepted(t *testing.T) {
	for accept, want := range map[Level]Phase{Asked: AwaitingCommit, TimedOut: Paused} {
		r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.Accept = accept })
		r.answer = func(f Effect) *Event {
			if f.Step != nil && f.Step.Kind == plan.KindFence && f.Action == Act {
				return &Event{Kind: Acted, Outcome: NoAnswer, Asked: []string{"east"}}
			}
			return nil
		}
		r.run(want)
		if got := r.m.State().Level("shop"); got != Asked {
			t.Errorf("level %s", got)
		}
	}
}

func TestSwitchover(t *testing.T) {
	r := newRig(t, plan.Switchover, func(p *plan.Plan, s *Spec) { s.Commit = plan.Commit{Then: plan.ThenCommit} })
	var from *Point
	r.answer = func(f Effect) *Event {
		if f.Step != nil && f.Step.Name == "data/shop" {
			from = f.Point
			if f.Action == Act {
				return &Event{Kind: Acted, Outcome: Done, Point: f.Point}
			}
		}
		return nil
	}
	r.run(Completed)
	r.order("act quiesce/shop", "act sync/shop", "act claim/cart", "act claim/shop", "act data/shop", "act scale/shop")
	if from == nil || from.ID != "p2" {
		t.Errorf("data comes from %+v, not from the sync", from)
	}
	if a := r.m.State().Result().Applications[1]; !a.Lossless || a.RPO != 0 {
		t.Errorf("result %+v", a)
	}
}

// TestSwitchoverRollsBack fails at each step, and wants everything undone in
// reverse, the claims after all that came after them.
func TestSwitchoverRollsBack(t *testing.T) {
	traffic := func(p *plan.Plan, _ *Spec) {
		p.Traffic = []plan.Traffic{{Name: "www", Kind: plan.KindGate, Object: "www"}}
	}
	for _, failing := range []string{"quiesce/shop", "sync/shop", "claim/shop", "fence/shop", "data/shop", "apply/shop", "scale/shop", "ready/shop"} {
		r := newRig(t, plan.Switchover, traffic)
		r.answer = answerTo(Act, failing, Event{Kind: Acted, Outcome: Refused, Note: "no"})
		r.run(RolledBack)
		var undone []string
		for _, did := range r.did {
			if name, ok := strings.CutPrefix(did, "undo "); ok {
				undone = append(undone, name)
			}
		}
		s := r.m.State()
		for _, step := range s.Spec.Steps {
			if st := s.Steps[step.Name]; st.Meant && step.Undoable() != slices.Contains(undone, step.Name) {
				t.Errorf("%s fails: %s was done, and undone is %v", failing, step.Name, undone)
			}
		}
		if i, j := slices.Index(undone, "claim/cart"), slices.Index(undone, "quiesce/cart"); i > j && j >= 0 {
			t.Errorf("%s fails: the source runs before it has the epoch: %v", failing, undone)
		}
		if i, j := slices.Index(undone, "scale/cart"), slices.Index(undone, "claim/cart"); i > j {
			t.Errorf("%s fails: the claim goes back before the target has stopped: %v", failing, undone)
		}
	}
}

func TestNoWayBack(t *testing.T) {
	mark := func(p *plan.Plan, _ *Spec) {
		p.Traffic = []plan.Traffic{{Name: "www", Kind: plan.KindGate, Object: "www"}}
		p.Steps = []plan.Step{{Name: "burn", Kind: plan.KindCommand, Command: &plan.Command{Image: "x"}, Timeout: time.Minute, After: []string{"claim/shop"}, Before: []string{"apply/cart"}, NoWayBack: true}}
	}
	r := newRig(t, plan.Switchover, mark)
	r.answer = answerTo(Act, "scale/shop", Event{Kind: Acted, Outcome: Refused, Note: "no"})
	r.run(Paused)
	if why := r.says(RollBack, nil); why != "roll back: there is no way back after burn" {
		t.Errorf("roll back: %s", why)
	}
	r.answer = nil
	if why := r.says(Retry, nil); why != "" {
		t.Error(why)
	}
	r.pass(AwaitingCommit)
}

// TestExposed: once clients may have written at the target, nothing goes back
// by itself.
func TestExposed(t *testing.T) {
	r := newRig(t, plan.Switchover, nil) // without traffic, workloads let clients in
	r.answer = answerTo(Act, "ready/shop", Event{Kind: Acted, Outcome: Refused, Note: "no"})
	r.run(Paused)
	if why := r.says(RollBack, nil); !strings.Contains(why, "type west to lose that") {
		t.Errorf("roll back: %s", why)
	}
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Error(why)
	}
	r.pass(RolledBack)
}

// TestLostClaim: another run was faster at the second application; the first
// goes back.
func TestLostClaim(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.answer = answerTo(Act, "claim/shop", Event{Kind: Acted, Outcome: Superseded, Note: "run q"})
	r.run(RolledBack)
	r.order("act claim/cart", "act claim/shop", "undo claim/cart")
	r.never("act data/cart")
	if got := r.m.State().Epochs["cart"]; got != 9 {
		t.Errorf("cart is at epoch %d", got)
	}
}

// TestUnknownOutcome: no answer to an act, no answer to a look, for long. The
// run begins nothing, looks on, and goes on when it knows.
func TestUnknownOutcome(t *testing.T) {
	for outcome, want := range map[Outcome]Phase{Done: AwaitingCommit, NotDone: Paused} {
		r := newRig(t, plan.Failover, nil)
		acts := 0
		var known Outcome
		r.answer = func(f Effect) *Event {
			switch {
			case f.Step == nil || f.Step.Name != "apply/cart" || f.Action == Look && acts == 0:
				return nil
			case f.Action == Act:
				acts++
				return &Event{}
			case known != "":
				return &Event{Kind: Looked, Outcome: known}
			}
			return &Event{}
		}
		r.run(OutcomeUnknown)
		if why := r.says(Commit, nil); why == "" {
			t.Error("it was committed")
		}
		known = outcome
		r.pass(want)
		if acts != 1 {
			t.Errorf("%s: acted %d times", outcome, acts)
		}
	}
}

// TestWhatMayNeverEndIsInTheJournal: a look says that a step may never end by itself, and
// what helps. The journal says so from then on, once, also when its time is over, and no
// more when it goes on by itself. The control says as much of a step that just takes long.
func TestWhatMayNeverEndIsInTheJournal(t *testing.T) {
	for _, stuck := range []bool{true, false} {
		r := newRig(t, plan.Failover, nil)
		acts, busy := 0, &Event{Kind: Looked, Outcome: Busy, Stuck: stuck, Note: "its pod is on node n1"}
		r.answer = func(f Effect) *Event {
			switch {
			case f.Step == nil || f.Step.Name != "apply/cart" || f.Action == Look && acts == 0:
				return nil
			case f.Action == Act:
				acts++
				return &Event{Kind: Acted, Outcome: NoAnswer}
			}
			return busy
		}
		told := func() (all []string) {
			for _, record := range r.records {
				for _, e := range record {
					if e.Kind == Ended && e.Step == "apply/cart" {
						all = append(all, string(e.Status)+" "+e.Note)
					}
				}
			}
			return all
		}
		r.run(OutcomeUnknown)
		for range 20 { // looks
			r.now = r.m.Deadline()
			r.tell(Event{Kind: Tick})
		}
		want := []string{"Doing its pod is on node n1", "Unknown no answer, and its time is up: its pod is on node n1"}
		if !stuck {
			want = want[1:]
		}
		if got := told(); !slices.Equal(got, want) {
			t.Errorf("stuck %t: %q, want %q", stuck, got, want)
		}
		busy = &Event{Kind: Looked, Outcome: Busy}
		for range 20 {
			r.now = r.m.Deadline()
			r.tell(Event{Kind: Tick})
		}
		if stuck {
			want = append(want, "Unknown no answer, and its time is up")
		}
		if got := told(); !slices.Equal(got, want) {
			t.Errorf("stuck %t: it goes on, and the journal says %q", stuck, got)
		}
		busy = &Event{Kind: Looked, Outcome: Done}
		r.pass(AwaitingCommit)
		s := NewState()
		for i, record := range r.records {
			if err := s.Replay(int64(i)+1, record); err != nil {
				t.Fatal(err)
			}
		}
		if st := s.Steps["apply/cart"]; acts != 1 || st.Status != Succeeded || st.Attempts != 1 {
			t.Errorf("stuck %t: acted %d times, and the journal says %+v", stuck, acts, st)
		}
	}
}

// TestSilenceTakesNothingBack: that nobody says any more whether a step may end is not that
// it may: what was said of it stands where its time is over. The control: nothing was said.
func TestSilenceTakesNothingBack(t *testing.T) {
	for said, want := range map[string][]string{
		"its pod is on node n1": {"Doing its pod is on node n1", "Unknown no answer, and its time is up: its pod is on node n1"},
		"":                      {"Unknown no answer, and its time is up: it is not known"},
	} {
		r := newRig(t, plan.Failover, nil)
		acts, looks := 0, 0
		r.answer = func(f Effect) *Event {
			switch {
			case f.Step == nil || f.Step.Name != "apply/cart" || f.Action == Look && acts == 0:
				return nil
			case f.Action == Act:
				acts++
				return &Event{Kind: Acted, Outcome: NoAnswer}
			}
			if looks++; looks == 1 && said != "" {
				return &Event{Kind: Looked, Outcome: Busy, Stuck: true, Note: said}
			}
			return &Event{Kind: Looked, Outcome: NoAnswer, Note: "it is not known"}
		}
		r.run(OutcomeUnknown)
		var told []string
		for _, record := range r.records {
			for _, e := range record {
				if e.Kind == Ended && e.Step == "apply/cart" {
					told = append(told, string(e.Status)+" "+e.Note)
				}
			}
		}
		if !slices.Equal(told, want) {
			t.Errorf("%q, want %q", told, want)
		}
	}
}

// TestWhatStepsSayIsBounded: the journal keeps it with the try's end, and of a run that
// says too much the rest is left out; of a step that failed later than of one that did not.
func TestWhatStepsSayIsBounded(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	long := strings.Repeat("x", MostSaid/4-1)
	r.answer = func(f Effect) *Event {
		if f.Action != Act || f.Step.Kind != plan.KindApply && f.Step.Kind != plan.KindScale {
			return nil
		}
		return &Event{Kind: Acted, Outcome: Done, Said: long}
	}
	r.run(AwaitingCommit)
	whole, left := 0, 0
	for _, record := range r.records {
		for _, e := range record {
			switch {
			case e.Said == long && e.Kind == Ended:
				whole++
			case strings.HasPrefix(e.Said, "[not kept"):
				left++
			case e.Said != "":
				t.Errorf("%+v", e)
			}
		}
	}
	if whole != 2 || left != 2 || r.m.State().Said > MostSaid/2+200 {
		t.Errorf("%d were kept, of %d it is said that they were not; %d bytes", whole, left, r.m.State().Said)
	}
	for status, kept := range map[Status]bool{Broke: true, Unknown: true, Succeeded: false} {
		r.m.draft = nil
		r.m.note(Entry{Kind: Ended, Status: status, Said: long})
		if got := r.m.draft[0].Said == long; got != kept {
			t.Errorf("%s: kept is %v", status, got)
		}
	}
}

// TestALookThatIsRefused ends the step at once, with its reason: it was not done if it
// was never intended, and nobody knows otherwise. Silence, the control, is waited out.
func TestALookThatIsRefused(t *testing.T) {
	const why = "the agent may not read that"
	for name, c := range map[string]struct {
		meant   bool
		outcome Outcome
		status  Status
		phase   Phase
		note    string
		late    bool
	}{
		"before the act":        {false, Refused, Broke, Paused, why, false},
		"after it":              {true, Refused, Unknown, OutcomeUnknown, why, false},
		"silence before":        {false, NoAnswer, Broke, Paused, "no answer", true},
		"silence after the act": {true, NoAnswer, Unknown, OutcomeUnknown, "no answer", true},
	} {
		t.Run(name, func(t *testing.T) {
			r, acted := newRig(t, plan.Failover, nil), time.Duration(0)
			r.answer = func(f Effect) *Event {
				switch {
				case f.Step == nil || f.Step.Name != "apply/cart":
					return nil
				case f.Action == Act:
					acted = r.now
					return &Event{Kind: Acted, Outcome: NoAnswer}
				case acted == 0 && c.meant:
					return nil
				case acted == 0:
					acted = r.now
				}
				return &Event{Kind: Looked, Outcome: c.outcome, Note: why}
			}
			r.run(c.phase)
			st := r.m.State().Steps["apply/cart"]
			if st.Status != c.status || !strings.Contains(st.Note, c.note) {
				t.Errorf("%s, %q", st.Status, st.Note)
			}
			if waited := r.now - acted; (waited > 10*Breath) != c.late {
				t.Errorf("it ended after %s", waited)
			}
			if c.phase != OutcomeUnknown {
				return
			}
			r.answer = answerTo(Look, "apply/cart", Event{Kind: Looked, Outcome: Done}) // it is looked at all the same
			r.pass(AwaitingCommit)
		})
	}
}

// TestTakeOver kills the executor after every record, and lets another go on
// with what the journal says. Acts whose end the journal does not have are
// looked at, and found done.
func TestTakeOver(t *testing.T) {
	whole := newRig(t, plan.Switchover, nil).run(AwaitingCommit)
	for n := 1; n < len(whole.records); n++ {
		state := NewState()
		done := map[string]bool{}
		for i, entries := range whole.records[:n] {
			data, err := json.Marshal(entries)
			if err != nil {
				t.Fatal(err)
			}
			var read []Entry
			if err := json.Unmarshal(data, &read); err != nil {
				t.Fatal(err)
			}
			if err := state.Replay(int64(i)+1, read); err != nil {
				t.Fatal(err)
			}
			for _, e := range read {
				if e.Kind == Intended {
					done[e.Step] = true // acted, and died
				}
			}
		}
		r := newRig(t, plan.Switchover, nil)
		r.m = TakeOver("e2", state)
		r.answer = func(f Effect) *Event {
			if f.Action == Look && done[f.Step.Name] {
				a := &Event{Kind: Looked, Outcome: Done, Epoch: f.Token.Epochs[f.Step.Application]}
				if f.Step.Kind == plan.KindFence {
					a.Proofs = []Proof{{f.Step.Application, "east", a.Epoch, "stopped"}}
				}
				return a
			}
			return nil
		}
		r.run(AwaitingCommit)
		for _, did := range r.did {
			if name, ok := strings.CutPrefix(did, "act "); ok && done[name] {
				t.Errorf("after record %d, %s was done again", n, name)
			}
		}
		if first := r.records[0]; len(first) != 1 || first[0].Kind != Took || first[0].By != "e2" {
			t.Errorf("after record %d, it began with %+v", n, first)
		}
	}
}

// TestNothingBeforeTheJournal: without the journal's answer nothing is done,
// and whoever lost a put is silent for good.
func TestNothingBeforeTheJournal(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.hold = true
	r.tell(Event{Kind: Begin})
	for range 5 {
		r.now += time.Hour
		r.tell(Event{Kind: Tick})
		r.tell(Event{Kind: Unrecorded})
	}
	if len(r.did) > 0 {
		t.Errorf("did %v", r.did)
	}
	r.hold = false
	r.tell(Event{Kind: Deposed})
	for _, kind := range []EventKind{Tick, Recorded, RollBack, Begin} {
		if effects := r.m.Step(Moment{Mono: r.now}, Event{Kind: kind}); len(effects) > 0 {
			t.Errorf("%s after it was deposed: %+v", kind, effects)
		}
	}
}

func TestPeople(t *testing.T) {
	r := newRig(t, plan.Failover, func(p *plan.Plan, s *Spec) {
		s.Approvals = 2
		p.Steps = []plan.Step{{Name: "key", Kind: plan.KindManual, Prompt: "turn the key", Timeout: time.Hour, After: []string{"ready/shop"}}}
	})
	r.run(AwaitingApproval)
	approve := func(by string) string { return r.says(Approve, func(e *Event) { e.By = by }) }
	for _, step := range []struct{ by, want string }{
		{"ann", "approve: whoever asked for the run cannot approve it"},
		{"bob", ""},
		{"bob", "approve: bob has approved it already"},
		{"cas", ""},
		{"dan", "approve: the run does not wait for an approval"},
	} {
		if why := approve(step.by); why != step.want {
			t.Errorf("%s: %q, want %q", step.by, why, step.want)
		}
	}
	r.pass(Paused)
	if waits := strings.Join(r.m.Waits(), " "); !strings.Contains(waits, "paused (input): key: turn the key") {
		t.Errorf("waits %s", waits)
	}
	if why := r.says(Resume, nil); !strings.Contains(why, "waits for an answer") {
		t.Errorf("resume: %s", why)
	}
	if why := r.says(Answer, func(e *Event) { e.Step, e.Outcome = "key", Done }); why != "" {
		t.Error(why)
	}
	r.pass(AwaitingCommit)
	for kind, want := range map[EventKind]string{Approve: "does not wait", Retry: "no step failed", Cancel: "roll back", Skip: "no step", Reject: "does not wait"} {
		if why := r.says(kind, nil); !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", kind, why, want)
		}
	}
}

func TestRejected(t *testing.T) {
	r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.Approvals = 1 }).run(AwaitingApproval)
	if why := r.says(Reject, nil); why != "" || r.m.Phase() != Canceled || len(r.did) > 0 {
		t.Errorf("reject: %s, %s, %v", why, r.m.Phase(), r.did)
	}
}

func TestPauseSkipResume(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.answer = answerTo(Act, "apply/cart", Event{Kind: Acted, Outcome: Refused, Note: "no such class"})
	r.run(Paused)
	if why := r.says(Resume, nil); !strings.Contains(why, "retry or skip step apply/cart") {
		t.Errorf("resume: %s", why)
	}
	if why := r.says(Skip, func(e *Event) { e.Step = "apply/cart" }); why != "" {
		t.Error(why)
	}
	r.pass(AwaitingCommit)
	r = newRig(t, plan.Failover, nil)
	r.answer = answerTo(Look, "data/cart", Event{Kind: Looked, Outcome: Busy})
	r.tell(Event{Kind: Begin})
	if why := r.says(Pausing, nil); why != "" || r.m.Phase() != Paused {
		t.Fatalf("pause: %s, %s", why, r.m.Phase())
	}
	r.answer, r.did = nil, nil
	for range 20 {
		r.now += time.Second
		r.tell(Event{Kind: Tick})
	}
	if len(r.did) > 0 {
		t.Errorf("while paused it did %v", r.did)
	}
	if why := r.says(Resume, nil); why != "" {
		t.Error(why)
	}
	r.pass(AwaitingCommit)
}

func TestCommitWindow(t *testing.T) {
	for then, want := range map[string]Phase{plan.ThenCommit: Completed, plan.ThenRollback: RolledBack} {
		r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.Commit = plan.Commit{Window: time.Minute, Then: then} })
		r.run(AwaitingCommit)
		at := r.now
		r.pass(want)
		if r.now-at < time.Minute {
			t.Errorf("%s after %s", want, r.now-at)
		}
	}
}

// TestCommitWindowCountsFromTheRecord, whoever carries the run when it is over:
// executors that follow each other do not make it longer, nor end it unasked.
func TestCommitWindowCountsFromTheRecord(t *testing.T) {
	for _, c := range []struct {
		age, left time.Duration
	}{{40 * time.Second, 20 * time.Second}, {time.Hour, 0}, {-time.Second, time.Minute}} {
		r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.Commit = plan.Commit{Window: time.Minute, Then: plan.ThenRollback} })
		r.run(AwaitingCommit)
		r.m = TakeOver("e2", r.m.State())
		silent := 3
		r.answer = func(f Effect) *Event {
			switch {
			case f.Action != Age:
				return nil
			case silent > 0: // the vault does not say: nothing is decided meanwhile
				silent--
				return &Event{Kind: Aged, Outcome: NoAnswer}
			}
			r.did = append(r.did, "age")
			return &Event{Kind: Aged, Outcome: Done, Age: c.age}
		}
		r.now = time.Second // its clock has nothing to do with the first one's
		r.tell(Event{Kind: Begin})
		for range 3 {
			if r.m.Phase() != AwaitingCommit {
				t.Fatalf("%s before anybody said how long it has waited", r.m.Phase())
			}
			r.now = r.m.Deadline()
			r.tell(Event{Kind: Tick})
		}
		r.order("age")
		asked := r.now
		r.pass(RolledBack)
		if waited := r.now - asked; waited != c.left {
			t.Errorf("after %s: rolled back after %s more, want %s", c.age, waited, c.left)
		}
	}
}

// TestDrill fails at every step: it ends clean all the same, and leaves its
// sandbox nowhere.
func TestDrill(t *testing.T) {
	for _, failing := range []string{"", "sandbox", "data/shop", "apply/shop", "scale/cart", "ready/shop"} {
		r := newRig(t, plan.Drill, nil)
		refuse := answerTo(Act, failing, Event{Kind: Acted, Outcome: Refused, Note: "no"})
		r.answer = func(f Effect) *Event {
			if f.Step != nil && (f.Sandbox != "r" || f.Step.Side == plan.Source || f.Step.Kind == plan.KindClaim) {
				t.Errorf("%s %s outside of the sandbox", f.Action, f.Step.Name)
			}
			return refuse(f)
		}
		want := Completed
		if failing != "" {
			want = Failed
		}
		r.run(want)
		if i := slices.Index(r.did, "act cleanup"); i != len(r.did)-1 {
			t.Errorf("%s fails: cleaned up at %d of %v", failing, i, r.did)
		}
	}
	r := newRig(t, plan.Drill, nil)
	r.answer = func(f Effect) *Event {
		if f.Step != nil && f.Step.Name == "ready/cart" && f.Action == Act {
			return &Event{}
		}
		return nil
	}
	r.tell(Event{Kind: Begin})
	if why := r.says(Cancel, nil); why != "" {
		t.Error(why)
	}
	r.pass(Canceled)
	r.order("act cleanup")
}

// TestADrillThatWaitsForAPerson is cleaned up when it is canceled, by whoever carries it
// or takes it over: nobody need answer first.
func TestADrillThatWaitsForAPerson(t *testing.T) {
	for _, taken := range []bool{false, true} {
		r := newRig(t, plan.Drill, func(p *plan.Plan, _ *Spec) {
			p.Steps = []plan.Step{{Name: "look", Kind: plan.KindManual, Verbs: []plan.Verb{plan.Drill}, Prompt: "look around", Timeout: time.Hour, After: []string{"ready/shop"}}}
		})
		r.run(Paused)
		if taken {
			r.m = TakeOver("e2", r.m.State())
			r.tell(Event{Kind: Begin})
		}
		if why := r.says(Cancel, nil); why != "" {
			t.Error(why)
		}
		r.pass(Canceled)
		r.order("act ready/shop", "act cleanup")
	}
}

// TestDrillWithoutAnOutcome: nobody knows what became of one step while another
// ends, and then it turns out not to have been done. The drill is cleaned up.
func TestDrillWithoutAnOutcome(t *testing.T) {
	r := newRig(t, plan.Drill, nil)
	acted, known := map[string]bool{}, false
	status := func(step string) Status { return r.m.State().Steps[step].Status }
	r.answer = func(f Effect) *Event {
		switch {
		case f.Step == nil || !strings.HasPrefix(f.Step.Name, "data/"):
			return nil
		case f.Action == Act:
			acted[f.Step.Name] = true
			return &Event{Kind: Acted, Outcome: NoAnswer}
		case !acted[f.Step.Name]:
			return nil
		case f.Step.Name == "data/cart" && status("data/shop") == Unknown:
			known = true
			return &Event{Kind: Looked, Outcome: Done}
		case f.Step.Name == "data/cart":
			return &Event{Kind: Looked, Outcome: Busy}
		case !known || status("data/cart") != Succeeded:
			return &Event{Kind: Looked, Outcome: Refused, Note: "no right"}
		}
		return &Event{Kind: Looked, Outcome: NotDone}
	}
	r.run(Failed)
	if !known {
		t.Error("both outcomes were known all along")
	}
	if last := r.did[len(r.did)-1]; last != "act cleanup" {
		t.Errorf("it ends with %s", last)
	}
}

// TestCleanupFails: a drill is not over while its sandbox may be there, unless
// a person insists.
func TestCleanupFails(t *testing.T) {
	for _, insist := range []bool{false, true} {
		r := newRig(t, plan.Drill, nil)
		r.answer = answerTo(Act, "cleanup", Event{Kind: Acted, Outcome: Refused, Note: "stuck"})
		r.run(Paused)
		if why := r.says(Cancel, nil); why != "" || r.m.Phase() != Paused {
			t.Fatalf("cancel: %s, %s", why, r.m.Phase())
		}
		if insist {
			if why := r.says(Cancel, nil); why != "" || r.m.Phase() != Canceled || !strings.Contains(r.m.State().Why, "may be left at site west") {
				t.Errorf("cancel: %s, %s, %s", why, r.m.Phase(), r.m.State().Why)
			}
			continue
		}
		r.answer = nil
		if why := r.says(Retry, nil); why != "" {
			t.Error(why)
		}
		r.pass(Canceled)
	}
}

func TestRestoreInPlace(t *testing.T) {
	r := newRig(t, plan.Restore, nil).run(Completed)
	r.order("act claim/cart", "act claim/shop", "act stop/shop", "act data/shop", "act scale/shop")
	r = newRig(t, plan.Restore, nil)
	r.answer = answerTo(Act, "data/shop", Event{Kind: Acted, Outcome: Refused, Note: "no"})
	r.run(Paused)
	if why := r.says(RollBack, nil); why != "roll back: a restore has nothing to go back to" {
		t.Errorf("roll back: %s", why)
	}
	if why := r.says(Cancel, nil); why != "" || r.m.Phase() != Canceled {
		t.Errorf("cancel: %s, %s", why, r.m.Phase())
	}
}

func TestSplitBrain(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.answer = func(f Effect) *Event {
		if f.Action == Verify {
			return &Event{Kind: Surveyed, Outcome: Done, Split: "shop runs at east too"}
		}
		return nil
	}
	r.run(SplitBrain)
	if !slices.Contains(r.m.Waits(), "shop runs at east too") {
		t.Errorf("waits %v", r.m.Waits())
	}
	r.answer = nil
	if why := r.says(Resume, nil); why != "" {
		t.Error(why)
	}
	r.pass(AwaitingCommit)
}

// TestWhoIsUnheardIsSaid, and keeps no run from its end. The newest look is what counts.
func TestWhoIsUnheardIsSaid(t *testing.T) {
	for _, last := range []string{"nobody can read north", ""} {
		r := newRig(t, plan.Failover, nil)
		r.facts.Unheard = "nobody could read north"
		begun := ""
		r.answer = func(f Effect) *Event {
			switch {
			case f.Action == Verify:
				begun = r.m.State().Result().Unheard
				return &Event{Kind: Surveyed, Outcome: Done, Note: last}
			case f.Step != nil && f.Step.Kind == plan.KindFence:
				return &Event{Kind: Looked, Outcome: Done, Proofs: []Proof{{f.Step.Application, "east", 9, "stopped"}}}
			}
			return nil
		}
		r.run(AwaitingCommit)
		if got := r.m.State().Result().Unheard; begun != "nobody could read north" || got != last || r.m.State().Pause != nil {
			t.Errorf("unheard: %q, then %q, want %q", begun, got, last)
		}
	}
}

func TestRollbackFails(t *testing.T) {
	r := newRig(t, plan.Switchover, func(p *plan.Plan, _ *Spec) {
		p.Traffic = []plan.Traffic{{Name: "www", Kind: plan.KindGate, Object: "www"}}
	})
	r.answer = func(f Effect) *Event {
		switch {
		case f.Step == nil:
		case f.Action == Act && f.Step.Name == "ready/cart":
			return &Event{Kind: Acted, Outcome: Refused, Note: "no"}
		case f.Action == Undo && f.Step.Name == "scale/cart":
			return &Event{Kind: Acted, Outcome: NoAnswer}
		}
		return nil
	}
	r.run(RollbackFailed)
	r.never("undo claim/cart") // the target may still write
	r.answer = nil
	if why := r.says(Resume, nil); why != "" {
		t.Error(why)
	}
	r.pass(RolledBack)
	r.order("undo scale/cart", "undo claim/cart", "undo quiesce/cart")
}

// TestRollbackThatCanNeverEnd has a source that dies while the move from it is taken back:
// the run is in the way of the failover until a person ends it.
func TestRollbackThatCanNeverEnd(t *testing.T) {
	r := newRig(t, plan.Switchover, nil)
	r.answer = func(f Effect) *Event {
		switch {
		case f.Step == nil:
		case f.Action == Act && f.Step.Name == "apply/cart":
			return &Event{Kind: Acted, Outcome: Refused, Note: "no"}
		case f.Action == Undo && f.Step.Side == plan.Source:
			return &Event{Kind: Acted, Outcome: NoAnswer}
		}
		return nil
	}
	r.run(RollingBack)
	if why := r.says(Cancel, nil); !strings.Contains(why, "roll back") {
		t.Errorf("a run that goes on was ended: %q", why)
	}
	r.pass(RollbackFailed)
	r.order("undo claim/shop", "undo claim/cart")
	if why := r.says(Cancel, nil); why != "" {
		t.Fatal(why)
	}
	s := r.m.State()
	if s.Phase != Canceled || s.Epochs["cart"] != 9 || !strings.Contains(s.Why, "stays as it is (quiesce/cart, quiesce/shop), for quiesce/") {
		t.Errorf("%s %q %v", s.Phase, s.Why, s.Epochs)
	}
	replayed := NewState()
	for i, entries := range r.records {
		if err := replayed.Replay(int64(i)+1, entries); err != nil {
			t.Fatal(err)
		}
	}
	if replayed.Phase != Canceled {
		t.Errorf("who reads the journal finds %s", replayed.Phase)
	}
}

func TestSpecIsChecked(t *testing.T) {
	whole := newRig(t, plan.Failover, nil).m.draft[0].Spec
	for want, change := range map[string]func(s *Spec){
		"has a name":                  func(s *Spec) { s.Run = "" },
		"from one site to another":    func(s *Spec) { s.From = "west" },
		"missing or not sorted":       func(s *Spec) { s.Applications = []string{"shop", "cart"} },
		"it may accept":               func(s *Spec) { s.Accept = None },
		"comes before":                func(s *Spec) { s.Steps = s.Steps[1:] },
		"has no timeout, or is there": func(s *Spec) { s.Steps = append(slices.Clone(s.Steps), s.Steps[0]) },
		"nothing claims":              func(s *Spec) { s.Steps = nil },
	} {
		s := *whole
		change(&s)
		if _, err := New("e", s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if fmt.Sprint(Level(9), Level(-1)) != "proven none (forced)" {
		t.Error("levels have no bounds")
	}
}
