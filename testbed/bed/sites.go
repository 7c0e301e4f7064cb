package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"davit.dev/davit/testbed/bed/host"
	"davit.dev/davit/testbed/bed/mount"
	"davit.dev/davit/testbed/bed/pki"
	"davit.dev/davit/testbed/build"
)

// AddSite gives a bed that is up one more site, and returns when its node is Ready and its add-ons run. Unlike Up it starts
// nothing else: what is dead stays dead, and cuts stay in force. Of a site that is there already it starts what is missing.
func (b *Bed) AddSite(ctx context.Context, name string, log io.Writer) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if !b.Exists() {
		return fmt.Errorf("add site %s: instance %s is not up", name, b.instance)
	}
	bin, err := build.All(ctx, log)
	if err != nil {
		return err
	}
	store, err := buildStorage(ctx, log)
	if err != nil {
		return err
	}
	if err := b.settle([]string{name}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s := b.Site(name)
	if err := errors.Join(s.prepare(), b.fw.Ensure(ctx, b.subnets())); err != nil {
		return err
	}
	return b.startMembers(ctx, []*node{s.node}, bin, store, log)
}

// prepare writes the site's keys and configuration.
func (s *Site) prepare() error {
	err := errors.Join(pki.WriteSite(s.pki(), s.name, s.net, time.Now()), s.writeKubeconfigs(), s.writeConfig(s.bed.values(s)))
	if err != nil {
		return err
	}
	for _, w := range s.workers() {
		if err := w.prepare(); err != nil {
			return err
		}
	}
	return nil
}

// RemoveSite takes a site away with all its nodes: its processes at once, as Kill does, then its network, its data, and the
// cuts that it had part in. A bed keeps one site.
func (b *Bed) RemoveSite(ctx context.Context, name string) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s := b.Site(name)
	switch {
	case s == nil:
		return fmt.Errorf("remove site %s: instance %s has %v", name, b.instance, b.spec.Sites)
	case len(b.spec.Sites) == 1:
		return fmt.Errorf("remove site %s: it is the last one of instance %s: use 'bed down'", name, b.instance)
	}
	all := b.withWorkers(s.node)
	for _, n := range all {
		if err := errors.Join(n.linkDown(ctx), n.killAll(ctx)); err != nil {
			return err
		}
	}
	if err := mount.Clear(ctx, s.dir); err != nil {
		return err
	}
	var errs []error
	for _, n := range all {
		errs = append(errs, b.forgetCuts(ctx, n), n.removeNetwork(ctx), host.RemoveTree(n.dir), host.RemoveTree(n.logs))
		removeCNIResults(fmt.Sprintf("bed-%s-%s-", b.instance, n.name))
		removeLinksInto(n.dir, "/var/log/containers")
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return b.forgetSite(ctx, name, all)
}

// forgetCuts ends the cuts of a node that goes away: another one may get its interface.
func (b *Bed) forgetCuts(ctx context.Context, n *node) error {
	errs := []error{b.fw.Heal(ctx, n.net.Veth(), "")}
	for _, other := range b.nodes() {
		if other.name != n.name {
			errs = append(errs, b.fw.Heal(ctx, n.net.Veth(), other.net.Veth()))
		}
	}
	return errors.Join(errs...)
}

// forgetSite gives the subnets back last: as long as anything is left, nobody else may have them.
func (b *Bed) forgetSite(ctx context.Context, name string, nodes []*node) error {
	b.spec.Sites = slices.DeleteFunc(b.spec.Sites, func(s string) bool { return s == name })
	delete(b.spec.Workers, name)
	for _, n := range nodes {
		delete(b.spec.Subnets, n.name)
	}
	if err := errors.Join(host.WriteJSON(b.path("bed.json"), b.spec), b.fw.Ensure(ctx, b.subnets())); err != nil {
		return err
	}
	return host.Update(func(r *host.Record) error {
		for _, n := range nodes {
			delete(r.Subnets, b.instance+"/"+n.name)
		}
		return nil
	})
}
