package document_test

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
)

// example is the plan that docs/plans.md shows, and what it shows besides for
// automatic declaration.
func example(tb testing.TB) (whole, automatic string) {
	tb.Helper()
	page, err := os.ReadFile("../../../docs/plans.md")
	if err != nil {
		tb.Fatal(err)
	}
	blocks := strings.Split(string(page), "```")
	whole = strings.TrimPrefix(blocks[1], "yaml\n")
	before, rest, _ := strings.Cut(whole, "  fence:\n    timeout: 30s # how long a silent source is asked\n")
	return whole, before + strings.TrimPrefix(blocks[3], "yaml\n") + rest
}

func TestExampleOfTheDocs(t *testing.T) {
	whole, automatic := example(t)
	for name, text := range map[string]string{"whole": whole, "automatic": automatic} {
		p, err := document.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, problem := range p.Check() {
			t.Errorf("%s: %v", name, problem)
		}
	}
	p, _ := document.Parse([]byte(automatic))
	if p.Fence.Lease != 15*time.Second || p.Fence.Drift != 1000 || p.Declaration.Agree != 2 || p.Commit.Window != time.Hour || p.Limits[plan.KindRestore] != 2*time.Hour {
		t.Errorf("times were lost: %+v %+v %+v", p.Fence, p.Declaration, p.Commit)
	}
	warm := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.Name == "warm-cache" })
	if s := p.Steps[warm]; s.Command.Args[0] != "--all" || s.OnError != plan.Continue || s.After[0] != "ready/web" || s.Timeout != 5*time.Minute {
		t.Errorf("step %+v", s)
	}
	if p.Sites[1].Mappings[0].To != "ssd" || p.Applications[1].Needs[0] != "pay" || p.Outside[0].Probes["west"].Kind != plan.CheckHTTP || p.Approvals[0].Verbs[1] != plan.Failback {
		t.Errorf("plan %+v", p)
	}
}

// TestApproversAreKept: what is lost on the way lets anybody approve.
func TestApproversAreKept(t *testing.T) {
	whole, _ := example(t)
	p, err := document.Parse([]byte(strings.Replace(whole, "  traffic: #", "    - {name: go, kind: approval, prompt: open it, timeout: 1h, approvers: {count: 2, roles: [dba], users: [cas]}}\n  traffic: #", 1)))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.Name == "go" })
	if i < 0 || !reflect.DeepEqual(p.Steps[i].Approvers, &plan.Approval{Count: 2, Roles: []string{"dba"}, Users: []string{"cas"}}) {
		t.Errorf("step %d of %+v", i, p.Steps)
	}
	if a := p.Approvals[0]; a.Count != 2 || !reflect.DeepEqual(a.Roles, []string{"dba", "owners"}) || !reflect.DeepEqual(a.Users, []string{"anna"}) {
		t.Errorf("approvals %+v", p.Approvals)
	}
}

func TestRefuses(t *testing.T) {
	whole, _ := example(t)
	for want, text := range map[string]string{
		`unknown field "spec.sitez"`: strings.Replace(whole, "  sites:", "  sitez:", 1),
		`already set in map`:         strings.Replace(whole, "  objectives:", "  sites: []\n  objectives:", 1),
		`it is a "Plan" of`:          strings.Replace(whole, "kind: RecoveryPlan", "kind: Plan", 1),
		"metadata.name is missing":   strings.Replace(whole, "  name: shop", "  name: \"\"", 1),
		"invalid duration":           strings.Replace(whole, "timeout: 30s", "timeout: soon", 1),
		"read plan":                  "\t",
	} {
		if _, err := document.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// FuzzParse reads anything; what it accepts is checked, ordered and drawn.
func FuzzParse(f *testing.F) {
	whole, automatic := example(f)
	f.Add([]byte(whole))
	f.Add([]byte(automatic))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := document.Parse(data)
		if err != nil || len(p.Check()) > 0 {
			return
		}
		for _, v := range plan.Verbs() {
			g, err := p.Graph(v)
			if err != nil {
				t.Fatalf("without problems, and without a graph: %v", err)
			}
			_, _, _ = g.Text(), g.DOT(), g.SVG()
		}
		if changes := plan.Diff(p, p); len(changes) > 0 {
			t.Errorf("a plan differs from itself: %v", changes)
		}
	})
}
