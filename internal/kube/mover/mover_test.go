package mover

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
)

// cluster is a fake one, in which the scheduler, the kubelet and the node
// process do what a test says.
type cluster struct {
	client.WithWatch
	pod  func(*corev1.Pod)          // what becomes of a holder pod
	task func(*v1alpha1.VolumeTask) // what becomes of a task
	full func() error               // why no pod may be made now; nil: nothing is in the way
}

func runs(p *corev1.Pod) {
	p.Spec.NodeName, p.Status.Phase = "n1", corev1.PodRunning
}

func succeeds(t *v1alpha1.VolumeTask) {
	t.Status = v1alpha1.VolumeTaskStatus{Phase: v1alpha1.TaskSucceeded, Snapshot: `{"id":"s1","bytes":7}`, Warnings: []string{"a socket"}, BytesDone: 7}
}

func newCluster(objects ...client.Object) *cluster {
	c := &cluster{pod: runs, task: succeeds}
	c.WithWatch = fake.NewClientBuilder().WithScheme(Scheme()).WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			o.SetUID(types.UID("uid-" + o.GetName()))
			switch made := o.(type) {
			case *corev1.Pod:
				if c.full != nil {
					if err := c.full(); err != nil {
						return err
					}
				}
				c.pod(made)
			case *v1alpha1.VolumeTask:
				c.task(made)
			}
			return w.Create(ctx, o, opts...)
		},
	}).Build()
	return c
}

func bound() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv1", StorageClassName: ptr.To("fast")},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
}

func unbound() *corev1.PersistentVolumeClaim {
	c := bound()
	c.Spec.VolumeName, c.Status.Phase = "", corev1.ClaimPending
	return c
}

func event(kind, name, reason, message string) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "shop", Name: name + "." + reason},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Name: name}, Type: corev1.EventTypeWarning, Reason: reason, Message: message,
	}
}

func daemon() *appsv1.DaemonSet {
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: NodeAppName}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Image: "r/davit:1"}}
	d.Spec.Template.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	return d
}

func nodePod(ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "davit-node-1", Labels: map[string]string{NodeAppLabel: NodeAppName}},
		Spec:       corev1.PodSpec{NodeName: "n1"},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

func node(ready corev1.ConditionStatus) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	n.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: ready, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status.",
		LastTransitionTime: metav1.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}}
	return n
}

func volume() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv1"}}
}

func request() Request {
	return Request{Vault: "main", Site: "east", Source: "shop/shop/data", Namespace: "shop", Claim: "data", Owner: "point-1"}
}

// leftovers are the holder pods and tasks in the cluster.
func (c *cluster) leftovers(t *testing.T) []string {
	t.Helper()
	var names []string
	var pods corev1.PodList
	var tasks v1alpha1.VolumeTaskList
	if err := errors.Join(c.List(t.Context(), &pods, client.HasLabels{LabelOwner}), c.List(t.Context(), &tasks)); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		names = append(names, "pod "+p.Namespace+"/"+p.Name)
	}
	for _, v := range tasks.Items {
		names = append(names, "task "+v.Name)
	}
	return names
}

func TestReadReturnsTheSnapshotAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(bound(), volume(), daemon(), nodePod(corev1.ConditionTrue))
		var holder corev1.Pod
		c.pod = func(p *corev1.Pod) { runs(p); holder = *p }
		var order v1alpha1.VolumeTask
		c.task = func(o *v1alpha1.VolumeTask) { succeeds(o); order = *o }
		var seen Progress
		req := request()
		req.Progress = func(p Progress) { seen = p }
		res, err := New(c, c, Options{}).Read(t.Context(), req)
		if err != nil || res.Snapshot.ID != "s1" || len(res.Warnings) != 1 || seen.BytesDone != 7 {
			t.Fatalf("%+v, %v; progress %+v", res, err, seen)
		}
		if s := order.Spec; s.Node != "n1" || s.PodUID != string(holder.UID) || s.PersistentVolume != "pv1" || s.Operation != v1alpha1.VolumeRead || s.Vault != "main" {
			t.Errorf("ordered %+v", s)
		}
		spec := holder.Spec
		if *spec.AutomountServiceAccountToken || !*spec.SecurityContext.RunAsNonRoot || spec.Containers[0].Image != "r/davit:1" || spec.ImagePullSecrets[0].Name != "pull" {
			t.Errorf("holder is %+v", spec)
		}
		if left := c.leftovers(t); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestWriteHandsOverTheSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(bound(), volume(), daemon(), nodePod(corev1.ConditionTrue))
		var got point.Snapshot
		c.task = func(o *v1alpha1.VolumeTask) {
			if err := json.Unmarshal([]byte(o.Spec.Snapshot), &got); err != nil || o.Spec.Site != "west" {
				t.Errorf("task %+v: %v", o.Spec, err)
			}
			succeeds(o)
		}
		req := request()
		req.Site = ""
		if _, err := New(c, c, Options{}).Write(t.Context(), req, point.Snapshot{ID: "s9", Repository: "west"}); err != nil || got.ID != "s9" {
			t.Errorf("wrote %+v, %v", got, err)
		}
	})
}

func TestWhyAVolumeCannotBeMoved(t *testing.T) {
	waits := func(reason, message string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.NodeName = "n1"
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Image: "r/davit:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
		}
	}
	block := bound()
	block.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
	lost := []client.Object{bound(), volume(), daemon(), nodePod(corev1.ConditionTrue), node(corev1.ConditionUnknown)}
	all := []client.Object{bound(), volume(), daemon(), nodePod(corev1.ConditionTrue), node(corev1.ConditionTrue)}
	for name, test := range map[string]struct {
		objects []client.Object
		pod     func(*corev1.Pod)
		task    func(*v1alpha1.VolumeTask)
		is      error
		text    string
		atOnce  bool // without waiting for anything
	}{
		"no node takes the pod": {all, func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available: disk full"}}
		}, nil, ErrNotMounted, "cannot be scheduled: 0/1 nodes are available: disk full", false},
		"claim does not bind": {
			[]client.Object{unbound(), daemon(), nodePod(corev1.ConditionTrue), event("PersistentVolumeClaim", "data", "ProvisioningFailed", "pool is full"), event("PersistentVolumeClaim", "other", "ProvisioningFailed", "not about this")},
			func(*corev1.Pod) {}, nil, ErrNotMounted, "claim is not bound (storage class fast): ProvisioningFailed: pool is full", false,
		},
		"image":                  {all, waits("ImagePullBackOff", "no such host"), nil, ErrNotMounted, "image r/davit:1 cannot be pulled on node n1: ImagePullBackOff: no such host", true},
		"davit not installed":    {[]client.Object{bound(), volume()}, runs, nil, ErrNoNodeProcess, "run davit install", true},
		"no process on the node": {[]client.Object{bound(), volume(), daemon()}, runs, nil, ErrNoNodeProcess, "on node n1: it runs no pod of the DaemonSet", true},
		"process not ready":      {[]client.Object{bound(), volume(), daemon(), nodePod(corev1.ConditionFalse)}, runs, nil, ErrNoNodeProcess, "pod davit-node-1 is not ready", false},
		"task fails": {all, runs, func(v *v1alpha1.VolumeTask) {
			v.Status.Phase, v.Status.Message = v1alpha1.TaskFailed, "disk on fire"
		}, ErrTaskFailed, "on node n1: disk on fire", true},
		"vault is silent": {all, runs, func(v *v1alpha1.VolumeTask) {
			v.Status.Phase, v.Status.Message, v.Status.NoAnswer = v1alpha1.TaskFailed, "vault unavailable", true
		}, ErrNoAnswer, "on node n1: vault unavailable", true},
		"node is lost before the pod starts": {lost, func(p *corev1.Pod) { p.Spec.NodeName = "n1" }, nil, ErrNoAnswer, "holder pod shop/" + request().holderName() + " does not start: node n1 is lost: not ready since 2026-01-02T03:04:05Z: NodeStatusUnknown: Kubelet stopped", false},
		"node is lost while it works":        {lost, runs, func(*v1alpha1.VolumeTask) {}, ErrNoNodeProcess, "node n1 is lost: not ready since", false},
		"task is silent":                     {all, runs, func(*v1alpha1.VolumeTask) {}, ErrNoAnswer, "no sign of life for 2m0s", false},
		"block volume":                       {[]client.Object{block, volume(), daemon()}, runs, nil, ErrBlockMode, "shop/data", true},
		"claim is not there":                 {[]client.Object{daemon()}, runs, nil, nil, "get claim", true},
		"volume is not there":                {[]client.Object{bound(), daemon()}, runs, nil, nil, "get volume", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(test.objects...)
				c.pod = test.pod
				if test.task != nil {
					c.task = test.task
				}
				m := New(c, c, Options{})
				begun := m.opts.Now()
				_, err := m.Read(t.Context(), request())
				if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) {
					t.Fatalf("%v; want %v with %q", err, test.is, test.text)
				}
				if strings.Contains(err.Error(), "not about this") {
					t.Errorf("another claim's events: %v", err)
				}
				if waited := m.opts.Now().Sub(begun); test.atOnce && waited > 0 { // the bubble's clock
					t.Errorf("waited for %s though it was of no use", waited)
				}
				if left := c.leftovers(t); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		})
	}
}

func TestCancelledReadLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(bound(), volume(), daemon(), nodePod(corev1.ConditionTrue))
		ctx, cancel := context.WithCancel(t.Context())
		c.task = func(*v1alpha1.VolumeTask) { cancel() } // in the middle of the work
		if _, err := New(c, c, Options{}).Read(ctx, request()); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want that of the context", err)
		}
		if left := c.leftovers(t); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

// TestAReadOutlivesItsNode: a node that is lost after the upload takes nothing
// away, and one that is lost before says whether another can do it.
func TestAReadOutlivesItsNode(t *testing.T) {
	second := nodePod(corev1.ConditionTrue)
	second.Name, second.Spec.NodeName = "davit-node-2", "n2"
	unready := nodePod(corev1.ConditionFalse)
	unready.Name, unready.Spec.NodeName = "davit-node-2", "n2"
	gone := func() client.Object { return node(corev1.ConditionUnknown) }
	n2 := node(corev1.ConditionTrue)
	n2.Name = "n2"
	for what, tt := range map[string]struct {
		objects   []client.Object
		task      func(*v1alpha1.VolumeTask)
		read      bool
		elsewhere bool
	}{
		"after the upload":               {[]client.Object{gone()}, succeeds, true, false},
		"before it, and there is no one": {[]client.Object{gone()}, func(*v1alpha1.VolumeTask) {}, false, false},
		"before it, and there is one":    {[]client.Object{gone(), n2, second}, func(*v1alpha1.VolumeTask) {}, false, true},
		"before it, and one is not well": {[]client.Object{gone(), n2, unready}, func(*v1alpha1.VolumeTask) {}, false, false},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(append(tt.objects, bound(), volume(), daemon(), nodePod(corev1.ConditionTrue))...)
				c.task = tt.task
				stuck := false // the kubelet that would end the pod is lost
				w := interceptor.NewClient(c.WithWatch, interceptor.Funcs{Delete: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
					if _, ok := o.(*corev1.Pod); ok {
						stuck = true
						return nil
					}
					return w.Delete(ctx, o, opts...)
				}})
				_, err := New(w, w, Options{}).Read(t.Context(), request())
				if (err == nil) != tt.read || errors.Is(err, ErrElsewhere) != tt.elsewhere || !stuck {
					t.Errorf("read: %v; its pod was told to go: %v", err, stuck)
				}
			})
		})
	}
}

// owned makes a holder pod and a task of an owner.
func owned(owner, namespace string, op v1alpha1.VolumeOperation) []client.Object {
	labels := map[string]string{v1alpha1.LabelManagedBy: managedBy, LabelOwner: ownerLabel(owner)}
	return []client.Object{
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: owner, Labels: labels}},
		&v1alpha1.VolumeTask{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: owner, Labels: labels}, Spec: v1alpha1.VolumeTaskSpec{Operation: op}},
	}
}

func TestSweepRemovesOneOwnersOnly(t *testing.T) {
	c := newCluster(append(owned("dead", "shop", v1alpha1.VolumeWrite), owned("alive", "shop", v1alpha1.VolumeWrite)...)...)
	if err := New(c, c, Options{}).Sweep(t.Context(), "dead"); err != nil {
		t.Fatal(err)
	}
	if left := strings.Join(c.leftovers(t), ", "); left != "pod shop/alive, task alive" {
		t.Errorf("left: %s", left)
	}
}

func TestSweepReadsSparesTheLivingAndRestores(t *testing.T) {
	objects := append(owned("dead", v1alpha1.SystemNamespace, v1alpha1.VolumeRead), owned("alive", v1alpha1.SystemNamespace, v1alpha1.VolumeRead)...)
	objects = append(objects, owned("restore", "shop", v1alpha1.VolumeWrite)...)
	c := newCluster(objects...)
	err := New(c, c, Options{}).SweepReads(t.Context(), func(context.Context) ([]string, error) { return []string{"alive"}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if left := strings.Join(c.leftovers(t), ", "); left != "pod davit-system/alive, pod shop/restore, task alive, task restore" {
		t.Errorf("left: %s", left)
	}
	unknown := errors.New("no answer")
	err = New(c, c, Options{}).SweepReads(t.Context(), func(context.Context) ([]string, error) { return nil, unknown })
	if !errors.Is(err, unknown) || len(c.leftovers(t)) != 4 {
		t.Errorf("not knowing who is alive: %v, left %q", err, c.leftovers(t))
	}
}

// TestWhatWasFoundIsToldThoughALaterBeatDoesNotSay: a node process of an earlier version begins a task anew, and forgets.
func TestWhatWasFoundIsToldThoughALaterBeatDoesNotSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(bound(), volume(), daemon(), nodePod(corev1.ConditionTrue))
		c.task = func(o *v1alpha1.VolumeTask) {
			o.Status = v1alpha1.VolumeTaskStatus{Phase: v1alpha1.TaskRunning, Distrusted: "db"}
		}
		req, seen := request(), 0
		req.Progress = func(Progress) {
			var tasks v1alpha1.VolumeTaskList
			if err := c.List(t.Context(), &tasks); err != nil || len(tasks.Items) != 1 {
				t.Fatalf("%d tasks: %v", len(tasks.Items), err)
			}
			if seen++; seen == 1 {
				tasks.Items[0].Status = v1alpha1.VolumeTaskStatus{Phase: v1alpha1.TaskFailed, Message: "disk on fire"}
				if err := c.Update(t.Context(), &tasks.Items[0]); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, err := New(c, c, Options{}).Read(t.Context(), req)
		var lied *LiedError
		if !errors.As(err, &lied) || lied.Lie != "db" || !errors.Is(err, ErrTaskFailed) || seen != 2 {
			t.Errorf("after %d beats: %v", seen, err)
		}
	})
}
