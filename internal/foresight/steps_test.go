package foresight

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// What a step does, is asked, or is taken back by is another step when it changes: a run of before
// proves nothing of it. What a journal holds of it is no change.
func TestStepsThatChanged(t *testing.T) {
	steps := func() []plan.Step {
		return []plan.Step{
			{Name: "outside/bank", Kind: plan.KindOutside, Object: "bank"},
			{Name: "tell", Kind: plan.KindHTTP, Timeout: time.Minute, Call: &plan.Call{Method: "POST", URL: "https://a.example.com", Headers: []plan.Header{{Name: "X", From: &plan.SecretKey{Secret: "s", Key: "k"}}}}, Undo: &plan.Command{Image: "undo:1"}},
			{Name: "probe/shop", Kind: plan.KindProbe, Checks: []plan.Check{{Kind: plan.CheckTCP, Target: "db.shop:5432", Timeout: time.Second}}},
			{Name: "data/shop", Kind: plan.KindRestore, Mappings: []plan.Mapping{{Kind: plan.MapStorageClass, From: "fast", To: "faster"}}, Gates: []string{"www"}},
			{Name: "go", Kind: plan.KindApproval, Prompt: "Go?", Approvers: &plan.Approval{Count: 2, Roles: []string{"ops"}}},
		}
	}
	for name, c := range map[string]struct {
		change func(s []plan.Step)
		same   bool
	}{
		"nothing":           {func([]plan.Step) {}, true},
		"asked of a bank":   {func(s []plan.Step) { s[0].Checks = []plan.Check{{Kind: plan.CheckTCP, Target: "bank:1"}} }, false},
		"other order":       {slices.Reverse[[]plan.Step], true},
		"the address":       {func(s []plan.Step) { s[1].Call.URL = "https://b.example.com" }, false},
		"a header's secret": {func(s []plan.Step) { s[1].Call.Headers[0].From.Key = "other" }, false},
		"the undo":          {func(s []plan.Step) { s[1].Undo.Image = "undo:2" }, false},
		"what it is called": {func(s []plan.Step) { s[3].Mappings[0].To = "slow" }, false},
		"who lets clients":  {func(s []plan.Step) { s[3].Gates = nil }, false},
		"what people read":  {func(s []plan.Step) { s[4].Prompt = "Stay?" }, false},
		"who must agree":    {func(s []plan.Step) { s[4].Approvers.Count = 1 }, false},
		"what is asked":     {func(s []plan.Step) { s[2].Checks[0].Target = "db.shop:5433" }, false},
	} {
		data, err := json.Marshal(steps())
		if err != nil {
			t.Fatal(err)
		}
		var kept []plan.Step
		if err := json.Unmarshal(data, &kept); err != nil {
			t.Fatal(err)
		}
		now := steps()
		c.change(now)
		if same := sameSteps(now, kept); same != c.same {
			t.Errorf("%s: the same: %v", name, same)
		}
	}
}
