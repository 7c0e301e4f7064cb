package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// Restic as the user of a cluster has it: what VolSync's and Velero's movers do, without
// what their controllers and commands take. A backup is a snapshot, a claim made of it, a pod that
// has restic read that, and their removal; a restore is a claim, a pod that has restic
// fill it, and the pod of the workload. Each next step begins the moment the cluster
// says that the last one is done. The cache outlives the pods, as VolSync's does.

const moverSnapshot = `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: %[2]s, namespace: %[1]s}
spec: {volumeSnapshotClassName: reflink, source: {persistentVolumeClaimName: data}}
`

const moverClaim = `---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %[2]s, namespace: %[1]s}
spec: {accessModes: [ReadWriteOnce], storageClassName: reflink, resources: {requests: {storage: %[3]dMi}}%[4]s}
`

const ofSnapshot = `, dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: %s}`

const moverPod = `---
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: restic
    image: %[3]s
    imagePullPolicy: Never
    command: [sh, -ec, %[4]q]
    workingDir: /data
    securityContext: {runAsUser: 0, runAsGroup: 0}
    env: [%[5]s]
    volumeMounts: [{name: data, mountPath: /data}, {name: cache, mountPath: /cache}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: %[2]s}}
  - {name: cache, hostPath: {path: %[6]q, type: DirectoryOrCreate}}
`

const workloadPod = `---
apiVersion: v1
kind: Pod
metadata: {name: holder, namespace: %[1]s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: hold, image: "davit.test/bedtool:1", imagePullPolicy: Never, command: [sleep, "1000000"], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, persistentVolumeClaim: {claimName: %[2]s}}]
`

// What the movers' pods do.
const (
	moverReads  = "exec restic -q backup --host mover ."
	moverWrites = "restic -q restore latest --host mover --target . && sync -f ."
)

// movers run restic in pods.
type movers struct {
	*bench
	api   dynamic.Interface
	image string
	size  int // MiB of the claims
}

// moverSide has the cluster's API server and nothing of davit's.
func (b *bench) moverSide(ctx context.Context, c content) (*side, error) {
	m := movers{bench: b, size: c.claimMiB}
	config, err := b.stage.Bed.Site(site).RESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	if m.api, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	if m.image, err = b.stage.Load(ctx, site, "restic"); err != nil {
		return nil, err
	}
	_, err = b.restic(ctx, moversRepository, resticInit)
	return &side{
		name:   "restic in a mover's pod",
		backup: func(ctx context.Context) (time.Duration, error) { return m.backup(ctx, c.app) },
		restore: func(ctx context.Context, round int) (time.Duration, error) {
			to := fmt.Sprintf("%s-moved-%d", c.app, round)
			if _, err := b.stage.Kubectl(ctx, site, "create", "namespace", to); err != nil {
				return 0, err
			}
			if _, err := b.stage.Kubectl(ctx, site, "-n", to, "wait", "--for=create", "serviceaccount/default"); err != nil {
				return 0, err
			}
			took, err := m.restore(ctx, to)
			if err != nil {
				return 0, err
			}
			return took, b.removed(ctx, to)
		},
	}, err
}

// backup stores the claim "data" of a namespace.
func (m movers) backup(ctx context.Context, namespace string) (time.Duration, error) {
	m.report.say("restic backup in a mover")
	start := time.Now()
	name := fmt.Sprintf("mover-%d", start.UnixMilli()) // the snapshot may outlive the round: its provisioner may leave its mark on it for ever
	if err := m.create(ctx, fmt.Sprintf(moverSnapshot, namespace, name)); err != nil {
		return 0, err
	}
	if err := m.until(ctx, "VolumeSnapshot", namespace, name, "true", "status", "readyToUse"); err != nil {
		return 0, err
	}
	claim := fmt.Sprintf(moverClaim, namespace, name, m.size, fmt.Sprintf(ofSnapshot, name))
	if err := m.run(ctx, start, namespace, name, claim, moverReads); err != nil {
		return 0, err
	}
	made := []string{"Pod", "PersistentVolumeClaim", "VolumeSnapshot"}
	for _, kind := range made {
		if err := m.of(kind, namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return 0, fmt.Errorf("delete %s: %w", kind, err)
		}
	}
	took := time.Since(start)
	for _, kind := range made[:2] { // nothing of it is at work when others are measured
		if err := m.until(ctx, kind, namespace, name, gone); err != nil {
			return 0, err
		}
	}
	return took, nil
}

// restore fills a new claim of a namespace that is there already, until its workload is ready.
func (m movers) restore(ctx context.Context, namespace string) (time.Duration, error) {
	m.report.say("restic restore in a mover")
	const name = "data"
	start := time.Now()
	if err := m.run(ctx, start, namespace, name, fmt.Sprintf(moverClaim, namespace, name, m.size, ""), moverWrites); err != nil {
		return 0, err
	}
	if err := m.create(ctx, fmt.Sprintf(workloadPod, namespace, name)); err != nil {
		return 0, err
	}
	err := m.until(ctx, "Pod", namespace, "holder", "True", "status", "conditions", "Ready")
	return time.Since(start), err
}

// run makes a claim and the pod that moves its data, and waits until that is done.
func (m movers) run(ctx context.Context, start time.Time, namespace, name, claim, script string) error {
	var env []string
	for _, pair := range append(m.resticEnv(moversRepository), "RESTIC_CACHE_DIR=/cache") {
		key, value, _ := strings.Cut(pair, "=")
		env = append(env, fmt.Sprintf("{name: %s, value: %q}", key, value))
	}
	pod := fmt.Sprintf(moverPod, namespace, name, m.image, script, strings.Join(env, ", "), m.stage.Bed.Site(site).StorageDir()+"/restic")
	made := time.Since(start)
	if err := m.create(ctx, claim+pod); err != nil {
		return err
	}
	if err := m.until(ctx, "Pod", namespace, name, "Succeeded", "status", "phase"); err != nil {
		return err
	}
	fmt.Fprintf(m.stage.Log, "restic in a mover: pod made after %s, ended after %s\n", made.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	return nil
}

func (m movers) of(kind, namespace string) dynamic.ResourceInterface {
	group := schema.GroupVersion{Version: "v1"}
	if kind == "VolumeSnapshot" {
		group.Group = "snapshot.storage.k8s.io"
	}
	plural, _ := meta.UnsafeGuessKindToResource(group.WithKind(kind))
	return m.api.Resource(plural).Namespace(namespace)
}

func (m movers) create(ctx context.Context, manifests string) error {
	docs := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		var o unstructured.Unstructured
		if err := docs.Decode(&o.Object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read manifest: %w", err)
		}
		if _, err := m.of(o.GetKind(), o.GetNamespace()).Create(ctx, &o, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create %s: %w", o.GetKind(), err)
		}
	}
}

const (
	gone   = "" // what until waits for when an object is to go
	failed = "Failed"
)

// until waits until a field, or the condition that ends its path, has a value.
func (m movers) until(ctx context.Context, kind, namespace, name, want string, path ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	api := m.of(kind, namespace)
	w, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return fmt.Errorf("watch %s: %w", kind, err)
	}
	defer w.Stop()
	if want == gone {
		if _, err := api.Get(ctx, name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			return nil
		}
	}
	for e := range w.ResultChan() {
		o, ok := e.Object.(*unstructured.Unstructured)
		switch {
		case !ok || e.Type == watch.Deleted:
			if want == gone && ok {
				return nil
			}
		case want != gone && valueAt(o.Object, path) == want:
			return nil
		case want != gone && valueAt(o.Object, path) == failed:
			return fmt.Errorf("%s %s/%s has failed: %v", kind, namespace, name, o.Object["status"])
		}
	}
	return fmt.Errorf("wait for %s %s/%s: %w", kind, namespace, name, errors.Join(ctx.Err(), errors.New("it did not come to be "+want)))
}

func valueAt(o map[string]any, path []string) string {
	last := len(path) - 1
	if conditions, found, _ := unstructured.NestedSlice(o, path[:last]...); found {
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == path[last] {
				return fmt.Sprint(c["status"])
			}
		}
		return ""
	}
	value, _, _ := unstructured.NestedFieldNoCopy(o, path...)
	return fmt.Sprint(value)
}
