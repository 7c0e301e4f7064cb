package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"davit.dev/davit/api/v1alpha1"
)

// ErrPath says that a task names a place that it may not touch, or that holds
// no mounted volume.
var ErrPath = errors.New("volume path refused")

// errNotThere comes with ErrPath where the volume may still be mounted.
var errNotThere = errors.New("nothing is mounted there")

const (
	// lookForMount is how often a mount that is to come is looked for.
	lookForMount = 50 * time.Millisecond
	// mountWithin is how long it is waited for. Whoever gave the task watches the
	// pod, and takes the task back earlier if nothing will come.
	mountWithin = 5 * time.Minute
)

var (
	podUIDs     = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|^[0-9a-f]{32}$`)
	volumeNames = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)
)

// locator finds the directory of a task's volume.
type locator struct {
	kubeletRoot string
	hostRoots   []string
	// mounts opens the table of mounts, /proc/self/mountinfo.
	mounts func() (io.ReadCloser, error)
}

func newLocator(opts Options) locator {
	return locator{
		kubeletRoot: opts.KubeletRoot,
		hostRoots:   opts.HostPathRoots,
		mounts:      func() (io.ReadCloser, error) { return os.Open("/proc/self/mountinfo") },
	}
}

// place is the directory that holds a volume's files. It is held open: who may
// write beside it can put something else under its name, and not under the handle.
type place struct {
	*os.File
}

// dir is a path that leads to the held directory, whatever its name leads to now.
func (p place) dir() string { return "/proc/self/fd/" + strconv.Itoa(int(p.Fd())) }

// find opens the directory that holds the volume's files. The caller closes it.
func (l locator) find(spec v1alpha1.VolumeTaskSpec) (place, error) {
	if spec.HostPath != "" {
		return l.hostPath(spec.HostPath)
	}
	return l.mounted(spec.PodUID, spec.PersistentVolume)
}

// mounted looks for the volume below the pod's directory, where the kubelet
// mounts it under its plugin's name. Something must be mounted there: else the
// node's own disk would be read or filled.
func (l locator) mounted(podUID, volume string) (place, error) {
	if !podUIDs.MatchString(podUID) || !volumeNames.MatchString(volume) || strings.Contains(volume, "..") {
		return place{}, fmt.Errorf("%w: pod %q, volume %q: not a pod's UID and a volume's name", ErrPath, podUID, volume)
	}
	base := filepath.Join(l.kubeletRoot, "pods", podUID, "volumes")
	plugins, err := os.ReadDir(base)
	if err != nil {
		return place{}, fmt.Errorf("%w: %w: pod %s has no volumes on this node: %w", ErrPath, errNotThere, podUID, err)
	}
	points, err := l.mountPoints()
	if err != nil {
		return place{}, err
	}
	for _, plugin := range plugins {
		if !plugin.IsDir() {
			continue
		}
		dir := filepath.Join(base, plugin.Name(), volume)
		if plugin.Name() == "kubernetes.io~csi" {
			dir = filepath.Join(dir, "mount")
		}
		if !slices.Contains(points, dir) {
			continue
		}
		at, err := openStraight(l.kubeletRoot, dir)
		if err != nil {
			return place{}, err
		}
		// Unmounted between the look and the opening, the node's own disk would be open.
		// What is open keeps its mount: if it is there now, it was when this opened it.
		if points, err = l.mountPoints(); err == nil && slices.Contains(points, dir) {
			return at, nil
		}
		_ = at.Close() // only a handle
		if err != nil {
			return place{}, err
		}
	}
	return place{}, fmt.Errorf("%w: %w: volume %s is not mounted for pod %s: is %s mounted into the node process with propagation HostToContainer?",
		ErrPath, errNotThere, volume, podUID, l.kubeletRoot)
}

// await returns when something is mounted where the task's volume will be, or what
// is wrong will not pass by waiting: find tells then.
func (l locator) await(ctx context.Context, spec v1alpha1.VolumeTaskSpec) {
	ctx, cancel := context.WithTimeout(ctx, mountWithin)
	defer cancel()
	look := time.NewTicker(lookForMount)
	defer look.Stop()
	for {
		at, err := l.mounted(spec.PodUID, spec.PersistentVolume)
		if err == nil {
			_ = at.Close()
		}
		if !errors.Is(err, errNotThere) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// hostPath allows directories below the configured roots only.
func (l locator) hostPath(dir string) (place, error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return place{}, fmt.Errorf("%w: %q is not a clean absolute path", ErrPath, dir)
	}
	for _, root := range l.hostRoots {
		if strings.HasPrefix(dir, strings.TrimSuffix(root, "/")+"/") {
			return openStraight(root, dir)
		}
	}
	return place{}, fmt.Errorf("%w: %s is below none of the allowed host path roots %v: install with --host-path-root", ErrPath, dir, l.hostRoots)
}

// openStraight opens a directory below a root, and refuses a path with a
// symbolic link in it: what a path leads to must be decided by its name alone.
// The kernel looks while it opens: between a look of ours and an opening, a
// tenant who may write to a directory on the way could put a link there.
func openStraight(root, dir string) (place, error) {
	top, err := openBeneath(unix.AT_FDCWD, root, 0)
	if err != nil {
		return place{}, fmt.Errorf("%w: open %s: %w", ErrPath, root, err)
	}
	defer unix.Close(top) //nolint:errcheck // only a handle
	below, err := filepath.Rel(root, dir)
	if err != nil {
		return place{}, fmt.Errorf("%w: %w", ErrPath, err)
	}
	fd, err := openBeneath(top, below, unix.RESOLVE_BENEATH)
	switch {
	case errors.Is(err, unix.ELOOP):
		return place{}, fmt.Errorf("%w: %s leads through a symbolic link", ErrPath, dir)
	case errors.Is(err, unix.ENOTDIR):
		return place{}, fmt.Errorf("%w: %s is not a directory: raw block volumes cannot be moved yet", ErrPath, dir)
	case errors.Is(err, unix.ENOSYS):
		return place{}, fmt.Errorf("open %s: this node's kernel is too old (openat2 came with Linux 5.6): %w", dir, err)
	case err != nil:
		return place{}, fmt.Errorf("%w: open %s: %w", ErrPath, dir, err)
	}
	return place{os.NewFile(uintptr(fd), dir)}, nil
}

func openBeneath(at int, path string, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: resolve | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(at, path, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) { // EAGAIN: something was renamed meanwhile
			return fd, err
		}
	}
}

// mountPoints returns where this process sees something mounted.
func (l locator) mountPoints() ([]string, error) {
	f, err := l.mounts()
	if err != nil {
		return nil, fmt.Errorf("read table of mounts: %w", err)
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			points = append(points, unescape(fields[4]))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read table of mounts: %w", err)
	}
	return points, nil
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
