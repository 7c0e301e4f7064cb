package reconcilers

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// one is a cluster with one reconciler.
type one struct {
	restore.Cluster
	kind  schema.GroupKind
	live  *unstructured.Unstructured
	stale bool // its kinds were asked for before this one was defined
	// attempts are those that leases of restores hold, by the lease's name.
	attempts map[string]string
}

// List implements restore.Cluster: no claim is half filled.
func (c *one) List(context.Context, restore.Served, string, string, func(*unstructured.Unstructured) error) error {
	return nil
}

func (c *one) Refresh(context.Context) error {
	c.stale = false
	return nil
}

func (c *one) Serves(_ context.Context, kind schema.GroupKind) ([]restore.Served, error) {
	if c.stale {
		return nil, restore.ErrNotServed
	}
	return []restore.Served{{GVK: kind.WithVersion("v1")}}, nil
}

func (c *one) Get(_ context.Context, at restore.Served, namespace, name string) (*unstructured.Unstructured, error) {
	if attempt := c.attempts[name]; attempt != "" && at.GVK.GroupKind() == shape.KindLease {
		u := &unstructured.Unstructured{}
		u.SetAnnotations(map[string]string{hold.AnnotationAttempt: attempt})
		return u, nil
	}
	if at.GVK.GroupKind() != c.kind || namespace != c.live.GetNamespace() || name != c.live.GetName() {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	return c.live.DeepCopy(), nil
}

func (c *one) Patch(_ context.Context, _ restore.Served, _, name string, patch []byte) (*unstructured.Unstructured, error) {
	change := shape.Document{}
	if err := json.Unmarshal(patch, &change); err != nil {
		return nil, err
	}
	if shape.Text(change, "metadata", "resourceVersion") != c.live.GetResourceVersion() {
		return nil, apierrors.NewConflict(schema.GroupResource{}, name, nil)
	}
	shape.Merge(c.live.Object, change)
	c.live.SetResourceVersion(c.live.GetResourceVersion() + "1")
	return c.live.DeepCopy(), nil
}

func cluster(t *testing.T, kind schema.GroupKind, spec string) *one {
	t.Helper()
	u := &unstructured.Unstructured{}
	text := `{"apiVersion":"` + kind.Group + `/v1","kind":"` + kind.Kind + `","metadata":{"namespace":"argocd","name":"shop","resourceVersion":"1"},"spec":` + spec + `}`
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return &one{kind: kind, live: u}
}

func (c *one) do(t *testing.T, what plan.Kind, a failover.Action, object string) execute.Answer {
	t.Helper()
	return Actuator{Cluster: c}.Do(t.Context(), execute.Order{Action: a, Run: "r", Step: plan.Step{Name: "s", Kind: what, Object: object}})
}

const (
	argo = "applications.argoproj.io/argocd/shop"
	flux = "kustomizations.kustomize.toolkit.fluxcd.io/argocd/shop"
)

func TestSuspendedResumedAndTakenBack(t *testing.T) {
	for object, c := range map[string]*one{
		argo: cluster(t, gitops.KindApplication, `{"syncPolicy":{"automated":{"prune":true}}}`),
		flux: cluster(t, gitops.KindKustomization, `{"path":"./shop"}`),
	} {
		before := c.live.DeepCopy()
		expect := func(what plan.Kind, a failover.Action, want failover.Outcome) {
			t.Helper()
			if got := c.do(t, what, a, object); got.Outcome != want {
				t.Errorf("%s: %s %s: %+v, want %s", object, a, what, got, want)
			}
		}
		same := func(when string) {
			t.Helper()
			got, want := shape.Child(c.live.Object, "spec"), shape.Child(before.Object, "spec")
			a, _ := json.Marshal(got)
			b, _ := json.Marshal(want)
			if string(a) != string(b) || c.live.GetAnnotations()[gitops.Annotation] != "" {
				t.Errorf("%s: %s it is %s %v, was %s", object, when, a, c.live.GetAnnotations(), b)
			}
		}
		expect(plan.KindSuspend, failover.Look, failover.NotDone)
		expect(plan.KindSuspend, failover.Act, failover.Done)
		expect(plan.KindSuspend, failover.Look, failover.Done)
		expect(plan.KindResume, failover.Look, failover.NotDone)
		expect(plan.KindResume, failover.Act, failover.Done)
		expect(plan.KindResume, failover.Look, failover.Done)
		same("resumed")
		expect(plan.KindSuspend, failover.Act, failover.Done)
		expect(plan.KindSuspend, failover.Undo, failover.Done)
		same("taken back")
		expect(plan.KindResume, failover.Undo, failover.Done)
		expect(plan.KindSuspend, failover.Look, failover.Done)
	}
}

// TestWhatPeopleSuspended stays suspended when a run that did not do it rolls back,
// and is resumed by a step that says so.
func TestWhatPeopleSuspended(t *testing.T) {
	c := cluster(t, gitops.KindKustomization, `{"suspend":true}`)
	for _, a := range []failover.Action{failover.Act, failover.Undo} {
		if got := c.do(t, plan.KindSuspend, a, flux); got.Outcome != failover.Done {
			t.Errorf("%s: %+v", a, got)
		}
	}
	if !gitops.Suspended(gitops.KindKustomization, c.live.Object) {
		t.Error("a roll-back resumed what it had not suspended")
	}
	if got := c.do(t, plan.KindResume, failover.Act, flux); got.Outcome != failover.Done || gitops.Suspended(gitops.KindKustomization, c.live.Object) {
		t.Errorf("%+v %v", got, c.live.Object)
	}
}

func TestWhatIsNotThereIsRefused(t *testing.T) {
	c := cluster(t, gitops.KindKustomization, `{}`)
	for _, object := range []string{argo, "deployments.apps/shop/web", "kustomizations.kustomize.toolkit.fluxcd.io/shop", flux + "/more", "applications.argoproj.io/", ""} {
		if got := c.do(t, plan.KindSuspend, failover.Act, object); got.Outcome != failover.Refused || got.Note == "" {
			t.Errorf("%q: %+v", object, got)
		}
	}
	if got := c.do(t, plan.KindSuspend, failover.Undo, argo); got.Outcome != failover.Done {
		t.Errorf("undo: %+v", got)
	}
}

// TestDefinedSince: an agent runs for months, and what makes objects from git is
// installed meanwhile.
func TestDefinedSince(t *testing.T) {
	c := cluster(t, gitops.KindKustomization, `{}`)
	c.stale = true
	if got := c.do(t, plan.KindSuspend, failover.Act, flux); got.Outcome != failover.Done || !gitops.Suspended(gitops.KindKustomization, c.live.Object) {
		t.Errorf("%+v", got)
	}
}

// TestWhatGitHolds itself is suspended, and whoever reads the report learns that it
// may not stay so.
func TestWhatGitHolds(t *testing.T) {
	c := cluster(t, gitops.KindKustomization, `{"suspend":false}`)
	c.live.SetManagedFields([]metav1.ManagedFieldsEntry{{
		Manager: "kustomize-controller", Operation: "Apply", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:spec":{"f:suspend":{}}}`)},
	}})
	if got := c.do(t, plan.KindSuspend, failover.Act, flux); got.Outcome != failover.Done || !strings.Contains(got.Note, "may resume it") {
		t.Errorf("%+v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(argo)
	f.Add("applications.argoproj.io/shop")
	f.Fuzz(func(t *testing.T, object string) {
		if r, err := gitops.Parse(object); err == nil && (r.Name == "" || r.Kind.Kind == "") {
			t.Errorf("%q: %+v", object, r)
		}
	})
}

// TestWhoStoodStillSuspendsNothing: a process reads the reconciler and stands still; another takes
// back for the run what is not there yet. The control: nobody does.
func TestWhoStoodStillSuspendsNothing(t *testing.T) {
	for back, want := range map[bool]failover.Outcome{true: failover.NoAnswer, false: failover.Done} {
		c := cluster(t, gitops.KindKustomization, `{}`)
		marks := &execute.Memory{}
		process := func(k restore.Cluster, m execute.Marks) execute.Actuator {
			return &execute.Aged{Inner: Actuator{Cluster: k, Marks: m}, Marks: marks}
		}
		order := func(a failover.Action, n int64) execute.Order {
			return execute.Order{Action: a, Run: "r", Step: plan.Step{Name: "s", Kind: plan.KindSuspend, Object: flux}, Token: failover.Token{Run: "r", Sequence: n}}
		}
		late := still{Memory: marks, doze: func() {
			if !back {
				return
			}
			if got := process(c, marks).Do(t.Context(), order(failover.Undo, 8)); got.Outcome != failover.Done {
				t.Errorf("undo: %+v", got)
			}
		}}
		got := process(c, &late).Do(t.Context(), order(failover.Act, 5))
		if suspended := gitops.Suspended(c.kind, c.live.Object); got.Outcome != want || suspended == back {
			t.Errorf("taken back: %v: %+v, suspended: %v", back, got, suspended)
		}
	}
}

// still are the marks as a process sees them that stands still when it has looked at them.
type still struct {
	*execute.Memory
	doze func()
}

func (s *still) Load(ctx context.Context, run, step string) (execute.Mark, error) {
	m, err := s.Memory.Load(ctx, run, step)
	if doze := s.doze; doze != nil {
		s.doze = nil
		doze()
	}
	return m, err
}

// TestRestoresThatDiedKeepNothingAtRest: a restore did not end whole, and relies on a reconciler's
// rest still, as its note says. A run that suspends what somebody resumed by hand since takes that back whole;
// one that brought the application here has it go on, and so does one that finds a restore over. The control: a
// restore of another application, which is under way or may be given again.
func TestRestoresThatDiedKeepNothingAtRest(t *testing.T) {
	for _, step := range []struct {
		spec, by string
		do       []plan.Kind
		back     bool // the last of these is taken back
		over     bool // the restore is
		rests    bool // in the end
	}{
		{`{}`, "news", []plan.Kind{plan.KindSuspend}, true, false, false},
		{`{}`, "news", []plan.Kind{plan.KindSuspend, plan.KindResume}, false, false, false},
		{`{"suspend":true}`, "shop", []plan.Kind{plan.KindResume}, false, false, false},
		{`{"suspend":true}`, "news", []plan.Kind{plan.KindResume}, false, true, false},
		{`{"suspend":true}`, "news", []plan.Kind{plan.KindResume}, false, false, true},
	} {
		c := cluster(t, gitops.KindKustomization, step.spec)
		if !step.over {
			c.attempts = map[string]string{"restore-" + step.by: "died-1"}
		}
		c.live.SetAnnotations(map[string]string{gitops.Annotation: `{"by":"died","for":{"` + step.by + `":"died"}}`})
		order := execute.Order{Action: failover.Act, Run: "r", Token: failover.Token{Epochs: map[string]int64{"shop": 3}}}
		do := func() {
			t.Helper()
			if got := (Actuator{Cluster: c}).Do(t.Context(), order); got.Outcome != failover.Done {
				t.Errorf("%+v: %+v", step, got)
			}
		}
		for _, kind := range step.do {
			order.Step = plan.Step{Name: "s", Kind: kind, Object: flux}
			do()
		}
		if order.Action = failover.Undo; step.back {
			do()
		}
		if gitops.Suspended(c.kind, c.live.Object) != step.rests {
			t.Errorf("%+v: %v", step, c.live.Object)
		}
	}
}

// TestOfTwoRuns that suspend one reconciler, the second takes back nothing of the first's; where a
// restore had suspended it before, a run takes back that it relies on it, and the restore's end has it go on.
func TestOfTwoRuns(t *testing.T) {
	act := func(c *one, run string, a failover.Action) {
		t.Helper()
		o := execute.Order{Action: a, Run: run, Step: plan.Step{Name: "s", Kind: plan.KindSuspend, Object: flux}}
		if got := (Actuator{Cluster: c}).Do(t.Context(), o); got.Outcome != failover.Done {
			t.Errorf("%s %s: %+v", run, a, got)
		}
	}
	c := cluster(t, gitops.KindKustomization, `{}`)
	act(c, "first", failover.Act)
	act(c, "second", failover.Act)
	act(c, "second", failover.Undo)
	if !gitops.Suspended(c.kind, c.live.Object) {
		t.Error("the second run resumed what the first suspended")
	}
	act(c, "first", failover.Undo)
	if gitops.Suspended(c.kind, c.live.Object) {
		t.Error("the first run did not resume what it suspended")
	}

	c = cluster(t, gitops.KindKustomization, `{}`)
	c.attempts = map[string]string{"restore-news": "r1-1"}
	shop, err := gitops.Parse(flux)
	if err != nil {
		t.Fatal(err)
	}
	news := gitops.Stage{Cluster: c, Clock: port.WallClock{}, Leases: c, ID: "r1", Application: "news"}
	if _, err := news.Suspend(t.Context(), shop); err != nil {
		t.Fatal(err)
	}
	act(c, "run", failover.Act)
	act(c, "run", failover.Undo)
	if !gitops.Suspended(c.kind, c.live.Object) {
		t.Error("a run resumed what a restore that is under way relies on")
	}
	if resumed, why, err := news.Resume(t.Context(), shop); !resumed || why != "" || err != nil {
		t.Errorf("the restore is through: %t, %q, %v", resumed, why, err)
	}
}
