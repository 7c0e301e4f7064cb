package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/quiesce"
)

// Images and classes of the test bed.
const (
	toolImage     = "davit.test/bedtool:1"
	snapshotClass = "reflink"
	storageClass  = "reflink"
	plainClass    = "local"
)

// bedClients opens a cluster that is a site of the test bed.
func bedClients(t *testing.T) *kube.Clients {
	t.Helper()
	if os.Getenv("DAVIT_TEST_BED") == "" {
		t.Skip("needs a site of the test bed: set DAVIT_TEST_BED=1 and DAVIT_TEST_KUBECONFIG")
	}
	clients := realClients(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SystemNamespace}}
	if _, err := clients.Kubernetes.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return clients
}

// runPod starts a pod with the claim at /data and waits until it runs.
func runPod(t *testing.T, clients *kube.Clients, ns, name, claim, script string) *corev1.Pod {
	t.Helper()
	api := clients.Kubernetes.CoreV1().Pods(ns)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []corev1.Container{{
				Name: "tool", Image: toolImage, Command: []string{"sh", "-c", script},
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
			}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}},
		},
	}
	if _, err := api.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		pod, err := api.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if pod.Status.Phase == corev1.PodRunning {
			return pod
		}
		w, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: pod.ResourceVersion})
		if err != nil {
			t.Fatalf("pod %s is %s: %v", name, pod.Status.Phase, err)
		}
		<-w.ResultChan()
		w.Stop()
	}
}

func makeClaim(t *testing.T, clients *kube.Clients, ns, name, class string) {
	t.Helper()
	pvc := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To(class),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("64Mi")}},
		},
	}
	if _, err := clients.Kubernetes.CoreV1().PersistentVolumeClaims(ns).Create(t.Context(), pvc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// podReader reads a scratch claim by a pod that mounts it, in the mover's place.
type podReader struct {
	t       *testing.T
	clients *kube.Clients
	got     map[string]string // content of /data/log by source
	seen    []mover.Request
}

func (r *podReader) Read(ctx context.Context, req mover.Request) (mover.Result, error) {
	r.seen = append(r.seen, req)
	if req.Live {
		return mover.Result{Snapshot: point.Snapshot{ID: "live"}}, nil
	}
	pod := runPod(r.t, r.clients, req.Namespace, "reader-"+req.Claim, req.Claim, "sleep 3600")
	defer func() {
		err := r.clients.Kubernetes.CoreV1().Pods(req.Namespace).Delete(context.WithoutCancel(ctx), pod.Name, metav1.DeleteOptions{})
		if err != nil {
			r.t.Error(err)
		}
	}()
	out, err := quiescer.New(r.clients).Exec(ctx, quiesce.Target{Namespace: req.Namespace, Pod: pod.Name, Container: "tool"}, []string{"cat", "/data/log"})
	if err != nil {
		return mover.Result{}, err
	}
	r.got[req.Source] = out
	return mover.Result{Snapshot: point.Snapshot{ID: "snap", Bytes: int64(len(out))}}, nil
}

type listSink struct{ t *testing.T }

func (s listSink) Resource(res point.Resource) capture.ObjectWriter { return &listWriter{res: res} }

type listWriter struct{ res point.Resource }

func (w *listWriter) Add(context.Context, []byte) error { w.res.Count++; return nil }

func (w *listWriter) Close(context.Context) (point.Resource, error) { return w.res, nil }

// TestBedCapture captures a namespace whose pod writes without pause, with
// hooks, by CSI snapshots on the real driver, each by itself and all by one
// group snapshot, and looks at what was cut.
func TestBedCapture(t *testing.T) {
	t.Parallel()
	for method, class := range map[string]string{capture.MethodSnapshot: snapshotClass, capture.MethodGroup: ""} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			bedCapture(t, class, method)
		})
	}
}

func bedCapture(t *testing.T, class, method string) {
	clients := bedClients(t)
	ns := realNamespace(t, clients)
	makeClaim(t, clients, ns, "data", storageClass)
	makeClaim(t, clients, ns, "files", storageClass)
	runPod(t, clients, ns, "writer", "data", `i=0; while true; do [ -e /data/hold ] || { i=$((i+1)); echo $i >> /data/log; }; sleep 0.05; done`)
	runPod(t, clients, ns, "other", "files", `echo whole > /data/log; sync; sleep 3600`)
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	reader := &podReader{t: t, clients: clients, got: map[string]string{}}
	volumes := NewVolumes(clients, clients, reader, VolumeOptions{Vault: "v", Site: "east"})
	spec := capture.Spec{
		Application: "bed", ID: "bed-" + ns, Namespaces: []string{ns}, Mode: capture.ModeSnapshot, SnapshotClass: class,
		Hooks: []quiesce.Hook{{
			Name: "hold", Pods: labels.SelectorFromSet(labels.Set{"app": "writer"}),
			Before: &quiesce.Action{Command: []string{"sh", "-c", "touch /data/hold; sleep 0.2; echo before >> /data/log; sync"}},
			After:  &quiesce.Action{Command: []string{"rm", "/data/hold"}},
		}},
	}
	started := time.Now()
	res, err := capture.Run(t.Context(), spec, capture.Ports{Cluster: cluster, Volumes: volumes, Hooks: quiescer.New(clients), Sink: listSink{t}}, capture.Options{VolumeWorkers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("captured %d objects and %d volumes in %s; cut within %s; warnings %v", res.Objects, len(res.Volumes), time.Since(started), res.CutBy.Sub(res.Instant), res.Warnings)
	if res.Consistency != point.PerVolume || len(res.Volumes) != 2 || len(res.Hooks) != 2 {
		t.Errorf("consistency %s, volumes %+v, hooks %+v", res.Consistency, res.Volumes, res.Hooks)
	}
	for _, v := range res.Volumes {
		if v.Method != method {
			t.Errorf("claim %s was captured by %s, want %s", v.Claim, v.Method, method)
		}
	}
	checkLog(t, reader.got["bed/"+ns+"/data"])
	if got := reader.got["bed/"+ns+"/files"]; got != "whole\n" {
		t.Errorf("second volume holds %q", got)
	}
	checkReleased(t, clients, ns, spec.ID)
}

// checkLog wants every number from 1 in order, and last what the hook wrote.
func checkLog(t *testing.T, log string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
	if len(lines) < 2 || lines[len(lines)-1] != "before" {
		t.Errorf("the cut ends with %q, not with what the before-hook wrote", lines[len(lines)-1])
	}
}

// checkReleased waits until nothing of the capture is left.
func checkReleased(t *testing.T, clients *kube.Clients, ns, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	selector := metav1.ListOptions{LabelSelector: v1alpha1.LabelPoint + "=" + PointLabel(id)}
	for {
		left := 0
		for _, gvr := range []struct{ ns string }{{ns}, {v1alpha1.SystemNamespace}} {
			list, err := clients.Dynamic.Resource(snapshots).Namespace(gvr.ns).List(ctx, selector)
			if err != nil {
				t.Fatalf("%d objects left: %v", left, err)
			}
			left += len(list.Items)
		}
		list, err := clients.Dynamic.Resource(contents).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			if of, _ := o.Object["spec"].(map[string]any)["volumeSnapshotRef"].(map[string]any); of["namespace"] == ns || o.GetLabels()[v1alpha1.LabelPoint] == PointLabel(id) {
				left++
			}
		}
		groups, err := clients.Dynamic.Resource(groupContents).List(ctx, selector)
		if err != nil {
			t.Fatal(err)
		}
		left += len(groups.Items)
		claims, err := clients.Kubernetes.CoreV1().PersistentVolumeClaims(v1alpha1.SystemNamespace).List(ctx, selector)
		if err != nil {
			t.Fatal(err)
		}
		if left+len(claims.Items) == 0 {
			return
		}
		time.Sleep(200 * time.Millisecond) // between looks
	}
}

// TestBedSweep leaves a capture half done, as a process that was killed does. Where
// Davit is installed its agent sweeps each minute as well, and knows nothing of this
// capture: what it took away before it was whole is begun again under another name.
func TestBedSweep(t *testing.T) {
	t.Parallel()
	clients := bedClients(t)
	ns := realNamespace(t, clients)
	makeClaim(t, clients, ns, "data", storageClass)
	runPod(t, clients, ns, "writer", "data", "sleep 3600")
	pvc, err := clients.Kubernetes.CoreV1().PersistentVolumeClaims(ns).Get(t.Context(), "data", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volumes := NewVolumes(clients, clients, nil, VolumeOptions{Vault: "v", Site: "east", CutTimeout: time.Minute, ReadyTimeout: time.Minute})
	claim := capture.Claim{Namespace: ns, Name: "data", StorageClass: storageClass, Volume: pvc.Spec.VolumeName, Capacity: 64 << 20}
	leave := func(id string) error {
		plan, err := volumes.Plan(t.Context(), claim, capture.VolumeOptions{Application: "bed", Point: id, Mode: capture.ModeSnapshot})
		if err != nil {
			return err
		}
		cut, err := volumes.Cut(t.Context(), plan)
		if err != nil {
			return err
		}
		cut.Plan = plan
		return volumes.scratch(t.Context(), cut, &mover.Request{})
	}
	var ids []string
	for end := time.Now().Add(3 * time.Minute); ; {
		id := fmt.Sprintf("bed-%s-%d", ns, len(ids))
		ids = append(ids, id)
		err := leave(id)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		t.Logf("%s, again: %v", id, err)
	}
	ours := func(label string) bool { // others' captures run on
		return !slices.ContainsFunc(ids, func(id string) bool { return label == PointLabel(id) })
	}
	if err := volumes.Sweep(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		checkReleased(t, clients, ns, id)
	}
}

// TestBedPlanWithoutSnapshots refuses a plain volume, or reads it live.
func TestBedPlanWithoutSnapshots(t *testing.T) {
	t.Parallel()
	clients := bedClients(t)
	ns := realNamespace(t, clients)
	makeClaim(t, clients, ns, "data", plainClass)
	runPod(t, clients, ns, "writer", "data", "sleep 3600")
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	reader := &podReader{t: t, clients: clients}
	ports := capture.Ports{Cluster: cluster, Volumes: NewVolumes(clients, clients, reader, VolumeOptions{Vault: "v", Site: "east"}), Sink: listSink{t}}
	spec := capture.Spec{Application: "bed", ID: "bed-" + ns, Namespaces: []string{ns}, Mode: capture.ModeSnapshot}
	if _, err := capture.Run(t.Context(), spec, ports, capture.Options{}); err == nil || !strings.Contains(err.Error(), "SnapshotOrLive") {
		t.Errorf("err = %v, want one that says what to do", err)
	}
	spec.Mode = capture.ModeSnapshotOrLive
	res, err := capture.Run(t.Context(), spec, ports, capture.Options{})
	if err != nil || res.Consistency != point.Fuzzy {
		t.Fatalf("consistency %s, %v", res.Consistency, err)
	}
	if req := reader.seen[0]; !req.Live || req.Node == "" || req.HostPath == "" {
		t.Errorf("request = %+v, want a path on a node", req)
	}
}

var groupContents = schema.GroupVersionResource{Group: groupAPI, Version: "v1", Resource: "volumegroupsnapshotcontents"}

// TestBedGroupThatNobodyCuts: a class whose driver has no group controller costs
// a bounded time, and what was asked for does not stay.
func TestBedGroupThatNobodyCuts(t *testing.T) {
	t.Parallel()
	clients := bedClients(t)
	id := "bed-nobody-" + string(uuid.NewUUID())
	class := &unstructured.Unstructured{Object: map[string]any{"driver": "nobody.example.com", "deletionPolicy": "Delete"}}
	class.SetAPIVersion(groupAPI + "/v1")
	class.SetKind("VolumeGroupSnapshotClass")
	class.SetName(id)
	api := clients.Dynamic.Resource(groupContents.GroupVersion().WithResource("volumegroupsnapshotclasses"))
	if _, err := api.Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Delete(context.WithoutCancel(t.Context()), id, metav1.DeleteOptions{}) })
	v := NewVolumes(clients, clients, nil, VolumeOptions{Vault: "v", Site: "east"})
	got, err := v.GroupClasses(t.Context(), []string{"nobody.example.com"}, "")
	if err != nil || got["nobody.example.com"] != id {
		t.Fatalf("classes are %v: %v", got, err)
	}
	plan := capture.VolumePlan{Driver: "nobody.example.com", Handle: "v-1", Group: id, Options: capture.VolumeOptions{Point: id}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := v.CutGroup(ctx, id, []capture.VolumePlan{plan}); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v, want %v", err, ErrNotReady)
	}
	if err := v.Release(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	checkReleased(t, clients, v1alpha1.SystemNamespace, id)
}
