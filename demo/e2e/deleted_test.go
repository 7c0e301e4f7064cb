package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// deleted deletes points of a vault with a deletion delay and takes it back,
// fills the vault, and at last lets a deleted point go: then no undeletion
// brings it back.
func deleted(t *testing.T) {
	w := newWire(t)
	a := &app{vault: "kept"}
	store := a.vault + "-" + run
	addVault(t, a.vault, bucket(t, store, w.Endpoint), []string{east}, "--deletion-delay", "1h")
	_, first := a.protected(t)
	second := a.backup(t)
	phase := func(id, want string) {
		t.Helper()
		eventually(t, 3*time.Minute, id+" is "+want, func() (bool, string) {
			got := try(t, east, "-n", system, "get", "recoverypoint", id, "-o", "jsonpath={.status.phase}")
			return got == want, got
		})
	}
	davit(t, east, a.vault, "points", "delete", first.ID, "--yes").want(t, 0, "no longer offered", "points undelete "+first.ID)
	phase(first.ID, "Deleting")
	davit(t, east, a.vault, "points", a.name).want(t, 0, second.ID, "1 point not shown")
	davit(t, east, a.vault, "points", "undelete", first.ID).want(t, 0, first.ID)
	phase(first.ID, "Available")
	davit(t, east, a.vault, "verify", first.ID, "--blobs").want(t, 0, "is whole", "of volume data compared")

	reserve := filepath.Join(projectDir(store), "reserve")
	eventually(t, 3*time.Minute, "room is kept for deleting", func() (bool, string) {
		got := names(t, reserve)
		return len(got) == 4, strings.Join(got, " ")
	})
	// Full: nothing can be captured, a deletion goes through, and what is there stays.
	w.set(full)
	davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "vault is full")
	davit(t, east, a.vault, "points", "delete", first.ID, "--yes").want(t, 0, "no longer offered")
	w.set(passing)
	davit(t, east, a.vault, "verify", second.ID).want(t, 0, "is whole")

	// The delay is over: what is deleted goes with the next capture.
	kubectl(t, east, "patch", "vault", a.vault, "--type", "merge", "-p", `{"spec":{"deletionDelay":"1s"}}`)
	eventually(t, 3*time.Minute, "the agent knows the delay", func() (bool, string) {
		got := try(t, east, "get", "vault", a.vault, "-o", "jsonpath={.metadata.generation} {.status.observedGeneration}")
		generation, observed, _ := strings.Cut(got, " ")
		return generation == observed, got
	})
	third := a.backup(t)
	eventually(t, 3*time.Minute, first.ID+" goes", func() (bool, string) {
		got := names(t, filepath.Join(projectDir(store), "manifests", a.name))
		return !slices.Contains(got, first.ID), strings.Join(got, " ")
	})
	davit(t, east, a.vault, "points", "undelete", first.ID).want(t, 3, "no recovery point")
	for _, p := range []pointView{second, third} {
		davit(t, east, a.vault, "verify", p.ID).want(t, 0, "is whole")
	}
}
