package e2e

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// app is a small application: a StatefulSet whose pod writes a file and its
// checksum into a volume once, and gets ready only when the file agrees with it.
type app struct {
	copies int    // restored beside it so far
	name   string // of the application and its namespace
	vault  string
	home   string // the site that it is of; else east
	size   int    // of the file, in KiB
	class  string // storage class of the volume
	disk   string // the volume's size
	slow   int    // seconds until the pod is ready
	more   string // further objects, as YAML
	image  string // that its pods run, instead of the bed's own
}

const manifest = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: %[1]s}
data: {colour: green}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: %[1]s}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: %[1]s}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      initContainers:
      - name: check
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "cd /data && if [ -e sum ]; then sha256sum -c sum; else dd if=/dev/urandom of=file bs=1024 count=%[2]d && sha256sum file > sum; fi && sync && sleep %[5]d"]
        volumeMounts: [{name: data, mountPath: /data}]
      containers:
      - name: db
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "trap exit TERM; sleep 1000000 & wait"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: %[3]s, resources: {requests: {storage: %[4]s}}}
%[6]s`

// site is what the application belongs to.
func (a *app) site() string { return cmp.Or(a.home, east) }

// deploy brings the application to its site, waits until it runs, and returns the
// checksum of its data.
func (a *app) deploy(t *testing.T) string {
	t.Helper()
	if a.name == "" {
		a.name = short(t)
	}
	if a.vault == "" {
		a.vault = common
	}
	if a.size == 0 {
		a.size = 1024
	}
	if a.class == "" {
		a.class = "reflink"
	}
	if a.disk == "" {
		a.disk = "64Mi"
	}
	removeNamespace(t, a.site(), a.name)
	yaml := fmt.Sprintf(manifest, a.name, a.size, a.class, a.disk, a.slow, a.more)
	if a.image != "" {
		yaml = strings.ReplaceAll(yaml, "davit.test/bedtool:1", a.image)
	}
	apply(t, a.site(), yaml)
	return a.sum(t, a.site(), a.name)
}

// sum waits for the pod and returns the checksum of what is in its volume.
func (a *app) sum(t *testing.T, site, namespace string) string {
	t.Helper()
	eventually(t, 3*time.Minute, "pod db-0 in "+namespace+" at "+site+" is ready", func() (bool, string) {
		// One that is on its way out may still be called ready.
		got := try(t, site, "-n", namespace, "get", "pod", "db-0", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}{.metadata.deletionTimestamp}`)
		return got == "True", got
	})
	var out string
	eventually(t, 3*time.Minute, "pod db-0 in "+namespace+" at "+site+" reads its file", func() (bool, string) {
		got, err := rig.Kubectl(t.Context(), site, "-n", namespace, "exec", "db-0", "-c", "db", "--", "sha256sum", "/data/file")
		out = got
		return err == nil, fmt.Sprint(err)
	})
	sum, _, _ := strings.Cut(out, " ")
	return sum
}

// protect begins protection, by default only when asked.
func (a *app) protect(t *testing.T, flags ...string) {
	t.Helper()
	davit(t, a.site(), a.vault, append([]string{"protect", a.name}, flags...)...).want(t, 0)
	t.Cleanup(func() { unprotect(a.site(), a.name) })
}

// unprotect removes an application's documents from a site.
func unprotect(site, name string) {
	for _, kind := range []string{"application", "protectionpolicy"} {
		_, _ = rig.Kubectl(context.Background(), site, "-n", system, "delete", kind, name, "--ignore-not-found")
	}
}

// pointView is a recovery point as davit prints it.
type pointView struct {
	ID      string    `json:"id"`
	Phase   string    `json:"phase"`
	Instant time.Time `json:"instant"`
	Damaged bool      `json:"damaged"`
	Pinned  bool      `json:"pinned"`

	VerifiedHow string `json:"verifiedHow"`
	Message     string `json:"message"`

	Consistency string   `json:"consistency"`
	Copies      []string `json:"copies"`
}

// backup captures the application and returns the point.
func (a *app) backup(t *testing.T, flags ...string) pointView {
	t.Helper()
	var p pointView
	args := append([]string{"backup", a.name, "--wait", "--timeout", "4m", "-o", "json"}, flags...)
	davit(t, a.site(), "", args...).want(t, 0).read(t, &p)
	return p
}

// protected deploys, protects and captures in one go.
func (a *app) protected(t *testing.T) (sum string, p pointView) {
	t.Helper()
	sum = a.deploy(t)
	a.protect(t)
	return sum, a.backup(t)
}

// points are all points that davit shows at a site, offered or not.
func (a *app) points(t *testing.T, site string) []pointView {
	t.Helper()
	var all struct {
		Points []pointView `json:"points"`
	}
	davit(t, site, "", "points", a.name, "--all", "-o", "json").want(t, 0).read(t, &all)
	return all.Points
}

// cloneArgs ask for a copy in another namespace.
func (a *app) cloneArgs(namespace string, flags ...string) []string {
	return append([]string{"restore", a.name, "--as-clone", "--map-namespace", a.name + "=" + namespace, "--yes"}, flags...)
}

// clone restores a copy at west and returns how that ended.
func (a *app) clone(t *testing.T, namespace string, flags ...string) outcome {
	t.Helper()
	removeNamespace(t, west, namespace)
	return davit(t, west, a.vault, a.cloneArgs(namespace, flags...)...)
}

// report is the part of a restore's JSON that tests look at.
type report struct {
	Phase  string `json:"phase"`
	Point  string `json:"point"`
	Result struct {
		Created   int64 `json:"created"`
		Updated   int64 `json:"updated"`
		Continued int64 `json:"continued"`
		Skipped   int64 `json:"skipped"`
		Warnings  []struct{ Object, Message string }
	} `json:"result"`
}

// condition reads a field of the application's status at a site.
func (a *app) status(t *testing.T, site, field string) string {
	t.Helper()
	return try(t, site, "-n", system, "get", "application", a.name, "-o", "jsonpath={.status."+field+"}")
}

// replicas are what the StatefulSet asks for at a site.
func (a *app) replicas(t *testing.T, site string) string {
	t.Helper()
	return try(t, site, "-n", a.name, "get", "statefulset", "db", "-o", "jsonpath={.spec.replicas}")
}
