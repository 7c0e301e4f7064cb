package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attachTries bounds the race for a free loop device: between asking for a number and configuring it, another
// process may take it.
const attachTries = 32

// sectorBytes is the size of all devices' sectors. XFS writes a cloned image directly by whole blocks only, so that the
// kernel would give its device larger sectors than its source's had, and what lies in the image would not mount.
const sectorBytes = 4096

// Loop is an attached loop device. While it is open the kernel keeps the device even if nothing has mounted it.
type Loop struct {
	Path string
	file *os.File
}

// Close lets go of the device. An autoclear device without a mount is then detached by the kernel.
func (l *Loop) Close() error { return l.file.Close() }

// AttachLoop returns the loop device of image and attaches one when there is none. With autoclear the kernel detaches
// it after the last unmount, so that a killed driver leaks nothing.
func AttachLoop(image string, autoclear bool) (*Loop, error) {
	devices, err := LoopsOf(image)
	if err != nil {
		return nil, err
	}
	for _, path := range devices {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		// Opening it first and looking again closes the window in which autoclear takes the device away.
		if backing, err := backingFile(filepath.Base(path)); err == nil && backing == image {
			return &Loop{Path: path, file: file}, nil
		}
		_ = file.Close()
	}
	return attachNew(image, autoclear)
}

func attachNew(image string, autoclear bool) (*Loop, error) {
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	defer backing.Close()
	// Direct, as to a disk: else whatever a file system has in its page cache would be in that of the image's file system
	// once more, and be copied there.
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: sectorBytes, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image)
	if autoclear {
		config.Info.Flags |= unix.LO_FLAGS_AUTOCLEAR
	}
	for range attachTries {
		loop, err := configureFree(&config)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		return loop, err
	}
	return nil, fmt.Errorf("attach %s: no loop device stayed free in %d tries", image, attachTries)
}

func configureFree(config *unix.LoopConfig) (*Loop, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open loop control: %w", err)
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("ask for a free loop device: %w", err)
	}
	path := fmt.Sprintf("/dev/loop%d", number)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open loop device: %w", err)
	}
	if err := unix.IoctlLoopConfigure(int(file.Fd()), config); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("configure %s: %w", path, err)
	}
	return &Loop{Path: path, file: file}, nil
}

// LoopsOf lists the devices that are attached to image.
func LoopsOf(image string) ([]string, error) {
	all, err := Loops()
	if err != nil {
		return nil, err
	}
	var found []string
	for device, backing := range all {
		if backing == image {
			found = append(found, device)
		}
	}
	return found, nil
}

// Loops maps every attached loop device to its backing file, as the kernel spells it: a removed file ends in
// " (deleted)".
func Loops() (map[string]string, error) {
	entries, err := filepath.Glob("/sys/block/loop*")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	loops := make(map[string]string, len(entries))
	for _, entry := range entries {
		name := filepath.Base(entry)
		if backing, err := backingFile(name); err == nil {
			loops["/dev/"+name] = backing
		}
	}
	return loops, nil
}

func backingFile(name string) (string, error) {
	data, err := os.ReadFile("/sys/block/" + name + "/loop/backing_file")
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(data), "\n"), nil
}

// GrowLoop makes the device as large as its image has become.
func GrowLoop(device string) error {
	return onDevice(device, unix.LOOP_SET_CAPACITY, "resize")
}

// DetachLoop detaches the device; the kernel waits with it until the last user is gone.
func DetachLoop(device string) error {
	err := onDevice(device, unix.LOOP_CLR_FD, "detach")
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	return err
}

func onDevice(device string, request uint, verb string) error {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open loop device: %w", err)
	}
	defer file.Close()
	if err := unix.IoctlSetInt(int(file.Fd()), request, 0); err != nil {
		return fmt.Errorf("%s %s: %w", verb, device, err)
	}
	return nil
}
