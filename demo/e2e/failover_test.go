package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runView is what tests read of `runs show -o json` and `failover -o json`.
type runView struct {
	Run, State, Level, Executor string
	Applications                []struct {
		Name, Point string
		Epoch       int64
		RTO         time.Duration
	}
	Steps []stepView
}

type stepView struct {
	Name, Status, Point string
	Attempts            int
	Moved               *struct{ Bytes, Of int64 }
}

func (r runView) stepOf(name string) stepView {
	for _, s := range r.Steps {
		if s.Name == name {
			return s
		}
	}
	return stepView{Name: name}
}

func (r runView) step(name string) (status string, attempts int) {
	for _, s := range r.Steps {
		if s.Name == name {
			return s.Status, s.Attempts
		}
	}
	return "", 0
}

// planOf writes a plan that moves one application, waits so long for a fence, and
// does these steps besides.
func planOf(t *testing.T, a *app, fence string, steps ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plan.yaml")
	text := fmt.Sprintf(`apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: %s}
spec:
  vault: %s
  sites: [{name: east}, {name: west}]
  applications: [{name: %s}]
  fence: {timeout: %s}
`, a.name, a.vault, a.name, fence)
	if len(steps) > 0 {
		text += "  steps:\n    - " + strings.Join(steps, "\n    - ") + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// runOf finds the only run of a plan.
func runOf(t *testing.T, vault, plan string) string {
	t.Helper()
	var list struct {
		Runs []struct{ Run, Plan string }
	}
	davit(t, west, vault, "runs", "ls", "-o", "json").want(t, 0).read(t, &list)
	for _, r := range list.Runs {
		if r.Plan == plan {
			return r.Run
		}
	}
	return ""
}

// failedOver carries a plan out while its site, which runs on, is cut off from everything, the load
// balancer and its clients too: the command is killed in the middle, another process takes the run over, clients are led
// to the new site, and the old one is fenced when it comes back. Load balancers ask for the plan.
// Another application is taken over meanwhile from a console.
func failedOver(t *testing.T) {
	s := newTill(t)
	a := s.app
	a.more = fmt.Sprintf(web, a.name, clientPort)
	s.open(t)
	file := planOf(t, a, "5s", "{name: endless, kind: command, command: {image: 'davit.test/bedtool:1', args: [-c, 'sleep 3600']}, application: "+a.name+
		", timeout: 5s, onError: stop, after: [ready/"+a.name+"]}")
	f := planEntrance(t, a, file)
	c, asked, data := atConsole(t)
	f.sure(t, east)
	t.Cleanup(func() { _ = rig.Bed.HealAll(context.WithoutCancel(t.Context())) })
	parted(t, "vault", west, "host")
	other := c.fails(t, asked)
	davit(t, west, a.vault, "failover", "-f", file, "--to", east, "--yes").want(t, 3, "this is site west")
	davit(t, west, a.vault, "failover", "-f", file, "--lost", "estate", "--yes").want(t, 3, "holds nothing")
	davit(t, west, a.vault, "failover", "-f", file, "--dry-run").want(t, 0, "whatever was written after", "east")
	if got := epochs(t, commonBucket(), a.name); got != 1 {
		t.Fatalf("a dry run claimed an epoch: there are %d", got)
	}

	cmd := command(t.Context(), west, a.vault, "failover", "-f", file, "--lost", east, "--yes")
	ended := make(chan outcome, 1)
	go func() { ended <- finish(t, cmd) }()
	eventually(t, 3*time.Minute, "the run has claimed", func() (bool, string) {
		got := epochs(t, commonBucket(), a.name)
		return got == 2, fmt.Sprint(got)
	})
	_ = cmd.Process.Kill()
	t.Logf("killed: code %d", (<-ended).code)

	run := runOf(t, a.vault, a.name)
	var r runView
	eventually(t, 3*time.Minute, "west's agent has carried the run on by itself, to the step that never ends", func() (bool, string) {
		davit(t, west, a.vault, "runs", "show", run, "-o", "json").want(t, 0).read(t, &r)
		return r.State == "Paused", r.State + " " + r.Executor
	})
	if !strings.HasPrefix(r.Executor, "agent ") {
		t.Errorf("%s carries the run", r.Executor)
	}
	davit(t, west, a.vault, "runs", "show", run).want(t, 0, "endless", "runs skip "+run)
	for _, verb := range [][]string{{"failover", "--lost", east, "--yes"}, {"drill"}} {
		davit(t, west, a.vault, append(verb, "-f", file)...).want(t, 3, run, "is under way", "runs skip "+run)
	}
	refusedToStranger(t, a, run)
	davit(t, west, a.vault, "runs", "skip", run, "endless").want(t, 0)
	eventually(t, 3*time.Minute, "the run goes on without the step", func() (bool, string) {
		davit(t, west, a.vault, "runs", "show", run, "-o", "json").want(t, 0).read(t, &r)
		return r.State == "AwaitingCommit", r.State
	})
	if r.State != "AwaitingCommit" || r.Level != "none (forced)" || len(r.Applications) != 1 || r.Applications[0].Epoch != 2 {
		t.Fatalf("%+v", r)
	}
	t.Logf("RTO, with a killed executor: %s", r.Applications[0].RTO)
	f.moved(t)
	s.sells(t, west)
	s.keptAsTold(t, run)
	s.bothSell(t)
	davit(t, west, a.vault, "runs", "commit", run).want(t, 0, "Completed")
	davit(t, west, a.vault, "runs", "commit", run).want(t, 3, "is over")
	if got := epochs(t, commonBucket(), a.name); got != 2 {
		t.Errorf("the run claimed more than once: there are %d epochs", got)
	}
	c.commits(t, other, asked, data)

	healed(t)
	for _, a := range []*app{a, asked} {
		eventually(t, 3*time.Minute, "east says Superseded and runs nothing of "+a.name, func() (bool, string) {
			role, replicas := a.status(t, east, "role"), a.replicas(t, east)
			return role == "Superseded" && replicas == "0", role + ", replicas " + replicas
		})
	}
}

// planEntrance adds what leads clients to a plan, gives the plan to both sites, and has
// HAProxy ask them for it.
func planEntrance(t *testing.T, a *app, file string) *entrance {
	t.Helper()
	(&entrance{host: hostAddress()}).plan(t, file)
	for _, site := range []string{east, west} {
		kubectl(t, site, "apply", "-f", file)
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), site, "delete", "recoveryplan", "--ignore-not-found", a.name)
		})
	}
	return newEntrance(t, a, fmt.Sprintf("plan/%s?service=%[1]s/web", a.name))
}

// refusedToStranger: whoever may read all that is Davit's at a site, its keys too, and has
// no right to the plan, approves and steers nothing.
func refusedToStranger(t *testing.T, a *app, run string) {
	t.Helper()
	stranger := a.person(t, "stranger", "")
	for _, what := range [][]string{{"approve", run}, {"skip", run, "endless"}, {"rollback", run, "--lose", west}} {
		finish(t, stranger(append([]string{"runs"}, what...)...)).want(t, 3, "stranger may not")
	}
}

// person is somebody at west who may read all that is Davit's there, its keys too, and
// has the ClusterRole besides, if any. It makes his commands.
func (a *app) person(t *testing.T, who, role string) func(args ...string) *exec.Cmd {
	t.Helper()
	name := a.name + "-" + who
	yaml := fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: %[1]s}
rules:
- {apiGroups: [davit.dev], resources: ["*"], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [secrets, configmaps, namespaces, nodes], verbs: [get, list]}
`, name)
	for binding, of := range map[string]string{name: name, name + "-role": role} {
		if of != "" {
			yaml += fmt.Sprintf(`---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: %s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %s}
subjects: [{kind: User, name: %s, apiGroup: rbac.authorization.k8s.io}]
`, binding, of, who)
		}
	}
	apply(t, west, yaml)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "delete", "clusterrole/"+name, "clusterrolebinding/"+name, "clusterrolebinding/"+name+"-role", "--ignore-not-found")
	})
	text, err := os.ReadFile(rig.Bed.Site(west).Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	const mark = "    client-certificate-data:"
	config := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), mark, "    as: "+who+"\n"+mark, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(args ...string) *exec.Cmd {
		cmd := command(t.Context(), west, a.vault, args...)
		cmd.Args[2] = config
		return cmd
	}
}

// failedOverAndBack takes PostgreSQL under load from a site that lives: its agent proves
// that it has stopped, and never do two write. Then the run is rolled back: the epoch is the source's
// again, which has all that it ever acknowledged, and the target runs nothing.
func failedOverAndBack(t *testing.T) {
	s := newTill(t)
	s.open(t)
	file := planOf(t, s.app, "60s")
	s.sells(t, east)
	var r runView
	davit(t, west, s.vault, "failover", "-f", file, "--yes", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "AwaitingCommit" || r.Level != "proven" {
		t.Fatalf("%+v", r)
	}
	s.sells(t, west)
	s.neverTwo(t)
	s.keptAsTold(t, r.Run)
	davit(t, west, s.vault, "runs", "rollback", r.Run).want(t, 3, "type west")
	began := time.Now()
	davit(t, west, s.vault, "runs", "rollback", r.Run, "--lose", west).want(t, 0, "RolledBack")
	s.cameBack(t, began)
	if got := epochs(t, commonBucket(), s.name); got != 3 {
		t.Errorf("the epoch was not given back: there are %d", got)
	}
	if got := s.replicas(t, west); got != "0" {
		t.Errorf("west still runs %s replicas", got)
	}
	if got := kubectl(t, west, "-n", "davit-system", "get", "applications.davit.dev", s.name, "-o", `jsonpath={.metadata.annotations.davit\.dev/returned-epoch}`); got != "2" {
		t.Errorf("the nodes of west were told that epoch %q goes back, want 2", got)
	}
	s.sells(t, east)
	s.kept(t, east, time.Time{}) // but for what west took, which a person gave up
	s.backup(t)
}

// switchedOver moves an application in peace, its name in the DNS and the clients of
// a load balancer with it. The last thing that it wrote at the old site is there at the
// new one, which calls storage classes and images otherwise, and the old one runs nothing.
func switchedOver(t *testing.T) {
	a := &app{size: 8 << 10, disk: "320Mi", name: short(t)} // XFS takes no less
	a.more = fmt.Sprintf(web, a.name, clientPort)
	a.protected(t)
	f := newEntrance(t, a, fmt.Sprintf("%s?service=%[1]s/web&gate=www", a.name))
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	file := f.plan(t, planOf(t, a, "60s"))
	called := a.calledOtherwise(t, file)
	davit(t, west, a.vault, "switchover", "-f", file, "--dry-run").want(t, 0, "Nothing is lost")
	forged := strings.NewReader(fmt.Sprintf("apiVersion: davit.dev/v1alpha1\nkind: Run\nmetadata: {name: %[1]s-forged}\n"+
		"spec: {plan: %[1]s, verb: switchover, to: west, requestedBy: somebody else}\n", a.name))
	if _, err := rig.KubectlIn(t.Context(), west, forged, "create", "-f", "-"); err == nil || !strings.Contains(err.Error(), "must be who makes the Run") {
		t.Errorf("a Run in another's name: %v", err)
	}
	// No recovery point has this yet.
	kubectl(t, east, "-n", a.name, "exec", "db-0", "--", "sh", "-c", "echo the last write > /data/last && sync")
	var r runView
	davit(t, west, a.vault, "switchover", "-f", file, "--yes", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "AwaitingCommit" && r.State != "Completed" || r.Level != "proven" || len(r.Applications) != 1 || r.Applications[0].Epoch != 2 {
		t.Fatalf("%+v", r)
	}
	t.Logf("RTO of a switchover: %s", r.Applications[0].RTO)
	f.moved(t)
	if got := kubectl(t, west, "-n", a.name, "exec", "db-0", "--", "cat", "/data/last"); strings.TrimSpace(got) != "the last write" {
		t.Errorf("the last write came as %q", got)
	}
	called()
	role, replicas := a.status(t, east, "role"), a.replicas(t, east)
	if role != "Superseded" || replicas != "0" {
		t.Errorf("east is %s and wants %s replicas", role, replicas)
	}
}

// calledOtherwise has the plan call the storage class and the images of the application as west
// does, whose registry has the images. called checks that all there is called so, and at east as ever.
func (a *app) calledOtherwise(t *testing.T, file string) (called func()) {
	t.Helper()
	registry := rig.Bed.Site(west).Registry() + "/" + a.name
	pushTool(t, registry+"/bedtool:1")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	mappings := "{name: west, mappings: [{kind: storageClass, from: reflink, to: reflink-xfs}, {kind: image, from: davit.test, to: '" + registry + "'}]}"
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "{name: west}", mappings, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		for site, want := range map[string]string{
			east: "reflink davit.test/bedtool:1 davit.test/bedtool:1",
			west: "reflink-xfs " + registry + "/bedtool:1 " + registry + "/bedtool:1",
		} {
			got := kubectl(t, site, "-n", a.name, "get", "pvc", "data-db-0", "-o", "jsonpath={.spec.storageClassName}") +
				" " + kubectl(t, site, "-n", a.name, "get", "statefulset", "db", "-o", "jsonpath={.spec.template.spec.initContainers[0].image}") +
				" " + kubectl(t, site, "-n", a.name, "get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
			if got != want {
				t.Errorf("storage class and images at %s are %q, want %q", site, got, want)
			}
		}
		ran := kubectl(t, west, "-n", a.name, "get", "pod", "db-0", "-o", "jsonpath={.spec.containers[0].image}")
		if mounts := kubectl(t, west, "-n", a.name, "exec", "db-0", "--", "cat", "/proc/mounts"); ran != registry+"/bedtool:1" || !strings.Contains(mounts, " /data xfs ") {
			t.Errorf("west's pod runs %s on\n%s", ran, mounts)
		}
	}
}

// switchedBack is a planned move of PostgreSQL under load in which a step fails when the source has
// stopped and its data is at the target: everything is taken back by itself, and the
// source runs as before, with every order that was acknowledged. Its agent is killed while
// it is brought to rest. So it is when the application does not get ready there, when its probe says no, and, by a
// person's word, when the server of its name refuses.
func switchedBack(t *testing.T) {
	s := newTill(t)
	s.open(t)
	file := planOf(t, s.app, "60s", "{name: doomed, kind: command, command: {image: 'davit.test/bedtool:1', args: ['false']}, application: "+s.name+
		", timeout: 1m, onError: rollback, after: [apply/"+s.name+"], before: [scale/"+s.name+"]}")
	s.sells(t, east)
	began := time.Now()
	cmd := command(t.Context(), west, s.vault, "switchover", "-f", file, "--yes", "-o", "json")
	ended := make(chan outcome, 1)
	go func() { ended <- finish(t, cmd) }()
	eventually(t, 3*time.Minute, "east is held at rest", func() (bool, string) {
		runs := s.status(t, east, "rest.runs")
		return strings.Contains(runs, "switchover"), runs
	})
	kill(t, east, "davit-agent")
	got := <-ended
	var r runView
	got.want(t, 1).read(t, &r)
	if status, _ := r.step("doomed"); r.State != "RolledBack" || status != "Failed" {
		t.Fatalf("%+v", r)
	}
	s.takenBack(t, began, 3)
	s.apart(t) // what clients write does not come from the application itself, which runs at west for a while
	f := newNames(t, "5400")
	s.failsThere(t, f)
	f.lets(t, false)
	s.serverRefuses(t, f)
	s.keyIsRevoked(t, f)
}

// takenBack: a planned move was taken back, and nothing is lost. So many epochs there are then.
func (s *till) takenBack(t *testing.T, began time.Time, epoch int) {
	t.Helper()
	if got := epochs(t, commonBucket(), s.name); got != epoch {
		t.Errorf("the epoch was not given back: there are %d, want %d", got, epoch)
	}
	s.cameBack(t, began)
	s.sells(t, east)
	t.Logf("east took no order for %s", s.stood(east, began))
	s.kept(t, east, noLater)
	if n := len(s.at(west)); n > 0 {
		t.Errorf("west took %d orders", n)
	}
	eventually(t, 3*time.Minute, "west runs nothing, and nothing holds a volume there", func() (bool, string) {
		pods := kubectl(t, west, "-n", s.name, "get", "pods", "-o", "name")
		return strings.TrimSpace(pods) == "", pods
	})
}

// failsThere: its pods are not ready at west, as nobody has their images there, or all is ready and does not answer
// as the plan wants it to. It is taken back by itself.
func (s *till) failsThere(t *testing.T, f *entrance) {
	t.Helper()
	for i, c := range []struct{ step, in, with, limit, says string }{
		{"ready/", "{name: west}", "{name: west, mappings: [{kind: image, from: bed.davit.dev, to: registry.bed/nobody}]}", "ready: 20s", "cannot be pulled: "},
		{
			"probe/", "{name: " + s.name + "}]", "{name: " + s.name + ", probes: [{kind: sql, target: 'postgres://db." + s.name + "/shop', query: 'select 6*7', expect: '^41$', timeout: 5s}]}]",
			"probe: 10s", `the answer does not match "^41$": 42`,
		},
	} {
		text, err := os.ReadFile(f.plan(t, planOf(t, s.app, "60s")))
		if err != nil {
			t.Fatal(err)
		}
		file := configured(t, "fails.yaml", "%s  limits: {%s}\n", strings.Replace(string(text), c.in, c.with, 1), c.limit)
		began := time.Now()
		var r runView
		davit(t, west, s.vault, "switchover", "-f", file, "--despite", "images", "--yes", "-o", "json").want(t, 1).read(t, &r)
		if status, _ := r.step(c.step + s.name); r.State != "RolledBack" || status != "Failed" {
			t.Fatalf("%+v", r)
		}
		davit(t, west, s.vault, "runs", "show", r.Run).want(t, 0, c.step+s.name, c.says)
		if got, guard := f.leads(t), f.guard(t); got != rig.Bed.Site(east).Address() || strings.Contains(guard, "site=") {
			t.Errorf("nothing was to lead clients to west, and the name leads to %s, guarded by %s", got, guard)
		}
		s.takenBack(t, began, 5+2*i)
	}
}

// serverRefuses: it answers at west as it should, and the name cannot be moved there. The gate was opened before, so that clients may be at west:
// it pauses, and says what people can do. It is rolled back though the server takes no updates, as the name was not moved.
func (s *till) serverRefuses(t *testing.T, f *entrance) {
	t.Helper()
	file := f.plan(t, planOf(t, s.app, "60s"))
	davit(t, west, s.vault, "switchover", "-f", file, "--yes").want(t, 3, "nothing was changed", "(REFUSED)", "--despite dns")
	began := time.Now()
	var r runView
	davit(t, west, s.vault, "switchover", "-f", file, "--despite", "dns", "--yes", "-o", "json").want(t, 1, "is paused (failure)").read(t, &r)
	if status, _ := r.step("traffic/www"); r.State != "Paused" || status != "Failed" {
		t.Fatalf("%+v", r)
	}
	davit(t, west, s.vault, "runs", "show", r.Run).want(t, 0, "refuses to be told about zone shop.test (REFUSED): allow the key to update the name and its guard",
		"runs retry "+r.Run, "runs skip "+r.Run+" STEP", "runs rollback "+r.Run)
	davit(t, west, s.vault, "runs", "rollback", r.Run).want(t, 3, "type west")
	davit(t, west, s.vault, "runs", "rollback", r.Run, "--lose", west).want(t, 0, "RolledBack")
	f.lets(t, true)
	if got, guard := f.leads(t), f.guard(t); got != rig.Bed.Site(east).Address() || strings.Contains(guard, "site=west") {
		t.Errorf("it is taken back, and the name leads to %s, guarded by %s", got, guard)
	}
	s.takenBack(t, began, 9)
}

// keyIsRevoked: its clients are at west when it is to go back, and the server takes nothing of the key any more. The target serves
// on until a person takes the name upon himself; then the source does, and the name is left to people. The next run leads it again.
func (s *till) keyIsRevoked(t *testing.T, f *entrance) {
	t.Helper()
	file := f.plan(t, planOf(t, s.app, "60s"))
	var r runView
	davit(t, west, s.vault, "switchover", "-f", file, "--yes", "-o", "json").want(t, 0).read(t, &r)
	if got := f.leads(t); r.State != "AwaitingCommit" || got != rig.Bed.Site(west).Address() {
		t.Fatalf("the name leads to %s: %+v", got, r)
	}
	f.led = west
	f.lets(t, false)
	skip := "runs skip " + r.Run + " traffic/www"
	davit(t, west, s.vault, "runs", "rollback", r.Run, "--lose", west).want(t, 1, "RollbackFailed")
	davit(t, west, s.vault, "runs", "show", r.Run).want(t, 0, "(REFUSED)", skip)
	if got := s.replicas(t, west); got != "1" {
		t.Errorf("clients are at west, where %s replicas run", got)
	}
	davit(t, west, s.vault, "runs", "skip", r.Run, "scale/"+s.name).want(t, 3, "only without a name in the DNS")
	began := time.Now()
	davit(t, west, s.vault, "runs", "skip", r.Run, "traffic/www").want(t, 4, "RolledBack", wwwName+" was not led back", "skipped by")
	s.takenBack(t, began, 11)
	if got := f.leads(t); got != rig.Bed.Site(west).Address() {
		t.Errorf("nobody led it back, and the name leads to %s", got)
	}
	davit(t, west, s.vault, "status").want(t, 0, "lead "+wwwName+" to site east ("+rig.Bed.Site(east).Address()+") by hand")
	davit(t, west, s.vault, "runs", "settle", r.Run, "traffic/www", "--reason", "led back at the registrar").want(t, 0)
}

// carriedByAgents moves an application in peace by a plan that only the vault of
// the target knows, once somebody else has approved it: a drill, which the agent has carried on when
// its command was killed, makes way for it, its agent carries the run, is killed on the way, and the next one goes on, until a step asks for
// the one person whom the plan names. Nobody commits it: its window closes.
func carriedByAgents(t *testing.T) {
	a := &app{}
	a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	plan, run := a.name, ""
	file := approvedPlan(t, a)
	kubectl(t, east, "apply", "-f", file)
	t.Cleanup(func() {
		for _, site := range []string{east, west} {
			_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), site, "delete", "recoveryplan", "--ignore-not-found", plan)
			_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), site, "delete", "run", "--ignore-not-found", run)
		}
	})
	a.sweptDrill(t, file)
	drill, home := a.waitingDrill(t, file)
	davit(t, west, a.vault, "switchover", "nothing", "--yes").want(t, 3, "has a plan")
	eventually(t, 3*time.Minute, "the vault has the plan", func() (bool, string) {
		out := davit(t, west, a.vault, "plan", "show", plan)
		return out.code == 0, out.err
	})
	var ordered runView
	davit(t, west, a.vault, "switchover", plan, "--background", "--yes", "-o", "json").want(t, 0).read(t, &ordered)
	run = ordered.Run
	ann := a.approved(t, run)
	first := kubectl(t, west, "get", "run", run, "-o", "jsonpath={.status.executor}")
	kill(t, west, "davit-agent")
	var r runView
	eventually(t, 4*time.Minute, "the next agent has carried it on, until it waits for who is named", func() (bool, string) {
		davit(t, west, a.vault, "runs", "show", run, "-o", "json").want(t, 0).read(t, &r)
		return r.State == "Paused" && r.Executor != first, r.State + " " + r.Executor
	})
	if !strings.HasPrefix(r.Executor, "agent ") {
		t.Errorf("%+v; %s began it", r, first)
	}
	out := <-ann // which follows the run until it waits for somebody again
	out.want(t, 1, "is paused (input)", "runs answer "+run)
	a.agreedOn(t, run)
	eventually(t, 4*time.Minute, "it has gone on, and its window has closed", func() (bool, string) {
		davit(t, west, a.vault, "runs", "show", run, "-o", "json").want(t, 0).read(t, &r)
		return r.State == "Completed", r.State + " " + r.Executor
	})
	if r.Level != "proven" || !strings.HasPrefix(r.Executor, "agent ") {
		t.Errorf("%+v", r)
	}
	a.madeWay(t, drill, home)
	a.nobodyCommitted(t, run)
	davit(t, west, a.vault, "runs", "rollback", run, "--lose", west).want(t, 3, "is over")
	eventually(t, 3*time.Minute, "both sites show the run", func() (bool, string) {
		got := kubectl(t, west, "get", "run", run, "-o", "jsonpath={.status.phase}") + " " + kubectl(t, east, "get", "run", run, "-o", "jsonpath={.status.phase}")
		return got == "Completed Completed", got
	})
}

// approvedPlan is one whose switchover somebody has to approve, and bob once its data is there, whose window is short, and
// whose drill waits for a person.
func approvedPlan(t *testing.T, a *app) (file string) {
	t.Helper()
	file = planOf(t, a, "60s", "{name: look, kind: manual, verbs: [drill], prompt: look around, timeout: 10m, after: [ready/"+a.name+"]}",
		"{name: agreed, kind: approval, prompt: start it, approvers: {users: [bob]}, timeout: 10m, after: [data/"+a.name+"], before: [scale/"+a.name+"]}")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "  approvals: [{verbs: [switchover], count: 1}]\n  commit: {window: 5s, then: commit}\n"...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// waitingDrill drills, and kills the command that carries the drill when that makes its clone: the
// agent goes on with it, until the drill waits for a person.
func (a *app) waitingDrill(t *testing.T, file string) (drill, home string) {
	t.Helper()
	cmd := command(t.Context(), west, a.vault, "drill", "-f", file)
	ended := make(chan outcome, 1)
	go func() { ended <- finish(t, cmd) }()
	drill = a.cloneMade(t)
	_ = cmd.Process.Kill()
	if out := <-ended; out.code != -1 {
		t.Fatalf("the drill ended with %d before its command was killed: %s", out.code, out.all())
	}
	var r runView
	eventually(t, 3*time.Minute, "the agent has carried the drill on, until it waits for a person", func() (bool, string) {
		davit(t, west, a.vault, "runs", "show", drill, "-o", "json").want(t, 0).read(t, &r)
		return r.State == "Paused", r.State + " " + r.Executor
	})
	if ready, _ := r.step("ready/" + a.name); !strings.HasPrefix(r.Executor, "agent ") || ready != "Succeeded" {
		t.Errorf("%+v", r)
	}
	davit(t, west, a.vault, "runs", "show", drill).want(t, 0, "look around")
	home, _ = sandboxOf(t, drill)
	return drill, home
}

// cloneMade waits until a drill of the application has made its clone, and returns the run.
func (a *app) cloneMade(t *testing.T) (run string) {
	t.Helper()
	eventually(t, 3*time.Minute, "the drill has made its clone", func() (bool, string) {
		got := try(t, west, "get", "namespaces", "-l", "davit.dev/sandbox", "-o", `jsonpath={range .items[*]}{.metadata.annotations.davit\.dev/run} {.metadata.name}{"\n"}{end}`)
		for line := range strings.Lines(got) {
			if of, ns, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(of, a.name+"-drill") && strings.HasSuffix(ns, a.name) {
				run = of
				return strings.Contains(try(t, west, "-n", ns, "get", "pvc", "-o", "name"), "db-0"), got
			}
		}
		return false, got
	})
	return run
}

// sweptDrill kills a drill while nobody is there to carry it on: what it made stays, until
// somebody has it swept.
func (a *app) sweptDrill(t *testing.T, file string) {
	t.Helper()
	agents := kubectl(t, west, "-n", system, "get", "deployment", "davit-agent", "-o", "jsonpath={.spec.replicas}")
	scale := func(n string) {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "-n", system, "scale", "deployment", "davit-agent", "--replicas", n)
	}
	t.Cleanup(func() { scale(agents) })
	scale("0")
	kill(t, west, "davit-agent")
	began := time.Now()
	cmd := command(t.Context(), west, a.vault, "drill", "-f", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	run := a.cloneMade(t)
	home, _ := sandboxOf(t, run)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, 3*time.Minute, "the dead drill is swept", func() (bool, string) { // its process holds it for 15 seconds
		out := davit(t, west, a.vault, "drill", "--sweep").want(t, 0)
		return strings.Contains(out.out, run), out.all()
	})
	nothingLeft(t, run, home)
	davit(t, west, a.vault, "runs", "show", run).want(t, 0, "Canceled")
	t.Logf("from the drill's begin until it was swept: %s", time.Since(began).Round(time.Second))
	scale(agents)
	kubectl(t, west, "-n", system, "rollout", "status", "deployment/davit-agent", "--timeout", "4m")
}

// approved lets the run wait for its approval: nobody's word counts but that of somebody
// else who may approve. It returns how his command ended, which follows the run.
func (a *app) approved(t *testing.T, run string) (ended chan outcome) {
	t.Helper()
	eventually(t, 3*time.Minute, "the run waits for its approval", func() (bool, string) {
		got := kubectl(t, west, "get", "run", run, "-o", "jsonpath={.status.phase}")
		return got == "AwaitingApproval", got
	})
	davit(t, west, a.vault, "runs", "approve", run).want(t, 3, "whoever asked for the run cannot approve it")
	finish(t, a.person(t, "stranger", "")("runs", "approve", run)).want(t, 3, "stranger may not")
	if got := epochs(t, commonBucket(), a.name); got != 1 {
		t.Fatalf("it has begun without an approval: there are %d epochs", got)
	}
	cmd := a.person(t, "ann", "davit-approver")("runs", "approve", run)
	ended = make(chan outcome, 1)
	go func() { ended <- finish(t, cmd) }()
	eventually(t, 3*time.Minute, "the run has begun", func() (bool, string) {
		got := kubectl(t, west, "get", "run", run, "-o", "jsonpath={.status.phase} {.status.approvedBy}")
		return strings.Contains(got, "ann") && !strings.HasPrefix(got, "AwaitingApproval"), got
	})
	return ended
}

// agreedOn has bob agree to a step that takes his word: that of whoever asked for the run, of somebody without the right
// and of another approver count for nothing, and nobody goes on without it.
func (a *app) agreedOn(t *testing.T, run string) {
	t.Helper()
	davit(t, west, a.vault, "runs", "show", run).want(t, 0, "start it (it takes 1 of user bob)")
	answer := []string{"runs", "answer", run, "agreed"}
	davit(t, west, a.vault, answer...).want(t, 3, "whoever asked for the run cannot approve it")
	davit(t, west, a.vault, "runs", "skip", run, "agreed").want(t, 3, "an approval cannot be skipped")
	finish(t, a.person(t, "stranger", "")(answer...)).want(t, 3, "stranger may not approve")
	finish(t, a.person(t, "ann", "davit-approver")(answer...)).want(t, 3, "ann is none of those who may approve agreed")
	if got := kubectl(t, west, "-n", a.name, "get", "pod", "db-0", "--ignore-not-found", "-o", "name"); got != "" {
		t.Errorf("%s runs at west before anybody agreed", got)
	}
	finish(t, a.person(t, "bob", "davit-approver")(answer...)).want(t, 0)
	var report struct {
		Events []struct{ Kind, Step, By string }
	}
	davit(t, west, a.vault, "runs", "report", run, "-o", "json").want(t, 0).read(t, &report)
	said := map[string]string{}
	for _, e := range report.Events {
		if e.Step == "agreed" {
			said[e.Kind] += e.By + " "
		}
	}
	if said["approved"] != "bob " || !strings.Contains(said["denied"], "ann") || strings.Contains(said["denied"], "bob") {
		t.Errorf("the report says of the step: %v", said)
	}
}

// madeWay: the drill, which waited for a person, ended for the other run, which did not
// wait for it.
func (a *app) madeWay(t *testing.T, drill, home string) {
	t.Helper()
	eventually(t, 3*time.Minute, "the drill has made way", func() (bool, string) {
		out := davit(t, west, a.vault, "runs", "show", drill)
		return out.code == 0 && strings.Contains(out.out, "Canceled"), out.all()
	})
	davit(t, west, a.vault, "runs", "report", drill, "-o", "html").want(t, 0, "claimed epoch 2 of "+a.name)
	nothingLeft(t, drill, home)
}

// nobodyCommitted: the run's window closed, and no person said a word.
func (a *app) nobodyCommitted(t *testing.T, run string) {
	t.Helper()
	var report struct {
		People []struct{ By, Text string }
		Events []struct{ Kind, By string }
	}
	davit(t, west, a.vault, "runs", "report", run, "-o", "json").want(t, 0).read(t, &report)
	closed := false
	for _, e := range report.Events {
		closed = closed || e.Kind == "committed" && e.By == ""
	}
	for _, p := range report.People {
		if p.Text == "committed" {
			t.Errorf("%s committed it", p.By)
		}
	}
	if !closed {
		t.Errorf("nothing says that its window closed: %+v", report.Events)
	}
}
