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

// oneActive is a planned move that asks, when all is done, whether clients find one site, and one only: it does not
// end while a gate of it was closed, while no node lets clients in, nor while another site says that it runs the
// application. It says what is wrong, and ends once that was put right. What a site says is played: east's own words of before the move
// are said again after it. The preflight tells of them too, and no run begins upon a vault that has forgotten the move's epoch.
func oneActive(t *testing.T) {
	a := &app{name: short(t), vault: short(t)}
	home := a.vault + "-" + run
	addVault(t, a.vault, bucket(t, home, ""), []string{east, west})
	a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	file := planOf(t, a, "60s", "{name: look, kind: manual, verbs: [switchover], prompt: look around, timeout: 30m, after: [traffic/front]}")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "  traffic: [{name: front, kind: gate, object: front}]\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	facts := filepath.Join(projectDir(home), "facts", east)
	before := time.Now()
	for _, site := range []string{east, west} {
		kubectl(t, site, "apply", "-f", file)
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), site, "delete", "recoveryplan", "--ignore-not-found", a.name)
		})
	}
	eventually(t, 3*time.Minute, "east has said that it runs it, and the vault has the plan", func() (bool, string) {
		info, err := os.Stat(facts)
		if err != nil || !info.ModTime().After(before) {
			return false, "no facts of east"
		}
		out := davit(t, west, a.vault, "plan", "show", a.name)
		return out.code == 0 && strings.Contains(out.out, "in the vault"), out.all()
	})
	said := content(t, facts)

	var r runView
	davit(t, west, a.vault, "switchover", a.name, "--background", "--yes", "-o", "json").want(t, 0).read(t, &r)
	state := func(want string) {
		t.Helper()
		eventually(t, 3*time.Minute, "the run is "+want, func() (bool, string) {
			out := davit(t, west, a.vault, "runs", "show", r.Run, "-o", "json") // there is none before an agent has begun it
			if out.code == 0 {
				out.read(t, &r)
			}
			return r.State == want, r.State + out.err
		})
	}
	state("Paused")
	davit(t, west, a.vault, "runs", "show", r.Run).want(t, 0, "look around")
	mark := func(what string) {
		kubectl(t, west, "-n", system, "annotate", "application", a.name, what, "--overwrite")
	}
	goOn := func(wants string, args ...string) {
		t.Helper()
		out := davit(t, west, a.vault, append([]string{"runs"}, args...)...)
		if shown := davit(t, west, a.vault, "runs", "show", r.Run).want(t, 0); !strings.Contains(strings.Join(strings.Fields(shown.out), " "), wants) {
			t.Fatalf("the run does not say %q, but:\n%s\n%s", wants, shown.out, out.all())
		}
	}

	mark("gate.davit.dev/front-")
	goOn("gate front is not open on "+a.name+" any more: clients find it at no site", "answer", r.Run, "look")
	state("Paused")
	mark("gate.davit.dev/front=" + r.Run)
	mark("davit.dev/restoring=nothing")
	goOn("gate front is open, but no load balancer finds "+a.name+" here: node west says passive", "resume", r.Run)
	state("Paused")
	mark("davit.dev/restoring-")

	truth := a.rivalled(t, home, facts, said)
	goOn("site west holds "+a.name+" by epoch 2, and site east", "resume", r.Run)
	state("SplitBrain")
	davit(t, east, a.vault, "failback", "-f", file, "--yes").want(t, 3, r.Run, "is under way")
	davit(t, west, a.vault, "plan", "validate", file, "--sites", "--to", east, "--registries=false").want(t, 3, "east and west all believe that they run it")
	put(t, facts, truth)
	goOn("AwaitingCommit", "resume", r.Run)
	davit(t, west, a.vault, "runs", "commit", r.Run).want(t, 0, "Completed")

	newest := filepath.Join(projectDir(home), "epochs", a.name, "00000000000000000002")
	away := filepath.Join(projectDir(home), "away")
	if err := os.Rename(newest, away); err != nil {
		t.Fatal(err)
	}
	rolled := davit(t, east, a.vault, "failback", "-f", file, "--dry-run")
	if err := os.Rename(away, newest); err != nil {
		t.Fatal(err)
	}
	rolled.want(t, 3, "the vault's newest epoch is 1", "has heard of 2", "epochs were deleted, or an older state of the vault was put back")
	davit(t, east, a.vault, "failback", "-f", file, "--dry-run").want(t, 0, "Nothing is lost")
	if got := epochs(t, home, a.name); got != 2 {
		t.Errorf("what was refused claimed an epoch: there are %d", got)
	}
}

// rivalled has east say again that it runs the application, though west claimed it long enough ago for east to have heard.
// It returns what east had said last.
func (a *app) rivalled(t *testing.T, home, facts, said string) (truth string) {
	t.Helper()
	eventually(t, 3*time.Minute, "east has stopped it", func() (bool, string) {
		got := a.status(t, east, "role")
		return got == "Superseded", got
	})
	stopped := time.Now() // its agent says so at once where a plan changes, else within two minutes
	kubectl(t, east, "patch", "recoveryplan", a.name, "--type", "merge", "-p", `{"spec":{"objectives":{"rto":"1h"}}}`)
	eventually(t, 3*time.Minute, "east has said that it has stopped it", func() (bool, string) {
		info, err := os.Stat(facts)
		return err == nil && info.ModTime().After(stopped), fmt.Sprint(err)
	})
	truth = content(t, facts)
	claimed := time.Now().Add(-10 * time.Minute)
	epoch := filepath.Join(projectDir(home), "epochs", a.name, "00000000000000000002")
	if err := os.Chtimes(epoch, claimed, claimed); err != nil {
		t.Fatal(err)
	}
	put(t, facts, said)
	return truth
}

// put writes an object of a vault anew, as its store would: at once.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
