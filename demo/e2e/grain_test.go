package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// street is a namespace in which several things live side by side: see house
// and ring. A ConfigMap is nobody's.
const street = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: nobodys, namespace: %[1]s}
data: {colour: grey}
---
`

// house is a PostgreSQL of its own: a Secret, a Service, a StatefulSet and a claim.
const house = `
apiVersion: v1
kind: Secret
metadata: {name: %[2]s, namespace: %[1]s}
stringData: {password: secret}
---
%[3]s
`

// ring are three pods of one StatefulSet, each with a file of its own.
const ring = `
apiVersion: v1
kind: ConfigMap
metadata: {name: ring, namespace: %[1]s}
data: {colour: green}
---
apiVersion: v1
kind: Service
metadata: {name: ring, namespace: %[1]s}
spec: {clusterIP: None, selector: {db: ring}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ring, namespace: %[1]s}
spec:
  serviceName: ring
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {db: ring}}
  template:
    metadata: {labels: {db: ring}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: ring
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        envFrom: [{configMapRef: {name: ring}}]
        command: [sh, -c, "cd /data; [ -e file ] || { echo $(hostname) > file.new; date +%%s%%N >> file.new; sync; mv file.new file; sync; }; trap exit TERM; sleep 1000000 & wait"]
        startupProbe: {exec: {command: [test, -e, /data/file]}, periodSeconds: 1, failureThreshold: 600}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data, labels: {tier: ring}}
    spec: {accessModes: [ReadWriteOnce], storageClassName: reflink-alone, resources: {requests: {storage: 64Mi}}}
---
`

// houses are the databases of the street, and the side each is on.
var houses = map[string]string{"pg-a": "left", "pg-b": "middle", "pg-c": "right"}

// query asks one database of a street, once it answers.
func query(t *testing.T, site, namespace, db, text string) string {
	t.Helper()
	var got string
	eventually(t, 4*time.Minute, db+" in "+namespace+" at "+site+" answers", func() (bool, string) {
		got = try(t, site, "-n", namespace, "exec", db+"-0", "--", "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "shop", "-c", text)
		return !strings.HasPrefix(got, "error:"), got
	})
	return strings.TrimSpace(got)
}

// ringFile is what a pod of a ring has in its volume, once it is ready.
func ringFile(t *testing.T, site, namespace string, ordinal int) string {
	t.Helper()
	var got string
	eventually(t, 4*time.Minute, fmt.Sprintf("ring-%d in %s at %s answers", ordinal, namespace, site), func() (bool, string) {
		got = try(t, site, "-n", namespace, "exec", fmt.Sprintf("ring-%d", ordinal), "--", "cat", "/data/file")
		return !strings.HasPrefix(got, "error:"), got
	})
	return strings.TrimSpace(got)
}

// livesOf are the pods of a namespace at east with what changes when one is
// touched: its identity, and how often its containers began.
func livesOf(t *testing.T, namespace string) map[string]string {
	t.Helper()
	out := kubectl(t, east, "-n", namespace, "get", "pods", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}/{.status.containerStatuses[*].restartCount}{"\n"}{end}`)
	all := map[string]string{}
	for line := range strings.Lines(out) {
		if name, life, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			all[name] = life
		}
	}
	return all
}

// apart protects a part of the street as an application of its own.
func (a *app) apart(t *testing.T, part string, flags ...string) *app {
	t.Helper()
	p := &app{name: a.name + "-" + part, vault: a.vault}
	davit(t, east, p.vault, append([]string{"protect", p.name, "-n", a.name}, flags...)...).want(t, 0)
	t.Cleanup(func() { unprotect(east, p.name) })
	return p
}

// claims are those whose data a point has.
func claims(t *testing.T, id string) []string {
	t.Helper()
	var d struct {
		Manifest struct{ Volumes []struct{ Claim string } }
	}
	davit(t, east, common, "describe", id, "-o", "json").want(t, 0).read(t, &d)
	all := []string{}
	for _, v := range d.Manifest.Volumes {
		all = append(all, v.Claim)
	}
	slices.Sort(all)
	return all
}

// kindsOf are the kinds of what a point holds of its namespaces.
func kindsOf(t *testing.T, id string) []string {
	t.Helper()
	var d struct {
		Manifest struct {
			Resources []struct {
				Group, Resource string
				Namespaced      bool
			}
		}
	}
	davit(t, east, common, "describe", id, "-o", "json").want(t, 0).read(t, &d)
	all := []string{}
	for _, r := range d.Manifest.Resources {
		if r.Namespaced {
			all = append(all, strings.TrimSuffix(r.Resource+"."+r.Group, "."))
		}
	}
	slices.Sort(all)
	return all
}

// deployStreet brings the street to east, with data in every volume.
func deployStreet(t *testing.T) *app {
	t.Helper()
	a := &app{name: short(t), vault: common}
	removeNamespace(t, east, a.name)
	yaml := fmt.Sprintf(street, a.name)
	for _, db := range slices.Sorted(maps.Keys(houses)) {
		yaml += fmt.Sprintf(house, a.name, db, postgres{namespace: a.name, name: db, label: "db", labels: "side: " + houses[db], secret: db}.yaml())
	}
	apply(t, east, yaml+fmt.Sprintf(ring, a.name))
	for db := range houses {
		query(t, east, a.name, db, "select 1")
		query(t, east, a.name, db, "create table if not exists t as select generate_series(1, 100) n; checkpoint") // whoever asks again gets the same
	}
	return a
}

// inParts captures and restores single workloads, pods and groups of pods of a
// namespace, each with its volumes and nothing of its neighbours.
func inParts(t *testing.T) {
	a := deployStreet(t)
	files := [3]string{}
	for i := range files {
		files[i] = ringFile(t, east, a.name, i)
	}
	quiet := livesOf(t, a.name)
	one, group := a.apart(t, "one", "--workload", "statefulset/pg-b"), a.apart(t, "ring", "--pods", "db=ring")
	pod := a.apart(t, "pod", "--workload", "pod/ring-1")
	points := map[*app]pointView{}
	for _, tt := range []struct {
		app  *app
		want []string
	}{
		{one, []string{"data-pg-b-0"}},
		{group, []string{"data-ring-0", "data-ring-1", "data-ring-2"}},
		{pod, []string{"data-ring-1"}},
		{a.apart(t, "either", "--selector", "side=left", "--selector", "side in (right,far)"), []string{"data-pg-a-0", "data-pg-c-0"}},
		{a.apart(t, "named", "--pods", "db", "--exclude-volumes", "data-pg-*,data-ring-0"), []string{"data-ring-1", "data-ring-2"}},
		{a.apart(t, "classed", "--pods", "db", "--include-volumes", "class=reflink"), []string{"data-pg-a-0", "data-pg-b-0", "data-pg-c-0"}},
		{a.apart(t, "labelled", "--pods", "db in (ring,pg-c)", "--exclude-volumes", "labels=tier=ring"), []string{"data-pg-c-0"}},
	} {
		points[tt.app] = tt.app.weakBackup(t)
		if got := claims(t, points[tt.app].ID); !slices.Equal(got, tt.want) {
			t.Errorf("%s holds the data of %v, want %v", tt.app.name, got, tt.want)
		}
	}
	if got := livesOf(t, a.name); !maps.Equal(got, quiet) {
		t.Errorf("captures left the pods as %v, they were %v", got, quiet)
	}
	heldBySeveral(t, a)

	t.Run("some kinds", func(t *testing.T) { someKinds(t, a, points[one]) })
	t.Run("two at once", func(t *testing.T) { twoAtOnce(t, a, files) })
	t.Run("one of three", func(t *testing.T) { oneOfThree(t, a, one) })
	t.Run("a ring in its place", func(t *testing.T) { ringInPlace(t, a, group, files) })
	t.Run("copies", func(t *testing.T) {
		copied := a.name + "-copy"
		removeNamespace(t, west, copied)
		for i, p := range []*app{one, group} { // the second finds the namespace in use
			davit(t, west, a.vault, "restore", points[p].ID, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes").want(t, 4*i)
		}
		if got := query(t, west, copied, "pg-b", "select count(*) from t"); got != "100" {
			t.Errorf("the copy of pg-b has %s rows", got)
		}
		for i, want := range files {
			if got := ringFile(t, west, copied, i); got != want {
				t.Errorf("the copy of ring-%d holds %q, want %q", i, got, want)
			}
		}
		got := strings.Fields(kubectl(t, west, "-n", copied, "get", "statefulsets,services,secrets,configmaps,pvc", "-o", "jsonpath={.items[*].metadata.name}"))
		slices.Sort(got)
		want := strings.Fields("data-pg-b-0 data-ring-0 data-ring-1 data-ring-2 kube-root-ca.crt pg-b pg-b pg-b ring ring ring")
		if !slices.Equal(got, want) {
			t.Errorf("the copy holds %v, want %v", got, want)
		}
	})
	t.Run("one pod of a ring", func(t *testing.T) { onePod(t, a, pod, points[pod], files[1]) })
}

// someKinds captures the whole namespace, but of two kinds only. The control is a part of it that nobody narrowed by kind.
func someKinds(t *testing.T, a *app, control pointView) {
	some := a.apart(t, "kinds", "--include-kinds", "configmaps,statefulsets.apps")
	p := some.weakBackup(t)
	if got := kindsOf(t, p.ID); !slices.Equal(got, []string{"configmaps", "statefulsets.apps"}) {
		t.Errorf("a point of ConfigMaps and StatefulSets holds %v", got)
	}
	if got := claims(t, p.ID); len(got) > 0 {
		t.Errorf("a point of kinds that are not claims holds the data of %v", got)
	}
	if got := kindsOf(t, control.ID); !slices.Contains(got, "services") || !slices.Contains(got, "persistentvolumeclaims") {
		t.Errorf("without a choice of kinds a point holds %v", got)
	}
}

// heldBySeveral looks at what coverage says of a namespace with several applications.
// Kinds come and go in the cluster meanwhile, and what captures made goes from the namespace.
func heldBySeveral(t *testing.T, a *app) {
	t.Helper()
	names := func(parts ...string) string {
		for i := range parts {
			parts[i] = a.name + "-" + parts[i]
		}
		return strings.Join(parts, " ")
	}
	want := map[string]string{
		"namespace":              names("classed", "either", "labelled", "named", "one", "pod", "ring") + ": 0 of 6, 1",
		"data-pg-a-0":            names("classed", "either"),
		"data-pg-b-0":            names("classed", "one"),
		"data-ring-0":            names("ring"),
		"data-ring-1":            names("named", "pod", "ring"),
		"configmaps nobodys":     "",
		"statefulsets.apps pg-b": names("classed", "named", "one"),
		"statefulsets.apps ring": names("classed", "labelled", "named", "pod", "ring"),
	}
	eventually(t, 3*time.Minute, "coverage says who holds what of "+a.name, func() (bool, string) {
		found, trouble := covered(t, a.name)
		for what, want := range want {
			if got, ok := found[what]; got != want || !ok {
				trouble += fmt.Sprintf("of %s it says %q, want %q\n", what, got, want)
			}
		}
		return trouble == "", trouble
	})
}

// covered is what coverage says of a namespace and what is in it, or why it says nothing.
func covered(t *testing.T, namespace string) (found map[string]string, trouble string) {
	t.Helper()
	var report struct {
		Namespaces []struct {
			Name               string
			Applications       []string
			Volumes            int
			UnprotectedVolumes int
			UnprotectedObjects int
		}
		Volumes []struct {
			Namespace, Claim string
			Applications     []string
		}
		Objects []struct {
			Resource, Namespace, Name string
			Applications              []string
		}
	}
	said := davit(t, east, "", "coverage", "-o", "json")
	if said.code != 0 {
		return nil, said.all()
	}
	said.read(t, &report)
	found = map[string]string{}
	for _, n := range report.Namespaces {
		if n.Name == namespace {
			found["namespace"] = fmt.Sprintf("%s: %d of %d, %d", strings.Join(n.Applications, " "), n.UnprotectedVolumes, n.Volumes, n.UnprotectedObjects)
		}
	}
	for _, v := range report.Volumes {
		if v.Namespace == namespace {
			found[v.Claim] = strings.Join(v.Applications, " ")
		}
	}
	for _, o := range report.Objects {
		if o.Namespace == namespace {
			found[o.Resource+" "+o.Name] = strings.Join(o.Applications, " ")
		}
	}
	return found, ""
}

// twoAtOnce has two applications that claim the same pods captured at the same
// time, with a hold of each in every pod. Each point is whole or says what it
// lacks; nothing stays frozen or held.
func twoAtOnce(t *testing.T, a *app, files [3]string) {
	var both [2]*app
	for i := range both {
		held := fmt.Sprintf("/tmp/held-%d", i)
		hold := strings.ReplaceAll(holding, "/tmp/held", held)
		both[i] = a.apart(t, fmt.Sprintf("both-%d", i), "--pods", "db=ring", "--snapshot-class", "reflink-slow",
			"-f", hooksOf(t, "- name: quiet\n  podSelector: {matchLabels: {db: ring}}\n  hold: {command: [sh, -c, '"+hold+"']}\n"))
	}
	davit(t, east, a.vault, "protect", both[1].name).want(t, 0, a.name+"/data-ring-0", both[0].name)
	var done [2]chan outcome
	for i, p := range both {
		done[i] = make(chan outcome, 1)
		cmd := command(t.Context(), east, "", "backup", p.name, "--wait", "--timeout", "4m", "-o", "json")
		go func() { done[i] <- finish(t, cmd) }()
	}
	for i := range both {
		var p pointView
		ended := <-done[i]
		ended.read(t, &p)
		if p.Phase != "Available" || !slices.Equal(claims(t, p.ID), []string{"data-ring-0", "data-ring-1", "data-ring-2"}) {
			t.Errorf("captured beside another, point %s is %s: %s", p.ID, p.Phase, ended.all())
		}
		said := davit(t, east, a.vault, "describe", p.ID).want(t, 0).all()
		t.Logf("captured beside another, point %s is %s", p.ID, p.Consistency)
		if p.Consistency != "application" && !strings.Contains(said, "not proven") && !strings.Contains(said, "instant of its own") {
			t.Errorf("point %s is %s and does not say why:\n%s", p.ID, p.Consistency, said)
		}
		copied := fmt.Sprintf("%s-both-%d", a.name, i)
		removeNamespace(t, west, copied)
		davit(t, west, a.vault, "restore", p.ID, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes").want(t, 0)
		for n, want := range files {
			if got := ringFile(t, west, copied, n); got != want {
				t.Errorf("ring-%d of point %s holds %q, want %q", n, p.ID, got, want)
			}
		}
	}
	for n := range files {
		eventually(t, 3*time.Minute, fmt.Sprintf("ring-%d is let go and writes", n), func() (bool, string) {
			got := try(t, east, "-n", a.name, "exec", fmt.Sprintf("ring-%d", n), "--", "sh", "-c", "test -e /tmp/held-0 || test -e /tmp/held-1 || { echo probe > /data/probe && sync && rm /data/probe && echo free; }")
			return strings.TrimSpace(got) == "free", got
		})
	}
}

// untouched checks that the neighbours' pods were never stopped nor restarted,
// and have what was written since the capture.
func untouched(t *testing.T, a *app, before map[string]string, mine string, rows map[string]string) {
	t.Helper()
	after := livesOf(t, a.name)
	for pod, life := range before {
		if !strings.HasPrefix(pod, mine) && after[pod] != life {
			t.Errorf("neighbour %s is %s, it was %s", pod, after[pod], life)
		}
	}
	for db, want := range rows {
		if got := query(t, east, a.name, db, "select count(*) from t"); got != want {
			t.Errorf("neighbour %s has %s rows, want %s", db, got, want)
		}
	}
}

// oneOfThree ruins one database of three and rolls it back in its place.
func oneOfThree(t *testing.T, a, one *app) {
	for db := range houses {
		query(t, east, a.name, db, "insert into t select generate_series(101, 150) except select n from t")
	}
	query(t, east, a.name, "pg-b", "delete from t where n <= 90; checkpoint")
	before := livesOf(t, a.name)
	davit(t, east, a.vault, "restore", one.name, "--yes", "--existing-kind", "persistentvolumeclaims=replace").want(t, 4)
	if got := query(t, east, a.name, "pg-b", "select count(*), min(n), max(n) from t"); got != books100 {
		t.Errorf("pg-b has %s, want %s", got, books100)
	}
	if after := livesOf(t, a.name); after["pg-b-0"] == before["pg-b-0"] {
		t.Error("the pod that had the volume mounted was never stopped")
	}
	untouched(t, a, before, "pg-b-", map[string]string{"pg-a": "150", "pg-c": "150"})
}

// ringInPlace loses a ring with its claims and brings it back among its neighbours.
func ringInPlace(t *testing.T, a, group *app, files [3]string) {
	before := livesOf(t, a.name)
	kubectl(t, east, "-n", a.name, "delete", "statefulset/ring", "service/ring", "configmap/ring")
	kubectl(t, east, "-n", a.name, "delete", "pvc", "-l", "tier=ring")
	davit(t, east, a.vault, "restore", group.name, "--yes").want(t, 4, group.name+" is restored at site east") // the namespace is in use, which is a finding
	for i, want := range files {
		if got := ringFile(t, east, a.name, i); got != want {
			t.Errorf("ring-%d holds %q, want %q", i, got, want)
		}
	}
	untouched(t, a, before, "ring-", map[string]string{"pg-a": "150", "pg-b": "100", "pg-c": "150"})
}

// onePod rolls the volume of one pod of a StatefulSet back. Its neighbours in
// the StatefulSet stand still meanwhile, which is said before; their data stays.
func onePod(t *testing.T, a, pod *app, p pointView, want string) {
	davit(t, east, a.vault, "describe", p.ID).want(t, 0, "makes pods that are not the application's besides those that are")
	for i := range 3 {
		kubectl(t, east, "-n", a.name, "exec", fmt.Sprintf("ring-%d", i), "--", "sh", "-c", "echo later > /data/file; sync")
	}
	before := livesOf(t, a.name)
	args := []string{"restore", pod.name, "--yes", "--existing-kind", "persistentvolumeclaims=replace"}
	davit(t, east, a.vault, append(args, "--dry-run")...).want(t, 4, "stands still with ring-0, ring-2 as well while claim data-ring-1 is filled")
	davit(t, east, a.vault, args...).want(t, 4, "stands still with ring-0, ring-2")
	if got := ringFile(t, east, a.name, 1); got != want {
		t.Errorf("ring-1 holds %q, want %q", got, want)
	}
	for _, i := range []int{0, 2} {
		if got := ringFile(t, east, a.name, i); got != "later" {
			t.Errorf("ring-%d holds %q, although only ring-1 was restored", i, got)
		}
	}
	untouched(t, a, before, "ring-", map[string]string{"pg-a": "150", "pg-b": "100", "pg-c": "150"})

	copied := a.name + "-one"
	removeNamespace(t, west, copied)
	davit(t, west, a.vault, "restore", p.ID, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes").
		want(t, 4, "the point has volumes of ring-1 alone: ring-0, ring-2 would begin with empty ones")
	if got := ringFile(t, west, copied, 1); got != want {
		t.Errorf("the copy of ring-1 holds %q, want %q", got, want)
	}
	if got := strings.Fields(kubectl(t, west, "-n", copied, "get", "statefulsets", "-o", "jsonpath={.items[*].metadata.name}")); !slices.Equal(got, []string{"ring"}) {
		t.Errorf("the copy has StatefulSets %v", got)
	}
}
