package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/point"
)

// reads is a Reader that fails with the errors in turn, and then reads.
type reads struct {
	fails  []error
	claims []string // that were read
}

func (r *reads) Read(_ context.Context, req mover.Request) (mover.Result, error) {
	r.claims = append(r.claims, req.Claim)
	if n := len(r.claims); n <= len(r.fails) {
		return mover.Result{}, r.fails[n-1]
	}
	return mover.Result{}, nil
}

// readyVolumes cuts and reads volumes of a driver whose snapshots are ready at once.
func readyVolumes(r Reader) (*Volumes, *fake.Clientset) {
	kinds := map[schema.GroupVersionResource]string{snapshots: "VolumeSnapshotList", contents: "VolumeSnapshotContentList"}
	objects := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds)
	objects.PrependReactor("get", "volumesnapshots", func(a k8stesting.Action) (bool, runtime.Object, error) {
		o := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"readyToUse": true, "boundVolumeSnapshotContentName": "content"}}}
		o.SetName(a.(k8stesting.GetAction).GetName())
		return true, o, nil
	})
	objects.PrependReactor("get", "volumesnapshotcontents", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"snapshotHandle": "snap-1", "restoreSize": int64(7)}}}, nil
	})
	core := fake.NewClientset()
	clients := &kube.Clients{Kubernetes: core, Dynamic: objects}
	return NewVolumes(clients, clients, r, VolumeOptions{Vault: "v", Site: "east"}), core
}

// TestACutOutlivesTheNodeThatReadIt: a node is lost between cut and upload. The
// cut may be all that is left of what it ran.
func TestACutOutlivesTheNodeThatReadIt(t *testing.T) {
	lost := fmt.Errorf("read volume: %w: node n1 is lost", mover.ErrElsewhere)
	other := errors.New("disk on fire")
	plan := capture.VolumePlan{
		Method: capture.MethodSnapshot, Driver: "d", Class: "c",
		Claim:   capture.Claim{Namespace: "shop", Name: "data", Capacity: 5, StorageClass: "fast"},
		Options: capture.VolumeOptions{Application: "shop", Point: "shop-1"},
	}
	first := name(plan)
	for what, tt := range map[string]struct {
		fails []error
		reads string // claims, in order
		says  []string
	}{
		"no node is lost":           {nil, first, nil},
		"another node reads it":     {[]error{lost}, first + " " + first + "-again", nil},
		"another cannot have it":    {[]error{lost, other}, first + " " + first + "-again", []string{"node n1 is lost", "on another node: disk on fire"}},
		"the second is lost, too":   {[]error{lost, lost}, first + " " + first + "-again", []string{"node n1 is lost"}},
		"it failed on a node alive": {[]error{other}, first, []string{"disk on fire"}},
	} {
		t.Run(what, func(t *testing.T) {
			r := &reads{fails: tt.fails}
			v, core := readyVolumes(r)
			got, err := v.Read(t.Context(), capture.Cut{Plan: plan, Handle: first}, nil, nil)
			if (err != nil) != (len(tt.says) > 0) || strings.Join(r.claims, " ") != tt.reads {
				t.Fatalf("read %q: %v", r.claims, err)
			}
			for _, text := range tt.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
			if warned := strings.Join(got.Warnings, ""); err == nil && strings.Contains(warned, "n1 is lost") != (len(tt.fails) > 0) {
				t.Errorf("warnings: %q", warned)
			}
			claims := core.CoreV1().PersistentVolumeClaims(v1alpha1.SystemNamespace)
			for _, claim := range r.claims {
				made, err := claims.Get(t.Context(), claim, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				size := made.Spec.Resources.Requests[corev1.ResourceStorage]
				if made.Spec.DataSource.Name != first || size.Value() != 7 || *made.Spec.StorageClassName != "fast" {
					t.Errorf("claim %s is %+v", claim, made.Spec)
				}
			}
			if err := v.remove(t.Context(), v1alpha1.SystemNamespace, first); err != nil {
				t.Fatal(err)
			}
			for _, claim := range r.claims {
				if _, err := claims.Get(t.Context(), claim, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
					t.Errorf("claim %s is left: %v", claim, err)
				}
			}
		})
	}
}

// believing reads as a node process does: it says what it was told of the storage. Its first node is lost after
// it had found the storage to lie.
type believing struct{ asked []*point.Snapshot }

func (b *believing) Read(_ context.Context, req mover.Request) (mover.Result, error) {
	b.asked = append(b.asked, req.Previous)
	if len(b.asked) == 1 {
		return mover.Result{}, &mover.LiedError{Lie: "db", Err: fmt.Errorf("%w: node n1 is lost", mover.ErrElsewhere)}
	}
	return mover.Result{Snapshot: point.Snapshot{ID: "new", Blocks: req.Previous.Blocks}}, nil
}

// TestTheSecondNodeIsToldWhatTheFirstFound: else it asks the storage again, and stores what that says.
func TestTheSecondNodeIsToldWhatTheFirstFound(t *testing.T) {
	plan := capture.VolumePlan{
		Method: capture.MethodSnapshot, Driver: "d", Class: "c",
		Claim:   capture.Claim{Namespace: "shop", Name: "data", Capacity: 5, StorageClass: "fast"},
		Options: capture.VolumeOptions{Application: "shop", Point: "shop-1"},
	}
	r := &believing{}
	v, _ := readyVolumes(r)
	before := &point.Snapshot{ID: "old", Blocks: &point.Blocks{Base: true, Compared: time.Unix(1, 0)}}
	got, err := v.Read(t.Context(), capture.Cut{Plan: plan, Handle: name(plan)}, before, nil)
	if err != nil || len(r.asked) != 2 || r.asked[0] != before || before.Blocks.Distrusted != "" {
		t.Fatalf("read by %+v: %v", r.asked, err)
	}
	if told := r.asked[1]; told.ID != "old" || told.Blocks.Distrusted != "db" || !told.Blocks.Compared.Equal(time.Unix(1, 0)) {
		t.Errorf("the second is told %+v, %+v", told, told.Blocks)
	}
	if b := got.Snapshot.Blocks; b.Distrusted != "db" || !b.Compared.Equal(time.Unix(1, 0)) {
		t.Errorf("stored is %+v", b)
	}
}
