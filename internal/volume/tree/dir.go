package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// dir is an open directory, shared by all who work on its entries. Entries
// are reached from it one step at a time, so paths of any length work and no
// symbolic link is ever followed.
type dir struct {
	file *os.File
	refs atomic.Int64
}

// openRoot opens the directory at a path of the caller's.
func openRoot(path string) (*dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return newDir(fd, path), nil
}

func newDir(fd int, name string) *dir {
	d := &dir{file: os.NewFile(uintptr(fd), name)}
	d.refs.Store(1)
	return d
}

func (d *dir) fd() int { return int(d.file.Fd()) }

func (d *dir) hold() *dir {
	d.refs.Add(1)
	return d
}

func (d *dir) release() {
	if d.refs.Add(-1) == 0 {
		_ = d.file.Close() // nothing was written through it
	}
}

// proc is a path to the entry for system calls without an "at" form.
func (d *dir) proc(name string) string {
	return "/proc/self/fd/" + strconv.Itoa(d.fd()) + "/" + name
}

func (d *dir) openDir(name string) (*dir, error) {
	fd, err := openat(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return newDir(fd, name), nil
}

func (d *dir) openFile(name string, flags int, mode uint32) (*os.File, error) {
	fd, err := openat(d.fd(), name, flags|unix.O_NOFOLLOW, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openRegular opens a file for reading, and nothing else: a pod that shares the
// volume may have put a device of the node in the place of what was listed.
func (d *dir) openRegular(name string) (*os.File, error) {
	f, err := d.openFile(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("is no regular file any more")
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return f, nil
}

// chmod sets an entry's mode. The system call that takes a name follows a
// symbolic link, which a pod that shares the volume may have put there to point
// out of it; so the entry is held first, and set through the handle.
func (d *dir) chmod(name string, mode uint32) error {
	fd, err := openat(d.fd(), name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only a handle
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

func openat(at int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (d *dir) stat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func (d *dir) readlink(name string) (string, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(d.fd(), name, b)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// removeAll removes an entry, with all below it if it is a directory.
func (d *dir) removeAll(name string) error {
	err := unix.Unlinkat(d.fd(), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	child, err := d.openDir(name)
	if err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	defer child.release()
	names, err := child.names()
	if err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	for _, n := range names {
		if err := child.removeAll(n); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	return nil
}

// names lists the directory from its beginning.
func (d *dir) names() ([]string, error) {
	if _, err := d.file.Seek(0, io.SeekStart); err != nil { // they may have been read before
		return nil, err
	}
	return d.file.Readdirnames(-1)
}

// modeOf translates a stat mode to Go's permission and set-id bits.
func modeOf(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	if mode&unix.S_ISUID != 0 {
		m |= os.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= os.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= os.ModeSticky
	}
	return m
}

// unixMode is the reverse of modeOf.
func unixMode(m os.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&os.ModeSetuid != 0 {
		mode |= unix.S_ISUID
	}
	if m&os.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	if m&os.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	return mode
}

func timeOf(ts unix.Timespec) time.Time { return time.Unix(ts.Sec, ts.Nsec) }

// xattrNames lists the extended attributes that are kept: see keepXattr.
func xattrNames(path string) ([]string, error) {
	size, err := unix.Llistxattr(path, nil)
	if size == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	list := make([]byte, size+256)
	if size, err = unix.Llistxattr(path, list); err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	names := strings.Split(strings.TrimRight(string(list[:size]), "\x00"), "\x00")
	return slices.DeleteFunc(names, func(name string) bool { return !keepXattr(name) }), nil
}

// dropXattrs removes the kept attributes of an entry that was there before,
// but for those wanted, which are set anyway. A directory's default access list
// would else be passed on to all that is made in it.
func dropXattrs(path string, wanted map[string][]byte) error {
	names, err := xattrNames(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := wanted[name]; ok {
			continue
		}
		if err := unix.Lremovexattr(path, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove attribute %s: %w", name, err)
		}
	}
	return nil
}

// xattrs reads the extended attributes that are kept.
func xattrs(path string) (map[string][]byte, error) {
	names, err := xattrNames(path)
	if err != nil {
		return nil, err
	}
	var found map[string][]byte
	for _, name := range names {
		value := make([]byte, 64<<10) // the kernel's limit for one value
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		if found == nil {
			found = map[string][]byte{}
		}
		found[name] = append([]byte{}, value[:n]...)
	}
	return found, nil
}

// keepXattr says which extended attributes belong to the data: the users'
// own, access lists and capabilities. Labels of security modules are set by
// the target's policy.
func keepXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

func times(at time.Time) []unix.Timespec {
	ts := unix.Timespec{Sec: at.Unix(), Nsec: int64(at.Nanosecond())}
	return []unix.Timespec{ts, ts}
}

// futimens sets the times of an open file.
func futimens(fd int, at time.Time) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), times(at), 0)
}
