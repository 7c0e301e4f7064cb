package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// byCalendar has points of years at hand and lets the calendar say which ones are kept: the newest of each of the newest
// hours, days, weeks, months and years that have one, as days are where the policy says.
func byCalendar(t *testing.T) {
	a := &app{vault: "calendar"}
	address := bucket(t, a.vault+"-"+run, "")
	key := addVault(t, a.vault, address, []string{east})
	_, like := a.protected(t)
	const whole = 24 * time.Hour // odd ones, so that no two are of one instant
	for every, count := range map[time.Duration]int{
		19 * time.Minute: 20, 307 * time.Minute: 24, 51*time.Hour + 11*time.Minute: 24, 11*whole + 13*time.Minute: 24, 101*whole + 17*time.Minute: 16,
	} {
		a.twins(t, address, key, like.ID, count, count, every)
	}
	zone, err := time.LoadLocation("America/St_Johns")
	if err != nil {
		t.Fatal(err)
	}
	a.protect(t, "--keep-last", "2", "--keep-hourly", "4", "--keep-daily", "5", "--keep-weekly", "6", "--keep-monthly", "7", "--keep-yearly", "3", "--time-zone", zone.String())
	all := a.allPoints(t)
	newest := a.backup(t)
	all[newest.ID] = newest.Instant
	want := ofCalendar(all, zone)
	eventually(t, 5*time.Minute, fmt.Sprintf("%d of %d points are left", len(want), len(all)), func() (bool, string) {
		left := names(t, a.manifests())
		return slices.Equal(left, want), fmt.Sprintf("%d are left: %v, and not %v", len(left), left, want)
	})
	t.Logf("of %d points %d are left, of %s to %s", len(all), len(want), all[want[0]], all[want[len(want)-1]])
	eventually(t, 3*time.Minute, "the cluster shows the same points", func() (bool, string) {
		n := len(a.points(t, east))
		return n == len(want), fmt.Sprint(n)
	})
	davit(t, east, a.vault, "points", a.name, "--from-vault").want(t, 0, want...)
}

// allPoints are the instants of the points that the vault has.
func (a *app) allPoints(t *testing.T) map[string]time.Time {
	t.Helper()
	var all struct {
		Points []pointView `json:"points"`
	}
	davit(t, east, a.vault, "points", a.name, "--from-vault", "--all", "-o", "json").want(t, 0).read(t, &all)
	at := map[string]time.Time{}
	for _, p := range all.Points {
		at[p.ID] = p.Instant
	}
	return at
}

// ofCalendar says, in the plainest way, which points byCalendar's rules keep, the oldest first.
func ofCalendar(at map[string]time.Time, zone *time.Location) []string {
	ids := slices.SortedFunc(maps.Keys(at), func(a, b string) int { return at[b].Compare(at[a]) })
	keep := map[string]bool{ids[0]: true, ids[1]: true}
	for _, rule := range []struct {
		count int
		name  func(time.Time) string
	}{
		{4, func(t time.Time) string { return t.Format("2006-01-02 15 -0700") }},
		{5, func(t time.Time) string { return t.Format("2006-01-02") }},
		{6, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, w) }},
		{7, func(t time.Time) string { return t.Format("2006-01") }},
		{3, func(t time.Time) string { return t.Format("2006") }},
	} {
		seen := map[string]bool{}
		for _, id := range ids {
			if name := rule.name(at[id].In(zone)); len(seen) < rule.count && !seen[name] {
				seen[name], keep[id] = true, true
			}
		}
	}
	return slices.Sorted(maps.Keys(keep))
}

// fullVault has a vault on a small disk, which others fill to the last byte. Captures fail and say why, and a restore goes on. What
// is to expire does so with the room that is kept for it, which gives room to captures again. The control is
// the same without that room.
func fullVault(t *testing.T) {
	a := &app{vault: "full", name: short(t)}
	disk := smallDisk(t, a.vault+"-"+run, 256)
	addVault(t, a.vault, bucket(t, a.vault+"-"+run, ""), []string{east, west})
	for i := range 6 {
		random := make([]byte, 700<<10)
		_, _ = rand.Read(random)
		a.more += fmt.Sprintf("---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: random-%d, namespace: %s}, binaryData: {random: %s}}\n", i, a.name, base64.StdEncoding.EncodeToString(random))
	}
	sum := a.deploy(t)
	a.protect(t, "--keep-last", "10")
	var taken []string
	for range 4 {
		taken = append(taken, a.backup(t).ID)
	}
	project := projectDir(a.vault + "-" + run)
	reserve := filepath.Join(project, "reserve")
	eventually(t, 3*time.Minute, "there is room for deleting", func() (bool, string) {
		n := bytesBelow(t, reserve)
		return n >= 32<<20, fmt.Sprint(n)
	})
	fill(t, disk)
	refused := func() {
		t.Helper()
		davit(t, east, "", "backup", a.name, "--wait", "--timeout", "4m").want(t, 1, "vault is full")
	}
	refused()
	if got := a.clone(t, a.name+"-copy"); got.code != 4 {
		got.want(t, 0)
	}
	if got := a.sum(t, west, a.name+"-copy"); got != sum {
		t.Errorf("out of a full vault comes %s, want %s", got, sum)
	}

	davit(t, east, a.vault, "protect", a.name, "--keep-last", "2").want(t, 0)
	aside := filepath.Join(disk, "aside")
	if err := os.Rename(reserve, aside); err != nil {
		t.Fatal(err)
	}
	refused()
	eventually(t, 3*time.Minute, "the agent says that nothing can be deleted", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "events", "--field-selector", "reason=ExpireFailed,involvedObject.name="+a.name, "-o", "jsonpath={.items[*].message}")
		return strings.Contains(got, "vault is full"), got
	})
	if got := names(t, a.manifests()); !slices.Equal(got, taken) {
		t.Errorf("control: without room for deleting %v are left of %v", got, taken)
	}
	if err := errors.Join(os.RemoveAll(reserve), os.Rename(aside, reserve)); err != nil {
		t.Fatal(err)
	}
	objects := filepath.Join(project, "objects", a.name)
	were, expired := spaceOf(t, disk, reserve), bytesBelow(t, filepath.Join(objects, taken[0]))+bytesBelow(t, filepath.Join(objects, taken[1]))
	refused()
	eventually(t, 3*time.Minute, "the points that are to expire have, and gave room", func() (bool, string) {
		left, now := names(t, a.manifests()), spaceOf(t, disk, reserve)
		return slices.Equal(left, taken[2:]) && now >= were+expired*9/10, fmt.Sprintf("%v are left; %d bytes are free, of %d and %d that expired", left, now, were, expired)
	})
	t.Logf("points with %d bytes of objects have expired; where %d bytes were free, those kept for deleting, %d are", expired, were, spaceOf(t, disk, reserve))
	p := a.backup(t)
	davit(t, west, a.vault, "verify", p.ID).want(t, 0, "is whole")
}

// smallDisk puts a disk of so many MiB where the S3 server keeps a bucket, and returns where that is.
func smallDisk(t *testing.T, bucket string, mib int64) string {
	t.Helper()
	at, image := filepath.Join(rig.Bed.S3().DataDir, bucket), filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(mib<<20), f.Close(), os.MkdirAll(at, 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", argv[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
	return at
}

// fill leaves no room on a disk.
func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// spaceOf is how many bytes a disk has left, those included that are kept for deleting.
func spaceOf(t *testing.T, disk, reserve string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail)*st.Bsize + bytesBelow(t, reserve)
}

// bytesBelow is how much the files below a directory have in them.
func bytesBelow(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
