package protection

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"davit.dev/davit/internal/vault"
)

// Who writes the marks after which a deletion cannot be taken back: of a removal
// that may still find that somebody took it back, and of one that did not.
const (
	finalBy = "removal"
	begunBy = "removal begun"
)

// RemoveDeleted removes the points that are on their way out and whose deletion
// delay is over, and no others: Expire comes with a capture only, and an
// application may be captured seldom, or not at all. held is this site's epoch.
func (p *Protector) RemoveDeleted(ctx context.Context, app string, held int64) (ids []string, err error) {
	infos, err := p.opts.Listing.Points(ctx, app)
	if err != nil {
		return nil, fmt.Errorf("remove deleted points of %s: %w", app, err)
	}
	var errs []error
	for _, info := range infos {
		if !info.Deleting() || info.Pinned() || info.Goes(p.opts.DeletionDelay).After(p.now()) {
			continue
		}
		if err := p.guard(ctx, app, held); err != nil {
			errs = append(errs, err)
			break
		}
		gone, err := p.remove(ctx, app, info, "")
		if err != nil && !errors.Is(err, vault.ErrLocked) { // a lock ends by itself
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

// final tells whether the point may be removed now, and says in the vault that
// its removal has begun: from then on parts of it may be gone, and whatever
// becomes of this removal, the next one goes on.
func (p *Protector) final(ctx context.Context, app string, info vault.PointInfo) (bool, error) {
	if slices.ContainsFunc(info.Deletions(), isBegun) {
		return true, nil
	}
	if p.opts.DeletionDelay > 0 {
		if stands, err := p.stands(ctx, app, info); err != nil || !stands {
			return false, err
		}
	}
	return true, p.deleting(ctx, app, info.ID, begunBy)
}

// stands tells whether the deletion's delay is over, and nobody took it back. It
// says so in the vault first, and then looks; Undelete does it the other way
// round. So one of them sees the other.
func (p *Protector) stands(ctx context.Context, app string, info vault.PointInfo) (bool, error) {
	if info.Goes(p.opts.DeletionDelay).After(p.now()) {
		return false, nil
	}
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
