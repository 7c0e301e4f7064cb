package standby

import (
	"testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// gated asks for a step of a run under the newest epoch of shop.
func gated(a failover.Action, run string, n int64) execute.Order {
	return execute.Order{
		Action: a, Run: run, Plan: "p", Verb: plan.Failback, From: "west", To: "east", Site: "east",
		Step:  plan.Step{Name: "traffic/www", Kind: plan.KindGate, Object: "www"},
		Token: failover.Token{Run: run, Sequence: n, Epochs: map[string]int64{"shop": 2}},
	}
}

func TestAGateIsOpenedByOneRunAtATime(t *testing.T) {
	m := newMemory(t, fenced("true"))
	s, _ := returning(t, m)
	gate := s.Kinds()[plan.KindGate]
	open := func() string {
		u := m.objects[keyOf(kindApplication, "davit-system", "shop")]
		return u.GetAnnotations()[v1alpha1.AnnotationGate+"www"]
	}
	for i, c := range []struct {
		action failover.Action
		run    string
		want   failover.Outcome
		open   string
	}{
		{failover.Look, "one", failover.NotDone, ""},
		{failover.Act, "one", failover.Done, "one"},
		{failover.Look, "one", failover.Done, "one"},
		{failover.Look, "two", failover.NotDone, "one"},
		{failover.Act, "two", failover.Done, "two"},
		{failover.Undo, "one", failover.Done, "two"}, // it is no more its own
		{failover.Undo, "two", failover.Done, ""},
		{failover.Undo, "two", failover.Done, ""},
	} {
		got := gate.Do(t.Context(), gated(c.action, c.run, int64(i+1)))
		if got.Outcome != c.want || open() != c.open {
			t.Errorf("%d: %s by %s: %+v, open by %q; want %s, open by %q", i, c.action, c.run, got, open(), c.want, c.open)
		}
	}
}

// TestGatesAreClosedBeforeDataComes: who comes back must not find open what he left
// open, or clients come in before all is ready.
func TestGatesAreClosedBeforeDataComes(t *testing.T) {
	m := newMemory(t, fenced("true"))
	s, _ := returning(t, m)
	u := m.objects[keyOf(kindApplication, "davit-system", "shop")]
	u.SetAnnotations(map[string]string{v1alpha1.AnnotationGate + "www": "before", v1alpha1.AnnotationGate + "other": "before"})
	o := gated(failover.Act, "back", 1)
	o.Step = plan.Step{Name: "data/shop", Kind: plan.KindRestore, Application: "shop", Gates: []string{"www"}}
	s.marks = noted{o}
	if err := s.closeGates(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	left := m.objects[keyOf(kindApplication, "davit-system", "shop")].GetAnnotations()
	if left[v1alpha1.AnnotationGate+"www"] != "" || left[v1alpha1.AnnotationGate+"other"] == "" {
		t.Errorf("left open: %v", left)
	}
	m = newMemory(t)
	s, _ = returning(t, m)
	if got := s.gate(t.Context(), gated(failover.Act, "one", 1)); got.Outcome != failover.Refused || got.Note == "" {
		t.Errorf("without an Application: %+v", got)
	}
	if got := s.gate(t.Context(), gated(failover.Undo, "one", 2)); got.Outcome != failover.Done {
		t.Errorf("undo without an Application: %+v", got)
	}
}
