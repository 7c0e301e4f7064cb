package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// restoreKilled kills a restore at random moments and gives it again.
func restoreKilled(t *testing.T) {
	a := &app{size: 24 << 10}
	sum, _ := a.protected(t)
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	for range 3 {
		after := 300*time.Millisecond + rand.N(4*time.Second)
		cmd := command(t.Context(), west, a.vault, a.cloneArgs(copied)...)
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		got := finish(t, cmd)
		timer.Stop()
		t.Logf("killed after %s: code %d", after, got.code)
	}
	var r report
	a.clone(t, copied, "-o", "json").want(t, 0).read(t, &r)
	if r.Phase != "Completed" {
		t.Errorf("the restore ended as %s: %+v", r.Phase, r.Result.Warnings)
	}
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	noHelpers(t, west, a.name, copied)
}

// restoreTwice gives the same restore twice at once.
func restoreTwice(t *testing.T) {
	a := &app{slow: 15}
	a.protected(t)
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	done := make(chan outcome, 1)
	go func() { done <- finish(t, command(t.Context(), west, a.vault, a.cloneArgs(copied)...)) }()
	eventually(t, 3*time.Minute, "the first restore holds its lease", func() (bool, string) {
		got := try(t, west, "-n", system, "get", "lease", "restore-"+a.name, "-o", "jsonpath={.spec.holderIdentity}")
		return got != "" && !strings.HasPrefix(got, "error"), got
	})
	a.clone(t, copied).want(t, 3, "another restore of this application runs here", "hint:")
	first := <-done
	first.want(t, 0)
}

// noHelpers waits until nothing is left of what captures and restores make for
// their own use.
func noHelpers(t *testing.T, site, app string, namespaces ...string) {
	t.Helper()
	ask := [][]string{
		{"get", "volumetasks.davit.dev", "-A", "-o", `jsonpath={range .items[*]}task {.spec.source}{"\n"}{end}`},
		{"get", "volumesnapshotcontents", "-o", `jsonpath={range .items[*]}content {.spec.volumeSnapshotRef.namespace}/{.spec.volumeSnapshotRef.name} {.metadata.labels}{"\n"}{end}`},
		{"-n", system, "get", "pods,pvc,volumesnapshots", "-l", "davit.dev/managed-by=davit,app.kubernetes.io/part-of!=davit", "-o", `jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.labels} {.spec.volumes[*].persistentVolumeClaim}{"\n"}{end}`},
	}
	for _, ns := range namespaces {
		ask = append(ask, []string{"-n", ns, "get", "volumesnapshots", "-o", `jsonpath={range .items[*]}snapshot ` + app + ` {.metadata.name}{"\n"}{end}`},
			[]string{"-n", ns, "get", "pods", "-l", "davit.dev/managed-by=davit", "-o", `jsonpath={range .items[*]}pod ` + app + ` {.metadata.name}{"\n"}{end}`})
	}
	eventually(t, 3*time.Minute, "no helper of "+app+" is left at "+site, func() (bool, string) {
		var left []string
		for _, args := range ask {
			for line := range strings.Lines(try(t, site, args...)) {
				if strings.Contains(line, app) || strings.HasPrefix(line, "error") {
					left = append(left, strings.TrimSpace(line))
				}
			}
		}
		return len(left) == 0, strings.Join(left, "; ")
	})
}

// kill takes a pod away as a crash of its machine would: without a word.
func kill(t *testing.T, site, name string) {
	t.Helper()
	kubectl(t, site, "-n", system, "delete", "pod", "-l", "app.kubernetes.io/name="+name, "--force", "--grace-period=0", "--wait=false")
}

// awaitTask waits until a node works on one of the application's volumes.
func awaitTask(t *testing.T, site, app string) {
	t.Helper()
	eventually(t, 3*time.Minute, "a volume of "+app+" is worked on", func() (bool, string) {
		got := try(t, site, "-n", system, "get", "volumetasks.davit.dev", "-o", `jsonpath={range .items[*]}{.spec.source}={.status.phase}{"\n"}{end}`)
		for task := range strings.Lines(got) {
			if strings.Contains(task, app+"/") && strings.Contains(task, "=Running") {
				return true, got
			}
		}
		return false, got
	})
}

// heldApp is an application whose vault the returned wire is the way to: what moves
// its volume's data can be held in the middle.
func heldApp(t *testing.T, vault string, sites ...string) (*app, *wire) {
	t.Helper()
	w := newWire(t)
	addVault(t, vault, bucket(t, vault+"-"+run, w.Endpoint), sites)
	return &app{vault: vault}, w
}

// manifests is where the application's vault, of the test's own, keeps its points.
func (a *app) manifests() string {
	return filepath.Join(projectDir(a.vault+"-"+run), "manifests", a.name)
}

// rewrite puts new data in the place of all that the volume holds.
func (a *app) rewrite(t *testing.T) {
	t.Helper()
	kubectl(t, east, "-n", a.name, "exec", "db-0", "-c", "db", "--", "sh", "-c",
		fmt.Sprintf("cd /data && dd if=/dev/urandom of=file bs=1024 count=%d conv=notrunc && sha256sum file > sum && sync", a.size))
}

// agentKilled kills the agent while it captures: in a hook, and while a node
// reads the volume.
func agentKilled(t *testing.T) {
	a, w := heldApp(t, "agentless", east)
	a.deploy(t)
	a.protect(t, "--hook", "name=slow; pods=app=db; before=sleep 5; on-error=Continue")
	for _, moment := range []func(){
		func() { time.Sleep(time.Second + rand.N(3*time.Second)) }, // the moment of the kill, not a wait
		func() { awaitTask(t, east, a.name) },
	} {
		a.rewrite(t)
		before := len(names(t, a.manifests()))
		let := w.hold(t, http.MethodPut)
		done := make(chan outcome, 1)
		go func() {
			done <- finish(t, command(t.Context(), east, "", "backup", a.name, "--wait", "--timeout", "4m"))
		}()
		eventually(t, 3*time.Minute, "the capture begins", func() (bool, string) {
			got := try(t, east, "-n", system, "get", "recoverypoints", "-l", "davit.dev/application="+a.name, "-o", "jsonpath={.items[*].status.phase}")
			return strings.Contains(got, "Capturing"), got
		})
		moment()
		kill(t, east, "davit-agent")
		let()
		waited := <-done // for the one that was started again
		waited.want(t, 0, "is in the vault")
		eventually(t, 3*time.Minute, "the capture that died is in the vault, or another in its place", func() (bool, string) {
			got := names(t, a.manifests())
			return len(got) > before, strings.Join(got, " ")
		})
		eventually(t, 3*time.Minute, "no capture goes on", func() (bool, string) {
			got := try(t, east, "-n", system, "get", "recoverypoints", "-l", "davit.dev/application="+a.name, "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}`)
			return !strings.Contains(got, "Capturing") && !strings.Contains(got, "Pending"), got
		})
	}
	noHelpers(t, east, a.name, a.name)
	davit(t, east, a.vault, "verify", a.name).want(t, 0, "is whole")
}

func manifests(app string) string { return projectDir(commonBucket()) + "/manifests/" + app }

// nodeKilled kills the node process while it reads and while it writes.
func nodeKilled(t *testing.T) {
	a, w := heldApp(t, "nodeless", east, west)
	sum := a.deploy(t)
	a.protect(t)
	let := w.hold(t, http.MethodPut)
	var asked pointView
	davit(t, east, "", "backup", a.name, "-o", "json").want(t, 0).read(t, &asked)
	awaitTask(t, east, a.name)
	kill(t, east, "davit-node")
	let()
	eventually(t, 4*time.Minute, "the point is available", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "recoverypoint", asked.ID, "-o", "jsonpath={.status.phase} {.status.step} {.status.conditions}")
		return strings.HasPrefix(got, "Available"), got
	})
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	let = w.hold(t, http.MethodGet)
	done := make(chan outcome, 1)
	go func() { done <- finish(t, command(t.Context(), west, a.vault, a.cloneArgs(copied)...)) }()
	awaitTask(t, west, a.name)
	kill(t, west, "davit-node")
	let()
	ended := <-done
	ended.want(t, 0)
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	noHelpers(t, west, a.name, copied)
	noHelpers(t, east, a.name, a.name)
}

// backgroundKilled kills the agent that carries out a Restore object.
func backgroundKilled(t *testing.T) {
	a := &app{size: 24 << 10, slow: 8}
	sum, _ := a.protected(t)
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	done := make(chan outcome, 1)
	go func() { done <- finish(t, command(t.Context(), west, a.vault, a.cloneArgs(copied, "--background")...)) }()
	eventually(t, 3*time.Minute, "the restore makes objects", func() (bool, string) {
		got := try(t, west, "-n", copied, "get", "pvc", "-o", "name")
		return strings.HasPrefix(got, "persistentvolumeclaim"), got
	})
	kill(t, west, "davit-agent")
	ended := <-done
	ended.want(t, 0, "Completed")
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	noHelpers(t, west, a.name, copied)
}
