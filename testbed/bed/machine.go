package bed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"davit.dev/davit/testbed/bed/host"
	"davit.dev/davit/testbed/bed/mount"
)

// A worker lives in mounts of its own, as another machine would: what DaemonSets say of paths of the node must be true
// of every node, and the kubelet, the storage driver and Davit each have paths that they cannot share. In those mounts the
// site's directory is the worker's. One small process holds them; the others are started into them.
const machineName = "machine"

// ownDirs are those of the host, beside the site's directory, that a worker has for itself. What lies below /run is in
// memory and goes with the machine.
var ownDirs = []string{"/run/davit", "/run/containerd", "/run/netns", "/var/lib/davit", "/var/lib/kubelet", "/var/lib/cni", "/var/log/containers"}

// startMachine makes the worker's mounts, unless they are there, and starts the process that holds them.
func (n *node) startMachine(holder string) error {
	if n.running(machineName) {
		return nil
	}
	for _, dir := range ownDirs {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(n.ownDir(dir), 0o755)); err != nil {
			return fmt.Errorf("make directory of %s: %w", n.name, err)
		}
	}
	cgroup, err := os.Open(n.cgroupPath("daemons"))
	if err != nil {
		return fmt.Errorf("open cgroup of %s: %w", n.name, err)
	}
	defer cgroup.Close()
	cmd := exec.Command(holder)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	if err := inNetns(n.netns(), func() error {
		if err := n.makeMounts(); err != nil {
			return err
		}
		return cmd.Start()
	}); err != nil {
		return fmt.Errorf("start machine %s: %w", n.name, err)
	}
	pid := cmd.Process.Pid
	go func() { _ = cmd.Wait() }()
	return host.WriteJSON(n.pidFile(machineName), pidRecord{PID: pid, Start: startTime(pid), Boot: bootID()})
}

func (n *node) ownDir(dir string) string {
	return filepath.Join(n.dir, "own", strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"))
}

// makeMounts gives the calling thread, which must be locked to its goroutine and end with it, the worker's mounts. What
// others mount is let go: a copy of their mounts would keep their volumes and namespaces busy.
func (n *node) makeMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part mounts: %w", err)
	}
	state := filepath.Dir(filepath.Dir(n.dir))
	for _, dir := range []string{state, host.Dir, "/run/netns"} {
		mounts, err := mount.Under(dir)
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(mounts) {
			if m.Point == state {
				continue // a disk of the beds' own
			}
			_ = unix.Unmount(m.Point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
	for _, dir := range ownDirs {
		var err error
		if strings.HasPrefix(dir, "/run/") {
			err = unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755")
		} else {
			err = unix.Mount(n.ownDir(dir), dir, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := unix.Mount(n.dir, n.at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", n.at, err)
	}
	// Volumes must reach containers that run already.
	return unix.Mount("", n.at, "", unix.MS_SHARED, "")
}

// enter runs f where the node's processes live; children started by f are born there.
func (n *node) enter(f func() error) error {
	if n.at == "" {
		return inNetns(n.netns(), f)
	}
	mounts, err := n.openMounts()
	if err != nil {
		return err
	}
	defer mounts.Close()
	return inNetns(n.netns(), func() error {
		if err := enterMounts(mounts); err != nil {
			return err
		}
		return f()
	})
}

// openMounts opens the worker's mounts through one of its daemons.
func (n *node) openMounts() (*os.File, error) {
	for _, name := range []string{machineName, "containerd", "kubelet"} {
		if rec, ok := readPID(n.pidFile(name)); ok {
			return os.Open(fmt.Sprintf("/proc/%d/ns/mnt", rec.PID))
		}
	}
	return nil, fmt.Errorf("find mounts of %s: %w; is it up?", n.name, os.ErrNotExist)
}

// A thread that has entered a node's namespaces ends with its goroutine, all but a process's first one: that would stay
// there for good, and so would the node's mounts. So the first is nobody else's than main's.
func init() { runtime.LockOSThread() }

// enterMounts moves the calling thread, which must be locked to its goroutine and end with it.
func enterMounts(mounts *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare file system attributes: %w", err)
	}
	if err := unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mounts: %w", err)
	}
	return nil
}

// holdMounts keeps a worker's mounts while its processes are killed: a file system that is frozen when its last mount goes
// can never be thawed. Loop devices go with the mounts, as they do with a machine.
func (n *node) holdMounts() (release func(), err error) {
	if n.at == "" {
		return func() {}, nil
	}
	mounts, err := n.openMounts()
	if errors.Is(err, os.ErrNotExist) {
		return func() {}, nil // it does not run
	}
	if err != nil {
		return nil, err
	}
	n.held = mounts
	return func() {
		n.held = nil
		_ = mounts.Close()
	}, nil
}

// thawInside ends every freeze in a worker's volumes, as long as holdMounts holds them.
func (n *node) thawInside() {
	if n.held == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if enterMounts(n.held) != nil {
			return
		}
		mounts, _ := mount.Under(n.at)
		for _, m := range mounts {
			m.Thaw()
		}
	}()
	<-done
}
