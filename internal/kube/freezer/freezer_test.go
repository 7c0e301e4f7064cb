package freezer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube/mover"
)

func pod(name, node string, phase corev1.PodPhase, claims ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase},
	}
	for _, c := range claims {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c}}})
	}
	return p
}

// process is a pod of Davit's node process.
func process(on string, ready corev1.ConditionStatus, since time.Time) *corev1.Pod {
	p := pod("davit-node-"+on, on, corev1.PodRunning)
	p.Namespace, p.Labels = v1alpha1.SystemNamespace, map[string]string{mover.NodeAppLabel: mover.NodeAppName}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.NewTime(since)}}
	return p
}

func plansOf(claims ...string) []capture.VolumePlan {
	var all []capture.VolumePlan
	for _, c := range claims {
		all = append(all, capture.VolumePlan{Method: capture.MethodSnapshot, Claim: capture.Claim{Namespace: "shop", Name: c, Volume: "pv-" + c}})
	}
	return all
}

// nodes answer orders as node processes do.
type nodes struct {
	client client.WithWatch
	// ends says how a node that is told to thaw ends; by default it held.
	ends func(node string) v1alpha1.VolumeFreezeStatus
	// refuses says that no node gets ready.
	refuses bool
	// mute nodes do not answer an order.
	mute func(node string, order v1alpha1.FreezeOrder) bool

	mu    sync.Mutex
	calls []string
}

func (n *nodes) note(call string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.calls, call) {
		n.calls = append(n.calls, call)
	}
}

func (n *nodes) noted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

// run answers until ctx is done.
func (n *nodes) run(ctx context.Context) {
	for ctx.Err() == nil {
		var list v1alpha1.VolumeFreezeList
		if err := n.client.List(ctx, &list); err != nil {
			continue
		}
		for i := range list.Items {
			n.answer(ctx, &list.Items[i])
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (n *nodes) answer(ctx context.Context, o *v1alpha1.VolumeFreeze) {
	node, order := o.Spec.Node, o.Spec.Order
	n.note(string(order) + " " + node)
	if n.mute != nil && n.mute(node, order) {
		return
	}
	old := o.DeepCopy()
	switch order {
	case v1alpha1.OrderArm:
		o.Status.Phase = v1alpha1.FreezeArmed
		if n.refuses {
			o.Status = v1alpha1.VolumeFreezeStatus{Phase: v1alpha1.FreezeEnded, Message: "shared with the node"}
		}
	case v1alpha1.OrderFreeze:
		o.Status.Phase = v1alpha1.FreezeFrozen
	case v1alpha1.OrderThaw:
		o.Status = v1alpha1.VolumeFreezeStatus{Phase: v1alpha1.FreezeEnded, Held: true, Took: &metav1.Duration{Duration: time.Second}}
		if n.ends != nil {
			o.Status = n.ends(node)
		}
	}
	if old.Status.Phase != o.Status.Phase {
		_ = n.client.Status().Patch(ctx, o, client.MergeFrom(old)) // seen again, or gone
	}
}

// rig starts the nodes and returns a freezer over the objects.
func rig(t *testing.T, change func(*nodes), objects ...client.Object) (*Freezer, *nodes) {
	t.Helper()
	c := fake.NewClientBuilder().WithScheme(mover.Scheme()).WithObjects(objects...).WithStatusSubresource(&v1alpha1.VolumeFreeze{}).
		WithIndex(&corev1.Pod{}, onNode, func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).Build()
	n := &nodes{client: c}
	if change != nil {
		change(n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return New(c, time.Now, slog.New(slog.NewTextHandler(io.Discard, nil))), n
}

func request(plans []capture.VolumePlan) capture.FreezeRequest {
	return capture.FreezeRequest{Point: "p-1", Plans: plans, Window: 10 * time.Second}
}

func left(t *testing.T, f *Freezer) int {
	t.Helper()
	list, err := f.orders(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestTogetherCutsInsideTheFreeze(t *testing.T) {
	f, n := rig(t, nil,
		pod("db-0", "east-1", corev1.PodRunning, "a"), pod("db-1", "east-2", corev1.PodRunning, "b", "other"),
		pod("job", "east-1", corev1.PodSucceeded, "c"))
	var inside []string
	got, err := f.Together(t.Context(), request(plansOf("a", "b", "c")), func(context.Context) error {
		inside = n.noted()
		return nil
	})
	if err != nil || !got.Held || got.Reason != "" || got.Nodes != 2 || got.Frozen != time.Second || got.Flushed {
		t.Fatalf("got %+v, %v; nobody flushed c", got, err)
	}
	for _, want := range []string{"Freeze east-1", "Freeze east-2"} {
		if !slices.Contains(inside, want) {
			t.Errorf("cut before %q: %v", want, inside)
		}
	}
	if slices.ContainsFunc(inside, func(s string) bool { return strings.HasPrefix(s, "Thaw") }) {
		t.Errorf("thawed before the cut: %v", inside)
	}
	if left(t, f) > 0 {
		t.Error("orders stay")
	}
}

func TestTogetherBroken(t *testing.T) {
	refusing := func(n *nodes) {
		n.mute = func(node string, _ v1alpha1.FreezeOrder) bool {
			if node != "east-2" {
				return false
			}
			var list v1alpha1.VolumeFreezeList
			_ = n.client.List(context.Background(), &list)
			for i := range list.Items {
				if o := &list.Items[i]; o.Spec.Node == node && o.Status.Phase == "" {
					o.Status = v1alpha1.VolumeFreezeStatus{Phase: v1alpha1.FreezeEnded, Message: "shared with the node"}
					_ = n.client.Status().Update(context.Background(), o)
				}
			}
			return true
		}
	}
	notHeld := func(n *nodes) {
		n.ends = func(string) v1alpha1.VolumeFreezeStatus {
			return v1alpha1.VolumeFreezeStatus{Phase: v1alpha1.FreezeEnded, Message: "somebody else thawed"}
		}
	}
	failed := errors.New("driver on fire")
	for _, tt := range []struct {
		name     string
		nodes    func(*nodes)
		required bool
		cutErr   error
		cut      bool
		says     string
	}{
		{"a node refuses", refusing, false, nil, true, "node east-2: shared with the node"},
		{"a node refuses what is required", refusing, true, nil, false, "node east-2: shared with the node"},
		{"a node did not hold", notHeld, false, nil, true, "somebody else thawed"},
		{"a cut fails", nil, false, failed, true, "driver on fire"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, _ := rig(t, tt.nodes, pod("db-0", "east-1", corev1.PodRunning, "a"), pod("db-1", "east-2", corev1.PodRunning, "b"))
			req := request(plansOf("a", "b"))
			req.Required = tt.required
			cut := false
			got, err := f.Together(t.Context(), req, func(context.Context) error { cut = true; return tt.cutErr })
			if !errors.Is(err, tt.cutErr) || got.Held || cut != tt.cut || !strings.Contains(got.Reason, tt.says) {
				t.Errorf("got %+v, %v, cut %v; want cut %v and %q", got, err, cut, tt.cut, tt.says)
			}
			if left(t, f) > 0 {
				t.Error("orders stay")
			}
		})
	}
}

func TestTogetherSeesNewUsers(t *testing.T) {
	f, _ := rig(t, nil, pod("db-0", "east-1", corev1.PodRunning, "a"))
	got, err := f.Together(t.Context(), request(plansOf("a", "b")), func(ctx context.Context) error {
		return f.client.Create(ctx, pod("late", "east-1", corev1.PodPending, "b"))
	})
	if err != nil || got.Held || !strings.Contains(got.Reason, "shop/b in the meantime") {
		t.Errorf("a claim that came into use while it was cut: %+v, %v", got, err)
	}
}

// Two applications may have points of one name, as when an object of that name is applied to
// each namespace before an upgrade. Each holds its own volumes still.
func TestPointsOfOneName(t *testing.T) {
	f, n := rig(t, nil, pod("shop-0", "east-1", corev1.PodRunning, "a", "b"), pod("bill-0", "east-1", corev1.PodRunning, "c", "d"))
	shop, bill := request(plansOf("a", "b")), request(plansOf("c", "d"))
	shop.Application, bill.Application = "shop", "bill"
	var held []string
	got, err := f.Together(t.Context(), shop, func(ctx context.Context) error {
		got, err := f.Together(ctx, bill, func(ctx context.Context) error {
			list, err := f.orders(ctx, nil)
			for i := range list {
				for _, v := range list[i].Spec.Volumes {
					if list[i].Status.Phase == v1alpha1.FreezeFrozen {
						held = append(held, v.Claim)
					}
				}
			}
			return err
		})
		if err == nil && !got.Held {
			err = errors.New(got.Reason)
		}
		return err
	})
	slices.Sort(held)
	if want := []string{"shop/a", "shop/b", "shop/c", "shop/d"}; err != nil || !got.Held || !slices.Equal(held, want) {
		t.Errorf("%v were held still, want %v: %+v, %v, after %v", held, want, got, err, n.noted())
	}
	if left(t, f) > 0 {
		t.Error("orders stay")
	}
}

// A Job may have begun to use a claim and be over when the cuts are done. Its pod stays.
func TestTogetherSeesWhoHasEnded(t *testing.T) {
	for what, ended := range map[string]bool{"while they were cut": false, "long ago": true} {
		job := pod("job", "east-1", corev1.PodSucceeded, "a", "b")
		var before []client.Object
		if ended {
			before = append(before, job)
		}
		f, _ := rig(t, nil, before...)
		got, err := f.Together(t.Context(), request(plansOf("a", "b")), func(ctx context.Context) error {
			if ended {
				return nil
			}
			return f.client.Create(ctx, job)
		})
		if err != nil || got.Held != ended {
			t.Errorf("a Job that used both claims and ended %s: %+v, %v", what, got, err)
		}
	}
}

func TestTogetherWithNothingInUse(t *testing.T) {
	f, n := rig(t, nil)
	got, err := f.Together(t.Context(), request(plansOf("a", "b")), func(context.Context) error { return nil })
	if err != nil || !got.Held || got.Nodes != 0 || len(n.noted()) > 0 {
		t.Errorf("got %+v, %v after %v", got, err, n.noted())
	}
}

func TestTogetherCalledOff(t *testing.T) {
	f, _ := rig(t, nil, pod("db-0", "east-1", corev1.PodRunning, "a"), pod("db-1", "east-2", corev1.PodRunning, "b"))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := f.Together(ctx, request(plansOf("a", "b")), func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || left(t, f) > 0 {
		t.Errorf("called off: %v, %d orders stay", err, left(t, f))
	}
}

func TestPlacesTakeRunningPodsFirst(t *testing.T) {
	pending, running := pod("new", "n", corev1.PodPending, "a"), pod("old", "n", corev1.PodRunning, "a")
	running.UID = "running"
	unscheduled := pod("waits", "", corev1.PodPending, "a")
	f, _ := rig(t, nil, pending, running, unscheduled)
	got, err := f.places(t.Context(), plansOf("a"))
	if err != nil || len(got) != 1 || len(got["n"]) != 1 || got["n"][0].PodUID != "running" {
		t.Errorf("places are %+v, %v", got, err)
	}
}

// TestPlacesLeaveOutWhatGoes: the pod that held a restored volume lingers beside the
// workload, and a freeze through its mount would fail when that goes.
func TestPlacesLeaveOutWhatGoes(t *testing.T) {
	going := func(p *corev1.Pod) *corev1.Pod {
		p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: time.Unix(1, 0)}, []string{"t/t"}
		return p
	}
	holder := func(name, node, claim string) *corev1.Pod {
		p := pod("davit-hold-"+name, node, corev1.PodRunning, claim)
		p.Labels = map[string]string{v1alpha1.LabelManagedBy: "davit", mover.LabelOwner: "r1"}
		return p
	}
	f, _ := rig(t, nil,
		going(holder("a", "n1", "data")), pod("db-0", "n1", corev1.PodRunning, "data"),
		going(holder("b", "n2", "data")), // control: nothing else is on its node
		going(pod("a-old", "n3", corev1.PodRunning, "data")), pod("b-new", "n3", corev1.PodRunning, "data"),
		going(pod("writes", "n4", corev1.PodRunning, "data")), // as long as it is there
		holder("c", "n5", "data"),
	)
	found, err := f.places(t.Context(), plansOf("data"))
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]string{"n1": "uid-db-0", "n2": "", "n3": "uid-b-new", "n4": "uid-writes", "n5": "uid-davit-hold-c"} {
		got := ""
		for _, v := range found[node] {
			got += v.PodUID
		}
		if got != want {
			t.Errorf("on %s the freeze goes through %q, want %q", node, got, want)
		}
	}
}

func TestSweepRemovesWhatNobodyCaptures(t *testing.T) {
	order := func(name, point string) *v1alpha1.VolumeFreeze {
		return &v1alpha1.VolumeFreeze{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name, Labels: map[string]string{v1alpha1.LabelManagedBy: managedBy, labelPoint: point}}}
	}
	f, _ := rig(t, nil, order("dead", "gone"), order("live", "running"))
	if err := f.Sweep(t.Context(), func(p string) bool { return p == "running" }); err != nil {
		t.Fatal(err)
	}
	if list, _ := f.orders(t.Context(), nil); len(list) != 1 || list[0].Name != "live" {
		t.Errorf("left: %+v", list)
	}
}

// TestALostNodeHoldsNobodyUp: of a node that the cluster gave up, or whose process has been
// down, nobody asks anything, and the others wait for no answer. The controls are nodes
// that are asked: one whose process went down a moment ago, one that is unwell, and one of
// which nothing is known; they do not answer here, so that only the end of the wait ends it.
func TestALostNodeHoldsNobodyUp(t *testing.T) {
	node := func(ready corev1.ConditionStatus) *corev1.Node {
		return &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "east-2"},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, LastTransitionTime: metav1.NewTime(time.Unix(1, 0))}}},
		}
	}
	long, other := time.Unix(1, 0), process("east-1", corev1.ConditionTrue, time.Unix(1, 0))
	for what, tt := range map[string]struct {
		objects []client.Object
		says    string // empty: it is asked
	}{
		"given up":             {[]client.Object{node(corev1.ConditionUnknown)}, "nothing was heard of it since 1970-01-01T00:00:01Z"},
		"its process is down":  {[]client.Object{node(corev1.ConditionTrue), other, process("east-2", corev1.ConditionFalse, long)}, "its node process, pod davit-node-east-2, is not ready since 1970"},
		"it has no process":    {[]client.Object{node(corev1.ConditionTrue), other}, "no node process of Davit runs there"},
		"it is gone":           {[]client.Object{other}, "no node process of Davit runs there"},
		"its process restarts": {[]client.Object{node(corev1.ConditionTrue), other, process("east-2", corev1.ConditionFalse, time.Now())}, ""},
		"it is unwell":         {[]client.Object{node(corev1.ConditionFalse), other, process("east-2", corev1.ConditionTrue, long)}, ""},
		"nothing is known":     {nil, ""},
	} {
		t.Run(what, func(t *testing.T) {
			objects := append([]client.Object{pod("db-0", "east-1", corev1.PodRunning, "a"), pod("db-1", "east-2", corev1.PodRunning, "b")}, tt.objects...)
			f, n := rig(t, func(n *nodes) {
				n.mute = func(node string, _ v1alpha1.FreezeOrder) bool { return node == "east-2" }
			}, objects...)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var asked sync.WaitGroup
			if tt.says == "" { // until it is, which is what is to be seen
				asked.Go(func() {
					for !slices.Contains(n.noted(), "Arm east-2") && t.Context().Err() == nil {
						<-time.After(time.Millisecond)
					}
					cancel()
				})
			}
			cuts := 0
			got, err := f.Together(ctx, request(plansOf("a", "b")), func(context.Context) error { cuts++; return nil })
			asked.Wait()
			told := slices.Contains(n.noted(), "Arm east-2")
			switch {
			case tt.says == "" && !told:
				t.Errorf("it was not asked: %+v, %v", got, err)
			case tt.says == "":
			case err != nil || got.Held || cuts != 1 || told || !strings.Contains(got.Reason, "node east-2: "+tt.says):
				t.Errorf("%+v, %v after %d cuts; asked: %v", got, err, cuts, told)
			}
			if left(t, f) > 0 {
				t.Error("orders stay")
			}
		})
	}
}
