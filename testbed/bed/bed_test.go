package bed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/testbed/bed/mount"
	"davit.dev/davit/testbed/build"
)

const workload = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: ` + ToolImage + `
    command: [httpd, -f, -p, "80", -h, /data]
    readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`

// TestBed breaks a real bed in every way the bed offers. Each break is shown to be one by what still works beside it.
func TestBed(t *testing.T) {
	if os.Getenv("DAVIT_BED") == "" {
		t.Skip("needs root, Debian packages and some minutes; set DAVIT_BED=1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute) // a first build takes most of it
	defer cancel()
	b := must(Open("selftest"))(t)
	check(t, b.Down(ctx))
	t.Cleanup(func() { _ = b.Down(context.Background()) })
	bin := must(build.All(ctx, testLog{t}))(t)
	check(t, b.Up(ctx, Options{Sites: []string{"north", "south"}, Log: testLog{t}}))
	north := rig{t: t, Site: b.Site("north"), bin: bin}
	deploy(ctx, north)
	t.Run("services resolve", func(t *testing.T) { services(ctx, north.with(t)) })
	t.Run("cut and heal", func(t *testing.T) { cuts(ctx, b, north.with(t)) })
	t.Run("cut of a connection", func(t *testing.T) { establishedCut(ctx, b, t) })
	t.Run("cut from the host", func(t *testing.T) { hostCut(ctx, b, t) })
	t.Run("vault speaks S3", func(t *testing.T) { vaultSpeaks(ctx, b, t) })
	t.Run("registry serves", func(t *testing.T) { registryServes(ctx, north.with(t)) })
	t.Run("kill and revive", func(t *testing.T) { killRevive(ctx, b, north.with(t)) })
	t.Run("kill and revive the vault", func(t *testing.T) { vaultKill(ctx, b, t) })
	t.Run("second up is quick", func(t *testing.T) {
		start := time.Now()
		check(t, b.Up(ctx, Options{}))
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("second up took %s", took)
		}
	})
	t.Run("a node more", func(t *testing.T) { nodeMore(ctx, b, north.with(t)) })
	t.Run("images survive", func(t *testing.T) { registryKeeps(ctx, north.with(t)) })
	t.Run("a frozen file system does not stop down", func(t *testing.T) { freeze(ctx, north.with(t)) })
	t.Run("a site less", func(t *testing.T) { siteLess(ctx, b, t) })
	t.Run("down leaves nothing", func(t *testing.T) { downClean(ctx, b, t) })
}

// rig runs commands in a site on behalf of a test.
type rig struct {
	*Site
	t   *testing.T
	bin build.Set
}

func (r rig) with(t *testing.T) rig { r.t = t; return r }

func (r rig) kubectlOK(ctx context.Context, stdin string, args ...string) string {
	r.t.Helper()
	return must(r.kubectl(ctx, r.bin, stdin, args...))(r.t)
}

// shell runs a script in the pod and returns its output and error.
func (r rig) shell(ctx context.Context, script string) (string, error) {
	return r.kubectl(ctx, r.bin, "", "exec", "web", "--", "sh", "-c", script)
}

// reaches reports whether the pod gets a TCP connection.
func (r rig) reaches(ctx context.Context, address string, port int) bool {
	_, err := r.shell(ctx, fmt.Sprintf("nc -w 1 %s %d </dev/null", address, port))
	return err == nil
}

func deploy(ctx context.Context, r rig) {
	r.kubectlOK(ctx, workload, "apply", "-f", "-")
	r.kubectlOK(ctx, "", "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
	must(r.shell(ctx, "echo precious > /data/index.html && sync"))(r.t)
}

func services(ctx context.Context, r rig) {
	out := must(r.shell(ctx, "nslookup web.default.svc.cluster.local && wget -qO- http://web.default/"))(r.t)
	if !strings.Contains(out, "precious") {
		r.t.Errorf("service answered %q", out)
	}
	if out, err := r.shell(ctx, "nslookup nothere.default.svc.cluster.local"); err == nil {
		r.t.Errorf("a Service that does not exist resolves: %s", out)
	}
}

func cuts(ctx context.Context, b *Bed, r rig) {
	south, vault := b.Site("south").Address(), b.vault().net.Address()
	expect := func(when string, toSouth, toVault bool) {
		r.t.Helper()
		if got := r.reaches(ctx, south, 6443); got != toSouth {
			r.t.Errorf("%s: reaches south: %v, want %v", when, got, toSouth)
		}
		if got := r.reaches(ctx, vault, s3Port); got != toVault {
			r.t.Errorf("%s: reaches vault: %v, want %v", when, got, toVault)
		}
	}
	expect("before", true, true)
	check(r.t, b.Cut(ctx, "north", "south"))
	check(r.t, b.Cut(ctx, "south", "north")) // twice, in the other order: no change
	expect("cut from south", false, true)
	check(r.t, b.Heal(ctx, "north", "south"))
	check(r.t, b.Heal(ctx, "north", "south"))
	expect("healed", true, true)
	check(r.t, b.Cut(ctx, "north", VaultName))
	expect("cut from vault", true, false)
	check(r.t, b.HealAll(ctx))
	expect("all healed", true, true)
}

func hostCut(ctx context.Context, b *Bed, t *testing.T) {
	north, south := b.Site("north"), b.Site("south")
	check(t, b.Cut(ctx, hostName, "north"))
	if err := north.dial(6443)(); err == nil {
		t.Error("the host reaches a site it is cut from")
	}
	check(t, south.dial(6443)())
	check(t, b.Heal(ctx, "north", hostName))
	check(t, north.apiReady())
}

func killRevive(ctx context.Context, b *Bed, r rig) {
	inside := containerProcesses(ctx, r.t, r.Site)
	stuckWriter(ctx, r)
	start := time.Now()
	check(r.t, r.Kill(ctx))
	r.t.Logf("kill took %s", time.Since(start))
	expectDead(r.t, inside)
	if left := r.pids(); len(left) > 0 {
		r.t.Errorf("processes survived: %v", left)
	}
	if r.linkIsUp() {
		r.t.Error("the link of a killed site is up")
	}
	if err := r.dial(6443)(); err == nil {
		r.t.Error("a killed site answers")
	}
	check(r.t, b.Site("south").nodeReady(ctx, "south", time.Time{}))
	check(r.t, r.Kill(ctx)) // of a dead site: nothing to do
	start = time.Now()
	check(r.t, r.Revive(ctx))
	r.t.Logf("revive took %s", time.Since(start))
	check(r.t, r.await(ctx, "kubelet", func() error {
		out, err := r.shell(ctx, "wget -qO- http://web.default/")
		if err == nil && !strings.Contains(out, "precious") {
			r.t.Errorf("the volume came back with %q", out)
		}
		return err
	}))
	must(r.shell(ctx, "echo thawed > /data/after && sync"))(r.t)
	r.t.Logf("workload serves after %s", time.Since(start))
}

// containerProcesses asks containerd for the first process of every container, with its start time. It shares nothing
// with how the bed itself finds processes.
func containerProcesses(ctx context.Context, t *testing.T, s *Site) map[int]string {
	t.Helper()
	found := map[int]string{}
	for line := range strings.Lines(must(s.Containerd(ctx, "tasks", "list"))(t)) {
		fields := strings.Fields(line)
		if pid, err := strconv.Atoi(fields[1]); err == nil && fields[2] == "RUNNING" {
			found[pid] = startTime(pid)
		}
	}
	if len(found) < 4 {
		t.Fatalf("%s has only %d containers", s.name, len(found))
	}
	return found
}

func expectDead(t *testing.T, pids map[int]string) {
	t.Helper()
	for pid, start := range pids {
		if start != "" && startTime(pid) == start {
			t.Errorf("process %d of a container is alive", pid)
		}
	}
}

func downClean(ctx context.Context, b *Bed, t *testing.T) {
	dir, nodes := b.Dir(), b.nodes()
	inside := containerProcesses(ctx, t, b.Site("north"))
	start := time.Now()
	check(t, b.Down(ctx))
	t.Logf("down took %s", time.Since(start))
	expectDead(t, inside)
	check(t, b.Down(ctx))
	if left := must(mount.Under(dir))(t); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
	if left := mount.Loops(dir); len(left) > 0 {
		t.Errorf("loop devices left: %v", left)
	}
	if b.fw.Exists(ctx) {
		t.Error("nftables rules left")
	}
	for _, n := range nodes {
		expectGone(t, n, dir, b.lockPath())
	}
	if out, _ := exec.Command("ps", "axww", "-o", "args").Output(); strings.Contains(string(out), dir+"/") {
		t.Errorf("a process still names %s", dir)
	}
}

// expectGone checks that nothing of a node is left, nor of what else there was.
func expectGone(t *testing.T, n *node, also ...string) {
	t.Helper()
	for _, path := range append(also, n.dir, n.netns(), "/sys/class/net/"+n.net.Veth(), n.cgroupPath("")) {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if left := n.pids(); len(left) > 0 {
		t.Errorf("processes of %s left: %v", n.name, left)
	}
}

// siteLess takes south away, which lives and is cut off, from beside north, which stays and is cut off from nothing.
func siteLess(ctx context.Context, b *Bed, t *testing.T) {
	south, inside := b.Site("south"), containerProcesses(ctx, t, b.Site("south"))
	check(t, b.Cut(ctx, "north", "south"))
	check(t, b.RemoveSite(ctx, "south"))
	expectDead(t, inside)
	expectGone(t, south.node)
	if out := must(run(ctx, "nft", "list", "table", "inet", b.fw.Table()))(t); strings.Contains(out, `"`+south.net.Veth()+`"`) {
		t.Errorf("the firewall still names %s: %s", south.net.Veth(), out)
	}
	if b.Site("south") != nil || must(Open("selftest"))(t).Site("south") != nil {
		t.Error("the bed still has the site")
	}
	check(t, b.Site("north").nodeReady(ctx, "north", time.Time{}))
	for name, want := range map[string]string{"south": "has [north]", "north": "bed down"} { // gone, and the last one
		if err := b.RemoveSite(ctx, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("removed %s: %v", name, err)
		}
	}
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}
