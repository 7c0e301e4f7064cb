package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/prediction"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/readiness"
	"davit.dev/davit/internal/reconcile/measure"
)

func outlook(name string) *foresight.Outlook {
	return &foresight.Outlook{
		Input: &preflight.Input{To: "west", Plan: &plan.Plan{Name: name, Objectives: plan.Objectives{RTO: time.Minute}}},
		Findings: []preflight.Finding{
			{Check: "a", Verdict: preflight.OK, Reason: "fine"},
			{Check: "b", Verdict: preflight.Unknown, Reason: "who knows"},
			{Check: "c", Verdict: preflight.Warn, Application: "shop", Reason: "slow"},
			{Check: "d", Verdict: preflight.Fail, Site: "west", Reason: "no room", Remedy: "make some"},
		},
		RTO: prediction.RTO{Known: true, Worst: 90 * time.Second, Runs: 3},
		RPO: map[string]prediction.RPO{"shop": {Known: true, Worst: time.Minute}, "db": {Known: true, Worst: 2 * time.Minute}},
	}
}

// The status says what is wrong, the worst first, and what is not known is no
// error.
func TestStatusOfPlan(t *testing.T) {
	var s v1alpha1.RecoveryPlanStatus
	rows := []readiness.Row{
		{Application: "shop", Site: "west", Level: readiness.Scripted, Missing: []string{"DNS: x"}},
		{Application: "db", Site: "west", Level: readiness.Manual, Verify: "changed"},
		{Application: "shop", Site: "north", Level: readiness.None},
	}
	status(&s, outlook("p"), rows, time.Unix(100, 0))
	var got []string
	for _, f := range s.Preflight.Findings {
		got = append(got, f.Severity+" "+f.Check+" "+f.Message)
	}
	if want := []string{"error d no room", "warning c shop: slow", "warning b not known: who knows"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if r := s.Readiness; r.Level != 1 || !r.Stale || !slices.Equal(r.Missing, []string{"shop: DNS: x"}) {
		t.Errorf("%+v", r)
	}
	if p := s.Prediction; p.Runs != 3 || p.RTO.Duration != 90*time.Second || p.RPO.Duration != 2*time.Minute {
		t.Errorf("%+v", p)
	}
	blind := outlook("p")
	blind.RTO, blind.RPO = prediction.RTO{}, map[string]prediction.RPO{"shop": {Known: true}, "db": {}}
	if status(&s, blind, nil, time.Unix(100, 0)); s.Prediction != nil || s.Readiness != nil {
		t.Errorf("nothing is known, and it is predicted: %+v, %+v", s.Prediction, s.Readiness)
	}
	for i := range 2 * mostFindings {
		blind.Findings = append(blind.Findings, preflight.Finding{Check: fmt.Sprint(i), Verdict: preflight.Fail})
	}
	if status(&s, blind, nil, time.Unix(100, 0)); len(s.Preflight.Findings) != mostFindings {
		t.Errorf("%d findings", len(s.Preflight.Findings))
	}
}

// Gauges of what is not known any more, and of plans that are gone, go away.
func TestGaugesOfPlans(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(measure.PlanRTO, measure.PlanRTOObjective, measure.PlanRPOObjective, measure.PlanFindings)
	count := func() map[string]int {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, f := range families {
			n[f.GetName()] = len(f.GetMetric())
		}
		return n
	}
	measure.KeepPlans("v", []string{"p"})
	gauges("v", outlook("p"), nil)
	if n := count(); n["davit_plan_predicted_rto_seconds"] != 1 || n["davit_plan_rto_objective_seconds"] != 1 || n["davit_plan_rpo_objective_seconds"] != 0 || n["davit_plan_findings"] != 4 {
		t.Errorf("%v", n)
	}
	blind := outlook("p")
	blind.RTO = prediction.RTO{}
	gauges("v", blind, nil)
	if n := count(); n["davit_plan_predicted_rto_seconds"] != 0 {
		t.Errorf("%v", n)
	}
	if measure.KeepPlans("v", nil); len(count()) != 0 {
		t.Errorf("%v", count())
	}
}
