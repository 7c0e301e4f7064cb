package protection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// Who writes the marks after which a deletion cannot be taken back: of a removal
// that may still find that somebody took it back, and of one that did not.
const (
	finalBy = "removal"
	begunBy = reading.Begun
)

// RemoveDeleted removes the points that are on their way out and whose deletion
// delay is over, and no others: Expire comes with a capture only, and an
// application may be captured seldom, or not at all. held is this site's epoch.
func (p *Protector) RemoveDeleted(ctx context.Context, app string, held int64) (ids []string, err error) {
	infos, err := p.opts.Listing.Points(ctx, app)
	if err != nil {
		return nil, fmt.Errorf("remove deleted points of %s: %w", app, err)
	}
	open := &keptOpen{open: p.freeVolumes}
	defer func() { err = errors.Join(err, open.close(context.WithoutCancel(ctx))) }()
	var errs []error
	for _, info := range infos {
		if !info.Deleting() || mayGo(info) != nil || info.Goes(p.opts.DeletionDelay).After(p.now()) {
			continue
		}
		if err := p.guard(ctx, app, held); err != nil {
			errs = append(errs, err)
			break
		}
		gone, err := p.remove(ctx, app, info, removal{open: open.repository})
		if p.left(err) != nil {
			continue
		}
		if err != nil && !errors.Is(err, vault.ErrLocked) && !errors.Is(err, vault.ErrPinned) { // a lock ends by itself
			errs = append(errs, err)
		}
		if gone && err == nil {
			ids = append(ids, info.ID)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return ids, fmt.Errorf("remove deleted points of %s: %w", app, err)
	}
	return ids, nil
}

// final marks the point as on its way out, and tells whether it may be removed now.
// If so, it says in the vault that its removal has begun: from then on parts of it
// may be gone, and whatever becomes of this removal, the next one goes on once nobody
// reads the point. All that happens under a claim, which a reader sees: see package reading.
func (p *Protector) final(ctx context.Context, app string, info vault.PointInfo, why string, anyway bool) (goes bool, err error) {
	under := begun(info)
	if !under {
		if waits, err := p.waits(ctx, info); err != nil || waits {
			return false, err
		}
	}
	var claim *reading.Removal
	if !anyway {
		if claim, err = reading.Claim(ctx, p.freeing, app, info.ID, cmp.Or(why, finalBy), p.opts.Site); err != nil {
			return false, err
		}
	}
	bound, cancel := claim.Bound(ctx)
	defer cancel()
	if goes = under; !under {
		goes, err = p.decided(bound, app, info, why)
	}
	if err == nil && (goes && !under || !info.Deleting()) {
		if err := p.unpinned(bound, app, info); err != nil {
			return false, errors.Join(err, claim.Release(context.WithoutCancel(ctx)))
		}
	}
	if err == nil && goes && !under {
		if err := p.deleting(bound, app, info.ID, begunBy); err != nil {
			return false, err // the mark may still arrive: the claim stands until it ends by itself
		}
		err = claim.Again(ctx)
		goes = err == nil
	}
	if err := claim.Release(context.WithoutCancel(ctx)); err != nil {
		p.log.Debug("The claim of a removal stays until it ends.", "point", info.ID, "error", err)
	}
	return goes, err
}

// unpinned is vault.ErrPinned for a point that somebody pinned since it was looked
// at, which may be long ago: then what this removal wrote is taken back. The deletion
// is in the vault by now, so that whoever pins from here on finds it: see Pin.
func (p *Protector) unpinned(ctx context.Context, app string, info vault.PointInfo) error {
	marks, err := p.opts.Project.Marks(ctx, app, info.ID)
	if errors.Is(err, vault.ErrDamaged) {
		return nil // a person has it deleted all the same
	}
	if err != nil {
		return fmt.Errorf("delete point %s: %w", info.ID, err)
	}
	now := vault.PointInfo{ID: info.ID, Marks: marks}
	err = mayGo(now)
	if err == nil {
		return nil
	}
	for _, m := range now.Deletions() {
		if slices.ContainsFunc(info.Marks, func(was vault.Mark) bool { return was.Ordinal == m.Ordinal }) {
			continue
		}
		err = errors.Join(err, p.freeing.Unmark(ctx, app, info.ID, m))
	}
	return err
}

// Pin writes a pin, which is in force then. ErrRemoved says that the point is on its
// way out, or was: it may be gone all the same.
func Pin(ctx context.Context, in *vault.Project, app, id string, pin vault.Mark) error {
	pin.Kind = vault.MarkPinned
	if err := in.Mark(ctx, app, id, pin); err != nil {
		return err
	}
	marks, err := in.Marks(ctx, app, id) // a removal writes its mark first and then looks for pins
	if err == nil {
		_, err = in.Store().Stat(ctx, in.Root()+"manifests/"+app+"/"+id)
	}
	gone := errors.Is(err, vault.ErrNotFound)
	if err != nil && !gone {
		return fmt.Errorf("pin point %s: it is pinned, and not known to be there: look again: %w", id, err)
	}
	if gone || (vault.PointInfo{Marks: marks}).Deleting() {
		return fmt.Errorf("pin point %s: it is pinned, and on its way out all the same: %w: look in a minute whether it is still there", id, ErrRemoved)
	}
	return nil
}

// waits tells whether the point's deletion delay is not over, by this site's clock and
// by the vault's.
func (p *Protector) waits(ctx context.Context, info vault.PointInfo) (bool, error) {
	if p.opts.DeletionDelay == 0 || !info.Deleting() {
		return false, nil
	}
	now, goes := p.now(), info.Goes(p.opts.DeletionDelay)
	if !goes.After(now) {
		var err error
		if now, err = p.earlier(ctx, now); err != nil {
			return false, fmt.Errorf("delete point %s: %w", info.ID, err)
		}
	}
	return goes.After(now), nil
}

// decided has the point marked, and tells whether it goes now.
func (p *Protector) decided(ctx context.Context, app string, info vault.PointInfo, why string) (bool, error) {
	if !info.Deleting() {
		if err := p.deleting(ctx, app, info.ID, why); err != nil {
			return false, err
		}
		return p.opts.DeletionDelay == 0, nil
	}
	if p.opts.DeletionDelay > 0 {
		return p.stands(ctx, app, info)
	}
	return true, nil
}

// left are those who read a point that a removal therefore left, or nil.
func (p *Protector) left(err error) []reading.Reader {
	var read *reading.ReadError
	if !errors.As(err, &read) {
		return nil
	}
	p.log.Info("A point that is to go is being read: it is left for the next time.", "point", read.Point, "why", err.Error())
	return read.Readers
}

// unread is a *reading.ReadError for a point that somebody reads.
func (p *Protector) unread(ctx context.Context, app, id string) error {
	all, err := reading.Readers(ctx, p.opts.Project, app, p.now())
	if err != nil {
		return fmt.Errorf("delete point %s: %w", id, err)
	}
	all = slices.DeleteFunc(all, func(r reading.Reader) bool { return r.Point != id })
	if len(all) > 0 {
		return &reading.ReadError{Point: id, Readers: all}
	}
	return nil
}

// stands tells whether nobody took back a deletion whose delay is over. It
// says so in the vault first, and then looks; Undelete does it the other way
// round. So one of them sees the other.
func (p *Protector) stands(ctx context.Context, app string, info vault.PointInfo) (bool, error) {
	if !slices.ContainsFunc(info.Deletions(), isFinal) {
		if err := p.deleting(ctx, app, info.ID, finalBy); err != nil {
			return false, err
		}
	}
	marks, err := p.opts.Project.Marks(ctx, app, info.ID)
	if err != nil {
		return false, fmt.Errorf("delete point %s: %w", info.ID, err)
	}
	left := vault.PointInfo{Marks: marks}.Deletions()
	if slices.ContainsFunc(left, func(m vault.Mark) bool { return isBegun(m) || !isFinal(m) }) {
		return true, nil
	}
	for _, m := range left { // undeleted meanwhile: take our word back
		if err := p.freeing.Unmark(ctx, app, info.ID, m); err != nil {
			return false, fmt.Errorf("delete point %s: %w", info.ID, err)
		}
	}
	return false, nil
}

func (p *Protector) deleting(ctx context.Context, app, id, by string) error {
	mark := vault.Mark{Kind: vault.MarkDeleting, At: p.now().UTC(), Site: p.opts.Site, By: by}
	if err := p.freeing.Mark(ctx, app, id, mark); err != nil {
		return fmt.Errorf("delete point %s: %w", id, err)
	}
	return nil
}

func isFinal(m vault.Mark) bool { return m.By == finalBy || isBegun(m) }

func isBegun(m vault.Mark) bool { return m.By == begunBy }

// begun tells whether parts of a point may be gone.
func begun(info vault.PointInfo) bool { return slices.ContainsFunc(info.Deletions(), isBegun) }

// Undelete takes a deletion back while its delay lasts. ErrRemoved says that it
// is too late, or may be: look again.
func (p *Protector) Undelete(ctx context.Context, app, id, by string) error {
	if _, err := p.opts.Project.Manifest(ctx, app, id); err != nil {
		return fmt.Errorf("undelete point %s: %w", id, err)
	}
	marks, err := p.opts.Project.Marks(ctx, app, id)
	if err != nil {
		return fmt.Errorf("undelete point %s: %w", id, err)
	}
	deletions := vault.PointInfo{Marks: marks}.Deletions()
	if len(deletions) == 0 {
		return nil
	}
	mark := vault.Mark{Kind: vault.MarkUndeleted, At: p.now().UTC(), Site: p.opts.Site, By: by}
	for _, m := range deletions {
		if isFinal(m) {
			return fmt.Errorf("undelete point %s: %w", id, ErrRemoved)
		}
		mark.Seen = append(mark.Seen, m.Ordinal)
	}
	if err := p.opts.Project.Mark(ctx, app, id, mark); err != nil {
		return fmt.Errorf("undelete point %s: %w", id, err)
	}
	if marks, err = p.opts.Project.Marks(ctx, app, id); err != nil {
		return fmt.Errorf("undelete point %s: look again: %w", id, err)
	}
	if (vault.PointInfo{Marks: marks}).Deleting() {
		return fmt.Errorf("undelete point %s: %w: look again in a minute whether it is still there", id, errors.Join(ErrRemoved, p.takeBack(ctx, app, id, mark, marks)))
	}
	return nil
}

// takeBack removes an undeletion that came too late, or may have: the deletion
// stands then, also if the removal saw it and took its own word back.
func (p *Protector) takeBack(ctx context.Context, app, id string, mark vault.Mark, marks []vault.Mark) error {
	for _, m := range marks {
		if m.Kind != mark.Kind || m.By != mark.By || m.Site != mark.Site || !m.At.Equal(mark.At) {
			continue // of somebody else
		}
		if err := p.opts.Project.Unmark(ctx, app, id, m); err != nil {
			return fmt.Errorf("take the undeletion back: %w", err)
		}
	}
	return nil
}
