package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// three are three PostgreSQL databases, each with a volume of its own, and a
// writer that commits a number to the first, then to the second, then to the
// third, and begins again as soon as its pause is over. In every instant a >= b >= c and a-c <= 1 holds, and so
// it must in every recovery point. The writer is no part of the application: in
// a restored copy nothing may put right what was wrong.
const three = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
%[3]s
apiVersion: v1
kind: ConfigMap
metadata: {name: writer, namespace: %[1]s, labels: {davit.dev/exclude: "true"}}
data:
  write: |
    set -eu
    export PGPASSWORD=secret PGUSER=shop PGDATABASE=shop PGCONNECT_TIMEOUT=5
    cd /tmp
    trap 'kill 0' EXIT
    for i in 0 1 2; do
      until psql -q -h db-$i.db -c 'create table if not exists t (n bigint)' -c 'insert into t select 0 where not exists (select from t)' 2>/dev/null; do sleep 0.2; done
    done
    n=$(psql -qAt -h db-0.db -c 'select n from t')
    for i in 1 2; do psql -q -h db-$i.db -c "update t set n = $n"; done
    rm -f in? out?
    for i in 0 1 2; do
      mkfifo in$i out$i
      psql -qAt -v ON_ERROR_STOP=1 -h db-$i.db < in$i > out$i &
    done
    exec 3> in0 4< out0 5> in1 6< out1 7> in2 8< out2
    while %[4]s; do
      n=$((n + 1))
      q="update t set n = $n returning n;"
      echo "$q" >&3; read -r got <&4; [ "$got" = $n ]
      echo "$q" >&5; read -r got <&6; [ "$got" = $n ]
      echo "$q" >&7; read -r got <&8; [ "$got" = $n ]
    done
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: writer, namespace: %[1]s, labels: {davit.dev/exclude: "true"}}
spec:
  selector: {matchLabels: {app: writer}}
  template:
    metadata: {labels: {app: writer}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: writer
        image: %[2]s
        imagePullPolicy: IfNotPresent
        command: [bash, /etc/writer/write]
        volumeMounts: [{name: script, mountPath: /etc/writer}, {name: tmp, mountPath: /tmp}]
      volumes: [{name: script, configMap: {name: writer}}, {name: tmp, emptyDir: {}}]
`

// numbers reads what each database holds. A database that does not answer
// within the limit fails the test: its volume would be frozen.
func numbers(t *testing.T, site, namespace string, limit time.Duration) [3]int64 {
	t.Helper()
	var got [3]int64
	for i := range got {
		pod := fmt.Sprintf("db-%d", i)
		eventually(t, limit, pod+" in "+namespace+" answers", func() (bool, string) {
			out := try(t, site, "-n", namespace, "exec", pod, "--", "psql", "-qAt", "shop", "-c", "select n from t")
			n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
			got[i] = n
			return err == nil, out
		})
	}
	return got
}

// oneInstant is the invariant.
func oneInstant(n [3]int64) bool { return n[0] > 0 && n[0] >= n[1] && n[1] >= n[2] && n[0]-n[2] <= 1 }

// writes waits until the writer commits, which takes all three databases: no
// volume is frozen.
func writes(t *testing.T, namespace string) {
	t.Helper()
	before := numbers(t, east, namespace, 4*time.Minute)
	eventually(t, 3*time.Minute, "the writer of "+namespace+" goes on", func() (bool, string) {
		now := numbers(t, east, namespace, 3*time.Minute)
		return now[2] > before[0]+3, fmt.Sprint(before, now)
	})
}

// Pauses of a writer. One that makes none takes a core and the disk from everybody: it is for tests
// that ask what instant a point shows. For others it is enough that they see it go on.
const (
	without = ":"
	calm    = "sleep 0.05"
)

// deployThree brings the application to east under its writer's load, on
// volumes of the class.
func deployThree(t *testing.T, class, pause string) *app {
	t.Helper()
	return deployThreeOn(t, class, pause, "")
}

// silence ends the writer, once the points that are about its load are there.
func (a *app) silence(t *testing.T) {
	t.Helper()
	kubectl(t, east, "-n", a.name, "scale", "deployment/writer", "--replicas=0")
}

// deployThreeOn is deployThree with more in the databases' pod template.
func deployThreeOn(t *testing.T, class, pause, more string) *app {
	t.Helper()
	if rig.Images["shop-db"] == "" {
		t.Fatal("the bed has no image shop-db")
	}
	a := &app{name: short(t), vault: common}
	removeNamespace(t, east, a.name)
	apply(t, east, fmt.Sprintf(three, a.name, rig.Images["shop-db"], postgres{namespace: a.name, replicas: 3, class: class, pod: more}.yaml(), pause))
	t.Cleanup(func() { unprotect(east, a.name) })
	writes(t, a.name)
	return a
}

// restored brings points up as copies and returns what their databases hold.
// Restores of one application go one after the other at a site, so both sites
// take their share.
func (a *app) restored(t *testing.T, points []pointView) [][3]int64 {
	t.Helper()
	all, first := make([][3]int64, len(points)), a.copies
	a.copies += len(points) // an earlier copy may still be going
	t.Run("restored", func(t *testing.T) {
		for nth, site := range []string{east, west} {
			t.Run(site, func(t *testing.T) {
				t.Parallel()
				for i := nth; i < len(points); i += 2 {
					copied := fmt.Sprintf("%s-%d", a.name, first+i)
					removeNamespace(t, site, copied)
					davit(t, site, a.vault, "restore", points[i].ID, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes").want(t, 0)
					all[i] = numbers(t, site, copied, 4*time.Minute)
					kubectl(t, site, "delete", "namespace", copied, "--wait=false")
				}
			})
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// busyWindow is how long volumes may be held still where a test is about what a point
// shows: on a busy machine three cuts take longer than the ten seconds that people have by
// default. That a window ends is tested where it is the question.
const busyWindow = "30s"

// frozenTogether takes points under load and restores every one of them.
func frozenTogether(t *testing.T) {
	a := deployThree(t, "reflink", without)
	davit(t, east, a.vault, "protect", a.name, "--freeze", "required", "--freeze-window", busyWindow, "--keep-last", "100").want(t, 0)
	count := 5
	if os.Getenv("DAVIT_SOAK") != "" {
		count = 50
	}
	begun := numbers(t, east, a.name, 3*time.Minute)
	var points []pointView
	for range count {
		p := a.backup(t)
		if p.Consistency != "crash" {
			t.Fatalf("point %s is %s: %+v", p.ID, p.Consistency, p)
		}
		points = append(points, p)
	}
	davit(t, east, a.vault, "describe", points[0].ID).want(t, 0, "held still all volumes, for", "on 1 node", "cut by one group snapshot of 3 volumes of driver reflink.csi.davit.dev")
	writes(t, a.name)
	ended := numbers(t, east, a.name, 3*time.Minute)
	t.Logf("%d points were taken while the writer went from %d to %d, in each database", count, begun[0], ended[0])
	noGroups(t, a)
	a.silence(t)
	for i, n := range a.restored(t, points) {
		t.Logf("%s: %v", points[i].ID, n)
		if !oneInstant(n) {
			t.Errorf("point %s shows no one instant: %v", points[i].ID, n)
		}
	}
}

// noGroups waits until nothing is left of the group snapshots of an application.
func noGroups(t *testing.T, a *app) {
	t.Helper()
	eventually(t, 3*time.Minute, "no group snapshot of "+a.name+" is left", func() (bool, string) {
		got := try(t, east, "get", "volumegroupsnapshotcontents", "-o", `jsonpath={.items[*].metadata.labels.davit\.dev/point}`)
		return !strings.Contains(got, a.name+"-") && !strings.HasPrefix(got, "error"), got
	})
}

// oneByOne has volumes that their driver cuts in no group: each is cut by
// itself, inside the same freeze.
func oneByOne(t *testing.T) {
	a := deployThree(t, "reflink-alone", without)
	davit(t, east, a.vault, "protect", a.name, "--freeze", "required", "--freeze-window", busyWindow).want(t, 0)
	p := a.weakBackup(t)
	if p.Consistency != "crash" {
		t.Fatalf("point %s is %s: %+v", p.ID, p.Consistency, p)
	}
	davit(t, east, a.vault, "describe", p.ID).want(t, 0, "cut by 3 snapshots", "its driver made no group snapshot, so the volumes were cut one by one", "takes part in no group snapshot")
	writes(t, a.name)
	noGroups(t, a)
	usedByItsNode(t, a)
	a.silence(t)
	if n := a.restored(t, []pointView{p})[0]; !oneInstant(n) {
		t.Errorf("point %s shows no one instant: %v", p.ID, n)
	}
}

// usedByItsNode has the node itself use the file system of a volume that was held still before: it refuses to freeze it, and
// says where it is used.
func usedByItsNode(t *testing.T, a *app) {
	t.Helper()
	mounts := mountsOf(t, a)
	if len(mounts) != 3 {
		t.Fatalf("volumes are mounted at %v", mounts)
	}
	at := filepath.Join(filepath.Dir(rig.Bed.Site(east).KubeletRoot()), "local", a.name)
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(mounts[0], at, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s at %s: %v", mounts[0], at, err)
	}
	defer func() {
		if err := errors.Join(unix.Unmount(at, unix.MNT_DETACH), os.Remove(at)); err != nil {
			t.Error(err)
		}
	}()
	davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1,
		"the volumes were not cut at one instant, as volumes.freeze requires", "will not be frozen: the node itself uses its file system at "+at)
}

// notFrozen is the control: on storage that cuts volumes one after the other,
// the invariant breaks without the freeze, and holds with it. It stops at the
// first point in which it is seen to break; the soak counts in how many it does.
func notFrozen(t *testing.T) {
	a := deployThree(t, "reflink", without)
	davit(t, east, a.vault, "protect", a.name, "--freeze", "required", "--freeze-window", busyWindow, "--snapshot-class", "reflink-slow").want(t, 0)
	held := a.backup(t)
	if n := a.restored(t, []pointView{held})[0]; held.Consistency != "crash" || !oneInstant(n) {
		t.Errorf("point %s, frozen, is %s and shows %v", held.ID, held.Consistency, n)
	}
	writes(t, a.name)
	overrun(t, a)
	davit(t, east, a.vault, "protect", a.name, "--freeze", "never", "--snapshot-class", "reflink-slow").want(t, 0)
	const most = 5
	broken := 0
	for i := range most {
		p := a.weakBackup(t)
		if p.Consistency != "per-volume" {
			t.Fatalf("point %s is %s although nothing was frozen", p.ID, p.Consistency)
		}
		n := a.restored(t, []pointView{p})[0]
		t.Logf("point %d, not frozen: %v", i+1, n)
		if oneInstant(n) {
			continue
		}
		if broken++; os.Getenv("DAVIT_SOAK") == "" {
			return
		}
	}
	t.Logf("%d of %d points without a freeze show three instants", broken, most)
	if broken == 0 {
		t.Errorf("%d points without a freeze all kept the invariant: the writer is too slow to tell", most)
	}
}

// overrun gives the freeze less time than the cuts take. It ends with its window, and the point says so; where a freeze
// is required there is no point. The writer goes on in both cases.
func overrun(t *testing.T, a *app) {
	t.Helper()
	paced(t, "reflink-crawl", "1s")
	davit(t, east, a.vault, "protect", a.name, "--freeze", "auto", "--freeze-window", "1s", "--snapshot-class", "reflink-crawl").want(t, 0)
	const why = "no order to thaw came within the window of 1s"
	p := a.weakBackup(t)
	if p.Consistency != "per-volume" {
		t.Errorf("point %s, whose cuts took 3 s and whose window was 1 s, is %s", p.ID, p.Consistency)
	}
	davit(t, east, a.vault, "describe", p.ID).want(t, 0, "of 1s at most, on 1 node, but: node east: "+why, "each volume was cut at an instant of its own")
	writes(t, a.name)
	offered := func() (n int) {
		for _, p := range a.points(t, east) {
			if p.Phase == "Available" {
				n++
			}
		}
		return n
	}
	before := offered()
	davit(t, east, a.vault, "protect", a.name, "--freeze", "required").want(t, 0)
	davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "the volumes were not cut at one instant, as volumes.freeze requires", why)
	if got := offered(); got != before {
		t.Errorf("there are %d points, and %d before a freeze that was required did not last", got, before)
	}
	writes(t, a.name)
}

// pauses are hooks that keep /tmp/paused in every database, and take so many seconds:
// the steps around the freeze last as long.
func pauses(seconds int) string {
	return fmt.Sprintf(`
- name: pause
  podSelector: {matchLabels: {app: db}}
  before: [sh, -c, touch /tmp/paused; sleep %[1]d]
  after: [sh, -c, sleep %[1]d; rm -f /tmp/paused]
`, seconds)
}

// stepsOf are the steps of a capture, as what the cluster says of the point and
// of its freeze when they are on: see follow.
var stepsOf = map[string]string{
	"Quiescing":   "Capturing running hook pause before the cut",
	"Armed":       "freeze Armed, ordered Arm",
	"Frozen":      "freeze Frozen, ordered Freeze",
	"Thawing":     "freeze Frozen, ordered Thaw",
	"Unquiescing": "Capturing running hook pause after the cut",
}

// freezeKilled kills the processes at each step of a capture. Afterwards nothing
// stays frozen, no database stays at rest, and the next capture works.
func freezeKilled(t *testing.T) {
	a := deployThree(t, "reflink", calm)
	for _, c := range []struct {
		victim string
		steps  []string
		hooks  int // how long they take
	}{
		{"node", []string{"Armed", "Frozen", "Thawing"}, 0},
		{"watchdog", []string{"Armed", "Frozen", "Thawing"}, 0},
		{"agent", []string{"Armed", "Frozen", "Thawing"}, 0},
		{"agent", []string{"Quiescing", "Unquiescing"}, 3},
		{"driver", []string{"Frozen"}, 0},
	} {
		// Slow storage, so that there is time between freeze and cut.
		davit(t, east, a.vault, "protect", a.name, "--snapshot-class", "reflink-slow", "-f", hooksOf(t, pauses(c.hooks))).want(t, 0)
		for _, step := range c.steps {
			t.Run(c.victim+" when "+step, func(t *testing.T) {
				killAt(t, a, c.victim, step)
				overcome(t, a)
			})
		}
	}
	paced(t, "reflink-slower", "2s")
	davit(t, east, a.vault, "protect", a.name, "--snapshot-class", "reflink-slower").want(t, 0)
	t.Run("agent gone when Frozen", func(t *testing.T) { leftAlone(t, a) })
	t.Run("kube-apiserver when Frozen", func(t *testing.T) { cutOff(t, a) })
	davit(t, east, a.vault, "protect", a.name, "--snapshot-class", "reflink-slow").want(t, 0)
	kubectl(t, east, "-n", system, "rollout", "status", "daemonset/davit-node", "--timeout=4m")
	eventually(t, 4*time.Minute, "a capture is at one instant again", func() (bool, string) {
		var p pointView
		out := davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m", "-o", "json")
		if out.code != 0 {
			return false, out.all()
		}
		out.read(t, &p)
		return p.Consistency == "crash", p.Consistency
	})
}

// cutOff kills the API server while volumes are frozen, and nobody starts it again before their node has thawed them.
func cutOff(t *testing.T, a *app) {
	t.Helper()
	mounts, server := mountsOf(t, a), component(t, east, "kube-apiserver")
	meet(t, a, "Frozen")
	signal(t, []int{server}, syscall.SIGKILL)
	func() {
		defer revive(t, east)
		frozen(t, mounts)
		thawed(t, mounts)
	}()
	overcome(t, a)
}

// leftAlone takes the coordinator away while volumes are frozen. No other comes before their node has thawed them, by itself
// and because the window was over.
func leftAlone(t *testing.T, a *app) {
	t.Helper()
	const agent = "deployment/davit-agent"
	mounts, pids := mountsOf(t, a), pidsOf(t, "agent")
	if len(pids) == 0 {
		t.Fatal("there is no agent to lose")
	}
	meet(t, a, "Frozen")
	signal(t, pids, syscall.SIGSTOP) // whoever is killed is started again at once
	t.Cleanup(func() {
		signal(t, pids, syscall.SIGCONT)
		_, _ = rig.Kubectl(context.Background(), east, "-n", system, "scale", agent, "--replicas=1")
	})
	frozen(t, mounts)
	kubectl(t, east, "-n", system, "scale", agent, "--replicas=0")
	eventually(t, 3*time.Minute, "the agent is to go", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-agent", "-o", `jsonpath={range .items[*]}{.metadata.deletionTimestamp} {end}`)
		return strings.Contains(got, "Z"), got
	})
	signal(t, pids, syscall.SIGKILL)
	thawed(t, mounts)
	writes(t, a.name)
	eventually(t, 3*time.Minute, "the node says why it thawed", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "volumefreezes", "-o", `jsonpath={range .items[*]}{.spec.point} {.spec.order} {.status.phase}: {.status.message}{"\n"}{end}`)
		return strings.Contains(got, a.name+"-") && strings.Contains(got, "Freeze Ended: no order to thaw came within the window of 10s"), got
	})
	if pids := pidsOf(t, "agent"); len(pids) > 0 {
		t.Errorf("there was an agent all the same: %v", pids)
	}
	kubectl(t, east, "-n", system, "scale", agent, "--replicas=1")
	kubectl(t, east, "-n", system, "rollout", "status", agent, "--timeout=4m")
	overcome(t, a)
}

// frozen checks that there is something to thaw.
func frozen(t *testing.T, mounts []string) {
	t.Helper()
	if len(mounts) != 3 {
		t.Fatalf("volumes are mounted at %v", mounts)
	}
	if stillFrozen(mounts[0]) == nil {
		t.Fatal("nothing was frozen any more: this proves nothing")
	}
}

// paced makes a class of snapshots at east that are cut one after the other, each so long after the one before it.
func paced(t *testing.T, name, pace string) {
	t.Helper()
	apply(t, east, "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotClass, metadata: {name: "+name+
		"}, driver: reflink.csi.davit.dev, deletionPolicy: Delete, parameters: {pace: "+pace+"}}")
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), east, "delete", "volumesnapshotclass", name, "--ignore-not-found")
	})
}

// overcome waits until a capture that lost a process has come to its end, and nothing is left of it.
func overcome(t *testing.T, a *app) {
	t.Helper()
	eventually(t, 4*time.Minute, "the capture has come to an end", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "recoverypoints", "-l", "davit.dev/application="+a.name, "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}`)
		return !strings.Contains(got, "Capturing") && !strings.Contains(got, "Pending") && !strings.HasPrefix(got, "error"), got
	})
	writes(t, a.name)
	noneAtRest(t, a)
	eventually(t, 3*time.Minute, "no order to freeze is left", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "volumefreezes", "-o", "jsonpath={.items[*].spec.point}")
		return !strings.Contains(got, a.name), got
	})
}

// noneAtRest waits until no hook holds a database, and none is owed its release.
func noneAtRest(t *testing.T, a *app) {
	t.Helper()
	eventually(t, 3*time.Minute, "no database of "+a.name+" stays at rest", func() (bool, string) {
		for i := range 3 {
			got := try(t, east, "-n", a.name, "exec", fmt.Sprintf("db-%d", i), "--", "sh", "-c", "test -e /tmp/paused || echo free")
			if strings.TrimSpace(got) != "free" {
				return false, fmt.Sprintf("db-%d: %s", i, got)
			}
		}
		got := try(t, east, "-n", system, "get", "configmaps", "-l", "davit.dev/owed", "-o", "name")
		return got == "", got
	})
}

// follow tells, as it happens, what the east site says of points and of their
// freezes: the point's name, a blank, and what is told of it.
func follow(t *testing.T) <-chan string {
	t.Helper()
	told := make(chan string, 1000)
	for kind, template := range map[string]string{
		"recoverypoints": `{.metadata.name} {.status.phase} {.status.step}{"\n"}`,
		"volumefreezes":  `{.spec.point} freeze {.status.phase}, ordered {.spec.order}{"\n"}`,
	} {
		cmd := exec.CommandContext(t.Context(), rig.KubectlPath(), "--kubeconfig", rig.Bed.Site(east).Kubeconfig(), "-n", system, "get", kind, "--watch", "-o", "jsonpath="+template)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				told <- lines.Text()
			}
			_ = cmd.Wait() // it ends with the test
		}()
	}
	return told
}

// meet asks for captures until one is at the step, and returns then. A process
// that was killed just before may take no part in the next one yet: that ends
// without the step.
func meet(t *testing.T, a *app, step string) {
	t.Helper()
	told, limit := follow(t), time.After(4*time.Minute)
	for range 10 {
		var asked pointView
		davit(t, east, "", "backup", a.name, "-o", "json").want(t, 0).read(t, &asked)
		for over := false; !over; {
			select {
			case line := <-told:
				id, says, _ := strings.Cut(line, " ")
				if id != asked.ID {
					continue
				}
				if strings.HasPrefix(says, stepsOf[step]) {
					return
				}
				over = strings.HasPrefix(says, "Available") || strings.HasPrefix(says, "Failed")
			case <-limit:
				t.Fatalf("no capture was seen at the step %s", step)
			}
		}
	}
	t.Fatalf("ten captures ended and none was seen at the step %s", step)
}

// killAt waits for a step of a capture and kills a process then, as kill -9
// does.
func killAt(t *testing.T, a *app, victim, step string) {
	t.Helper()
	var pids []int
	eventually(t, 4*time.Minute, victim+" runs", func() (bool, string) {
		pids = pidsOf(t, victim)
		return len(pids) > 0, fmt.Sprint(pids)
	})
	meet(t, a, step)
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
}

// pidsOf finds the processes of davit at the east site, or of its storage driver. They are this
// machine's: a site is no more than network namespaces and containers.
func pidsOf(t *testing.T, victim string) []int {
	t.Helper()
	root := rig.Bed.Site(east).KubeletRoot()
	want := map[string]string{
		"node": "davit\x00node\x00--kubelet-root=" + root, "watchdog": "davit\x00node\x00watchdog", "agent": "davit\x00agent\x00--site=" + east,
		"driver": "/reflink-csi\x00-host-mounts\x00-socket=" + root + "/",
	}[victim]
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
		if strings.Contains(string(line), want) && atSite(e.Name()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// atSite says whether a process is in a container of this bed's east site: its
// mounts are below the site's directory.
func atSite(pid string) bool {
	mounts, _ := os.ReadFile("/proc/" + pid + "/mountinfo")
	root := strings.TrimSuffix(rig.Bed.Site(east).KubeletRoot(), "/kubelet")
	return strings.Contains(string(mounts), root)
}
