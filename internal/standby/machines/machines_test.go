package machines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore/shape"
)

const workers = "machinedeployments.cluster.x-k8s.io/fleet/workers"

// fleet is a management cluster.
type fleet struct {
	objects map[string]*unstructured.Unstructured // plural/namespace/name
	version int
	err     error
	// acts plays the controllers, after every change.
	acts func(u *unstructured.Unstructured)
	// tried counts the calls that were to change nothing.
	tried int
}

func newFleet(t *testing.T, documents ...string) *fleet {
	t.Helper()
	f := &fleet{objects: map[string]*unstructured.Unstructured{}, acts: ready}
	for _, text := range documents {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		f.put(u)
	}
	return f
}

// ready has as many machines as are wanted.
func ready(u *unstructured.Unstructured) {
	n, _ := shape.Number(u.Object, "spec", "replicas")
	u.Object["status"] = map[string]any{
		"readyReplicas": n, "conditions": []any{map[string]any{"type": "Available", "status": "True"}},
	}
}

func (f *fleet) put(u *unstructured.Unstructured) {
	f.version++
	u.SetResourceVersion(strconv.Itoa(f.version))
	if f.acts != nil {
		f.acts(u)
	}
	f.objects[strings.ToLower(u.GetKind())+"s/"+u.GetNamespace()+"/"+u.GetName()] = u
}

func (f *fleet) Get(_ context.Context, resource, namespace, name string) (*unstructured.Unstructured, error) {
	plural, group, _ := strings.Cut(resource, ".")
	if f.err != nil {
		return nil, f.err
	}
	u := f.objects[plural+"/"+namespace+"/"+name]
	if u == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: group, Resource: plural}, name)
	}
	return u.DeepCopy(), nil
}

func (f *fleet) Patch(ctx context.Context, resource, namespace, name string, patch []byte, try bool) (*unstructured.Unstructured, error) {
	live, err := f.Get(ctx, resource, namespace, name)
	if err != nil {
		return nil, err
	}
	change := shape.Document{}
	if err := json.Unmarshal(patch, &change); err != nil {
		return nil, err
	}
	if shape.Text(change, "metadata", "resourceVersion") != live.GetResourceVersion() {
		return nil, apierrors.NewConflict(schema.GroupResource{}, name, nil)
	}
	if try {
		f.tried++
		return live, nil
	}
	shape.Merge(live.Object, change)
	text, _ := live.MarshalJSON()
	if err := live.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	f.put(live)
	return live, nil
}

func (f *fleet) Live(ctx context.Context, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return f.Get(ctx, strings.ToLower(u.GetKind())+"s."+u.GroupVersionKind().Group, u.GetNamespace(), u.GetName())
}

func (f *fleet) Apply(ctx context.Context, u *unstructured.Unstructured, try bool) (*unstructured.Unstructured, error) {
	if try {
		f.tried++
		return u, f.err
	}
	live, err := f.Live(ctx, u)
	if apierrors.IsNotFound(err) {
		live, err = u.DeepCopy(), nil
	}
	if err == nil {
		shape.Merge(live.Object, u.Object)
		f.put(live)
	}
	return live, err
}

func (f *fleet) Delete(_ context.Context, u *unstructured.Unstructured) error {
	delete(f.objects, strings.ToLower(u.GetKind())+"s/"+u.GetNamespace()+"/"+u.GetName())
	return nil
}

func (f *fleet) do(t *testing.T, action failover.Action, run string, a *plan.ClusterAPI, change ...func(*execute.Order)) execute.Answer {
	t.Helper()
	o := execute.Order{Action: action, Run: run, Verb: plan.Failover, Step: plan.Step{Name: "fleet", Kind: plan.KindInfra, ClusterAPI: a, Timeout: time.Minute}}
	for _, c := range change {
		c(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), o.Step.Timeout)
	defer cancel()
	return Actuator{Open: func(context.Context, string) (Cluster, error) { return f, nil }}.Do(ctx, o)
}

func (f *fleet) replicas(t *testing.T) int64 {
	t.Helper()
	n, _ := shape.Number(f.objects["machinedeployments/fleet/workers"].Object, "spec", "replicas")
	return n
}

func deployment(replicas int) string {
	return `{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"MachineDeployment","metadata":{"namespace":"fleet","name":"workers"},"spec":{"replicas":` + strconv.Itoa(replicas) + `}}`
}

func scaling(to int64) *plan.ClusterAPI {
	return &plan.ClusterAPI{Scale: []plan.Machines{{Object: workers, Replicas: to}}}
}

func outcome(t *testing.T, what string, got execute.Answer, want failover.Outcome, words string) {
	t.Helper()
	if got.Outcome != want || !strings.Contains(got.Note, words) {
		t.Errorf("%s: %+v, want %s with %q", what, got, want, words)
	}
}

func TestMachinesComeAndGo(t *testing.T) {
	f, a := newFleet(t, deployment(1)), scaling(3)
	outcome(t, "look", f.do(t, failover.Look, "r", a), failover.NotDone, "")
	outcome(t, "act", f.do(t, failover.Act, "r", a), failover.Done, "from 1 to 3")
	outcome(t, "look", f.do(t, failover.Look, "r", a), failover.Done, "")
	outcome(t, "act again", f.do(t, failover.Act, "r", a), failover.Done, "has 3")
	outcome(t, "another run's undo", f.do(t, failover.Undo, "q", a), failover.Done, "was not scaled by the run")
	if got := f.replicas(t); got != 3 {
		t.Fatalf("there are %d", got)
	}
	outcome(t, "undo", f.do(t, failover.Undo, "r", a), failover.Done, "back to 1")
	outcome(t, "undo again", f.do(t, failover.Undo, "r", a), failover.Done, "was not scaled by the run")
	if u := f.objects["machinedeployments/fleet/workers"]; f.replicas(t) != 1 || len(u.GetAnnotations()) != 0 {
		t.Errorf("%v", u)
	}
}

// TestMoreMachinesAreKept: a step never takes machines away, and a roll-back not those
// that somebody added since.
func TestMoreMachinesAreKept(t *testing.T) {
	f := newFleet(t, deployment(5))
	outcome(t, "act", f.do(t, failover.Act, "r", scaling(3)), failover.Done, "has 5")
	outcome(t, "undo", f.do(t, failover.Undo, "r", scaling(3)), failover.Done, "was not scaled")
	outcome(t, "act", f.do(t, failover.Act, "r", scaling(6)), failover.Done, "from 5 to 6")
	live := f.objects["machinedeployments/fleet/workers"]
	shape.Child(live.Object, "spec")["replicas"] = int64(9)
	outcome(t, "undo", f.do(t, failover.Undo, "r", scaling(6)), failover.Done, "keeps 9")
	if got := f.replicas(t); got != 9 {
		t.Errorf("there are %d", got)
	}
}

// TestWhoeverGoesOn after a death in the middle takes back to what the run found.
func TestWhoeverGoesOn(t *testing.T) {
	f := newFleet(t, deployment(1))
	f.acts = nil // no machine ever comes
	synctest.Test(t, func(t *testing.T) {
		outcome(t, "act", f.do(t, failover.Act, "r", scaling(3)), failover.Refused, "has 1 of 3 machines ready (waited 1m0s)")
	})
	outcome(t, "look", f.do(t, failover.Look, "r", scaling(3)), failover.NotDone, "")
	f.acts = ready
	f.put(f.objects["machinedeployments/fleet/workers"])
	outcome(t, "act", f.do(t, failover.Act, "r", scaling(3)), failover.Done, "")
	outcome(t, "undo", f.do(t, failover.Undo, "r", scaling(3)), failover.Done, "back to 1")
}

// hanging answers nobody any more once it has answered for a while.
type hanging struct {
	*fleet
	until time.Time
}

func (h hanging) Get(ctx context.Context, resource, namespace, name string) (*unstructured.Unstructured, error) {
	if time.Now().Before(h.until) {
		return h.fleet.Get(ctx, resource, namespace, name)
	}
	<-ctx.Done()
	return nil, fmt.Errorf("get %s: %w", name, ctx.Err())
}

// TestWhatWasSeenIsTold when time is over while the management cluster is asked.
func TestWhatWasSeenIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, deployment(1))
		f.acts = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		open := func(context.Context, string) (Cluster, error) {
			return hanging{f, time.Now().Add(30 * time.Second)}, nil
		}
		o := execute.Order{Action: failover.Act, Run: "r", Verb: plan.Failover, Step: plan.Step{Name: "fleet", Kind: plan.KindInfra, ClusterAPI: scaling(3), Timeout: time.Minute}}
		outcome(t, "act", Actuator{Open: open}.Do(ctx, o), failover.Refused, "has 1 of 3 machines ready")
	})
}

// TestSomethingElseScales is told at once, not when time is over.
func TestSomethingElseScales(t *testing.T) {
	f := newFleet(t, deployment(1))
	f.acts = func(u *unstructured.Unstructured) { shape.Child(u.Object, "spec")["replicas"] = int64(1) }
	outcome(t, "act", f.do(t, failover.Act, "r", scaling(3)), failover.Refused, "is back at 1 of 3")
}

func TestADrillChangesNothing(t *testing.T) {
	f := newFleet(t, deployment(1))
	before := maps.Clone(f.objects)
	a := scaling(3)
	a.Apply = []json.RawMessage{json.RawMessage(`{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"Cluster","metadata":{"namespace":"fleet","name":"west"}}`)}
	a.Wait = []plan.Conditions{{Object: "clusters.cluster.x-k8s.io/fleet/west"}}
	drill := func(o *execute.Order) { o.Verb = plan.Drill }
	outcome(t, "look", f.do(t, failover.Look, "r", a, drill), failover.NotDone, "")
	outcome(t, "act", f.do(t, failover.Act, "r", a, drill), failover.Done, "only rehearsed")
	outcome(t, "undo", f.do(t, failover.Undo, "r", a, drill), failover.Done, "")
	if f.tried != 2 || !maps.Equal(before, f.objects) || f.replicas(t) != 1 {
		t.Errorf("tried %d, have %v", f.tried, f.objects)
	}
	a.Wait = append(a.Wait, plan.Conditions{Object: "machinedeployments.cluster.x-k8s.io/fleet/of-its-topology"})
	outcome(t, "what a controller makes of what is applied", f.do(t, failover.Act, "r", a, drill), failover.Done, "only rehearsed")
	bare := scaling(3)
	bare.Wait = a.Wait[1:]
	outcome(t, "what nobody makes", f.do(t, failover.Act, "r", bare, drill), failover.Refused, "of-its-topology")
	a.Scale[0].Object = "machinedeployments.cluster.x-k8s.io/fleet/other"
	outcome(t, "what is not there", f.do(t, failover.Act, "r", a, drill), failover.Refused, "not found")
}

func TestObjectsAreAppliedAndDestroyedIfAsked(t *testing.T) {
	raw := json.RawMessage(`{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"Cluster","metadata":{"namespace":"fleet","name":"west"},"spec":{"paused":false}}`)
	for _, destroy := range []bool{false, true} {
		f := newFleet(t)
		a := &plan.ClusterAPI{Apply: []json.RawMessage{raw}, Wait: []plan.Conditions{{Object: "clusters.cluster.x-k8s.io/fleet/west"}}, Destroy: destroy}
		outcome(t, "look", f.do(t, failover.Look, "r", a), failover.NotDone, "")
		outcome(t, "act", f.do(t, failover.Act, "r", a), failover.Done, "apply Cluster fleet/west")
		outcome(t, "look", f.do(t, failover.Look, "r", a), failover.Done, "")
		outcome(t, "act of another run", f.do(t, failover.Act, "q", a), failover.Done, "")
		outcome(t, "undo of the other", f.do(t, failover.Undo, "q", a), failover.Done, "is kept")
		if len(f.objects) != 1 {
			t.Fatal("a run destroyed what another made")
		}
		outcome(t, "undo", f.do(t, failover.Undo, "r", a), failover.Done, "")
		if gone := len(f.objects) == 0; gone != destroy {
			t.Errorf("destroy %t: gone %t", destroy, gone)
		}
	}
}

func TestConditionsAreWaitedFor(t *testing.T) {
	const west = "clusters.cluster.x-k8s.io/fleet/west"
	condition := func(kind, status string) string {
		return `{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"Cluster","metadata":{"namespace":"fleet","name":"west","generation":2},"status":{"observedGeneration":2,"conditions":[{"type":"` + kind + `","status":"` + status + `","reason":"Waiting","message":"for machines"}]}}`
	}
	for _, tc := range []struct {
		live  string
		names []string
		want  string
	}{
		{condition("Ready", "True"), nil, ""},
		{condition("Available", "True"), nil, ""},
		{condition("Ready", "False"), nil, west + ": Ready is False: Waiting for machines"},
		{condition("ControlPlaneReady", "True"), nil, west + " has no condition Ready"},
		{condition("ControlPlaneReady", "True"), []string{"ControlPlaneReady"}, ""},
		{condition("Ready", "True"), []string{"Ready", "ControlPlaneReady"}, west + " has no condition ControlPlaneReady"},
		{strings.Replace(condition("Ready", "True"), `"observedGeneration":2`, `"observedGeneration":1`, 1), nil, west + ": its controller has not seen its newest spec"},
	} {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON([]byte(tc.live)); err != nil {
			t.Fatal(err)
		}
		if got := unmet(u, plan.Conditions{Object: west, Conditions: tc.names}); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

// TestWhatErrorsMean: only what stays so ends the step.
func TestWhatErrorsMean(t *testing.T) {
	machines := schema.GroupResource{Group: plan.ClusterGroup, Resource: "machinedeployments"}
	for _, tc := range []struct {
		err   error
		want  failover.Outcome
		words string
	}{
		{apierrors.NewForbidden(machines, "workers", errors.New("no")), failover.Refused, "grant it"},
		{&meta.NoResourceMatchError{PartialResource: schema.GroupVersionResource{Resource: "machinedeployments"}}, failover.Refused, "is this the management cluster?"},
		{apierrors.NewNotFound(machines, "workers"), failover.Refused, "not found"},
		{apierrors.NewConflict(machines, "workers", nil), failover.NoAnswer, ""},
		{errors.New("connection refused"), failover.NoAnswer, "refused"},
		{context.DeadlineExceeded, failover.NoAnswer, ""},
	} {
		f := newFleet(t, deployment(1))
		f.err = tc.err
		outcome(t, tc.err.Error(), f.do(t, failover.Act, "r", scaling(3)), tc.want, tc.words)
	}
}
