package pool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"davit.dev/davit/testbed/csi/internal/disk"
)

const mi = 1 << 20

func openPool(t *testing.T) (*Pool, Config) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting and loop devices need root; run as root to test the pool")
	}
	config := Config{Dir: t.TempDir(), OuterBytes: 2 << 30}
	p, err := Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The kernel lets go of the file of a loop device some time after the unmount that detached it.
		err := disk.Unmount(p.outer)
		for n := 0; errors.Is(err, unix.EBUSY) && n < 600; n++ {
			time.Sleep(50 * time.Millisecond) // until it has
			err = disk.Unmount(p.outer)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return p, config
}

// mount attaches and mounts a volume for the test.
func mount(t *testing.T, p *Pool, v Volume) string {
	t.Helper()
	target := t.TempDir()
	loop, err := p.Attach(v)
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	if err := p.Grow(t.Context(), v, loop.Path); err != nil {
		t.Fatal(err)
	}
	if err := disk.MountDevice(t.Context(), loop.Path, target, v.FSType, disk.MountOptions(v.FSType)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Unmount(target); err != nil {
			t.Error(err)
		}
	})
	return target
}

func create(t *testing.T, p *Pool, name, fsType string, size int64) Volume {
	t.Helper()
	v, err := p.CreateVolume(t.Context(), Volume{ID: VolumeID(name), Name: name, FSType: fsType, Bytes: size})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// appender writes numbered lines, each synced, until it is told to stop.
type appender struct {
	synced chan int // the newest line that is on disk, replaced without blocking
	stop   chan struct{}
	done   chan error
}

func startAppender(path string) *appender {
	a := &appender{synced: make(chan int, 1), stop: make(chan struct{}), done: make(chan error, 1)}
	go func() { a.done <- a.run(path) }()
	return a
}

func (a *appender) run(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(file, "line %d %s\n", n, strings.Repeat("x", 500)); err != nil {
			return err
		}
		if err := file.Sync(); err != nil {
			return err
		}
		select {
		case <-a.stop:
			return nil
		case <-a.synced:
		default:
		}
		a.synced <- n
	}
}

func (a *appender) end(t *testing.T) {
	t.Helper()
	close(a.stop)
	if err := <-a.done; err != nil {
		t.Error(err)
	}
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if want := fmt.Sprintf("line %d x", n+1); !strings.HasPrefix(lines.Text(), want) {
			break // the end of what was whole
		}
		n++
	}
	return n
}

func TestSnapshotUnderWrites(t *testing.T) {
	for _, fsType := range []string{disk.Ext4, disk.XFS} {
		t.Run(fsType, func(t *testing.T) {
			p, _ := openPool(t)
			v := create(t, p, "source", fsType, 320*mi)
			live := mount(t, p, v)
			a := startAppender(filepath.Join(live, "log"))
			<-a.synced
			before := <-a.synced
			snap, err := p.CreateSnapshot("snap", v)
			if err != nil {
				t.Fatal(err)
			}
			<-a.synced // the writer goes on: nothing is frozen
			a.end(t)
			if !snap.Frozen {
				t.Error("the snapshot was taken without a freeze")
			}
			clone, err := p.CloneSnapshot(Volume{ID: VolumeID("clone"), Name: "clone", FSType: fsType, Bytes: 640 * mi}, snap)
			if err != nil {
				t.Fatal(err)
			}
			copied := mount(t, p, clone) // beside its source, with the same UUID
			if got := countLines(t, filepath.Join(copied, "log")); got < before {
				t.Errorf("the clone has %d lines; %d were on disk before the snapshot", got, before)
			}
			if err := p.DeleteVolume(v.ID); !errors.Is(err, ErrInUse) {
				t.Errorf("DeleteVolume() of a mounted volume = %v, want ErrInUse", err)
			}
		})
	}
}

func TestVolumeEndsAtItsSize(t *testing.T) {
	p, _ := openPool(t)
	v := create(t, p, "small", disk.Ext4, 32*mi)
	target := mount(t, p, v)
	err := os.WriteFile(filepath.Join(target, "big"), make([]byte, 33*mi), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing 33 MiB into 32 = %v, want ENOSPC", err)
	}
}

func TestExt4GrowsWhenItIsMounted(t *testing.T) {
	p, _ := openPool(t)
	v := create(t, p, "grows", disk.Ext4, 32*mi)
	v, err := p.Resize(v, 96*mi)
	if err != nil {
		t.Fatal(err)
	}
	usage, err := disk.UsageOf(mount(t, p, v))
	if err != nil {
		t.Fatal(err)
	}
	if usage.TotalBytes < 64*mi {
		t.Errorf("the file system has %d bytes after growing to 96 MiB", usage.TotalBytes)
	}
	if kept, err := p.Volume(v.ID); err != nil || kept.FSBytes != v.Bytes {
		t.Errorf("the record says %+v, %v; want the new size", kept, err)
	}
}

// TestReopen stands for a driver that was killed: what was finished is there, what was not is gone.
func TestReopen(t *testing.T) {
	p, config := openPool(t)
	v := create(t, p, "kept", disk.Ext4, 32*mi)
	unfinished := p.dir(volumes, "."+VolumeID("unfinished"))
	if err := os.Mkdir(unfinished, 0o700); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	list, err := again.Volumes()
	if err != nil || len(list) != 1 || list[0] != v {
		t.Errorf("Volumes() = %+v, %v; want %+v alone", list, err, v)
	}
	if _, err := os.Stat(unfinished); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished volume is still there: %v", err)
	}
}

func TestIDsStayInTheirDirectory(t *testing.T) {
	p := &Pool{outer: t.TempDir()}
	for _, id := range []string{"", ".", "../volumes", "vol-", VolumeID("x") + "/.."} {
		if _, err := p.Volume(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("Volume(%q) = %v, want ErrNotFound", id, err)
		}
		if err := p.DeleteVolume(id); err != nil {
			t.Errorf("DeleteVolume(%q) = %v, want nil", id, err)
		}
	}
}
