package source

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	discoveryfake "k8s.io/client-go/discovery/fake"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

var keptGroups = schema.GroupVersionResource{Group: groupAPI, Version: "v1", Resource: "volumegroupsnapshotcontents"}

// keepers is a cluster with what captures have made.
func keepers(t *testing.T, objects ...runtime.Object) (*Volumes, func() []string) {
	t.Helper()
	kinds := map[schema.GroupVersionResource]string{
		snapshots: "VolumeSnapshotList", contents: "VolumeSnapshotContentList", keptGroups: "VolumeGroupSnapshotContentList",
	}
	served := &k8stesting.Fake{Resources: []*metav1.APIResourceList{{
		GroupVersion: keptGroups.GroupVersion().String(), APIResources: []metav1.APIResource{{Name: keptGroups.Resource}},
	}}}
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, objects...)
	clients := &kube.Clients{Dynamic: client, Discovery: &discoveryfake.FakeDiscovery{Fake: served}, Kubernetes: fake.NewClientset()}
	v := NewVolumes(clients, clients, nil, VolumeOptions{Vault: "v", Site: "east", Now: func() time.Time { return time.Unix(1e6, 0) }})
	return v, func() []string {
		t.Helper()
		var left []string
		for _, gvr := range []schema.GroupVersionResource{snapshots, contents, keptGroups} {
			list, err := client.Resource(gvr).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range list.Items {
				left = append(left, list.Items[i].GetKind()+" "+strings.TrimPrefix(list.Items[i].GetNamespace()+"/", "/")+list.Items[i].GetName())
			}
		}
		slices.Sort(left)
		return left
	}
}

func snapshotOf(plan capture.VolumePlan, namespace string) *unstructured.Unstructured {
	return document("VolumeSnapshot", namespace, name(plan), plan.Options.Point, map[string]any{})
}

func planOf(application, point, claim string) capture.VolumePlan {
	return capture.VolumePlan{
		Claim: capture.Claim{Namespace: "shop", Name: claim}, Driver: "d", Handle: "vol-" + claim, Method: capture.MethodSnapshot,
		Options: capture.VolumeOptions{Application: application, Point: point},
	}
}

// TestAKeptCutStaysUntilTheNextOne: of a capture that keeps its cuts the snapshots of the
// driver stay, and nothing else; the sweep of dead captures leaves them, and the next point's take their place.
func TestAKeptCutStaysUntilTheNextOne(t *testing.T) {
	one, two, other := planOf("shop", "shop-1", "data"), planOf("shop", "shop-2", "data"), planOf("all", "all-1", "data")
	twin := document("VolumeSnapshotContent", "", name(one), "shop-1", map[string]any{})
	v, left := keepers(t, snapshotOf(one, "shop"), snapshotOf(one, v1alpha1.SystemNamespace), twin, snapshotOf(two, "shop"), snapshotOf(other, "shop"))
	for _, p := range []capture.VolumePlan{one, two, other} {
		p.Keep = true
		if err := v.Release(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"VolumeSnapshot shop/" + name(one), "VolumeSnapshot shop/" + name(other), "VolumeSnapshot shop/" + name(two)}
	slices.Sort(want)
	if got := left(); !slices.Equal(got, want) {
		t.Fatalf("left are %v, want %v", got, want)
	}
	if err := v.Sweep(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if got := left(); !slices.Equal(got, want) {
		t.Fatalf("after the sweep of dead captures: %v", got)
	}
	if err := v.LetGo(t.Context(), "shop", "shop-2", true); err != nil {
		t.Fatal(err)
	}
	want = slices.DeleteFunc(want, func(s string) bool { return strings.HasSuffix(s, name(one)) })
	if got := left(); !slices.Equal(got, want) {
		t.Fatalf("after the next point: %v, want %v", got, want)
	}
	if err := v.LetGo(t.Context(), "shop", "shop-2", false); err != nil {
		t.Fatal(err)
	}
	if got := left(); !slices.Equal(got, []string{"VolumeSnapshot shop/" + name(other)}) {
		t.Fatalf("after that point was taken back: %v", got)
	}
	if err := v.SweepKept(t.Context(), time.Hour, func(label string) bool { return label != "all" }); err != nil {
		t.Fatal(err)
	}
	if got := left(); len(got) > 0 {
		t.Fatalf("of an application that keeps nothing is left: %v", got)
	}
}

// TestAKeptGroupStaysWhole, and goes so; what is old goes whoever wants it.
func TestAKeptGroupStaysWhole(t *testing.T) {
	plan := planOf("shop", "shop-1", "data")
	plan.Group, plan.Keep = "g", true
	group := document("VolumeGroupSnapshotContent", "", groupName(plan), "shop-1", map[string]any{})
	group.SetAPIVersion(keptGroups.GroupVersion().String())
	const most = time.Hour
	group.SetCreationTimestamp(metav1.Unix(1e6-int64(most/time.Second)+60, 0))
	v, left := keepers(t, group)
	if err := v.Release(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	wanted := func(string) bool { return true }
	if err := v.SweepKept(t.Context(), most, wanted); err != nil {
		t.Fatal(err)
	}
	if got := left(); len(got) != 1 {
		t.Fatalf("left are %v", got)
	}
	v.opts.Now = func() time.Time { return time.Unix(1e6+120, 0) }
	if err := v.SweepKept(t.Context(), most, wanted); err != nil {
		t.Fatal(err)
	}
	if got := left(); len(got) > 0 {
		t.Fatalf("after %s: %v", most, got)
	}
}

// TestAGroupThatWasTriedInVainIsNotKept: its volumes were cut one by one then, and of the group the
// storage may hold a snapshot that nobody would find any more.
func TestAGroupThatWasTriedInVainIsNotKept(t *testing.T) {
	plan := planOf("shop", "shop-1", "data")
	plan.Group, plan.Keep = "g", true
	group := document("VolumeGroupSnapshotContent", "", groupName(plan), "shop-1", map[string]any{})
	group.SetAPIVersion(keptGroups.GroupVersion().String())
	v, left := keepers(t, group, snapshotOf(plan, "shop"))
	if err := v.Release(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if got := left(); !slices.Equal(got, []string{"VolumeSnapshot shop/" + name(plan)}) {
		t.Errorf("left are %v", got)
	}
}

// TestAKeptCutGoesWithItsNamespace, whatever its class keeps, and is told from other people's when it waits for
// the driver of a node that is gone.
func TestAKeptCutGoesWithItsNamespace(t *testing.T) {
	plan := planOf("shop", "shop-1", "data")
	plan.Keep = true
	snap := snapshotOf(plan, "shop")
	snap.SetUID("u")
	if err := unstructured.SetNestedField(snap.Object, "snapcontent-u", "status", "boundVolumeSnapshotContentName"); err != nil {
		t.Fatal(err)
	}
	content := document("VolumeSnapshotContent", "", "snapcontent-u", "", map[string]any{
		"deletionPolicy": "Retain", "volumeSnapshotRef": map[string]any{"name": name(plan), "namespace": "shop", "uid": "u"},
	})
	content.SetLabels(nil)
	v, _ := keepers(t, snap, content)
	if err := v.Release(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	got, err := v.system.Dynamic.Resource(contents).Get(t.Context(), "snapcontent-u", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if policy, _, _ := unstructured.NestedString(got.Object, "spec", "deletionPolicy"); policy != policyDelete {
		t.Errorf("the storage would keep its snapshot: %s", policy)
	}
	if own, err := v.ownContent(t.Context(), content); !own || err != nil {
		t.Errorf("a kept cut is not known as one: %v, %v", own, err)
	}
	group := document("VolumeGroupSnapshotContent", "", "g", "", map[string]any{})
	group.SetLabels(map[string]string{v1alpha1.LabelManagedBy: managedBy, LabelBaseOf: "shop"})
	if !ofCapture(group) {
		t.Error("a kept group is not known as one")
	}
}

// TestOnlyOfWhatIsReadAsItWasCutADriverIsAsked.
func TestOnlyOfWhatIsReadAsItWasCutADriverIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		claim, volume, snapshot int64
		option                  string
		fits                    bool
	}{
		"all of one size":            {1 << 30, 1 << 30, 1 << 30, "", true},
		"a snapshot of unknown size": {1 << 30, 1 << 30, 0, "noatime", true},
		"the volume grows":           {1 << 30, 2 << 30, 1 << 30, "", false},
		"the snapshot is larger":     {1 << 30, 1 << 30, 2 << 30, "", false},
		"data in the journal":        {1 << 30, 1 << 30, 1 << 30, "noatime,data=journal", false},
	} {
		pv := localVolume("disk", nil)
		pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(c.volume, resource.BinarySI)}
		if c.option != "" {
			pv.Spec.MountOptions = []string{c.option}
		}
		v, _ := keepers(t)
		v.app.Kubernetes = fake.NewClientset(pv)
		plan := planOf("shop", "shop-1", "data")
		plan.Claim.Volume, plan.Claim.Capacity = "disk", c.claim
		got, err := v.blocks(t.Context(), capture.Cut{Plan: plan, Handle: "davit-x"}, made{handle: "snap-1", size: c.snapshot})
		if (err == nil) != c.fits || c.fits && *got != (v1alpha1.VolumeBlocks{Driver: "d", Volume: "vol-data", Snapshot: "snap-1", Name: "davit-x", Capacity: c.claim}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
