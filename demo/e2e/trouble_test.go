package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vaultTrouble gives the way to the vault one bad day after another: captures
// go on by themselves afterwards, and production is never touched. Then, as
// the control, another site takes over: now it must be.
func vaultTrouble(t *testing.T) {
	w := newWire(t)
	a := &app{vault: "moody"}
	store := a.vault + "-" + run
	addVault(t, a.vault, bucket(t, store, w.Endpoint), []string{east, west})
	a.deploy(t)
	a.protect(t, "--every", "10s", "--wait")
	generation := func() string {
		return try(t, east, "-n", a.name, "get", "statefulset", "db", "-o", "jsonpath={.metadata.generation} {.spec.replicas}")
	}
	before := generation()
	points := filepath.Join(projectDir(store), "manifests", a.name)
	for _, bad := range []struct {
		name string
		mood mood
	}{{"stalls", stalling}, {"resets connections", resetting}, {"answers 503", overloaded}} {
		w.set(bad.mood)
		eventually(t, 3*time.Minute, "the agent notices that the vault "+bad.name, func() (bool, string) {
			got := try(t, east, "get", "vault", a.vault, "-o", `jsonpath={.status.conditions[?(@.type=="Reachable")]}`)
			return strings.Contains(got, `"status":"False"`), got
		})
		seen := len(names(t, points))
		if got := generation(); got != before {
			t.Errorf("while the vault %s the StatefulSet changed from %q to %q", bad.name, before, got)
		}
		if role := a.status(t, east, "role"); role != "Active" {
			t.Errorf("while the vault %s the role is %q", bad.name, role)
		}
		w.set(passing)
		eventually(t, 3*time.Minute, "captures go on after the vault "+bad.name, func() (bool, string) {
			got := names(t, points)
			return len(got) > seen, strings.Join(got, " ")
		})
	}
	clocksApart(t, w, a, points)
	davit(t, west, a.vault, "restore", a.name, "--take-over", "--yes").want(t, 0)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	eventually(t, 3*time.Minute, "east stops, now that it sees a higher epoch", func() (bool, string) {
		got := a.replicas(t, east) + " " + a.status(t, east, "role")
		return got == "0 Superseded", got
	})
	if got := a.replicas(t, west); got != "1" {
		t.Errorf("west runs %s replicas, want 1", got)
	}
}

// vaultCut parts east from the vault for a while.
func vaultCut(t *testing.T) {
	a := &app{}
	_, p := a.protected(t)
	before := a.replicas(t, east)
	if err := rig.Bed.Cut(t.Context(), east, "vault"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rig.Bed.HealAll(context.WithoutCancel(t.Context())) })
	eventually(t, 3*time.Minute, "status says that the vault is out of reach", func() (bool, string) {
		got := davit(t, east, a.vault, "status").want(t, 0)
		return strings.Contains(got.out, "VaultUnavailable") || strings.Contains(strings.ToLower(got.out), "unavailable"), got.all()
	})
	if got := a.replicas(t, east); got != before {
		t.Errorf("without the vault east runs %s replicas, want %s", got, before)
	}
	var asked pointView
	davit(t, east, "", "backup", a.name, "-o", "json").want(t, 0).read(t, &asked)
	if err := rig.Bed.Heal(t.Context(), east, "vault"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Minute, "a capture reaches the vault again", func() (bool, string) {
		got := names(t, manifests(a.name))
		return len(got) > 1, strings.Join(got, " ")
	})
	davit(t, west, a.vault, "verify", p.ID).want(t, 0, "is whole")
}

// clocksApart sets the store's clock ten minutes ahead of the sites': people are
// told, and captures go on. It stays so, for the take-over that follows.
func clocksApart(t *testing.T, w *wire, a *app, points string) {
	const ahead = 10 * time.Minute
	w.skew(ahead)
	eventually(t, 3*time.Minute, "the agent notices that clocks are apart", func() (bool, string) {
		got := try(t, east, "get", "vault", a.vault, "-o", "jsonpath={.status.clockSkew}")
		skew, err := time.ParseDuration(got)
		return err == nil && (skew-ahead).Abs() < time.Minute, got
	})
	davit(t, east, "", "vault", "ls").want(t, 0, "mend time synchronisation")
	eventually(t, 3*time.Minute, "an event says so", func() (bool, string) {
		got := try(t, east, "get", "events", "-A", "--field-selector", "reason=ClockSkew", "-o", "jsonpath={.items[*].message}")
		return strings.Contains(got, "ahead of this site's"), got
	})
	seen := len(names(t, points))
	eventually(t, 3*time.Minute, "captures go on though clocks are apart", func() (bool, string) {
		got := names(t, points)
		return len(got) > seen, strings.Join(got, " ")
	})
}

// readOnlyVault takes every right to write away.
func readOnlyVault(t *testing.T) {
	w := newWire(t)
	a := &app{vault: "frozen"}
	store := a.vault + "-" + run
	key := addVault(t, a.vault, bucket(t, store, w.Endpoint), []string{east, west})
	sum, _ := a.protected(t)
	w.set(readOnly)
	davit(t, east, "", "vault", "check", a.vault).want(t, 5, "Access Denied", "hint:", "credentials")
	davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "Access Denied")
	if got := len(names(t, filepath.Join(projectDir(store), "manifests", a.name))); got != 1 {
		t.Errorf("the vault has %d points, want 1", got)
	}
	davit(t, west, a.vault, "restore", a.name, "--take-over", "--yes").want(t, 5, "Access Denied")
	absent(t, west, a.name)
	if got := a.replicas(t, east); got != "1" {
		t.Errorf("east runs %s replicas, want 1", got)
	}
	// Reading is enough for a copy, with a warning that nothing keeps the point.
	a.clone(t, a.name+"-copy").want(t, 4, "nothing keeps point")
	if got := a.sum(t, west, a.name+"-copy"); got != sum {
		t.Errorf("the clone's data is %s, want %s", got, sum)
	}
	_ = os.Remove(key)
}

// privateCA uses the vault's TLS endpoint, whose certificate nobody knows.
func privateCA(t *testing.T) {
	s3 := rig.Bed.S3()
	a := &app{vault: "tls"}
	address, err := newBucket(a.vault+"-"+run, s3.TLSEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	address = strings.Replace(address, "&insecureHTTP=true", "", 1)
	key := filepath.Join(t.TempDir(), "key")
	davit(t, east, "", "vault", "add", a.vault, address, "--recovery-key-file", key).want(t, 5, "certificate", "--ca-file")
	if _, err := os.Stat(key); err == nil {
		t.Error("a recovery key was written although the vault was refused")
	}
	addVault(t, a.vault, address, []string{east, west}, "--ca-file", s3.CAFile)
	sum, p := a.protected(t)
	a.clone(t, a.name+"-copy").want(t, 0)
	if got := a.sum(t, west, a.name+"-copy"); got != sum {
		t.Errorf("the clone's data is %s, want %s", got, sum)
	}
	davit(t, west, a.vault, "verify", p.ID).want(t, 0, "is whole")
}
