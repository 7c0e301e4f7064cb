// Package pool keeps volumes and snapshots as image files on one outer XFS with reflinks.
//
// Layout below the outer mount: volumes/<id>/{image,meta.json}, snapshots/<id>/{image,meta.json} and
// groups/<id>/meta.json. An entry is built
// in a directory whose name starts with a dot and renamed into place, so that it exists whole or not at all.
package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"davit.dev/davit/testbed/csi/internal/disk"
)

// freezeLimit is how long an application may be held still for a snapshot.
const freezeLimit = 10 * time.Second

// outerMin keeps mkfs.xfs happy and leaves room for one small volume.
const outerMin = 1 << 30

// ErrNotFound says that no volume or snapshot has the id.
var ErrNotFound = errors.New("not found")

// ErrInUse says that a volume is attached on this node.
var ErrInUse = errors.New("volume is in use")

// Config places a pool.
type Config struct {
	// Dir is the state directory of one site; it outlives the driver.
	Dir string
	// OuterBytes is the size of the outer file system when it has to be made.
	OuterBytes int64
}

// Pool is an open pool. Its methods are safe for concurrent use as long as callers do not work on one id twice at once.
type Pool struct {
	outer   string
	freezer disk.Freezer
}

// Open makes the outer file system when there is none, mounts it when it is not, and undoes what a killed driver left:
// frozen file systems, half-made entries and mounts of images that are gone.
func Open(ctx context.Context, config Config) (*Pool, error) {
	if config.OuterBytes < outerMin {
		return nil, fmt.Errorf("open pool: outer size %d is below %d bytes; ask for more", config.OuterBytes, int64(outerMin))
	}
	p := &Pool{
		outer:   filepath.Join(config.Dir, "outer"),
		freezer: disk.Freezer{Dir: filepath.Join(config.Dir, "frozen"), Limit: freezeLimit},
	}
	for _, dir := range []string{p.outer, p.freezer.Dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make pool directory: %w", err)
		}
	}
	// Thaw first: everything after this may touch a frozen file system.
	if _, err := p.freezer.ThawLeftovers(); err != nil {
		return nil, err
	}
	if err := p.mountOuter(ctx, config); err != nil {
		return nil, err
	}
	for _, kind := range []string{volumes, snapshots, groups} {
		if err := p.sweep(kind); err != nil {
			return nil, err
		}
	}
	if err := p.sweepGroups(); err != nil {
		return nil, err
	}
	return p, p.dropStale()
}

func (p *Pool) mountOuter(ctx context.Context, config Config) error {
	_, mounted, err := disk.MountAt(p.outer)
	if err != nil || mounted {
		return err
	}
	image := filepath.Join(config.Dir, "outer.img")
	if err := makeOuter(ctx, image, config.OuterBytes); err != nil {
		return err
	}
	loop, err := disk.AttachLoop(image, true)
	if err != nil {
		return fmt.Errorf("attach outer file system: %w", err)
	}
	defer loop.Close()
	// With discard, what removed volumes held goes back to the host.
	options := append(disk.MountOptions(disk.XFS), "discard")
	if err := disk.MountDevice(ctx, loop.Path, p.outer, disk.XFS, options); err != nil {
		return fmt.Errorf("mount outer file system: %w", err)
	}
	return nil
}

// makeOuter formats under another name first, so that a killed mkfs leaves nothing that looks finished.
func makeOuter(ctx context.Context, image string, size int64) error {
	if _, err := os.Stat(image); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fresh := image + ".new"
	if err := createSparse(fresh, size); err != nil {
		return err
	}
	if err := disk.Format(ctx, fresh, disk.XFS); err != nil {
		return err
	}
	return os.Rename(fresh, image)
}

func createSparse(path string, size int64) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	if err := file.Truncate(size); err != nil {
		_ = file.Close()
		return fmt.Errorf("size image: %w", err)
	}
	return file.Close()
}

// sweep removes half-made and half-removed entries.
func (p *Pool) sweep(kind string) error {
	dir := filepath.Join(p.outer, kind)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pool directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pool: %w", err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
				return fmt.Errorf("remove unfinished entry: %w", err)
			}
		}
	}
	return nil
}

// dropStale gives up loop devices and mounts of images that no longer exist, as a site that was killed in the middle
// of a deletion leaves them. Mounts of living volumes stay: the kubelet still counts on them.
func (p *Pool) dropStale() error {
	loops, err := disk.Loops()
	if err != nil {
		return err
	}
	var errs []error
	for device, backing := range loops {
		image := strings.TrimSuffix(backing, " (deleted)")
		if !strings.HasPrefix(image, p.outer+"/") {
			continue
		}
		if _, err := os.Stat(image); err == nil {
			continue
		}
		errs = append(errs, dropDevice(device))
	}
	return errors.Join(errs...)
}

func dropDevice(device string) error {
	mounts, err := disk.MountsOf(device)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := disk.Abandon(m.Target); err != nil {
			return err
		}
	}
	return disk.DetachLoop(device)
}

// Usage reports the outer file system.
func (p *Pool) Usage() (disk.Usage, error) { return disk.UsageOf(p.outer) }

// Owns says whether path lies in the pool's own file system.
func (p *Pool) Owns(path string) bool { return strings.HasPrefix(path, p.outer+"/") }
