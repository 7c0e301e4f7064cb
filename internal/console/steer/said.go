package steer

import (
	"context"
	"errors"
	"slices"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/journal"
)

// remembered is of how many runs that are over it is kept what their steps said: their
// pages are read again with every round.
const remembered = 8

// spoken is what the steps of a run that is over said.
type spoken struct {
	run string // with its project
	all []journal.Words
}

// MayHear says whether somebody may read what the steps of runs said: it takes what
// beginning a drill takes, as programs say more than Davit would.
func (d *Desk) MayHear(ctx context.Context, who entry.Who, p *store.Project) error {
	err := d.Door.May(ctx, who, p, account.Protect)
	if errors.Is(err, entry.ErrForbidden) {
		err = d.Door.May(ctx, who, p, account.Recover) // a robot may have that alone
	}
	return err
}

// Said is what the steps of a run said, or one of them.
func (d *Desk) Said(ctx context.Context, who entry.Who, p *store.Project, run, step string) ([]journal.Words, error) {
	if err := d.MayHear(ctx, who, p); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	key := p.ID + "/" + run
	d.mu.Lock()
	i := slices.IndexFunc(d.spoken, func(s spoken) bool { return s.run == key })
	var all []journal.Words
	if i >= 0 {
		all = d.spoken[i].all
	}
	d.mu.Unlock()
	if i < 0 {
		var err error
		if all, err = d.read(ctx, p, run, key); err != nil {
			return nil, err
		}
	}
	of := []journal.Words{}
	for _, w := range all {
		if step == "" || w.Step == step {
			of = append(of, w)
		}
	}
	return of, nil
}

// read reads what a run's steps said, and remembers it of one that is over.
func (d *Desk) read(ctx context.Context, p *store.Project, run, key string) ([]journal.Words, error) {
	in, err := d.open(ctx, p, run)
	if err != nil {
		return nil, err
	}
	if in.state.Phase.Over() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.spoken = append(d.spoken[max(0, len(d.spoken)-remembered+1):], spoken{key, in.said})
	}
	return in.said, nil
}
