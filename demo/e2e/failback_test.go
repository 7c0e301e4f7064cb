package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// writing has the application at a site write numbered lines, each acknowledged
// only once it is on stable storage, until it is stopped or the site takes no
// more. It returns the last number that was acknowledged.
func writing(t *testing.T, site, namespace string) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	acknowledged := make(chan int, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			line := fmt.Sprintf("echo %d >> /data/ledger && sync", n+1)
			if _, err := rig.Kubectl(ctx, site, "-n", namespace, "exec", "db-0", "-c", "db", "--", "sh", "-c", line); err != nil {
				break
			}
			n++
		}
		acknowledged <- n
	}()
	return func() int {
		cancel()
		return <-acknowledged
	}
}

// kustomizations is what of Flux's definition matters to who suspends it.
const kustomizations = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: kustomizations.kustomize.toolkit.fluxcd.io}
spec:
  group: kustomize.toolkit.fluxcd.io
  scope: Namespaced
  names: {plural: kustomizations, singular: kustomization, kind: Kustomization}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

// madeFromGit has a Kustomization make the application at both sites, and returns
// the steps of a plan that suspend it where the application goes away, and let it go
// on where it comes to. suspended says how it is.
func madeFromGit(t *testing.T, name string) (suspended func(site string) string, steps []string) {
	t.Helper()
	const resource = "kustomizations.kustomize.toolkit.fluxcd.io"
	for _, site := range []string{east, west} {
		apply(t, site, kustomizations)
		kubectl(t, site, "wait", "--for=condition=Established", "--timeout=2m", "crd/"+resource)
		apply(t, site, "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: "+name+", namespace: default}\nspec: {path: ./shop}\n")
	}
	suspended = func(site string) string {
		return kubectl(t, site, "-n", "default", "get", resource, name, "-o", "jsonpath={.spec.suspend}")
	}
	what := resource + "/default/" + name
	return suspended, []string{
		fmt.Sprintf("{name: git-off, kind: suspend, object: %s, timeout: 1m, before: [quiesce/%s]}", what, name),
		fmt.Sprintf("{name: git-on, kind: resume, side: target, object: %s, timeout: 1m, after: [ready/%s]}", what, name),
	}
}

// failedBack brings an application back to the site that it was failed over from.
// What that site alone had is kept, what the other one wrote is all there, and of
// the volume only what differs was moved.
func failedBack(t *testing.T) {
	a := &app{size: 32 << 10, disk: "128Mi"}
	sum, _ := a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	kubectl(t, east, "-n", a.name, "exec", "db-0", "-c", "db", "--", "sh", "-c", "echo only east has this > /data/diverged && sync")
	suspended, steps := madeFromGit(t, a.name)
	file := planOf(t, a, "60s", steps...)
	davit(t, west, a.vault, "failback", "-f", file, "--dry-run").want(t, 3, "site west never ran it", "use switchover")
	var over, back runView
	davit(t, west, a.vault, "failover", "-f", file, "--yes", "-o", "json").want(t, 0).read(t, &over)
	davit(t, west, a.vault, "runs", "commit", over.Run).want(t, 0, "Completed")
	if got := a.sum(t, west, a.name); got != sum {
		t.Fatalf("the data came to west as %s, want %s", got, sum)
	}
	if e, w := suspended(east), suspended(west); e != "true" || w != "" {
		t.Errorf("after the failover git is suspended at east: %q, at west: %q", e, w)
	}
	stop := writing(t, west, a.name)
	davit(t, east, a.vault, "failback", "-f", file, "--dry-run").want(t, 0, "what only site east has is captured and kept", "Nothing is lost", "one run of the verb failover")
	davit(t, east, a.vault, "failback", "-f", file, "--to", east, "--yes", "-o", "json").want(t, 0).read(t, &back)
	written := stop()
	if back.State != "AwaitingCommit" || back.Level != "proven" || back.Applications[0].Epoch != 3 {
		t.Fatalf("%+v", back)
	}

	if got := a.sum(t, east, a.name); got != sum {
		t.Errorf("the data came back as %s, want %s", got, sum)
	}
	lines := strings.Fields(kubectl(t, east, "-n", a.name, "exec", "db-0", "-c", "db", "--", "cat", "/data/ledger"))
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("line %d of the ledger is %q", i+1, line)
		}
	}
	if written == 0 || len(lines) < written {
		t.Errorf("%d writes were acknowledged at west, and east has %d", written, len(lines))
	}
	if got := try(t, east, "-n", a.name, "exec", "db-0", "-c", "db", "--", "ls", "/data"); strings.Contains(got, "diverged") {
		t.Errorf("what had diverged is still in the volume: %s", got)
	}
	for _, step := range []string{"catch-up/", "data/"} {
		s := back.stepOf(step + a.name)
		if s.Moved == nil || s.Moved.Of < int64(a.size)<<10 || s.Moved.Bytes*10 > s.Moved.Of {
			t.Errorf("%s moved %+v", s.Name, s.Moved)
			continue
		}
		t.Logf("%s fetched %d of %d bytes", s.Name, s.Moved.Bytes, s.Moved.Of)
	}
	role, replicas := a.status(t, west, "role"), a.replicas(t, west)
	if role != "Superseded" || replicas != "0" {
		t.Errorf("west is %s and wants %s replicas", role, replicas)
	}
	if e, w := suspended(east), suspended(west); e != "" || w != "true" {
		t.Errorf("after the failback git is suspended at east: %q, at west: %q", e, w)
	}
	a.diverged(t, back.stepOf("pin/"+a.name).Point)
	davit(t, east, a.vault, "runs", "commit", back.Run).want(t, 0, "Completed")
	eventually(t, 3*time.Minute, "east is the active site again, and whole", func() (bool, string) {
		now := a.status(t, east, "role") + " " + try(t, east, "-n", system, "get", "application", a.name, "-o", `jsonpath={.metadata.annotations.davit\.dev/restoring}`)
		return now == "Active ", now
	})
	a.backup(t) // protection goes on
}

// diverged looks into the point that a failback made of what only the old site had.
func (a *app) diverged(t *testing.T, id string) {
	t.Helper()
	for _, p := range a.points(t, west) {
		if p.ID == id && (p.Phase != "Quarantined" || !p.Pinned) {
			t.Errorf("what had diverged is %+v", p)
		}
	}
	namespace := a.name + "-pin"
	removeNamespace(t, west, namespace)
	args := []string{"restore", id, "--as-clone", "--map-namespace", a.name + "=" + namespace, "--yes"}
	davit(t, west, a.vault, args...).want(t, 3, "quarantined")
	davit(t, west, a.vault, append(args, "--accept-quarantined")...).want(t, 0)
	a.sum(t, west, namespace)
	got := kubectl(t, west, "-n", namespace, "exec", "db-0", "-c", "db", "--", "sh", "-c", "cat /data/diverged; ls /data")
	if !strings.Contains(got, "only east has this") || strings.Contains(got, "ledger") {
		t.Errorf("what had diverged was kept as %q", got)
	}
}
