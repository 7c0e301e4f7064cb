package changes

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrDevice says that what is said of a volume's blocks cannot be told of its
// files: their places are not places of the volume, or what lies there is not what
// the files hold.
var ErrDevice = errors.New("places of files are not places of the volume")

// Device is what a file system lies on.
type Device struct {
	Size       int64 // bytes
	FileSystem string
}

// DeviceOf finds the device of the file system that is mounted at a directory. It
// must be the whole of a block device that is no part of another and made of no
// others, with ext4 or XFS on it, whose journal holds no files' data.
func DeviceOf(dir string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return Device{}, fmt.Errorf("find device of %s: %w", dir, err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Device{}, fmt.Errorf("find device of %s: %w", dir, err)
	}
	return deviceOf(os.DirFS("/sys"), os.DirFS("/proc"), string(mounts), number)
}

func deviceOf(sys, proc fs.FS, mounts, number string) (Device, error) {
	var d Device
	var options string
	if d.FileSystem, options = mountOf(mounts, number); d.FileSystem != "ext4" && d.FileSystem != "xfs" {
		return d, fmt.Errorf("%w: the file system is %q, and they are known of ext4 and xfs", ErrDevice, d.FileSystem)
	}
	for o := range strings.SplitSeq(options, ",") {
		if o == "data=journal" || strings.HasPrefix(o, "rtdev=") {
			return d, fmt.Errorf("%w: it is mounted with %s", ErrDevice, o)
		}
	}
	at := path.Join("dev/block", number)
	if err := single(sys, at); err != nil {
		return d, err
	}
	if err := ordered(sys, proc, at); d.FileSystem == "ext4" && err != nil {
		return d, err
	}
	text, err := fs.ReadFile(sys, path.Join(at, "size"))
	if err != nil {
		return d, fmt.Errorf("find size of device %s: %w", number, err)
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || sectors <= 0 || sectors > 1<<53 {
		return d, fmt.Errorf("%w: device %s has a size of %q", ErrDevice, number, text)
	}
	d.Size = sectors * 512
	return d, nil
}

// single refuses a device on which a place is another one than on the volume, as
// behind the header of an encrypted one.
func single(sys fs.FS, at string) error {
	if _, err := fs.Stat(sys, at); err != nil {
		return fmt.Errorf("%w: it is on no block device: %w", ErrDevice, err)
	}
	for _, sign := range []string{"partition", "dm", "md", "bcache"} {
		if _, err := fs.Stat(sys, path.Join(at, sign)); err == nil && !multipath(sys, at) {
			return fmt.Errorf("%w: its device is part of another one, or made of others (%s)", ErrDevice, sign)
		}
	}
	if below, err := fs.ReadDir(sys, path.Join(at, "slaves")); err == nil && len(below) > 0 && !multipath(sys, at) {
		return fmt.Errorf("%w: its device is made of %s", ErrDevice, below[0].Name())
	}
	offset, err := fs.ReadFile(sys, path.Join(at, "loop/offset"))
	if err == nil && strings.TrimSpace(string(offset)) != "0" {
		return fmt.Errorf("%w: its device begins at %s of a file", ErrDevice, strings.TrimSpace(string(offset)))
	}
	return nil
}

// ordered refuses an ext4 whose journal holds the data of its files. The mount's options do not say so
// where it is the file system's own default.
func ordered(sys, proc fs.FS, at string) error {
	event, err := fs.ReadFile(sys, path.Join(at, "uevent"))
	if err != nil {
		return fmt.Errorf("%w: its device has no name: %w", ErrDevice, err)
	}
	for line := range strings.Lines(string(event)) {
		name, found := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME=")
		if !found {
			continue
		}
		options, err := fs.ReadFile(proc, path.Join("fs/ext4", strings.ReplaceAll(name, "/", "!"), "options"))
		if err != nil {
			return fmt.Errorf("%w: how it keeps its journal is not known: %w", ErrDevice, err)
		}
		if slices.Contains(strings.Fields(string(options)), "data=journal") {
			return fmt.Errorf("%w: it is mounted with data=journal", ErrDevice)
		}
		return nil
	}
	return fmt.Errorf("%w: its device has no name", ErrDevice)
}

// multipath tells whether a device is several ways to one and the same.
func multipath(sys fs.FS, at string) bool {
	id, err := fs.ReadFile(sys, path.Join(at, "dm/uuid"))
	return err == nil && strings.HasPrefix(string(id), "mpath-")
}

// mountOf finds the kind and the options of the file system of a device.
func mountOf(mounts, number string) (kind, options string) {
	lines := bufio.NewScanner(strings.NewReader(mounts))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		dash := slices.Index(fields, "-")
		if len(fields) > 3 && fields[2] == number && dash > 0 && len(fields) > dash+3 {
			return fields[dash+1], fields[dash+3]
		}
	}
	return "", ""
}

// fsxattr is what FS_IOC_FSGETXATTR tells.
type fsxattr struct {
	Flags uint32
	_     [24]byte
}

const (
	getFlags    = 0x80086601 // FS_IOC_GETFLAGS
	getXFlags   = 0x801C581F // FS_IOC_FSGETXATTR
	journalData = 0x00004000 // FS_JOURNAL_DATA_FL: the journal holds the file's data
	realTime    = 0x00000001 // FS_XFLAG_REALTIME: its places are another device's
)
