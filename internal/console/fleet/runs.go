package fleet

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/survey"
)

// runs reads what is new of runs: of those that are over the summary, of others, and of
// the newest of each plan, the journal.
func (r *Reader) runs(ctx context.Context, now time.Time) (failed int, err error) {
	all, listed := r.journals()
	r.with(func(b *book) {
		for name := range b.runs {
			if _, found := all[name]; !found {
				delete(b.runs, name)
				b.changed[runsName+name], b.changed[namesName] = true, true
			}
		}
		listed = slices.DeleteFunc(listed, func(name string) bool {
			t := b.runs[name]
			return t != nil && t.Fault == "" && (t.Over && len(t.Remaining) == 0 || t.Mark == all[name]) || t != nil && t.Fault != "" && t.Mark == all[name] && !past(now, t.read, again)
		})
	})
	over, _ := r.survey.Under(r.project.Root() + "ended/")
	failed, err = r.each(ctx, len(listed), func(ctx context.Context, i int) error {
		name := listed[i]
		t := &tale{Mark: all[name], read: now}
		var old *tale
		r.with(func(b *book) { old = b.runs[name] })
		if old != nil && old.Fault != "" {
			r.survey.Reread(r.project.Root() + "runs/" + name + "/")
		}
		_, ended := slices.BinarySearchFunc(over, r.project.Root()+"ended/"+name, func(o vault.ObjectInfo, key string) int { return strings.Compare(o.Key, key) })
		err := r.read(ctx, func() (err error) {
			if ended {
				if t.Run, err = summed(ctx, r.project, name); err == nil && t.Over || err != nil && !register.Unreadable(err) {
					return err
				}
			}
			t.Run, err = journaled(ctx, r.project, name)
			return err
		})
		switch {
		case err == nil:
			r.note(t)
		case ctx.Err() == nil && old == nil: // that it is there is known, and it is read again with the next round
			r.note(&tale{Run: Run{Result: failover.Result{Run: name}, Fault: err.Error()}})
		}
		return err
	})
	if err != nil {
		return failed, err
	}
	n, err := r.details(ctx, now)
	return failed + n, err
}

func (r *Reader) note(t *tale) {
	r.with(func(b *book) {
		b.runs[t.Run.Run] = t
		b.changed[runsName+t.Run.Run], b.changed[namesName] = true, true
	})
}

// journals are the runs that have one, with what stands for that, and their names: those
// that are not known to be over first, then the newest.
func (r *Reader) journals() (all map[string]uint64, listed []string) {
	prefix := r.project.Root() + "runs/"
	records, _ := r.survey.Under(prefix)
	all = map[string]uint64{}
	for i := 0; i < len(records); {
		name, _, ok := strings.Cut(strings.TrimPrefix(records[i].Key, prefix), "/")
		n := 1
		for i+n < len(records) && strings.HasPrefix(records[i+n].Key, prefix+name+"/") {
			n++
		}
		if ok && vault.CheckName(name) == nil {
			all[name] = survey.MarkOf(records[i : i+n]...)
			listed = append(listed, name)
		}
		i += n
	}
	ended := map[string]bool{}
	over, _ := r.survey.Under(r.project.Root() + "ended/")
	for _, o := range over {
		ended[strings.TrimPrefix(o.Key, r.project.Root()+"ended/")] = true
	}
	slices.SortFunc(listed, func(a, b string) int {
		if ended[a] != ended[b] {
			if ended[b] {
				return -1
			}
			return 1
		}
		return cmp.Or(strings.Compare(stamp(b), stamp(a)), strings.Compare(a, b))
	})
	return all, listed
}

// stamp is the time in a run's name, which ends in date and time.
func stamp(run string) string { return run[max(0, len(run)-len("20060102-150405")):] }

// details has the newest of each plan known with their steps, and others without.
func (r *Reader) details(ctx context.Context, now time.Time) (failed int, err error) {
	var wanted []*tale
	r.with(func(b *book) {
		ended := map[string][]*tale{}
		for _, t := range b.runs {
			if t.Over && t.Fault == "" {
				ended[t.Plan] = append(ended[t.Plan], t)
			}
		}
		for _, all := range ended {
			slices.SortFunc(all, func(a, b *tale) int {
				return cmp.Or(b.Begun.Compare(a.Begun), strings.Compare(a.Run.Run, b.Run.Run))
			})
			for i, t := range all {
				switch {
				case i < mostWhole && t.Brief:
					wanted = append(wanted, t)
				case i >= mostWhole && !t.Brief:
					b.runs[t.Run.Run] = &tale{Run: briefly(t.Run), Mark: t.Mark, read: t.read}
					b.changed[runsName+t.Run.Run] = true
				}
			}
		}
	})
	return r.each(ctx, len(wanted), func(ctx context.Context, i int) error {
		t := &tale{Mark: wanted[i].Mark, read: now}
		err := r.read(ctx, func() (err error) {
			t.Run, err = journaled(ctx, r.project, wanted[i].Run.Run)
			return err
		})
		if err == nil {
			r.note(t)
		}
		return err
	})
}

// journaled is a run as its journal says. That this cannot be read is a fault of the
// run; an error says that the vault did not answer.
func journaled(ctx context.Context, p *vault.Project, name string) (Run, error) {
	state, err := journal.Read(ctx, p, name)
	switch {
	case err == nil:
		return RunOf(state), nil
	case !ours(ctx, err):
		return Run{}, err
	}
	return Run{Result: failover.Result{Run: name}, Fault: err.Error()}, nil
}

// Journaled reads a run's journal, for whoever wants to know more of it than what a
// snapshot has. vault.ErrNotFound says that there is no such run.
func Journaled(ctx context.Context, p *vault.Project, name string) (Run, error) {
	state, err := journal.Read(ctx, p, name)
	switch {
	case errors.Is(err, vault.ErrNotFound), err != nil && !ours(ctx, err):
		return Run{}, err
	case err != nil:
		return Run{Result: failover.Result{Run: name}, Fault: err.Error()}, nil
	}
	return RunOf(state), nil
}

// summed is a run that is over as its summary says.
func summed(ctx context.Context, p *vault.Project, name string) (Run, error) {
	s, err := register.New(p).Summary(ctx, name)
	if err != nil {
		return Run{}, err
	}
	return briefly(Run{
		Result: failover.Result{Run: s.Run, Plan: s.Plan, Verb: s.Verb, State: s.Phase, Why: s.Why, Level: s.Level, Applications: s.Applications},
		From:   s.From, To: s.To, Begun: s.Begun.UTC(), End: s.Ended.UTC(), Executor: s.Executor, By: s.By, Over: s.Phase.Over(),
	}), nil
}

// RunOf is a run as its state says.
func RunOf(s *failover.State) Run {
	r := Run{
		Result: s.Result(), From: s.Spec.From, To: s.Spec.To, Begun: s.Begun.UTC(), Executor: s.Executor, By: s.Spec.By, Over: s.Phase.Over(), Reason: s.Spec.Reason,
		Planned: planned(s.Spec.Steps),
	}
	if !s.End.IsZero() {
		r.End = s.End.UTC()
	}
	if s.Pause != nil && !r.Over {
		r.Pause, r.PauseKind = s.Pause.Why, s.Pause.Kind
	}
	return r
}
