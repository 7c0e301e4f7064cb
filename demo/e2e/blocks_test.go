package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// blocksView is what a point says of how its one volume's changed blocks were asked for.
type blocksView struct {
	Unread     int64  `json:"unread"`
	Base       bool   `json:"base"`
	Reason     string `json:"reason"`
	Distrusted string `json:"distrusted"`
}

// blocks is that of a point, with the point's warnings.
func (a *app) blocks(t *testing.T, id string) (b blocksView, bytes int64, warnings string) {
	t.Helper()
	var d struct {
		Manifest struct {
			Volumes []struct {
				Snapshot struct {
					Bytes  int64       `json:"bytes"`
					Blocks *blocksView `json:"blocks"`
				} `json:"snapshot"`
			} `json:"volumes"`
			Warnings []struct{ Message string } `json:"warnings"`
		} `json:"manifest"`
	}
	davit(t, a.site(), a.vault, "describe", id, "-o", "json").want(t, 0).read(t, &d)
	if len(d.Manifest.Volumes) != 1 {
		t.Fatalf("point %s has %d volumes", id, len(d.Manifest.Volumes))
	}
	for _, w := range d.Manifest.Warnings {
		warnings += w.Message + "\n"
	}
	s := d.Manifest.Volumes[0].Snapshot
	if s.Blocks != nil {
		b = *s.Blocks
	}
	return b, s.Bytes, warnings
}

// warned captures the application, which may end with warnings.
func (a *app) warned(t *testing.T) pointView {
	t.Helper()
	var p pointView
	got := davit(t, a.site(), "", "backup", a.name, "--wait", "--timeout", "4m", "-o", "json")
	if got.code != 0 && got.code != 4 {
		got.want(t, 0)
	}
	got.read(t, &p)
	return p
}

// pages writes so many MiB into the application's file, in places apart, and its new checksum.
func (a *app) pages(t *testing.T, count, apart int) {
	t.Helper()
	script := fmt.Sprintf("cd /data && for i in $(seq 1 %d); do dd if=/dev/urandom of=file bs=1048576 count=1 seek=$((i*%d)) conv=notrunc 2>/dev/null; done && sha256sum file > sum && sync", count, apart)
	kubectl(t, a.site(), "-n", a.name, "exec", "db-0", "-c", "db", "--", "sh", "-c", script)
}

// kept are the snapshots that are kept of the application for its next backup.
func (a *app) kept(t *testing.T) []string {
	t.Helper()
	return strings.Fields(try(t, a.site(), "get", "volumesnapshots", "-A", "-l", "davit.dev/base-of="+a.name, "-o", "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {end}"))
}

// changedBlocks backs up a database's file, of which one percent is changed, with what the
// storage tells: little more than that is read, and what is restored is what was there. The control is the same
// backup without the option. What is kept for it goes with the option.
func changedBlocks(t *testing.T) {
	mib, disk := 256, "512Mi" // a tenth of what is to be shown
	if os.Getenv("DAVIT_SOAK") != "" {
		mib, disk = 2048, "3Gi"
	}
	changed := mib / 100
	a := &app{disk: disk, vault: common}
	a.deploy(t)
	// Not by the pod as it starts: there is an end to how long that may take.
	kubectl(t, a.site(), "-n", a.name, "exec", "db-0", "-c", "db", "--", "sh", "-c",
		fmt.Sprintf("cd /data && dd if=/dev/urandom of=file bs=1048576 count=%d 2>/dev/null && sha256sum file > sum && sync", mib))
	a.protect(t, "--every", "24h", "--changed-blocks", "auto", "--wait")
	first := a.points(t, a.site())
	if len(first) != 1 {
		t.Fatalf("there are %d points", len(first))
	}
	if b, _, warnings := a.blocks(t, first[0].ID); b.Unread != 0 || !b.Base || !strings.Contains(b.Reason, "no point before") {
		t.Errorf("the first point: %+v\n%s", b, warnings)
	}
	if got := a.kept(t); len(got) != 1 {
		t.Errorf("kept are %v", got)
	}

	a.pages(t, changed, 80)
	began := time.Now()
	p := a.backup(t)
	took := time.Since(began)
	b, bytes, warnings := a.blocks(t, p.ID)
	if b.Reason != "" || warnings != "" || b.Distrusted != "" {
		t.Fatalf("the second point: %+v\n%s", b, warnings)
	}
	// What was changed, a sample of 1/64 or eight chunks, and the last one.
	if read := bytes - b.Unread; read > int64(mib+256)<<20/16 {
		t.Errorf("of %d bytes with %d MiB changed %d were read", bytes, changed, read)
	}
	t.Logf("of %d bytes with %d MiB changed %d were read, in %s", bytes, changed, bytes-b.Unread, took)
	eventually(t, 2*time.Minute, "the cut before is let go of, which comes last", func() (bool, string) {
		got := a.kept(t)
		return len(got) == 1, fmt.Sprint(got)
	})
	davit(t, a.site(), a.vault, "describe", p.ID).want(t, 0, "Changed blocks", "of changed files not read")

	sum := a.sum(t, a.site(), a.name)
	a.clone(t, a.name+"-copy").want(t, 0)
	if got := a.sum(t, west, a.name+"-copy"); got != sum {
		t.Errorf("restored is %s, want %s", got, sum)
	}
	davit(t, a.site(), a.vault, "verify", p.ID).want(t, 0)

	a.protect(t, "--changed-blocks", "never")
	a.pages(t, changed, 90)
	began = time.Now()
	p = a.backup(t)
	if b, _, _ := a.blocks(t, p.ID); b != (blocksView{}) {
		t.Errorf("without the option: %+v", b)
	}
	t.Logf("without the option it took %s", time.Since(began))
	eventually(t, 2*time.Minute, "what was kept is gone", func() (bool, string) {
		got := a.kept(t)
		return len(got) == 0, fmt.Sprint(got)
	})
}

// lyingDriver has the storage forget most of what was changed: within ten backups that is found, and
// from then on nothing is taken by its word, until a person says otherwise.
func lyingDriver(t *testing.T) {
	a := &app{size: 64 << 10, disk: "128Mi", vault: common}
	a.deploy(t)
	a.protect(t, "--every", "24h", "--changed-blocks", "auto", "--snapshot-class", "reflink-lies", "--wait")
	found, said := "", ""
	n := 0
	for ; n < 10 && found == ""; n++ {
		a.pages(t, 1, 30)
		p := a.warned(t)
		var b blocksView
		if b, _, said = a.blocks(t, p.ID); b.Distrusted != "" {
			found = p.ID
		}
	}
	if found == "" || !strings.Contains(said, "LIES") {
		t.Fatalf("after %d backups the lie is not found:\n%s", n, said)
	}
	t.Logf("found in backup %d: %s", n, said)
	sum := a.sum(t, a.site(), a.name)
	a.clone(t, a.name+"-copy").want(t, 0, found)
	if got := a.sum(t, west, a.name+"-copy"); got != sum {
		t.Errorf("of the point in which it was found %s is restored, want %s", got, sum)
	}
	eventually(t, 2*time.Minute, "nothing is kept of a storage that lies", func() (bool, string) {
		got := a.kept(t)
		return len(got) == 0, fmt.Sprint(got)
	})
	for _, flags := range [][]string{{}, {"--changed-blocks", "never"}, {"--changed-blocks", "auto", "--snapshot-class", "reflink"}} {
		if len(flags) > 0 {
			a.protect(t, flags...)
		}
		a.pages(t, 1, 20)
		b, _, warnings := a.blocks(t, a.warned(t).ID)
		distrusted := len(flags) == 0
		if (b.Distrusted != "") != distrusted || strings.Contains(warnings, "not asked any more") != distrusted || b.Unread != 0 {
			t.Errorf("with %v: %+v\n%s", flags, b, warnings)
		}
	}
	if b, _, warnings := a.blocks(t, a.warned(t).ID); b.Reason != "" || b.Distrusted != "" {
		t.Errorf("trusted again: %+v\n%s", b, warnings)
	}
}
