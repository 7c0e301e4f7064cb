package source

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// machine is a node with its driver's label.
func machine(name string, ready corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"topology.example.com/node": name, "zone": "z"}},
		Spec:       corev1.NodeSpec{Taints: taints},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}},
	}
}

// localVolume can be reached from where the requirement says; nil: from everywhere.
func localVolume(name string, at *corev1.NodeSelectorRequirement) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if at != nil {
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{*at}},
		}}}
	}
	return pv
}

func homes(objects ...runtime.Object) (*Volumes, *fake.Clientset) {
	core := fake.NewClientset(objects...)
	clients := &kube.Clients{Kubernetes: core}
	return NewVolumes(clients, clients, nil, VolumeOptions{}), core
}

func TestACutIsReadWhereItsVolumeIs(t *testing.T) {
	in := func(key string, values ...string) *corev1.NodeSelectorRequirement {
		return &corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
	}
	kept := corev1.Taint{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}
	sick := corev1.Taint{Key: "node.kubernetes.io/disk-pressure", Effect: corev1.TaintEffectNoSchedule}
	for name, tt := range map[string]struct {
		at        *corev1.NodeSelectorRequirement
		only      string
		pinned    bool
		tolerates int
	}{
		"on one node":              {at: in("topology.example.com/node", "b"), only: "b", pinned: true, tolerates: 1},
		"in a zone":                {at: in("zone", "z"), pinned: true, tolerates: 1},
		"everywhere":               {},
		"on a cordoned node":       {at: in("topology.example.com/node", "c"), only: "c", pinned: true, tolerates: 2},
		"on a node that is lost":   {at: in("topology.example.com/node", "lost"), only: "lost"},
		"on a node that is gone":   {at: in("topology.example.com/node", "gone")},
		"by an operator of no use": {at: &corev1.NodeSelectorRequirement{Key: "zone", Operator: "Near"}},
	} {
		t.Run(name, func(t *testing.T) {
			pv := localVolume("pv", tt.at)
			cordoned := machine("c", corev1.ConditionTrue, kept, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
			cordoned.Spec.Unschedulable = true // and it is none of a zone that has others
			v, _ := homes(pv, cordoned, machine("a", corev1.ConditionTrue), machine("b", corev1.ConditionTrue, kept, sick), machine("lost", corev1.ConditionUnknown))
			if got, err := v.only(t.Context(), pv); err != nil || got != tt.only {
				t.Errorf("only %q has it, %v; want %q", got, err, tt.only)
			}
			got, err := v.beside(t.Context(), capture.Claim{Volume: "pv"})
			if err != nil || (got.Affinity != nil) != tt.pinned || len(got.Tolerations) != tt.tolerates {
				t.Errorf("read at %+v: %v", got, err)
			}
			if tt.tolerates > 0 && got.Tolerations[0].Key != kept.Key {
				t.Errorf("tolerates %v", got.Tolerations)
			}
		})
	}
}

// TestAVolumeOfALostNodeIsRefusedBeforeAnythingIsHeldStill, and one whose node is lost
// meanwhile keeps nobody for as long as a cut may take to become readable. The controls:
// a node that is unwell, one that is cordoned, storage that is near a node and not its
// own, and a node that comes back.
func TestAVolumeOfALostNodeIsRefusedBeforeAnythingIsHeldStill(t *testing.T) {
	in := func(key, value string) *corev1.NodeSelectorRequirement {
		return &corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}
	}
	for name, tt := range map[string]struct {
		at    *corev1.NodeSelectorRequirement
		state corev1.ConditionStatus
		lost  bool
	}{
		"of a node that is gone":   {in("topology.example.com/node", "gone"), corev1.ConditionTrue, true},
		"of a host that is gone":   {in(corev1.LabelHostname, "gone"), corev1.ConditionTrue, true},
		"of a zone without nodes":  {in("zone", "gone"), corev1.ConditionTrue, false},
		"of a node that is lost":   {in("topology.example.com/node", "b"), corev1.ConditionUnknown, true},
		"of a node that is unwell": {in("topology.example.com/node", "b"), corev1.ConditionFalse, false},
		"of a node that is up":     {in("topology.example.com/node", "b"), corev1.ConditionTrue, false},
		"of a zone of one node":    {in("zone", "z"), corev1.ConditionUnknown, false},
		"of everywhere":            {nil, corev1.ConditionUnknown, false},
	} {
		t.Run(name, func(t *testing.T) {
			pv := localVolume("pv", tt.at)
			pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}
			v, _ := homes(pv, machine("b", tt.state))
			v.app.Dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{classes: "VolumeSnapshotClassList"})
			_, err := v.Plan(t.Context(), capture.Claim{Namespace: "shop", Name: "data", Volume: "pv"}, capture.VolumeOptions{Mode: capture.ModeSnapshotOrLive})
			if errors.Is(err, ErrNodeLost) != tt.lost || tt.lost && !strings.Contains(err.Error(), "node "+tt.at.Values[0]) {
				t.Errorf("planned with %v", err)
			}
		})
	}
	for name, back := range map[string]bool{"it stays away": false, "it comes back": true, "it is removed": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, core := homes(localVolume("pv", in("topology.example.com/node", "b")), machine("b", corev1.ConditionUnknown))
				began := time.Now()
				core.PrependReactor("get", "nodes", func(k8stesting.Action) (bool, runtime.Object, error) {
					if name == "it is removed" {
						return true, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, "b")
					}
					state := corev1.ConditionUnknown
					if back && time.Since(began) > comesBack/2 {
						state = corev1.ConditionTrue
					}
					return true, machine("b", state), nil
				})
				lists := 0
				core.PrependReactor("list", "nodes", func(k8stesting.Action) (bool, runtime.Object, error) {
					lists++
					return false, nil, nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), defaultReadyTime)
				defer cancel()
				ctx, stop := v.atHome(ctx, capture.Claim{Volume: "pv"})
				defer stop()
				<-ctx.Done()
				err := because(ctx, ctx.Err())
				if waited := time.Since(began); errors.Is(err, ErrNodeLost) == back || back != (waited == defaultReadyTime) || !back && waited > 3*comesBack {
					t.Errorf("after %s: %v", waited, err) // the bubble's clock
				}
				if lists > 1 {
					t.Errorf("all nodes were asked for %d times", lists)
				}
			})
		})
	}
}

// TestAClaimWithoutClassCannotBeReadFromItsCut: nothing would make a volume of the snapshot.
func TestAClaimWithoutClassCannotBeReadFromItsCut(t *testing.T) {
	pv := localVolume("pv", nil)
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}
	of := class("snap", "d", false)
	of.SetAPIVersion(storageAPI + "/v1")
	of.SetKind("VolumeSnapshotClass")
	v, _ := homes(pv)
	v.app.Dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{classes: "VolumeSnapshotClassList"}, &of)
	for _, tt := range []struct {
		class  string
		mode   capture.Mode
		method string
	}{
		{"fast", capture.ModeSnapshot, capture.MethodSnapshot},
		{"", capture.ModeSnapshot, ""},
		{"", capture.ModeSnapshotOrLive, capture.MethodLive},
	} {
		plan, err := v.Plan(t.Context(), capture.Claim{Namespace: "shop", Name: "data", Volume: "pv", StorageClass: tt.class}, capture.VolumeOptions{Mode: tt.mode})
		if plan.Method != tt.method || errors.Is(err, ErrNoSnapshots) != (tt.method == "") {
			t.Errorf("class %q, %s: by %q, %v", tt.class, tt.mode, plan.Method, err)
		}
	}
}

// TestANodeThatIsBackIsNotRefused by what was known of it a moment ago.
func TestANodeThatIsBackIsNotRefused(t *testing.T) {
	pv := localVolume("pv", &corev1.NodeSelectorRequirement{Key: "topology.example.com/node", Operator: corev1.NodeSelectorOpIn, Values: []string{"b"}})
	v, core := homes(machine("b", corev1.ConditionUnknown))
	if err := v.home(t.Context(), pv); !errors.Is(err, ErrNodeLost) {
		t.Fatal(err)
	}
	if err := core.Tracker().Update(schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, machine("b", corev1.ConditionTrue), ""); err != nil {
		t.Fatal(err)
	}
	if err := v.home(t.Context(), pv); err != nil {
		t.Error(err)
	}
}

func TestNodesAreAskedForOnceAndOnlyByThoseWhoMay(t *testing.T) {
	at := &corev1.NodeSelectorRequirement{Key: "zone", Operator: corev1.NodeSelectorOpExists}
	v, core := homes(machine("a", corev1.ConditionTrue))
	for range 3 {
		if got, err := v.only(t.Context(), localVolume("pv", at)); err != nil || got != "a" {
			t.Fatalf("got %q: %v", got, err)
		}
	}
	if asked := len(core.Actions()); asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	closed, core := homes(localVolume("pv", at), machine("a", corev1.ConditionTrue))
	core.PrependReactor("list", "nodes", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "", nil)
	})
	got, err := closed.beside(t.Context(), capture.Claim{Volume: "pv"})
	if err != nil || got.Affinity != nil {
		t.Errorf("read at %+v: %v", got, err)
	}
	if _, err := closed.beside(t.Context(), capture.Claim{Volume: "removed"}); err != nil {
		t.Errorf("of a volume that is gone: %v", err)
	}
}

func TestAGroupOfOneNodeIsLabelledForItsSnapshotter(t *testing.T) {
	plans := groupPlans()
	gv := schema.GroupVersion{Group: groupAPI, Version: "v1"}
	if got, marked := groupContent(gv, "g", map[string]string{}, plans).GetLabels()[managedByNode]; marked {
		t.Errorf("a group of no node is labelled %q", got)
	}
	everywhere := groupName(plans[0])
	plans[0].Node = "b"
	content := groupContent(gv, "g", map[string]string{}, plans)
	if content.GetLabels()[managedByNode] != "b" || content.GetName() == everywhere {
		t.Errorf("the group is %s with labels %v", content.GetName(), content.GetLabels())
	}
	plans[0].Node = strings.Repeat("b", 64) // more than a label may have
	content = groupContent(gv, "g", map[string]string{}, plans)
	if _, marked := content.GetLabels()[managedByNode]; marked || content.GetName() == everywhere {
		t.Errorf("a group of a node with a long name is %s with labels %v", content.GetName(), content.GetLabels())
	}
}
