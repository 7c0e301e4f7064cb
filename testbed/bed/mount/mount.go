// Package mount finds what is mounted below a directory, and takes it away, file systems that somebody left frozen and loop
// devices included.
package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is a line of a mountinfo file of /proc.
type Mount struct {
	Point  string // where
	Kind   string // of file system, such as ext4
	Source string // such as /dev/loop3
}

func parse(mountinfo string) []Mount {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var list []Mount
	for _, line := range strings.Split(mountinfo, "\n") {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) >= 5 && len(r) >= 2 {
			list = append(list, Mount{Point: unescape.Replace(l[4]), Kind: r[0], Source: r[1]})
		}
	}
	return list
}

// Under lists what is mounted at or below dir as the calling thread sees it, the oldest first.
func Under(dir string) ([]Mount, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var under []Mount
	for _, m := range parse(string(data)) {
		if m.Point == dir || strings.HasPrefix(m.Point, dir+"/") {
			under = append(under, m)
		}
	}
	return under, nil
}

// IsPoint tells whether something is mounted at dir.
func IsPoint(dir string) bool {
	mounts, err := Under(dir)
	return err == nil && slices.ContainsFunc(mounts, func(m Mount) bool { return m.Point == dir })
}

// Clear takes away every mount at or below dir, the newest first, and the loop devices over files in it. What cannot be
// unmounted is an error that names it, as is a loop device that stays until ctx ends.
func Clear(ctx context.Context, dir string) error {
	for {
		mounts, err := Under(dir)
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return detachLoops(ctx, dir)
		}
		m := mounts[len(mounts)-1]
		m.Thaw()
		err = unix.Unmount(m.Point, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			// Something outside the bed has a file open there. Detached, the mount goes when that ends.
			err = unix.Unmount(m.Point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", m.Point, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("unmount %s: %w", m.Point, ctx.Err())
		}
	}
}

const fiThaw = 0xC0045878 // FITHAW of linux/fs.h

// Thaw ends a freeze that a killed process left behind; unmounting a frozen file system would hang.
func (m Mount) Thaw() {
	if m.Kind != "ext4" && m.Kind != "xfs" && m.Kind != "btrfs" || !strings.HasPrefix(m.Source, "/dev/loop") {
		return
	}
	fd, err := unix.Open(m.Point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = unix.IoctlSetInt(fd, fiThaw, 0)
}

// detachLoops frees the loop devices over files in dir. The kernel does it a moment after the last unmount.
func detachLoops(ctx context.Context, dir string) error {
	for {
		left := Loops(dir)
		if len(left) == 0 {
			return nil
		}
		for _, dev := range left {
			// Fails when the kernel was faster.
			_ = exec.CommandContext(ctx, "losetup", "-d", dev).Run()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("detach %v: %w", left, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Loops are the loop devices over files in dir.
func Loops(dir string) []string {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var devs []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && strings.HasPrefix(string(data), dir+"/") {
			devs = append(devs, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return devs
}
