package carrier

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authz "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// site does whatever it is told, and holds runs for one process at a time.
type site struct {
	mu       sync.Mutex
	holder   string
	problems []string
	at       string // where the applications are; empty: here
	evaluate func()
	fails    error // why nothing can be looked at
}

func (s *site) Evaluate(_ context.Context, spec failover.Spec) (*failover.Facts, error) {
	if s.evaluate != nil {
		s.evaluate()
	}
	s.mu.Lock()
	fails := s.fails
	s.mu.Unlock()
	if fails != nil {
		return nil, fails
	}
	f := &failover.Facts{Problems: s.problems, Epochs: map[string]failover.Held{}, Holders: map[string][]string{}}
	for _, app := range spec.Applications {
		f.Epochs[app] = failover.Held{Number: 1, Site: cmp.Or(s.at, "west")}
	}
	return f, nil
}

func (s *site) Verify(context.Context, *failover.State) (failover.Outcome, string, string) {
	return failover.Done, "", ""
}

func (s *site) Kinds() execute.Kinds {
	all := execute.Kinds{}
	for _, kind := range []plan.Kind{plan.KindClaim, plan.KindHold, plan.KindRestore, plan.KindApply, plan.KindScale, plan.KindReady, plan.KindProbe, plan.KindSuspend} {
		all[kind] = execute.Func(func(_ context.Context, o execute.Order) execute.Answer {
			a := execute.Done("")
			a.Epoch = 2
			if o.Action == failover.Look {
				a = execute.NotDone("")
			}
			return a
		})
	}
	return all
}

func (s *site) Hold(ctx context.Context, _, process string) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != "" {
		return nil, nil, standby.ErrCarried
	}
	s.holder = process
	return ctx, func() { s.free("") }, nil
}

func (s *site) free(holder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder = holder
}

// rig is a desk with a vault in memory and a cluster that is none.
type rig struct {
	*desk
	site   *site
	events *record.FakeRecorder
	allow  map[string]bool // who may do anything
	// How far the clocks of the agent and the vault are ahead.
	ahead      time.Duration
	vaultAhead atomic.Int64
}

func newRig(t *testing.T, objects ...client.Object) *rig {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{site: &site{}, events: record.NewFakeRecorder(100), allow: map[string]bool{}}
	clock := func() time.Time { return time.Now().Add(time.Duration(r.vaultAhead.Load())) }
	p, err := vault.CreateProject(t.Context(), mem.New(clock), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	objects = append(objects, &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}})
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).WithStatusSubresource(&v1alpha1.Run{}).
		WithInterceptorFuncs(interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if review, ok := o.(*authz.SubjectAccessReview); ok {
				review.Status.Allowed = r.allow[review.Spec.User] && review.Spec.ResourceAttributes.Name == "shop"
				return nil
			}
			return c.Create(ctx, o, opts...)
		}}).Build()
	r.desk = &desk{vault: "main", runs: map[string]*followed{}, c: &Carrier{
		Client: c, Reader: c, Site: "west", Process: "agent a", Events: r.events, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Project: func(context.Context, string) (*vault.Project, error) { return p, nil },
		Target:  func(context.Context, string, string) (Target, error) { return r.site, nil },
	}}
	r.project = p
	t.Cleanup(r.working.Wait)
	return r
}

// until looks again and again, until the run's object says what is wanted.
func (r *rig) until(t *testing.T, ctx context.Context, name string, enough func(*v1alpha1.Run) bool) *v1alpha1.Run { //nolint:revive // t comes first in tests
	t.Helper()
	var o v1alpha1.Run
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		r.listed = time.Time{}
		if err := r.look(ctx); err != nil {
			t.Fatal(err)
		}
		if err := r.c.Client.Get(t.Context(), client.ObjectKey{Name: name}, &o); err == nil && enough(&o) {
			return &o
		}
		pause(ctx, 10*time.Millisecond)
	}
	t.Fatalf("run %s: %+v", name, o.Status)
	return nil
}

func shop(approvals int) *v1alpha1.RecoveryPlan {
	p := &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.RecoveryPlanSpec{
		Sites: []v1alpha1.PlanSite{{Name: "east"}, {Name: "west"}}, Applications: []v1alpha1.PlanApplication{{Name: "db"}},
		Fence: v1alpha1.PlanFence{Timeout: metav1.Duration{Duration: time.Second}},
	}}
	if approvals > 0 {
		p.Spec.Approvals = []v1alpha1.PlanApproval{{Count: approvals}}
	}
	return p
}

// restore is an order of what needs no other site.
func restore(name string) *v1alpha1.Run {
	return &v1alpha1.Run{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Now()},
		Spec:       v1alpha1.RunSpec{Plan: "shop", Verb: "restore", To: "west", RequestedBy: "ann"},
	}
}

func TestOrderIsCarriedOut(t *testing.T) {
	r := newRig(t, shop(0), restore("r1"))
	o := r.until(t, t.Context(), "r1", ended)
	if o.Status.Phase != "Completed" || o.Status.Executor != "agent a" || o.Status.StepsDone != o.Status.StepsTotal || o.Status.StepsTotal == 0 || len(o.Status.Conditions) != 2 {
		t.Errorf("%+v", o.Status)
	}
	lines, err := register.New(r.project).List(t.Context())
	if err != nil || len(lines) != 1 || lines[0].Phase != failover.Completed || lines[0].By != "ann" {
		t.Errorf("%+v, %v", lines, err)
	}
	for end := time.Now().Add(time.Minute); len(r.runs) > 0; {
		if err := r.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("a run that is over is followed on")
		}
	}
	if running, err := register.New(r.project).Running(t.Context()); err != nil || len(running) != 0 {
		t.Errorf("still noted as under way: %v, %v", running, err)
	}
}

// declared makes an order one that was declared, of east.
func declared(o *v1alpha1.Run, epoch int64) {
	o.Spec.Verb = "failover"
	o.Labels = map[string]string{v1alpha1.LabelDeclared: "true"}
	o.Annotations = map[string]string{v1alpha1.AnnotationDeclared: commission.Declared{Source: "east", Epochs: map[string]int64{"db": epoch}}.String()}
}

// What was declared begins while nothing moved since.
func TestDeclaredOrder(t *testing.T) {
	o := restore("r1")
	declared(o, 1)
	r := newRig(t, shop(1), o)
	r.site.at = "east"
	got := r.until(t, t.Context(), "r1", func(o *v1alpha1.Run) bool { return o.Status.Phase != "" && o.Status.Phase != "Evaluating" })
	if got.Status.Phase != "AwaitingApproval" || got.Status.From != "east" {
		t.Errorf("%+v", got.Status)
	}
}

// An order that was called off, refused or replaced while it was weighed does not
// begin: the cache may not know of it yet.
func TestOrderStandsNoMore(t *testing.T) {
	for name, change := range map[string]func(ctx context.Context, c client.Client, o *v1alpha1.Run) error{
		"called off": func(ctx context.Context, c client.Client, o *v1alpha1.Run) error { return c.Delete(ctx, o) },
		"about to go": func(ctx context.Context, c client.Client, o *v1alpha1.Run) error {
			o.Finalizers = []string{"test/keep"}
			if err := c.Update(ctx, o); err != nil {
				return err
			}
			return c.Delete(ctx, o)
		},
		"refused": func(ctx context.Context, c client.Client, o *v1alpha1.Run) error {
			o.Status.Phase = string(failover.Failed)
			return c.Status().Update(ctx, o)
		},
		"replaced": func(ctx context.Context, c client.Client, o *v1alpha1.Run) error {
			o.UID = "another"
			return c.Update(ctx, o)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, shop(0), restore("r1"))
			w := work{c: r.c, vault: "main", project: r.project, run: "r1", plan: "shop", order: restore("r1")}
			r.site.evaluate = func() {
				var o v1alpha1.Run
				if err := r.c.Client.Get(t.Context(), client.ObjectKey{Name: "r1"}, &o); err != nil {
					t.Error(err)
				} else if err := change(t.Context(), r.c.Client, &o); err != nil {
					t.Error(err)
				}
			}
			if err := w.do(t.Context(), &followed{run: "r1"}); !errors.Is(err, errGone) {
				t.Errorf("%v", err)
			}
			running, err := register.New(r.project).Running(t.Context())
			if err != nil || len(running) != 0 {
				t.Errorf("noted as under way: %v, %v", running, err)
			}
		})
	}
}

// plant puts an object that nobody with the key wrote.
func (r *rig) plant(t *testing.T, key string) {
	t.Helper()
	if err := r.project.Store().Put(t.Context(), r.project.Root()+key, strings.NewReader("planted"), 7); err != nil {
		t.Fatal(err)
	}
}

// What cannot be read stops no other run.
func TestUnreadableObjects(t *testing.T) {
	r := newRig(t, shop(0), restore("r1"))
	r.plant(t, "running/planted")
	r.plant(t, "runs/stray")
	r.plant(t, "runs/damaged/00000000000000000001")
	r.plant(t, "ended/r1")
	if err := r.project.WriteRun(t.Context(), "newer", 1, []byte(`{"formatVersion": 99}`)); err != nil {
		t.Fatal(err)
	}
	if o := r.until(t, t.Context(), "r1", ended); o.Status.Phase != "Completed" {
		t.Errorf("%+v", o.Status)
	}
	r.working.Wait()
	if s, err := register.New(r.project).Summary(t.Context(), "r1"); err != nil || s.Phase != failover.Completed {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestAPlantedSummaryEndsNothing: a run that has lost its note, and has something in its
// summary's place that nobody with the key wrote, is noted again and carried.
func TestAPlantedSummaryEndsNothing(t *testing.T) {
	r := newRig(t, shop(0))
	reg := register.New(r.project)
	spec := &failover.Spec{
		Run: "r1", Plan: "shop", Verb: plan.Drill, To: "east", By: "ann", At: time.Now(), Accept: failover.TimedOut, Applications: []string{"shop"},
		Steps: []plan.Step{{Name: "sandbox", Kind: plan.KindSandbox, Timeout: time.Minute}, {Name: "cleanup", Kind: plan.KindCleanup, Timeout: time.Minute, After: []string{"sandbox"}}},
	}
	if err := journal.Create(r.project, "r1", "e").Append(t.Context(), []failover.Entry{{Kind: failover.Opened, Spec: spec}, {Kind: failover.Took, By: "e"}}); err != nil {
		t.Fatal(err)
	}
	r.plant(t, "ended/r1")
	r.looks(t)
	r.working.Wait() // it is looked for beside all else
	r.listed = time.Time{}
	r.looks(t)
	if running, err := reg.Running(t.Context()); err != nil || len(running) != 1 {
		t.Errorf("noted: %v, %v", running, err)
	}
	if r.runs["r1"] == nil {
		t.Error("nobody follows it")
	}
}

// later lets the desk's clock and the vault's go on.
func (r *rig) later(by time.Duration) {
	r.ahead += by
	at := r.ahead
	r.c.Now = func() time.Time { return time.Now().Add(at) }
}

// A note without a journal is forgotten after an hour of the vault's clock, by the
// run's target.
func TestNoteWithoutJournal(t *testing.T) {
	for name, c := range map[string]struct {
		to             string
		written        time.Duration // by the clock of who noted it
		agent, vault   time.Duration // that passes by their clocks
		planted, stays bool
	}{
		"it is about to begin":       {to: "west", stays: true},
		"its executor died":          {to: "west", agent: 2 * time.Hour, vault: 2 * time.Hour},
		"its orderer's clock is off": {to: "west", written: -3 * time.Hour, stays: true},
		"the agent's clock is off":   {to: "west", agent: 3 * time.Hour, stays: true},
		"it is of another site":      {to: "east", agent: 2 * time.Hour, vault: 2 * time.Hour, stays: true},
		"nobody can read it":         {planted: true, agent: 2 * time.Hour, vault: 2 * time.Hour},
		"it was just planted":        {planted: true, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, shop(0))
			reg := register.New(r.project)
			if c.planted {
				r.plant(t, "running/r1")
			} else if err := reg.Begin(t.Context(), failover.Spec{Run: "r1", Plan: "shop", Verb: plan.Restore, To: c.to, At: time.Now().Add(c.written)}); err != nil {
				t.Fatal(err)
			}
			r.looks(t)
			r.later(c.agent)
			r.vaultAhead.Store(int64(c.vault))
			r.looks(t)
			running, err := reg.Running(t.Context())
			if err != nil || (len(running) == 1) != c.stays || (len(r.runs) == 1) != c.stays {
				t.Errorf("noted: %v, followed: %d, %v", running, len(r.runs), err)
			}
		})
	}
}

// looks looks once, and asks the vault.
func (r *rig) looks(t *testing.T) {
	t.Helper()
	r.listed = time.Time{}
	if err := r.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.working.Wait() // nobody carries anything any more
}

// A Run whose journal is gone, as of a vault that was replaced, says so in the end.
func TestJournalIsGone(t *testing.T) {
	o := restore("r1")
	o.Labels = map[string]string{v1alpha1.LabelProjection: "true"}
	o.Status.Phase, o.Status.Sequence = "Running", 7
	r := newRig(t, shop(0), o)
	state := func() v1alpha1.RunStatus {
		var o v1alpha1.Run
		if err := r.c.Client.Get(t.Context(), client.ObjectKey{Name: "r1"}, &o); err != nil {
			t.Fatal(err)
		}
		return o.Status
	}
	for range 3 {
		r.looks(t)
		r.later(20 * time.Minute)
	}
	if s := state(); s.Phase != "Running" {
		t.Fatalf("too soon: %+v", s)
	}
	r.later(2 * time.Minute)
	r.looks(t)
	if s := state(); s.Phase != "Failed" || !strings.Contains(s.Why, "journal is gone") {
		t.Errorf("%+v", s)
	}
	r.looks(t)
	if len(r.runs) != 0 {
		t.Error("it is followed on")
	}
}

// An order that is called off before anybody could take it up is forgotten.
func TestOrderCalledOff(t *testing.T) {
	r := newRig(t, shop(0), restore("r1"))
	r.site.evaluate = func() {
		if err := r.c.Client.Delete(t.Context(), restore("r1")); err != nil {
			t.Error(err)
		}
	}
	if err := r.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.working.Wait()
	if err := r.look(t.Context()); err != nil || len(r.runs) != 0 {
		t.Errorf("%d runs are followed, %v", len(r.runs), err)
	}
}

// What cannot be is refused in the object, and nothing is written into the vault.
func TestBadOrders(t *testing.T) {
	for want, change := range map[string]func(*v1alpha1.Run, *rig){
		"neither this cluster nor the vault": func(o *v1alpha1.Run, _ *rig) { o.Spec.Plan = "cash" },
		"a run is carried at its target":     func(o *v1alpha1.Run, _ *rig) { o.Spec.To = "east" },
		"nobody took the order up":           func(o *v1alpha1.Run, _ *rig) { o.CreationTimestamp.Time = time.Now().Add(-2 * time.Hour) },
		"within 2m0s": func(o *v1alpha1.Run, _ *rig) {
			o.Labels, o.CreationTimestamp.Time = map[string]string{v1alpha1.LabelDeclared: "true"}, time.Now().Add(-3*time.Minute)
		},
		"db is at site \"north\" since": func(o *v1alpha1.Run, r *rig) {
			r.site.at = "north" // a person brought it there
			declared(o, 1)
		},
		"holds by map[db:1] now": func(o *v1alpha1.Run, r *rig) {
			r.site.at = "east"
			declared(o, 2)
		},
		"does not say which site was declared lost": func(o *v1alpha1.Run, r *rig) {
			r.site.at = "east"
			declared(o, 1)
			o.Annotations = nil
		},
		"no recovery point":              func(o *v1alpha1.Run, _ *rig) { o.Spec.Points = map[string]v1alpha1.PointName{"db": "gone"} },
		"nothing was changed: too small": func(_ *v1alpha1.Run, r *rig) { r.site.problems = []string{"too small"} },
		"no vault \"other\"":             func(o *v1alpha1.Run, _ *rig) { o.Spec.Vault = "other" },
		"is at site west already":        func(o *v1alpha1.Run, _ *rig) { o.Spec.Verb = "failover" },
	} {
		t.Run(want, func(t *testing.T) {
			o := restore("r1")
			r := newRig(t, shop(0))
			change(o, r)
			if err := r.c.Client.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			got := r.until(t, t.Context(), "r1", ended)
			if got.Status.Phase != "Failed" || !strings.Contains(got.Status.Why, want) || got.Status.Conditions[0].Status != "False" {
				t.Errorf("%+v", got.Status)
			}
			if runs, err := r.project.Runs(t.Context()); err != nil || len(runs) != 0 {
				t.Errorf("journals: %v, %v", runs, err)
			}
		})
	}
}

// A run whose executor has died is carried on; one whose executor lives is shown.
func TestTakeOver(t *testing.T) {
	r := newRig(t, shop(0))
	r.site.free("cli")
	spec := failover.Spec{
		Run: "r1", Plan: "shop", Verb: plan.Restore, To: "west", By: "ann", At: time.Now().UTC(), Accept: failover.TimedOut, Applications: []string{"db"},
		Steps: []plan.Step{{Name: "claim/db", Kind: plan.KindClaim, Application: "db", Side: plan.Target, Timeout: time.Minute}},
	}
	if err := register.New(r.project).Begin(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	j := journal.Create(r.project, "r1", "cli")
	at := time.Now().UTC()
	if err := j.Append(t.Context(), []failover.Entry{{Kind: failover.Opened, At: at, Spec: &spec}, {Kind: failover.Took, At: at, By: "cli"}}); err != nil {
		t.Fatal(err)
	}
	o := r.until(t, t.Context(), "r1", func(o *v1alpha1.Run) bool { return o.Status.Phase == "Evaluating" })
	if o.Labels[v1alpha1.LabelProjection] != "true" || o.Status.Executor != "cli" || o.Spec.RequestedBy != "ann" {
		t.Errorf("%+v", o)
	}
	r.site.free("")
	o = r.until(t, t.Context(), "r1", ended)
	if o.Status.Phase != "Completed" || o.Status.Executor != "agent a" {
		t.Errorf("%+v", o.Status)
	}
}

// Who may not approve is told so, and the run waits on; the next agent carries on
// what this one began.
func TestApproval(t *testing.T) {
	r := newRig(t, shop(1), restore("r1"))
	r.allow["ben"] = true
	ctx, stop := context.WithCancel(t.Context())
	o := r.until(t, ctx, "r1", func(o *v1alpha1.Run) bool { return o.Status.Phase == "AwaitingApproval" })
	if !strings.Contains(o.Status.Next, "davit runs approve r1") || o.Status.ApprovalsWanted != 1 {
		t.Errorf("%+v", o.Status)
	}
	box := mailbox.New(r.project)
	answer := func(by string) string {
		n, err := box.Put(t.Context(), "r1", execute.Request{Kind: failover.Approve, By: by, At: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			if err := r.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			if reply, err := box.Answer(t.Context(), "r1", n); err != nil || reply != nil {
				return reply.Refused
			}
			pause(t.Context(), 10*time.Millisecond)
		}
		t.Fatal("no answer")
		return ""
	}
	if got := answer("eve"); !strings.Contains(got, "eve may not approve runs of plan shop") {
		t.Errorf("eve was told %q", got)
	}
	stop()
	r.working.Wait()
	r.c.Process = "agent b"
	if got := answer("ben"); got != "" {
		t.Errorf("ben was told %q", got)
	}
	if o = r.until(t, t.Context(), "r1", ended); o.Status.Phase != "Completed" || o.Status.Executor != "agent b" {
		t.Errorf("%+v", o.Status)
	}
}

// Of a run with very many steps an object shows those that matter first.
func TestLongRuns(t *testing.T) {
	var all []failover.StepResult
	for i := range 2000 {
		s := failover.StepResult{Name: strings.Repeat("s", i%7+1), Status: failover.Succeeded, Begun: time.Unix(int64(i), 0)}
		switch {
		case i == 3:
			s.Status = failover.Broke
		case i > 1900:
			s.Status = ""
		}
		all = append(all, s)
	}
	var st v1alpha1.RunStatus
	steps(&st, all)
	if len(st.Steps) != maxSteps || st.StepsTotal != 2000 || st.StepsDone != 1901 || st.Steps[0].State != "Failed" {
		t.Errorf("%d steps, %d of %d, %+v", len(st.Steps), st.StepsDone, st.StepsTotal, st.Steps[0])
	}
}
