package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// movedMark tells the second start of this program that it is where it should be.
const movedMark = "REFLINK_CSI_IN_HOST_MOUNTS"

// enterHostMounts restarts this program in the mount namespace of its parent, which in a pod with hostPID is the
// container runtime's shim and so on the host. There the kubelet's paths, the loop devices and mkfs are all at hand,
// and no mount has to propagate. The namespace of process 1 would do as well, but may be out of reach: a process can
// be entered only by one that holds all of its capabilities.
func enterHostMounts() error {
	if os.Getenv(movedMark) != "" {
		return nil
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err != nil {
		return fmt.Errorf("open the host's mount namespace: %w; does the pod have hostPID and run privileged?", err)
	}
	// A thread that shares its root with others may not change it, and exec keeps what its own thread has.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare file system attributes: %w", err)
	}
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the host's mount namespace: %w", err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", self.Fd())
	err = unix.Exec(path, os.Args, append(os.Environ(), movedMark+"=1"))
	return fmt.Errorf("restart in the host's mount namespace: %w", err)
}
