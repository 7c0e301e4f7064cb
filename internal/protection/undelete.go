package protection

import (
	"context"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/vault"
)

// finalBy is who writes the mark after which a deletion cannot be taken back.
const finalBy = "removal"

// Gone is when a point that is on its way out is removed; zero for another.
func Gone(info vault.PointInfo, delay time.Duration) time.Time {
	for _, m := range info.Deletions() {
		return m.At.Add(delay)
	}
	return time.Time{}
}

// final tells whether the point may be removed now. With a deletion delay it
// says so in the vault first, and then looks whether somebody took the deletion
// back; Undelete does it the other way round. So one of them sees the other.
func (p *Protector) final(ctx context.Context, app string, info vault.PointInfo) (bool, error) {
	if p.opts.DeletionDelay <= 0 {
		return true, nil
	}
	if Gone(info, p.opts.DeletionDelay).After(p.now()) {
		return false, nil
	}
	if !slices.ContainsFunc(info.Deletions(), isFinal) {
		mark := vault.Mark{Kind: vault.MarkDeleting, At: p.now().UTC(), Site: p.opts.Site, By: finalBy}
		if err := p.freeing.Mark(ctx, app, info.ID, mark); err != nil {
			return false, fmt.Errorf("delete point %s: %w", info.ID, err)
		}
	}
	marks, err := p.opts.Project.Marks(ctx, app, info.ID)
	if err != nil {
		return false, fmt.Errorf("delete point %s: %w", info.ID, err)
	}
	left := vault.PointInfo{Marks: marks}.Deletions()
	if slices.ContainsFunc(left, func(m vault.Mark) bool { return !isFinal(m) }) {
		return true, nil
	}
	for _, m := range left { // undeleted meanwhile: take our word back
		if err := p.freeing.Unmark(ctx, app, info.ID, m); err != nil {
			return false, fmt.Errorf("delete point %s: %w", info.ID, err)
		}
	}
	return false, nil
}

func isFinal(m vault.Mark) bool { return m.By == finalBy }

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
		return fmt.Errorf("undelete point %s: %w: look again in a minute whether it is still there", id, ErrRemoved)
	}
	return nil
}
