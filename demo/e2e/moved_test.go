package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lets has a site's agent begin all runs that people ask for at the console.
func (c *control) lets(t *testing.T, site string) {
	t.Helper()
	davit(t, site, "", "enrol", "--console", c.url, "--enrol-token-file", c.admits(t, site), "--documents", "all", "--runs", "all").want(t, 0)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), site, "-n", system, "delete", "secret", "davit-console", "--ignore-not-found")
	})
}

// person is somebody with a role in the project, who is logged in beside the others.
func (c *control) person(t *testing.T, who, role string) *control {
	t.Helper()
	theirs := *c
	theirs.secrets, theirs.token = t.TempDir(), ""
	file := filepath.Join(theirs.secrets, "password")
	if err := os.WriteFile(file, []byte(who+" has another horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.do(t, "--console", c.url, "users", "create", who, "--password-file", file).want(t, 0)
	c.do(t, "--console", c.url, "members", "set", who, "--role", role, "--project", c.project).want(t, 0)
	theirs.do(t, "login", "--console", c.url, "--ca-file", filepath.Join(c.dir, "ca.pem"), "--user", who, "--password-file", file, "--project", c.project).want(t, 0)
	return &theirs
}

// begins asks for a run at the console, and returns its name once its site has it.
func (c *control) begins(t *testing.T, args ...string) (run string) {
	t.Helper()
	type request struct{ Run, Verb, State, Why string }
	var all struct{ Items []request }
	eventually(t, 4*time.Minute, "the site has begun the "+args[0], func() (bool, string) {
		if err := c.ask(t, "/projects/"+c.project+"/requests", &all); err != nil {
			return false, err.Error()
		}
		for _, r := range all.Items {
			if r.Verb == args[0] && r.State != "refused" {
				run = r.Run
				return r.State == "created", fmt.Sprint(all.Items)
			}
		}
		// The console may not have read the plan yet, or not know of the agent's word.
		return false, c.do(t, append([]string{"--console", c.url}, args...)...).all()
	})
	return run
}

// runNow is a run as the console's API has it now.
type runNow struct {
	Run struct {
		State, Level, Executor, By, Pause string
		Over                              bool
		Applications                      []struct {
			Name  string
			Epoch int64
		}
	}
	Offers []struct{ Kind string }
}

// follows waits until the console shows that a run is in a state.
func (c *control) follows(t *testing.T, run, state string) (now runNow) {
	t.Helper()
	eventually(t, 4*time.Minute, "the console shows "+run+" as "+state, func() (bool, string) {
		now = runNow{}
		if err := c.ask(t, "/projects/"+c.project+"/runs/"+run, &now); err != nil {
			return false, err.Error()
		}
		return now.Run.State == state, fmt.Sprintf("%+v", now)
	})
	return now
}

// switches moves an application in peace from the console: who asked cannot agree to it, two
// others can, and it does not begin before both have. What was written last is at the
// target, and the source has stopped.
func (c *control) switches(t *testing.T, a *app) {
	t.Helper()
	a.protect(t)
	a.backup(t)
	c.mirrors(t, a)
	t.Cleanup(func() { unprotect(west, a.name) })
	text, err := os.ReadFile(planOf(t, a, "60s"))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, west, string(text)+"  approvals: [{verbs: [switchover], count: 2}]\n  commit: {window: 5s, then: commit}\n")
	vera, omar := c.person(t, "vera", "recoverer"), c.person(t, "omar", "recoverer")
	c.lets(t, west)
	kubectl(t, east, "-n", a.name, "exec", "db-0", "--", "sh", "-c", "echo the last write > /data/last && sync")
	sum := a.sum(t, east, a.name)
	run := c.begins(t, "switchover", a.name, "--to", west, "--reason", "maintenance of east", "--yes")

	c.follows(t, run, "AwaitingApproval")
	approve := []string{"--console", c.url, "runs", "approve", run}
	c.do(t, approve...).want(t, 3, "whoever asked for the run cannot approve it")
	vera.do(t, approve...).want(t, 0)
	vera.do(t, approve...).want(t, 3)
	if got := c.follows(t, run, "AwaitingApproval"); got.Run.Over {
		t.Fatalf("one of two agreed: %+v", got)
	}
	if got := a.status(t, east, "epoch"); got != "1" {
		t.Fatalf("it has begun without the second approval: the epoch is %s", got)
	}
	omar.do(t, approve...).want(t, 0)
	// Nobody commits it: its window closes.
	r := c.follows(t, run, "Completed").Run
	if r.Level != "proven" || r.By != chief+"@console/told" || !strings.HasPrefix(r.Executor, "agent ") || len(r.Applications) != 1 || r.Applications[0].Epoch != 2 {
		t.Errorf("%+v", r)
	}
	if got := kubectl(t, west, "get", "run", run, "-o", "jsonpath={.status.approvedBy}"); !strings.Contains(got, "vera@console/told") || !strings.Contains(got, "omar@console/told") {
		t.Errorf("%s agreed", got)
	}
	if got := a.sum(t, west, a.name); got != sum {
		t.Errorf("the data came as %s, want %s", got, sum)
	}
	if got := kubectl(t, west, "-n", a.name, "exec", "db-0", "--", "cat", "/data/last"); strings.TrimSpace(got) != "the last write" {
		t.Errorf("the last write came as %q", got)
	}
	if now := a.status(t, east, "role") + " " + a.replicas(t, east); now != "Superseded 0" {
		t.Errorf("east is %s", now)
	}
	kubectl(t, west, "delete", "recoveryplan", a.name)
	eventually(t, 3*time.Minute, "the console shows no plan any more", func() (bool, string) {
		got := c.do(t, "--console", c.url, "get", "plan", a.name)
		return got.code == 3, got.all()
	})
}

// mirrors shows at the console what git and people made at the sites; a document of the
// same name is refused there.
func (c *control) mirrors(t *testing.T, a *app) {
	t.Helper()
	kubectl(t, east, "-n", system, "annotate", "protectionpolicy", a.name, "argocd.argoproj.io/tracking-id=shops:davit.dev/ProtectionPolicy:"+system+"/"+a.name)
	at := []string{"--console", c.url}
	shows := func(kind string, wants ...string) {
		t.Helper()
		eventually(t, 3*time.Minute, "the console shows "+kind, func() (bool, string) {
			got := c.do(t, append(at, "get", kind, a.name, "-o", "yaml")...)
			for _, want := range wants {
				if !strings.Contains(got.out, want) {
					return false, got.all()
				}
			}
			return got.code == 0, got.all()
		})
	}
	shows("policy", "from git", "davit.dev/at-site: east", "spec:")
	shows("app", "people, by hand", "policy: "+a.name)
	shows("plan", "people, by hand", "davit.dev/at-site: west", "timeout: 5s")
	was := kubectl(t, east, "-n", system, "get", "application,protectionpolicy", a.name, "-o", "jsonpath={.items[*].spec}")
	c.do(t, append(at, "apply", "-f", filepath.Join(c.secrets, "documents.yaml"))...).want(t, 3, "at site east", "is made by")
	if got := kubectl(t, east, "-n", system, "get", "application,protectionpolicy", a.name, "-o", "jsonpath={.items[*].spec}"); got != was {
		t.Errorf("east has %s, had %s", got, was)
	}
}

// atConsole is an application that a console outside the clusters knows of, which is to be
// moved from there.
func atConsole(t *testing.T) (*control, *app, string) {
	t.Helper()
	a := &app{vault: "asked", name: short(t) + "-asked"}
	address := bucket(t, "e2e-asked-"+run, "")
	c := newControl(t, address, "asked", addVault(t, a.vault, address, []string{east, west}, "--project", "asked"))
	sum, _ := a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	plan, err := os.ReadFile(planOf(t, a, "5s"))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, west, string(plan))
	c.lets(t, west)
	c.outlives(t, a)
	return c, a, sum
}

// outlives has the pod of east's agent go for good, with its disk, while the console is
// away: what happened before and after is told when it is back, in order and once.
func (c *control) outlives(t *testing.T, a *app) {
	t.Helper()
	c.lets(t, east)
	var agents struct {
		Items []struct {
			Site      string
			Connected bool
		}
	}
	eventually(t, 3*time.Minute, "east's agent calls", func() (bool, string) { // what happened before is not told
		if err := c.ask(t, "/projects/"+c.project+"/agents", &agents); err != nil {
			return false, err.Error()
		}
		for _, a := range agents.Items {
			if a.Site == east && a.Connected {
				return true, ""
			}
		}
		return false, fmt.Sprint(agents.Items)
	})
	c.heard(t, []string{a.backup(t).ID})
	c.kill()
	points := []string{a.backup(t).ID}
	pods := []string{"-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-agent", "-o", "jsonpath={.items[*].metadata.uid}"}
	was := kubectl(t, east, pods...)
	kubectl(t, east, "-n", system, "delete", "pods", "-l", "app.kubernetes.io/name=davit-agent")
	kubectl(t, east, "-n", system, "rollout", "status", "deployment/davit-agent", "--timeout", "4m")
	if now := kubectl(t, east, pods...); now == was || now == "" {
		t.Fatalf("the agent's pods are %q, were %q", now, was)
	}
	points = append(points, a.backup(t).ID)
	c.start(t)
	c.heard(t, points)
}

// fails has the target's agent take an application over while nothing is heard of its
// site, and returns the run.
func (c *control) fails(t *testing.T, a *app) (run string) {
	t.Helper()
	return c.begins(t, "failover", a.name, "--to", west, "--lost", east, "--reason", "east burns", "--yes")
}

// commits ends that run, once the application is at the target with its data.
func (c *control) commits(t *testing.T, run string, a *app, sum string) {
	t.Helper()
	r := c.follows(t, run, "AwaitingCommit").Run
	if r.Level != "none (forced)" || r.By != chief+"@console/asked" || !strings.HasPrefix(r.Executor, "agent ") || len(r.Applications) != 1 || r.Applications[0].Epoch != 2 {
		t.Errorf("%+v", r)
	}
	if got := a.sum(t, west, a.name); got != sum {
		t.Errorf("the data came as %s, want %s", got, sum)
	}
	c.do(t, "--console", c.url, "runs", "commit", run).want(t, 0)
	c.follows(t, run, "Completed")
}
