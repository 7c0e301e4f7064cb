package reading

import (
	"context"
	"fmt"
	"time"

	"davit.dev/davit/internal/vault"
)

// Removal is the right to remove one point, for the time of a bound.
type Removal struct {
	in      *vault.Project
	app, id string
	key     string
	expires time.Time
}

// Claim notes that a point is about to be removed, and then looks who reads it:
// a *ReadError says that somebody does, and nothing is noted any more. by and
// site are for people. What the claim allows is to mark the point with Begun, within
// Bound. Then Again tells whether it may be removed, and the claim is released. Of a
// point that is so marked already the claim alone tells that.
func Claim(ctx context.Context, p *vault.Project, app, id, by, site string) (*Removal, error) {
	key, err := newKey(p, app, id, remover)
	if err != nil {
		return nil, fmt.Errorf("remove point %s: %w", id, err)
	}
	r := &Removal{in: p, app: app, id: id, key: key, expires: time.Now().Add(claimBound)}
	err = write(ctx, p, key, note{By: by, Site: site, At: time.Now().UTC().Truncate(time.Second), Lease: claimLease})
	if err != nil { // it may have arrived
		err = fmt.Errorf("note that point %s is removed: %w", id, err)
	} else if err = r.look(ctx); err == nil {
		return r, nil
	}
	if released := r.Release(context.WithoutCancel(ctx)); released != nil {
		return nil, fmt.Errorf("%w (and its note stays until it ends: %w)", err, released)
	}
	return nil, err
}

// Again looks once more who reads the point, after it was marked with Begun. From
// then on nobody begins to, so that who is not seen now never comes, however long this
// process stood still since its claim: that, and the bound, may have ended meanwhile
// by the store's clock. A *ReadError says that somebody does: the point stays marked,
// and goes when whoever reads it has ended. A nil claim looks at nothing.
func (r *Removal) Again(ctx context.Context) error {
	if r == nil {
		return nil
	}
	return r.look(ctx)
}

func (r *Removal) look(ctx context.Context) error {
	all, err := list(ctx, r.in, prefixOf(r.in, r.app, r.id))
	if err != nil {
		return err
	}
	now, err := mine(all, r.key)
	if err != nil {
		return err
	}
	var readers []Reader
	for _, e := range all {
		if e.role == reader && now.Before(e.until().Add(margin)) {
			readers = append(readers, e.reader())
		}
	}
	if len(readers) > 0 {
		return &ReadError{Point: r.id, Readers: readers}
	}
	return nil
}

// Bound is ctx for what the claim allows: to write down that parts of the point
// may be gone. A nil claim, of who removes the point
// whoever reads it, has no bound.
func (r *Removal) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if r == nil {
		return context.WithCancel(ctx)
	}
	return context.WithDeadlineCause(ctx, r.expires, fmt.Errorf("the removal took longer than %s to begin", claimBound))
}

// Release takes the note away. It is for whoever knows how what the claim allowed
// ended: where a write may still arrive, the note is left to end by itself.
func (r *Removal) Release(ctx context.Context) error {
	if r == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, putWithin)
	defer cancel()
	return r.in.Store().Delete(ctx, r.key)
}
