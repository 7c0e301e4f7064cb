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
	return whole, before + block(tb, "lease: 15s") + rest
}

// block is what the page shows that has some words.
func block(tb testing.TB, words string) string {
	tb.Helper()
	page, err := os.ReadFile("../../../docs/plans.md")
	if err != nil {
		tb.Fatal(err)
	}
	for i, text := range strings.Split(string(page), "```") {
		if i%2 == 1 && strings.Contains(text, words) {
			return strings.TrimPrefix(text, "yaml\n")
		}
	}
	tb.Fatalf("the page shows nothing with %q", words)
	return ""
}

// TestInfrastructureOfTheDocs: what the page shows is read whole, and has no problem.
func TestInfrastructureOfTheDocs(t *testing.T) {
	whole, _ := example(t)
	_, steps, _ := strings.Cut(block(t, "kind: infrastructure"), "steps:\n")
	before, rest, _ := strings.Cut(whole, "    - name: argo-off")
	text := before + "  " + strings.ReplaceAll(strings.TrimSuffix(steps, "\n"), "\n", "\n  ") + "\n    - name: argo-off" + rest
	p, err := document.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range p.Check() {
		t.Error(problem)
	}
	network, machines := p.Steps[0].Terraform, p.Steps[1].ClusterAPI
	if network.ConfigMap != "west-network" || network.Backend["key"] != "west/network" || network.Variables["size"] != "large" || network.Secrets[0] != "cloud" || network.LockTimeout != time.Minute || network.Destroy {
		t.Errorf("%+v", network)
	}
	if machines.Kubeconfig != "management" || machines.Scale[0].Replicas != 6 || machines.Wait[0].Conditions[1] != "ControlPlaneReady" {
		t.Errorf("%+v", machines)
	}
}

// TestCallOfTheDocs: what the page shows is read whole, and has no problem.
func TestCallOfTheDocs(t *testing.T) {
	whole, _ := example(t)
	_, steps, _ := strings.Cut(block(t, "switch-pool"), "steps:\n")
	before, rest, _ := strings.Cut(whole, "    - name: argo-off")
	p, err := document.Parse([]byte(before + "  " + strings.ReplaceAll(strings.TrimSuffix(steps, "\n"), "\n", "\n  ") + "\n    - name: argo-off" + rest))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range p.Check() {
		t.Error(problem)
	}
	want := &plan.Call{
		Method: "POST", URL: "https://lb.example.com/v1/pools/shop", Expect: 202, Body: `{"active": "west"}`,
		Headers: []plan.Header{{Name: "Content-Type", Value: "application/json"}, {Name: "Authorization", Value: "Bearer ", From: &plan.SecretKey{Secret: "lb", Key: "token"}}},
	}
	if !reflect.DeepEqual(p.Steps[0].Call, want) {
		t.Errorf("%+v", p.Steps[0].Call)
	}
}

// TestAppliedObjectsAreKept as they were written.
func TestAppliedObjectsAreKept(t *testing.T) {
	p, err := document.Parse([]byte(`
apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: p}
spec:
  sites: [{name: east}, {name: west}]
  fence: {timeout: 30s}
  applications: [{name: shop}]
  steps:
    - name: fleet
      kind: infrastructure
      timeout: 10m
      before: [data/shop]
      early: true
      clusterAPI: {undo: destroy, apply: [{apiVersion: cluster.x-k8s.io/v1beta1, kind: Cluster, metadata: {name: west, namespace: fleet}, spec: {paused: false}}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range p.Check() {
		t.Error(problem)
	}
	a := p.Steps[0].ClusterAPI
	if head, err := plan.ReadMachinery(a.Apply[0]); err != nil || head.String() != "Cluster fleet/west" || !a.Destroy || !strings.Contains(string(a.Apply[0]), `"paused":false`) {
		t.Errorf("%s, %v", a.Apply[0], err)
	}
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
		`spec.sitez: there is no such field`:  strings.Replace(whole, "  sites:", "  sitez:", 1),
		`is there twice`:                      strings.Replace(whole, "  objectives:", "  sites: []\n  objectives:", 1),
		`it is a "Plan" of`:                   strings.Replace(whole, "kind: RecoveryPlan", "kind: Plan", 1),
		"metadata.name is missing":            strings.Replace(whole, "  name: shop", "  name: \"\"", 1),
		"spec.fence.timeout: want a duration": strings.Replace(whole, "timeout: 30s", "timeout: soon", 1),
		"read plan":                           "\t",
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
