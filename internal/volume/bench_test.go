package volume

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// The benchmarks compare with cp -a, and with restic where it is installed,
// on the same data in the same run: x-cp and x-restic are our time over
// theirs, so less is better. DAVIT_BENCH_FILE_MIB sets the size of the large
// file; DAVIT_BENCH=full takes a 2 GiB file and 50,000
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
	pieces := 8 // of 8 MiB
	if full() {
		pieces = 256
	}
	if n, err := strconv.Atoi(os.Getenv("DAVIT_BENCH_FILE_MIB")); err == nil {
		pieces = n / 8
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
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=x", "RESTIC_CACHE_DIR="+b.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
	return time.Since(start)
}

// benchStore is a directory, or, with DAVIT_BENCH_S3=http://HOST:PORT/BUCKET
// and the usual variables for its keys, a bucket. It says where restic has its own.
func benchStore(b *testing.B) (store vault.Store, restic string) {
	b.Helper()
	config := backend.Config{URL: "file://" + b.TempDir()}
	restic = b.TempDir() + "/restic"
	if address := os.Getenv("DAVIT_BENCH_S3"); address != "" {
		u, err := url.Parse(address)
		if err != nil {
			b.Fatal(err)
		}
		here := fmt.Sprintf("/bench-%d-%d", os.Getpid(), time.Now().UnixNano())
		config.URL = "s3:/" + u.Path + here + "?insecureHTTP=true&endpoint=" + u.Scheme + "://" + u.Host
		config.AccessKey, config.SecretKey = os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
		restic = "s3:" + address + here + "-restic"
	}
	store, err := backend.Open(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	return store, restic
}

// fastest keeps the best of several times.
type fastest time.Duration

func (f *fastest) add(d time.Duration) {
	if *f == 0 || fastest(d) < *f {
		*f = fastest(d)
	}
}

func ratio(b *testing.B, name string, ours, theirs fastest) {
	if theirs > 0 {
		b.ReportMetric(float64(ours)/float64(theirs), name)
	}
}

const restoreRounds = 3 // the sides take turns; the best of each counts

// benchTree measures backup, a second backup after a change, and restores.
func benchTree(b *testing.B, root string, change func()) {
	if b.N > 1 {
		b.Fatalf("measures only first backups: run with -benchtime 1x, not %d rounds", b.N)
	}
	store, resticRepo := benchStore(b)
	r := openTest(b, store)
	var ours, cp, restic struct{ backup, again, restore fastest }
	_, err := exec.LookPath("restic")
	withRestic := err == nil
	start := time.Now()
	first := write(b, r, root)
	ours.backup.add(time.Since(start))
	cp.backup.add(run(b, "sh", "-c", "cp -a "+root+" "+b.TempDir()+"/copy && sync -f "+root))
	if withRestic {
		run(b, "restic", "-q", "-r", resticRepo, "init")
		restic.backup.add(run(b, "restic", "-q", "-r", resticRepo, "backup", root))
	}
	for range restoreRounds {
		ours.restore.add(timedRead(b, store, first))
		if withRestic {
			target := b.TempDir()
			restic.restore.add(run(b, "sh", "-c", "restic -q -r "+resticRepo+" restore latest --target "+target+" && sync -f "+root))
			run(b, "rm", "-rf", target)
		}
		target := b.TempDir()
		cp.restore.add(run(b, "sh", "-c", "cp -a "+root+" "+target+"/copy && sync -f "+root))
		run(b, "rm", "-rf", target)
	}
	change()
	if withRestic {
		restic.again.add(run(b, "restic", "-q", "-r", resticRepo, "backup", root))
	}
	start = time.Now()
	write(b, r, root, func(o *WriteOptions) { o.Previous = &first })
	ours.again.add(time.Since(start))
	b.SetBytes(first.Bytes)
	ratio(b, "backup-x-cp", ours.backup, cp.backup)
	ratio(b, "restore-x-cp", ours.restore, cp.restore)
	ratio(b, "backup-x-restic", ours.backup, restic.backup)
	ratio(b, "again-x-restic", ours.again, restic.again)
	ratio(b, "restore-x-restic", ours.restore, restic.restore)
	b.ReportMetric(float64(first.NewBytes)/float64(max(first.Bytes, 1)), "stored/byte")
	b.ReportMetric(peakMiB(), "peak-MiB")
	b.Logf("ours %v, restic %v, cp %v", ours, restic, cp)
}

// timedRead restores as the node process does: it opens the repository first,
// knowing nothing of it.
func timedRead(b *testing.B, store vault.Store, snap point.Snapshot) time.Duration {
	b.Helper()
	target := b.TempDir()
	start := time.Now()
	r, err := Open(b.Context(), Options{Store: store, Prefix: testPrefix, Password: testPassword, Site: "east", ReadOnly: true})
	if err != nil {
		b.Fatal(err)
	}
	if err := r.Read(b.Context(), snap, target, ReadOptions{}); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	if err := r.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	run(b, "rm", "-rf", target)
	return took
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
	benchTree(b, root, func() {
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
	benchTree(b, root, func() {
		dirs, _ := filepath.Glob(root + "/*")
		for _, d := range dirs {
			files, _ := filepath.Glob(d + "/*")
			if err := os.WriteFile(files[0], random(uint64(len(d)), 4096), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	})
}
