package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mostMiB is the most memory that an agent may have had with ten thousand points.
const mostMiB = 300

// manyPoints has a vault with more points than anybody looks at, ten thousand in the soak, and is left out elsewhere but with DAVIT_POINTS: an agent that has the vault, and
// one that comes to it, find them all, people see them, the oldest comes back with its data at the other site, and nearly
// all expire while captures go on.
func manyPoints(t *testing.T) {
	count, err := strconv.Atoi(cmp.Or(os.Getenv("DAVIT_POINTS"), "10000"))
	if err != nil {
		t.Fatal(err)
	}
	whole := max(10, count/200) // so many points have one with its volume among them
	if os.Getenv("DAVIT_SOAK") == "" && os.Getenv("DAVIT_POINTS") == "" {
		t.Skip("set DAVIT_SOAK for ten thousand points in a vault, or DAVIT_POINTS to how many there are to be")
	}
	a := &app{vault: "many"}
	address := bucket(t, a.vault+"-"+run, "")
	key := addVault(t, a.vault, address, []string{east})
	sum, like := a.protected(t)
	a.twins(t, address, key, like.ID, count, whole, time.Minute)

	davit(t, west, "", "vault", "add", a.vault, address, "--recovery-key-file", key, "--join").want(t, 0)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), west, "delete", "vault", a.vault, "--ignore-not-found")
	})
	begun := time.Now()
	for _, site := range []string{east, west} {
		eventually(t, 15*time.Minute, fmt.Sprintf("%s shows all of %d points", site, count+1), func() (bool, string) {
			n := strings.Count(try(t, site, "-n", system, "get", "recoverypoints", "-o", "name", "-l", "davit.dev/vault="+a.vault), "recoverypoint.")
			return n == count+1, strconv.Itoa(n)
		})
		t.Logf("%s shows all of them after %s; the agents had at most %d MiB", site, time.Since(begun), agentsPeak(t))
	}
	begun = time.Now()
	davit(t, west, a.vault, "status").want(t, 0)
	took := time.Since(begun)
	all := a.points(t, west)
	if len(all) != count+1 {
		t.Fatalf("davit points shows %d of %d", len(all), count+1)
	}
	oldest := all[0]
	for _, p := range all {
		if p.Instant.Before(oldest.Instant) {
			oldest = p
		}
	}
	t.Logf("davit status took %s, with davit points %s", took, time.Since(begun))
	davit(t, west, a.vault, "points", a.name, "--from-vault").want(t, 0, oldest.ID)
	begun = time.Now()
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	davit(t, west, a.vault, "restore", oldest.ID, "--as-clone", "--map-namespace", a.name+"="+copied, "--yes").want(t, 0)
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the oldest point's data is %s, want %s", got, sum)
	}
	peak := agentsPeak(t)
	t.Logf("the oldest came back within %s; the agents had at most %d MiB", time.Since(begun), peak)
	if peak > mostMiB {
		t.Errorf("an agent had %d MiB with %d points, want at most %d", peak, count, mostMiB)
	}

	a.protect(t, "--keep-last", "20", "--every", "20s", "--wait")
	captured := 0
	eventually(t, 30*time.Minute, "all but the newest have expired, while captures go on", func() (bool, string) {
		left := names(t, a.manifests())
		captured = 0
		for _, id := range left {
			if id > like.ID {
				captured++
			}
		}
		return len(left) <= 21 && captured > 2, fmt.Sprintf("%d are left, %d of them newer", len(left), captured)
	})
	eventually(t, 5*time.Minute, "the cluster shows them no more", func() (bool, string) {
		n := len(a.points(t, east))
		return n <= 22, strconv.Itoa(n)
	})
}

// twins fills the vault with points like that one, each so much older than the next.
func (a *app) twins(t *testing.T, address, key, like string, count, whole int, every time.Duration) {
	t.Helper()
	volume := kubectl(t, east, "-n", a.name, "get", "pvc", "data-db-0", "-o", "jsonpath={.spec.volumeName}")
	found, err := filepath.Glob(filepath.Join(rig.Bed.Site(east).KubeletRoot(), "pods", "*", "volumes", "*", volume, "mount"))
	if err != nil || len(found) == 0 {
		t.Fatalf("volume %s is mounted nowhere: %v", volume, err)
	}
	s3 := rig.Bed.S3()
	cmd := exec.CommandContext(t.Context(), "go", "run", "./hack/points", "-vault", address, "-key", key, "-application", a.name, "-like", like,
		"-tree", found[0], "-count", strconv.Itoa(count), "-whole", strconv.Itoa(whole), "-every", every.String())
	cmd.Dir = rig.Root
	cmd.Env = append(os.Environ(), "DAVIT_ACCESS_KEY="+s3.AccessKey, "DAVIT_SECRET_KEY="+s3.SecretKey)
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fill the vault: %v\n%s", err, out)
	}
	t.Logf("%d points were made in %s", count, time.Since(begun))
}
