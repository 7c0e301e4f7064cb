package foresight_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/readiness"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vantage"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

func project(t *testing.T) (*vault.Project, vault.Store) {
	t.Helper()
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	store := mem.New(clock)
	p, err := vault.CreateProject(t.Context(), store, "default", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p, store
}

const web = `{"kind":"Deployment","metadata":{"name":"web","namespace":"shop"},"spec":{"replicas":3,"template":{"spec":{
"initContainers":[{"name":"i","resources":{"requests":{"cpu":"3"}}},{"name":"s","restartPolicy":"Always","resources":{"requests":{"memory":"1Gi"}}}],
"containers":[{"name":"c","resources":{"requests":{"cpu":"500m","memory":"1Gi"},"limits":{"cpu":"1"}}}]}}}}`

// seed publishes a point of shop.
func seed(t *testing.T, p *vault.Project, at time.Time, objects ...held) string {
	t.Helper()
	ctx := t.Context()
	id, err := point.NewID("shop", at, strings.NewReader("aaaaaaaaa"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.NewWriter(ctx, "shop", id)
	if err != nil {
		t.Fatal(err)
	}
	m := &point.Manifest{
		FormatVersion: 1, ID: id, Application: "shop", Project: p.Name(), Site: "east", Epoch: 1, Trigger: "schedule",
		StartedAt: at, Instant: at, CutBy: at, FinishedAt: at.Add(20 * time.Second), Consistency: point.Crash, Namespaces: []string{"shop"},
		Images: []point.Image{{Reference: "registry.example.com/shop:1", Digest: "sha256:aa"}},
	}
	for _, h := range objects {
		rw := w.Resource(h.kind)
		for _, o := range h.list {
			if err := rw.Add(ctx, []byte(o)); err != nil {
				t.Fatal(err)
			}
			m.Objects++
		}
		res, err := rw.Close(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m.Resources = append(m.Resources, res)
	}
	if err := w.Publish(ctx, m, nil); err != nil {
		t.Fatal(err)
	}
	return id
}

// held are objects of one kind.
type held struct {
	kind point.Resource
	list []string
}

func of(group, resource string, list ...string) held {
	return held{point.Resource{Group: group, Version: "v1", Kind: resource, Resource: resource, Namespaced: true}, list}
}

// rich is a vault with an application at east, and facts of west.
func rich(t *testing.T) (*vault.Project, vault.Store) {
	t.Helper()
	p, store := project(t)
	ctx := t.Context()
	if _, err := lease.New(p).Claim(ctx, "shop", 1, lease.Claim{Site: "east", Holder: "t", At: now, Request: "r"}); err != nil {
		t.Fatal(err)
	}
	for _, back := range []time.Duration{20 * time.Minute, 10 * time.Minute, 2 * time.Minute} {
		seed(t, p, now.Add(-back),
			of("apps", "deployments", web),
			of("apps", "replicasets", `{"metadata":{"name":"web-1","namespace":"shop","ownerReferences":[{"controller":true}]},"spec":{"replicas":3}}`),
			of("apps", "statefulsets", `{"metadata":{"name":"db","namespace":"shop","annotations":{"davit.dev/replicas-before-fence":"2"}},"spec":{"replicas":0,
"template":{"spec":{"containers":[{"resources":{"requests":{"cpu":"1"}}}]}}}}`),
			of("apiextensions.k8s.io", "customresourcedefinitions", `{"metadata":{"name":"tills.shop.example.com"}}`),
			of("shop.example.com", "tills", `{"metadata":{"name":"one","namespace":"shop"}}`))
	}
	west := &preflight.Site{
		Name: "west", At: now, Nodes: []preflight.Node{{Name: "n", Free: preflight.Room{CPU: 4000, Memory: 1 << 35, Pods: 99}}},
		APIs: map[string][]string{"deployments.apps": {"v1"}, "replicasets.apps": {"v1"}, "statefulsets.apps": {"v1"}, "customresourcedefinitions.apiextensions.k8s.io": {"v1"}},
	}
	if err := bulletin.Publish(ctx, p, west); err != nil {
		t.Fatal(err)
	}
	return p, store
}

func shop() *plan.Plan {
	return &plan.Plan{
		Name: "shop", Sites: []plan.Site{{Name: "east"}, {Name: "west"}}, Applications: []plan.Application{{Name: "shop"}},
		Objectives: plan.Objectives{RPO: 5 * time.Minute, RTO: time.Minute}, Fence: plan.Fence{Timeout: time.Second},
	}
}

// With the vault alone a plan is judged: what the points need against what the
// site has published.
func TestLook(t *testing.T) {
	p, _ := rich(t)
	out, err := foresight.Look(t.Context(), foresight.Options{Project: p, Now: clock}, shop(), plan.Failover, "")
	if err != nil {
		t.Fatal(err)
	}
	if out.Input.From != "east" || out.Input.To != "west" {
		t.Errorf("from %s to %s", out.Input.From, out.Input.To)
	}
	d := out.Demands[0]
	room := map[string]preflight.Pods{}
	for _, pods := range d.Pods {
		room[pods.Workload] = pods
	}
	if w := room["deployments.apps/web"]; len(room) != 2 || w.Count != 3 || w.Each.CPU != 3000 || w.Each.Memory != 2<<30 || w.Limit.CPU != 1000 {
		t.Errorf("%+v", d.Pods)
	}
	if db := room["statefulsets.apps/db"]; db.Count != 2 || db.Each.CPU != 1000 {
		t.Errorf("what is at rest counts as before: %+v", db)
	}
	want := map[string]struct {
		verdict preflight.Verdict
		says    string
	}{
		"capacity": {preflight.Fail, "7 CPU too few: 11 needed, 4 free"}, "kinds": {preflight.OK, "serves all 5"}, "recovery-point": {preflight.OK, "2m old"},
		"facts": {preflight.Unknown, "site east has published no facts"}, "images": {preflight.Unknown, "nobody asked"}, "epochs": {preflight.OK, ""},
	}
	for check, w := range want {
		found := false
		for _, f := range out.Findings {
			found = found || f.Check == check && f.Verdict == w.verdict && strings.Contains(f.Reason, w.says)
		}
		if !found {
			t.Errorf("%s: want %s %q in %+v", check, w.verdict, w.says, out.Findings)
		}
	}
	if r := out.RPO["shop"]; !r.Known || r.Worst != 10*time.Minute+20*time.Second || out.RTO.Known || out.RTO.Basis != "no history" {
		t.Errorf("%+v, %+v", r, out.RTO)
	}
}

const automatic = `{"apiVersion":"davit.dev/v1alpha1","kind":"RecoveryPlan","metadata":{"name":"shop"},"spec":{"sites":[{"name":"east"},{"name":"west"}],"applications":[{"name":"shop"}],` +
	`"declaration":{"automatic":true,"vantages":["west","north","witness"],"agree":2,"for":"30s","block":"1h"},"fence":{"timeout":"30s","lease":"15s","bound":"10s","driftPPM":1000}}}`

// Of a plan that is declared automatically it is said who of those on whom that counts has never
// spoken in the vault; once they do it is well.
func TestNeverSpoken(t *testing.T) {
	p, _ := rich(t)
	of := shop()
	of.Declaration = plan.Declaration{Automatic: true, Vantages: []string{"west", "north", "witness"}, Agree: 2}
	said := func() (all []string) {
		t.Helper()
		out, err := foresight.Look(t.Context(), foresight.Options{Project: p, Now: clock}, of, plan.Failover, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range out.Findings {
			if f.Check == "declaration" {
				all = append(all, string(f.Verdict)+" "+f.Reason)
			}
		}
		return all
	}
	speak := func(name, cluster string) {
		t.Helper()
		if err := vantage.Say(t.Context(), p, vantage.Word{Vantage: name, Cluster: cluster, Process: "a", Number: 1, At: now}); err != nil {
			t.Fatal(err)
		}
	}
	for _, kept := range []time.Duration{0, time.Minute} { // it is not in the vault, or came there a moment ago
		if kept > 0 {
			sheet := shelf.Sheet{Plan: "shop", At: now.Add(-kept), Site: "east", Document: []byte(automatic)}
			if _, err := shelf.New(p).Put(t.Context(), sheet); err != nil {
				t.Fatal(err)
			}
		}
		for _, one := range said() {
			if !strings.HasPrefix(one, "unknown ") {
				t.Errorf("kept for %s: %s", kept, one)
			}
		}
	}
	if _, err := shelf.New(p).Put(t.Context(), shelf.Sheet{Plan: "shop", At: now.Add(-time.Hour), Site: "east", Document: []byte(strings.Replace(automatic, "1h", "2h", 1))}); err != nil {
		t.Fatal(err)
	}
	speak("east", "uid-east")
	if all := said(); len(all) != 2 || !strings.Contains(all[0], "site west has never given") || !strings.Contains(all[1], "west, north, witness: 2 must agree") {
		t.Errorf("%q", all)
	}
	speak("west", "uid-west")
	speak("witness", "")
	if all := said(); len(all) != 1 || !strings.Contains(all[0], "north: the others are enough") {
		t.Errorf("%q", all)
	}
	speak("north", "")
	if all := said(); len(all) != 1 || !strings.HasPrefix(all[0], "ok ") {
		t.Errorf("%q", all)
	}
}

// Facts that were read live count for more than those that were published.
func TestLiveFactsCount(t *testing.T) {
	p, _ := rich(t)
	o := foresight.Options{Project: p, Now: clock, Live: func(_ context.Context, needs []preflight.Need) map[string]*preflight.Site {
		if len(needs) != 1 || len(needs[0].Kinds) != 5 {
			t.Errorf("asked of %+v", needs)
		}
		return map[string]*preflight.Site{"west": {Name: "west", At: now, Nodes: []preflight.Node{{Free: preflight.Room{CPU: 99000, Memory: 1 << 40, Pods: 99}}}}}
	}}
	out, err := foresight.Look(t.Context(), o, shop(), plan.Failover, "west")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range out.Findings {
		if f.Check == "capacity" && f.Verdict != preflight.OK {
			t.Errorf("%+v", f)
		}
	}
}

// silent is a store that lists nothing.
type silent struct{ vault.Store }

func (silent) List(context.Context, string, func(vault.ObjectInfo) error) error {
	return vault.ErrUnavailable
}

// A vault that gives no list is an error; facts that cannot be read, or are of another site, are not.
func TestBadVault(t *testing.T) {
	p, store := rich(t)
	data, err := (&preflight.Site{Name: "south", At: now}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteSealed(t.Context(), p.Root()+"facts/north", data); err != nil {
		t.Fatal(err)
	}
	sites, bad, err := bulletin.Read(t.Context(), p)
	if err != nil || sites["west"] == nil || !sites["west"].Written.Equal(now) || sites["north"] != nil || !strings.Contains(bad["north"], `of site "south"`) {
		t.Errorf("%v, %v, %v", sites, bad, err)
	}
	broken := p.Over(func(vault.Store) vault.Store {
		return silent{store}
	})
	if _, err := foresight.Look(t.Context(), foresight.Options{Project: broken, Now: clock}, shop(), plan.Failover, ""); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// One application whose epochs are damaged takes nothing from the others.
func TestDamageIsOnesOwn(t *testing.T) {
	p, _ := rich(t)
	if err := p.WriteEpoch(t.Context(), "other", 1, "no claim at all"); err != nil {
		t.Fatal(err)
	}
	all, err := foresight.Demands(t.Context(), p, []string{"other", "shop"})
	if err != nil || !strings.Contains(all[0].Why, "cannot be read") || all[1].Why != "" {
		t.Errorf("%+v, %v", all, err)
	}
}

// drilled leaves the journal of a run that went well in the vault.
func drilled(t *testing.T, p *vault.Project, verb plan.Verb, at time.Time, took time.Duration) {
	t.Helper()
	carried(t, p, shop(), verb, at, took)
}

// carried leaves the journal of a run of a plan that went well in the vault.
func carried(t *testing.T, p *vault.Project, pl *plan.Plan, verb plan.Verb, at time.Time, took time.Duration) {
	t.Helper()
	g, err := pl.Graph(verb)
	if err != nil {
		t.Fatal(err)
	}
	spec := failover.Spec{
		Run: "shop-" + string(verb) + "-" + at.Format("20060102-150405"), Plan: "shop", Verb: verb, From: "east", To: "west", By: "t", At: at,
		Accept: failover.TimedOut, Applications: []string{"shop"}, Steps: g.Steps, Fence: pl.Fence, Objectives: pl.Objectives,
	}
	entries := []failover.Entry{
		{Kind: failover.Opened, At: at, Spec: &spec},
		{Kind: failover.Took, At: at, By: "x"},
		{Kind: failover.Evaluated, At: at, Facts: &failover.Facts{Epochs: map[string]failover.Held{"shop": {Number: 1, Site: "east"}}}},
	}
	for _, s := range g.Steps {
		entries = append(entries, failover.Entry{Kind: failover.Intended, At: at, Step: s.Name}, failover.Entry{Kind: failover.Ended, At: at.Add(took), Step: s.Name, Status: failover.Succeeded})
	}
	entries = append(entries, failover.Entry{Kind: failover.Verified, At: at.Add(took)})
	if err := journal.Create(p, spec.Run, "x").Append(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
}

// Drills that went well predict, and prove what has not changed since.
func TestHistory(t *testing.T) {
	p, _ := rich(t)
	drilled(t, p, plan.Drill, now.Add(-90*time.Second), 40*time.Second)
	k, err := foresight.Gather(t.Context(), foresight.Options{Project: p, Now: clock}, []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	if len(k.History) != 1 || !k.History[0].Good || k.History[0].To != "west" {
		t.Fatalf("%+v", k.History)
	}
	out := k.Judge(t.Context(), shop(), plan.Failover, "west")
	if !out.RTO.Known || out.RTO.Worst != 40*time.Second || !strings.Contains(out.RTO.Basis, "drill") {
		t.Errorf("%+v", out.RTO)
	}
	verify := func(pl *plan.Plan) string {
		t.Helper()
		r := k.Ready(t.Context(), []*plan.Plan{pl})
		if len(r.Rows) != 1 || r.Rows[0].Site != "west" || len(r.Components) != 10 {
			t.Fatalf("%+v", r)
		}
		return r.Rows[0].Verify
	}
	if v := verify(shop()); v != "" {
		t.Errorf("nothing changed, and it needs verification: %s", v)
	}
	other := shop()
	other.Steps = []plan.Step{{Name: "more", Kind: plan.KindProbe, Timeout: time.Minute, Verbs: []plan.Verb{plan.Drill}, After: []string{"ready/shop"}, Checks: []plan.Check{{Kind: plan.CheckTCP, Target: "a:1", Timeout: time.Second}}}}
	if v := verify(other); !strings.Contains(v, "the plan's steps changed") {
		t.Errorf("%q", v)
	}
	seed(t, p, now.Add(-time.Second), of("", "configmaps", `{"metadata":{"name":"a","namespace":"shop"}}`))
	if k, err = foresight.Gather(t.Context(), foresight.Options{Project: p, Now: clock}, []string{"shop"}); err != nil {
		t.Fatal(err)
	}
	if v := verify(shop()); !strings.Contains(v, "images or kinds changed") {
		t.Errorf("%q", v)
	}
}

// TestADrillMovesNoName: it asks servers whether they would; only a move shows that clients follow.
func TestADrillMovesNoName(t *testing.T) {
	pl := shop()
	pl.Traffic = []plan.Traffic{{Name: "www", Kind: plan.KindDNS, Object: "www.example.com", Record: &plan.Record{
		Zone: "example.com", Secret: "dns-key", Servers: []plan.NameServer{{Address: "ns1.example.com"}}, To: map[string][]string{"east": {"192.0.2.10"}, "west": {"192.0.2.20"}},
	}}}
	for verb, moves := range map[plan.Verb]bool{plan.Drill: false, plan.Failover: true} {
		p, _ := rich(t)
		carried(t, p, pl, verb, now.Add(-90*time.Second), time.Second)
		all, err := foresight.History(t.Context(), p)
		if err != nil || len(all) != 1 || !all[0].Good || all[0].Moved != moves {
			t.Errorf("%s: %+v, %v", verb, all, err)
		}
	}
}

// An application that no plan has is ready for nothing but what its points are.
func TestWithoutPlan(t *testing.T) {
	p, _ := rich(t)
	k, err := foresight.Gather(t.Context(), foresight.Options{Project: p, Now: clock}, []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	r := k.Ready(t.Context(), nil)
	if len(r.Rows) != 1 || r.Rows[0].Site != "west" || r.Rows[0].Level != readiness.None {
		t.Errorf("%+v", r.Rows)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}
