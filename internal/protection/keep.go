package protection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/schedule"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
	"davit.dev/davit/internal/vault/reading"
	"davit.dev/davit/internal/vault/reserve"
)

// defaultKeepLast is how many points are kept when a policy does not say.
const defaultKeepLast = 48

// guard returns lease.ErrSuperseded unless held is the application's newest
// epoch. Whatever writes for the application asks it right before it does.
func (p *Protector) guard(ctx context.Context, app string, held int64) error {
	return p.epochs.Check(ctx, app, held)
}

// Points returns the application's points, oldest first, with quarantine by
// epoch already decided in the summaries.
func (p *Protector) Points(ctx context.Context, app string) ([]vault.PointInfo, []point.Point, error) {
	return p.pointsOf(ctx, p.opts.Project, app)
}

func (p *Protector) pointsOf(ctx context.Context, in *vault.Project, app string) ([]vault.PointInfo, []point.Point, error) {
	infos, err := in.Points(ctx, app)
	if err != nil {
		return nil, nil, err
	}
	history, err := p.epochs.History(ctx, app) // after the manifests: see point.Quarantined
	if err != nil {
		return nil, nil, err
	}
	points := make([]point.Point, 0, len(infos))
	for _, info := range infos {
		points = append(points, info.Point())
	}
	return infos, point.Quarantine(points, lease.Summaries(history)), nil
}

// Rules turns a policy's retention into the arithmetic's, in the policy's time
// zone, or UTC if that is not known. Without any rule the last 48 points are kept.
func Rules(policy v1alpha1.ProtectionPolicySpec) point.Retention {
	r := policy.Retention
	rules := point.Retention{}
	for _, rule := range []struct {
		from *int32
		into *int
	}{
		{r.Last, &rules.KeepLast},
		{r.Hourly, &rules.Hourly},
		{r.Daily, &rules.Daily},
		{r.Weekly, &rules.Weekly},
		{r.Monthly, &rules.Monthly},
		{r.Yearly, &rules.Yearly},
	} {
		if rule.from != nil {
			*rule.into = int(*rule.from)
		}
	}
	if r.MaxAge != nil {
		rules.MaxAge = r.MaxAge.Duration
	}
	if rules.Empty() {
		rules.KeepLast = defaultKeepLast
	}
	if zone, err := schedule.Zone(policy.Schedule.TimeZone); err == nil && zone != time.UTC {
		rules.Zone = zone
	}
	return rules
}

// ExpireReport is what Expire did.
type ExpireReport struct {
	Deleted []string // ids of those that are gone
	Kept    int
	Left    int // to go, and not come to within the limit
	// Read are those who read a point that would go otherwise: it is left for the next time.
	Read []reading.Reader
}

// Expire deletes the points that the retention no longer keeps; pinned points,
// the last good one and the last verified one always stay. held is this site's
// epoch: a superseded site deletes nothing. It goes on after a point that
// cannot be deleted, and returns all such errors. After the limit it begins with
// no other one, unless the limit is zero: a capture that is due waits for it.
func (p *Protector) Expire(ctx context.Context, app string, rules point.Retention, held int64, now time.Time, limit time.Duration) (report ExpireReport, err error) {
	open := &keptOpen{open: p.freeVolumes}
	defer func() { err = errors.Join(err, open.close(context.WithoutCancel(ctx))) }()
	if err := p.guard(ctx, app, held); err != nil {
		return report, fmt.Errorf("expire points of %s: %w", app, err)
	}
	infos, points, err := p.pointsOf(ctx, p.opts.Listing, app)
	if err != nil {
		return report, fmt.Errorf("expire points of %s: %w", app, err)
	}
	byID := map[string]vault.PointInfo{}
	for _, info := range infos {
		byID[info.ID] = info
	}
	if rules.MaxAge > 0 {
		if now, err = p.earlier(ctx, now); err != nil {
			return report, fmt.Errorf("expire points of %s: %w", app, err)
		}
	}
	var errs []error
	begun := p.now() // not earlier: what it takes to look would leave no time to remove anything
	for _, d := range point.Keep(points, rules, now) {
		if d.Keep {
			report.Kept++
			continue
		}
		if limit > 0 && p.now().Sub(begun) > limit {
			report.Left++
			continue
		}
		if err := p.guard(ctx, app, held); err != nil {
			return report, fmt.Errorf("expire points of %s: %w", app, errors.Join(append(errs, err)...))
		}
		gone, err := p.remove(ctx, app, byID[d.Point.ID], removal{why: "retention: " + d.Reason, open: open.repository})
		if read := p.left(err); read != nil {
			report.Read = append(report.Read, read...)
			continue
		}
		if errors.Is(err, vault.ErrPinned) { // since it was looked at
			report.Kept++
			continue
		}
		if err != nil {
			errs = append(errs, err)
		}
		if err != nil || !gone {
			continue
		}
		report.Deleted = append(report.Deleted, d.Point.ID)
	}
	if err := errors.Join(errs...); err != nil {
		return report, fmt.Errorf("expire points of %s: %w", app, err)
	}
	return report, nil
}

// earlier is the time by this site's clock or by the vault's, whichever says less: one
// that was set forward makes no point old, and no delay pass.
func (p *Protector) earlier(ctx context.Context, now time.Time) (time.Time, error) {
	clock, err := p.freeing.Clock(ctx)
	if err != nil || !clock.Before(now) {
		return now, err
	}
	return clock, nil
}

// DeleteOptions say what Delete may do.
type DeleteOptions struct {
	// By is who asks, for the record.
	By string
	// LastGood allows the application's last good point to be deleted.
	LastGood bool
	// Read allows a point to be deleted that somebody reads, who then fails.
	Read bool
}

// Delete removes one point because a person wants it gone, after the deletion
// delay: then the next Expire of its application does. A pinned point is
// vault.ErrPinned, the last good one ErrLastGood, one that somebody reads
// reading.ErrRead, an unknown one vault.ErrNotFound.
func (p *Protector) Delete(ctx context.Context, app, id string, opts DeleteOptions) error {
	info, err := p.Deletable(ctx, app, id, opts)
	if err != nil {
		return err
	}
	_, err = p.remove(ctx, app, info, removal{why: opts.By, anyway: opts.Read, open: p.freeVolumes})
	return err
}

// Deletable finds the point and tells, by an error, why Delete would refuse it.
func (p *Protector) Deletable(ctx context.Context, app, id string, opts DeleteOptions) (vault.PointInfo, error) {
	infos, points, err := p.Points(ctx, app)
	if err != nil {
		return vault.PointInfo{}, fmt.Errorf("delete point %s: %w", id, err)
	}
	newest, ok := point.Newest(points, time.Time{})
	if ok && newest.ID == id && !opts.LastGood {
		return vault.PointInfo{}, fmt.Errorf("delete point %s: %w of %s: capture another first, or say that it may go", id, ErrLastGood, app)
	}
	for _, info := range infos {
		if info.ID != id {
			continue
		}
		if err := mayGo(info); err != nil || opts.Read || begun(info) {
			return info, err
		}
		return info, p.unread(ctx, app, id)
	}
	return vault.PointInfo{}, fmt.Errorf("delete point %s: %w: see the points of %s", id, vault.ErrNotFound, app)
}

// mayGo is vault.ErrPinned for a point that is to stay. A pin that came after its
// removal had begun keeps nothing any more.
func mayGo(info vault.PointInfo) error {
	if info.Pinned() && !begun(info) {
		return fmt.Errorf("delete point %s: %w: unpin it first", info.ID, vault.ErrPinned)
	}
	return nil
}

// removal says why a point goes, whether also while somebody reads it, and by what its
// volumes are opened.
type removal struct {
	why    string
	anyway bool
	open   OpenVolumes
}

// remove takes a point out of sight, then away, once the deletion delay is over:
// mark, volume snapshots, manifest, packs. Started again it finishes. It tells
// whether the point is gone. One that somebody reads is reading.ErrRead, and stays
// as it is, unless it is to go anyway.
func (p *Protector) remove(ctx context.Context, app string, info vault.PointInfo, how removal) (gone bool, err error) {
	if err := mayGo(info); err != nil {
		return false, err
	}
	if p.opts.DeletionDelay == 0 || info.Deleting() {
		if err := p.unlocked(ctx, app, info.ID); err != nil {
			return false, err
		}
	}
	if goes, err := p.final(ctx, app, info, how.why, how.anyway); err != nil || !goes {
		return false, err
	}
	if err := p.forgetVolumes(ctx, info.Manifest, how.open); err != nil {
		return false, fmt.Errorf("delete point %s: %w", info.ID, err)
	}
	err = p.freeing.DeletePoint(ctx, app, info.ID)
	if errors.Is(err, vault.ErrPinned) { // after its removal had begun: whoever pinned it was told
		late := vault.Mark{Kind: vault.MarkUnpinned, At: p.now().UTC(), Site: p.opts.Site, By: begunBy}
		if err = p.freeing.Mark(ctx, app, info.ID, late); err == nil {
			err = p.freeing.DeletePoint(ctx, app, info.ID)
		}
	}
	if err != nil {
		return false, err
	}
	if err := reading.Forget(ctx, p.freeing, app, info.ID); err != nil {
		p.log.Debug("Notes of a point that is gone stay until they are swept.", "point", info.ID, "error", err)
	}
	return true, nil
}

// unlocked says until when the store's object lock keeps a point from being
// removed: that is known before anything of it goes.
func (p *Protector) unlocked(ctx context.Context, app, id string) error {
	locker, ok := lock.Of(p.opts.Project.Store())
	if !ok {
		return nil
	}
	until, err := locker.LockedUntil(ctx, p.opts.Project.Root()+"manifests/"+app+"/"+id)
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete point %s: %w", id, err)
	}
	if until.After(p.now()) {
		return fmt.Errorf("delete point %s: %w until %s", id, vault.ErrLocked, until.UTC().Format(time.RFC3339))
	}
	return nil
}

// forgetVolumes deletes a point's volume snapshots from their repositories.
func (p *Protector) forgetVolumes(ctx context.Context, m *point.Manifest, open OpenVolumes) error {
	if m == nil {
		return nil
	}
	inherited, err := p.inherited(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for site, volumes := range bySite(m) {
		if inherited(site) {
			continue
		}
		errs = append(errs, using(ctx, open, site, false, func(repo Repository) error {
			for _, v := range volumes {
				if err := repo.Delete(ctx, v.Snapshot); err != nil {
					return fmt.Errorf("delete snapshot of %s/%s: %w", v.Namespace, v.Claim, err)
				}
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}

// bySite sorts a point's volumes by the site whose repository holds them.
func bySite(m *point.Manifest) map[string][]point.Volume {
	sites := map[string][]point.Volume{}
	for _, v := range m.Volumes {
		sites[v.Snapshot.Repository] = append(sites[v.Snapshot.Repository], v)
	}
	return sites
}

// withVolumes opens a site's repository for the time of fn.
// One that is opened for writing frees space, and may spend the reserve.
func (p *Protector) withVolumes(ctx context.Context, site string, readOnly bool, fn func(Repository) error) error {
	open := p.opts.OpenVolumes
	if !readOnly {
		open = p.freeVolumes
	}
	return using(ctx, open, site, readOnly, fn)
}

func using(ctx context.Context, open OpenVolumes, site string, readOnly bool, fn func(Repository) error) (err error) {
	repo, err := open(ctx, site, readOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close(context.WithoutCancel(ctx))) }()
	return fn(repo)
}

// SweepVault removes what captures that died left in the vault, if nothing was
// written to them for olderThan; an hour is a good value.
func (p *Protector) SweepVault(ctx context.Context, olderThan time.Duration) ([]vault.Orphan, error) {
	orphans, err := p.freeing.Sweep(ctx, max(olderThan, 5*touchEvery))
	if err != nil {
		return orphans, err
	}
	now, err := p.freeing.Clock(ctx)
	if err != nil {
		return orphans, err
	}
	return orphans, reading.Sweep(ctx, p.freeing, now)
}

// FillReserve lays down what expiry spent of the room that it needs when the
// vault is full.
func (p *Protector) FillReserve(ctx context.Context) error {
	return reserve.Of(p.opts.Project).Fill(ctx)
}
