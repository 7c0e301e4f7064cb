package scratch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	dynamic "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	core "k8s.io/client-go/testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/drill"
	"davit.dev/davit/internal/kube"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

func namespace(name, run string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(noon),
		Labels:      map[string]string{v1alpha1.LabelSandbox: drill.Name(run), v1alpha1.LabelRestore: "r-" + name},
		Annotations: map[string]string{v1alpha1.AnnotationRun: run},
	}}
}

func volume(by, ns string, at time.Time) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv", CreationTimestamp: metav1.NewTime(at), Annotations: map[string]string{}},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain, ClaimRef: &corev1.ObjectReference{Namespace: ns, Name: "data", UID: "u"},
		},
	}
	if by != "" {
		v.Annotations["pv.kubernetes.io/provisioned-by"] = by
	}
	return v
}

// TestAVolumeThatWasThereIsKept: only what was provisioned for the copy is let
// go with it.
func TestAVolumeThatWasThereIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		by, ns string
		at     time.Time
		want   corev1.PersistentVolumeReclaimPolicy
	}{
		"made for it":      {"csi.test", "copy", noon.Add(time.Second), corev1.PersistentVolumeReclaimDelete},
		"made by a person": {"", "copy", noon.Add(time.Second), corev1.PersistentVolumeReclaimRetain},
		"there before":     {"csi.test", "copy", noon.Add(-time.Hour), corev1.PersistentVolumeReclaimRetain},
		"somebody else's":  {"csi.test", "shop", noon.Add(time.Second), corev1.PersistentVolumeReclaimRetain},
	} {
		k := fake.NewClientset(volume(c.by, c.ns, c.at))
		if err := (&Cluster{clients: &kube.Clients{Kubernetes: k}}).releaseVolumes(t.Context(), namespace("copy", "r")); err != nil {
			t.Fatal(err)
		}
		got, err := k.CoreV1().PersistentVolumes().Get(t.Context(), "pv", metav1.GetOptions{})
		if err != nil || got.Spec.PersistentVolumeReclaimPolicy != c.want {
			t.Errorf("%s: %v %s", name, err, got.Spec.PersistentVolumeReclaimPolicy)
		}
	}
}

// sweeps remembers for which restores it was asked, and fails as long as err is set.
type sweeps struct {
	err error
	of  []string
}

func (s *sweeps) Sweep(_ context.Context, owner string) error {
	if s.err == nil {
		s.of = append(s.of, owner)
	}
	return s.err
}

// TestACleanUpThatFailedIsTriedWhole: as long as a volume cannot be let go, or
// tasks are left, the namespaces that a next try finds the drill by stay.
func TestACleanUpThatFailedIsTriedWhole(t *testing.T) {
	const run = "shop-drill-1"
	home, copied := drill.Home(run), drill.Copy(run, "shop")
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: copied, Name: "data", Labels: map[string]string{v1alpha1.LabelRestore: "second"}}}
	k := fake.NewClientset(namespace(home, run), namespace(copied, run), volume("csi.test", copied, noon), claim)
	stuck := errors.New("the API server is away")
	k.PrependReactor("patch", "persistentvolumes", func(core.Action) (bool, runtime.Object, error) { return stuck != nil, nil, stuck })
	s := &sweeps{err: errors.New("no tasks can be listed")}
	boxes := (&Cluster{clients: &kube.Clients{Kubernetes: k}, mover: s}).Drills(time.Now)
	try := func() ([]drill.Namespace, error) {
		t.Helper()
		all, err := boxes.Sandboxes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = boxes.Clear(t.Context(), all)
		left, _ := boxes.Sandboxes(t.Context())
		return left, err
	}
	if left, err := try(); err == nil || len(left) != 2 {
		t.Fatalf("tasks are left, and it says %v; left are %v", err, left)
	}
	s.err = nil
	if left, err := try(); err == nil || !strings.Contains(err.Error(), "let volume pv go") || len(left) != 2 {
		t.Fatalf("a volume would stay, and it says %v; left are %v", err, left)
	}
	stuck = nil
	if left, err := try(); err != nil || len(left) != 0 {
		t.Fatalf("%v; left are %v", err, left)
	}
	got, err := k.CoreV1().PersistentVolumes().Get(t.Context(), "pv", metav1.GetOptions{})
	if err != nil || got.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		t.Errorf("%v: the volume stays: %s", err, got.Spec.PersistentVolumeReclaimPolicy)
	}
	for _, restore := range []string{"r-" + copied, "second", "r-" + home} {
		if !slices.Contains(s.of, restore) {
			t.Errorf("nobody swept after %s: %v", restore, s.of)
		}
	}
	var order []string
	for _, a := range k.Actions() {
		if d, ok := a.(core.DeleteAction); ok && a.GetResource().Resource == "namespaces" {
			order = append(order, d.GetName())
		}
	}
	if !slices.Equal(order, []string{copied, home}) {
		t.Errorf("namespaces were removed in the order %v", order)
	}
}

// TestOpenNodes: a clone runs only where every node that is ready closes it in by
// its own word, given lately.
func TestOpenNodes(t *testing.T) {
	for name, c := range map[string]struct {
		owner   types.UID
		at      time.Time
		problem string
		none    bool
		says    string
	}{
		"closed":     {owner: "new", at: noon},
		"no process": {none: true, says: "no node process"},
		"replaced":   {owner: "old", at: noon, says: "an earlier node"},
		"silent":     {owner: "new", at: noon.Add(-time.Hour), says: "says nothing since"},
		"unable":     {owner: "new", at: noon, problem: "no nft", says: "no nft"},
	} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "new"}, Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}}
		said := metav1.NewTime(c.at)
		report := &v1alpha1.NodeFence{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "NodeFence"},
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "n1", OwnerReferences: []metav1.OwnerReference{{Kind: "Node", Name: "n1", UID: c.owner}}},
			Status:     v1alpha1.NodeFenceStatus{ObservedAt: &said, Problem: c.problem},
		}
		scheme := runtime.NewScheme()
		if err := v1alpha1.AddToScheme(scheme); err != nil {
			t.Fatal(err)
		}
		objects := []runtime.Object{report}
		if c.none {
			objects = nil
		}
		clients := &kube.Clients{Kubernetes: fake.NewClientset(node), Dynamic: dynamic.NewSimpleDynamicClient(scheme, objects...)}
		got, err := (&Cluster{clients: clients}).Drills(func() time.Time { return noon }).Open(t.Context())
		if err != nil || (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %v %q", name, err, got)
		}
	}
}
