package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// flip changes one byte in the middle of a file of the S3 server.
func flip(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// largest is the biggest file below a directory.
func largest(t *testing.T, dir string) string {
	t.Helper()
	var found string
	var size int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			found, size = path, info.Size()
		}
		return err
	})
	if err != nil || found == "" {
		t.Fatalf("find a file in %s: %v", dir, err)
	}
	return found
}

// damage harms one point after the other in the vault, each in another way,
// and looks whether it is found, named, shown and refused.
func damage(t *testing.T) {
	a := &app{vault: "harmed"}
	store := a.vault + "-" + run
	addVault(t, a.vault, bucket(t, store, ""), []string{east, west})
	_, first := a.protected(t)
	lost, manifest, whole := a.backup(t), a.backup(t), a.backup(t)
	davit(t, east, a.vault, "verify", whole.ID).want(t, 0, "is whole")
	objects := func(id string) string { return filepath.Join(projectDir(store), "objects", a.name, id) }

	pack := largest(t, objects(first.ID))
	flip(t, pack)
	davit(t, east, a.vault, "verify", first.ID).want(t, 6, "is damaged", first.ID+"/"+filepath.Base(pack), "hint:")
	gone := largest(t, objects(lost.ID))
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	davit(t, east, a.vault, "verify", lost.ID).want(t, 6, lost.ID+"/"+filepath.Base(gone))
	flip(t, filepath.Join(projectDir(store), "manifests", a.name, manifest.ID))
	davit(t, east, a.vault, "verify", manifest.ID).want(t, 6, "manifests/"+a.name+"/"+manifest.ID)

	for _, p := range []pointView{first, lost, manifest} {
		davit(t, west, a.vault, "restore", p.ID, "--as-clone", "--map-namespace", a.name+"="+a.name+"-copy", "--yes").want(t, 3, p.ID, "damaged")
	}
	absent(t, west, a.name+"-copy")
	eventually(t, 3*time.Minute, "both sites show what is damaged", func() (bool, string) {
		var saw []string
		for _, site := range []string{east, west} {
			for _, p := range a.points(t, site) {
				if p.Damaged != (p.ID != whole.ID) || p.Damaged == (p.Phase == "Available") {
					saw = append(saw, fmt.Sprintf("%s: %+v", site, p))
				}
			}
		}
		return len(saw) == 0, strings.Join(saw, "; ")
	})
	// The newest whole one is chosen without being named.
	a.clone(t, a.name+"-copy").want(t, 0, whole.ID)
	if err := rigDelete(t, west, a.name+"-copy"); err != nil {
		t.Fatal(err)
	}

	flip(t, largest(t, filepath.Join(projectDir(store), "volumes", east)))
	davit(t, west, a.vault, "verify", whole.ID).want(t, 6, "volume "+a.name+"/data-db-0")
	a.clone(t, a.name+"-copy").want(t, 3, "damaged")
	absent(t, west, a.name+"-copy")
}

func rigDelete(t *testing.T, site, namespace string) error {
	t.Helper()
	_, err := rig.Kubectl(t.Context(), site, "delete", "namespace", namespace)
	return err
}

// retention keeps the newest three, and what is pinned.
func retention(t *testing.T) {
	a, w := heldApp(t, "retained", east, west)
	sum := a.deploy(t)
	a.protect(t, "--keep-last", "3")
	pinned := a.backup(t, "--pin")
	var taken []string
	for range 5 {
		taken = append(taken, a.backup(t).ID)
	}
	want := strings.Join(append([]string{pinned.ID}, taken[2:]...), " ")
	for _, kind := range []string{"manifests", "objects"} {
		eventually(t, 3*time.Minute, kind+" in the vault are those of "+want, func() (bool, string) {
			got := strings.Join(names(t, filepath.Join(projectDir(a.vault+"-"+run), kind, a.name)), " ")
			return got == want, got
		})
	}
	davit(t, east, a.vault, "points", "delete", pinned.ID, "--yes").want(t, 3, "pinned", "unpin")
	davit(t, east, a.vault, "points", "delete", taken[4], "--yes").want(t, 3, "last good")
	davit(t, east, a.vault, "verify", pinned.ID).want(t, 0, "is whole")
	eventually(t, 3*time.Minute, "the cluster shows the same points", func() (bool, string) {
		points := a.points(t, east)
		return len(points) == 4, fmt.Sprintf("%+v", points)
	})
	a.expireWhileRead(t, w, taken[2], sum)
}

// expireWhileRead lets retention come to a point while a clone of it at the other site
// is held in the middle: the point stays until the clone is done, and goes then.
func (a *app) expireWhileRead(t *testing.T, w *wire, id, sum string) {
	t.Helper()
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	let := w.hold(t, http.MethodGet)
	done := make(chan outcome, 1)
	go func() {
		done <- finish(t, command(t.Context(), west, a.vault, "restore", id, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes"))
	}()
	awaitTask(t, west, a.name)
	kubectl(t, east, "-n", system, "patch", "protectionpolicy", a.name, "--type", "merge", "-p", `{"spec":{"retention":{"last":1}}}`)
	a.rewrite(t)
	a.backup(t)
	newest := a.backup(t).ID
	eventually(t, 3*time.Minute, "of all points but the pinned and the newest, only the one that is read is left", func() (bool, string) {
		got := names(t, a.manifests())
		return len(got) == 3 && slices.Contains(got, id) && slices.Contains(got, newest), strings.Join(got, " ")
	})
	davit(t, east, a.vault, "points", a.name, "--from-vault").want(t, 0, "being read by restore ", "at site west until ")
	eventually(t, 3*time.Minute, "the cluster shows who reads", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "recoverypoint", id, "-o", `jsonpath={.status.conditions[?(@.type=="BeingRead")].message}`)
		return strings.Contains(got, "at site west"), got
	})
	davit(t, east, a.vault, "points", "delete", id, "--yes").want(t, 3, "being read by restore ", "--while-read")
	let()
	ended := <-done
	ended.want(t, 0)
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	a.backup(t)
	eventually(t, 3*time.Minute, id+" goes after its reader", func() (bool, string) {
		got := names(t, a.manifests())
		return !slices.Contains(got, id), strings.Join(got, " ")
	})
}

// localVolume has a volume that nothing can make snapshots of.
func localVolume(t *testing.T) {
	a := &app{class: "local"}
	sum := a.deploy(t)
	t.Cleanup(func() { unprotect(east, a.name) })
	davit(t, east, common, "protect", a.name).want(t, 3, "data-db-0", "--volumes snapshot-or-live")
	if got := epochs(t, commonBucket(), a.name); got != 0 {
		t.Errorf("a refusal claimed %d epochs", got)
	}
	if got := len(names(t, manifests(a.name))); got != 0 {
		t.Errorf("the vault has %d points of what cannot be captured, want none", got)
	}
	a.protect(t, "--volumes", "snapshot-or-live")
	got := davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m", "-o", "json")
	if got.code != 0 && got.code != 4 {
		got.want(t, 0)
	}
	var p pointView
	got.read(t, &p)
	if p.Consistency != "fuzzy" {
		t.Errorf("a point of a live volume has consistency %q, want fuzzy", p.Consistency)
	}
	copied := a.name + "-copy"
	a.clone(t, copied).want(t, 3, "--accept-fuzzy")
	absent(t, west, copied)
	if got := a.clone(t, copied, "--accept-fuzzy"); got.code != 0 && got.code != 4 {
		got.want(t, 4)
	}
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
}
