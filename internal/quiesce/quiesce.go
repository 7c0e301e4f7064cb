// Package quiesce is the engine that brings the pods of an application to rest
// before its volumes are cut, and lets them go afterwards. It runs hooks, keeps
// the sessions of those that hold, and says what may be claimed.
//
// # The proof
//
// A hold is a command that says that the application is at rest and goes on
// running. It is believed only if the same session answers when it is asked
// after the last cut, if it never ended in between, and if the pods that the
// hook is for are the same ones before and after. A session that has lost what
// it held must not answer: see Hold. Then, by causality alone, the application
// was at rest from before the first cut until after the last. Commands that ran
// and ended prove nothing, and nothing is claimed of them.
//
// # Nobody is left at rest
//
// What holds ends with its session, and the session with this process. What an
// After has to undo is written into a Ledger before the first Before runs; who
// finds a debt that no living capture answers for carries it out: see Collect.
//
// The decision record is docs/decisions/0012-held-sessions.md.
package quiesce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/point"
)

// askTimeout bounds the wait for a session's answer after the cuts.
const askTimeout = 10 * time.Second

// Spec is what to bring to rest.
type Spec struct {
	Application string
	Namespaces  []string
	Hooks       []Hook
	// Own tells whether a pod is the application's. Nil: all are.
	Own func(namespace, pod string) bool
	// Profile chooses a hook, and the container for it, for a pod in which none
	// of Hooks acts; a nil hook is none. It returns the same hook for all pods
	// that share it. The error is a warning. Nil: no pod has a profile.
	Profile func(Pod) (*Hook, string, error)
}

// Ports are the engine's ways out.
type Ports struct {
	Runner Runner // may be nil without hooks
	// Ledger may be nil: then nobody undoes what a capture that died has done.
	Ledger Ledger
	Report Reporter
	Now    func() time.Time
}

// Quiescence is one application's way to rest and back, for one cut. Find,
// Before, Check and After are called in this order, After in any case.
type Quiescence struct {
	spec  Spec
	ports Ports

	places  []*place        // in the order of hooks, then of pods
	known   map[string]bool // UIDs of the pods that were there at the start
	holds   bool            // something is to be held
	owed    bool
	settled []Owed
	asked   bool

	mu    sync.Mutex
	hooks []point.Hook
	lost  []string // why nothing may be claimed
}

// place is one hook at one target.
type place struct {
	hook    *Hook
	target  Target
	session Session
	end     context.CancelFunc // of the session's time
	held    time.Time          // since when; zero: it does not hold
	proven  bool
	rested  time.Duration
	why     string // it does not hold
}

// New makes one.
func New(spec Spec, ports Ports) *Quiescence {
	return &Quiescence{spec: spec, ports: ports, known: map[string]bool{}}
}

// lose notes why nothing may be claimed.
func (q *Quiescence) lose(why string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost = append(q.lost, why)
}

// Before brings everything to rest, lower orders first. A hook that fails and
// must not, ends it.
func (q *Quiescence) Before(ctx context.Context) error {
	if err := q.owe(ctx); err != nil {
		return err
	}
	for _, group := range q.groups() {
		q.ports.Report.Step("running " + namesOf(group) + " before the cut")
		if err := each(group, func(p *place) error { return q.enter(ctx, p) }); err != nil {
			return err
		}
	}
	return nil
}

// groups are the places by their hooks' order, lowest first.
func (q *Quiescence) groups() [][]*place {
	byOrder := map[int32][]*place{}
	for _, p := range q.places {
		byOrder[p.hook.Order] = append(byOrder[p.hook.Order], p)
	}
	var all [][]*place
	for _, group := range byOrder {
		all = append(all, group)
	}
	slices.SortFunc(all, func(a, b []*place) int { return cmp.Compare(a[0].hook.Order, b[0].hook.Order) })
	return all
}

func namesOf(group []*place) string {
	var names []string
	for _, p := range group {
		if !slices.Contains(names, p.hook.Name) {
			names = append(names, p.hook.Name)
		}
	}
	if len(names) == 1 {
		return group[0].hook.title()
	}
	return "hooks " + strings.Join(names, ", ")
}

func each(group []*place, do func(*place) error) error {
	errs := make([]error, len(group))
	var wg sync.WaitGroup
	for i, p := range group {
		wg.Go(func() { errs[i] = do(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// enter runs a hook's command, and then its hold, at one place.
func (q *Quiescence) enter(ctx context.Context, p *place) error {
	if p.hook.Before != nil {
		if err := q.act(ctx, p, "before", *p.hook.Before); err != nil {
			p.why = "it was not tried, as its before failed"
			if p.hook.Hold == nil { // what others hold says nothing of this part
				q.lose(err.Error())
			}
			return p.excuse(err)
		}
	}
	if p.hook.Hold == nil {
		return nil
	}
	if err := q.hold(ctx, p); err != nil {
		p.why = err.Error()
		return p.excuse(err)
	}
	return nil
}

// excuse drops an error of a hook that may fail.
func (p *place) excuse(err error) error {
	if p.hook.Continue {
		return nil
	}
	return err
}

// act carries out an action and records how it went.
func (q *Quiescence) act(ctx context.Context, p *place, when string, a Action) error {
	timeout := p.hook.timeout()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	started := q.ports.Now()
	output, err := q.ports.Runner.Run(ctx, p.target, a)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no end after %s: %w", timeout, err)
	}
	outcome := point.Hook{Name: p.hook.Name, Pod: p.target.Key(), When: when, Duration: q.ports.Now().Sub(started)}
	if err != nil {
		err = fmt.Errorf("run %s %s the cut in %s: %w", p.hook.title(), when, p.target.Key(), err)
		outcome.Error = err.Error()
	}
	q.record(outcome, p.hook, output, err)
	return err
}

func (q *Quiescence) record(outcome point.Hook, h *Hook, output string, err error) {
	object := "pods " + outcome.Pod
	if h.Apart() {
		object = outcome.Pod
	}
	q.mu.Lock()
	q.hooks = append(q.hooks, outcome)
	q.mu.Unlock()
	text := fmt.Sprintf("%s, %s the cut, took %s", h.title(), outcome.When, outcome.Duration.Round(time.Millisecond))
	if outcome.When == whenHold {
		text = fmt.Sprintf("%s held for %s", h.title(), outcome.Duration.Round(time.Millisecond))
	}
	if output != "" {
		text += "; it printed:\n" + output
	}
	q.ports.Report.Note("info", object, text)
	switch {
	case err != nil && h.Continue:
		q.ports.Report.Warn(object, err.Error())
	case err != nil:
		q.ports.Report.Note("error", object, err.Error())
	}
}

// After lets everything go, in the opposite order: all of it, whatever failed,
// and even when the capture was called off.
func (q *Quiescence) After(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, group := range slices.Backward(q.groups()) {
		q.ports.Report.Step("running " + namesOf(group) + " after the cut")
		errs = append(errs, each(group, func(p *place) error { return q.exit(ctx, p) }))
	}
	return errors.Join(append(errs, q.settle(ctx))...)
}

// exit ends a hook's hold, and then runs its command, at one place.
func (q *Quiescence) exit(ctx context.Context, p *place) error {
	if p.session != nil {
		q.release(ctx, p)
	}
	if p.hook.After == nil {
		return nil
	}
	err := q.act(ctx, p, "after", *p.hook.After)
	if errors.Is(err, ErrGone) {
		q.ports.Report.Warn(p.target.object(), "there is nothing left to let go: "+err.Error())
		err = nil
	}
	if err == nil {
		q.mu.Lock()
		q.settled = append(q.settled, p.owes())
		q.mu.Unlock()
	}
	return p.excuse(err)
}

// Outcome is what every hook did, and what may be claimed; nil where nothing
// was to be held. It is final after After.
func (q *Quiescence) Outcome() ([]point.Hook, *point.Quiesce) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.holds {
		return q.hooks, nil
	}
	out := &point.Quiesce{}
	lost := slices.Clone(q.lost)
	for _, p := range q.places {
		if p.hook.Hold == nil {
			continue
		}
		out.Rested = max(out.Rested, p.rested)
		if p.proven {
			out.Pods++
		} else {
			lost = append(lost, fmt.Sprintf("%s in %s: %s", p.hook.title(), p.target.Key(), cmp.Or(p.why, "it was not asked after the cut")))
		}
	}
	if out.Held = q.asked && len(lost) == 0; !out.Held {
		out.Reason = "the capture ended before the cut"
		if len(lost) > 0 {
			out.Reason = lost[0]
		}
		if n := len(lost) - 1; n > 0 {
			out.Reason += fmt.Sprintf(" (and %d more)", n)
		}
	}
	return q.hooks, out
}
