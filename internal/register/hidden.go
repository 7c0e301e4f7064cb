package register

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/vault"
)

const (
	// atOnce is how many runs are looked at at once.
	atOnce = 8
	// recent is how far behind the newest a summary is still read. Agents read each
	// of them, and note what goes on, every hour: what is older, they have seen.
	recent = 24 * time.Hour
)

// lookFor is how long runs of other plans are looked for that have no note. Tests
// change it.
var lookFor = 5 * time.Second

// hidden are the journals of runs that go on although they have no note, and
// whatever has been put where their summaries would be: only whoever deleted the
// note, without a key, leaves such. So it ends no start and delays none for long:
// what cannot be read of runs that are not the plan's by name is passed over.
func (r Register) hidden(ctx context.Context, name string, but []string) ([]*failover.State, error) {
	own, err := r.lost(ctx, name+"-", func(run string) bool { return slices.Contains(but, run) })
	if err != nil {
		return nil, fmt.Errorf("look for runs of plan %s: %w", name, err)
	}
	limited, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	others, _ := r.lost(limited, "", func(run string) bool { return MayBeOf(run, name) || slices.Contains(but, run) })
	return append(own, others...), ctx.Err()
}

// lost are the journals of runs with a prefix that go on without a note. With an error
// come those that were found.
func (r Register) lost(ctx context.Context, prefix string, skip func(run string) bool) ([]*failover.State, error) {
	ended := map[string]time.Time{}
	var newest time.Time
	err := r.project.Store().List(ctx, r.over(prefix), func(o vault.ObjectInfo) error {
		ended[strings.TrimPrefix(o.Key, r.over(""))] = o.Modified
		if o.Modified.After(newest) {
			newest = o.Modified
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list summaries: %w", err)
	}
	var doubtful []string
	for run, at := range ended {
		if vault.CheckName(run) == nil && !skip(run) && newest.Sub(at) <= recent {
			doubtful = append(doubtful, run)
		}
	}
	slices.Sort(doubtful)
	planted, errPlanted := r.each(ctx, doubtful, r.unlessOver)
	runs, err := r.journals(ctx, prefix)
	runs = slices.DeleteFunc(runs, func(run string) bool { return !ended[run].IsZero() || skip(run) })
	bare, errBare := r.each(ctx, runs, r.open)
	return append(planted, bare...), errors.Join(errPlanted, err, errBare)
}

// journals names the runs with a prefix that have a journal.
func (r Register) journals(ctx context.Context, prefix string) ([]string, error) {
	under := r.project.Root() + "runs/"
	var all []string
	err := r.project.Store().List(ctx, under+prefix, func(o vault.ObjectInfo) error {
		run, _, ok := strings.Cut(strings.TrimPrefix(o.Key, under), "/")
		if ok && vault.CheckName(run) == nil && (len(all) == 0 || all[len(all)-1] != run) {
			all = append(all, run)
		}
		return nil
	})
	if err != nil {
		return all, fmt.Errorf("list journals: %w", err)
	}
	return all, nil
}

// each looks at runs, a few at once.
func (r Register) each(ctx context.Context, runs []string, look func(context.Context, string) (*failover.State, error)) ([]*failover.State, error) {
	states, errs := make([]*failover.State, len(runs)), make([]error, len(runs))
	places := make(chan struct{}, atOnce)
	var looking sync.WaitGroup
	for i, run := range runs {
		places <- struct{}{}
		looking.Go(func() {
			defer func() { <-places }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				states[i], errs[i] = look(ctx, run)
			}
		})
	}
	looking.Wait()
	return slices.DeleteFunc(states, func(s *failover.State) bool { return s == nil }), errors.Join(errs...)
}

// unlessOver is open where there is something in the place of a summary. If that
// cannot be read, for whatever reason, the journal tells.
func (r Register) unlessOver(ctx context.Context, run string) (*failover.State, error) {
	if over, err := r.Over(ctx, run); over && err == nil {
		return nil, nil //nolint:nilnil // it is over
	}
	return r.open(ctx, run)
}

// open is the journal of a run that is not over; nil if it is, or cannot be read:
// without a note nobody began it.
func (r Register) open(ctx context.Context, run string) (*failover.State, error) {
	s, err := journal.Read(ctx, r.project, run)
	switch {
	case errors.Is(err, vault.ErrNotFound), Unreadable(err):
		return nil, nil //nolint:nilnil // there is nothing to go by
	case err != nil || s.Phase.Over():
		return nil, err
	}
	return s, nil
}
