package application

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
)

// givenBack is a site from which a run took the application and to which it gave it back,
// before the site has looked. Its node says what it is told to, at the site's time.
func givenBack(t *testing.T, report *v1alpha1.NodeFence, objects ...client.Object) (*site, *v1alpha1.Application) {
	t.Helper()
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	s := newSite(t, "", append(objects, app, report, nodeOf("one"))...)
	s.Now = func() time.Time { return report.Status.ObservedAt.Time }
	s.claim("shop", "east", "west")
	if s.reconcile(app); s.replicas("shop") != 0 {
		t.Fatal("not fenced")
	}
	if _, err := lease.New(s.project).Claim(t.Context(), "shop", 3, lease.Claim{Site: "east", Request: "move" + lease.GivenBack}); err != nil {
		t.Fatal(err)
	}
	return s, app
}

// ready is why the application is not, empty if it is.
func ready(app v1alpha1.Application) string {
	c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
	if c == nil || c.Reason != v1alpha1.ReasonHeld && c.Reason != v1alpha1.ReasonProgressing {
		return ""
	}
	return c.Message
}

// TestNothingStartsThatANodeWouldStop: what was given back waits for a node that says that
// it fences it, and starts when the node says so no more. The controls are nodes for which
// nothing waits: then it starts at once, and the first would have stopped it.
func TestNothingStartsThatANodeWouldStop(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	one, fenced := nodeOf("one"), v1alpha1.FencedApplication{Application: "shop", Reason: "superseded", Epoch: 2, Proven: true}
	over, other := fenced, fenced
	over.Reason, over.Epoch = "lease over", 0
	other.Application = "bank"
	silent := saysOf(one, now, fenced)
	for name, c := range map[string]struct {
		says  v1alpha1.FencedApplication
		age   time.Duration
		waits bool
	}{
		"fenced":             {fenced, 0, true},
		"its lease is over":  {over, 0, true},
		"another is":         {other, 0, false},
		"it says no more":    {fenced, 2 * time.Minute, false},
		"as good as just so": {fenced, 30 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, app := givenBack(t, saysOf(one, now, c.says), web("shop"))
			s.Now = func() time.Time { return now.Add(c.age) }
			got := s.reconcile(app)
			if started := s.replicas("shop") == 2; started == c.waits {
				t.Fatalf("started: %v; %+v", started, got.Status.Rest)
			}
			if !c.waits {
				return
			}
			if r := got.Status.Rest; r == nil || len(r.Waits) != 1 || !strings.Contains(r.Waits[0], "node one") || !strings.Contains(ready(got), "node one") {
				t.Errorf("nobody is told: %+v, %q", r, ready(got))
			}
			said := saysOf(one, now)
			said.ResourceVersion = ""
			if err := s.Client.Delete(t.Context(), silent.DeepCopy()); err != nil {
				t.Fatal(err)
			}
			if err := s.Client.Create(t.Context(), said); err != nil {
				t.Fatal(err)
			}
			if got = s.reconcile(app); s.replicas("shop") != 2 {
				t.Errorf("the node has lifted its fence, and nothing starts: %+v", got.Status.Rest)
			}
		})
	}
}

// TestANodeThatNeverLiftsHoldsNothingUpForEver: other nodes may run it. People are told.
func TestANodeThatNeverLiftsHoldsNothingUpForEver(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	says := saysOf(nodeOf("one"), now, v1alpha1.FencedApplication{Application: "shop", Reason: "superseded", Epoch: 2})
	s, app := givenBack(t, says, web("shop"))
	for _, after := range []time.Duration{0, liftedWithin - time.Second} {
		s.Now = func() time.Time { return now.Add(after) }
		if s.reconcile(app); s.replicas("shop") != 0 {
			t.Fatalf("started after %s", after)
		}
	}
	s.Now = func() time.Time { return now.Add(liftedWithin) }
	if s.reconcile(app); s.replicas("shop") != 2 {
		t.Error("a node that does not hear of it keeps the application down")
	}
	told := false
	for events := s.Events.(*record.FakeRecorder).Events; len(events) > 0; {
		event := <-events
		told = told || strings.Contains(event, "Warning") && strings.Contains(event, "node one has not lifted")
	}
	if !told {
		t.Error("nobody is told")
	}
}

// mute is an API server that does not say what nodes say.
type mute struct{ client.Reader }

func (m mute) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if _, of := list.(*v1alpha1.NodeFenceList); of {
		return errors.New("no answer")
	}
	return m.Reader.List(ctx, list, opts...) //nolint:wrapcheck // as it is
}

// TestNodesThatCannotBeAskedHoldNothingUpForEver either.
func TestNodesThatCannotBeAskedHoldNothingUpForEver(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s, app := givenBack(t, saysOf(nodeOf("one"), now), web("shop"))
	s.Reader = mute{s.Reader}
	if got := s.reconcile(app); s.replicas("shop") != 0 || got.Status.Rest == nil || !strings.Contains(strings.Join(got.Status.Rest.Waits, " "), "what the nodes say is not known") {
		t.Errorf("%d run; %+v", s.replicas("shop"), got.Status.Rest)
	}
	s.Now = func() time.Time { return now.Add(liftedWithin) }
	if got := s.reconcile(app); s.replicas("shop") != 2 {
		t.Errorf("it stays down: %+v", got.Status.Rest)
	}
}

// TestWhatIsStartedAgainIsWatchedUntilItIsReady: the status says so until then, and it is
// captured all the same. The control is a workload that never was to run.
func TestWhatIsStartedAgainIsWatchedUntilItIsReady(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	still := web("shop")
	still.Name, still.Spec.Replicas = "still", ptr.To[int32](0)
	s, app := givenBack(t, saysOf(nodeOf("one"), now), web("shop"), still)
	got := s.reconcile(app)
	if r := got.Status.Rest; r == nil || r.Stopped || !slices.Equal(r.Waits, []string{"Deployment shop/web: 0 of 2 ready"}) || !strings.Contains(ready(got), "0 of 2 ready") {
		t.Fatalf("%+v, %q", r, ready(got))
	}
	// A lease is armed meanwhile: the claim that gave it back is not the newest any more.
	if _, err := lease.New(s.project).Claim(t.Context(), "shop", 4, lease.Claim{Site: "east", Request: "arm"}); err != nil {
		t.Fatal(err)
	}
	if got = s.reconcile(app); got.Status.Rest == nil {
		t.Error("forgotten before it is ready")
	}
	var d appsv1.Deployment
	if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web"}, &d); err != nil {
		t.Fatal(err)
	}
	d.Status.AvailableReplicas, d.Status.UpdatedReplicas = 2, 2
	if err := s.Client.Status().Update(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	if got = s.reconcile(app); got.Status.Rest != nil || ready(got) != "" {
		t.Errorf("it is ready: %+v, %q", got.Status.Rest, ready(got))
	}
}

func TestAWorkloadIsReadyWhenItsControllerSaysSo(t *testing.T) {
	count := func(generation, seen int64, want, ready int32) client.Object {
		return &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Generation: generation}, Spec: appsv1.StatefulSetSpec{Replicas: &want},
			Status: appsv1.StatefulSetStatus{ObservedGeneration: seen, ReadyReplicas: ready},
		}
	}
	rollout := func(available, updated int32) client.Object {
		return &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](2)}, Status: appsv1.DeploymentStatus{ReadyReplicas: 2, AvailableReplicas: available, UpdatedReplicas: updated}}
	}
	for name, c := range map[string]struct {
		kind string
		o    client.Object
		want string
	}{
		"ready":                    {"StatefulSet", count(3, 3, 2, 2), ""},
		"not all":                  {"StatefulSet", count(3, 3, 2, 1), "1 of 2 ready"},
		"as it was before it rose": {"StatefulSet", count(3, 2, 2, 2), "its controller has not taken it up yet"},
		"a DaemonSet of no node":   {"DaemonSet", &appsv1.DaemonSet{}, ""},
		"a DaemonSet":              {"DaemonSet", &appsv1.DaemonSet{Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 3, NumberReady: 2}}, "2 of 3 ready"},
		"one that says no number":  {"ReplicaSet", &appsv1.ReplicaSet{}, "0 of 1 ready"},
		"a Deployment":             {"Deployment", rollout(2, 2), ""},
		"ready for too short":      {"Deployment", rollout(1, 2), "1 of 2 ready"},
		"old pods are ready":       {"Deployment", rollout(2, 1), "1 of 2 ready"},
		"one without pods":         {"CronJob", &batchv1.CronJob{}, ""},
	} {
		all := kinds(&v1alpha1.Application{})
		k := &all[slices.IndexFunc(all, func(k kind) bool { return k.name == c.kind })]
		if got := late(k, c.o); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
