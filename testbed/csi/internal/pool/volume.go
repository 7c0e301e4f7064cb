package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"davit.dev/davit/testbed/csi/internal/disk"
)

// CreateVolume makes the volume that want describes, from nothing. Created is set here.
func (p *Pool) CreateVolume(ctx context.Context, want Volume) (Volume, error) {
	want.Created = time.Now().UTC()
	err := p.build(volumes, want.ID, func(dir string) error {
		image := filepath.Join(dir, imageFile)
		if err := createSparse(image, want.Bytes); err != nil {
			return err
		}
		if want.FSType != "" {
			want.FSBytes = want.Bytes
			if err := disk.Format(ctx, image, want.FSType); err != nil {
				return err
			}
		}
		return finish(dir, want)
	})
	return want, err
}

// CloneSnapshot makes a volume that starts as the snapshot.
func (p *Pool) CloneSnapshot(want Volume, from Snapshot) (Volume, error) {
	want.Created, want.Source, want.FSBytes = time.Now().UTC(), from.ID, from.FSBytes
	err := p.build(volumes, want.ID, func(dir string) error {
		src := filepath.Join(p.dir(snapshots, from.ID), imageFile)
		return cloneImage(dir, src, func(cut func() error) error { return cut() }, func() error { return finishClone(dir, want) })
	})
	return want, err
}

// CloneVolume makes a volume that starts as another one is at this instant.
func (p *Pool) CloneVolume(want, from Volume) (Volume, error) {
	want.Created, want.Source, want.FSBytes = time.Now().UTC(), from.ID, from.FSBytes
	err := p.build(volumes, want.ID, func(dir string) error {
		still := func(cut func() error) error { _, err := p.holdStill(from, cut); return err }
		return cloneImage(dir, p.Image(from.ID), still, func() error { return finishClone(dir, want) })
	})
	return want, err
}

// finishClone also gives the clone the size that was asked for, which may be more than its source has.
func finishClone(dir string, want Volume) error {
	if err := os.Truncate(filepath.Join(dir, imageFile), want.Bytes); err != nil {
		return fmt.Errorf("size clone: %w", err)
	}
	return finish(dir, want)
}

func finish(dir string, meta any) error {
	if err := disk.Sync(filepath.Join(dir, imageFile)); err != nil {
		return err
	}
	return writeMeta(dir, meta)
}

// cloneImage opens both files before still is called, because nothing but the clone itself may happen inside.
func cloneImage(dir, source string, still func(cut func() error) error, after func() error) error {
	src, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("open image to clone: %w", err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(dir, imageFile))
	if err != nil {
		return fmt.Errorf("create clone: %w", err)
	}
	defer dst.Close()
	if err := still(func() error { return disk.Clone(dst, src) }); err != nil {
		return err
	}
	return after()
}

// holdStill runs cut while the file system inside the volume is frozen, if it is mounted. A raw or unmounted volume
// needs no freeze: the clone is one instant of the image anyway.
func (p *Pool) holdStill(v Volume, cut func() error) (frozen bool, err error) {
	if v.FSType == "" {
		return false, cut()
	}
	mountpoint, err := p.mountpointOf(v.ID)
	if err != nil {
		return false, err
	}
	if mountpoint == "" {
		return false, cut()
	}
	return true, p.freezer.Hold(v.ID, mountpoint, cut)
}

// mountpointOf returns one place where the volume is mounted, or "". It never returns the outer file system: freezing
// that would hang us and every other volume.
func (p *Pool) mountpointOf(id string) (string, error) {
	mounts, err := p.MountsOf(id)
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.Target != p.outer && disk.Supported(m.FSType) {
			return m.Target, nil
		}
	}
	return "", nil
}

// MountsOf lists where the volume is in use on this node.
func (p *Pool) MountsOf(id string) ([]disk.Mount, error) {
	devices, err := disk.LoopsOf(p.Image(id))
	if err != nil {
		return nil, err
	}
	var all []disk.Mount
	for _, device := range devices {
		mounts, err := disk.MountsOf(device)
		if err != nil {
			return nil, err
		}
		all = append(all, mounts...)
	}
	return all, nil
}

// CreateSnapshot clones the volume's image under a freeze.
func (p *Pool) CreateSnapshot(name string, from Volume) (Snapshot, error) {
	return p.CreateLying(name, from, false)
}

// CreateLying does the same; what is told of the changes before a snapshot that lies is wrong.
func (p *Pool) CreateLying(name string, from Volume, lies bool) (Snapshot, error) {
	snap := Snapshot{
		ID: SnapshotID(name), Name: name, VolumeID: from.ID, Lies: lies,
		Bytes: from.Bytes, FSType: from.FSType, FSBytes: from.FSBytes,
	}
	err := p.build(snapshots, snap.ID, func(dir string) error {
		still := func(cut func() error) (err error) {
			snap.Frozen, err = p.holdStill(from, func() error {
				snap.Created = time.Now().UTC()
				return cut()
			})
			return err
		}
		return cloneImage(dir, p.Image(from.ID), still, func() error { return finish(dir, snap) })
	})
	return snap, err
}

// DeleteSnapshot removes a snapshot; none is fine.
func (p *Pool) DeleteSnapshot(id string) error {
	if !idPattern.MatchString(id) {
		return nil
	}
	return p.remove(snapshots, id)
}

// DeleteVolume removes a volume that is not mounted; none is fine.
func (p *Pool) DeleteVolume(id string) error {
	if !idPattern.MatchString(id) {
		return nil
	}
	if err := p.Detach(id); err != nil {
		return err
	}
	return p.remove(volumes, id)
}

// Detach gives up the volume's loop devices. One that is mounted is left alone and reported as ErrInUse.
func (p *Pool) Detach(id string) error {
	devices, err := disk.LoopsOf(p.Image(id))
	if err != nil {
		return err
	}
	for _, device := range devices {
		mounts, err := disk.MountsOf(device)
		if err != nil {
			return err
		}
		if len(mounts) > 0 {
			return fmt.Errorf("detach %s from %s, mounted on %s: %w", id, device, mounts[0].Target, ErrInUse)
		}
		if err := disk.DetachLoop(device); err != nil {
			return err
		}
	}
	return nil
}

// Attach gives the volume a loop device of the image's present size. Close the returned loop after mounting it.
func (p *Pool) Attach(v Volume) (*disk.Loop, error) {
	// A raw volume has no mount that would keep an autoclear device.
	loop, err := disk.AttachLoop(p.Image(v.ID), v.FSType != "")
	if err != nil {
		return nil, err
	}
	if err := disk.GrowLoop(loop.Path); err != nil {
		return nil, errors.Join(err, loop.Close())
	}
	return loop, nil
}

// Resize makes the image larger. What is inside grows where it is mounted.
func (p *Pool) Resize(v Volume, size int64) (Volume, error) {
	if err := os.Truncate(p.Image(v.ID), size); err != nil {
		return v, fmt.Errorf("grow image: %w", err)
	}
	v.Bytes = size
	return v, writeMeta(p.dir(volumes, v.ID), v)
}

// GrowMounted makes the device and the file system at mountpoint as large as the image.
func (p *Pool) GrowMounted(ctx context.Context, v Volume, mountpoint string) error {
	devices, err := disk.LoopsOf(p.Image(v.ID))
	if err != nil {
		return err
	}
	for _, device := range slices.Sorted(slices.Values(devices)) {
		if err := disk.GrowLoop(device); err != nil {
			return err
		}
		if v.FSType == "" {
			continue
		}
		if v.FSBytes == v.Bytes {
			continue
		}
		if err := disk.GrowMounted(ctx, device, mountpoint, v.FSType); err != nil {
			return err
		}
	}
	return p.recordGrown(v)
}

// Grow makes the file system on device, not mounted yet, as large as the image, where its kind can.
func (p *Pool) Grow(ctx context.Context, v Volume, device string) error {
	if v.FSType != disk.Ext4 || v.FSBytes == v.Bytes {
		return nil
	}
	if err := disk.GrowUnmounted(ctx, device); err != nil {
		return err
	}
	return p.recordGrown(v)
}

func (p *Pool) recordGrown(v Volume) error {
	if v.FSType == "" || v.FSBytes == v.Bytes {
		return nil
	}
	v.FSBytes = v.Bytes
	return writeMeta(p.dir(volumes, v.ID), v)
}
