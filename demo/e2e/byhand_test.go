package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// kinds are what else a site has to stop: it runs on every node, and on a schedule.
const kinds = `---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: sleep, image: "davit.test/bedtool:1", imagePullPolicy: IfNotPresent, command: [sleep, "100000"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: %[1]s}
spec:
  schedule: "30 3 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: nothing, image: "davit.test/bedtool:1", command: ["true"]}]}}}}
`

// byHand moves an application in peace, and back again, as its runbooks have it for a person whose
// runs cannot be started: command by command. Nothing that was written is lost, all of it runs where it
// came to, and what had diverged is kept. There is no run.
func byHand(t *testing.T) {
	a := &app{name: short(t)}
	a.more = fmt.Sprintf(kinds, a.name)
	sum, _ := a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	suspended, steps := madeFromGit(t, a.name)
	file := planOf(t, a, "60s", steps...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "  traffic: [{name: front, kind: gate, object: www}]\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	a.runsAll(t, east)
	write := func(site, line string) {
		t.Helper()
		kubectl(t, site, "-n", a.name, "exec", "db-0", "-c", "db", "--", "sh", "-c", "echo "+line+" >> /data/ledger && sync")
	}
	ledger := func(site, namespace string) string {
		t.Helper()
		return strings.Join(strings.Fields(kubectl(t, site, "-n", namespace, "exec", "db-0", "-c", "db", "--", "cat", "/data/ledger")), " ")
	}
	write(east, "last-at-east") // no recovery point has this yet
	a.follow(t, "switchover", file, east, west)
	if got := ledger(west, a.name); got != "last-at-east" {
		t.Errorf("west has %q", got)
	}
	a.arrived(t, east, west, sum)
	if e, w := suspended(east), suspended(west); e != "true" || w == "true" {
		t.Errorf("git is suspended at east: %q, at west: %q", e, w)
	}
	write(west, "last-at-west")
	a.follow(t, "failback", file, west, east)
	if got := ledger(east, a.name); got != "last-at-east last-at-west" {
		t.Errorf("east has %q", got)
	}
	a.arrived(t, west, east, sum)
	var kept string
	for _, p := range a.points(t, east) {
		if p.Phase == "Quarantined" && p.Pinned {
			kept = p.ID
		}
	}
	davit(t, east, a.vault, "describe", kept).want(t, 0, "data-db-0")
	if run := runOf(t, a.vault, a.name); run != "" {
		t.Errorf("there was a run, %s", run)
	}
}

// byHandLost fails an application over as its runbook has it for a person who has no run: claim, data, workloads,
// the gate and the name in a real BIND, typed as they stand. A run then takes it back, the name too, as after any failover, although a
// second server of its zone refuses at first.
func byHandLost(t *testing.T) {
	a := &app{name: short(t)}
	sum, _ := a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	f := newNames(t, "5398")
	file := f.plan(t, planOf(t, a, "60s"))
	a.follow(t, "failover", file, east, west)
	if got := a.sum(t, west, a.name); got != sum {
		t.Errorf("the data came to west as %s, want %s", got, sum)
	}
	if got := f.leads(t); got != rig.Bed.Site(west).Address() {
		t.Errorf("the name leads to %s, want %s", got, rig.Bed.Site(west).Address())
	}
	eventually(t, 3*time.Minute, "west holds it with its gate open, and east runs nothing of it", func() (bool, string) {
		got := a.status(t, west, "role") + " " + try(t, west, "-n", system, "get", "application", a.name, "-o", `jsonpath={.metadata.annotations.gate\.davit\.dev/www}`) +
			"; " + a.status(t, east, "role") + " " + try(t, east, "-n", a.name, "get", "pods", "-o", "name")
		return got == "Active open; Superseded ", got
	})
	if run := runOf(t, a.vault, a.name); run != "" {
		t.Errorf("there was a run, %s", run)
	}
	davit(t, east, a.vault, "failover", "-f", file, "--dry-run").want(t, 0, "Time to recover: no history") // what people do by hand measures nothing
	back := f.halfUpdated(t, a, file)
	if back.State != "AwaitingCommit" || back.Level != "proven" {
		t.Fatalf("%+v", back)
	}
	if got, guard := f.leads(t), f.guard(t); got != rig.Bed.Site(east).Address() || !strings.Contains(guard, "site=east") {
		t.Errorf("after the failback the name leads to %s, guarded by %s", got, guard)
	}
	davit(t, east, a.vault, "runs", "commit", back.Run).want(t, 0, "Completed")
	// One run is history: what is to be expected of the next is what it took, which no such plan may take.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "  objectives: {rto: 1s}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	davit(t, west, a.vault, "failover", "-f", file, "--dry-run").want(t, 0, "one run of the verb switchover", "beyond the objective")
}

// halfUpdated fails an application back while one of two servers of the name's zone takes the update and the other one
// refuses it: before it begins, that is said, and it has to be told to go on all the same. Then it pauses, and names what people can do. Once the
// server takes it, the step is tried again, and both say the new.
func (f *entrance) halfUpdated(t *testing.T, a *app, file string) (back runView) {
	t.Helper()
	second := &entrance{host: f.host, port: "5399", closed: true}
	second.bind(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	address := func(f *entrance) string { return `{address: "` + f.host + ":" + f.port + `"}` }
	both := configured(t, "both.yaml", "%s  limits: {dns: 15s}\n", strings.Replace(string(text), address(f), address(f)+", "+address(second), 1))
	refuses := second.host + ":" + second.port + " refuses to be told about zone shop.test (REFUSED): allow the key to update the name and its guard"

	davit(t, east, a.vault, "failback", "-f", both, "--yes").want(t, 3, "nothing was changed", "(REFUSED)", "--despite dns")
	davit(t, east, a.vault, "failback", "-f", both, "--despite", "dns", "--yes", "-o", "json").want(t, 1, "is paused (failure)").read(t, &back)
	if status, _ := back.step("traffic/www"); back.State != "Paused" || status != "Failed" {
		t.Fatalf("%+v", back)
	}
	davit(t, east, a.vault, "runs", "show", back.Run).want(t, 0, refuses, "runs retry "+back.Run, "runs skip "+back.Run+" STEP", "runs rollback "+back.Run)
	site := rig.Bed.Site(east).Address()
	if got, guard, other := f.leads(t), f.guard(t), second.guard(t); got != site || !strings.Contains(guard, "site=east") || strings.Contains(other, "site=") {
		t.Errorf("the one server says %s, guarded by %s; the guard of the other one is %s", got, guard, other)
	}
	second.lets(t, true)
	davit(t, east, a.vault, "runs", "retry", back.Run, "traffic/www", "-o", "json").want(t, 0).read(t, &back)
	if got, guard := second.leads(t), second.guard(t); got != site || !strings.Contains(guard, "site=east") {
		t.Errorf("the other server says %s, guarded by %s", got, guard)
	}
	return back
}

// runsAll waits until all that the application has runs at a site.
func (a *app) runsAll(t *testing.T, site string) {
	t.Helper()
	eventually(t, 3*time.Minute, "all of "+a.name+" runs at "+site, func() (bool, string) {
		got := try(t, site, "-n", a.name, "get", "statefulset/db", "daemonset/everywhere", "cronjob/nightly", "-o",
			`jsonpath={range .items[*]}{.kind} {.spec.suspend} {.status.readyReplicas} {.status.numberReady},{end}`)
		return got == "StatefulSet  1 ,DaemonSet   1,CronJob false  ,", got
	})
}

// arrived: it is at a site with its data, ready, protected and with its gate open, and another one has stopped.
func (a *app) arrived(t *testing.T, from, to, sum string) {
	t.Helper()
	if got := a.sum(t, to, a.name); got != sum {
		t.Errorf("the data came to %s as %s, want %s", to, got, sum)
	}
	a.runsAll(t, to)
	eventually(t, 3*time.Minute, to+" holds it, and "+from+" runs nothing of it", func() (bool, string) {
		mine := a.status(t, to, "role") + " " + try(t, to, "-n", system, "get", "application", a.name, "-o", `jsonpath={.metadata.annotations.gate\.davit\.dev/www} {.metadata.annotations.davit\.dev/held-by}`)
		theirs := a.status(t, from, "role") + " " + try(t, from, "-n", system, "get", "application", a.name, "-o", `jsonpath={.metadata.annotations.davit\.dev/held-by}`)
		left := try(t, from, "-n", a.name, "get", "pods", "-o", "name") + try(t, from, "-n", a.name, "get", "cronjob", "nightly", "-o", `jsonpath={.spec.suspend}`)
		return mine == "Active open" && theirs == "Superseded " && left == "true", mine + "; " + theirs + "; " + left
	})
}

// blocks are the commands of a runbook's step.
var blocks = regexp.MustCompile("(?s)### ([^\n]*)\n.*?```sh\n(.*?)\n```")

// follow does by hand what the runbook says, in Bash, at the site that it comes to. What stands in
// capitals is written as it is: the kubeconfig of the other site. Whoever is asked types the application's name.
func (a *app) follow(t *testing.T, verb, file, from, to string) {
	t.Helper()
	book := davit(t, to, a.vault, "plan", "runbook", file, "--verb", verb, "--to", to, "--sites", "--registries=false").want(t, 0).out
	_, hand, found := strings.Cut(book, "## By hand")
	if !found || !strings.Contains(book, "davit "+verb+" -f "+file) {
		t.Fatalf("the runbook has not both ways:\n%s", book)
	}
	skipped := regexp.MustCompile(`\b(POD|POINT|APPLICATION|NAMESPACE)\b`)
	done := 0
	for _, block := range blocks.FindAllStringSubmatch(hand, -1) {
		commands := strings.ReplaceAll(block[2], "FILE", rig.Bed.Site(from).Kubeconfig())
		if skipped.MatchString(commands) {
			lines := strings.Split(commands, "\n")
			for i, line := range lines {
				if skipped.MatchString(line) {
					lines[i] = "# " + line
				}
			}
			commands = strings.Join(lines, "\n")
		}
		a.types(t, to, block[1], commands)
		done++
	}
	if done < 6 {
		t.Fatalf("%d steps were done:\n%s", done, book)
	}
}

// typing is somebody who types the same line whenever he is asked.
type typing string

func (line typing) Read(into []byte) (int, error) {
	n := copy(into, strings.Repeat(string(line), len(into)/len(line)))
	return n, nil
}

// types gives the commands of one step.
func (a *app) types(t *testing.T, site, step, commands string) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	// The bed's sites have several vaults. What ends with 4 has findings to tell, and has done it.
	cmd := exec.CommandContext(ctx, "bash", "-ec", `davit() { command davit "$@" --vault `+a.vault+" || [ $? = 4 ]; }\n"+commands)
	s3 := rig.Bed.S3()
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(rig.Root, "bin")+":"+filepath.Dir(rig.KubectlPath())+":"+os.Getenv("PATH"),
		"KUBECONFIG="+rig.Bed.Site(site).Kubeconfig(), "DAVIT_ACCESS_KEY="+s3.AccessKey, "DAVIT_SECRET_KEY="+s3.SecretKey)
	cmd.Stdin = typing(a.name + "\n")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%.1f s: %s: %s\n%s", time.Since(began).Seconds(), step, commands, out)
	keep(t, commands+"\n"+string(out))
	if err != nil {
		t.Fatalf("%s: %v", step, err)
	}
}
