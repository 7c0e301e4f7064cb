package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mounted makes a small ext4 and mounts it for the test.
func mounted(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting and loop devices need root; run as root to test freezing")
	}
	dir := t.TempDir()
	image, target := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Truncate(image, 32<<20), os.Mkdir(target, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := Format(context.Background(), image, Ext4); err != nil {
		t.Fatal(err)
	}
	loop, err := AttachLoop(image, true)
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	if err := MountDevice(context.Background(), loop.Path, target, Ext4, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unmount(target); err != nil {
			t.Error(err)
		}
	})
	return target
}

func freezer(t *testing.T, limit time.Duration) Freezer {
	t.Helper()
	return Freezer{Dir: t.TempDir(), Limit: limit}
}

// isFrozen asks without blocking: thawing what is not frozen is refused.
func isFrozen(t *testing.T, mountpoint string) bool {
	t.Helper()
	dir, err := os.Open(mountpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	err = unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0)
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := thaw(int(dir.Fd())); err != nil {
		t.Fatal(err)
	}
	return false
}

func TestHoldFreezesForTheCutOnly(t *testing.T) {
	target := mounted(t)
	f := freezer(t, 10*time.Second)
	err := f.Hold("v", target, func() error {
		if !isFrozen(t, target) {
			t.Error("not frozen during the cut")
		}
		if records, _ := os.ReadDir(f.Dir); len(records) != 1 {
			t.Errorf("%d freeze records during the cut, want 1", len(records))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if isFrozen(t, target) {
		t.Error("still frozen afterwards")
	}
	if records, _ := os.ReadDir(f.Dir); len(records) != 0 {
		t.Error("the freeze record was left behind")
	}
}

func TestHoldThawsWhenTheCutFails(t *testing.T) {
	target := mounted(t)
	f := freezer(t, 10*time.Second)
	broken := errors.New("broken")
	if err := f.Hold("v", target, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Hold() = %v, want the error of the cut", err)
	}
	if isFrozen(t, target) {
		t.Error("frozen after an error")
	}
	func() {
		defer func() { _ = recover() }()
		_ = f.Hold("v", target, func() error { panic("cut") })
	}()
	if isFrozen(t, target) {
		t.Error("frozen after a panic")
	}
}

func TestHoldThawsAtTheLimit(t *testing.T) {
	target := mounted(t)
	f := freezer(t, 50*time.Millisecond)
	err := f.Hold("v", target, func() error {
		// A write inside a frozen file system returns when it is thawed: no sleeping, no guessing.
		return os.WriteFile(filepath.Join(target, "late"), []byte("x"), 0o600)
	})
	if !errors.Is(err, ErrFreezeLimit) {
		t.Errorf("Hold() = %v, want ErrFreezeLimit", err)
	}
	// Where the freeze itself took longer than the limit, it is undone when it is there.
	tick, patience := time.NewTicker(5*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for isFrozen(t, target) {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatal("frozen after the limit")
		}
	}
}

func TestHoldLeavesAForeignFreezeAlone(t *testing.T) {
	target := mounted(t)
	outer, inner := freezer(t, 10*time.Second), freezer(t, 10*time.Second)
	err := outer.Hold("outer", target, func() error {
		called := false
		if err := inner.Hold("inner", target, func() error { called = true; return nil }); err != nil {
			t.Error(err)
		}
		if !called {
			t.Error("the cut was left out")
		}
		if !isFrozen(t, target) {
			t.Error("somebody else's freeze was ended")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestThawLeftovers(t *testing.T) {
	target := mounted(t)
	f := freezer(t, 10*time.Second)
	dir, err := os.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	// What a process that was killed in the middle leaves.
	if err := os.WriteFile(filepath.Join(f.Dir, "v"), []byte(target), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil {
		t.Fatal(err)
	}
	found, err := f.ThawLeftovers()
	if err != nil || len(found) != 1 || found[0] != target {
		t.Errorf("ThawLeftovers() = %v, %v, want %s", found, err, target)
	}
	if isFrozen(t, target) {
		t.Error("still frozen")
	}
	if found, err := f.ThawLeftovers(); err != nil || len(found) != 0 {
		t.Errorf("ThawLeftovers() again = %v, %v, want nothing", found, err)
	}
}
