package source

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	discoveryfake "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	k8stesting "k8s.io/client-go/testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// A content outlives the volumes that were made of it: by it alone they are found.
func TestAContentWaitsForItsVolumes(t *testing.T) {
	const node, cut = "lost", "davit-0123456789abcdef0123"
	content := document("VolumeSnapshotContent", "", "content", "p", map[string]any{"volumeSnapshotRef": map[string]any{"name": cut, "namespace": "shop"}})
	content.SetFinalizers([]string{"bound"})
	pv := localVolume("disk", &corev1.NodeSelectorRequirement{Key: "node", Operator: corev1.NodeSelectorOpIn, Values: []string{node}})
	pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: v1alpha1.SystemNamespace, Name: secondClaim(cut)}
	pv.Status.Phase = corev1.VolumeBound
	c := &kube.Clients{
		Kubernetes: fake.NewClientset(pv),
		Dynamic:    dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{contents: "VolumeSnapshotContentList"}, content),
	}
	v := NewVolumes(c, c, nil, VolumeOptions{})
	held := func() bool {
		t.Helper()
		if err := v.letGo(t.Context(), contents, content, node); err != nil {
			t.Fatal(err)
		}
		o, err := c.Dynamic.Resource(contents).Get(t.Context(), "content", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(o.GetFinalizers()) > 0
	}
	if !held() {
		t.Error("a content went before the claim of a volume of it did")
	}
	pv.Status.Phase = corev1.VolumeReleased
	if _, err := c.Kubernetes.CoreV1().PersistentVolumes().UpdateStatus(t.Context(), pv, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if held() {
		t.Error("a content stays for nothing")
	}
	if all, err := c.Kubernetes.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{}); err != nil || len(all.Items) > 0 {
		t.Errorf("%d volumes are left, %v", len(all.Items), err)
	}
}

// A provisioner that is done with a snapshot, and left its mark on it, keeps it no longer. The controls are what somebody
// still waits for, or has no part in.
func TestAForgottenSnapshotGoes(t *testing.T) {
	now := time.Date(2026, 11, 29, 18, 0, 0, 0, time.UTC)
	for what, tt := range map[string]struct {
		asked      time.Duration // since when
		finalizers []string
		labels     map[string]string
		claim      corev1.PersistentVolumeClaimPhase
		goes       bool
	}{
		"forgotten":                        {goneAfter, []string{sourceProtection}, labelsOf("p"), "", true},
		"kept for the next capture once":   {goneAfter, []string{sourceProtection}, map[string]string{v1alpha1.LabelManagedBy: managedBy, LabelBaseOf: "shop"}, "", true},
		"the claim is there":               {goneAfter, []string{sourceProtection}, labelsOf("p"), corev1.ClaimBound, true},
		"the claim is being made":          {goneAfter, []string{sourceProtection}, labelsOf("p"), corev1.ClaimPending, false},
		"just now":                         {goneAfter - time.Second, []string{sourceProtection}, labelsOf("p"), "", false},
		"its controller is at work":        {goneAfter, []string{"snapshot.storage.kubernetes.io/volumesnapshot-bound-protection", sourceProtection}, labelsOf("p"), "", false},
		"somebody else's":                  {goneAfter, []string{sourceProtection}, nil, "", false},
		"nobody has asked for it to go":    {-1, []string{sourceProtection}, labelsOf("p"), "", false},
		"its controller alone is at work":  {goneAfter, []string{"snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"}, labelsOf("p"), "", false},
		"a claim of another is being made": {goneAfter, []string{sourceProtection}, labelsOf("p"), "other", true},
	} {
		t.Run(what, func(t *testing.T) {
			snap := document("VolumeSnapshot", "shop", "davit-0123456789abcdef0123", "p", nil)
			snap.SetLabels(tt.labels)
			snap.SetFinalizers(tt.finalizers)
			if tt.asked >= 0 {
				snap.SetDeletionTimestamp(&metav1.Time{Time: now.Add(-tt.asked)})
			}
			core := fake.NewClientset()
			if tt.claim != "" {
				claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "copy"}}
				claim.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: snap.GetName()}
				if claim.Status.Phase = tt.claim; tt.claim == "other" {
					claim.Spec.DataSource.Name, claim.Status.Phase = "other", corev1.ClaimPending
				}
				core = fake.NewClientset(claim)
			}
			c := &kube.Clients{Kubernetes: core, Discovery: &discoveryfake.FakeDiscovery{Fake: &k8stesting.Fake{}}, Dynamic: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{snapshots: "VolumeSnapshotList", contents: "VolumeSnapshotContentList"}, snap)}
			v := NewVolumes(c, c, nil, VolumeOptions{Now: func() time.Time { return now }})
			if err := v.Sweep(t.Context(), func(string) bool { return true }); err != nil {
				t.Fatal(err)
			}
			got, err := c.Dynamic.Resource(snapshots).Namespace("shop").Get(t.Context(), snap.GetName(), metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if f := got.GetFinalizers(); (len(f) == 0) != tt.goes {
				t.Errorf("marks %v", f)
			}
		})
	}
}

// Somebody else's group names no snapshot to ask for: the client would refuse that.
func TestAForeignGroupIsPassedOver(t *testing.T) {
	nowhere, err := dynamic.NewForConfig(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	v := &Volumes{app: &kube.Clients{Dynamic: nowhere}}
	group := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"volumeGroupSnapshotRef": map[string]any{"name": "theirs", "namespace": "shop"}}}}
	if ours, err := v.ownContent(t.Context(), group); ours || err != nil {
		t.Errorf("%v, %v", ours, err)
	}
}

// A volume that was there before, and that a scratch claim was given, is somebody's: it is
// kept, whatever its policy says. One that was made for the claim goes with it.
func TestOnlyWhatWasMadeForAClaimGoesWithIt(t *testing.T) {
	for _, was := range []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimRetain, corev1.PersistentVolumeReclaimDelete} {
		for _, found := range []bool{false, true} {
			pv := localVolume("disk", nil)
			pv.CreationTimestamp = metav1.Unix(3, 0)
			pv.Spec.PersistentVolumeReclaimPolicy = was
			want := corev1.PersistentVolumeReclaimDelete
			if found {
				pv.Annotations = map[string]string{"pv.kubernetes.io/bound-by-controller": "yes"}
				pv.CreationTimestamp = metav1.Unix(1, 0)
				want = corev1.PersistentVolumeReclaimRetain
			}
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "scratch", Labels: labelsOf("p"), CreationTimestamp: metav1.Unix(2, 0)}}
			claim.Spec.VolumeName = pv.Name
			c := &kube.Clients{Kubernetes: fake.NewClientset(pv, claim)}
			if err := NewVolumes(c, c, nil, VolumeOptions{}).removeClaim(t.Context(), claim.Name); err != nil {
				t.Fatal(err)
			}
			got, err := c.Kubernetes.CoreV1().PersistentVolumes().Get(t.Context(), pv.Name, metav1.GetOptions{})
			if err != nil || got.Spec.PersistentVolumeReclaimPolicy != want {
				t.Errorf("%s, there before: %t: its claim goes and it is %s, %v", was, found, got.Spec.PersistentVolumeReclaimPolicy, err)
			}
		}
	}
}

// What was read of a volume that was there before is not the cut.
func TestWhatWasNotMadeIsNotTheCut(t *testing.T) {
	for _, name := range []string{"cut", secondClaim("cut")} {
		for _, found := range []bool{false, true} {
			pv := localVolume("disk", nil)
			pv.CreationTimestamp = metav1.Unix(3, 0)
			if found {
				pv.Annotations = map[string]string{"pv.kubernetes.io/bound-by-controller": "yes"}
				pv.CreationTimestamp = metav1.Unix(1, 0)
			}
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name, CreationTimestamp: metav1.Unix(2, 0)}}
			claim.Spec.VolumeName = pv.Name
			c := &kube.Clients{Kubernetes: fake.NewClientset(pv, claim)}
			err := NewVolumes(c, c, nil, VolumeOptions{}).wasMade(t.Context(), claims(capture.Cut{Handle: "cut"})...)
			if errors.Is(err, errNotMade) != found || !found && err != nil {
				t.Errorf("claim %s, its volume there before: %t: %v", name, found, err)
			}
		}
	}
}
