package e2e

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// apart keeps everything from a node but what this test sends there: the other
// tests go on as on a site of one node.
const apart = "davit.dev/e2e=apart:NoSchedule"

// spread puts the databases on both nodes of a site that has two.
const spread = `      tolerations: [{key: davit.dev/e2e, operator: Exists}]
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: db}}}
`

// anotherNode gives east a second node, which is gone when the test ends, and
// everything with it that the test has there.
func anotherNode(t *testing.T, namespaces func() []string) string {
	t.Helper()
	site := rig.Bed.Site(east)
	begun := time.Now()
	node, err := rig.AddNode(t.Context(), east, apart)
	if err != nil {
		t.Fatal(err)
	}
	took(t, begun, "a node more for "+east)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		// What is still there when the node goes can never be removed in an orderly way.
		if _, err := rig.Kubectl(ctx, east, append([]string{"delete", "namespace", "--ignore-not-found", "--timeout=3m"}, namespaces()...)...); err != nil {
			t.Log(err)
		}
		if err := site.RemoveNode(ctx, node); err != nil {
			t.Errorf("take node %s away: %v", node, err)
		}
	})
	return node
}

// acrossNodes has an application on two nodes. The second comes after Davit and
// gets its node process by the DaemonSet, with no hand on it. The volumes of
// both are held still together; a node process that is killed in a freeze costs
// the point what it claims, or the point, and leaves nothing frozen; and what
// was on two nodes is restored to two.
func acrossNodes(t *testing.T) {
	name := short(t)
	copied := name + "-0"
	node := anotherNode(t, func() []string { return []string{name, copied} })
	a := deployThreeOn(t, "reflink", without, spread)
	held, w := heldApp(t, "spread", east)
	a.vault = held.vault
	if got := nodesOf(t, a.name); !slices.Equal(got, []string{east, node}) {
		t.Fatalf("the databases are on %v", got)
	}
	eventually(t, 3*time.Minute, "the node process of "+node+" is ready", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-node", "--field-selector", "spec.nodeName="+node, "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`)
		return got == "True", got
	})

	davit(t, east, a.vault, "protect", a.name, "--freeze", "required", "--freeze-window", busyWindow).want(t, 0)
	begun := numbers(t, east, a.name, 3*time.Minute)
	points := []pointView{a.weakBackup(t)} // the second node cuts no groups: that is a warning
	davit(t, east, a.vault, "describe", points[0].ID).want(t, 0, "held still all volumes, for", "on 2 nodes")
	if points[0].Consistency != "crash" {
		t.Fatalf("point %s is %s: %+v", points[0].ID, points[0].Consistency, points[0])
	}
	writes(t, a.name)
	t.Logf("the writer went from %d to %d", begun[0], numbers(t, east, a.name, 3*time.Minute)[0])

	// Slow storage, so that there is time between freeze and cut.
	davit(t, east, a.vault, "protect", a.name, "--freeze", "auto", "--snapshot-class", "reflink-slow").want(t, 0)
	last := killedOn(t, a, node)
	writes(t, a.name)
	if last.Consistency == "crash" {
		points = append(points, last) // it was killed too late to matter: then the claim must be true
	} else {
		davit(t, east, a.vault, "describe", last.ID).want(t, 0, "consistency per-volume", "node "+node+": ")
	}

	a.silence(t)
	for i, p := range points {
		let := func() {}
		if i == 0 {
			let = w.hold(t, http.MethodGet)
		}
		done := make(chan outcome, 1)
		go func() {
			done <- finish(t, command(t.Context(), east, a.vault, "restore", p.ID, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes"))
		}()
		if i == 0 {
			atOnce(t, a, node)
		}
		let()
		ended := <-done
		ended.want(t, 0)
		n := numbers(t, east, copied, 4*time.Minute)
		t.Logf("%s: %v on %v", p.ID, n, nodesOf(t, copied))
		if !oneInstant(n) {
			t.Errorf("point %s shows no one instant: %v", p.ID, n)
		}
		if got := nodesOf(t, copied); !slices.Equal(got, []string{east, node}) {
			t.Errorf("the copy of what was on two nodes is on %v", got)
		}
		kubectl(t, east, "delete", "namespace", copied, "--timeout=3m")
	}
	noGroups(t, a)
}

// atOnce waits until all volumes of the application are being filled, on both nodes.
func atOnce(t *testing.T, a *app, node string) {
	t.Helper()
	eventually(t, 4*time.Minute, "all volumes are filled at once, on both nodes", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "volumetasks.davit.dev", "-o", `jsonpath={range .items[*]}{.spec.source} {.spec.node} {.status.phase}{"\n"}{end}`)
		on := map[string]int{}
		for line := range strings.Lines(got) {
			if fields := strings.Fields(line); strings.HasPrefix(line, a.name+"/") && len(fields) == 3 && fields[2] == "Running" {
				on[fields[1]]++
			}
		}
		return on[east]+on[node] == 3 && len(on) == 2, got
	})
}

// nodesOf are the nodes that the databases of a namespace at east run on.
func nodesOf(t *testing.T, namespace string) []string {
	t.Helper()
	nodes := strings.Fields(kubectl(t, east, "-n", namespace, "get", "pods", "-l", "app=db", "-o", "jsonpath={.items[*].spec.nodeName}"))
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// killedOn kills the node process of one node while it holds volumes frozen, and
// returns the point that was being captured.
func killedOn(t *testing.T, a *app, node string) pointView {
	t.Helper()
	var pids []int
	for _, pid := range pidsOf(t, "node") {
		env, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if slices.Contains(strings.Split(string(env), "\x00"), "NODE_NAME="+node) {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		t.Fatalf("no node process of %s is found", node)
	}
	asked := frozenOn(t, a, node)
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	phase, why := endOf(t, asked)
	points := a.points(t, east)
	i := slices.IndexFunc(points, func(p pointView) bool { return p.ID == asked })
	if i < 0 {
		t.Fatalf("point %s is %s (%s) and is not listed: %+v", asked, phase, why, points)
	}
	t.Logf("point %s, whose node process was killed in the freeze, is %s, %s: %s", asked, phase, points[i].Consistency, why)
	return points[i]
}

// frozenOn asks for captures until it sees one hold volumes of a node frozen,
// and returns its point at once.
func frozenOn(t *testing.T, a *app, node string) string {
	t.Helper()
	for range 10 {
		var asked pointView
		davit(t, east, "", "backup", a.name, "-o", "json").want(t, 0).read(t, &asked)
		for over := false; !over; {
			got := try(t, east, "-n", system, "get", "volumefreezes", "-o", `jsonpath={range .items[*]}{.spec.point} {.spec.node} {.status.phase},{end}`)
			if strings.Contains(got, asked.ID+" "+node+" Frozen,") {
				return asked.ID
			}
			phase := try(t, east, "-n", system, "get", "recoverypoint", asked.ID, "-o", "jsonpath={.status.phase}")
			over = phase == "Available" || phase == "Failed" || t.Context().Err() != nil
		}
	}
	t.Fatalf("ten captures ended and none was seen to hold volumes of %s frozen", node)
	return ""
}
