package fleet

import (
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// Each state of a run that waits has its command.
func TestNext(t *testing.T) {
	steps := []failover.StepResult{{Name: "claim/shop", Status: failover.Succeeded}, {Name: "call", Status: failover.Doing}, {Name: "probe", Status: failover.Broke}, {Name: "gate"}}
	base := Run{Result: failover.Result{Run: "r1", State: failover.Running, Steps: steps}, Planned: []PlannedStep{{Name: "call", Asks: true, Prompt: "call them"}, {Name: "gate", After: []string{"claim/shop", "probe"}}}}
	for want, change := range map[string]func(*Run){
		"davit runs show r1":          func(*Run) {},
		"davit runs approve r1":       func(r *Run) { r.State = failover.AwaitingApproval },
		"davit runs commit r1":        func(r *Run) { r.State = failover.AwaitingCommit },
		"davit runs resume r1":        func(r *Run) { r.PauseKind = failover.ByOperator },
		"davit runs retry r1 probe":   func(r *Run) { r.PauseKind = failover.ByFailure },
		"davit runs answer r1 call":   func(r *Run) { r.PauseKind = failover.ForInput },
		"davit runs retry r1":         func(r *Run) { r.State = failover.RollbackFailed },
		"davit runs consent r1 north": func(r *Run) { r.PauseKind, r.Planned = failover.ForInput, nil; r.Applications = fenced() },
	} {
		r := base
		change(&r)
		if got := r.Next(); len(got) == 0 || got[0].Command != want || got[0].What == "" {
			t.Errorf("want %s: %v", want, got)
		}
	}
	named := base
	named.State, named.Planned = failover.RollbackFailed, []PlannedStep{{Name: "probe", Kind: plan.KindProbe}, {Name: "old", Kind: plan.KindDNS}, {Name: "www", Kind: plan.KindDNS}}
	named.Steps = []failover.StepResult{{Name: "probe", Attempts: 1}, {Name: "old", Attempts: 1, Left: true}, {Name: "www", Attempts: 1, Status: failover.Succeeded}}
	var skips []string
	for _, d := range named.Next() {
		if strings.Contains(d.Command, " skip ") {
			skips = append(skips, d.Command)
		}
	}
	if !slices.Equal(skips, []string{"davit runs skip r1 www"}) {
		t.Errorf("a name that cannot be led back: %v", skips)
	}
	if over := (Run{Over: true}); len(over.Next()) != 0 {
		t.Error("a run that is over asks for something")
	}
	if got := base.Waits("gate"); !slices.Equal(got, []string{"probe"}) {
		t.Errorf("gate waits for %v", got)
	}
	if got := strings.Join(base.Waits("call"), " "); got != "" {
		t.Errorf("a step under way waits for %s", got)
	}
}

func fenced() []failover.ApplicationResult {
	return []failover.ApplicationResult{{Name: "shop", Fences: map[string]string{"south": failover.Proven.String(), "north": failover.None.String()}}}
}
