package pool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"davit.dev/davit/testbed/csi/internal/disk"
)

// ErrAlone says that a volume takes part in no group snapshot.
var ErrAlone = errors.New("its storage class takes part in no group snapshot")

// Group is what is known about snapshots that were taken of several volumes at one instant.
type Group struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Snapshots []string  `json:"snapshots"`
	Created   time.Time `json:"created"`
}

// Group returns the group with the id, or ErrNotFound.
func (p *Pool) Group(id string) (Group, error) { return readMeta[Group](p, groups, id) }

// member is one snapshot of a group while it is made.
type member struct {
	snap     Snapshot
	volume   Volume
	src, dst *os.File
}

// CreateGroup clones the images of all volumes while the file systems inside all of them are frozen. The group's
// record is written last: a group exists whole or not at all, and what a killed driver made of one is removed when the
// pool is opened, or by the next try.
func (p *Pool) CreateGroup(name string, from []Volume) (Group, error) {
	group := Group{ID: GroupID(name), Name: name}
	var members []*member
	defer func() {
		for _, m := range members {
			m.close()
		}
	}()
	for _, v := range from {
		m, err := p.newMember(group, v)
		if err != nil {
			return group, errors.Join(err, p.dropMembers(members))
		}
		members = append(members, m)
	}
	cut := func() error {
		group.Created = time.Now().UTC()
		return cloneAll(members)
	}
	if err := p.holdAll(members, cut); err != nil {
		return group, errors.Join(err, p.dropMembers(members))
	}
	for _, m := range members {
		m.snap.Created = group.Created
		if err := p.publishMember(m); err != nil {
			return group, errors.Join(err, p.dropMembers(members))
		}
		group.Snapshots = append(group.Snapshots, m.snap.ID)
	}
	return group, p.build(groups, group.ID, func(dir string) error { return writeMeta(dir, group) })
}

// newMember opens both files: nothing but the clone itself may happen while the file systems are frozen.
func (p *Pool) newMember(group Group, v Volume) (*member, error) {
	if v.Alone {
		return nil, fmt.Errorf("snapshot volume %s: %w", v.ID, ErrAlone)
	}
	m := &member{volume: v, snap: Snapshot{
		ID: SnapshotID(group.ID + "/" + v.ID), Name: group.Name, VolumeID: v.ID, Group: group.ID,
		Bytes: v.Bytes, FSType: v.FSType, FSBytes: v.FSBytes,
	}}
	if err := p.DeleteSnapshot(m.snap.ID); err != nil { // of a try that died
		return nil, err
	}
	dir := p.dir(snapshots, "."+m.snap.ID)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, fmt.Errorf("make entry: %w", err)
	}
	var err error
	if m.src, err = os.Open(p.Image(v.ID)); err != nil {
		return nil, errors.Join(fmt.Errorf("open image to clone: %w", err), os.RemoveAll(dir))
	}
	if m.dst, err = os.Create(filepath.Join(dir, imageFile)); err != nil {
		m.close()
		return nil, errors.Join(fmt.Errorf("create clone: %w", err), os.RemoveAll(dir))
	}
	return m, nil
}

func (m *member) close() {
	for _, f := range []*os.File{m.src, m.dst} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// holdAll freezes one file system after the other, cuts inside the last freeze, and thaws in the opposite order.
func (p *Pool) holdAll(members []*member, cut func() error) error {
	if len(members) == 0 {
		return cut()
	}
	m := members[0]
	frozen, err := p.holdStill(m.volume, func() error { return p.holdAll(members[1:], cut) })
	m.snap.Frozen = frozen
	return err
}

func cloneAll(members []*member) error {
	for _, m := range members {
		if err := disk.Clone(m.dst, m.src); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pool) publishMember(m *member) error {
	dir := p.dir(snapshots, "."+m.snap.ID)
	if err := finish(dir, m.snap); err != nil {
		return err
	}
	if err := os.Rename(dir, p.dir(snapshots, m.snap.ID)); err != nil {
		return fmt.Errorf("publish entry: %w", err)
	}
	return disk.Sync(filepath.Join(p.outer, snapshots))
}

// dropMembers removes what was made of a group that did not come about.
func (p *Pool) dropMembers(members []*member) error {
	var errs []error
	for _, m := range members {
		errs = append(errs, os.RemoveAll(p.dir(snapshots, "."+m.snap.ID)), p.DeleteSnapshot(m.snap.ID))
	}
	return errors.Join(errs...)
}

// DeleteGroup removes a group and its snapshots; none is fine. The record goes last, so that a kill in the middle
// leaves something that can be deleted again.
func (p *Pool) DeleteGroup(group Group) error {
	for _, id := range group.Snapshots {
		if err := p.DeleteSnapshot(id); err != nil {
			return err
		}
	}
	return p.remove(groups, group.ID)
}

// sweepGroups removes snapshots whose group never came about.
func (p *Pool) sweepGroups() error {
	all, err := p.Snapshots()
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Group == "" {
			continue
		}
		group, err := p.Group(s.Group)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && slices.Contains(group.Snapshots, s.ID) {
			continue
		}
		if err := p.DeleteSnapshot(s.ID); err != nil {
			return err
		}
	}
	return nil
}
