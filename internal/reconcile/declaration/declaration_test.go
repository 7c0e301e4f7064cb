package declaration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/vantage"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// world is west's agent, a vault, and vantage points that the test speaks for.
type world struct {
	*bench
	t       *testing.T
	now     time.Time
	project *vault.Project
	silent  error
	number  int64
	events  *record.FakeRecorder
	client  client.Client
}

func shop() *v1alpha1.RecoveryPlan {
	d := func(s time.Duration) metav1.Duration { return metav1.Duration{Duration: s} }
	return &v1alpha1.RecoveryPlan{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Generation: 1},
		Spec: v1alpha1.RecoveryPlanSpec{
			Sites:        []v1alpha1.PlanSite{{Name: "east"}, {Name: "west"}, {Name: "north"}},
			Applications: []v1alpha1.PlanApplication{{Name: "db"}},
			Declaration:  v1alpha1.PlanDeclaration{Automatic: true, Vantages: []string{"west", "north", "witness"}, Agree: 2, For: d(30 * time.Second), Block: d(time.Hour)},
			Fence:        v1alpha1.PlanFence{Timeout: d(5 * time.Second), Lease: d(15 * time.Second), Bound: d(10 * time.Second), DriftPPM: 1000},
		},
	}
}

func newWorld(t *testing.T, p *v1alpha1.RecoveryPlan) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC), events: record.NewFakeRecorder(1000)}
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if w.project, err = vault.CreateProject(t.Context(), mem.New(func() time.Time { return w.now }), "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	w.client = fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(p, &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}}).
		WithStatusSubresource(&v1alpha1.Run{}, &v1alpha1.RecoveryPlan{}).Build()
	w.bench = (&Declarer{
		Client: w.client, Reader: w.client, Site: "west", Events: w.events, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return w.now },
		Project: func(context.Context, string) (*vault.Project, error) { return w.project, w.silent },
	}).newBench("main")
	return w
}

func (w *world) claim(n int64, site, request, reason string, terms *lease.Terms) {
	w.t.Helper()
	c := lease.Claim{Site: site, Cluster: site + "-uid", Holder: "ann", Request: request, Reason: reason, Terms: terms, At: w.now}
	if _, err := lease.New(w.project).Claim(w.t.Context(), "db", n, c); err != nil {
		w.t.Fatal(err)
	}
}

var terms = &lease.Terms{LeaseMillis: 15000, BoundMillis: 10000, DriftPPM: 1000}

// arm claims db for a site, as a person does, and has its nodes keep the lease.
func (w *world) arm(n int64, site string) {
	w.t.Helper()
	w.claim(n, site, lease.ArmedRequest+"shop-x", lease.ArmedReason+"shop", terms)
	w.keep(n, site)
}

func (w *world) keep(n int64, site string) {
	w.t.Helper()
	if err := lease.StateKept(w.t.Context(), w.project, lease.Kept{Application: "db", Epoch: n, Site: site, Cluster: site + "-uid", Nodes: []string{"n1"}}); err != nil {
		w.t.Fatal(err)
	}
}

// play has the named vantage points say what they see of east every two seconds,
// and west's agent look as often.
func (w *world) play(length time.Duration, view declare.View, vantages ...string) {
	w.t.Helper()
	for end := w.now.Add(length); w.now.Before(end); w.now = w.now.Add(lookEvery) {
		w.number++
		for _, name := range vantages {
			word := vantage.Word{Vantage: name, Process: "p", Number: w.number, At: w.now, Views: []vantage.View{{Site: "east", View: view}}}
			if err := vantage.Say(w.t.Context(), w.project, word); err != nil {
				w.t.Fatal(err)
			}
		}
		w.look(w.t.Context())
	}
}

func (w *world) runs() []v1alpha1.Run {
	w.t.Helper()
	var list v1alpha1.RunList
	if err := w.client.List(w.t.Context(), &list); err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

func (w *world) says() (c metav1.Condition, s *v1alpha1.PlanDeclarationStatus) {
	w.t.Helper()
	var p v1alpha1.RecoveryPlan
	if err := w.client.Get(w.t.Context(), client.ObjectKey{Name: "shop"}, &p); err != nil {
		w.t.Fatal(err)
	}
	if found := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionDeclares); found != nil {
		c = *found
	}
	return c, p.Status.Declaration
}

// TestMarksOfAnotherVaultsRun are not taken for those of the run that is ordered: a vault
// that is lost is replaced by one whose epochs begin anew.
func TestMarksOfAnotherVaultsRun(t *testing.T) {
	w := newWorld(t, shop())
	left := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: standby.NotesName("shop-declared-2")}}
	if err := w.client.Create(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	w.arm(1, "east")
	w.play(time.Minute, declare.Alive, "west", "north", "witness")
	w.play(50*time.Second, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 1 || runs[0].Name != "shop-declared-2-2" {
		t.Fatalf("%+v", runs)
	}
}

// TestALostSiteIsFailedOver by an order that says who agreed, once, and not before
// they agreed for long enough.
func TestALostSiteIsFailedOver(t *testing.T) {
	w := newWorld(t, shop())
	w.arm(1, "east")
	w.play(time.Minute, declare.Alive, "west", "north", "witness")
	c, s := w.says()
	if c.Status != metav1.ConditionTrue || c.Reason != ReasonWatching || s.Source != "east" || len(s.Observers) != 3 || s.Observers[0].View != "alive" || !strings.Contains(s.Next, "25.05s later") {
		t.Fatalf("%+v %+v", c, s)
	}
	w.play(30*time.Second, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 0 {
		t.Fatalf("ordered too soon: %s", runs[0].Name)
	}
	if c, s = w.says(); c.Reason != ReasonLost || !strings.Contains(s.Next, "at 2026-11-27T08:01:30Z") {
		t.Errorf("%+v %+v", c, s)
	}
	w.play(20*time.Second, declare.Lost, "west", "witness")
	runs := w.runs()
	if len(runs) != 1 {
		t.Fatalf("%d runs", len(runs))
	}
	r := runs[0].Spec
	if runs[0].Name != "shop-declared-2" || r.To != "west" || r.Verb != "failover" || len(r.Lost) != 0 || r.AcceptFence != "" || r.RequestedBy != By+"west, witness" || !strings.Contains(r.Reason, "witness: lost") {
		t.Errorf("%s: %+v", runs[0].Name, r)
	}
	if got := runs[0].Annotations[v1alpha1.AnnotationDeclared]; got != `{"source":"east","epochs":{"db":1}}` {
		t.Errorf("the order is about %s", got)
	}
	if c, _ = w.says(); c.Reason != ReasonRun {
		t.Errorf("%+v", c)
	}
	w.play(time.Minute, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 1 {
		t.Errorf("%d runs", len(runs))
	}
}

// TestWhatIsNotDeclared although a quorum, or what is there of it, says lost.
func TestWhatIsNotDeclared(t *testing.T) {
	all := []string{"west", "north", "witness"}
	for name, c := range map[string]struct {
		prepare func(w *world)
		says    []string
		reason  string
		message string
	}{
		"one vantage point alone":  {func(w *world) { w.arm(1, "east") }, all[:1], ReasonSilent, "1 of 3 vantage points are heard"},
		"nobody held it":           {func(*world) {}, all, ReasonNoSource, "no site ever held db"},
		"it is not armed":          {func(w *world) { w.claim(1, "east", "first", "", nil) }, all, ReasonMissing, "no lease of db"},
		"claimed, but not held":    {func(w *world) { w.claim(1, "east", lease.ArmedRequest+"x", lease.ArmedReason+"shop", terms) }, all, ReasonMissing, "no lease of db"},
		"a former holder is free":  {func(w *world) { w.claim(1, "north", "first", "", nil); w.arm(2, "east") }, all, ReasonMissing, "no lease of db"},
		"a lost vault's may run":   {func(w *world) { w.promoted(); w.arm(2, "east") }, all, ReasonMissing, "no lease of db"},
		"a moved site may run":     {func(w *world) { w.arm(1, "east"); w.moved("north") }, all, ReasonMissing, "no lease of db"},
		"it came by a failover":    {func(w *world) { w.claim(1, "east", "run-1", "failover", terms); w.keep(1, "east") }, all, ReasonMissing, "never automatic"},
		"a run is under way":       {func(w *world) { w.arm(1, "east"); w.begin("other") }, all, ReasonRun, "run other is not over"},
		"a run ended a moment ago": {func(w *world) { w.arm(1, "east"); w.end("other") }, all, ReasonBlocked, "until 2026-11-27T09:00:00Z"},
		"an order is not taken up": {func(w *world) { w.arm(1, "east"); w.order("mine", "", false) }, all, ReasonRun, "run mine"},
		"an order was refused":     {func(w *world) { w.arm(1, "east"); w.order("mine", "Failed", true) }, all, ReasonBlocked, "until"},
		"a damaged run of its own": {func(w *world) {
			w.arm(1, "east")
			w.plant("running/shop-failover-1", "runs/shop-failover-1/00000000000000000001")
		}, all, ReasonRun, "run shop-failover-1"},
		"a damaged note":        {func(w *world) { w.arm(1, "east"); w.plant("running/shop-failover-1") }, all, ReasonRun, "run shop-failover-1"},
		"a damaged summary":     {func(w *world) { w.arm(1, "east"); w.plant("ended/shop-failover-1") }, all, ReasonBlocked, "until"},
		"a planted summary":     {func(w *world) { w.arm(1, "east"); w.open("other"); w.plant("ended/other") }, all, ReasonRun, "run other is not over"},
		"the vault is silent":   {func(w *world) { w.silent = errors.New("no answer") }, all, v1alpha1.ReasonVaultUnavailable, "no answer"},
		"north would take over": {func(w *world) { w.arm(1, "west") }, all, "", ""},
	} {
		w := newWorld(t, shop())
		c.prepare(w)
		w.play(90*time.Second, declare.Lost, c.says...)
		for _, r := range w.runs() {
			if r.Labels[v1alpha1.LabelDeclared] == "true" && r.Name != "mine" {
				t.Errorf("%s: declared: %+v", name, r.Spec)
			}
		}
		if got, _ := w.says(); got.Reason != c.reason || !strings.Contains(got.Message, c.message) {
			t.Errorf("%s: %s, %s", name, got.Reason, got.Message)
		}
		select {
		case got := <-w.events.Events:
			if c.reason == "" || !strings.HasPrefix(got, "Warning "+c.reason) {
				t.Errorf("%s: event %s", name, got)
			}
		default:
			if c.reason != "" {
				t.Errorf("%s: no event", name)
			}
		}
	}
}

// promoted has epoch 1 be nobody's, of a lost vault whose copy is the vault now.
func (w *world) promoted() {
	w.t.Helper()
	c := lease.Claim{Site: "nobody", Cluster: "lost", Holder: "ann", Request: "promotion-1", Promotion: &lease.Promotion{From: "lost"}, At: w.now}
	if _, err := lease.New(w.project).Claim(w.t.Context(), "db", 1, c); err != nil {
		w.t.Fatal(err)
	}
}

// moved has a site note that it held db in a lost vault.
func (w *world) moved(site string) {
	w.t.Helper()
	m := lease.Moved{Application: "db", Site: site, Cluster: "of-" + site, Lost: "lost", Request: "promotion-1", Held: 2, Seen: 3, At: w.now}
	if err := lease.Note(w.t.Context(), w.project, m); err != nil {
		w.t.Fatal(err)
	}
}

// TestAMovedSiteThatTakesOver needs no lease of its own; the control is in
// TestWhatIsNotDeclared.
func TestAMovedSiteThatTakesOver(t *testing.T) {
	w := newWorld(t, shop())
	w.arm(1, "east")
	w.moved("west")
	w.play(40*time.Second, declare.Alive, "west", "witness")
	w.play(50*time.Second, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 1 {
		c, _ := w.says()
		t.Errorf("%d runs: %+v", len(runs), c)
	}
}

// TestAPersonsWordGoesForALease of those that a lost vault's sites may still hold; the
// control is in TestWhatIsNotDeclared.
func TestAPersonsWordGoesForALease(t *testing.T) {
	w := newWorld(t, shop())
	w.promoted()
	w.arm(2, "east")
	history, err := lease.New(w.project).History(t.Context(), "db")
	if err == nil {
		err = lease.Say(t.Context(), w.project, "db", history[0], "ann", w.now)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.play(40*time.Second, declare.Alive, "west", "witness")
	w.play(50*time.Second, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 1 {
		c, _ := w.says()
		t.Errorf("%d runs: %+v", len(runs), c)
	}
}

// TestUnreadableRunsOfOthers keep no plan from being declared.
func TestUnreadableRunsOfOthers(t *testing.T) {
	w := newWorld(t, shop())
	w.arm(1, "east")
	w.plant("running/cash-1", "runs/cash-1/00000000000000000001", "running/cash-2", "ended/cash-3", "runs/stray")
	w.play(40*time.Second, declare.Alive, "west", "witness")
	w.play(50*time.Second, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 1 {
		c, _ := w.says()
		t.Errorf("%d runs: %+v", len(runs), c)
	}
}

// TestARunThatIsOvertakenKeepsNoSiteFromBeingDeclared: its target was lost for good, and its application claimed
// anew at the source; or it had begun no step. The controls: its target gives signs of life, and nobody claimed since.
func TestARunThatIsOvertakenKeepsNoSiteFromBeingDeclared(t *testing.T) {
	for name, c := range map[string]struct{ begun, lives, claimed, want bool }{
		"its target is lost": {true, false, true, true}, "its target lives": {true, true, true, false}, "nobody claimed": {true, false, false, false},
		"it began nothing": {false, false, false, true}, "it may yet": {false, true, false, false},
	} {
		w := newWorld(t, shop())
		w.arm(1, "east")
		s := w.spec("stuck")
		s.To, s.Accept = "north", failover.TimedOut
		s.Steps = []plan.Step{{Name: "claim/db", Kind: plan.KindClaim, Application: "db", Timeout: time.Minute}}
		if err := register.New(w.project).Begin(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		facts := &failover.Facts{Epochs: map[string]failover.Held{"db": {Number: 1, Site: "east"}}}
		entries := []failover.Entry{{Kind: failover.Opened, Spec: &s}, {Kind: failover.Took, By: "e"}, {Kind: failover.Evaluated, Facts: facts}, {Kind: failover.Intended, Step: "claim/db"}}
		if !c.begun {
			entries = entries[:3]
		}
		if err := journal.Create(w.project, "stuck", "e").Append(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
		if c.claimed {
			w.arm(2, "east")
		}
		w.play(10*time.Minute, declare.Alive, "west", "witness")
		if c.lives {
			if err := w.project.Heartbeat(t.Context(), vault.SiteStatus{Site: "north"}); err != nil {
				t.Fatal(err)
			}
		}
		w.play(90*time.Second, declare.Lost, "west", "witness")
		if got, _ := w.says(); (len(w.runs()) == 1) != c.want {
			t.Errorf("%s: %d runs: %+v", name, len(w.runs()), got)
		}
	}
}

// TestWhoDidNotAskTheProbeIsNoVote: with one, words that do not say that it was asked
// declare nothing; without, they do.
func TestWhoDidNotAskTheProbeIsNoVote(t *testing.T) {
	for _, probed := range []bool{true, false} {
		p := shop()
		if probed {
			p.Spec.Declaration.Probes = map[string]v1alpha1.PlanCheck{"east": {Kind: "http", Target: "http://shop", Timeout: metav1.Duration{Duration: time.Second}}}
		}
		w := newWorld(t, p)
		w.arm(1, "east")
		w.play(40*time.Second, declare.Alive, "west", "witness")
		w.play(50*time.Second, declare.Lost, "west", "witness")
		if runs := w.runs(); (len(runs) == 0) != probed {
			c, _ := w.says()
			t.Errorf("probed: %v, and %d runs: %+v", probed, len(runs), c)
		}
	}
}

// TestASilenceOfTheVaultBeginsAnew: west must hear them agree without a break.
func TestASilenceOfTheVaultBeginsAnew(t *testing.T) {
	w := newWorld(t, shop())
	w.arm(1, "east")
	w.play(40*time.Second, declare.Alive, "west", "witness")
	w.play(26*time.Second, declare.Lost, "west", "witness")
	w.silent = errors.New("no answer")
	w.play(4*time.Second, declare.Lost, "west", "witness")
	w.silent = nil
	w.play(26*time.Second, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 0 {
		t.Errorf("declared across a silence of the vault: %s", runs[0].Name)
	}
	w.play(10*time.Second, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 1 {
		t.Errorf("%d runs", len(runs))
	}
}

// TestItAsksAgainBeforeItOrders: what it knew of the lease may be old.
func TestItAsksAgainBeforeItOrders(t *testing.T) {
	w := newWorld(t, shop())
	w.arm(1, "east")
	w.play(32*time.Second, declare.Alive, "west", "witness")
	w.play(28*time.Second, declare.Lost, "west", "witness")
	w.claim(2, "east", "disarmed-shop", "disarmed by plan shop", nil)
	w.cases["shop"].gathered = w.now.Sub(w.begun) // it would not ask by itself
	w.play(6*time.Second, declare.Lost, "west", "witness")
	if runs := w.runs(); len(runs) != 0 {
		t.Errorf("declared although nothing would prove that east has stopped: %+v", runs[0].Spec)
	}
}

// TestWordsAgeWhilePlansWait: a plan is judged after others, whose judgement took half a minute. What was heard
// before counts from then, and what was said meanwhile is heard.
func TestWordsAgeWhilePlansWait(t *testing.T) {
	for name, c := range map[string]struct {
		wait  time.Duration
		since declare.View // what they say while it waits
		fresh bool
		want  declare.View
	}{
		"it did not wait":         {0, "", true, declare.Lost},
		"they saw it meanwhile":   {30 * time.Second, declare.Alive, true, declare.Alive},
		"they say so still":       {30 * time.Second, declare.Lost, true, declare.Lost},
		"nobody spoke since":      {30 * time.Second, "", false, ""},
		"nobody had to be heard":  {lookEvery, "", true, declare.Lost},
		"the answer took so long": {-20 * time.Second, "", false, ""},
	} {
		w := newWorld(t, shop())
		w.arm(1, "east")
		w.play(18*time.Second, declare.Alive, "west", "witness")
		say := func(view declare.View) {
			w.number++
			for _, name := range []string{"west", "witness"} {
				word := vantage.Word{Vantage: name, Process: "p", Number: w.number, At: w.now, Views: []vantage.View{{Site: "east", View: view}}}
				if err := vantage.Say(t.Context(), w.project, word); err != nil {
					t.Fatal(err)
				}
			}
		}
		say(declare.Lost)
		mine, err := w.plans(t.Context())
		if err != nil || len(mine) != 1 {
			t.Fatal(mine, err)
		}
		n := w.hear(t.Context())
		w.now = w.now.Add(max(c.wait, -c.wait))
		if c.wait < 0 {
			n.came = w.bench.now()
		}
		if c.since != "" {
			say(c.since)
		}
		w.judge(t.Context(), &mine[0], w.cases["shop"], n)
		for _, vantage := range []string{"west", "witness"} {
			if view, _, fresh := w.cases["shop"].decider.View(w.bench.now(), vantage); fresh != c.fresh || fresh && view != c.want {
				t.Errorf("%s: %s says %q, fresh: %v", name, vantage, view, fresh)
			}
		}
	}
}

// TestAnotherVersionOfThePlan in the vault is not carried out by itself.
func TestAnotherVersionOfThePlan(t *testing.T) {
	p := shop()
	p.Status.Revision = 1
	meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionMirrored, Status: metav1.ConditionTrue, Reason: "Succeeded", ObservedGeneration: 1})
	w := newWorld(t, p)
	other := shop()
	other.Spec.Declaration.Agree = 3
	for _, each := range []*v1alpha1.RecoveryPlan{shop(), other} {
		document, err := plans.Document(each)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := shelf.New(w.project).Put(t.Context(), shelf.Sheet{Plan: "shop", Site: "east", At: w.now, Document: document}); err != nil {
			t.Fatal(err)
		}
	}
	w.arm(1, "east")
	w.play(2*time.Minute, declare.Lost, "west", "witness")
	if c, _ := w.says(); len(w.runs()) != 0 || !strings.Contains(c.Message, "another version") {
		t.Errorf("%d runs; %+v", len(w.runs()), c)
	}
}

func (w *world) spec(run string) failover.Spec {
	return failover.Spec{Run: run, Plan: "other", Verb: "failover", From: "east", To: "west", By: "ann", At: w.now, Applications: []string{"db"}}
}

func (w *world) begin(run string) {
	w.t.Helper()
	s := w.spec(run)
	s.Plan = "shop" // its journal does not tell yet of what it moves
	if err := register.New(w.project).Begin(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
}

// open begins the journal of a run, which is not noted.
func (w *world) open(run string) {
	w.t.Helper()
	s := w.spec(run)
	s.Accept, s.Steps = failover.TimedOut, []plan.Step{{Name: "claim/db", Kind: plan.KindClaim, Application: "db", Timeout: time.Minute}}
	if err := journal.Create(w.project, run, "e").Append(w.t.Context(), []failover.Entry{{Kind: failover.Opened, Spec: &s}, {Kind: failover.Took, By: "e"}}); err != nil {
		w.t.Fatal(err)
	}
}

// plant puts objects that nobody with the key wrote.
func (w *world) plant(keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		if err := w.project.Store().Put(w.t.Context(), w.project.Root()+key, strings.NewReader("planted"), 7); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) end(run string) {
	w.t.Helper()
	s := failover.NewState()
	s.Spec, s.Phase, s.End, s.Begun = w.spec(run), failover.Failed, w.now, w.now
	if err := register.New(w.project).End(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) order(name, phase string, declared bool) {
	w.t.Helper()
	o := v1alpha1.Run{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(w.now), Labels: map[string]string{v1alpha1.LabelDeclared: fmt.Sprint(declared)}}, Spec: v1alpha1.RunSpec{Plan: "shop", Verb: "failover", To: "west"}}
	if err := w.client.Create(w.t.Context(), &o); err != nil {
		w.t.Fatal(err)
	}
	o.Status.Phase = phase
	if err := w.client.Status().Update(w.t.Context(), &o); err != nil {
		w.t.Fatal(err)
	}
}
