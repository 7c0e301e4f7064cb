// Package remains judges what a site has left of an application that comes to it,
// and what a restore may do with that.
package remains

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
)

// Remains are what of an application is at a site.
type Remains struct {
	// Here says that the site ran it before: what is left of it there is older than
	// any point that comes, and rolled back to it.
	Here bool
	// Unread is why the site's own note of what it ran cannot be read, where nothing
	// else says that it ran the application. Its name counts (docs/decisions/0037-moved-sites.md),
	// but nothing vouches for it: anybody who may write to the vault can put one there.
	Unread error
}

// Look reads what the vault says of a site, of epochs below one.
func Look(ctx context.Context, p *vault.Project, app string, self lease.Identity, below int64) (Remains, error) {
	history, err := lease.New(p).History(ctx, app)
	if err != nil {
		return Remains{}, err
	}
	if left := In(history, self, below); left.Here {
		return left, nil
	}
	return Noted(ctx, p, app, self)
}

// In goes by the epochs alone.
func In(history []lease.Epoch, self lease.Identity, below int64) Remains {
	for _, e := range history {
		if e.Number < below && self.Made(e.Claim) {
			return Remains{Here: true}
		}
	}
	return Remains{}
}

// Noted goes by what the site noted alone, when it came over from a lost vault.
func Noted(ctx context.Context, p *vault.Project, app string, self lease.Identity) (Remains, error) {
	if vault.CheckName(self.Site) != nil || vault.CheckName(self.Cluster) != nil {
		return Remains{}, nil // of such a one nothing is noted
	}
	_, err := lease.ReadMoved(ctx, p, app, lease.Mover(self))
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return Remains{}, nil
	case errors.Is(err, vault.ErrDamaged), errors.Is(err, lease.ErrFormat):
		return Remains{Here: true, Unread: err}, nil
	case err != nil:
		return Remains{}, err
	}
	return Remains{Here: true}, nil
}

// Existing is what a restore does with what is there; empty: its default. On the word
// of a note that cannot be read nothing is deleted that the point does not have.
func (r Remains) Existing() v1alpha1.ExistingPolicy {
	switch {
	case r.Unread != nil:
		return v1alpha1.ExistingReplace
	case r.Here:
		return v1alpha1.ExistingExact
	}
	return ""
}

// Warning says, for people, what was not done and what they can do; empty: nothing.
func (r Remains) Warning(app string) string {
	if r.Unread == nil {
		return ""
	}
	return fmt.Sprintf("what this site ran of %s cannot be told: %v: what is here of it gives way to the point, but what the point does not have stays and may be of an older state: delete that by hand, and see `davit vault check`", app, r.Unread)
}
