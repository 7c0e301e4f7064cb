package bed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/testbed/bed/host"
	"davit.dev/davit/testbed/bed/mount"
)

// Down removes every process, mount, loop device, namespace, link, rule and file of the instance.
// On an instance that does not exist it does nothing.
func (b *Bed) Down(ctx context.Context) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range b.nodes() {
		g.Go(func() error { return errors.Join(n.linkDown(gctx), n.killAll(gctx)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := mount.Clear(ctx, b.dir); err != nil {
		return err
	}
	return errors.Join(b.removeNodes(ctx), b.fw.Remove(ctx), b.forget())
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

// thawAll ends every freeze in the node's volumes.
func (n *node) thawAll() {
	if n.at != "" {
		n.thawInside()
		return
	}
	mounts, _ := mount.Under(n.dir)
	for _, m := range mounts {
		m.Thaw()
	}
}
