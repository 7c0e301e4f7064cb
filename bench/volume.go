package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	claimMiB  int
	write     func(dir string) error
	change    func(dir string) error // 1 % of it
}

// volume measures one large file.
func (b *bench) volume(ctx context.Context) error {
	return b.transfers(ctx, content{
		app: b.named("volume"), size: fmt.Sprintf("%d MiB file", b.fileMiB), claimMiB: 2*b.fileMiB + 512,
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
		app: b.named("files"), size: fmt.Sprintf("%d files of 4 KiB", n), claimMiB: 3*n*smallBytes/megabyte + 512,
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

// timesOf is what one side took for the same work.
type timesOf struct{ backup, again, restore time.Duration }

// transfers measures a volume from a claim into the vault and back, from command
// to command: with davit that is snapshot, scratch claim, holder pod, transfer
// and clean-up; with cp and restic the copying alone.
func (b *bench) transfers(ctx context.Context, c content) error {
	b.report.say("writing %s", c.size)
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
	if err := c.write(data); err != nil {
		return err
	}
	if err := b.protect(ctx, c.app); err != nil {
		return err
	}
	return b.compareVolumes(ctx, c, from, to)
}

func (b *bench) compareVolumes(ctx context.Context, c content, from, to string) error {
	node, err := b.watch("node")
	if err != nil {
		return err
	}
	copying, err := b.copy(ctx, from, to)
	if err != nil {
		return err
	}
	var davit, restic timesOf
	for _, step := range []func() error{
		func() error { return b.resticFirst(ctx, from, to, &restic) },
		func() error { return b.davitFirst(ctx, c.app, node, &davit) },
		func() error { return c.change(filepath.Join(from, "data")) },
		func() (err error) { restic.again, err = b.resticBackup(ctx, from); return err },
		func() error { r, err := b.backup(ctx, c.app); davit.again = r.took; return err },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	b.report.times("volume backup, "+c.size+": davit backup / cp -a", davit.backup, copying)
	b.report.times("volume backup, "+c.size+": davit backup / restic backup", davit.backup, restic.backup)
	b.report.times("volume backup again, "+c.size+", 1 % changed: davit backup / restic backup", davit.again, restic.again)
	b.report.times("volume restore, "+c.size+": davit restore / cp -a", davit.restore, copying)
	b.report.times("volume restore, "+c.size+": davit restore / restic restore", davit.restore, restic.restore)
	return nil
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

// restic works against the same S3 server, in the same bucket.
func (b *bench) restic(ctx context.Context, script string, args ...string) (time.Duration, error) {
	s3 := b.stage.Bed.S3()
	env := []string{
		"RESTIC_REPOSITORY=s3:" + s3.Endpoint + "/" + b.bucket + "/restic", "RESTIC_PASSWORD=bench",
		"AWS_ACCESS_KEY_ID=" + s3.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s3.SecretKey, "AWS_DEFAULT_REGION=" + s3.Region,
		"RESTIC_CACHE_DIR=" + filepath.Join(b.stage.Work, "restic"),
	}
	r, err := b.command(ctx, env, "sh", append([]string{"-c", script, "sh"}, args...)...)
	return r.took, err
}

func (b *bench) resticBackup(ctx context.Context, from string) (time.Duration, error) {
	b.report.say("restic backup")
	return b.restic(ctx, `restic -q backup "$1/data"`, from)
}

func (b *bench) resticFirst(ctx context.Context, from, to string, times *timesOf) (err error) {
	if _, err := b.restic(ctx, "restic -q cat config || restic -q init"); err != nil {
		return err
	}
	if times.backup, err = b.resticBackup(ctx, from); err != nil {
		return err
	}
	b.report.say("restic restore")
	times.restore, err = b.restic(ctx, `restic -q restore latest --target "$1" && sync -f "$1"`, to)
	return err
}

func (b *bench) davitFirst(ctx context.Context, app string, node process, times *timesOf) error {
	b.report.say("davit backup")
	r, err := b.backup(ctx, app)
	if err != nil {
		return err
	}
	times.backup = r.took
	if err := b.report.peak("node process, reading a volume", node); err != nil {
		return err
	}
	if err := node.forget(); err != nil {
		return err
	}
	b.report.say("davit restore")
	r, report, err := b.clone(ctx, app, app+"-copy")
	if err != nil {
		return err
	}
	times.restore = r.took
	if report.Result.Failed > 0 {
		return fmt.Errorf("restore failed: %+v", report.Result)
	}
	return b.report.peak("node process, writing a volume", node)
}
