package warden

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/containers"
)

// EndProcesses signals the processes of pods without their runtime. Theirs are those in the cgroups that
// the kubelet makes for a pod, which bear its UID; where it makes none, there are none. What only holds the
// pod's namespaces, and who watches its containers, are left alone: without them the runtime would not know
// the pod when it is back. It does not use cgroup.kill: kernels of today kill what later starts in such a cgroup, too.
func EndProcesses(pods []containers.Sandbox, signal syscall.Signal) error {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("look for processes of pods: %w", err)
	}
	var errs []error
	for _, entry := range all {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid <= 1 || pid == os.Getpid() || !within("/proc", pid, pods) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		if within("/proc", pid, pods) { // and not another of its number
			if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("end process %d of a pod: %w", pid, err))
			}
		}
		_ = unix.Close(fd)
	}
	return errors.Join(errs...)
}

// within tells whether a process is of the containers of one of the pods.
func within(proc string, pid int, pods []containers.Sandbox) bool {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(pods, func(p containers.Sandbox) bool { return inPod(string(text), p) })
}

// inPod reads the paths of a process's cgroups: below kubepods, in a part that ends with the pod's UID, as the
// two drivers of the kubelet write it.
func inPod(cgroups string, p containers.Sandbox) bool {
	const shortest = 32 // of a UID: nothing else ends so
	if len(p.UID) < shortest || p.ID == "" || strings.Contains(cgroups, p.ID) || strings.Contains(cgroups, "conmon") {
		return false
	}
	for part := range strings.FieldsFuncSeq(cgroups, func(r rune) bool { return r == '/' || r == '\n' }) {
		part = strings.TrimSuffix(part, ".slice")
		if part == "pod"+p.UID || strings.HasSuffix(part, "-pod"+strings.ReplaceAll(p.UID, "-", "_")) {
			return true
		}
	}
	return false
}
