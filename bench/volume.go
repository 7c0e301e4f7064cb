package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const megabyte = 1 << 20

// Pods hold the claims mounted, so that the host reaches the files. The image
// comes with the test bed.
const volumeManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: %[1]s}
spec: {accessModes: [ReadWriteOnce], storageClassName: reflink, resources: {requests: {storage: %[2]dMi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: holder, namespace: %[1]s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: hold, image: "davit.test/bedtool:1", imagePullPolicy: Never, command: [sleep, "1000000"], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`

// content is what a volume holds, under data. It is copied and restored by
// others into a claim of the same class beside it.
type content struct {
	app, size string
	files     int
	claimMiB  int
	write     func(dir string) error
	change    func(dir string) error // 1 % of it
	// restored is the part of a mover's time for a restore that davit may take.
	restored float64
}

// What a volume may take of the node process's memory beside what that has: docs/formats/volumes.md, "Memory".
const (
	forVolume = 192 << 20
	forFile   = 2 << 10
)

// asFast is the part of a mover's time for a backup that davit may take.
const asFast = 1.0

// volume measures one large file.
func (b *bench) volume(ctx context.Context) error {
	return b.transfers(ctx, content{
		app: b.named("volume"), size: fmt.Sprintf("%d MiB file", b.fileMiB), files: 1, claimMiB: 2*b.fileMiB + 512, restored: 0.5,
		write:  func(dir string) error { return b.writeFile(filepath.Join(dir, "file")) },
		change: func(dir string) error { return b.change(filepath.Join(dir, "file")) },
	})
}

// small files, as many as the engine's own benchmark has.
const (
	smallBytes = 4 << 10
	inOneDir   = 100 // of the files
)

// files measures many small ones.
func (b *bench) files(ctx context.Context) error {
	n := b.settings.files
	return b.transfers(ctx, content{
		app: b.named("files"), size: fmt.Sprintf("%d files of 4 KiB", n), files: n, claimMiB: 3*n*smallBytes/megabyte + 512, restored: 1,
		write:  func(dir string) error { return writeFiles(dir, n, 1) },
		change: func(dir string) error { return writeFiles(dir, n, 100) },
	})
}

// writeFiles writes every one of n files whose number the step divides.
func writeFiles(dir string, n, step int) error {
	buf := make([]byte, smallBytes)
	for i := 0; i < n; i += step {
		_, _ = rand.Read(buf) // never fails
		path := filepath.Join(dir, strconv.Itoa(i/inOneDir), strconv.Itoa(i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		if err := os.WriteFile(path, buf, 0o600); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
	}
	return nil
}

// side is one way to back a volume up and to restore it, and what that took, a
// time each round.
type side struct {
	name    string
	backup  func(ctx context.Context) (time.Duration, error)
	restore func(ctx context.Context, round int) (time.Duration, error)

	first, again, back []time.Duration
}

// transfers measures a volume from a claim into the vault and back, from command
// to command. All that davit does counts; so does what restic needs in a cluster,
// in pods of its own; restic and cp alone have both claims mounted already.
func (b *bench) transfers(ctx context.Context, c content) error {
	from, err := b.mounted(ctx, c.app, c.claimMiB)
	if err != nil {
		return err
	}
	to, err := b.mounted(ctx, c.app+"-plain", c.claimMiB)
	if err != nil {
		return err
	}
	data := filepath.Join(from, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := b.protect(ctx, c.app); err != nil {
		return err
	}
	node, err := b.watch("node")
	if err != nil {
		return err
	}
	idle, err := node.peak()
	if err != nil {
		return err
	}
	var reading, writing int64 // bytes at the most
	davit := b.davitSide(c.app, node, &reading, &writing)
	moved, err := b.moverSide(ctx, c)
	if err != nil {
		return err
	}
	alone, err := b.resticSide(ctx, from, to)
	if err != nil {
		return err
	}
	copied := &side{name: "cp -a", backup: func(ctx context.Context) (time.Duration, error) { return b.copy(ctx, from, to) }}
	sides := []*side{copied, alone, moved, davit}
	for round := range b.rounds {
		turn := round % len(sides) // nobody always comes after the same
		if err := b.round(ctx, c, data, round, slices.Concat(sides[turn:], sides[:turn])); err != nil {
			return err
		}
	}
	b.compareVolumes(c, davit, moved, alone, copied)
	bar := idle + forVolume + int64(c.files)*forFile
	b.report.bytes("node process, reading a volume, "+c.size, reading, bar)
	b.report.bytes("node process, writing a volume, "+c.size, writing, bar)
	return nil
}

// round has all sides move the same new data there and back, and again what
// has changed.
func (b *bench) round(ctx context.Context, c content, data string, round int, sides []*side) error {
	b.report.say("round %d: writing %s, load %s", round+1, c.size, load())
	if err := c.write(data); err != nil {
		return err
	}
	for _, s := range sides {
		took, err := s.backup(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.first = append(s.first, took)
		if s.restore == nil {
			continue
		}
		if took, err = s.restore(ctx, round); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.back = append(s.back, took)
	}
	if err := c.change(data); err != nil {
		return err
	}
	for _, s := range sides {
		if s.restore == nil {
			continue // a copy knows nothing of what was there
		}
		took, err := s.backup(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.again = append(s.again, took)
	}
	return nil
}

func (b *bench) compareVolumes(c content, davit, moved, alone, copied *side) {
	size := c.size
	compare := func(other *side, saved, restored float64) {
		b.report.times("volume backup, "+size+": davit / "+other.name, median(davit.first), median(other.first), saved)
		b.report.times("again, 1 % changed: davit / "+other.name, median(davit.again), median(other.again), saved)
		b.report.times("volume restore, "+size+": davit / "+other.name, median(davit.back), median(other.back), restored)
	}
	compare(moved, asFast, c.restored)
	compare(alone, none, none)
	b.report.times("volume backup, "+size+": davit / "+copied.name, median(davit.first), median(copied.first), none)
	b.report.times("volume restore, "+size+": davit / "+copied.name, median(davit.back), median(copied.first), none)
}

// mounted makes a claim with a pod, and returns where the host sees its files.
func (b *bench) mounted(ctx context.Context, namespace string, size int) (string, error) {
	manifest := fmt.Sprintf(volumeManifest, namespace, size)
	if _, err := b.stage.KubectlIn(ctx, site, strings.NewReader(manifest), "apply", "-f", "-"); err != nil {
		return "", err
	}
	_, err := b.stage.Kubectl(ctx, site, "-n", namespace, "wait", "--for=condition=Ready", "--timeout=5m", "pod/holder")
	if err != nil {
		return "", err
	}
	uid, err := b.stage.Kubectl(ctx, site, "-n", namespace, "get", "pod/holder", "-o", "jsonpath={.metadata.uid}")
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(b.stage.Bed.Site(site).KubeletRoot(), "pods", uid, "volumes", "kubernetes.io~csi", "*", "mount"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("find the volume of %s on the host: %q, %w", namespace, found, err)
	}
	return found[0], nil
}

// writeFile writes data as databases have it: half of each page compresses.
func (b *bench) writeFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	defer f.Close()
	buf := make([]byte, megabyte)
	for range b.fileMiB {
		_, _ = rand.Read(buf) // never fails
		for at := 0; at < len(buf); at += 8192 {
			clear(buf[at : at+4096])
		}
		if _, err := f.Write(buf); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return f.Close()
}

// change writes over 1 % of the file, in runs of one megabyte.
func (b *bench) change(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open file: %w", err)
	}
	defer f.Close()
	for at := int64(0); at < int64(b.fileMiB); at += 100 {
		if _, err := io.CopyN(io.NewOffsetWriter(f, at*megabyte), rand.Reader, megabyte); err != nil {
			return fmt.Errorf("change file: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("change file: %w", err)
	}
	return f.Close()
}

// copy is cp -a from one volume to another, and on to the disk.
func (b *bench) copy(ctx context.Context, from, to string) (time.Duration, error) {
	b.report.say("cp -a")
	r, err := b.command(ctx, nil, "sh", "-c", `cp -a "$1/data" "$2/data" && sync -f "$2"`, "sh", from, to)
	if err != nil {
		return 0, err
	}
	return r.took, os.RemoveAll(filepath.Join(to, "data"))
}

// The repositories of restic's, each with a side's own.
const (
	aloneRepository  = "restic"
	moversRepository = "restic-movers"
)

// resticEnv has restic work against the same S3 server, in the same bucket.
func (b *bench) resticEnv(repository string) []string {
	s3 := b.stage.Bed.S3()
	return []string{
		"RESTIC_REPOSITORY=s3:" + s3.Endpoint + "/" + b.bucket + "/" + repository, "RESTIC_PASSWORD=bench",
		"AWS_ACCESS_KEY_ID=" + s3.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s3.SecretKey, "AWS_DEFAULT_REGION=" + s3.Region,
	}
}

func (b *bench) restic(ctx context.Context, repository, script string, args ...string) (time.Duration, error) {
	env := append(b.resticEnv(repository), "RESTIC_CACHE_DIR="+filepath.Join(b.stage.Work, "restic"))
	r, err := b.command(ctx, env, "sh", append([]string{"-c", script, "sh"}, args...)...)
	return r.took, err
}

// resticSide is restic with both claims mounted already.
func (b *bench) resticSide(ctx context.Context, from, to string) (*side, error) {
	_, err := b.restic(ctx, aloneRepository, resticInit)
	return &side{
		name: "restic alone, claims mounted",
		backup: func(ctx context.Context) (time.Duration, error) {
			b.report.say("restic backup")
			return b.restic(ctx, aloneRepository, `restic -q backup "$1/data"`, from)
		},
		restore: func(ctx context.Context, _ int) (time.Duration, error) {
			b.report.say("restic restore")
			took, err := b.restic(ctx, aloneRepository, `restic -q restore latest --target "$1" && sync -f "$1"`, to)
			if err != nil {
				return 0, err
			}
			_, err = b.command(ctx, nil, "sh", "-c", `find "$1" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -r {} +`, "sh", to)
			return took, err
		},
	}, err
}

const resticInit = "restic -q cat config || restic -q init"

// davitSide keeps the node process's peaks of memory, too.
func (b *bench) davitSide(app string, node process, reading, writing *int64) *side {
	watched := func(peak *int64, do func() error) error {
		if err := node.forget(); err != nil {
			return err
		}
		if err := do(); err != nil {
			return err
		}
		now, err := node.peak()
		*peak = max(*peak, now)
		return err
	}
	return &side{
		name: "davit",
		backup: func(ctx context.Context) (took time.Duration, err error) {
			b.report.say("davit backup")
			return took, watched(reading, func() error {
				r, err := b.backup(ctx, app)
				took = r.took
				return err
			})
		},
		restore: func(ctx context.Context, round int) (took time.Duration, err error) {
			b.report.say("davit restore")
			to := fmt.Sprintf("%s-copy-%d", app, round)
			err = watched(writing, func() error {
				r, report, err := b.clone(ctx, app, to)
				if took = r.took; err == nil && report.Result.Failed > 0 {
					return fmt.Errorf("restore failed: %+v", report.Result)
				}
				return err
			})
			if err != nil {
				return 0, err
			}
			return took, b.removed(ctx, to)
		},
	}
}

// removed takes away a namespace whose volume would fill the disk round by round.
func (b *bench) removed(ctx context.Context, namespace string) error {
	_, err := b.stage.Kubectl(ctx, site, "delete", "namespace", namespace)
	return err
}
