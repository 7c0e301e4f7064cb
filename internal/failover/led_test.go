package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// named is a plan whose clients are led by names in the DNS.
func named(names ...string) func(p *plan.Plan, s *Spec) {
	return func(p *plan.Plan, s *Spec) {
		for _, name := range names {
			record := plan.Record{Zone: "example.com", Secret: "key", Servers: []plan.NameServer{{Address: "192.0.2.53"}}, To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2"}}}
			p.Traffic = append(p.Traffic, plan.Traffic{Name: name, Kind: plan.KindDNS, Object: name + ".example.com", Record: &record})
		}
		s.Commit = plan.Commit{Window: 0}
	}
}

// replayed is what those find who read the journal.
func (r *rig) replayed() *State {
	r.t.Helper()
	s := NewState()
	for i, entries := range r.records {
		if err := s.Replay(int64(i)+1, entries); err != nil {
			r.t.Fatal(err)
		}
	}
	return s
}

func offered(s *State, kind EventKind) (steps []string) {
	for _, o := range s.Offers() {
		if o.Kind == kind {
			steps = append(steps, o.Step)
		}
	}
	return steps
}

// TestANameThatNobodyCanLeadBack: the name was moved, and then its server is gone for good. The source gets its applications
// back all the same once a person takes the name upon himself. The target is stopped before the source starts, as ever.
func TestANameThatNobodyCanLeadBack(t *testing.T) {
	refused := Event{Kind: Acted, Outcome: Refused, Note: "ns1 refuses the key"}
	for name, tc := range map[string]struct {
		names []string
		undo  Event
		in    Phase // in which the person says so
	}{
		"refused":                 {[]string{"www"}, refused, RollbackFailed},
		"two names":               {[]string{"api", "www"}, refused, RollbackFailed},
		"silent for all its time": {[]string{"www"}, Event{}, RollbackFailed},
		"silent":                  {[]string{"www"}, Event{}, RollingBack},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, plan.Switchover, named(tc.names...))
			r.answer = func(f Effect) *Event {
				if f.Step != nil && f.Step.Kind == plan.KindDNS && f.Action == Undo {
					return &tc.undo
				}
				return nil
			}
			r.run(AwaitingCommit)
			if why := r.says(Skip, func(e *Event) { e.Step = "traffic/www" }); !strings.Contains(why, "did not fail") {
				t.Errorf("before anything goes back: %q", why)
			}
			if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
				t.Fatal(why)
			}
			for i, of := range tc.names {
				step := "traffic/" + of
				r.pass(tc.in)
				if r.never("undo scale/shop"); r.m.State().Steps["scale/shop"].Undid {
					t.Fatal("the target was stopped while clients are led there")
				}
				for _, other := range []string{"scale/shop", "claim/shop", "quiesce/shop", "fence/shop"} {
					if why := r.says(Skip, func(e *Event) { e.Step = other }); why == "" || r.m.State().Steps[other].Undid {
						t.Errorf("%s was skipped: %q", other, why)
					}
				}
				if got := offered(r.m.State(), Skip); !slices.Equal(got, []string{step}) && len(tc.names[i:]) == 1 {
					t.Errorf("offered: %v", got)
				}
				if why := r.says(Skip, func(e *Event) { e.Step, e.Note = step, "the provider is bankrupt" }); why != "" {
					t.Fatal(why)
				}
				if why := r.says(Skip, func(e *Event) { e.Step = step }); why == "" {
					t.Error("it is skipped twice")
				}
			}
			r.pass(RolledBack)
			r.order("undo traffic/www", "undo scale/shop", "undo claim/shop", "undo quiesce/shop", "undo fence/shop")
			s, res := r.m.State(), r.m.State().Result()
			left := s.Remaining()
			if len(left) != len(tc.names) {
				t.Fatalf("left to people: %+v", left)
			}
			for i, of := range tc.names {
				for _, says := range []string{of + ".example.com was not led back", "skipped by bob: the provider is bankrupt", "may lead to site west still"} {
					if !strings.Contains(s.Why, says) {
						t.Errorf("%q does not say %q", s.Why, says)
					}
				}
				if l := left[i]; l.Step != "traffic/"+of || l.Site != "east" || !strings.Contains(l.Do, "lead "+of+".example.com to site east (192.0.2.1) by hand") || l.Settled != nil {
					t.Errorf("%+v", l)
				}
				for _, step := range res.Steps {
					if step.Name == "traffic/"+of && (!step.Left || step.Undone || !strings.Contains(step.Note, "bob")) {
						t.Errorf("%+v", step)
					}
				}
			}
			if strings.Contains(s.Why, "another run has claimed") || !slices.Equal(offered(s, Settle), steps(left)) {
				t.Errorf("%q, %v", s.Why, offered(s, Settle))
			}
			if again := r.replayed(); again.Phase != RolledBack || again.Why != s.Why {
				t.Errorf("who reads the journal finds %s, %q", again.Phase, again.Why)
			}
		})
	}
}

func steps(left []Remaining) (names []string) {
	for _, l := range left {
		names = append(names, l.Step)
	}
	return names
}

// TestARefusedNameWasNotMoved: where all servers refused all that was sent, clients are where they were: a planned move goes back by
// itself, and asks no server for leave. The controls are moves of which somebody may have taken one, and a gate that was opened.
func TestARefusedNameWasNotMoved(t *testing.T) {
	refused, silent := Event{Kind: Acted, Outcome: Refused, Note: "ns1 refuses the key"}, Event{Kind: Acted, Outcome: NoAnswer, Note: "connection reset"}
	gate := func(p *plan.Plan, _ *Spec) {
		p.Traffic = append(p.Traffic, plan.Traffic{Name: "door", Kind: plan.KindGate, Object: "door"})
	}
	goesOn := func(p *plan.Plan, _ *Spec) {
		p.Traffic = nil
		record := plan.Record{Zone: "example.com", Secret: "key", Servers: []plan.NameServer{{Address: "192.0.2.53"}}, To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2"}}}
		p.Steps = []plan.Step{{Name: "www", Kind: plan.KindDNS, Object: "www.example.com", Record: &record, Timeout: time.Minute, OnError: plan.Continue, After: []string{"ready/shop"}}}
	}
	for name, tc := range map[string]struct {
		verb    plan.Verb
		tries   []Event // the answers to the moves, the last one to all that follow
		change  func(p *plan.Plan, s *Spec)
		ends    Phase
		exposed string
	}{
		"refused":             {plan.Switchover, []Event{refused}, nil, RolledBack, ""},
		"lost, then refused":  {plan.Switchover, []Event{silent, refused}, nil, Paused, "traffic/www"},
		"a gate was opened":   {plan.Switchover, []Event{refused}, gate, Paused, "traffic/door"},
		"failover":            {plan.Failover, []Event{refused}, nil, Paused, ""},
		"failover, lost once": {plan.Failover, []Event{silent, refused}, nil, Paused, "traffic/www"},
		"goes on without it":  {plan.Switchover, []Event{refused}, goesOn, AwaitingCommit, "www"},
	} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			r := newRig(t, tc.verb, func(p *plan.Plan, s *Spec) {
				named("www")(p, s)
				if tc.change != nil {
					tc.change(p, s)
				}
			})
			r.answer = func(f Effect) *Event {
				if f.Step == nil || f.Step.Kind != plan.KindDNS || f.Action == Look {
					return nil
				}
				if f.Action == Act {
					tries++
				}
				return &tc.tries[min(tries, len(tc.tries))-1]
			}
			r.run(tc.ends)
			s := r.m.State()
			if got := s.Exposed(); got != tc.exposed {
				t.Errorf("exposed since %q, want %q", got, tc.exposed)
			}
			if again := r.replayed(); again.Phase != s.Phase || again.Why != s.Why || again.Exposed() != tc.exposed {
				t.Errorf("who reads the journal finds %s, %q, %q", again.Phase, again.Why, again.Exposed())
			}
			if tc.exposed == "" {
				if tc.ends == Paused && r.says(RollBack, nil) != "" {
					t.Error("it has to be typed that something is lost")
				}
				r.pass(RolledBack)
				r.never("undo traffic/www")
				r.order("undo scale/shop", "undo claim/shop", "undo fence/shop")
				if s := r.m.State(); s.Why != "" || len(s.Remaining()) > 0 || !strings.Contains(s.Steps["traffic/www"].Note, "it was not moved: ns1 refuses the key") {
					t.Errorf("%q, %+v", s.Why, s.Steps["traffic/www"])
				}
			}
		})
	}
}

// TestAnOlderDavitReadsHowARefusedNameEnded: it does not know that such a name was not moved. It has to come to the same end.
func TestAnOlderDavitReadsHowARefusedNameEnded(t *testing.T) {
	r := newRig(t, plan.Switchover, named("www"))
	r.answer = answerTo(Act, "traffic/www", Event{Kind: Acted, Outcome: Refused, Note: "ns1 refuses the key"})
	r.run(RolledBack)
	flagged := 0
	for _, entries := range r.records {
		for i := range entries {
			if entries[i].Untouched {
				flagged, entries[i].Untouched = flagged+1, false
			}
		}
	}
	if s := r.replayed(); flagged != 1 || s.Phase != RolledBack {
		t.Errorf("%d entries say so; without them it is %s", flagged, s.Phase)
	}
}

// TestARetryMayBeLost: a name that was refused is tried again, and then it is not known what came of it. Refused once more, it may
// have been moved.
func TestARetryMayBeLost(t *testing.T) {
	for _, lost := range []bool{true, false} {
		r, tries := newRig(t, plan.Failover, named("www")), 0
		r.answer = func(f Effect) *Event {
			if f.Step == nil || f.Step.Kind != plan.KindDNS || f.Action != Act {
				return nil
			}
			if tries++; tries == 2 && lost {
				return &Event{Kind: Acted, Outcome: NoAnswer}
			}
			return &Event{Kind: Acted, Outcome: Refused, Note: "ns1 refuses the key"}
		}
		r.run(Paused)
		if why := r.says(Retry, nil); why != "" {
			t.Fatal(why)
		}
		r.now += time.Minute
		r.tell(Event{Kind: Tick})
		r.pass(Paused)
		if got, want := r.m.State().Exposed(), map[bool]string{true: "traffic/www", false: ""}[lost]; got != want || tries < 2 {
			t.Errorf("lost: %t: exposed since %q after %d tries", lost, got, tries)
		}
	}
}

// TestNoRollBackGoesOnWithoutAnythingElse: what is not taken back at the target may run there. The control is a name.
func TestNoRollBackGoesOnWithoutAnythingElse(t *testing.T) {
	for _, step := range []string{"traffic/door", "scale/shop", "data/shop", "claim/shop", "quiesce/shop", "traffic/www"} {
		r := newRig(t, plan.Switchover, func(p *plan.Plan, s *Spec) {
			named("www")(p, s)
			p.Traffic = append(p.Traffic, plan.Traffic{Name: "door", Kind: plan.KindGate, Object: "door"})
		})
		r.answer = answerTo(Undo, step, Event{Kind: Acted, Outcome: Refused, Note: "no"})
		r.run(AwaitingCommit)
		if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
			t.Fatal(why)
		}
		r.pass(RollbackFailed)
		name := step == "traffic/www"
		if got := offered(r.m.State(), Skip); slices.Contains(got, step) != name {
			t.Errorf("%s: offered are %v", step, got)
		}
		if why := r.says(Skip, func(e *Event) { e.Step = step }); (why == "") != name || r.m.State().Steps[step].Undid != name {
			t.Errorf("%s: %q, %+v", step, why, r.m.State().Steps[step])
		}
	}
}
