package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// copies keeps a second copy of a vault in another bucket, harms the first one
// and has it repaired, and at last loses it and restores from the copy.
func copies(t *testing.T) {
	a := &app{vault: "twin"}
	first, second := a.vault+"-"+run, a.vault+"-copy-"+run
	addVault(t, a.vault, bucket(t, first, ""), []string{east, west})
	address := bucket(t, second, "")
	for _, site := range []string{east, west} {
		davit(t, site, "", "vault", "add", "twin-copy", address, "--copy-of", a.vault).want(t, 0, "second copy of vault twin")
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.Background(), site, "delete", "vault", "twin-copy", "--ignore-not-found")
		})
	}
	sum, p := a.protected(t)
	for _, site := range []string{east, west} {
		eventually(t, 3*time.Minute, p.ID+" is copied, as "+site+" sees it", func() (bool, string) {
			got := try(t, site, "-n", system, "get", "recoverypoint", p.ID, "-o", "jsonpath={.status.copies}")
			return got == `["twin-copy"]`, got + " " + try(t, site, "get", "vault", "twin-copy", "-o", "jsonpath={.status.copy}")
		})
	}
	davit(t, east, "", "points", a.name).want(t, 0, "COPIES", "twin-copy")
	davit(t, west, "twin-copy", "verify", p.ID).want(t, 0, "is whole")
	if got := names(t, filepath.Join(projectDir(second), "epochs")); len(got) > 0 {
		t.Errorf("the copy holds epochs: %v", got)
	}

	for _, path := range []string{
		largest(t, filepath.Join(projectDir(first), "volumes", east)),
		largest(t, filepath.Join(projectDir(first), "objects", a.name, p.ID)),
		filepath.Join(projectDir(first), "manifests", a.name, p.ID),
	} {
		was := content(t, path)
		flip(t, path)
		davit(t, east, a.vault, "verify", p.ID).want(t, 6, "is damaged", "--repair")
		davit(t, east, a.vault, "verify", p.ID, "--repair").want(t, 0, "repaired from twin-copy: 1 object", "is whole")
		if content(t, path) != was {
			t.Errorf("%s is not as it was", path)
		}
		davit(t, west, a.vault, "verify", p.ID).want(t, 0, "is whole")
	}
	eventually(t, 3*time.Minute, p.ID+" is offered again", func() (bool, string) {
		all := a.points(t, east)
		return slices.ContainsFunc(all, func(q pointView) bool { return q.ID == p.ID && q.Phase == "Available" }), fmt.Sprintf("%+v", all)
	})

	// The control: what is damaged in both stays as it is.
	pack := largest(t, filepath.Join(projectDir(first), "objects", a.name, p.ID))
	twin := strings.Replace(pack, projectDir(first), projectDir(second), 1)
	good := content(t, twin)
	flip(t, pack)
	flip(t, twin)
	harmed := content(t, pack)
	davit(t, east, a.vault, "verify", p.ID, "--repair").want(t, 6, "not repaired from twin-copy", "is damaged")
	if content(t, pack) != harmed {
		t.Errorf("%s was written although the copy has nothing better", pack)
	}
	if err := os.WriteFile(twin, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}

	davit(t, east, a.vault, "verify", p.ID, "--repair").want(t, 0, "is whole")
	ledger := heldBefore(t, a)
	file := forgotten(t, a, first)
	// The first vault is lost, at once: sites go on writing to it. The key and the copy
	// are enough.
	lost := filepath.Join(rig.Bed.S3().DataDir, first)
	if err := os.Rename(lost, lost+"-gone"); err != nil {
		t.Fatal(err)
	}
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	davit(t, west, "twin-copy", "restore", a.name, "--take-over", "--yes").want(t, 3, "second copy", "--as-clone")
	davit(t, west, "twin-copy", a.cloneArgs(copied)...).want(t, 0, p.ID)
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	davit(t, west, "", "vault", "ls").want(t, 0, "twin-copy, second copy of twin")
	promoted(t, a, ledger, sum, file)
}

// heldBefore is an application that west held in the vault, and that east took over.
func heldBefore(t *testing.T, a *app) *app {
	t.Helper()
	ledger := &app{name: a.name + "-ledger", vault: a.vault}
	for _, site := range []string{east, west} {
		removeNamespace(t, site, ledger.name)
		t.Cleanup(func() { unprotect(site, ledger.name) })
	}
	apply(t, west, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: %[1]s}
data: {colour: green}
`, ledger.name))
	davit(t, west, ledger.vault, "protect", ledger.name).want(t, 0)
	davit(t, west, "", "backup", ledger.name, "--wait", "--timeout", "2m").want(t, 0)
	davit(t, east, ledger.vault, "restore", ledger.name, "--take-over", "--yes").want(t, 0)
	return ledger
}

// forgotten deletes the epoch that the application is held by. No run begins then, and
// the message leads to a promotion, which waits until nobody has the first vault any more.
// The control is the same plan while the epoch was there.
func forgotten(t *testing.T, a *app, bucket string) (file string) {
	t.Helper()
	file = planOf(t, a, "60s")
	kubectl(t, east, "apply", "-f", file) // whose agent then says at once what it has heard of
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), east, "delete", "recoveryplan", "--ignore-not-found", a.name)
	})
	eventually(t, 3*time.Minute, "a failover could begin", func() (bool, string) {
		out := davit(t, west, a.vault, "failover", "-f", file, "--dry-run")
		return out.code == 0, out.all()
	})
	missing := func(said string) bool {
		return slices.ContainsFunc([]string{"the vault's newest epoch is 0", "epochs were deleted", "take this vault away from every site", "vault promote"},
			func(part string) bool { return !strings.Contains(said, part) })
	}
	eventually(t, 3*time.Minute, "no failover begins, as east has heard of an epoch that is gone", func() (bool, string) {
		// Whoever writes claims anew what is gone, when he looks next: it goes each time.
		if err := os.RemoveAll(filepath.Join(projectDir(bucket), "epochs", a.name)); err != nil {
			t.Fatal(err)
		}
		out := davit(t, west, a.vault, "failover", "-f", file, "--dry-run")
		return out.code == 3 && !missing(out.err), out.all()
	})
	davit(t, east, "", "vault", "promote", "twin-copy", "--yes").want(t, 3, "answers: it is not lost")
	return file
}

// promoted has the copy become the vault: east goes on, and west fails it over from there,
// by the plan that the epochs that the first one had forgotten have kept from beginning.
// Then it goes back. West does not go on with the ledger, which it held before: it says
// what it held, stops it, and proves that, as in the vault that was lost.
func promoted(t *testing.T, a, ledger *app, sum, file string) {
	t.Helper()
	davit(t, east, "", "vault", "promote", "twin-copy", "--dry-run").want(t, 0, "site east, which goes on", "Nothing was changed")
	davit(t, east, "", "vault", "promote", "twin-copy", "--yes").want(t, 0, "site east is moved over")
	eventually(t, 3*time.Minute, "east goes on", func() (bool, string) {
		got := a.status(t, east, "role") + " " + a.status(t, east, "epoch")
		return strings.HasPrefix(got, "Active ") && got != "Active 1", got + " " + try(t, east, "get", "vault", a.vault, "-o", "jsonpath={.status.conditions}")
	})
	after := a.backup(t)
	if _, err := os.Stat(filepath.Join(projectDir(a.vault+"-copy-"+run), "manifests", a.name, after.ID)); err != nil {
		t.Errorf("what east captured is not in the promoted vault: %v", err)
	}
	davit(t, west, "", "vault", "promote", "twin-copy", "--yes").want(t, 0, "site west is moved over", "site east", "Site west held it: runs want its proof")
	var r runView
	davit(t, west, a.vault, "failover", "-f", file, "--dry-run").want(t, 0, "was never moved over", "--lost nobody", "--lost-stopped")
	davit(t, west, a.vault, "failover", "-f", file, "--lost", "nobody", "--yes", "-o", "json").want(t, 0, after.ID).read(t, &r)
	if r.State != "AwaitingCommit" || r.Level != "none (forced)" || r.Applications[0].Epoch <= 2 {
		t.Errorf("%+v", r)
	}
	davit(t, west, a.vault, "runs", "commit", r.Run).want(t, 0, "Completed")
	if got := a.sum(t, west, a.name); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	eventually(t, 3*time.Minute, "east is fenced", func() (bool, string) {
		got := a.status(t, east, "role")
		return got == "Superseded", got
	})
	eventually(t, time.Minute, "west proves that it has stopped the ledger", func() (bool, string) {
		got := ledger.status(t, west, "role") + " " + ledger.status(t, west, "fence.level") + " below " + ledger.status(t, west, "fence.epoch")
		return strings.HasPrefix(got, "Superseded proven below ") && !strings.HasSuffix(got, " 2"), got // 2 was in the lost vault
	})
	davit(t, east, "", "vault", "promote", a.vault, "--lost-stopped", "--dry-run").want(t, 0, ledger.name+"; not about west")
	movedBack(t, a, sum, file)
	davit(t, west, a.vault, "vault", "check").want(t, 0)
}

// movedBack takes it back to east by a planned run. That begins only once a person has said
// for good that no site which was not moved over still writes, which the refusal leads to.
func movedBack(t *testing.T, a *app, sum, file string) {
	t.Helper()
	davit(t, east, a.vault, "switchover", "-f", file, "--yes").want(t, 3, "nothing was changed", "vault promote "+a.vault+" --lost-stopped")
	if got := a.status(t, west, "role"); got != "Active" {
		t.Errorf("west is %s after a run that was refused", got)
	}
	davit(t, west, "", "vault", "promote", a.vault, "--lost-stopped", "--yes").want(t, 0, "Noted", a.name)
	var r runView
	davit(t, east, a.vault, "switchover", "-f", file, "--yes", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "AwaitingCommit" || r.Level != "none (forced)" {
		t.Errorf("%+v", r)
	}
	davit(t, east, a.vault, "runs", "commit", r.Run).want(t, 0, "Completed")
	if got := a.sum(t, east, a.name); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
