package origin_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/reconcile/origin"
)

var shop = client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}

// cluster is a source whose reconcilers are the test.
type cluster struct {
	t *testing.T
	client.Client
	site execute.Actuator
}

func source(t *testing.T, status v1alpha1.ApplicationStatus) *cluster {
	t.Helper()
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: shop.Name}, Spec: v1alpha1.ApplicationSpec{Vault: "main"}, Status: status}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(app).WithStatusSubresource(app, &v1alpha1.RecoveryPoint{}).Build()
	return &cluster{t, c, origin.New(origin.Options{Client: c, Site: "east", Marks: &execute.Memory{}, Vault: "main", LookEvery: time.Millisecond})}
}

func active() v1alpha1.ApplicationStatus {
	return v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 1}
}

func (c *cluster) app() *v1alpha1.Application {
	c.t.Helper()
	var app v1alpha1.Application
	if err := c.Get(c.t.Context(), shop, &app); err != nil {
		c.t.Fatal(err)
	}
	return &app
}

// becomes writes a status as the reconciler would.
func (c *cluster) becomes(change func(*v1alpha1.ApplicationStatus)) {
	c.t.Helper()
	app := c.app()
	change(&app.Status)
	if err := c.Status().Update(c.t.Context(), app); err != nil {
		c.t.Fatal(err)
	}
}

var sequence int64

func (c *cluster) order(kind plan.Kind, action failover.Action, epoch int64) execute.Order {
	sequence++
	return execute.Order{
		Action: action, Run: "move", Site: "east", From: "east", To: "west", Verb: plan.Switchover,
		Step:  plan.Step{Name: string(kind) + "/shop", Kind: kind, Application: "shop"},
		Token: failover.Token{Run: "move", Sequence: sequence, Epochs: map[string]int64{"shop": epoch}},
	}
}

// do gives an order. It ends early when the context's time is up.
func (c *cluster) do(kind plan.Kind, action failover.Action, epoch int64) execute.Answer {
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Millisecond)
	defer cancel()
	return c.site.Do(ctx, c.order(kind, action, epoch))
}

func (c *cluster) want(what string, got execute.Answer, outcome failover.Outcome, note string) {
	c.t.Helper()
	if got.Outcome != outcome || !strings.Contains(got.Note, note) {
		c.t.Errorf("%s: %+v, want %s with %q", what, got, outcome, note)
	}
}

func TestQuiesceWaitsForRest(t *testing.T) {
	c := source(t, active())
	c.want("look", c.do(plan.KindQuiesce, failover.Look, 1), failover.NotDone, "")
	c.want("act", c.do(plan.KindQuiesce, failover.Act, 1), failover.NoAnswer, "not taken the hold up")
	if got := c.app().Annotations[v1alpha1.AnnotationHeldBy]; got != "move" {
		t.Fatalf("held by %q", got)
	}
	c.becomes(func(s *v1alpha1.ApplicationStatus) {
		s.Rest = &v1alpha1.RestStatus{Runs: []string{"move"}, Running: []string{"Pod shop/db-0"}}
	})
	c.want("look", c.do(plan.KindQuiesce, failover.Look, 1), failover.Busy, "shop/db-0")
	c.becomes(func(s *v1alpha1.ApplicationStatus) { s.Rest.Running, s.Rest.Stopped = nil, true })
	c.want("look", c.do(plan.KindQuiesce, failover.Look, 1), failover.Done, "")
	c.want("act", c.do(plan.KindQuiesce, failover.Act, 1), failover.Done, "")
	c.marked(v1alpha1.AnnotationRestoring, "r1") // by a restore, which the agent keeps its hands off for
	c.want("look", c.do(plan.KindQuiesce, failover.Look, 1), failover.Busy, "give it again")
	c.want("undo", c.do(plan.KindQuiesce, failover.Undo, 1), failover.Done, "")
	c.marked(v1alpha1.AnnotationRestoring, "")
	c.want("undo", c.do(plan.KindQuiesce, failover.Undo, 1), failover.NoAnswer, "not started it again")
	if got := c.app().Annotations[v1alpha1.AnnotationHeldBy]; got != "" {
		t.Errorf("held by %q", got)
	}
	c.becomes(func(s *v1alpha1.ApplicationStatus) { s.Rest = nil })
	c.want("undo", c.do(plan.KindQuiesce, failover.Undo, 1), failover.Done, "")
}

func (c *cluster) marked(key, value string) {
	c.t.Helper()
	app := c.app()
	if app.Annotations[key] = value; value == "" {
		delete(app.Annotations, key)
	}
	if err := c.Update(c.t.Context(), app); err != nil {
		c.t.Fatal(err)
	}
}

func TestAHoldThatCannotBeHoldsNothing(t *testing.T) {
	c := source(t, active())
	c.becomes(func(s *v1alpha1.ApplicationStatus) {
		s.Rest = &v1alpha1.RestStatus{Runs: []string{"move"}, Refused: "Pod shop/alone has no controller"}
	})
	c.want("act", c.do(plan.KindQuiesce, failover.Act, 1), failover.Refused, "shop/alone")
	if got := c.app().Annotations[v1alpha1.AnnotationHeldBy]; got != "" {
		t.Errorf("held by %q", got)
	}
}

// dozing is a client of a process that stands still before it changes an Application.
type dozing struct {
	client.Client
	doze func()
}

func (d *dozing) Patch(ctx context.Context, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
	if doze := d.doze; doze != nil {
		d.doze = nil
		doze()
	}
	return d.Client.Patch(ctx, o, patch, opts...)
}

// TestWhoStoodStillHoldsNothing: an agent stands still before it notes the hold, another one leads,
// and takes back for the run what is not there yet. The control: nothing is taken back meanwhile.
func TestWhoStoodStillHoldsNothing(t *testing.T) {
	for back, want := range map[bool]string{true: "", false: "move"} {
		c := source(t, active())
		marks := &execute.Memory{}
		agent := func(k client.Client) execute.Actuator {
			return origin.New(origin.Options{Client: k, Site: "east", Marks: marks, Vault: "main", LookEvery: time.Millisecond})
		}
		late, next := &dozing{Client: c.Client}, agent(c.Client)
		act := c.order(plan.KindQuiesce, failover.Act, 1)
		late.doze = func() {
			if back {
				c.site = next
				c.want("undo", c.do(plan.KindQuiesce, failover.Undo, 1), failover.Done, "")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		got := agent(late).Do(ctx, act)
		cancel()
		if held := c.app().Annotations[v1alpha1.AnnotationHeldBy]; held != want {
			t.Errorf("taken back: %v: held by %q, want %q: %+v", back, held, want, got)
		}
	}
}

// TestWhatWasGivenBackIsSeenToRunAgain: the site knows the epoch, has let go, no node
// would stop it, and all of it is ready. Until then it says what is waited for.
func TestWhatWasGivenBackIsSeenToRunAgain(t *testing.T) {
	undo := func(c *cluster) execute.Answer { return c.do(plan.KindFence, failover.Undo, 3) }
	c := source(t, v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 2, Rest: &v1alpha1.RestStatus{Epoch: 2, Stopped: true}})
	want := func(outcome failover.Outcome, note string) {
		t.Helper()
		got := undo(c)
		c.want("undo", got, outcome, note)
		if !got.Asked {
			t.Errorf("the site answered, and it does not count: %+v", got)
		}
	}
	want(failover.NoAnswer, "has seen epoch 2, not 3 yet")
	c.becomes(func(s *v1alpha1.ApplicationStatus) { s.Epoch = 3 })
	want(failover.NoAnswer, "has seen epoch 3, and the application is Superseded there still")
	c.becomes(func(s *v1alpha1.ApplicationStatus) { s.Role, s.Epoch = v1alpha1.RoleActive, 3 })
	want(failover.NoAnswer, "not started it again yet")
	c.becomes(func(s *v1alpha1.ApplicationStatus) {
		s.Rest.Waits = []string{"StatefulSet shop/db: 0 of 1 ready"}
	})
	want(failover.NoAnswer, "shop/db: 0 of 1 ready")
	c.becomes(func(s *v1alpha1.ApplicationStatus) {
		s.Rest.Waits, s.Rest.Unready = nil, []string{"Deployment shop/web: 0 of 2 ready"}
	})
	want(failover.Done, "it runs again at east, and is as little ready as before: Deployment shop/web: 0 of 2 ready")
	c.becomes(func(s *v1alpha1.ApplicationStatus) { s.Rest.Unready = slices.Repeat([]string{"x"}, 30) })
	want(failover.Done, "x; and 10 more")
	c.becomes(func(s *v1alpha1.ApplicationStatus) { s.Rest = nil })
	at := metav1.NewTime(time.Now())
	says := &v1alpha1.NodeFence{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "one"},
		Status:     v1alpha1.NodeFenceStatus{ObservedAt: &at, Applications: []v1alpha1.FencedApplication{{Application: "shop", Reason: "superseded"}}},
	}
	if err := c.Create(t.Context(), says); err != nil {
		t.Fatal(err)
	}
	want(failover.NoAnswer, "node one has not lifted")
	if err := c.Delete(t.Context(), says); err != nil {
		t.Fatal(err)
	}
	want(failover.Done, "it runs again at east")
	c.becomes(func(s *v1alpha1.ApplicationStatus) {
		s.Role, s.Epoch, s.EpochSite = v1alpha1.RoleSuperseded, 4, "south"
	})
	want(failover.Superseded, "site south holds epoch 4")
	if err := c.Delete(t.Context(), c.app()); err != nil {
		t.Fatal(err)
	}
	c.want("nothing is there", undo(c), failover.Refused, "nobody watches")
}

// A fence is proven only for an epoch that the site has seen, and once its nodes
// say so: what the API server lists is no proof.
func TestOnlyNodesProveAFence(t *testing.T) {
	rest := &v1alpha1.RestStatus{Epoch: 2, Stopped: true}
	proven := func(epoch int64) *v1alpha1.FenceStatus {
		return &v1alpha1.FenceStatus{Level: v1alpha1.FenceProven, Epoch: epoch}
	}
	for name, test := range map[string]struct {
		status v1alpha1.ApplicationStatus
		asked  bool
		proven bool
	}{
		"still active":            {active(), false, false},
		"held by a run, but ours": {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 2, Rest: rest}, false, false},
		"has only heard of it":    {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 2}, true, false},
		"no pod is listed":        {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 2, Rest: rest, Fence: &v1alpha1.FenceStatus{Level: v1alpha1.FenceAsked, Epoch: 2}}, true, false},
		"proven of before":        {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 2, Fence: proven(1)}, true, false},
		"all nodes say so":        {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 2, Fence: proven(2)}, true, true},
		"older epoch":             {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 1, Fence: proven(1)}, false, false},
	} {
		for _, action := range []failover.Action{failover.Look, failover.Act} {
			got := source(t, test.status).do(plan.KindFence, action, 2)
			if got.Asked != test.asked || (got.Proof != nil) != test.proven || (got.Outcome == failover.Done) != test.proven {
				t.Errorf("%s, %s: %+v", name, action, got)
			}
		}
	}
}

// Who may write into one vault orders nothing of applications kept in another.
func TestAnotherVaultsApplicationIsNotThere(t *testing.T) {
	c := source(t, v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 1})
	other := origin.New(origin.Options{Client: c, Vault: "theirs", Site: "east", Marks: &execute.Memory{}, LookEvery: time.Millisecond})
	for _, kind := range []plan.Kind{plan.KindQuiesce, plan.KindSync, plan.KindFence} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		got := other.Do(ctx, c.order(kind, failover.Act, 1))
		cancel()
		if got.Outcome == failover.Done || !strings.Contains(got.Note, "no application shop in vault theirs") {
			t.Errorf("%s: %+v", kind, got)
		}
	}
	if c.app().Annotations[v1alpha1.AnnotationHeldBy] != "" || len(c.points("move")) != 0 {
		t.Error("something was done")
	}
	o := c.order(plan.KindQuiesce, failover.Act, 1)
	o.Token.Epochs = nil
	c.want("without an epoch", c.site.Do(t.Context(), o), failover.Refused, "names no epoch")
}

func TestSyncTakesThePointOfItsRun(t *testing.T) {
	c := source(t, active())
	c.want("not held", c.do(plan.KindSync, failover.Act, 1), failover.NoAnswer, "does not hold it")
	c.do(plan.KindQuiesce, failover.Act, 1)
	c.becomes(func(s *v1alpha1.ApplicationStatus) {
		s.Rest = &v1alpha1.RestStatus{Runs: []string{"move"}, Running: []string{"Pod shop/db-0"}}
	})
	c.want("not at rest", c.do(plan.KindSync, failover.Act, 1), failover.NoAnswer, "still runs: Pod shop/db-0")
	c.becomes(func(s *v1alpha1.ApplicationStatus) { s.Rest.Running, s.Rest.Stopped = nil, true })
	other := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Namespace, Name: "shop-29991231-000000000-zzzzzz"}, Spec: v1alpha1.RecoveryPointSpec{Application: "shop"}}
	other.Status.Phase, other.Status.Instant = v1alpha1.PointAvailable, &metav1.Time{Time: time.Now()}
	if err := c.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	c.want("look", c.do(plan.KindSync, failover.Look, 1), failover.NotDone, "")
	c.want("act", c.do(plan.KindSync, failover.Act, 1), failover.NoAnswer, "capturing")
	c.want("look", c.do(plan.KindSync, failover.Look, 1), failover.Busy, "")
	own := c.points("move")
	if len(own) != 1 {
		t.Fatalf("asked for %d points", len(own))
	}
	own[0].Status.Phase = v1alpha1.PointFailed
	c.save(&own[0])
	c.want("failed", c.do(plan.KindSync, failover.Look, 1), failover.NotDone, "")
	c.want("again", c.do(plan.KindSync, failover.Act, 1), failover.NoAnswer, "capturing")
	own = c.points("move")
	if len(own) != 2 {
		t.Fatalf("asked for %d points", len(own))
	}
	instant := metav1.NewTime(time.Now().Truncate(time.Second))
	last := &own[1]
	last.Status.Phase, last.Status.Instant = v1alpha1.PointAvailable, &instant
	c.save(last)
	got := c.do(plan.KindSync, failover.Act, 1)
	if got.Outcome != failover.Done || got.Point == nil || got.Point.ID != last.Name || !got.Point.Instant.Equal(instant.Time) {
		t.Errorf("%+v", got)
	}
}

func (c *cluster) points(run string) []v1alpha1.RecoveryPoint {
	c.t.Helper()
	var all v1alpha1.RecoveryPointList
	if err := c.List(c.t.Context(), &all); err != nil {
		c.t.Fatal(err)
	}
	var own []v1alpha1.RecoveryPoint
	for _, p := range all.Items {
		if p.Annotations[v1alpha1.AnnotationRun] == run {
			own = append(own, p)
		}
	}
	return own
}

func (c *cluster) save(p *v1alpha1.RecoveryPoint) {
	c.t.Helper()
	if err := c.Status().Update(c.t.Context(), p); err != nil {
		c.t.Fatal(err)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	c := source(t, active())
	for kind, outcome := range map[plan.Kind]failover.Outcome{plan.KindQuiesce: failover.NoAnswer, plan.KindSync: failover.NoAnswer, plan.KindFence: failover.NoAnswer} {
		o := c.order(kind, failover.Act, 1)
		o.Step.Application, o.Token.Epochs = "other", map[string]int64{"other": 1}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		got := c.site.Do(ctx, o)
		cancel()
		c.want(string(kind), got, outcome, "no application other")
	}
	c.want("a kind that nobody does here", c.do(plan.KindPromote, failover.Act, 1), failover.Refused, "no step of the kind")
}

// TestWhatOthersNeedHasTimeToBecomeReady when it is let go of, and is waited for no longer than that.
func TestWhatOthersNeedHasTimeToBecomeReady(t *testing.T) {
	for late, limit := range map[bool]time.Duration{true: 100 * time.Millisecond, false: time.Minute} {
		c := source(t, active())
		c.do(plan.KindQuiesce, failover.Act, 1)
		c.becomes(func(s *v1alpha1.ApplicationStatus) {
			s.Rest = &v1alpha1.RestStatus{Waits: []string{"StatefulSet shop/db: 0 of 1 ready"}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		done := make(chan execute.Answer, 1)
		undo := c.order(plan.KindQuiesce, failover.Undo, 1)
		go func() { done <- c.site.Do(ctx, undo) }()
		if !late {
			for looks := 0; looks < 10; looks++ {
				time.Sleep(5 * time.Millisecond) // between two looks
				if len(c.app().HeldBy()) > 0 {
					looks = 0
				}
				if len(done) > 0 {
					t.Fatalf("it was not waited for: %+v", <-done)
				}
			}
			c.becomes(func(s *v1alpha1.ApplicationStatus) { s.Rest = nil })
		}
		c.want("undo", <-done, failover.Done, "")
		cancel()
	}
}

// TestNothingIsLeftBehind: what ran at the source after its last write was captured may have written more. The
// fence of a planned move then fails, and the run takes itself back; that of a failover counts, as does that of
// a point of which nothing was noted.
func TestNothingIsLeftBehind(t *testing.T) {
	at := metav1.NewMicroTime(time.Now())
	later := metav1.NewMicroTime(at.Add(time.Second))
	for name, test := range map[string]struct {
		verb    plan.Verb
		from    string
		before  *metav1.MicroTime // when the last write was captured
		ran     metav1.MicroTime
		unnoted bool
		unheld  bool // somebody took the hold off meanwhile
		want    failover.Outcome
	}{
		"something ran":             {verb: plan.Switchover, before: &at, ran: later, want: failover.Refused},
		"of a failback":             {verb: plan.Failback, before: &at, ran: later, want: failover.Refused},
		"for the first time":        {verb: plan.Switchover, ran: later, want: failover.Refused},
		"not held any more":         {verb: plan.Switchover, unheld: true, want: failover.Refused},
		"nothing ran":               {verb: plan.Switchover, before: &at, ran: at, want: failover.Done},
		"a failover":                {verb: plan.Failover, before: &at, ran: later, want: failover.Done},
		"another site's":            {verb: plan.Switchover, from: "south", before: &at, ran: later, want: failover.Done},
		"captured by an older site": {verb: plan.Switchover, before: &at, ran: later, unnoted: true, want: failover.Done},
	} {
		c := source(t, active())
		c.do(plan.KindQuiesce, failover.Act, 1)
		c.want(name+": sync before it rests", c.do(plan.KindSync, failover.Act, 1), failover.NoAnswer, "not taken the hold up")
		if len(c.points("move")) > 0 {
			t.Errorf("%s: captured while it runs", name)
		}
		c.becomes(func(s *v1alpha1.ApplicationStatus) {
			s.Rest = &v1alpha1.RestStatus{Runs: []string{"move"}, Stopped: true}
			if test.before != nil {
				s.Rest.LastRan = &v1alpha1.LastRanStatus{At: *test.before}
			}
		})
		c.do(plan.KindSync, failover.Act, 1)
		own := c.points("move")
		if len(own) != 1 {
			t.Fatalf("%s: asked for %d points", name, len(own))
		}
		if test.unnoted {
			delete(own[0].Annotations, v1alpha1.AnnotationRested)
			if err := c.Update(t.Context(), &own[0]); err != nil {
				t.Fatal(err)
			}
		}
		c.becomes(func(s *v1alpha1.ApplicationStatus) {
			s.Role, s.Epoch, s.Fence = v1alpha1.RoleSuperseded, 2, &v1alpha1.FenceStatus{Level: v1alpha1.FenceProven, Epoch: 2}
			s.Rest.LastRan = &v1alpha1.LastRanStatus{At: test.ran, What: []string{"Deployment shop/web"}}
			if test.unheld {
				s.Rest.LastRan = nil
			}
		})
		if test.unheld {
			app := c.app()
			delete(app.Annotations, v1alpha1.AnnotationHeldBy)
			if err := c.Update(t.Context(), app); err != nil {
				t.Fatal(err)
			}
		}
		for _, action := range []failover.Action{failover.Look, failover.Act} {
			o := c.order(plan.KindFence, action, 2)
			if o.Verb = test.verb; test.from != "" {
				o.From = test.from
			}
			want, note := test.want, ""
			if want == failover.Refused {
				if note = "shop/web: keep what starts it"; test.unheld {
					note = "took the hold of run move off"
				}
			}
			got := c.site.Do(t.Context(), o)
			c.want(name+", "+string(action), got, want, note)
			if (got.Proof != nil) != (want == failover.Done) {
				t.Errorf("%s, %s: proof %v", name, action, got.Proof)
			}
		}
	}
}
