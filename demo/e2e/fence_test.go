package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// callers is a server on this machine that pods of all sites reach. It counts
// the lines that each of them says, and over how many connections.
type callers struct {
	address string
	mu      sync.Mutex
	lines   map[string]int
	conns   map[string]int
}

// listen starts a server on the host's end of west's link.
func listen(t *testing.T) *callers {
	t.Helper()
	site := net.ParseIP(rig.Bed.Site(west).Address()).To4()
	l, err := net.Listen("tcp", net.JoinHostPort(net.IPv4(site[0], site[1], site[2], 1).String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &callers{address: l.Addr().String(), lines: map[string]int{}, conns: map[string]int{}}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.hear(conn)
		}
	}()
	return c
}

func (c *callers) hear(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for first := true; lines.Scan(); first = false {
		name := lines.Text()
		c.mu.Lock()
		if first {
			c.conns[name]++
		}
		c.lines[name]++
		c.mu.Unlock()
	}
}

func (c *callers) heard(name string) (lines, conns int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[name], c.conns[name]
}

// writer is a Deployment whose pod keeps a connection open and says its site
// and name five times a second, as long as it runs.
func writer(namespace, name, address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf(`
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: 1
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: writer
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        env: [{name: SITE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        command: [sh, -c, "while :; do while :; do echo $SITE %[1]s/%[2]s; sleep 0.2; done | nc %[3]s %[4]s; sleep 0.2; done"]
`, namespace, name, host, port)
}

// running counts processes of this machine whose command line holds the text.
func running(t *testing.T, text string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if strings.HasPrefix(string(line), "sh\x00-c\x00while") && strings.Contains(string(line), text) && atSite(e.Name()) {
			n++
		}
	}
	return n
}

// component is the process of one of a site's components.
func component(t *testing.T, site, name string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(rig.Bed.Site(site).KubeletRoot()), "run", name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal(data, &p); err != nil || p.PID <= 1 {
		t.Fatalf("pid of %s: %q, %v", name, data, err)
	}
	return p.PID
}

func signal(t *testing.T, pids []int, s syscall.Signal) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil {
			t.Logf("signal %d: %v", pid, err)
		}
	}
}

// quiet waits until a caller says no more: nothing new for two seconds.
func (c *callers) quiet(t *testing.T, name string) int {
	t.Helper()
	last, since := -1, time.Now()
	eventually(t, 3*time.Minute, name+" says no more", func() (bool, string) {
		n, _ := c.heard(name)
		if n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 2*time.Second, fmt.Sprintf("%d lines", n)
	})
	return last
}

// more waits until a caller has said more than it had.
func (c *callers) more(t *testing.T, name string) {
	t.Helper()
	was, _ := c.heard(name)
	eventually(t, 3*time.Minute, name+" says more", func() (bool, string) {
		n, _ := c.heard(name)
		return n > was+3, fmt.Sprintf("%d lines", n)
	})
}

// report is what the east node says of its fences.
func nodeReport(t *testing.T, path string) string {
	t.Helper()
	return try(t, east, "-n", system, "get", "nodefences", "-o", "jsonpath={.items[*].status"+path+"}")
}

// fencedByNode: the API server and the agent of a site are dead, its link is
// up, and another site takes over. Each of its nodes stops the writers on it by
// itself.
func fencedByNode(t *testing.T) {
	world := listen(t)
	a := &app{name: short(t)}
	node := anotherNode(t, func() []string { return []string{a.name} })
	far := node + " " + a.name + "/writer-far"
	a.more = writer(a.name, "writer", world.address) + writer(a.name+"-beside", "writer", world.address) + on(node, writer(a.name, "writer-far", world.address))
	mine, beside := east+" "+a.name+"/writer", east+" "+a.name+"-beside/writer"
	apply(t, east, "{apiVersion: v1, kind: Namespace, metadata: {name: "+a.name+"-beside, labels: {davit-e2e: 'true'}}}")
	removeNamespace(t, east, a.name+"-beside")
	a.protected(t)
	t.Cleanup(func() { unprotect(west, a.name) })
	removeNamespace(t, west, a.name)
	world.more(t, mine)
	world.more(t, beside)
	world.more(t, far)
	eventually(t, 3*time.Minute, "both nodes can fence", func() (bool, string) {
		at, problems := nodeReport(t, ".observedAt"), nodeReport(t, ".problem")
		return len(strings.Fields(at)) == 2 && problems == "", at + " " + problems
	})

	question := "/active/" + a.name + "?service=" + a.name + "/db"
	probe := map[string]string{}
	for _, site := range []string{east, west} {
		probe[site] = "http://" + kubectl(t, site, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-node", "-o", "jsonpath={.items[0].status.podIP}") + ":8082" + question
	}
	says(t, probe[east], "active")
	says(t, probe[west], "passive: "+a.name+": this site knows nothing of it")
	watchedFor(t, a, world, mine, far, beside, probe[east])
	says(t, probe[west], "active")

	// The API server is back: the site says how surely the application is stopped.
	revive(t, east)
	eventually(t, 3*time.Minute, "the fence is proven", func() (bool, string) {
		got := a.status(t, east, "role") + " " + a.status(t, east, "fence.level") + " " + a.status(t, east, "fence.epoch") + " " + a.status(t, east, "fence.message")
		return got == "Superseded proven 2 ", got
	})
	eventually(t, time.Minute, "the status says so", func() (bool, string) { // the kubelet may start the writer once more, which the node stops again
		got := davit(t, east, "", "status").want(t, 0).all()
		return strings.Contains(got, "Superseded (proven)"), got
	})
}

// fencedByAgent: a site has no node process, its agent lives, and another site takes over. Its agent stops the
// application, and nothing proves that: no run starts it elsewhere, but one that was told that to have been asked is enough, which
// says so. Once the node process is back, it is proven.
func fencedByAgent(t *testing.T) {
	a := &app{}
	sum, _ := a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	file := planOf(t, a, "20s")
	back := nodeless(t, east)

	davit(t, west, a.vault, "failover", "-f", file, "--yes").want(t, 1, "is paused (input)", "nothing proves that site east has stopped "+a.name+" (fence: asked)", "runs consent ")
	if got := kubectl(t, west, "-n", a.name, "get", "pods", "--ignore-not-found", "-o", "name"); strings.Contains(got, "db-0") {
		t.Errorf("%s runs at west, and nothing proves that it has stopped at east", got)
	}
	davit(t, west, a.vault, "runs", "rollback", runOf(t, a.vault, a.name)).want(t, 0, "RolledBack")
	if got := a.sum(t, east, a.name); got != sum {
		t.Errorf("east has the data %s again, want %s", got, sum)
	}

	var r runView
	davit(t, west, a.vault, "failover", "-f", file, "--accept-asked", "--yes", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "AwaitingCommit" || r.Level != "asked" || len(r.Applications) != 1 || r.Applications[0].Epoch != 4 {
		t.Fatalf("%+v", r)
	}
	if got := a.sum(t, west, a.name); got != sum {
		t.Errorf("the data came to west as %s, want %s", got, sum)
	}
	eventually(t, 3*time.Minute, "east's agent has stopped it, and says that its node does not prove that", func() (bool, string) {
		got := a.status(t, east, "role") + " " + a.replicas(t, east) + " " + a.status(t, east, "fence.level") + " " + a.status(t, east, "fence.message")
		return strings.HasPrefix(got, "Superseded 0 asked ") && strings.Contains(got, "node east: "), got
	})
	davit(t, east, "", "status").want(t, 0, "Superseded (asked)")
	davit(t, west, a.vault, "runs", "commit", r.Run).want(t, 0, "Completed")
	back()
	eventually(t, 3*time.Minute, "the fence is proven", func() (bool, string) {
		got := a.status(t, east, "fence.level") + " " + a.status(t, east, "fence.epoch") + " " + a.status(t, east, "fence.message")
		return got == "proven 4 ", got
	})
}

// nodeless takes the node processes of a site away, its watchdog with them: nothing starts them until back has them again.
func nodeless(t *testing.T, site string) (back func()) {
	t.Helper()
	where := func(ctx context.Context, label string) error {
		_, err := rig.Kubectl(ctx, site, "-n", system, "patch", "daemonset", "davit-node", "--type", "merge", "-p",
			`{"spec":{"template":{"spec":{"nodeSelector":{"davit.dev/e2e":`+label+`}}}}}`)
		return err
	}
	back = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
		defer cancel()
		err := where(ctx, "null")
		if err == nil {
			err = rig.Settled(ctx, site)
		}
		if err != nil {
			t.Errorf("give %s its node process again: %v", site, err)
		}
	})
	t.Cleanup(back)
	if err := where(t.Context(), `"nowhere"`); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Minute, site+" has no node process", func() (bool, string) {
		got := try(t, site, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-node", "-o", "name")
		return got == "", got
	})
	return back
}

// says waits until a load balancer's question has an answer that begins so.
func says(t *testing.T, url, want string) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	eventually(t, 3*time.Minute, url+" answers "+want, func() (bool, string) {
		resp, err := client.Get(url)
		if err != nil {
			return false, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if err != nil {
			return false, err.Error()
		}
		return strings.HasPrefix(string(body), want) && (resp.StatusCode == http.StatusOK) == (want == "active"), resp.Status + ": " + string(body)
	})
}

// on sends what a writer's Deployment makes to a node of anotherNode. It only prefers
// it: no other site has a node of that name, and the application comes up there.
func on(node, deployment string) string {
	const last = "      terminationGracePeriodSeconds: 0\n"
	return strings.Replace(deployment, last, last+"      affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: ["+node+"]}]}}]}}\n      tolerations: [{key: davit.dev/e2e, operator: Exists}]\n", 1)
}

// watchedFor takes agent and API server away, lets west take over, and watches
// the writers of both nodes be stopped.
func watchedFor(t *testing.T, a *app, world *callers, mine, far, beside, probe string) {
	t.Helper()
	t.Cleanup(func() { revive(t, east) })
	signal(t, []int{component(t, east, "kube-apiserver")}, syscall.SIGKILL)
	signal(t, pidsOf(t, "agent"), syscall.SIGKILL)
	world.more(t, mine) // neither of them is needed to run on: silence fences nothing
	_, conns := world.heard(beside)
	says(t, probe, "active") // by the node, whom no silence ends

	// Nor does a container runtime that hangs: the kernel needs none of its answers to cut off what it runs.
	runtime := []int{component(t, east, "containerd")}
	signal(t, runtime, syscall.SIGSTOP)
	t.Cleanup(func() { signal(t, runtime, syscall.SIGCONT) })
	world.more(t, mine)
	davit(t, west, a.vault, "restore", a.name, "--take-over", "--yes", "--exclude-kinds", "deployments").want(t, 0)
	claimed := time.Now()
	last, lastFar := world.quiet(t, mine), world.quiet(t, far)
	signal(t, runtime, syscall.SIGCONT)
	says(t, probe, "passive: "+a.name+": this node fences it: superseded")
	t.Logf("the writer was heard for the last time at most %s after the take-over had ended", time.Since(claimed))
	seen, was := 0, false
	eventually(t, 3*time.Minute, "the kubelet starts the writer again, and the node stops it again", func() (bool, string) {
		runs := running(t, a.name+"/writer") > 0
		if was && !runs {
			seen++
		}
		was = runs
		return seen >= 1 && !runs, fmt.Sprintf("%d times", seen)
	})
	// Also when the node process stands still, or has just died.
	node := pidsOf(t, "node")
	signal(t, node, syscall.SIGSTOP)
	t.Cleanup(func() { signal(t, node, syscall.SIGCONT) })
	eventually(t, 6*time.Minute, "the watchdog stops the writer in its place", func() (bool, string) {
		runs := running(t, a.name+"/writer") > 0
		if was && !runs {
			seen++
		}
		was = runs
		return seen >= 2 && !runs, fmt.Sprintf("%d times", seen)
	})
	signal(t, node, syscall.SIGKILL)
	if n, _ := world.heard(mine); n != last {
		t.Errorf("the fenced writer was heard again: %d lines more", n-last)
	}
	if n, _ := world.heard(far); n != lastFar {
		t.Errorf("the fenced writer of the second node was heard again: %d lines more", n-lastFar)
	}
	world.more(t, beside)
	if _, n := world.heard(beside); n != conns {
		t.Errorf("the neighbour had to connect again: %d connections, had %d", n, conns)
	}
}

func revive(t *testing.T, site string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := rig.Bed.Revive(ctx, site); err != nil {
		t.Errorf("start %s again: %v", site, err)
	}
	if err := rig.Settled(ctx, site); err != nil {
		t.Errorf("davit at %s again: %v", site, err)
	}
}

// sandboxed: a pod of a copy does not reach production; the same pod does
// without the sandbox.
func sandboxed(t *testing.T) {
	world := listen(t)
	free, closed := short(t)+"-free", short(t)+"-closed"
	for name, label := range map[string]string{free: "", closed: ", davit.dev/sandbox: " + closed} {
		apply(t, east, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+", labels: {davit-e2e: 'true'"+label+"}}}")
		removeNamespace(t, east, name)
	}
	eventually(t, 3*time.Minute, "the node knows of the sandbox", func() (bool, string) {
		got := nodeReport(t, ".sandboxes")
		return strings.Contains(got, closed), got
	})
	for _, name := range []string{free, closed} {
		apply(t, east, writer(name, "writer", world.address))
	}
	for _, name := range []string{free, closed} {
		kubectl(t, east, "-n", name, "rollout", "status", "deployment/writer", "--timeout=4m")
	}
	world.more(t, east+" "+free+"/writer") // the negative control
	eventually(t, 3*time.Minute, "the pod is closed in", func() (bool, string) {
		got := nodeReport(t, ".sandboxes")
		return strings.Contains(got, `"pods":1`), got
	})
	early := world.quiet(t, east+" "+closed+"/writer")
	t.Logf("the copy said %d lines before it was closed in", early)
	world.more(t, east+" "+free+"/writer")
	if now, _ := world.heard(east + " " + closed + "/writer"); now != early {
		t.Errorf("the copy was heard although it was closed in: %d lines more", now-early)
	}
}
