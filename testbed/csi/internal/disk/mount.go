package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is one line of the mount table.
type Mount struct {
	Root   string // the part of the file system that is mounted
	Target string
	FSType string
	Source string
}

// Mounts reads the mount table of this process.
func Mounts() ([]Mount, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("open mount table: %w", err)
	}
	defer file.Close()
	return parseMounts(file)
}

func parseMounts(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		head, tail := strings.Fields(left), strings.Fields(right)
		if !ok || len(head) < 5 || len(tail) < 2 {
			continue
		}
		mounts = append(mounts, Mount{
			Root: unescape(head[3]), Target: unescape(head[4]), FSType: tail[0], Source: unescape(tail[1]),
		})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	return mounts, nil
}

// unescape undoes the octal escapes of the mount table.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// MountAt returns the topmost mount on target.
func MountAt(target string) (Mount, bool, error) {
	mounts, err := Mounts()
	if err != nil {
		return Mount{}, false, err
	}
	for _, m := range slices.Backward(mounts) {
		if m.Target == target {
			return m, true, nil
		}
	}
	return Mount{}, false, nil
}

// MountsOf lists where device, for example "/dev/loop3", is in use: the mounts of the file system on it, and the files
// its node is bound to.
func MountsOf(device string) ([]Mount, error) {
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(mounts, func(m Mount) bool { return m.Source != device && !m.bindsNode(device) }), nil
}

// bindsNode says whether the mount shows the device node itself, as a raw volume does.
func (m Mount) bindsNode(device string) bool {
	return m.FSType == "devtmpfs" && m.Root == "/"+filepath.Base(device)
}

// MountDevice mounts the file system of a block device.
func MountDevice(ctx context.Context, device, target, fsType string, options []string) error {
	args := []string{"-t", fsType}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	return run(ctx, "mount", append(args, device, target)...)
}

// Bind mounts source on target as well. A bind mount ignores the read-only flag until it is mounted again with it.
func Bind(source, target string, readOnly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		_ = unix.Unmount(target, unix.MNT_DETACH)
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

// Unmount takes away every mount on target; none is fine.
func Unmount(target string) error {
	for {
		_, mounted, err := MountAt(target)
		if err != nil || !mounted {
			return err
		}
		if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// Abandon detaches a mount that nobody can use any more, even while files on it are open.
func Abandon(target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach mount %s: %w", target, err)
	}
	return nil
}

// Usage is what a file system holds and has left.
type Usage struct {
	TotalBytes, FreeBytes, UsedBytes    int64
	TotalInodes, FreeInodes, UsedInodes int64
}

// UsageOf asks the file system at path; this works on a frozen one too.
func UsageOf(path string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Usage{}, fmt.Errorf("stat file system of %s: %w", path, err)
	}
	block := st.Bsize
	return Usage{
		TotalBytes:  int64(st.Blocks) * block,
		FreeBytes:   int64(st.Bavail) * block,
		UsedBytes:   int64(st.Blocks-st.Bfree) * block,
		TotalInodes: int64(st.Files),
		FreeInodes:  int64(st.Ffree),
		UsedInodes:  int64(st.Files - st.Ffree),
	}, nil
}
