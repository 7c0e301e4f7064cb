package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// The file systems a volume may hold.
const (
	Ext4 = "ext4"
	XFS  = "xfs"
)

// Smallest sizes: below them mkfs refuses.
const (
	minExt4 = 16 << 20
	minXFS  = 300 << 20
)

// Supported says whether a volume may hold fsType.
func Supported(fsType string) bool { return fsType == Ext4 || fsType == XFS }

// MinBytes is the smallest image that holds fsType.
func MinBytes(fsType string) int64 {
	if fsType == XFS {
		return minXFS
	}
	return minExt4
}

// Format makes a file system inside image.
func Format(ctx context.Context, image, fsType string) error {
	switch fsType {
	case Ext4:
		// No reserve for root, and nothing to initialise in a sparse file: the volume has its size at once and stays quiet.
		return run(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-b", strconv.Itoa(sectorBytes), "-E", "assume_storage_prezeroed=1,nodiscard", image)
	case XFS:
		return run(ctx, "mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1", "-s", "size="+strconv.Itoa(sectorBytes), image)
	}
	return fmt.Errorf("format %s: file system %q is not supported, use ext4 or xfs", image, fsType)
}

// MountOptions are the options fsType needs besides those asked for: a clone of an XFS carries its source's UUID, and
// the kernel refuses a second one unless told otherwise.
func MountOptions(fsType string) []string {
	if fsType == XFS {
		return []string{"nouuid"}
	}
	return nil
}

// ErrGrowOffline says that the file system can grow only while it is not mounted.
var ErrGrowOffline = errors.New("growing a mounted ext4 needs CAP_SYS_RESOURCE, which this machine withholds; " +
	"stop the pods that use the volume and it grows when it is mounted again")

// capSysResource is the kernel's number of that capability.
const capSysResource = 24

// GrowMounted makes a mounted file system as large as its device. One that has that size already is left alone.
func GrowMounted(ctx context.Context, device, mountpoint, fsType string) error {
	if fsType == XFS {
		return run(ctx, "xfs_growfs", "-d", mountpoint)
	}
	if !CanGrowMountedExt4() {
		return ErrGrowOffline
	}
	return run(ctx, "resize2fs", device)
}

// GrowUnmounted does the same before mounting, for ext4; XFS grows only while mounted.
func GrowUnmounted(ctx context.Context, device string) error {
	// resize2fs insists on a check right before; its exit code 1 says that it mended something, here the journal.
	var exit *exec.ExitError
	err := run(ctx, "e2fsck", "-f", "-p", device)
	mended := errors.As(err, &exit) && exit.ExitCode() == 1
	if err != nil && !mended {
		return err
	}
	return run(ctx, "resize2fs", device)
}

// CanGrowMountedExt4 says whether this process has the capability for it, which some virtual machines take away.
func CanGrowMountedExt4() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<capSysResource) != 0
}

// Sync flushes a file or directory to its disk.
func Sync(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open to sync: %w", err)
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
