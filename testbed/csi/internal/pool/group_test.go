package pool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"davit.dev/davit/testbed/csi/internal/disk"
)

// alternate appends a line to the first file, then to the second, each on disk before the next, until told to stop.
func alternate(paths [2]string, synced chan<- int, stop <-chan struct{}) error {
	var files [2]*os.File
	for i, path := range paths {
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		defer file.Close()
		files[i] = file
	}
	for n := 1; ; n++ {
		for _, file := range files {
			if _, err := fmt.Fprintf(file, "line %d x\n", n); err != nil {
				return err
			}
			if err := file.Sync(); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		case synced <- n:
		default:
		}
	}
}

// linesIn mounts a clone of a snapshot and counts the lines of its log.
func linesIn(t *testing.T, p *Pool, id string) int {
	t.Helper()
	snap, err := p.Snapshot(id)
	if err != nil {
		t.Fatal(err)
	}
	if !snap.Frozen {
		t.Errorf("snapshot %s was taken without a freeze", id)
	}
	clone, err := p.CloneSnapshot(Volume{ID: VolumeID(id), Name: id, FSType: snap.FSType, Bytes: snap.Bytes}, snap)
	if err != nil {
		t.Fatal(err)
	}
	return countLines(t, filepath.Join(mount(t, p, clone), "log"))
}

func TestGroupShowsOneInstant(t *testing.T) {
	p, _ := openPool(t)
	var volumes []Volume
	var paths [2]string
	for i, fsType := range []string{disk.Ext4, disk.XFS} {
		v := create(t, p, fsType, fsType, 320*mi)
		volumes, paths[i] = append(volumes, v), filepath.Join(mount(t, p, v), "log")
	}
	synced, stop, done := make(chan int, 1), make(chan struct{}), make(chan error, 1)
	go func() { done <- alternate(paths, synced, stop) }()
	var taken []Group
	for i := range 5 {
		before := <-synced
		group, err := p.CreateGroup(fmt.Sprint(i), volumes)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, group)
		for <-synced <= before { // the writer goes on: nothing is frozen
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, group := range taken {
		if len(group.Snapshots) != 2 {
			t.Fatalf("group holds %v", group.Snapshots)
		}
		a, b := linesIn(t, p, group.Snapshots[0]), linesIn(t, p, group.Snapshots[1])
		if a < b || a > b+1 || b == 0 {
			t.Errorf("group %s shows line %d of the first volume and %d of the second", group.Name, a, b)
		}
	}
	if err := p.DeleteGroup(taken[0]); err != nil {
		t.Fatal(err)
	}
	for _, id := range taken[0].Snapshots {
		if _, err := p.Snapshot(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("snapshot %s of a group that was deleted: %v", id, err)
		}
	}
}

// TestHalfAGroupIsNone plays drivers that were killed between the publication of a snapshot and that of its group.
func TestHalfAGroupIsNone(t *testing.T) {
	p, config := openPool(t)
	a, b := create(t, p, "a", disk.Ext4, 320*mi), create(t, p, "b", disk.Ext4, 320*mi)
	half := func() {
		m, err := p.newMember(Group{ID: GroupID("g"), Name: "g"}, a)
		if err != nil {
			t.Fatal(err)
		}
		defer m.close()
		if err := errors.Join(cloneAll([]*member{m}), p.publishMember(m)); err != nil {
			t.Fatal(err)
		}
	}
	half()
	group, err := p.CreateGroup("g", []Volume{a, b}) // the next try begins anew
	if err != nil || len(group.Snapshots) != 2 {
		t.Fatalf("group %+v: %v", group, err)
	}
	if err := p.DeleteGroup(group); err != nil {
		t.Fatal(err)
	}
	half()
	if p, err = Open(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if left, err := p.Snapshots(); err != nil || len(left) > 0 {
		t.Errorf("half a group is left: %+v, %v", left, err)
	}
}

func TestAloneVolumesJoinNoGroup(t *testing.T) {
	p, _ := openPool(t)
	a := create(t, p, "a", disk.Ext4, 320*mi)
	lone, err := p.CreateVolume(t.Context(), Volume{ID: VolumeID("lone"), Name: "lone", FSType: disk.Ext4, Bytes: 320 * mi, Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.CreateGroup("g", []Volume{a, lone}); !errors.Is(err, ErrAlone) {
		t.Fatalf("got %v, want %v", err, ErrAlone)
	}
	if left, err := p.Snapshots(); err != nil || len(left) > 0 {
		t.Errorf("something is left: %+v, %v", left, err)
	}
}
