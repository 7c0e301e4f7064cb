package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// claimedAnew is a run that waits for its commit while somebody claims shop at a site. Where it
// refuses says so, the target knows of that, and refuses what is older.
func claimedAnew(t *testing.T, site string, at Action, refuses ...bool) *rig {
	t.Helper()
	r := newRig(t, plan.Failover, func(p *plan.Plan, s *Spec) {
		p.Traffic = []plan.Traffic{{Name: "www", Kind: plan.KindGate, Object: "www"}}
		off := plan.Step{Kind: plan.KindSuspend, Object: plan.ArgoCD + "/shop", Application: "shop", Timeout: time.Minute}
		there, here := off, off
		there.Name, there.Before = "off-there", []string{"claim/shop"}
		here.Name, here.Side, here.Before = "off-here", plan.Target, []string{"data/shop"}
		p.Steps = []plan.Step{there, here}
		s.Commit = plan.Commit{Window: 0}
	})
	r.run(AwaitingCommit)
	r.answer = func(f Effect) *Event {
		if f.Step != nil && f.Action == Undo && len(refuses) > 0 && f.Step.Side == plan.Target && !slices.Contains([]plan.Kind{plan.KindClaim, plan.KindHold, plan.KindSuspend}, f.Step.Kind) {
			if epoch, of := f.Token.Epochs["shop"]; of && epoch < 6 {
				return &Event{Kind: Acted, Outcome: Superseded, Note: "epoch 6 of shop is known here, the order has 5"}
			}
		}
		if f.Step == nil || f.Step.Name != "claim/shop" || f.Action == Look && at != Look {
			return nil
		}
		kind := Acted
		if f.Action == Look {
			kind = Looked
		}
		return &Event{Kind: kind, Outcome: Superseded, Site: site, Note: "site " + site + " holds epoch 6 of shop"}
	}
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	return r
}

// TestRollBackOfWhatTheTargetClaimedAnew leaves it, and what leads clients to it,
// alone, and does not say that it went back.
func TestRollBackOfWhatTheTargetClaimedAnew(t *testing.T) {
	r := claimedAnew(t, "west", Look)
	r.pass(Failed)
	for _, stays := range []string{"undo scale/shop", "undo claim/shop", "undo off-there"} {
		r.never(stays)
	}
	for _, did := range r.did {
		if strings.HasPrefix(did, "undo ") && strings.Contains(did, "www") {
			t.Errorf("clients were led away from what stays: %s", did)
		}
	}
	r.order("undo scale/cart", "undo claim/cart")
	r.order("undo off-here") // at the target it goes on
	s := r.m.State()
	for _, says := range []string{"site west holds epoch 6 of shop", "www", "by hand"} {
		if !strings.Contains(s.Why, says) {
			t.Errorf("%q does not say %q", s.Why, says)
		}
	}
	if s.Steps["scale/shop"].Undid || !s.Steps["scale/cart"].Undid || s.Epochs["cart"] != 9 {
		t.Errorf("shop %+v, cart %+v, epochs %v", s.Steps["scale/shop"], s.Steps["scale/cart"], s.Epochs)
	}
	replayed := NewState()
	for i, entries := range r.records {
		if err := replayed.Replay(int64(i)+1, entries); err != nil {
			t.Fatal(err)
		}
	}
	if replayed.Phase != Failed || replayed.Why != s.Why {
		t.Errorf("who reads the journal finds %s, %q", replayed.Phase, replayed.Why)
	}
}

// TestRollBackOfWhatTheSourceClaimedAnew takes all back: it is where it was.
func TestRollBackOfWhatTheSourceClaimedAnew(t *testing.T) {
	r := claimedAnew(t, "east", Look)
	r.pass(RolledBack)
	r.order("undo scale/shop", "undo claim/cart")
	r.order("undo off-there")
	r.never("undo claim/shop")
}

// TestWhatTheTargetRefusesIsLeft: the source was claimed anew by another run, and the target,
// which knows that epoch, takes nothing back below it. The run does not say that it did, nor that
// it gave that claim back. What it could take back, it says of.
func TestWhatTheTargetRefusesIsLeft(t *testing.T) {
	r := claimedAnew(t, "east", Look, true)
	r.pass(RolledBack)
	r.order("undo scale/shop", "undo claim/cart")
	res := r.m.State().Result()
	left := map[string]bool{}
	for _, s := range res.Steps {
		left[s.Name] = s.Left
		if s.Left && s.Undone {
			t.Errorf("%s was left, and is told as taken back", s.Name)
		}
		if s.Name == "scale/cart" && (s.Left || !s.Undone) {
			t.Errorf("%+v", s)
		}
	}
	for _, name := range []string{"data/shop", "apply/shop", "scale/shop", "claim/shop"} {
		if !left[name] {
			t.Errorf("nobody says that %s was left", name)
		}
	}
	for _, says := range []string{"left as it is, as another run has claimed since", "site east holds epoch 6 of shop", "scale/shop", "epoch 6 of shop is known here"} {
		if !strings.Contains(res.Why, says) {
			t.Errorf("%q does not say %q", res.Why, says)
		}
	}
	if len(res.Remaining) > 0 {
		t.Errorf("people are asked to see to what Davit sees to: %+v", res.Remaining)
	}
}

// TestGitThatStaysStillIsNamed: one suspension is about two applications, of which one went
// back to the source and the other is held elsewhere. Git makes neither there, so that it does
// not make the other: the run says so, and what helps.
func TestGitThatStaysStillIsNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		site  string // that claimed shop
		want  Phase
		about string
	}{
		"claimed at the target":  {"west", Failed, "git makes nothing of cart there"},
		"claimed at the source":  {"east", RolledBack, ""},
		"claimed by a third one": {"north", Failed, "git makes nothing of cart there"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, plan.Failover, func(p *plan.Plan, s *Spec) {
				p.Steps = []plan.Step{{Name: "git", Kind: plan.KindSuspend, Object: plan.Kustomizations + "/flux-system/all", Timeout: time.Minute, Before: []string{"quiesce/cart", "quiesce/shop"}}}
				s.Commit = plan.Commit{Window: 0}
			})
			r.run(AwaitingCommit)
			r.answer = answerTo(Look, "claim/shop", Event{Kind: Looked, Outcome: Superseded, Site: tc.site, Note: "site " + tc.site + " holds epoch 6 of shop"})
			if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
				t.Fatal(why)
			}
			r.pass(tc.want)
			res := r.m.State().Result()
			if tc.about == "" {
				if r.order("undo git"); len(res.Remaining) > 0 {
					t.Errorf("%+v", res.Remaining)
				}
				return
			}
			r.never("undo git")
			if len(res.Remaining) != 1 || res.Remaining[0].Site != "east" || !strings.Contains(res.Remaining[0].Do, "take shop out of what") || !strings.Contains(res.Remaining[0].Do, "kubectl -n flux-system patch "+plan.Kustomizations+" all") {
				t.Errorf("%+v", res.Remaining)
			}
			if !strings.Contains(res.Why, tc.about) {
				t.Errorf("%q", res.Why)
			}
		})
	}
}

// TestWhatGitMakesAtTheSourceGoesOnLast: not before the source may write all that
// the step is about, whatever order the plan names.
func TestWhatGitMakesAtTheSourceGoesOnLast(t *testing.T) {
	r := newRig(t, plan.Failover, func(p *plan.Plan, _ *Spec) {
		p.Steps = []plan.Step{{Name: "off", Kind: plan.KindSuspend, Object: plan.ArgoCD + "/shop", Timeout: time.Minute, Before: []string{"quiesce/shop"}}}
	})
	r.run(AwaitingCommit)
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	r.pass(RolledBack)
	r.order("undo claim/shop", "undo claim/cart", "undo off")
}

// TestWhatWasSuspendedLateGoesOnLast: in a run of before the plan's check, what makes
// the application at the source is suspended after a claim. The claim goes back
// all the same, and first.
func TestWhatWasSuspendedLateGoesOnLast(t *testing.T) {
	r := newRig(t, plan.Failover, func(p *plan.Plan, _ *Spec) {
		p.Steps = []plan.Step{
			{Name: "between", Kind: plan.KindCommand, Command: &plan.Command{Image: "x"}, Undo: &plan.Command{Image: "y"}, Timeout: time.Minute, After: []string{"claim/shop"}, Before: []string{"off"}},
			{Name: "off", Kind: plan.KindSuspend, Object: plan.ArgoCD + "/shop", Application: "shop", Side: plan.Target, Timeout: time.Minute, OnError: plan.Continue, Before: []string{"data/shop"}},
		}
	})
	spec := r.m.Spec()
	spec.step("off").Side = plan.Source // what the check refuses today
	old, err := New("e1", spec)
	if err != nil {
		t.Fatal(err)
	}
	r.m = old
	r.run(AwaitingCommit)
	r.order("act claim/shop", "act between", "act off") // the control: it is late
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	r.pass(RolledBack)
	r.order("undo scale/shop", "undo between", "undo claim/shop", "undo off")
}

// TestRollBackWhoseLookIsRefused says why at once, and goes on when told to.
func TestRollBackWhoseLookIsRefused(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.run(AwaitingCommit)
	r.answer = answerTo(Look, "claim/cart", Event{Kind: Looked, Outcome: Refused, Note: "no right to read the epochs"})
	at := r.now
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	if s := r.m.State(); s.Phase != RollbackFailed || !strings.Contains(s.Why, "no right to read the epochs") || r.now != at {
		t.Errorf("%s, %q, after %s", s.Phase, s.Why, r.now-at)
	}
	r.answer = nil
	if why := r.says(Resume, nil); why != "" {
		t.Fatal(why)
	}
	r.pass(RolledBack)
}

// TestRollBackThatMeetsANewClaimLate: it came between the look and the return.
func TestRollBackThatMeetsANewClaimLate(t *testing.T) {
	r := claimedAnew(t, "west", Undo)
	r.pass(Failed)
	r.order("undo scale/shop", "undo claim/shop")
	if s := r.m.State(); !strings.Contains(s.Why, "site west holds epoch 6 of shop") {
		t.Errorf("%q", s.Why)
	}
}

// TestRollBackWaitsForTheLookAtItsClaims: while the vault is silent nothing is
// taken back, and in the end a person is told.
func TestRollBackWaitsForTheLookAtItsClaims(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.run(AwaitingCommit)
	r.answer = answerTo(Look, "claim/cart", Event{})
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	r.pass(RollbackFailed)
	for _, did := range r.did {
		if strings.HasPrefix(did, "undo ") {
			t.Errorf("%s before it was known whose the applications are", did)
		}
	}
	r.answer = nil
	if why := r.says(Resume, nil); why != "" {
		t.Fatal(why)
	}
	r.pass(RolledBack)
}

// TestASettledStepStaysLeft: that people have seen to it is told, once, and nothing else follows. Of a run that
// goes on nothing is settled, whoever writes so.
func TestASettledStepStaysLeft(t *testing.T) {
	r := newRig(t, plan.Failover, func(p *plan.Plan, s *Spec) {
		p.Steps = []plan.Step{{Name: "git", Kind: plan.KindSuspend, Object: plan.Kustomizations + "/flux-system/all", Timeout: time.Minute, Before: []string{"quiesce/cart", "quiesce/shop"}}}
		s.Commit = plan.Commit{Window: 0}
	})
	r.run(AwaitingCommit)
	early := r.m.State()
	word := Entry{Kind: Settled, At: origin, By: "ann", Step: "git", Note: "resumed by hand"}
	if err := early.Replay(early.Sequence+1, []Entry{word}); err != nil || len(early.Settled) > 0 || early.Phase != AwaitingCommit {
		t.Errorf("a run that goes on: %v, %+v", err, early.Settled)
	}
	if why := r.says(Settle, func(e *Event) { e.Step = "git" }); !strings.Contains(why, "it is AwaitingCommit") {
		t.Errorf("%q", why)
	}
	r.answer = answerTo(Look, "claim/shop", Event{Kind: Looked, Outcome: Superseded, Site: "west", Note: "site west holds epoch 6 of shop"})
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	r.pass(Failed)
	s := r.m.State()
	why, since := s.Why, s.Since
	other := word
	other.By, other.At = "bob", origin.Add(time.Hour)
	if err := s.Replay(s.Sequence+1, []Entry{{Kind: Took, By: "cli"}, word, other}); err != nil {
		t.Fatal(err)
	}
	left := s.Remaining()
	if len(left) != 1 || left[0].Settled == nil || *left[0].Settled != (Settlement{"ann", origin, "resumed by hand"}) {
		t.Errorf("%+v", left)
	}
	if s.Why != why || s.Since != since || s.Executor != "e1" || s.Steps["git"].Undid || len(s.Offers()) > 0 {
		t.Errorf("%q, by %s, %+v, %+v", s.Why, s.Executor, s.Steps["git"], s.Offers())
	}
	if err := s.Replay(s.Sequence+1, []Entry{{Kind: Settled, By: "ann", Step: "nothing"}}); err == nil {
		t.Error("a step that the run has not")
	}
}

// TestAServerThatRefusesKeepsNoSourceStopped: a planned move whose name cannot be moved is taken
// back. That the name cannot be taken back either is what is left when the source runs again.
func TestAServerThatRefusesKeepsNoSourceStopped(t *testing.T) {
	refused, silent := Event{Kind: Acted, Outcome: Refused, Note: "ns1 refuses the key"}, Event{}
	lost := Event{Kind: Acted, Outcome: NoAnswer} // of the first try: it may have been moved
	for name, tc := range map[string]struct {
		act, undo Event
		moved     bool // the name was moved before: clients are at the target
		broken    Phase
	}{
		"refused":          {refused, refused, false, Paused},
		"silent":           {silent, silent, false, OutcomeUnknown},
		"moved, clients":   {Event{Kind: Acted, Outcome: Done}, refused, true, AwaitingCommit},
		"moved and silent": {Event{Kind: Acted, Outcome: Done}, silent, true, AwaitingCommit},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, plan.Switchover, func(p *plan.Plan, s *Spec) {
				record := plan.Record{Zone: "example.com", Secret: "key", Servers: []plan.NameServer{{Address: "192.0.2.53"}}, To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2"}}}
				p.Traffic = []plan.Traffic{{Name: "www", Kind: plan.KindDNS, Object: "www.example.com", Record: &record}, {Name: "door", Kind: plan.KindGate, Object: "door"}}
				s.Commit = plan.Commit{Window: 0}
			})
			r.answer = func(f Effect) *Event {
				switch {
				case f.Step == nil || f.Step.Kind != plan.KindDNS:
				case f.Action == Act && tc.act.Outcome == Refused && r.m.Peek().Steps[f.Step.Name].Attempts == 1:
					return &lost
				case f.Action == Act:
					return &tc.act
				case f.Action == Undo:
					return &tc.undo
				case tc.act.Kind == "" && f.Token.Sequence > 0: // a look at what was sent
					return &silent
				}
				return nil
			}
			r.run(tc.broken)
			if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
				t.Fatal(why)
			}
			r.pass(RollbackFailed)
			if tc.moved { // the target serves them: it is not stopped before they are led back
				r.never("undo scale/shop")
			} else {
				r.order("undo traffic/door", "undo scale/shop", "undo claim/shop", "undo quiesce/shop", "undo fence/shop", "undo traffic/www")
			}
			s := r.m.State()
			if !strings.HasPrefix(s.Why, "traffic/www: ") || strings.Contains(s.Why, "runs at site east again") == tc.moved {
				t.Errorf("why: %q", s.Why)
			}
			epochs := map[string]int64{}
			r.answer = func(f Effect) *Event {
				if f.Action == Undo && f.Step.Name == "traffic/www" {
					epochs = f.Token.Epochs
				}
				return nil
			}
			if why := r.says(Retry, nil); why != "" {
				t.Fatal(why)
			}
			r.pass(RolledBack)
			if want := map[bool]int64{true: 5, false: 6}[tc.moved]; epochs["shop"] != want { // else the target would refuse it
				t.Errorf("the name is taken back under %v, want %d of shop", epochs, want)
			}
		})
	}
}

// TestWhatIsNotTakenBackIsNotSaidToRun: a davit of before took names back first. What such a journal has of one
// that was refused says nothing of the source, which is at rest still.
func TestWhatIsNotTakenBackIsNotSaidToRun(t *testing.T) {
	for _, before := range []bool{true, false} {
		r := newRig(t, plan.Switchover, func(p *plan.Plan, _ *Spec) {
			record := plan.Record{Zone: "example.com", Secret: "key", Servers: []plan.NameServer{{Address: "192.0.2.53"}}, To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2"}}}
			p.Traffic = []plan.Traffic{{Name: "www", Kind: plan.KindDNS, Object: "www.example.com", Record: &record}}
		})
		r.answer = func(f Effect) *Event {
			switch {
			case f.Step == nil || f.Step.Kind != plan.KindDNS || f.Action == Look:
				return nil
			case f.Action == Act && r.m.Peek().Steps[f.Step.Name].Attempts == 1:
				return &Event{Kind: Acted, Outcome: NoAnswer} // it may have been moved
			}
			return &Event{Kind: Acted, Outcome: Refused, Note: "ns1 refuses the key"}
		}
		r.run(Paused)
		s := r.m.State()
		if before {
			entries := []Entry{{Kind: Rolling}, {Kind: Undoing, Step: "traffic/www"}, {Kind: Stuck, Step: "traffic/www", Note: "ns1 refuses the key"}}
			if err := s.Replay(s.Sequence+1, entries); err != nil {
				t.Fatal(err)
			}
		} else { // the control
			r.says(RollBack, func(e *Event) { e.Text = "west" })
			r.pass(RollbackFailed)
			s = r.m.State()
		}
		if s.Phase != RollbackFailed || strings.Contains(s.Why, "runs at site east again") == before {
			t.Errorf("before: %t: %s: %q", before, s.Phase, s.Why)
		}
	}
}
