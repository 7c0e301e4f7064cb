package protection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume"
)

// Reclaim frees the space of deleted points in this site's volume repository.
// The caller holds a lease, so that one process of the site does it at a time.
//
// It is refused with lease.ErrSuperseded at a site that is superseded for all
// that it ever protected, with lease.ErrNameTaken at one whose name another
// cluster bears, for that one reclaims, and with ErrUnaccounted while the repository does not
// list a snapshot that a point in the vault, of whatever application and
// whoever may write it now, needs: the data may still be there, and this would
// remove it. See docs/decisions/0006-who-may-reclaim.md.
func (p *Protector) Reclaim(ctx context.Context, full bool) (volume.MaintainReport, error) {
	var report volume.MaintainReport
	guard := p.siteGuard()
	if err := guard(ctx); err != nil {
		return report, fmt.Errorf("reclaim space: %w", err)
	}
	inherited, err := p.inherited(ctx)
	if err != nil {
		return report, fmt.Errorf("reclaim space: %w", err)
	}
	var errs []error
	for _, repository := range p.repositories(ctx) {
		if inherited(repository) {
			continue
		}
		one, err := p.reclaimIn(ctx, repository, guard, full)
		if err != nil && !errors.Is(err, volume.ErrNoRepository) {
			errs = append(errs, fmt.Errorf("reclaim space: %w", err))
		}
		report.BlobsDeleted += one.BlobsDeleted
		report.BytesDeleted += one.BytesDeleted
		report.InventoriesMerged += one.InventoriesMerged
	}
	return report, errors.Join(errs...)
}

// repositories are those of this site: the one that is written, and those that
// were before the keys rotated, as long as they are there.
func (p *Protector) repositories(ctx context.Context) []string {
	all := p.opts.Project.Repositories(p.opts.Site)
	current := all[len(all)-1]
	return slices.DeleteFunc(all, func(name string) bool {
		if name == current {
			return false
		}
		_, err := p.opts.Project.Store().Stat(ctx, p.opts.Project.VolumePrefix(name)+volume.FormatBlob)
		return errors.Is(err, vault.ErrNotFound)
	})
}

func (p *Protector) reclaimIn(ctx context.Context, repository string, guard volume.Guard, full bool) (report volume.MaintainReport, err error) {
	err = p.withVolumes(ctx, repository, false, func(repo Repository) error {
		err := p.account(ctx, repo, repository)
		if err == nil {
			report, err = repo.Maintain(ctx, volume.MaintainOptions{Guard: guard, Full: full})
		}
		return err
	})
	return report, err
}

// siteGuard fails when other sites took over all that this one ever protected:
// then it is presumed lost, and a process of it that still runs is to leave the
// vault alone. So it does when its name is another cluster's. Its answer is good for guardFor, for maintenance asks before
// every change.
func (p *Protector) siteGuard() volume.Guard {
	const guardFor = 5 * time.Second
	var asked time.Time
	return func(ctx context.Context) error {
		if !asked.IsZero() && p.now().Sub(asked) < guardFor {
			return nil
		}
		if err := p.CheckName(ctx); err != nil {
			return err
		}
		apps, err := p.opts.Project.Apps(ctx)
		if err != nil {
			return err
		}
		var superseded error
		for _, app := range apps {
			s, err := p.Standing(ctx, app)
			switch {
			case err != nil:
				return err
			case s.Role == v1alpha1.RoleActive:
				asked = p.now()
				return nil
			case s.Role == v1alpha1.RoleSuperseded:
				superseded = &lease.SupersededError{Application: app, Held: s.Held, Current: s.Current}
			}
		}
		if superseded == nil {
			asked = p.now()
		}
		return superseded
	}
}

// account checks that the repository lists every snapshot that the points in
// the vault need of it: what no listed snapshot needs, maintenance removes.
func (p *Protector) account(ctx context.Context, repo Repository, name string) error {
	apps, err := p.opts.Project.Apps(ctx)
	if err != nil {
		return err
	}
	needed := map[string][]vault.PointInfo{} // by application; before the repository is listed, which then has them
	for _, app := range apps {
		if needed[app], err = p.opts.Listing.Points(ctx, app); err != nil {
			return err
		}
	}
	list, err := repo.List(ctx)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, l := range list {
		listed[l.ID] = true
	}
	for app, infos := range needed {
		for _, info := range infos {
			if err := p.accountPoint(ctx, app, info, name, listed); err != nil {
				return err
			}
		}
	}
	return nil
}

// accountPoint checks one point. A manifest that is damaged names no snapshot;
// those it had are listed as long as nobody deletes them. One that could not be
// read for another reason may name any.
func (p *Protector) accountPoint(ctx context.Context, app string, info vault.PointInfo, repository string, listed map[string]bool) error {
	if info.Manifest == nil {
		if errors.Is(info.Err, vault.ErrDamaged) || errors.Is(info.Err, vault.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("point %s of %s: %w", info.ID, app, info.Err)
	}
	for _, v := range bySite(info.Manifest)[repository] {
		if listed[v.Snapshot.ID] || info.Deleting() {
			continue
		}
		leaving, err := p.leaving(ctx, app, info.ID) // it may have been deleted since it was read
		if err != nil {
			return err
		}
		if !leaving {
			return fmt.Errorf("%w: point %s of %s needs snapshot %s of %s/%s: find out with `davit verify %s`, then delete the point if its data is lost",
				ErrUnaccounted, info.ID, app, v.Snapshot.ID, v.Namespace, v.Claim, info.ID)
		}
	}
	return nil
}

// leaving tells whether the point is gone from the vault, or about to be.
func (p *Protector) leaving(ctx context.Context, app, id string) (bool, error) {
	marks, err := p.opts.Project.Marks(ctx, app, id)
	if err != nil {
		return false, err
	}
	if (vault.PointInfo{Marks: marks}).Deleting() {
		return true, nil
	}
	_, err = p.opts.Project.Manifest(ctx, app, id)
	if errors.Is(err, vault.ErrNotFound) {
		return true, nil
	}
	return false, err
}
