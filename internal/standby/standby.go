// Package standby is the target's side of a run: what claims an application's
// epoch, brings its data, objects and workloads here, waits until they are
// ready, asks them whether they answer, and takes all of that back. It does so
// through the use case of package recovery, in parts, and remembers in the
// cluster what it did, so that whoever takes a run over goes on from there.
package standby

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/internal/drill"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	promised "davit.dev/davit/internal/promise/hold"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/standby/reconcilers"
	"davit.dev/davit/internal/vault"
)

// Options are what a target works with.
type Options struct {
	// Recovery are the ports of restores at this site.
	Recovery recovery.Deps
	// HTTP asks a Service of this cluster from inside of it; ok says that there is
	// such a Service.
	HTTP func(ctx context.Context, namespace, service, port, scheme, path string) (status int, body string, err error)
	// Entrances asks nodes of this cluster for a path of their probe for load balancers, and
	// is what those say that answer; nil: nobody asks.
	Entrances func(ctx context.Context, path string) ([]Entrance, error)
	// Drills is where sandboxes of drills are, and what asks pods and databases;
	// nil: this site carries out no drill, and no sql and command checks.
	Drills drill.Cluster
	// JobLog is the end of what a Job wrote; nil cannot say.
	JobLog func(ctx context.Context, namespace, job string) (string, error)
	// JobTail listens to a Job until its container has ended or ctx has, and is the end of
	// what was heard; nil cannot.
	JobTail func(ctx context.Context, namespace, job string) string
	// Machines carries out infrastructure steps that ask a management cluster; nil
	// cannot.
	Machines execute.Actuator
	// Rehearse asks whether a name could be moved; nil cannot.
	Rehearse func(ctx context.Context, step plan.Step, site string) (string, error)
	// More are actuators of other kinds: DNS, gates. They replace this
	// package's.
	More execute.Kinds
}

// Site is this site as the target of runs.
type Site struct {
	o     Options
	marks execute.Marks
	drill *drill.Site // nil: none
	fit   fits
	// check is the preflight of one application's restore.
	check func(context.Context, recovery.Options, recovery.Deps) (recovery.Report, error)
	// patience is how long a node may take until it says that it is active.
	patience time.Duration
}

// New makes the target.
func New(o Options) *Site {
	if o.Recovery.Now == nil {
		o.Recovery.Now = time.Now
	}
	if o.Recovery.Progress == nil {
		o.Recovery.Progress = restore.Silent{}
	}
	if o.Recovery.Log == nil {
		o.Recovery.Log = slog.New(slog.DiscardHandler)
	}
	s := &Site{o: o, marks: &notes{cluster: o.Recovery.Cluster, vault: o.Recovery.VaultName}, check: recovery.Check, patience: entranceWait}
	if o.Drills != nil {
		s.drill = drill.New(drill.Options{Recovery: o.Recovery, Cluster: o.Drills, Marks: s.marks, Rehearse: o.Rehearse})
	}
	return s
}

// Kinds are the actuators of this site. What an order of a drill does is for
// the drill's own, whatever its kind.
func (s *Site) Kinds() execute.Kinds {
	live, drills := s.of(plan.Failover), s.of(plan.Drill)
	both := execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		if o.Sandbox != "" || o.Verb == plan.Drill {
			return drills.Do(ctx, o)
		}
		return live.Do(ctx, o)
	})
	kinds := execute.Kinds{}
	for _, of := range []execute.Kinds{live, drills} {
		for kind := range of {
			kinds[kind] = both
		}
	}
	return kinds
}

// of are the actuators of one verb.
func (s *Site) of(v plan.Verb) execute.Kinds {
	live := s.live()
	switch {
	case v != plan.Drill:
		return live
	case s.drill == nil:
		return execute.Kinds{}
	}
	return s.drill.Kinds(live)
}

// live are those of runs that are no drill.
func (s *Site) live() execute.Kinds {
	aged := func(f execute.Func) *execute.Aged {
		return &execute.Aged{Inner: f, Marks: s.marks, Newest: s.newest}
	}
	remembered := func(f execute.Func, again bool) *execute.Aged {
		a := aged(f)
		a.Blind, a.Again = true, again
		return a
	}
	kinds := execute.Kinds{
		plan.KindClaim:   execute.Func(s.claim),
		plan.KindHold:    execute.Func(s.promiseNothing),
		plan.KindRestore: remembered(s.restore, true),
		plan.KindApply:   remembered(s.restore, true),
		plan.KindScale:   remembered(s.restore, true),
		plan.KindPin:     aged(s.pin),
		plan.KindCatchUp: remembered(s.catchUp, true),
		plan.KindReady:   execute.Func(s.awaitReady),
		plan.KindProbe:   execute.Func(s.probe),
		plan.KindOutside: execute.Func(s.probe),
		plan.KindCommand: aged(s.command),
		plan.KindInfra:   aged(s.infrastructure),
		plan.KindHTTP:    remembered(s.call, false),
		plan.KindGate:    aged(s.gate),
		plan.KindSuspend: aged(reconcilers.Actuator{Cluster: s.o.Recovery.Cluster, Marks: s.marks}.Do),
		plan.KindResume:  aged(reconcilers.Actuator{Cluster: s.o.Recovery.Cluster, Marks: s.marks}.Do),
	}
	for kind, a := range s.o.More {
		kinds[kind] = a
	}
	if a := kinds[plan.KindDNS]; a != nil {
		kinds[plan.KindDNS] = s.names(a)
	}
	return kinds
}

// names takes no name back from whoever has claimed since: a roll-back may come to it long after the claims
// went back, and who claimed need not have moved it by Davit, so that no guard in the zone says so.
func (s *Site) names(a execute.Actuator) execute.Func {
	return func(ctx context.Context, o execute.Order) execute.Answer {
		if o.Action != failover.Undo {
			return a.Do(ctx, o)
		}
		for _, app := range slices.Sorted(maps.Keys(o.Token.Epochs)) {
			current, err := lease.New(s.project()).Current(ctx, app)
			switch {
			case err != nil:
				return gone(err)
			case current.Number > o.Token.Epochs[app] && current.Claim.Site != o.From:
				return overtaken(app, current)
			}
		}
		return a.Do(ctx, o)
	}
}

func (s *Site) project() *vault.Project { return s.o.Recovery.Project }

func (s *Site) self() lease.Identity {
	return lease.Identity{Site: s.o.Recovery.Site, Cluster: s.o.Recovery.ClusterID}
}

func (s *Site) newest(ctx context.Context, app string) (int64, error) {
	current, err := lease.New(s.project()).Current(ctx, app)
	return current.Number, err
}

// promiseNothing holds: below the epochs that the run claimed, this site promises its peers nothing any more.
func (s *Site) promiseNothing(ctx context.Context, o execute.Order) execute.Answer {
	cluster, project := s.o.Recovery.Cluster, s.project().KeyID()
	switch o.Action {
	case failover.Undo:
		return execute.Done("the number stays: it holds back nobody who has a newer epoch")
	case failover.Look:
		held, err := promised.Held(ctx, cluster, project, o.Token.Epochs)
		switch {
		case err != nil:
			return execute.Unknown("%v", err)
		case !held:
			return execute.NotDone("")
		}
		return execute.Done("")
	}
	if err := promised.Raise(ctx, cluster, project, o.Token.Epochs); err != nil {
		return execute.Unknown("%v", err)
	}
	return execute.Answer{Outcome: failover.Done, Guard: execute.Fenced}
}

// requests are the names of a run's claim and of its return.
func requests(run string) (claim, back string) { return run, run + lease.GivenBack }

// claim writes the application's next epoch for this site, or the one after it
// for the source.
func (s *Site) claim(ctx context.Context, o execute.Order) execute.Answer {
	app := o.Step.Application
	n := o.Token.Epochs[app]
	mine, back := requests(o.Run)
	c := recovery.Claiming{
		Project: s.project(), Application: app, Number: n, Self: s.self(), Holder: s.o.Recovery.Holder,
		Reason: fmt.Sprintf("%s of plan %s, run %s", o.Verb, o.Plan, o.Run), Request: mine, At: s.o.Recovery.Now(),
	}
	if o.Action == failover.Look {
		return s.claimed(ctx, app, n, mine)
	}
	if o.Action == failover.Undo {
		c.Request, c.Reason = back, "rolled back: "+c.Reason
		var err error
		if c.Number, c.Self, err = s.before(ctx, app, o, mine); err != nil {
			return gone(err)
		}
		epoch, err := recovery.GiveBack(ctx, c, mine)
		if err != nil {
			return gone(err)
		}
		return execute.Answer{Outcome: failover.Done, Epoch: epoch.Number, Guard: execute.Fenced}
	}
	var err error
	if c.Terms, err = lease.TermsOf(ctx, s.project(), o.Fence, s.o.Recovery.Site); err != nil {
		return execute.Unknown("%v", err)
	}
	epoch, err := recovery.Claim(ctx, c)
	if err != nil {
		return gone(err)
	}
	return execute.Answer{Outcome: failover.Done, Epoch: epoch.Number, Guard: execute.Fenced}
}

// claimed looks whether the run's claim stands.
func (s *Site) claimed(ctx context.Context, app string, n int64, request string) execute.Answer {
	current, err := lease.New(s.project()).Current(ctx, app)
	switch {
	case err != nil:
		return execute.Unknown("%v", err)
	case current.Number < n:
		return execute.NotDone("")
	case current.Number == n && current.Claim.Request == request && s.self().Made(current.Claim):
		return execute.Answer{Outcome: failover.Done, Epoch: n, Guard: execute.Fenced}
	}
	return overtaken(app, current)
}

// before finds the number of the run's claim, and whom the epoch goes back to:
// whoever held the one before it. Of a claim that is not there the order still
// has the number that it was to follow.
func (s *Site) before(ctx context.Context, app string, o execute.Order, request string) (int64, lease.Identity, error) {
	history, err := lease.New(s.project()).History(ctx, app)
	if err != nil {
		return 0, lease.Identity{}, err
	}
	number := o.Token.Epochs[app] + 1
	for _, e := range history {
		if e.Claim.Request == request {
			number = e.Number
		}
	}
	owner := lease.Identity{Site: o.From}
	if i := int(number) - 2; i >= 0 && i < len(history) {
		owner = lease.Identity{Site: history[i].Claim.Site, Cluster: history[i].Claim.Cluster}
	}
	return number, owner, nil
}

// overtaken says whose claim stands instead.
func overtaken(app string, current lease.Epoch) execute.Answer {
	a := execute.Superseded("site %s holds epoch %d of %s", current.Claim.Site, current.Number, app)
	a.Holder = current.Claim.Site
	return a
}

// gone says what an error of the ledger of epochs means.
func gone(err error) execute.Answer {
	var superseded *lease.SupersededError
	switch {
	case errors.As(err, &superseded):
		return overtaken(superseded.Application, superseded.Current)
	case errors.Is(err, lease.ErrSuperseded), errors.Is(err, lease.ErrLost):
		return execute.Superseded("%v", err)
	case errors.Is(err, vault.ErrDamaged):
		return execute.Refuse("%v", err)
	}
	return execute.Unknown("%v", err)
}

// failed says what an error of a recovery means.
func failed(err error) execute.Answer {
	switch {
	case errors.Is(err, lease.ErrSuperseded), errors.Is(err, recovery.ErrOvertaken):
		return execute.Superseded("%v", err)
	case errors.Is(err, restore.ErrBusy), errors.Is(err, hold.ErrLost), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, vault.ErrUnavailable):
		return execute.Unknown("%v", err)
	}
	return execute.Refuse("%v", err)
}
