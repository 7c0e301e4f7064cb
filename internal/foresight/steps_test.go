package foresight

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// What a step does, is asked, or is taken back by is another step when it changes: a run of before
// proves nothing of it. What a journal holds of it, and what a run fills in, is no change.
func TestStepsThatChanged(t *testing.T) {
	steps := func() []plan.Step {
		return []plan.Step{
			{Name: "outside/bank", Kind: plan.KindOutside, Object: "bank"},
			{Name: "tell", Kind: plan.KindHTTP, Timeout: time.Minute, Call: &plan.Call{Method: "POST", URL: "https://a.example.com", Headers: []plan.Header{{Name: "X", From: &plan.SecretKey{Secret: "s", Key: "k"}}}}, Undo: &plan.Command{Image: "undo:1"}},
			{Name: "probe/shop", Kind: plan.KindProbe, Checks: []plan.Check{{Kind: plan.CheckTCP, Target: "db.shop:5432", Timeout: time.Second}}},
		}
	}
	for name, c := range map[string]struct {
		change func(s []plan.Step)
		same   bool
	}{
		"nothing":           {func([]plan.Step) {}, true},
		"filled in by runs": {func(s []plan.Step) { s[0].Checks = []plan.Check{{Kind: plan.CheckTCP, Target: "bank:1"}} }, true},
		"other order":       {slices.Reverse[[]plan.Step], true},
		"the address":       {func(s []plan.Step) { s[1].Call.URL = "https://b.example.com" }, false},
		"a header's secret": {func(s []plan.Step) { s[1].Call.Headers[0].From.Key = "other" }, false},
		"the undo":          {func(s []plan.Step) { s[1].Undo.Image = "undo:2" }, false},
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
