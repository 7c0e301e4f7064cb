// Package freeze holds file systems still on one node: it decides whether a
// mounted volume may be frozen at all, asks the kernel (FIFREEZE, FITHAW), and
// keeps a watchdog in another process that thaws when the freezing one dies or
// overruns. It knows no Kubernetes.
//
// A frozen file system blocks whoever writes to it, unkillably, and the freeze
// outlives the process that asked for it. So nothing here opens, reads or
// writes a file inside one while it is frozen: the one descriptor that is
// needed is opened before, and the watchdog holds a copy of it.
package freeze

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The freeze requests of linux/fs.h, which x/sys does not name.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// ErrRefused says that a file system must not be frozen; the text says why.
var ErrRefused = errors.New("file system will not be frozen")

// freezable are the file systems that live on a block device of their own and
// stand still when told to. Network file systems freeze, if at all, one client
// of many; the subvolumes of btrfs are no file systems of their own.
var freezable = []string{"ext2", "ext3", "ext4", "xfs", "f2fs"}

// Mount is one line of /proc/self/mountinfo.
type Mount struct {
	Device string // major:minor
	Root   string // the part of the file system that is mounted
	Point  string
	Type   string
}

// Mounts reads the table of mounts.
func Mounts(r io.Reader) ([]Mount, error) {
	var all []Mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		left, right, found := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if !found || len(fields) < 6 || len(kind) < 1 {
			continue
		}
		all = append(all, Mount{Device: fields[2], Root: unescape(fields[3]), Point: unescape(fields[4]), Type: kind[0]})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read table of mounts: %w", err)
	}
	return all, nil
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Alone refuses a mount whose file system is not the volume's alone: a
// directory of a larger one, one that is mounted outside of the kubelet's
// directory, or one that another volume shares. volume is the persistent
// volume's name. The mount that counts is the last at the point: it covers the
// others.
func Alone(mounts []Mount, point, kubeletRoot, volume string) error {
	i := lastAt(mounts, point)
	if i < 0 {
		return fmt.Errorf("%w: nothing is mounted at %s", ErrRefused, point)
	}
	m := mounts[i]
	switch {
	case !slices.Contains(freezable, m.Type):
		return fmt.Errorf("%w: a %s file system cannot be held still (%s can)", ErrRefused, m.Type, strings.Join(freezable, ", "))
	case m.Root != "/":
		return fmt.Errorf("%w: the volume is the directory %s of a larger file system, which others share", ErrRefused, m.Root)
	}
	for _, other := range mounts {
		if other.Device != m.Device {
			continue
		}
		inside, ok := strings.CutPrefix(other.Point, strings.TrimSuffix(kubeletRoot, "/")+"/")
		if !ok {
			return fmt.Errorf("%w: the node itself uses its file system at %s", ErrRefused, other.Point)
		}
		if owner := ownerOf(inside); owner != "" && owner != volume {
			return fmt.Errorf("%w: volume %s is on the same file system", ErrRefused, owner)
		}
	}
	return nil
}

// lastAt is the index of the last mount at a point, or -1.
func lastAt(mounts []Mount, point string) int {
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].Point == point {
			return i
		}
	}
	return -1
}

// ownerOf is the name of the persistent volume that a path below the kubelet's
// directory belongs to: pods/UID/volumes/PLUGIN/NAME and
// pods/UID/volume-subpaths/NAME. It is empty for the plugins' own mounts.
func ownerOf(path string) string {
	parts := strings.Split(path, "/")
	switch {
	case len(parts) > 4 && parts[0] == "pods" && parts[2] == "volumes":
		return parts[4]
	case len(parts) > 3 && parts[0] == "pods" && parts[2] == "volume-subpaths":
		return parts[3]
	}
	return ""
}

// Check is Alone with this process's table of mounts.
func Check(point, kubeletRoot, volume string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read table of mounts: %w", err)
	}
	defer f.Close()
	mounts, err := Mounts(f)
	if err != nil {
		return err
	}
	return Alone(mounts, point, kubeletRoot, volume)
}

// FileSystem is an open file system that can be frozen and thawed.
type FileSystem struct {
	dir    *os.File
	device string
}

// Open opens the file system that is mounted at a directory. While it is open
// it cannot be unmounted, so it can be thawed in any case.
func Open(point string) (*FileSystem, error) {
	fd, err := unix.Open(point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", point, err)
	}
	f, err := Of(os.NewFile(uintptr(fd), point))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Of is the file system of an open directory, which is the FileSystem's from
// then on.
func Of(dir *os.File) (*FileSystem, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, fmt.Errorf("open %s: %w", dir.Name(), err)
	}
	return &FileSystem{dir: dir, device: fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))}, nil
}

// Device is its number, major:minor.
func (f *FileSystem) Device() string { return f.device }

// Close lets go of it.
func (f *FileSystem) Close() error { return f.dir.Close() }

// Flush writes out what is dirty, so that the freeze that follows is short.
func (f *FileSystem) Flush() error {
	if err := unix.Syncfs(int(f.dir.Fd())); err != nil {
		return fmt.Errorf("flush %s: %w", f.dir.Name(), err)
	}
	return nil
}

// Freeze blocks all writing from when it returns. It waits in the kernel for
// those who write now, and cannot be interrupted. Whoever has frozen it
// already keeps it: that is an error here.
func (f *FileSystem) Freeze() error {
	err := unix.IoctlSetInt(int(f.dir.Fd()), fiFreeze, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("freeze %s: somebody else has frozen it", f.dir.Name())
	case err != nil:
		return fmt.Errorf("freeze %s: %w", f.dir.Name(), err)
	}
	return nil
}

// Thaw lets writers go on. still says whether it had been frozen until now.
func (f *FileSystem) Thaw() (still bool, err error) { return thaw(int(f.dir.Fd()), f.dir.Name()) }

func thaw(fd int, name string) (still bool, err error) {
	err = unix.IoctlSetInt(fd, fiThaw, 0)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EINVAL): // not frozen: what was wanted holds
		return false, nil
	}
	return false, fmt.Errorf("thaw %s: %w", name, err)
}
