package standby

import (
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/shape"
)

// TestWhoStoodStillTurnsNoGate: a process stands still when it has read which run has the gate
// open, and another carries its run on, or rolls it back, and another run begins. The
// controls are those of which nothing happens meanwhile.
func TestWhoStoodStillTurnsNoGate(t *testing.T) {
	type deed struct {
		action failover.Action
		run    string
		n      int64
	}
	for name, c := range map[string]struct {
		before, late deed // late stands still
		meanwhile    []deed
		open         string // in the end
		outcome      failover.Outcome
	}{
		"opens, alone": {late: deed{failover.Act, "one", 5}, open: "one", outcome: failover.Done},
		"opens what was taken back": {
			late: deed{failover.Act, "one", 5}, meanwhile: []deed{{failover.Undo, "one", 8}}, outcome: failover.NoAnswer,
		},
		"opens what another run has": {
			late: deed{failover.Act, "one", 5}, meanwhile: []deed{{failover.Undo, "one", 8}, {failover.Act, "two", 3}}, open: "two", outcome: failover.NoAnswer,
		},
		"closes, alone": {before: deed{failover.Act, "one", 4}, late: deed{failover.Undo, "one", 5}, outcome: failover.Done},
		"closes what another run has": {
			before: deed{failover.Act, "one", 4}, late: deed{failover.Undo, "one", 5}, meanwhile: []deed{{failover.Act, "two", 3}}, open: "two", outcome: failover.Done,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, fenced("true"))
			m.objects[keyOf(kindApplication, "davit-system", "shop")].SetResourceVersion("1")
			s, _ := returning(t, m)
			successor, _ := returning(t, m)
			do := func(s *Site, d deed) execute.Answer {
				return (&execute.Aged{Inner: execute.Func(s.gate), Marks: s.marks}).Do(t.Context(), gated(d.action, d.run, d.n))
			}
			if c.before.run != "" {
				do(s, c.before)
			}
			c0 := dozing{memory: m}
			s.o.Recovery.Cluster = &c0
			c0.doze = func() {
				c0.doze = nil
				for _, d := range c.meanwhile {
					if got := do(successor, d); got.Outcome != failover.Done {
						t.Errorf("%+v: %+v", d, got)
					}
				}
			}
			got := do(s, c.late)
			open := m.objects[keyOf(kindApplication, "davit-system", "shop")].GetAnnotations()[v1alpha1.AnnotationGate+"www"]
			if got.Outcome != c.outcome || open != c.open {
				t.Errorf("%+v, open by %q; want %s, open by %q", got, open, c.outcome, c.open)
			}
		})
	}
}

// TestNodesKnowWhatGoesBack before it does: the epoch is on the Application when the step that
// started it, or that brought what may start by itself, is taken back. Data does not start.
func TestNodesKnowWhatGoesBack(t *testing.T) {
	for kind, want := range map[plan.Kind]string{plan.KindScale: "2", plan.KindApply: "2", plan.KindRestore: ""} {
		m := newMemory(t, fenced("true"))
		s, _ := returning(t, m)
		o := gated(failover.Undo, "one", 5)
		o.Step = plan.Step{Name: string(kind) + "/shop", Kind: kind, Application: "shop", Timeout: time.Minute}
		if got := s.restore(t.Context(), o); got.Outcome != failover.Done {
			t.Errorf("%s: %+v", kind, got)
		}
		if got := m.objects[keyOf(kindApplication, "davit-system", "shop")].GetAnnotations()[fence.AnnotationReturned]; got != want {
			t.Errorf("%s: given back: %q, want %q", kind, got, want)
		}
		o.From = "east" // in place
		m = newMemory(t, fenced("true"))
		s, _ = returning(t, m)
		if got := s.restore(t.Context(), o); got.Outcome != failover.Done || m.objects[keyOf(kindApplication, "davit-system", "shop")].GetAnnotations()[fence.AnnotationReturned] != "" {
			t.Errorf("%s of the site that has it: %+v", kind, got)
		}
	}
}

// TestAHoldIsLookedAt: whoever held a run and stood still finds that another has it. The control is
// one that nobody took.
func TestAHoldIsLookedAt(t *testing.T) {
	m := newMemory(t)
	s, _ := returning(t, m)
	held, release, err := s.Hold(t.Context(), "r", "one")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := hold.Still(held); err != nil {
		t.Errorf("nobody took it: %v", err)
	}
	if err := hold.Still(t.Context()); err != nil {
		t.Errorf("nothing is held: %v", err)
	}
	m.mu.Lock()
	lease := m.objects[keyOf(shape.KindLease, "davit-system", "run-r")]
	err = unstructured.SetNestedField(lease.Object, "two", "spec", "holderIdentity")
	m.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := hold.Still(held); !errors.Is(err, hold.ErrLost) {
		t.Errorf("another has it: %v", err)
	}
}
