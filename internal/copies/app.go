package copies

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
	"davit.dev/davit/internal/vault/reading"
	"davit.dev/davit/internal/vault/relay"
	"davit.dev/davit/internal/volume"
)

// mirrorEvery is how often a repository is brought up to date although no new
// point needs it: maintenance changes it.
const mirrorEvery = time.Hour

// sweepAfter is how old what no point needs must be before it goes: another
// site that took over may be copying.
const sweepAfter = 24 * time.Hour

// appPass is one pass over one application.
type appPass struct {
	c      *Copier
	app    App
	report *Report
	done   AppReport

	first, copied known
}

func (a *appPass) run(ctx context.Context) error {
	epochs := lease.New(a.c.opts.First)
	err := error(nil)
	if !a.app.LookOnly {
		err = epochs.Check(ctx, a.app.Name, a.app.Held)
	}
	if err != nil {
		return err
	}
	if a.first, err = look(ctx, a.c.opts.Listing, a.app.Name, epochs); err != nil {
		return err
	}
	if a.copied, err = look(ctx, a.c.list, a.app.Name, nil); err != nil {
		return err
	}
	defer a.sum()
	if a.app.LookOnly {
		return nil
	}
	documents := a.c.opts.First.Root() + "apps/" + a.app.Name + "/"
	if err := a.c.carryNew(ctx, documents, a.opens, a.report); err != nil {
		return err
	}
	if err := a.carryMarks(ctx); err != nil {
		return err
	}
	failed := a.carryPoints(ctx)
	if a.app.Expire && ctx.Err() == nil {
		failed = errors.Join(failed, a.expire(ctx, epochs))
	}
	return failed
}

// sum says how the copy is now.
func (a *appPass) sum() {
	slices.SortFunc(a.copied.points, func(x, y point.Point) int { return cmp.Or(x.Instant.Compare(y.Instant), cmp.Compare(x.ID, y.ID)) })
	for _, p := range a.copied.points {
		if !p.Good() {
			continue
		}
		a.done.Points = append(a.done.Points, p.ID)
		if p.Instant.After(a.done.Newest) {
			a.done.Newest = p.Instant
		}
	}
	for _, p := range a.pending() {
		a.done.Pending++
		if at := a.first.infos[p.ID].Manifest.Instant; a.done.OldestPending.IsZero() || at.Before(a.done.OldestPending) {
			a.done.OldestPending = at
		}
	}
}

// opens accepts what was sealed for its key in this project.
func (a *appPass) opens(key string, data []byte) error {
	_, err := a.c.opts.First.Unseal(key, data, 64<<20)
	return err
}

// pending are the points to copy, newest first: the newest is worth the most.
func (a *appPass) pending() []point.Point {
	rules := point.Retention{} // keeps all
	if a.app.Expire {
		rules = a.app.Rules
	}
	var all []point.Point
	for _, d := range point.Keep(a.first.points, rules, a.c.now()) {
		info, there := a.copied.infos[d.Point.ID]
		if d.Keep && d.Point.Good() && (!there || info.Manifest == nil && errors.Is(info.Err, vault.ErrDamaged)) {
			all = append(all, d.Point)
		}
	}
	return all
}

// carryPoints brings whole points over, their manifests last. A point that
// cannot be copied does not keep the others from it.
func (a *appPass) carryPoints(ctx context.Context) error {
	var failed []error
	ready := map[string]error{} // repositories, by site
	for _, p := range a.pending() {
		m := a.first.infos[p.ID].Manifest
		err := a.volumes(ctx, m, ready)
		if err == nil {
			err = a.point(ctx, m)
		}
		if errors.Is(err, vault.ErrNotFound) { // deleted meanwhile
			continue
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("point %s: %w", p.ID, err))
			if vaultSilent(err) || ctx.Err() != nil {
				break
			}
		}
	}
	for _, site := range a.idleRepositories(ready) {
		failed = append(failed, a.repository(ctx, site, nil, ready))
	}
	return errors.Join(failed...)
}

// volumes brings over the repositories that the point needs, each once a pass.
func (a *appPass) volumes(ctx context.Context, m *point.Manifest, ready map[string]error) error {
	needs := map[string][]string{}
	for _, v := range m.Volumes {
		needs[v.Snapshot.Repository] = append(needs[v.Snapshot.Repository], v.Snapshot.Inventories...)
	}
	for site, inventories := range needs {
		if err := a.repository(ctx, site, inventories, ready); err != nil {
			return err
		}
	}
	return nil
}

// repository mirrors one site's repository. What a pass has mirrored holds all
// inventories that the points known at its beginning name.
func (a *appPass) repository(ctx context.Context, site string, inventories []string, ready map[string]error) error {
	if err, done := ready[site]; done {
		return err
	}
	for _, info := range a.first.infos {
		if info.Manifest == nil || info.Deleting() {
			continue
		}
		for _, v := range info.Manifest.Volumes {
			if v.Snapshot.Repository == site {
				inventories = append(inventories, v.Snapshot.Inventories...)
			}
		}
	}
	if err := a.c.keepIndexes(ctx, site); err != nil {
		ready[site] = err
		return err
	}
	report, err := volume.Mirror(ctx, a.c.opts.Volumes(a.c.opts.First, site), volume.MirrorOptions{
		To: a.c.opts.Store, Needs: inventories, ObjectTimeout: a.c.opts.ObjectTimeout,
		MayDelete: func(ctx context.Context) bool { return a.c.accounted(ctx, site) },
	})
	a.report.Copied += report.Copied
	a.report.Bytes += report.Bytes
	if err == nil && len(report.Missing) > 0 {
		for _, d := range report.Missing {
			a.report.Damaged = append(a.report.Damaged, fmt.Sprintf("volumes of site %s: %s", site, d))
		}
		err = fmt.Errorf("volumes of site %s: %w: %s (%d in all)", site, vault.ErrDamaged, report.Missing[0], len(report.Missing))
	}
	if err == nil {
		a.c.mirrored[site] = a.c.now()
	}
	ready[site] = err
	return err
}

// idleRepositories are those that no new point needs and that were not looked
// at for long. One that a point needs which the first vault lost is left as it
// is: there, its snapshot may have been deleted.
func (a *appPass) idleRepositories(ready map[string]error) []string {
	var sites []string
	for _, info := range a.copied.infos {
		if info.Manifest == nil {
			continue
		}
		for _, v := range info.Manifest.Volumes {
			site := v.Snapshot.Repository
			_, done := ready[site]
			if !done && a.c.now().Sub(a.c.mirrored[site]) >= mirrorEvery && !slices.Contains(sites, site) && !a.lost(site) {
				sites = append(sites, site)
			}
		}
	}
	slices.Sort(sites)
	return sites
}

// lost tells whether the copy has a point of the application with volumes of
// the site, or maybe with such, that the first vault does not have.
func (a *appPass) lost(site string) bool {
	for id, info := range a.copied.infos {
		if _, there := a.first.infos[id]; !there && mayNeed(info, site) {
			return true
		}
	}
	return false
}

// point brings over packs, log and marks, each against the manifest, and then
// the manifest itself. Packs that are there already may be of a pass that was
// broken off before it read them back: they are looked at again.
func (a *appPass) point(ctx context.Context, m *point.Manifest) error {
	for _, pack := range m.Packs() {
		accept := relay.Hash(pack.Size, pack.SHA256)
		if there, err := a.c.carry.Holds(ctx, pack.Key, accept); err != nil {
			return err
		} else if there {
			continue
		}
		if err := a.object(ctx, pack.Key, accept); err != nil {
			return err
		}
	}
	root := a.c.opts.First.Root()
	if err := a.c.carryNew(ctx, root+"marks/"+a.app.Name+"/"+m.ID+"/", a.opens, a.report); err != nil {
		return err
	}
	if err := a.object(ctx, root+"manifests/"+a.app.Name+"/"+m.ID, a.opens); err != nil {
		return err
	}
	info := a.first.infos[m.ID]
	a.copied.infos[m.ID] = info
	a.copied.points = slices.DeleteFunc(a.copied.points, func(p point.Point) bool { return p.ID == m.ID })
	a.copied.points = append(a.copied.points, info.Point())
	return nil
}

func (a *appPass) object(ctx context.Context, key string, accept relay.Accept) error {
	n, err := a.c.carry.Carry(ctx, key, accept)
	if errors.Is(err, vault.ErrDamaged) {
		a.report.Damaged = append(a.report.Damaged, err.Error())
	}
	if err != nil {
		return err
	}
	a.report.Copied++
	a.report.Bytes += n
	return nil
}

// carryMarks brings over what was learned since of points that the copy has,
// takes from them what was taken back, and marks there those that epochs, which
// the copy does not have, quarantine.
func (a *appPass) carryMarks(ctx context.Context) error {
	prefix := a.c.opts.First.Root() + "marks/" + a.app.Name + "/"
	here, err := sizes(ctx, a.c.opts.First.Store(), prefix)
	if err != nil {
		return err
	}
	there, err := sizes(ctx, a.c.opts.Store, prefix)
	if err != nil {
		return err
	}
	for _, key := range sorted(here) {
		id, name, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
		_, copied := a.copied.infos[id]
		if _, known := there[key]; known || !copied {
			continue
		}
		if strings.HasPrefix(name, string(vault.MarkQuarantined)) {
			damage, err := a.damage(ctx, id)
			if err != nil {
				return err
			}
			if damage[key] {
				continue
			}
		}
		if err := a.object(ctx, key, a.opens); err != nil && !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, vault.ErrDamaged) {
			return err
		}
	}
	if err := a.dropMarks(ctx, prefix, here, there); err != nil {
		return err
	}
	for _, p := range a.first.points {
		info, copied := a.copied.infos[p.ID]
		if !copied || !p.Quarantined || info.Quarantined() || a.first.infos[p.ID].Quarantined() {
			continue
		}
		mark := vault.Mark{Kind: vault.MarkQuarantined, At: a.c.now().UTC(), By: "copy", Note: "written under an epoch that had been superseded"}
		if err := a.c.in.Mark(ctx, a.app.Name, p.ID, mark); err != nil {
			return err
		}
	}
	a.copied, err = look(ctx, a.c.list, a.app.Name, nil)
	return err
}

// damage holds the keys of the marks by which a verification says that the point's
// bytes in the first vault are damaged. They say nothing of the copy's bytes, which were
// checked on their way: with these marks, a copy that is whole would not be offered
// just when it is needed.
func (a *appPass) damage(ctx context.Context, id string) (map[string]bool, error) {
	marks, err := a.c.opts.First.Marks(ctx, a.app.Name, id)
	if err != nil && !errors.Is(err, vault.ErrDamaged) { // which is told of when that mark is carried
		return nil, err
	}
	keys := map[string]bool{}
	for _, m := range marks {
		if m.OfBytes() {
			keys[a.c.opts.First.Root()+"marks/"+a.app.Name+"/"+id+"/"+string(m.Kind)+"-"+m.Ordinal] = true
		}
	}
	return keys, nil
}

// dropMarks removes from the copy the deletions and undeletions that whoever
// wrote them took back. Those that went because their point did stay: the last
// mark of a point goes after its manifest, so that one is looked for after the
// marks were listed.
func (a *appPass) dropMarks(ctx context.Context, prefix string, here, there map[string]int64) error {
	for _, key := range sorted(there) {
		id, mark, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
		kind, _, _ := strings.Cut(mark, "-")
		_, first := a.first.infos[id]
		_, copied := a.copied.infos[id]
		_, known := here[key]
		if known || !first || !copied || kind != string(vault.MarkDeleting) && kind != string(vault.MarkUndeleted) {
			continue
		}
		_, err := a.c.opts.First.Manifest(ctx, a.app.Name, id)
		if errors.Is(err, vault.ErrNotFound) {
			continue
		}
		if err != nil && !errors.Is(err, vault.ErrDamaged) {
			return err
		}
		if err := a.c.opts.Store.Delete(ctx, key); err != nil {
			return fmt.Errorf("delete mark %s from the copy: %w", key, err)
		}
	}
	return nil
}

// expire applies the rules to what the copy has: whatever happens to the first
// vault, its points go from here no sooner than the policy says.
func (a *appPass) expire(ctx context.Context, epochs *lease.Epochs) error {
	var errs []error
	now := a.c.now()
	if len(a.going(now)) > 0 && (a.app.Rules.MaxAge > 0 || a.app.DeletionDelay > 0) { // time decides: a clock that was set forward must not
		clock, err := a.c.in.Clock(ctx) // a pass only reads the first vault
		if err != nil {
			return fmt.Errorf("expire points in the copy: %w", err)
		}
		if clock.Before(now) {
			now = clock
		}
	}
	for _, d := range a.going(now) {
		if err := epochs.Check(ctx, a.app.Name, a.app.Held); err != nil {
			return errors.Join(append(errs, err)...)
		}
		err := a.remove(ctx, d.Point.ID)
		if errors.Is(err, vault.ErrLocked) || errors.Is(err, reading.ErrRead) { // it goes when its lock has ended, or whoever reads it
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a.done.Deleted = append(a.done.Deleted, d.Point.ID)
		a.copied.points = slices.DeleteFunc(a.copied.points, func(p point.Point) bool { return p.ID == d.Point.ID })
	}
	return errors.Join(append(errs, a.sweep(ctx))...)
}

// going are the points that go from the copy at a time.
func (a *appPass) going(now time.Time) []point.Decision {
	return slices.DeleteFunc(point.Keep(a.copied.points, a.app.Rules, now), func(d point.Decision) bool {
		return d.Keep || a.stays(d.Point.ID, now)
	})
}

// remove takes a point out of the copy, unless somebody reads it there.
func (a *appPass) remove(ctx context.Context, id string) error {
	claim, err := reading.Claim(ctx, a.c.in, a.app.Name, id, "the copy's retention", "")
	if err != nil {
		if errors.Is(err, reading.ErrRead) {
			a.c.log.Info("A point that is to go from a copy is being read: it is left for the next time.", "point", id, "why", err.Error())
		}
		return err
	}
	if err := a.unlocked(ctx, id); err != nil {
		return errors.Join(err, claim.Release(context.WithoutCancel(ctx)))
	}
	bound, cancel := claim.Bound(ctx)
	defer cancel()
	if !slices.ContainsFunc(a.copied.infos[id].Deletions(), func(m vault.Mark) bool { return m.By == reading.Begun }) {
		mark := vault.Mark{Kind: vault.MarkDeleting, At: a.c.now().UTC(), By: reading.Begun}
		if err := a.c.in.Mark(bound, a.app.Name, id, mark); err != nil {
			return err // it may still arrive: the claim stands until it ends by itself
		}
	}
	err = claim.Again(ctx)
	if err == nil {
		err = a.c.in.DeletePoint(ctx, a.app.Name, id)
	}
	if err != nil {
		return errors.Join(err, claim.Release(context.WithoutCancel(ctx)))
	}
	return reading.Forget(ctx, a.c.in, a.app.Name, id)
}

// unlocked says until when the copy's object lock keeps a point from being removed:
// what stays is not to be marked as gone.
func (a *appPass) unlocked(ctx context.Context, id string) error {
	locker, ok := lock.Of(a.c.opts.Store)
	if !ok {
		return nil
	}
	until, err := locker.LockedUntil(ctx, a.c.in.Root()+"manifests/"+a.app.Name+"/"+id)
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	if err == nil && until.After(a.c.now()) {
		return fmt.Errorf("delete point %s: %w until %s", id, vault.ErrLocked, until.UTC().Format(time.RFC3339))
	}
	return nil
}

// stays tells whether a point that the rules no longer keep stays for now. While
// the first vault has it, it may be undeleted there, or will wait there when
// retention comes to it. Of one that the first vault lost, the copy may be all
// that is left of the delay in which people find out.
func (a *appPass) stays(id string, now time.Time) bool {
	info := a.copied.infos[id]
	if _, there := a.first.infos[id]; there {
		return info.Deleting() || a.app.DeletionDelay > 0
	}
	return a.app.DeletionDelay > 0 && info.Goes(a.app.DeletionDelay).After(now)
}

// sweep removes what a pass left behind of a point that is gone meanwhile.
func (a *appPass) sweep(ctx context.Context) error {
	root := a.c.opts.First.Root()
	var left []string
	for _, kind := range []string{"objects/", "marks/"} {
		prefix := root + kind + a.app.Name + "/"
		err := a.c.opts.Store.List(ctx, prefix, func(o vault.ObjectInfo) error {
			id, _, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
			_, first := a.first.infos[id]
			_, copied := a.copied.infos[id]
			if !first && !copied && a.c.now().Sub(o.Modified) > sweepAfter {
				left = append(left, o.Key)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("sweep %s: %w", prefix, err)
		}
	}
	for _, key := range left {
		if err := a.c.opts.Store.Delete(ctx, key); err != nil && !errors.Is(err, vault.ErrLocked) {
			return fmt.Errorf("sweep %s: %w", key, err)
		}
	}
	return nil
}
