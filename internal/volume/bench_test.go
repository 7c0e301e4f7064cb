package volume

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault/fs"
)

// The benchmarks compare with cp -a, and with restic where it is installed,
// on the same data in the same run: x-cp and x-restic are our time over
// theirs, so less is better. DAVIT_BENCH=full takes a 2 GiB file and 50,000
// files of 4 KiB in place of small ones.

func full() bool { return os.Getenv("DAVIT_BENCH") == "full" }

// compressible is data as databases have it: half of it compresses.
func compressible(seed uint64, n int) []byte {
	b := random(seed, n)
	for i := 0; i+4096 <= n; i += 8192 {
		clear(b[i : i+4096])
		copy(b[i:], fmt.Sprintf("page %d of %d", i, seed))
	}
	return b
}

func largeTree(b *testing.B) string {
	root := b.TempDir()
	f, err := os.Create(root + "/large")
	if err != nil {
		b.Fatal(err)
	}
	pieces := 8
	if full() {
		pieces = 256
	}
	for i := range pieces {
		if _, err := f.Write(compressible(uint64(i), 8<<20)); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	age(b, root)
	return root
}

func smallTree(b *testing.B) string {
	root := b.TempDir()
	n := 2000
	if full() {
		n = 50_000
	}
	for i := range n {
		p := fmt.Sprintf("%s/%d/%d", root, i/100, i)
		if i%100 == 0 {
			if err := os.Mkdir(filepath.Dir(p), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(p, random(uint64(i), 4096), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	age(b, root)
	return root
}

// age makes files old enough to be trusted by the next snapshot.
func age(b *testing.B, root string) {
	run(b, "find", root, "-exec", "touch", "-d", "1 hour ago", "{}", "+")
	run(b, "sync")
}

func run(b *testing.B, name string, args ...string) time.Duration {
	b.Helper()
	start := time.Now()
	cmd := exec.CommandContext(b.Context(), name, args...)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=x", "RESTIC_CACHE_DIR="+os.TempDir()+"/davit-restic")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
	return time.Since(start)
}

// peers are the times of others for the same work; zero where not there.
type peers struct{ cp, backup, again, restore time.Duration }

func measurePeers(b *testing.B, root string, change func()) peers {
	b.Helper()
	var p peers
	p.cp = run(b, "sh", "-c", "cp -a "+root+" "+b.TempDir()+"/copy && sync -f "+root)
	if _, err := exec.LookPath("restic"); err != nil {
		change()
		return p
	}
	repo := b.TempDir() + "/restic"
	run(b, "restic", "-q", "-r", repo, "init")
	p.backup = run(b, "restic", "-q", "-r", repo, "backup", root)
	p.restore = run(b, "sh", "-c", "restic -q -r "+repo+" restore latest --target "+b.TempDir()+" && sync -f "+root)
	change()
	p.again = run(b, "restic", "-q", "-r", repo, "backup", root)
	return p
}

func ratio(b *testing.B, name string, ours, theirs time.Duration) {
	if theirs > 0 {
		b.ReportMetric(ours.Seconds()/theirs.Seconds(), name)
	}
}

// benchTree measures backup, a second backup after a change, and restore.
func benchTree(b *testing.B, root string, change func(round int)) {
	store, err := fs.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	r := openTest(b, store)
	var backup, again, restore time.Duration
	var first point.Snapshot
	rounds := 0
	for b.Loop() {
		rounds++
		start := time.Now()
		first = write(b, r, root, func(o *WriteOptions) { o.Source.Claim = fmt.Sprint("c", rounds) })
		backup += time.Since(start)
		target := b.TempDir()
		start = time.Now()
		if err := r.Read(b.Context(), first, target, ReadOptions{}); err != nil {
			b.Fatal(err)
		}
		restore += time.Since(start)
	}
	if rounds > 1 {
		b.Fatalf("measures only the first backup: run with -benchtime 1x, not %d rounds", rounds)
	}
	p := measurePeers(b, root, func() { change(1) })
	start := time.Now()
	write(b, r, root, func(o *WriteOptions) { o.Previous = &first })
	again = time.Since(start)
	b.SetBytes(first.Bytes)
	ratio(b, "backup-x-cp", backup, p.cp)
	ratio(b, "restore-x-cp", restore, p.cp)
	ratio(b, "backup-x-restic", backup, p.backup)
	ratio(b, "again-x-restic", again, p.again)
	ratio(b, "restore-x-restic", restore, p.restore)
	b.ReportMetric(float64(first.NewBytes)/float64(max(first.Bytes, 1)), "stored/byte")
	b.ReportMetric(peakMiB(), "peak-MiB")
}

// peakMiB is the most memory this process has had.
func peakMiB() float64 {
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return 0
}

func BenchmarkLargeFile(b *testing.B) {
	root := largeTree(b)
	benchTree(b, root, func(int) {
		f, err := os.OpenFile(root+"/large", os.O_RDWR, 0)
		if err != nil {
			b.Fatal(err)
		}
		st, _ := f.Stat()
		// 1 % of the pages, in runs, as a database's checkpoint leaves them.
		for at := int64(0); at < st.Size(); at += 100 << 20 {
			if _, err := f.WriteAt(random(77, 1<<20), at); err != nil {
				b.Fatal(err)
			}
		}
		_ = f.Close()
	})
}

func BenchmarkSmallFiles(b *testing.B) {
	root := smallTree(b)
	benchTree(b, root, func(int) {
		dirs, _ := filepath.Glob(root + "/*")
		for _, d := range dirs {
			files, _ := filepath.Glob(d + "/*")
			if err := os.WriteFile(files[0], random(uint64(len(d)), 4096), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	})
}
