package source

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// stuck is what a capture left on a node's own disks, and what was told to go since:
// its cut in the application's namespace, the content of that, and a scratch volume.
type stuck struct {
	clients                *kube.Clients
	ns, cut, content, disk string
}

// newStuck leaves it on a node, as a capture's or, without labels, as somebody else's.
func newStuck(t *testing.T, clients *kube.Clients, ns, node, id string, ours bool) stuck {
	t.Helper()
	s := stuck{clients: clients, ns: ns, cut: name(capture.VolumePlan{Options: capture.VolumeOptions{Point: id}})}
	if !ours {
		s.cut = id
	}
	s.content, s.disk = s.cut+"-content", s.cut+"-disk"
	spec := map[string]any{
		"deletionPolicy": "Delete", "driver": "gone.example.com", "source": map[string]any{"snapshotHandle": id}, "volumeSnapshotClassName": "none",
		"volumeSnapshotRef": map[string]any{"kind": "VolumeSnapshot", "name": s.cut, "namespace": ns},
	}
	content := document("VolumeSnapshotContent", "", s.content, id, spec)
	cut := document("VolumeSnapshot", ns, s.cut, id, map[string]any{"volumeSnapshotClassName": "none", "source": map[string]any{"volumeSnapshotContentName": s.content}})
	if !ours {
		cut.SetLabels(nil)
	}
	cut.SetFinalizers([]string{"snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"})
	made, err := clients.Dynamic.Resource(snapshots).Namespace(ns).Create(t.Context(), cut, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// As the snapshot controller makes it: of Davit's it tells by the snapshot alone.
	content.SetLabels(map[string]string{managedByNode: node})
	content.SetFinalizers([]string{"snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"})
	if err := unstructured.SetNestedField(content.Object, string(made.GetUID()), "spec", "volumeSnapshotRef", "uid"); err != nil {
		t.Fatal(err)
	}
	if _, err := clients.Dynamic.Resource(contents).Create(t.Context(), content, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// Until it is bound, the controller lets the snapshot go.
	bound := []byte(`{"status":{"boundVolumeSnapshotContentName":"` + s.content + `","readyToUse":true}}`)
	if _, err := clients.Dynamic.Resource(snapshots).Namespace(ns).Patch(t.Context(), s.cut, types.MergePatchType, bound, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: s.disk, Finalizers: []string{"external-provisioner.volume.kubernetes.io/finalizer"}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain, StorageClassName: "none",
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "gone.example.com", VolumeHandle: id}},
			ClaimRef:               &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: v1alpha1.SystemNamespace, Name: s.cut, UID: uuid.NewUUID()},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "topology.gone.example.com/node", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}},
			}}},
		},
	}
	if _, err := clients.Kubernetes.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.clear)
	err = errors.Join(
		clients.Dynamic.Resource(snapshots).Namespace(ns).Delete(t.Context(), s.cut, metav1.DeleteOptions{}),
		clients.Dynamic.Resource(contents).Delete(t.Context(), s.content, metav1.DeleteOptions{}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// left is what is there of it.
func (s stuck) left(ctx context.Context) (left string) {
	_, err := s.clients.Dynamic.Resource(snapshots).Namespace(s.ns).Get(ctx, s.cut, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		left += "cut "
	}
	if _, err = s.clients.Dynamic.Resource(contents).Get(ctx, s.content, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		left += "content "
	}
	if _, err = s.clients.Kubernetes.CoreV1().PersistentVolumes().Get(ctx, s.disk, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		left += "disk "
	}
	return left
}

// clear takes away what the test left on purpose.
func (s stuck) clear() {
	ctx, free := context.Background(), []byte(`{"metadata":{"finalizers":null}}`)
	_ = s.clients.Kubernetes.CoreV1().PersistentVolumes().Delete(ctx, s.disk, metav1.DeleteOptions{})
	_, _ = s.clients.Kubernetes.CoreV1().PersistentVolumes().Patch(ctx, s.disk, types.MergePatchType, free, metav1.PatchOptions{})
	_, _ = s.clients.Dynamic.Resource(contents).Patch(ctx, s.content, types.MergePatchType, free, metav1.PatchOptions{})
	_, _ = s.clients.Dynamic.Resource(snapshots).Namespace(s.ns).Patch(ctx, s.cut, types.MergePatchType, free, metav1.PatchOptions{})
}

// TestBedNodeThatIsGoneHoldsNothing: what a capture left on the disks of a node that was
// taken out of the cluster goes, and does not hold the application's namespace. The
// controls: not while the node may come back, not of a node that is there, and not what is
// somebody else's.
func TestBedNodeThatIsGoneHoldsNothing(t *testing.T) {
	t.Parallel()
	clients := bedClients(t)
	ns := realNamespace(t, clients)
	nodes, err := clients.Kubernetes.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) == 0 {
		t.Fatal(err)
	}
	all := map[string]stuck{
		"ours":            newStuck(t, clients, ns, "gone-"+ns, "ours-"+ns, true),
		"of a node there": newStuck(t, clients, ns, nodes.Items[0].Name, "there-"+ns, true),
		"somebody else's": newStuck(t, clients, ns, "gone-"+ns, "other-"+ns, false),
	}
	nobody := func(string) bool { return true } // all captures are under way: they are not this test's
	sweep := func(after time.Duration) {
		t.Helper()
		v := NewVolumes(clients, clients, nil, VolumeOptions{Vault: "v", Site: "east", Now: func() time.Time { return time.Now().Add(after) }})
		if err := v.Sweep(t.Context(), nobody); err != nil {
			t.Fatal(err)
		}
	}
	const whole = "cut content disk "
	sweep(goneAfter - time.Minute)
	for what, s := range all {
		if got := s.left(t.Context()); got != whole {
			t.Errorf("%s: soon only %q is left", what, got)
		}
	}
	deadline := time.Now().Add(2 * time.Minute)
	// The snapshot controller lets the cut go. It may be at work on the content: then a later sweep takes that away.
	for sweep(goneAfter + time.Minute); all["ours"].left(t.Context()) != ""; sweep(goneAfter + time.Minute) {
		if time.Now().After(deadline) {
			t.Fatalf("%q is left of what is on a node that is gone", all["ours"].left(t.Context()))
		}
		time.Sleep(200 * time.Millisecond) // between looks
	}
	for what, s := range all {
		if got := s.left(t.Context()); what != "ours" && got != whole {
			t.Errorf("%s: only %q is left", what, got)
		}
	}
}
