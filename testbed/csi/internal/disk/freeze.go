package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The freeze requests, which x/sys does not name.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// ErrFreezeLimit says that the file system had to be thawed before the cut was done.
var ErrFreezeLimit = errors.New("file system was not frozen long enough for the cut; try again")

// Freezer freezes file systems for a moment. Freezing outlives the process that asked for it, so a record in Dir tells
// the next process what to thaw. Dir must lie outside of all that is ever frozen.
type Freezer struct {
	Dir   string
	Limit time.Duration
}

// Hold freezes the file system at mountpoint, calls cut and thaws, whatever cut does. When cut has not returned
// within the limit the file system is thawed under it and Hold returns ErrFreezeLimit: the application's writes
// matter more than our snapshot. When somebody else holds the file system frozen, cut runs under that freeze and the
// thaw is left to them.
func (f Freezer) Hold(name, mountpoint string, cut func() error) error {
	dir, err := os.Open(mountpoint)
	if err != nil {
		return fmt.Errorf("open mount to freeze: %w", err)
	}
	defer dir.Close()
	record := filepath.Join(f.Dir, name)
	if err := os.WriteFile(record, []byte(mountpoint), 0o600); err != nil {
		return fmt.Errorf("record freeze: %w", err)
	}
	defer os.Remove(record)
	ours, err := f.freeze(dir)
	if err != nil {
		return err
	}
	if !ours {
		// Without the record a successor does not thaw what is not ours.
		_ = os.Remove(record)
		return cut()
	}
	return f.cutFrozen(dir, cut)
}

// freeze returns false when the file system was frozen by somebody else already. The call waits for writers in the
// kernel and cannot be interrupted: when it comes back after the limit, it is undone where it returns.
func (f Freezer) freeze(dir *os.File) (ours bool, err error) {
	fd, err := unix.Dup(int(dir.Fd()))
	if err != nil {
		return false, fmt.Errorf("duplicate mount descriptor: %w", err)
	}
	verdict := make(chan error)
	expired := make(chan struct{})
	go func() {
		defer unix.Close(fd)
		err := unix.IoctlSetInt(fd, fiFreeze, 0)
		select {
		case verdict <- err:
		case <-expired:
			if err == nil {
				_ = thaw(fd)
			}
		}
	}()
	limit := time.NewTimer(f.Limit)
	defer limit.Stop()
	select {
	case err := <-verdict:
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("freeze %s: %w", dir.Name(), err)
		}
		return true, nil
	case <-limit.C:
		close(expired)
		return false, fmt.Errorf("freeze %s within %s: %w", dir.Name(), f.Limit, ErrFreezeLimit)
	}
}

// cutFrozen runs cut under our freeze. Thawing is deferred so that a panic thaws too.
func (f Freezer) cutFrozen(dir *os.File, cut func() error) (err error) {
	thawed := make(chan error, 1)
	limit := time.AfterFunc(f.Limit, func() { thawed <- thaw(int(dir.Fd())) })
	defer func() {
		if limit.Stop() {
			err = errors.Join(err, thaw(int(dir.Fd())))
			return
		}
		err = errors.Join(err, <-thawed, ErrFreezeLimit)
	}()
	return cut()
}

func thaw(fd int) error {
	err := unix.IoctlSetInt(fd, fiThaw, 0)
	// EINVAL says that it is not frozen: what was wanted holds.
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("thaw file system: %w", err)
	}
	return nil
}

// ThawLeftovers thaws what a killed process left frozen and returns the mounts it found recorded.
func (f Freezer) ThawLeftovers() ([]string, error) {
	records, err := os.ReadDir(f.Dir)
	if err != nil {
		return nil, fmt.Errorf("list freeze records: %w", err)
	}
	var found []string
	var errs []error
	for _, record := range records {
		path := filepath.Join(f.Dir, record.Name())
		mountpoint, err := os.ReadFile(path)
		if err == nil {
			err = thawMount(string(mountpoint))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, string(mountpoint))
		errs = append(errs, os.Remove(path))
	}
	return found, errors.Join(errs...)
}

func thawMount(mountpoint string) error {
	_, mounted, err := MountAt(mountpoint)
	if err != nil || !mounted {
		return err
	}
	dir, err := os.Open(mountpoint)
	if err != nil {
		return fmt.Errorf("open mount to thaw: %w", err)
	}
	defer dir.Close()
	return thaw(int(dir.Fd()))
}

// Clone makes the empty file dst share all of src's blocks. The kernel holds off writes to src meanwhile, so the clone
// is one instant of it.
func Clone(dst, src *os.File) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		return fmt.Errorf("clone %s: %w", src.Name(), err)
	}
	return nil
}
