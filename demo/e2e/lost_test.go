package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// paused are hooks that keep /tmp/paused in every database across the cut.
const paused = `
- name: pause
  podSelector: {matchLabels: {app: db}}
  before: [touch, /tmp/paused]
  after: [rm, -f, /tmp/paused]
`

// nodeLost takes the kubelet and the node process away from the site's only
// node in the middle of a capture: nothing comes back there by itself, as when
// its machine is lost. Volumes are not left frozen, nor databases at rest, and
// the point is weaker and says why.
func nodeLost(t *testing.T) {
	a := deployThree(t, "reflink", calm)
	// Slow storage, so that there is time between freeze and cut.
	davit(t, east, a.vault, "protect", a.name, "--snapshot-class", "reflink-slow", "-f", hooksOf(t, paused)).want(t, 0)
	t.Cleanup(func() { _ = rig.Bed.Revive(context.Background(), east) })
	t.Run("and comes back", func(t *testing.T) {
		id := loseNode(t, a, frozenNow)
		reviveNode(t, a)
		phase, why := endOf(t, id)
		if phase != "Available" {
			t.Fatalf("point %s is %s: %s", id, phase, why)
		}
		davit(t, east, a.vault, "describe", id).want(t, 0, "consistency per-volume", "node east: ")
	})
	eventually(t, 4*time.Minute, "a capture is at one instant again", func() (bool, string) {
		p := a.weakBackup(t)
		return p.Consistency == "crash", p.Consistency
	})
}

// frozenNow says whether the capture of a point holds the volumes frozen.
func frozenNow(id string) bool {
	out, err := rig.Kubectl(context.Background(), east, "-n", system, "get", "volumefreezes", "-o", `jsonpath={range .items[*]}{.spec.point}={.status.phase} {end}`)
	return err == nil && strings.Contains(out, id+"=Frozen")
}

// loseNode asks for a capture and takes the node away at a moment of it. It
// returns when no volume of the application is frozen.
func loseNode(t *testing.T, a *app, moment func(id string) bool) (id string) {
	t.Helper()
	mounts := mountsOf(t, a)
	victims := append(kubelets(t), pidsOf(t, "node")...)
	if len(mounts) != 3 || len(victims) < 2 {
		t.Fatalf("volumes are mounted at %v; to be killed: %v", mounts, victims)
	}
	var asked pointView
	davit(t, east, "", "backup", a.name, "-o", "json").want(t, 0).read(t, &asked)
	deadline := time.Now().Add(4 * time.Minute)
	for !moment(asked.ID) {
		if time.Now().After(deadline) {
			t.Fatalf("the capture of %s never came to its moment", asked.ID)
		}
	}
	for _, pid := range victims { // the kubelet first: it would start the others again
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	thawed(t, mounts)
	return asked.ID
}

// thawed waits until no file system is frozen that is mounted at one of the places. It asks the kernel: no cluster is needed.
func thawed(t *testing.T, mounts []string) {
	t.Helper()
	eventually(t, 3*time.Minute, "no volume stays frozen", func() (bool, string) {
		for _, m := range mounts {
			if err := stillFrozen(m); err != nil {
				return false, err.Error()
			}
		}
		return true, ""
	})
}

// kubelets finds the kubelet of the east site.
func kubelets(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		program, _, _ := strings.Cut(string(line), "\x00")
		if strings.HasSuffix(program, "/kubelet") && strings.Contains(string(line), rig.Bed.Site(east).KubeletRoot()+"\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// mountsOf are the places where the volumes of the application's databases are
// mounted on this machine.
func mountsOf(t *testing.T, a *app) []string {
	t.Helper()
	names := strings.Fields(kubectl(t, east, "-n", a.name, "get", "pvc", "-o", "jsonpath={.items[*].spec.volumeName}"))
	all, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(all)) {
		fields := strings.Fields(line)
		for _, name := range names {
			if len(fields) > 4 && strings.HasPrefix(fields[4], rig.Bed.Site(east).KubeletRoot()+"/pods/") && strings.Contains(fields[4], "/"+name+"/") {
				found = append(found, fields[4])
			}
		}
	}
	return found
}

// stillFrozen freezes a file system and thaws it again, which only one that is
// not frozen allows.
func stillFrozen(mount string) error {
	const fiFreeze, fiThaw = 0xC0045877, 0xC0045878
	dir, err := os.Open(mount)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil {
		return fmt.Errorf("freeze %s: %w", mount, err)
	}
	return unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0)
}

// reviveNode brings the node back, and waits until no database is at rest.
func reviveNode(t *testing.T, a *app) {
	t.Helper()
	if err := rig.Bed.Revive(t.Context(), east); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		pod := fmt.Sprintf("db-%d", i)
		eventually(t, 3*time.Minute, pod+" was let go", func() (bool, string) {
			got := try(t, east, "-n", a.name, "exec", pod, "--", "sh", "-c", "test -e /tmp/paused || echo free")
			return strings.TrimSpace(got) == "free", got
		})
	}
	writes(t, a.name)
	eventually(t, 3*time.Minute, "nothing is owed, and no order to freeze is left", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "configmaps", "-l", "davit.dev/owed", "-o", "name") +
			try(t, east, "-n", system, "get", "volumefreezes", "-o", "name")
		return got == "", got
	})
}

// endOf waits until a capture has ended, and says how and why.
func endOf(t *testing.T, id string) (phase, why string) {
	t.Helper()
	eventually(t, 6*time.Minute, "the capture of "+id+" ends", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "recoverypoint", id, "-o", `jsonpath={.status.phase} {.status.conditions[?(@.type=="Ready")].message}`)
		phase, why, _ = strings.Cut(got, " ")
		return phase == "Available" || phase == "Failed", got
	})
	return phase, why
}

// fullWhileFrozen has a database's volume run full, which can be captured all
// the same, and then the storage itself, when everything is frozen: the capture
// fails and says so, and nothing stays frozen or at rest.
func fullWhileFrozen(t *testing.T) {
	a := deployThree(t, "reflink", calm)
	davit(t, east, a.vault, "protect", a.name, "--freeze", "required", "--freeze-window", busyWindow, "-f", hooksOf(t, paused)).want(t, 0)
	const ballast = "/var/lib/postgresql/data/ballast"
	fill := "dd if=/dev/zero of=" + ballast + " bs=1M; sync; true"
	kubectl(t, east, "-n", a.name, "exec", "db-1", "--", "sh", "-c", fill)
	p := a.weakBackup(t)
	if p.Consistency != "crash" {
		t.Errorf("point %s of a volume that is full is %s", p.ID, p.Consistency)
	}
	kubectl(t, east, "-n", a.name, "exec", "db-1", "--", "rm", ballast)
	davit(t, east, a.vault, "protect", a.name, "--snapshot-class", "reflink-full").want(t, 0)
	davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "has no room left for snapshots")
	for _, m := range mountsOf(t, a) {
		if err := stillFrozen(m); err != nil {
			t.Error(err)
		}
	}
	for i := range 3 {
		if got := strings.TrimSpace(kubectl(t, east, "-n", a.name, "exec", fmt.Sprintf("db-%d", i), "--", "sh", "-c", "test -e /tmp/paused || echo free")); got != "free" {
			t.Errorf("db-%d is still at rest", i)
		}
	}
	writes(t, a.name)
}
