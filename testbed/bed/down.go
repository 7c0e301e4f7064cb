package bed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"davit.dev/davit/testbed/bed/host"
)

// Down removes every process, mount, loop device, namespace, link, rule and file of the instance.
// On an instance that does not exist it does nothing.
func (b *Bed) Down(ctx context.Context) error {
	if err := checkRoot(); err != nil {
		return err
	}
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.load(); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range b.nodes() {
		g.Go(func() error { return errors.Join(n.linkDown(gctx), n.killAll(gctx)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := unmountUnder(ctx, b.dir); err != nil {
		return err
	}
	return errors.Join(b.removeNodes(ctx), b.fw.remove(ctx), b.forget())
}

func (b *Bed) removeNodes(ctx context.Context) error {
	var errs []error
	for _, n := range b.nodes() {
		errs = append(errs, n.removeNetwork(ctx))
		removeCNIResults(fmt.Sprintf("bed-%s-%s-", b.instance, n.name))
	}
	removeLinksInto(b.dir, "/var/log/containers")
	return errors.Join(errs...)
}

// forget gives the subnets back last: as long as anything is left, nobody else may have them.
func (b *Bed) forget() error {
	if err := host.RemoveTree(b.dir); err != nil {
		return err
	}
	b.spec = spec{}
	_ = os.Remove(b.lockPath()) // held, so nobody is between opening and locking it unnoticed
	return host.Update(func(r *host.Record) error {
		for key := range r.Subnets {
			if strings.HasPrefix(key, b.instance+"/") {
				delete(r.Subnets, key)
			}
		}
		r.Restore()
		return nil
	})
}

// removeCNIResults deletes what CNI remembers of pods that were killed. Each pod has one file for the bed's network
// and one for loopback, which tells nothing but the pod's id.
func removeCNIResults(prefix string) {
	const dir = "/var/lib/cni/results/"
	paths, _ := filepath.Glob(dir + prefix + "*")
	for _, p := range paths {
		id := strings.TrimSuffix(strings.TrimPrefix(p, dir+prefix), "-"+linkName)
		_ = os.Remove(p)
		_ = os.Remove(dir + "cni-loopback-" + id + "-lo")
	}
}

// removeLinksInto deletes the symbolic links in dir that point below target: the kubelet has no flag for where it puts them.
func removeLinksInto(target, dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, target+"/") {
			_ = os.Remove(path)
		}
	}
}

// mount is a line of a mountinfo file of /proc.
type mount struct{ point, kind, source string }

func parseMounts(mountinfo string) []mount {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var list []mount
	for _, line := range strings.Split(mountinfo, "\n") {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) >= 5 && len(r) >= 2 {
			list = append(list, mount{point: unescape.Replace(l[4]), kind: r[0], source: r[1]})
		}
	}
	return list
}

func mountsUnder(dir string) ([]mount, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var under []mount
	for _, m := range parseMounts(string(data)) {
		if m.point == dir || strings.HasPrefix(m.point, dir+"/") {
			under = append(under, m)
		}
	}
	return under, nil
}

func isMountPoint(dir string) bool {
	mounts, err := mountsUnder(dir)
	return err == nil && slices.ContainsFunc(mounts, func(m mount) bool { return m.point == dir })
}

// unmountUnder takes away every mount at or below dir, the newest first, and the loop devices over files in it.
func unmountUnder(ctx context.Context, dir string) error {
	for {
		mounts, err := mountsUnder(dir)
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return detachLoops(ctx, dir)
		}
		m := mounts[len(mounts)-1]
		thaw(m)
		err = unix.Unmount(m.point, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			// Something outside the bed has a file open there. Detached, the mount goes when that ends.
			err = unix.Unmount(m.point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", m.point, err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("unmount %s: %w", m.point, ctx.Err())
		}
	}
}

// thaw ends a freeze that a killed process left behind; unmounting a frozen file system would hang.
func thaw(m mount) {
	if m.kind != "ext4" && m.kind != "xfs" && m.kind != "btrfs" || !strings.HasPrefix(m.source, "/dev/loop") {
		return
	}
	fd, err := unix.Open(m.point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = unix.IoctlSetInt(fd, fiThaw, 0)
}

// thawAll ends every freeze in the node's volumes.
func (n *node) thawAll() {
	if n.at != "" {
		n.thawInside()
		return
	}
	mounts, _ := mountsUnder(n.dir)
	for _, m := range mounts {
		thaw(m)
	}
}

const fiThaw = 0xC0045878 // FITHAW of linux/fs.h

// detachLoops frees the loop devices over files in dir. The kernel does it a moment after the last unmount.
func detachLoops(ctx context.Context, dir string) error {
	for {
		left := loopsOver(dir)
		if len(left) == 0 {
			return nil
		}
		for _, dev := range left {
			// Fails when the kernel was faster.
			_, _ = run(ctx, "losetup", "-d", dev)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("detach %v: %w", left, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func loopsOver(dir string) []string {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var devs []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && strings.HasPrefix(string(data), dir+"/") {
			devs = append(devs, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return devs
}
