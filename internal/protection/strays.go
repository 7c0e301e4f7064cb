package protection

import (
	"context"
	"fmt"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/volume"
)

// strayFor is how old a snapshot is at least that is taken for one of no point. It is room
// for people; what makes it safe is that no capture is left which could name it.
const strayFor = 48 * time.Hour

// forgetStrays deletes snapshots that no point names and no capture will name: those of
// captures that died, or failed and could not let go of them, as in a vault that was full.
//
// A capture is in the vault before it stores a snapshot, until its point is published or
// all of it is gone, and then it cannot be published any more. So whoever may name a snapshot is among the captures
// that were under way when it was first seen without a point. It is deleted, in a later run of
// the same process, once none of these is there.
func (p *Protector) forgetStrays(ctx context.Context, repo Repository, repository string, guard volume.Guard) error {
	list, err := repo.List(ctx)
	if err != nil {
		return err
	}
	under, err := p.underWay(ctx) // after the list: what has a snapshot there has begun
	if err != nil {
		return err
	}
	named, whole, err := p.named(ctx) // after that: what is not under way any more is published, or never will be
	if err != nil || !whole {
		return err
	}
	seen, now := map[string]map[string]bool{}, p.now()
	for _, l := range list {
		if named[l.ID] || now.Sub(l.Start) < strayFor {
			continue
		}
		first, known := p.strays[repository][l.ID]
		if !known {
			first = under
		}
		if !known || overlap(first, under) {
			seen[l.ID] = first
			continue
		}
		if err := guard(ctx); err != nil {
			return err
		}
		if err := repo.Delete(ctx, point.Snapshot{ID: l.ID}); err != nil {
			return fmt.Errorf("delete snapshot %s of %s, which no point names: %w", l.ID, l.Source, err)
		}
		p.log.Info("deleted a snapshot that no point names", "snapshot", l.ID, "of", l.Source, "from", l.Start)
	}
	if p.strays == nil {
		p.strays = map[string]map[string]map[string]bool{}
	}
	p.strays[repository] = seen
	return nil
}

func overlap(a, b map[string]bool) bool {
	for k := range a {
		if b[k] {
			return true
		}
	}
	return false
}

// underWay are the captures that have begun and not published: application and point.
func (p *Protector) underWay(ctx context.Context) (map[string]bool, error) {
	const any = -10 * 365 * 24 * time.Hour // idle for however long
	all, err := p.freeing.Orphans(ctx, any)
	if err != nil {
		return nil, err
	}
	under := map[string]bool{}
	for _, o := range all {
		under[o.Application+"/"+o.ID] = true
	}
	return under, nil
}

// named are the snapshots of all points in the vault; they are not whole where a manifest cannot be read.
func (p *Protector) named(ctx context.Context) (snapshots map[string]bool, whole bool, err error) {
	apps, err := p.opts.Project.Apps(ctx)
	if err != nil {
		return nil, false, err
	}
	snapshots = map[string]bool{}
	for _, app := range apps {
		infos, err := p.opts.Listing.Points(ctx, app)
		if err != nil {
			return nil, false, err
		}
		for _, info := range infos {
			if info.Manifest == nil {
				return nil, false, nil
			}
			for _, v := range info.Manifest.Volumes {
				snapshots[v.Snapshot.ID] = true
			}
		}
	}
	return snapshots, true, nil
}
