package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// smallPods are the workloads of a small application; its pods are ready when
// they run. The same manifests are what a person would apply by hand.
const smallPods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: "davit.test/bedtool:1", imagePullPolicy: Never, command: [sleep, "1000000"], envFrom: [{configMapRef: {name: config-0}}, {secretRef: {name: secret-0}}]}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: %[1]s}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: db, image: "davit.test/bedtool:1", imagePullPolicy: Never, command: [sleep, "1000000"], volumeMounts: [{name: data, mountPath: /data}]}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: reflink, resources: {requests: {storage: 128Mi}}}
`

// smallObjects are ten: five ConfigMaps and five Secrets.
func smallObjects(namespace string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", namespace)
	for i := range 5 {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-%d, namespace: %s}\ndata: {KEY_%d: value}\n", i, namespace, i)
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Secret\nmetadata: {name: secret-%d, namespace: %s}\nstringData: {WORD_%d: value}\n", i, namespace, i)
	}
	return b.String()
}

// snapshotPod is what has to be there before anybody can read a volume as it
// was: a snapshot, a claim made of it, and a pod that has that mounted.
const snapshotPod = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: from-%[2]s, namespace: %[1]s}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: reflink
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: %[2]s}
  resources: {requests: {storage: 128Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: from-%[2]s, namespace: %[1]s}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: hold, image: "davit.test/bedtool:1", imagePullPolicy: Never, command: [sleep, "1000000"], volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: from-%[2]s}}]
`

const snapshotOf = `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: %[2]s, namespace: %[1]s}
spec: {volumeSnapshotClassName: reflink, source: {persistentVolumeClaimName: data-db-0}}
`

// small measures what davit adds to what a small application's pods need: one
// Deployment, one StatefulSet with a volume, ten small objects. Each round has
// both sides, one after the other; what is told is the median of three at least,
// unless one round is all that is asked for.
func (b *bench) small(ctx context.Context) error {
	app := b.named("small")
	if _, err := b.applied(ctx, app); err != nil {
		return err
	}
	_, err := b.stage.Kubectl(ctx, site, "-n", app, "exec", "db-0", "--", "sh", "-c", "echo whole > /data/file; sync")
	if err != nil {
		return err
	}
	if err := b.protect(ctx, app); err != nil {
		return err
	}
	if _, err := b.backup(ctx, app); err != nil { // makes the repository
		return err
	}
	rounds := b.rounds
	if rounds > 1 {
		rounds = max(rounds, 3)
	}
	var backups, restores, mounts, starts []time.Duration
	for i := range rounds {
		mounted, err := b.snapshotMounted(ctx, app, fmt.Sprintf("s%d", i))
		if err != nil {
			return err
		}
		r, err := b.backup(ctx, app)
		if err != nil {
			return err
		}
		if err := b.profileBackup(ctx, r); err != nil {
			return err
		}
		started, err := b.applied(ctx, fmt.Sprintf("%s-plain-%d", app, i))
		if err != nil {
			return err
		}
		back, _, err := b.clone(ctx, app, fmt.Sprintf("%s-clone-%d", app, i))
		if err != nil {
			return err
		}
		backups, mounts = append(backups, r.took), append(mounts, mounted)
		restores, starts = append(restores, back.took), append(starts, started)
	}
	b.report.beyond("small application, backup: davit backup / snapshot, claim and pod by kubectl", backups, mounts, 2*time.Second)
	b.report.beyond("small application, restore: davit restore / kubectl apply until ready", restores, starts, 5*time.Second)
	return nil
}

// applied makes the small application in a namespace as a person would, and
// tells how long it takes until it is ready.
func (b *bench) applied(ctx context.Context, namespace string) (time.Duration, error) {
	start := time.Now()
	if _, err := b.stage.KubectlIn(ctx, site, strings.NewReader(smallObjects(namespace)+"---"+fmt.Sprintf(smallPods, namespace)), "apply", "-f", "-"); err != nil {
		return 0, err
	}
	for _, workload := range []string{"statefulset/db", "deployment/web"} {
		if _, err := b.stage.Kubectl(ctx, site, "-n", namespace, "rollout", "status", workload, "--timeout=5m"); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// snapshotMounted makes a snapshot of the volume readable by hand, and removes
// it again, which is not measured.
func (b *bench) snapshotMounted(ctx context.Context, namespace, name string) (time.Duration, error) {
	start := time.Now()
	for _, step := range [][]string{
		{fmt.Sprintf(snapshotOf, namespace, name), "apply", "-f", "-"},
		{"", "-n", namespace, "wait", "--for=jsonpath={.status.readyToUse}=true", "--timeout=2m", "volumesnapshot/" + name},
		{fmt.Sprintf(snapshotPod, namespace, name), "apply", "-f", "-"},
		{"", "-n", namespace, "wait", "--for=condition=Ready", "--timeout=2m", "pod/from-" + name},
	} {
		if _, err := b.stage.KubectlIn(ctx, site, strings.NewReader(step[0]), step[1:]...); err != nil {
			return 0, err
		}
	}
	took := time.Since(start)
	if _, err := b.stage.Kubectl(ctx, site, "-n", namespace, "delete", "--timeout=5m", "pod/from-"+name, "pvc/from-"+name); err != nil {
		return 0, err
	}
	// Its provisioner may leave its mark on it for ever, and nothing needs its name again.
	_, err := b.stage.Kubectl(ctx, site, "-n", namespace, "delete", "--wait=false", "volumesnapshot/"+name)
	return took, err
}

// profileBackup says in the log where the time of a backup went.
func (b *bench) profileBackup(ctx context.Context, r ran) error {
	var p struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(r.out, &p); err != nil {
		return fmt.Errorf("read the point's name: %w", err)
	}
	described, err := b.davit(ctx, "describe", p.ID)
	if err != nil {
		return err
	}
	var d struct {
		Manifest struct{ StartedAt, Instant, CutBy, FinishedAt time.Time } `json:"manifest"`
	}
	if err := json.Unmarshal(described.out, &d); err != nil {
		return fmt.Errorf("read the point: %w", err)
	}
	m := d.Manifest
	inside := m.FinishedAt.Sub(m.StartedAt)
	b.report.say("backup %s: discover and plan %s, cut %s, list and read %s, around it %s",
		r.took.Round(time.Millisecond), m.Instant.Sub(m.StartedAt).Round(time.Millisecond), m.CutBy.Sub(m.Instant).Round(time.Millisecond),
		m.FinishedAt.Sub(m.CutBy).Round(time.Millisecond), (r.took - inside).Round(time.Millisecond))
	return nil
}

// beyond tells how much longer davit takes than what it cannot do without, and
// whether that is under the bar that davit sets itself.
func (r *report) beyond(what string, ours, theirs []time.Duration, bar time.Duration) {
	a, b := median(ours), median(theirs)
	fmt.Fprintf(r.out, "| %s | %.1f s | %.1f s | %.1f s beyond it%s |\n", what, a.Seconds(), b.Seconds(), (a - b).Seconds(), r.against(what, bar.String(), a-b < bar))
}
