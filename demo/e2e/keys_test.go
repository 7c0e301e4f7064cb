package e2e

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// keysRotated rotates a vault's data key, volumes included, and takes a site
// out: old and new points are whole for those who stay, and the one that was
// taken out opens no new one.
func keysRotated(t *testing.T) {
	a := &app{vault: "keyed"}
	name := a.vault + "-" + run
	key := addVault(t, a.vault, bucket(t, name, ""), []string{east, west})
	signs := func(site string) {
		eventually(t, 3*time.Minute, site+" knows key versions", func() (bool, string) {
			got := try(t, site, "get", "vault", a.vault, "-o", "jsonpath={.status.keyVersion}")
			return got != "" && got != "0", got
		})
	}
	signs(east)
	signs(west)
	sum, first := a.protected(t)
	davit(t, west, a.vault, "vault", "keys", "rotate", "--volumes").want(t, 0, "Version 2 of the data key")
	second := a.backup(t)
	for _, p := range []pointView{first, second} {
		davit(t, west, a.vault, "verify", p.ID).want(t, 0, "is whole")
	}
	if got := names(t, filepath.Join(projectDir(name), "volumes")); !slices.Contains(got, "east") || !slices.Contains(got, "east_2") {
		t.Errorf("the vault has the repositories %v, want east and east_2", got)
	}

	davit(t, east, a.vault, "vault", "keys", "remove", west, "--yes").want(t, 0, "Version 3", "stays readable")
	eventually(t, 3*time.Minute, "west is told that it was shut out", func() (bool, string) {
		got := try(t, west, "get", "vault", a.vault, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].reason}`)
		return got == "WrongKey", got
	})
	third := a.backup(t)
	davit(t, west, a.vault, "verify", third.ID).want(t, 3, "left age1")
	for _, p := range []pointView{first, second, third} {
		davit(t, east, a.vault, "verify", p.ID).want(t, 0, "is whole")
	}

	// Admitted again, it reads everything, and restores the oldest and the newest.
	davit(t, west, "", "vault", "add", a.vault, bucket(t, name, ""), "--recovery-key-file", key, "--join", "--replace").want(t, 0)
	for i, p := range []pointView{first, third} {
		namespace := a.name + "-" + string(rune('a'+i))
		removeNamespace(t, west, namespace)
		davit(t, west, a.vault, "restore", p.ID, "--as-clone", "--map-namespace", a.name+"="+namespace, "--yes").want(t, 0, p.ID)
		if got := a.sum(t, west, namespace); got != sum {
			t.Errorf("the data of %s is %s, want %s", p.ID, got, sum)
		}
	}
}
