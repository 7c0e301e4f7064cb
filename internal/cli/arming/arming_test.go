package arming

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func automatic() *plan.Plan {
	return &plan.Plan{
		Name: "shop", Sites: []plan.Site{{Name: "east"}, {Name: "west"}}, Applications: []plan.Application{{Name: "shop"}},
		Declaration: plan.Declaration{Automatic: true, Vantages: []string{"west", "north", "witness"}, Agree: 2, For: time.Minute, Block: time.Hour},
		Fence:       plan.Fence{Timeout: time.Second, Lease: 15 * time.Second, Bound: 10 * time.Second, Drift: 1000},
	}
}

func TestOnlyAnAutomaticPlanIsArmed(t *testing.T) {
	if err := armable(automatic(), true); err != nil {
		t.Error(err)
	}
	human := automatic()
	human.Declaration, human.Fence.Lease, human.Fence.Bound = plan.Declaration{}, 0, 0
	if err := armable(human, true); err == nil || !strings.Contains(err.Error(), "no automatic declaration") {
		t.Errorf("where people declare: %v", err)
	}
	if err := armable(human, false); err != nil {
		t.Errorf("disarmed: %v", err)
	}
	bad := automatic()
	bad.Fence.Bound = 0
	if armable(bad, true) == nil {
		t.Error("a plan that is wrong is armed")
	}
}

// TestPeersMustBeKnown: a plan that wants promises is not armed before the vault knows which clusters would give them.
func TestPeersMustBeKnown(t *testing.T) {
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(time.Now), "acme", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	a := automatic()
	got, err := termsOf(t.Context(), a, p, "east", true)
	if err != nil || got.LeaseMillis != 15000 || got.BoundMillis != 10000 || got.DriftPPM != 1000 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := termsOf(t.Context(), a, p, "east", false); err != nil || got != nil {
		t.Errorf("disarmed: %+v, %v", got, err)
	}
	a.Fence.Promises, a.Fence.Peers = true, map[string]string{"east": "e:1", "west": "w:1"}
	if _, err := termsOf(t.Context(), a, p, "east", true); err == nil || !strings.Contains(err.Error(), "sign of life") {
		t.Errorf("west is not known: %v", err)
	}
	if err := p.Heartbeat(t.Context(), vault.SiteStatus{Site: "west", Cluster: "w"}); err != nil {
		t.Fatal(err)
	}
	if got, err := termsOf(t.Context(), a, p, "east", true); err != nil || len(got.Peers) != 1 || got.Peers[0].Cluster != "w" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestNodesMustBeAble: a node that could not keep the lease refuses it before
// anything changes.
func TestNodesMustBeAble(t *testing.T) {
	now := time.Now()
	seen := metav1.NewTime(now)
	report := func(st v1alpha1.NodeFenceStatus) *v1alpha1.NodeFence {
		return &v1alpha1.NodeFence{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "n1"}, Status: st}
	}
	bound := &metav1.Duration{Duration: 8 * time.Second}
	long := metav1.NewTime(now.Add(-2 * time.Minute))
	for name, c := range map[string]struct {
		report *v1alpha1.NodeFence
		want   string
	}{
		"able":      {report(v1alpha1.NodeFenceStatus{ObservedAt: &seen, Bound: bound}), ""},
		"silent":    {report(v1alpha1.NodeFenceStatus{ObservedAt: &long, Bound: bound}), "has said nothing since"},
		"not there": {nil, "says nothing"},
		"broken":    {report(v1alpha1.NodeFenceStatus{ObservedAt: &seen, Bound: bound, Problem: "no runtime"}), "no runtime"},
		"older":     {report(v1alpha1.NodeFenceStatus{ObservedAt: &seen}), "upgrade it"},
		"too slow":  {report(v1alpha1.NodeFenceStatus{ObservedAt: &seen, Bound: &metav1.Duration{Duration: 11 * time.Second}}), "needs up to 11s"},
	} {
		objects := []client.Object{&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}}
		if c.report != nil {
			objects = append(objects, c.report)
		}
		err := able(t.Context(), fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).Build(), automatic().Fence, now)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNothingIsArmedBesideARun: the run's orders are of the epochs that it
// claimed; after a newer one it could neither go on nor go back.
func TestNothingIsArmedBesideARun(t *testing.T) {
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), mem.New(time.Now), "acme", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC()
	begin := func(run string, v plan.Verb, app string) {
		t.Helper()
		spec := &failover.Spec{
			Run: run, Plan: app, Verb: v, From: "east", To: "west", By: "ann", At: at, Accept: failover.TimedOut, Applications: []string{app},
			Steps: []plan.Step{{Name: "claim/" + app, Kind: plan.KindClaim, Application: app, Timeout: time.Minute}},
		}
		if err := register.New(project).Begin(t.Context(), *spec); err != nil {
			t.Fatal(err)
		}
		entries := []failover.Entry{{Kind: failover.Opened, At: at, By: "ann", Spec: spec}, {Kind: failover.Took, At: at, By: "one"}}
		if err := journal.Create(project, run, "one").Append(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
	}
	begin("bank-1", plan.Failover, "bank")
	begin("shop-drill", plan.Drill, "shop")
	if err := idle(t.Context(), automatic(), project); err != nil {
		t.Errorf("beside another application's run, and a drill: %v", err)
	}
	begin("shop-1", plan.Failover, "shop")
	if err := idle(t.Context(), automatic(), project); err == nil || !strings.Contains(err.Error(), "run shop-1, a failover of plan shop, is under way with shop") {
		t.Errorf("beside a run: %v", err)
	}
	if err := register.New(project).Forget(t.Context(), "shop-1"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"running/shop-2", "runs/shop-2/00000000000000000001"} {
		if err := project.Store().Put(t.Context(), project.Root()+key, strings.NewReader("?"), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := idle(t.Context(), automatic(), project); err == nil || !strings.Contains(err.Error(), "what it does nobody knows") {
		t.Errorf("beside a run that nobody can read: %v", err)
	}
}

// TestNextIsTold with why it may not be able to take over: after a failover a lost site is still the first.
func TestNextIsTold(t *testing.T) {
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	project, err := vault.CreateProject(t.Context(), mem.New(func() time.Time { return now }), "acme", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	told := func() string {
		var text output.Text
		Report{Next: next(t.Context(), automatic(), &access.Opened{Project: project, Site: "west"})}.Text(&text)
		return text.String()
	}
	if got := told(); !strings.Contains(got, "site east is to take over, which has never given a sign of life") {
		t.Error(got)
	}
	if err := lease.Beat(t.Context(), project, vault.SiteStatus{Site: "east", Cluster: "e", Time: now}); err != nil {
		t.Fatal(err)
	}
	if got := told(); !strings.Contains(got, "site east takes over.") {
		t.Error(got)
	}
	now = now.Add(2 * time.Hour)
	if got := told(); !strings.Contains(got, "no sign of life for 2h") || !strings.Contains(got, "put the site that is to be next first") {
		t.Error(got)
	}
}
