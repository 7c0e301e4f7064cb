package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// front is the other half of an application: in a namespace of its own, a client
// of the database, with a volume and with rights in the whole cluster. It is ready only when its file is what it once wrote.
const front = `
---
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s-front, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: front, namespace: %[1]s-front}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: %[1]s-front}
rules: [{apiGroups: [""], resources: [nodes], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: %[1]s-front}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[1]s-front}
subjects: [{kind: ServiceAccount, name: front, namespace: %[1]s-front}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: front, namespace: %[1]s-front}
spec: {accessModes: [ReadWriteOnce], storageClassName: reflink, resources: {requests: {storage: 64Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front, namespace: %[1]s-front}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      terminationGracePeriodSeconds: 0
      serviceAccountName: front
      containers:
      - name: front
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        env: [{name: DATABASE, value: db-0.db.%[1]s.svc}]
        command: [sh, -c, "cd /data && { [ -e sum ] || { dd if=/dev/urandom of=file bs=1024 count=64 && sha256sum file > sum && sync; }; } && sha256sum -c sum && touch /tmp/whole; trap exit TERM; sleep 1000000 & wait"]
        readinessProbe: {exec: {command: [test, -e, /tmp/whole]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: front}}]
`

// frontSum waits until the front is ready at a site, and returns the checksum of what is in its volume.
func frontSum(t *testing.T, site, namespace string) string {
	t.Helper()
	eventually(t, 3*time.Minute, "the front is ready at "+site, func() (bool, string) {
		got := try(t, site, "-n", namespace, "get", "deployment", "front", "-o", "jsonpath={.status.readyReplicas}")
		return got == "1", got
	})
	sum, _, _ := strings.Cut(kubectl(t, site, "-n", namespace, "exec", "deployment/front", "--", "sha256sum", "/data/file"), " ")
	return sum
}

// spanning takes an application over that lies in two namespaces, found by a
// pattern, into a cluster that has neither. Its volumes, one in each, are cut at one instant. What it
// needs of the cluster comes along, and what uses the database comes after it.
func spanning(t *testing.T) {
	name := short(t)
	a := &app{name: name, more: fmt.Sprintf(front, name)}
	sum := a.deploy(t)
	cleanUp := func() {
		for _, site := range []string{east, west} {
			try(t, site, "delete", "clusterrole,clusterrolebinding", name+"-front", "--ignore-not-found")
			try(t, site, "delete", "namespace", name+"-front", "--ignore-not-found")
		}
	}
	t.Cleanup(cleanUp)
	was := frontSum(t, east, name+"-front")
	a.protect(t, "--namespace", name+"*", "--freeze-window", busyWindow)
	p := a.backup(t)
	if p.Consistency != "crash" {
		t.Errorf("point %s of two namespaces is %s", p.ID, p.Consistency)
	}
	davit(t, east, a.vault, "describe", p.ID).want(t, 0, "held still all volumes, for", "cut by one group snapshot of 2 volumes of driver reflink.csi.davit.dev")
	for _, namespace := range []string{name, name + "-front"} {
		removeNamespace(t, west, namespace)
	}
	try(t, west, "delete", "clusterrole,clusterrolebinding", name+"-front", "--ignore-not-found")

	order := []string{"restore", name, "--take-over", "--dry-run", "--order"}
	davit(t, west, a.vault, append(order, "text")...).want(t, 0,
		"StatefulSet.apps "+name+"/db (speaks of its Service)", "PersistentVolumeClaim "+name+"/data-db-0", "gives it its rights")
	davit(t, west, a.vault, append(order, "dot")...).want(t, 0, "digraph restore {",
		fmt.Sprintf(`"StatefulSet.apps %[1]s/db" -> "Deployment.apps %[1]s-front/front" [label="speaks of its Service"];`, name))
	absent(t, west, name)

	t.Cleanup(func() { unprotect(west, name) })
	davit(t, west, a.vault, "restore", name, "--take-over", "--yes").want(t, 0, name+" is restored at site west.")
	if got := a.sum(t, west, name); got != sum {
		t.Errorf("the data came back as %s, want %s", got, sum)
	}
	if got := frontSum(t, west, name+"-front"); got != was {
		t.Errorf("the front's data came back as %s, want %s", got, was)
	}
	if got := kubectl(t, west, "auth", "can-i", "list", "nodes", "--as", "system:serviceaccount:"+name+"-front:front"); strings.TrimSpace(got) != "yes" {
		t.Errorf("its rights in the cluster did not come along: %s", got)
	}
	eventually(t, 3*time.Minute, "east stops both halves", func() (bool, string) {
		db := a.replicas(t, east)
		front := try(t, east, "-n", name+"-front", "get", "deployment", "front", "-o", "jsonpath={.spec.replicas}")
		return db == "0" && front == "0", db + " and " + front
	})
}
