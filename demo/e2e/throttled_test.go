package e2e

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// keeping is a class whose volumes outlive their claims.
const keeping = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: %s}
provisioner: reflink.csi.davit.dev
parameters: {csi.storage.k8s.io/fstype: ext4}
reclaimPolicy: Retain
volumeBindingMode: WaitForFirstConsumer
`

// throttled bounds what west's nodes read and write of their disks to a quarter of what they
// have just done without a bound, and sees by what the nodes themselves report that they keep
// to it, each in its direction. The volumes are of a class that keeps them: those that Davit
// makes to read from go all the same. It asks east for nothing.
func throttled(t *testing.T) {
	a := &app{name: short(t), vault: common}
	class := a.name + "-kept"
	apply(t, west, fmt.Sprintf(keeping, class))
	t.Cleanup(func() { a.forgetKept(class) })
	removeNamespace(t, west, a.name)
	apply(t, west, fmt.Sprintf(manifest, a.name, 32<<10, class, "96Mi", 0, ""))
	a.sum(t, west, a.name)
	davit(t, west, a.vault, "protect", a.name).want(t, 0)
	t.Cleanup(func() { unprotect(west, a.name) })

	seen := watchTasks(t, west)
	read, wrote := a.there(t, seen, "free")
	bound := func(per int64) string { return fmt.Sprint(max(per/4, 64<<10)) }
	slow := []string{"--disk-read", bound(read.rate()), "--disk-write", bound(wrote.rate())}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := rig.Equip(ctx, west); err != nil {
			t.Error(err)
		}
		if err := rig.Settled(ctx, west); err != nil {
			t.Error(err)
		}
	})
	if err := rig.Equip(t.Context(), west, slow...); err != nil {
		t.Fatal(err)
	}
	if err := rig.Settled(t.Context(), west); err != nil {
		t.Fatal(err)
	}
	kubectl(t, west, "-n", a.name, "exec", "db-0", "-c", "db", "--", "sh", "-c", "cd /data && dd if=/dev/urandom of=file bs=1024 count=32768 && sha256sum file > sum && sync")
	slowRead, slowWrote := a.there(t, seen, "bound")
	for what, pair := range map[string][2]task{"read": {read, slowRead}, "written": {wrote, slowWrote}} {
		free, held := pair[0], pair[1]
		t.Logf("%s: %d bytes in %s, and with a bound %d in %s", what, free.bytes, free.took, held.bytes, held.took)
		// Times are told in whole seconds; a burst of 1 MiB passes at once.
		if least := time.Duration(held.bytes-1<<20) * time.Second / time.Duration(max(free.rate()/4, 64<<10)); held.took+time.Second < least {
			t.Errorf("%d bytes were %s in %s: by the bound that takes %s at least", held.bytes, what, held.took, least)
		}
	}
	eventually(t, 3*time.Minute, "what was made to read from is gone", func() (bool, string) {
		got := try(t, west, "get", "pv", "-o", `jsonpath={range .items[?(@.spec.storageClassName=="`+class+`")]}{.spec.claimRef.namespace}/{.spec.claimRef.name} {.status.phase},{end}`)
		return !strings.Contains(got, system+"/"), got
	})
	a.keptFromCaptures(t)
	a.madeUpFor(t)
}

// keptFromCaptures sees that the account of captures may not have the application's own volume
// deleted. The control, somebody who may, has the same change tried and not made.
func (a *app) keptFromCaptures(t *testing.T) {
	t.Helper()
	pv := kubectl(t, west, "-n", a.name, "get", "pvc", "-o", "jsonpath={.items[0].spec.volumeName}")
	patch := func(as ...string) string {
		return try(t, west, append([]string{"patch", "pv", pv, "--dry-run=server", "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`}, as...)...)
	}
	if got := patch("--as", "system:serviceaccount:"+system+":davit-capture"); !strings.Contains(got, "captures change volumes of scratch claims alone") {
		t.Errorf("davit-capture may have a volume of an application deleted: %s", got)
	}
	if got := patch(); !strings.Contains(got, "patched") {
		t.Errorf("control: %s", got)
	}
}

// madeUpFor takes west's agent away while the only captures of the day are due, of many
// applications, by a cron expression: each is made up for, once, when the agent is back.
func (a *app) madeUpFor(t *testing.T) {
	t.Helper()
	const many = 8
	agent := func(replicas int) {
		kubectl(t, west, "-n", system, "scale", "deployment/davit-agent", fmt.Sprintf("--replicas=%d", replicas))
		kubectl(t, west, "-n", system, "rollout", "status", "deployment/davit-agent", "--timeout=4m")
	}
	scheduled := func() (all map[string][]string, text string) {
		text = try(t, west, "-n", system, "get", "recoverypoints", "-o", `jsonpath={range .items[?(@.spec.trigger=="Schedule")]}{.spec.application}={.status.phase} {end}`)
		all = map[string][]string{}
		for _, one := range strings.Fields(text) {
			if name, phase, _ := strings.Cut(one, "="); strings.HasPrefix(name, a.name) {
				all[name] = append(all[name], phase)
			}
		}
		return all, text
	}
	names, yaml := []string{a.name}, ""
	for i := range many - 1 {
		name := fmt.Sprintf("%s-%d", a.name, i)
		removeNamespace(t, west, name)
		names, yaml = append(names, name), yaml+fmt.Sprintf(small, name, a.name)
	}
	apply(t, west, yaml)
	for _, name := range names[1:] {
		davit(t, west, a.vault, "protect", name).want(t, 0)
		t.Cleanup(func() { unprotect(west, name) })
	}
	eventually(t, 3*time.Minute, "west holds them all", func() (bool, string) {
		got := try(t, west, "-n", system, "get", "applications", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.role} {end}`)
		held := strings.Fields(got)
		return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(held, name+"=Active") }), got
	})
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "-n", system, "scale", "deployment/davit-agent", "--replicas=1")
	})
	agent(0)
	due := time.Now().UTC().Add(time.Minute).Truncate(time.Minute)
	for _, name := range names {
		davit(t, west, a.vault, "protect", name, "--cron", fmt.Sprintf("%d %d * * *", due.Minute(), due.Hour())).want(t, 0)
	}
	eventually(t, 3*time.Minute, "the captures are due", func() (bool, string) {
		return time.Now().After(due.Add(time.Second)), due.String()
	})
	if got, text := scheduled(); len(got) > 0 {
		t.Fatalf("there is %s, and no agent", text)
	}
	agent(1)
	eventually(t, 3*time.Minute, "what was missed is made up for", func() (bool, string) {
		got, text := scheduled()
		for _, name := range names {
			if !slices.Contains(got[name], "Available") {
				return false, text
			}
		}
		return true, ""
	})
	davit(t, west, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 0) // the agent has looked again
	if got, text := scheduled(); len(got) != many || slices.ContainsFunc(slices.Collect(maps.Values(got)), func(points []string) bool { return len(points) != 1 }) {
		t.Errorf("the captures of %d applications were made up for by %s", many, text)
	}
	a.byLabel(t, names[1:])
}

// byLabel captures namespaces that are chosen by their label, and refuses to where no
// namespace is.
func (a *app) byLabel(t *testing.T, namespaces []string) {
	t.Helper()
	name := a.name + "-all"
	t.Cleanup(func() { unprotect(west, name) })
	davit(t, west, a.vault, "protect", name, "-n", namespaces[0], "--namespace-selector", "e2e-of="+a.name).want(t, 0)
	var p pointView
	davit(t, west, "", "backup", name, "--wait", "--timeout", "4m", "-o", "json").want(t, 0).read(t, &p)
	var d struct {
		Manifest struct{ Namespaces []string }
	}
	davit(t, west, a.vault, "describe", p.ID, "-o", "json").want(t, 0).read(t, &d)
	if slices.Sort(d.Manifest.Namespaces); !slices.Equal(d.Manifest.Namespaces, namespaces) {
		t.Errorf("the point has %v, want %v", d.Manifest.Namespaces, namespaces)
	}
	davit(t, west, a.vault, "protect", name, "-n", a.name+"-nowhere-*", "--unset", "namespace-selector").want(t, 3, a.name+"-nowhere-*")
}

// small is an application of next to nothing; its label says whose it is.
const small = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true", e2e-of: %[2]s}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: %[1]s}
data: {colour: green}
---
`

// there has the application captured, and a copy restored, all at west.
func (a *app) there(t *testing.T, seen func(operation string) task, suffix string) (read, wrote task) {
	t.Helper()
	davit(t, west, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 0)
	read = seen("Read")
	copied := a.name + "-" + suffix
	sum := a.sum(t, west, a.name)
	a.clone(t, copied).want(t, 0)
	wrote = seen("Write")
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the copy is %s, want %s", got, sum)
	}
	for _, done := range []task{read, wrote} {
		if done.bytes < 32<<20 {
			t.Fatalf("the node moved %d bytes: the bound would not be seen", done.bytes)
		}
	}
	return read, wrote
}

// forgetKept removes the namespaces with volumes of the class, and those volumes with them.
func (a *app) forgetKept(class string) {
	ctx := context.Background()
	volumes, _ := rig.Kubectl(ctx, west, "get", "pv", "-o", `jsonpath={range .items[?(@.spec.storageClassName=="`+class+`")]}{.metadata.name} {end}`)
	for _, name := range strings.Fields(volumes) {
		_, _ = rig.Kubectl(ctx, west, "patch", "pv", name, "--type=merge", "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
	}
	_, _ = rig.Kubectl(ctx, west, "delete", "namespace", a.name, a.name+"-free", a.name+"-bound", "--ignore-not-found", "--timeout=2m")
	_, _ = rig.Kubectl(ctx, west, "delete", "storageclass", class, "--ignore-not-found")
}

// task is what a node process reports of a volume that it moved.
type task struct {
	bytes int64
	took  time.Duration
}

// rate is in bytes per second; what took less than one is taken for a whole one.
func (d task) rate() int64 { return int64(float64(d.bytes) / max(d.took, time.Second).Seconds()) }

// watchTasks follows what the nodes of a site report until the test ends. seen is the last
// task of an operation that has ended since seen was asked for such.
func watchTasks(t *testing.T, site string) (seen func(operation string) task) {
	t.Helper()
	const what = `{.spec.operation} {.status.bytesDone} {.status.startedAt} {.status.finishedAt}{"\n"}`
	cmd := exec.CommandContext(t.Context(), rig.KubectlPath(), "--kubeconfig", rig.Bed.Site(site).Kubeconfig(), "-n", system, "get", "volumetasks", "--watch", "-o", "jsonpath="+what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	ended := map[string]task{}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var operation, from, to string
			var done task
			if n, _ := fmt.Sscan(lines.Text(), &operation, &done.bytes, &from, &to); n < 4 {
				continue // it has not ended
			}
			begun, err := time.Parse(time.RFC3339, from)
			end, err2 := time.Parse(time.RFC3339, to)
			if err != nil || err2 != nil {
				continue
			}
			done.took = end.Sub(begun)
			mu.Lock()
			ended[operation] = done
			mu.Unlock()
		}
		_ = cmd.Wait() // it ends with the test
	}()
	return func(operation string) (done task) {
		t.Helper()
		eventually(t, time.Minute, "the node's report of a "+operation, func() (bool, string) {
			mu.Lock()
			defer mu.Unlock()
			var there bool
			done, there = ended[operation]
			delete(ended, operation)
			return there, fmt.Sprint(ended)
		})
		return done
	}
}
