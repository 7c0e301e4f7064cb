package quiesce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// ledgerTimeout bounds one look into the ledger.
const ledgerTimeout = 30 * time.Second

func (p *place) owes() Owed {
	return Owed{Hook: p.hook.Name, Order: p.hook.Order, Target: p.target, Action: *p.hook.After, Timeout: p.hook.timeout()}
}

// owe writes down all that After will have to do, before anything needs it.
func (q *Quiescence) owe(ctx context.Context) error {
	d := Debt{Application: q.spec.Application}
	for _, p := range q.places {
		if p.hook.After != nil {
			d.Owed = append(d.Owed, p.owes())
		}
	}
	if len(d.Owed) == 0 || q.ports.Ledger == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	q.owed = true // also when the answer is lost
	if err := q.ports.Ledger.Owe(ctx, d); err != nil {
		return fmt.Errorf("write down what must be undone after the cut, before anything is done: %w", err)
	}
	return nil
}

// settle strikes out what was undone. What was not is left to the collector.
func (q *Quiescence) settle(ctx context.Context) error {
	if !q.owed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	if err := q.ports.Ledger.Leave(ctx, q.spec.Application, q.settled); err != nil {
		q.ports.Report.Warn("", fmt.Sprintf("what was undone after the cut is still written down, and will be done once more: %v", err))
	}
	return nil
}

// Permit says why a command that is owed must not be run, or nil. Who wrote
// the ledger is not known, and what is in it would run with Davit's rights.
type Permit func(ctx context.Context, o Owed) error

// IsOf tells whether one of the hooks does after the cut exactly what is owed,
// and in that container.
func (o Owed) IsOf(hooks []Hook) bool {
	return slices.ContainsFunc(hooks, func(h Hook) bool {
		if h.Apart() && (o.Target.Pod != "" || h.Namespace != "" && h.Namespace != o.Target.Namespace) {
			return false
		}
		return h.After != nil && reflect.DeepEqual(*h.After, o.Action) && (h.Container == "" || h.Container == o.Target.Container)
	})
}

// Collect carries out what a capture that died owes, in the order in which it
// would have, as far as it is permitted. It returns what is done with, for the
// ledger: also what a pod that is gone was owed. The error says what could not
// be done.
func Collect(ctx context.Context, d Debt, permit Permit, runner Runner) (done []Owed, err error) {
	owed := slices.Clone(d.Owed)
	slices.SortStableFunc(owed, func(a, b Owed) int { return cmp.Compare(b.Order, a.Order) })
	var errs []error
	for _, o := range owed {
		if err := collect(ctx, o, permit, runner); err != nil {
			errs = append(errs, err)
		} else {
			done = append(done, o)
		}
	}
	return done, errors.Join(errs...)
}

func collect(ctx context.Context, o Owed, permit Permit, runner Runner) error {
	timeout := o.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := permit(ctx, o); err != nil {
		if gone(ctx, o.Target, runner) {
			return nil
		}
		return fmt.Errorf("hook %s after the cut in %s was not run: %w", o.Hook, o.Target.Key(), err)
	}
	_, err := runner.Run(ctx, o.Target, o.Action)
	if err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("run hook %s after the cut in %s: %w", o.Hook, o.Target.Key(), err)
	}
	return nil
}

// gone tells whether nothing runs any more in the very pod that is owed.
func gone(ctx context.Context, t Target, runner Runner) bool {
	if t.Namespace == "" || t.UID == "" {
		return false
	}
	pods, err := runner.Pods(ctx, []string{t.Namespace})
	return err == nil && !slices.ContainsFunc(pods, func(p Pod) bool { return p.UID == t.UID })
}
