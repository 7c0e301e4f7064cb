package application

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/protection"
)

func nodeOf(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)}}
}

func saysOf(node *corev1.Node, at time.Time, apps ...v1alpha1.FencedApplication) *v1alpha1.NodeFence {
	seen := metav1.NewTime(at)
	return &v1alpha1.NodeFence{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: node.Name, OwnerReferences: []metav1.OwnerReference{{Kind: "Node", Name: node.Name, UID: node.UID}}},
		Status:     v1alpha1.NodeFenceStatus{ObservedAt: &seen, Applications: apps},
	}
}

// TestAFenceIsProvenByEveryNodeAlone: each report but the good one leaves it at
// asked, and says why.
func TestAFenceIsProvenByEveryNodeAlone(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good := v1alpha1.FencedApplication{Application: "shop", Epoch: 2, Proven: true}
	one, two := nodeOf("one"), nodeOf("two")
	with := func(change func(*v1alpha1.NodeFence)) *v1alpha1.NodeFence {
		r := saysOf(two, now, good)
		change(r)
		return r
	}
	for name, tt := range map[string]struct {
		report *v1alpha1.NodeFence
		want   string // in the message; empty: proven
	}{
		"proven":              {saysOf(two, now, good), ""},
		"a later epoch":       {saysOf(two, now, v1alpha1.FencedApplication{Application: "shop", Epoch: 3, Proven: true}), ""},
		"nothing":             {nil, "node two: says nothing"},
		"long ago":            {saysOf(two, now.Add(-2*time.Minute), good), "has said nothing since"},
		"of another node":     {with(func(r *v1alpha1.NodeFence) { r.OwnerReferences[0].UID = "x" }), "an earlier node of this name"},
		"it cannot":           {with(func(r *v1alpha1.NodeFence) { r.Status.Problem = "no runtime" }), "node two: no runtime"},
		"an older epoch":      {saysOf(two, now, v1alpha1.FencedApplication{Application: "shop", Epoch: 1, Proven: true}), "has not heard of the epoch"},
		"of another":          {saysOf(two, now, v1alpha1.FencedApplication{Application: "bank", Epoch: 2, Proven: true}), "has not heard of the epoch"},
		"still running":       {saysOf(two, now, v1alpha1.FencedApplication{Application: "shop", Epoch: 2, Running: 3}), "node two: 3 containers still run"},
		"one of each":         {saysOf(two, now, v1alpha1.FencedApplication{Application: "shop", Epoch: 2, Running: 1, Open: 1}), "1 container still runs, 1 pod is not cut off"},
		"only open":           {saysOf(two, now, v1alpha1.FencedApplication{Application: "shop", Epoch: 2, Open: 2}), "node two: 2 pods are not cut off"},
		"not looked again":    {saysOf(two, now, v1alpha1.FencedApplication{Application: "shop", Epoch: 2}), "node two: runs nothing of it, and looks once more"},
		"with its own reason": {saysOf(two, now, v1alpha1.FencedApplication{Application: "shop", Epoch: 2, Problem: "pod x: busy"}), "pod x: busy"},
	} {
		objects := []client.Object{one, two, saysOf(one, now, good)}
		if tt.report != nil {
			objects = append(objects, tt.report)
		}
		c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).Build()
		r := &Reconciler{Client: c, Reader: c, Events: record.NewFakeRecorder(10), Site: "east"}
		s := &scope{app: &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"}}, now: now, standing: protection.Standing{Current: lease.Epoch{Number: 2}}}
		missing, err := r.unproven(t.Context(), s)
		r.level(s, missing, err, nil)
		got := s.app.Status.Fence
		switch {
		case tt.want == "" && (got.Level != v1alpha1.FenceProven || got.Message != ""):
			t.Errorf("%s: %+v, want proven", name, got)
		case tt.want != "" && (got.Level != v1alpha1.FenceAsked || !strings.Contains(got.Message, tt.want)):
			t.Errorf("%s: %+v, want asked: %s", name, got, tt.want)
		}
	}
}
