package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"davit.dev/davit/api/v1alpha1"
)

// ErrPath says that a task names a place that it may not touch, or that holds
// no mounted volume.
var ErrPath = errors.New("volume path refused")

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

// find returns the directory that holds the volume's files.
func (l locator) find(spec v1alpha1.VolumeTaskSpec) (string, error) {
	if spec.HostPath != "" {
		return l.hostPath(spec.HostPath)
	}
	return l.mounted(spec.PodUID, spec.PersistentVolume)
}

// mounted looks for the volume below the pod's directory, where the kubelet
// mounts it under its plugin's name. Something must be mounted there: else the
// node's own disk would be read or filled.
func (l locator) mounted(podUID, volume string) (string, error) {
	if !podUIDs.MatchString(podUID) || !volumeNames.MatchString(volume) || strings.Contains(volume, "..") {
		return "", fmt.Errorf("%w: pod %q, volume %q: not a pod's UID and a volume's name", ErrPath, podUID, volume)
	}
	base := filepath.Join(l.kubeletRoot, "pods", podUID, "volumes")
	plugins, err := os.ReadDir(base)
	if err != nil {
		return "", fmt.Errorf("%w: pod %s has no volumes on this node: %w", ErrPath, podUID, err)
	}
	points, err := l.mountPoints()
	if err != nil {
		return "", err
	}
	for _, plugin := range plugins {
		if !plugin.IsDir() {
			continue
		}
		dir := filepath.Join(base, plugin.Name(), volume)
		if plugin.Name() == "kubernetes.io~csi" {
			dir = filepath.Join(dir, "mount")
		}
		if slices.Contains(points, dir) {
			return l.straight(dir)
		}
	}
	return "", fmt.Errorf("%w: volume %s is not mounted for pod %s: is %s mounted into the node process with propagation HostToContainer?",
		ErrPath, volume, podUID, l.kubeletRoot)
}

// hostPath allows directories below the configured roots only.
func (l locator) hostPath(dir string) (string, error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return "", fmt.Errorf("%w: %q is not a clean absolute path", ErrPath, dir)
	}
	for _, root := range l.hostRoots {
		if strings.HasPrefix(dir, strings.TrimSuffix(root, "/")+"/") {
			return l.straight(dir)
		}
	}
	return "", fmt.Errorf("%w: %s is below none of the allowed host path roots %v: install with --host-path-root", ErrPath, dir, l.hostRoots)
}

// straight refuses a path with a symbolic link in it: what a path leads to
// must be decided by its name alone.
func (l locator) straight(dir string) (string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPath, err)
	}
	if real != dir {
		return "", fmt.Errorf("%w: %s leads through a symbolic link to %s", ErrPath, dir, real)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPath, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%w: %s is not a directory: raw block volumes cannot be moved yet", ErrPath, dir)
	}
	return dir, nil
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
