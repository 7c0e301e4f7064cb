package capture

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Grouper is what Volumes are whose storage can cut several volumes by one act.
type Grouper interface {
	// GroupClasses names, by driver, the class with which the driver cuts
	// several volumes at once. asked is the one that a person wants, which must
	// exist and be of one of the drivers; empty lets each driver's default or
	// only one be chosen. Drivers that cannot are not in the answer.
	GroupClasses(ctx context.Context, drivers []string, asked string) (map[string]string, error)
	// CutGroup pins the volumes of all plans, which have one driver and one
	// node, and returns as soon as the cut is done, in the order of the plans. After an error
	// nothing of it is relied on; what it made goes with Release.
	CutGroup(ctx context.Context, class string, plans []VolumePlan) ([]Cut, error)
}

// planGroups finds out which drivers cut their volumes at once. An application
// that names a snapshot class, and no class of groups, wants that and no other.
func (r *run) planGroups(ctx context.Context) error {
	grouper, able := r.ports.Volumes.(Grouper)
	asked := r.spec.GroupSnapshotClass
	if !able || r.spec.Freeze == FreezeNever || asked == "" && r.spec.SnapshotClass != "" {
		return nil
	}
	volumes := map[string]int{}
	var drivers []string
	for _, p := range r.plans {
		if p.Method != MethodSnapshot {
			continue
		}
		// One volume is cut at one instant anyway.
		if volumes[p.Driver]++; volumes[p.Driver] == 2 || asked != "" && volumes[p.Driver] == 1 {
			drivers = append(drivers, p.Driver)
		}
	}
	if len(drivers) == 0 {
		return nil
	}
	slices.Sort(drivers)
	var err error
	if r.groups, err = grouper.GroupClasses(ctx, slices.Compact(drivers), asked); err != nil {
		return fmt.Errorf("plan group snapshots: %w", err)
	}
	return nil
}

// cutAll cuts every volume at once: those of a driver that can by one group
// snapshot, the others each by itself. Volumes on the disks of several nodes
// are no one's to cut by one act: each node's are a group. A group has limit to
// be cut; after that, and after a refusal, its volumes are cut each by itself,
// too.
func (r *run) cutAll(ctx context.Context, limit time.Duration) error {
	type place struct{ driver, node string }
	together := map[place][]VolumePlan{}
	var single []VolumePlan
	for _, p := range r.plans {
		if r.groups[p.Driver] != "" && p.Method == MethodSnapshot {
			at := place{p.Driver, p.Node}
			together[at] = append(together[at], p)
		} else {
			single = append(single, p)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for at, plans := range together {
		if len(plans) < 2 {
			single = append(single, plans...)
			continue
		}
		slices.SortFunc(plans, func(a, b VolumePlan) int { return cmp.Compare(a.Claim.Key(), b.Claim.Key()) })
		g.Go(func() error { return r.cutGroup(ctx, at.driver, plans, limit) })
	}
	g.Go(func() error { return r.cut(ctx, single) })
	return g.Wait()
}

func (r *run) cutGroup(ctx context.Context, driver string, plans []VolumePlan, limit time.Duration) error {
	class := r.groups[driver]
	for i := range plans {
		plans[i].Group = class // also of a try that fails: Release takes it back
		r.mu.Lock()
		r.plans[plans[i].Claim.Key()] = plans[i]
		r.mu.Unlock()
	}
	at := r.opts.Now().UTC()
	bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it was not cut within %s", limit))
	cuts, err := r.ports.Volumes.(Grouper).CutGroup(bounded, class, plans)
	cancel()
	if err == nil && len(cuts) != len(plans) {
		err = fmt.Errorf("it holds %d volumes, not %d", len(cuts), len(plans))
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w, a group of driver %s: %w", ErrCut, driver, err)
	}
	if err != nil {
		r.warn("volumegroupsnapshotclasses.groupsnapshot.storage.k8s.io "+class, fmt.Sprintf("its driver made no group snapshot, so the volumes were cut one by one: %v: mend it, or name a volumes.snapshotClass, which switches group snapshots off", err))
		return r.cut(ctx, plans)
	}
	var claims []string
	for i, c := range cuts {
		c.Plan = plans[i]
		c.Plan.Method, c.At = MethodGroup, at
		r.keepCut(c)
		claims = append(claims, c.Plan.Claim.Key())
	}
	r.note("info", "", fmt.Sprintf("volumes %s were cut by one group snapshot of class %s", strings.Join(claims, ", "), class))
	return nil
}
