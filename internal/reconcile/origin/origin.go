// Package origin does what a run wants of a site that it takes applications
// away from: bring them to rest, capture the last write, stop them for good and
// prove it, and let them run again when the run rolls back. It works through
// the Application and RecoveryPoint objects of the site, so that nothing is lost
// with the process, and the reconcilers do the work.
package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/fence/lifting"
	"davit.dev/davit/internal/plan"
)

// Options are what a site needs for its part in runs.
type Options struct {
	// Client reads from and writes to the API server itself: what a cache
	// remembers may be older than an order.
	Client client.Client
	// Vault is the Vault that the orders come from. They are for applications that
	// are kept in it, and no others: another may be another tenant's.
	Vault string
	Site  string
	Marks execute.Marks
	// Reconcilers suspend and resume what makes objects from git here; nil: nothing does.
	Reconcilers execute.Actuator
	// LookEvery is how often something awaited is looked at; 0 is once a second.
	LookEvery time.Duration
	Now       func() time.Time
}

type site struct{ Options }

// New returns the site's actuator.
func New(o Options) execute.Actuator {
	if o.LookEvery <= 0 {
		o.LookEvery = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &site{o}
	aged := &execute.Aged{
		Inner: execute.Kinds{
			plan.KindQuiesce: execute.Func(s.quiesce),
			plan.KindSync:    execute.Func(s.sync),
			plan.KindDemote:  execute.Func(s.demote),
			plan.KindResume:  o.Reconcilers,
		},
		Marks: o.Marks, Newest: s.newest,
	}
	still := &execute.Aged{Inner: o.Reconcilers, Marks: o.Marks}
	return execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		if why := nameless(o); why != "" {
			return execute.Refuse("%s", why)
		}
		switch o.Step.Kind {
		case plan.KindFence: // it only grows: none is too old, and to hear it again hurts nobody
			return s.fence(ctx, o)
		case plan.KindSuspend:
			return s.gitOps(ctx, o, still)
		case plan.KindResume:
			return s.gitOps(ctx, o, aged)
		}
		return aged.Do(ctx, o)
	})
}

// nameless says which application the order is about without its epoch; empty if
// there is none. A step of people's that names none is about all of the run.
func nameless(o execute.Order) string {
	const text = "the order names no epoch of application %q"
	people := o.Step.Kind == plan.KindSuspend || o.Step.Kind == plan.KindResume
	if !people || o.Step.Application != "" || len(o.Token.Epochs) == 0 {
		if o.Token.Epochs[o.Step.Application] <= 0 {
			return fmt.Sprintf(text, o.Step.Application)
		}
		return ""
	}
	for app, epoch := range o.Token.Epochs {
		if epoch <= 0 {
			return fmt.Sprintf(text, app)
		}
	}
	return ""
}

// application finds an application by its name in the vault.
func (s *site) application(ctx context.Context, name string) (*v1alpha1.Application, error) {
	keys := []client.ObjectKey{{Namespace: v1alpha1.SystemNamespace, Name: name}}
	if namespace, short, ok := strings.Cut(name, "."); ok {
		keys = append(keys, client.ObjectKey{Namespace: namespace, Name: short})
	}
	for _, key := range keys {
		var app v1alpha1.Application
		err := s.Client.Get(ctx, key, &app)
		if err == nil && app.VaultName() == name && app.Spec.Vault == s.Vault {
			return &app, nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("read application %s: %w", name, err)
		}
	}
	return nil, fmt.Errorf("site %s has no application %s in vault %s: %w", s.Site, name, s.Vault, errNone)
}

var errNone = errors.New("not found")

func (s *site) newest(ctx context.Context, name string) (int64, error) {
	app, err := s.application(ctx, name)
	if err != nil {
		return 0, err
	}
	return app.Status.Epoch, nil
}

// await looks until look has an answer. Without one in time, it is why there was none.
func (s *site) await(ctx context.Context, look func(ctx context.Context) (answer *execute.Answer, why string)) execute.Answer {
	every := time.NewTicker(s.LookEvery)
	defer every.Stop()
	for {
		answer, why := look(ctx)
		if answer != nil {
			return *answer
		}
		select {
		case <-ctx.Done():
			return execute.Unknown("%s", why)
		case <-every.C:
		}
	}
}

// quiesce holds the application at rest, or lets go of it.
func (s *site) quiesce(ctx context.Context, o execute.Order) execute.Answer {
	switch o.Action {
	case failover.Act:
		if err := s.hold(ctx, o, true); err != nil {
			return failed(err)
		}
		answer := s.await(ctx, func(ctx context.Context) (*execute.Answer, string) {
			answer, why := s.atRest(ctx, o)
			if answer != nil && answer.Outcome == failover.NotDone {
				answer.Outcome = failover.NoAnswer // somebody took the hold off meanwhile
			}
			return answer, why
		})
		if answer.Outcome == failover.Refused { // a hold that cannot be holds nothing
			if err := s.hold(ctx, o, false); err != nil {
				return execute.Unknown("%v", err)
			}
		}
		return answer
	case failover.Undo:
		return s.letGo(ctx, o)
	}
	answer, why := s.atRest(ctx, o)
	switch {
	case answer == nil:
		return execute.Answer{Outcome: failover.Busy, Note: why}
	case answer.Outcome == failover.Refused:
		return execute.NotDone("%s", answer.Note)
	}
	return *answer
}

// failed is what an error at the API server means: what is not there will not
// be done, of everything else nobody knows.
func failed(err error) execute.Answer {
	if errors.Is(err, errNone) {
		return execute.Refuse("%v", err)
	}
	return execute.Unknown("%v", err)
}

// atRest says whether the run holds the application and it has come to rest;
// nil: not yet, and why.
func (s *site) atRest(ctx context.Context, o execute.Order) (*execute.Answer, string) {
	app, err := s.application(ctx, o.Step.Application)
	if err != nil {
		return nil, err.Error()
	}
	return restsFor(app, o.Run)
}

func restsFor(app *v1alpha1.Application, run string) (*execute.Answer, string) {
	answer := execute.Answer{Guard: execute.Guarded}
	rest := app.Status.Rest
	switch {
	case !slices.Contains(app.HeldBy(), run):
		answer.Outcome = failover.NotDone
	case app.Annotations[v1alpha1.AnnotationRestoring] != "": // which decides by itself what runs
		return nil, fmt.Sprintf("a restore into it is under way there, or has not ended well: wait for it, or give it again (the annotation %s says which)", v1alpha1.AnnotationRestoring)
	case rest == nil || !slices.Contains(rest.Runs, run):
		return nil, "the agent has not taken the hold up yet"
	case rest.Refused != "":
		answer.Outcome, answer.Note = failover.Refused, rest.Refused
	case !rest.Stopped:
		return nil, "it still runs: " + strings.Join(rest.Running, ", ")
	default:
		answer.Outcome = failover.Done
	}
	return &answer, ""
}

// hold adds the run to those that hold the application, or takes it away. Whoever adds it may
// have stood still, and others have taken back what he is at: the order has to be the newest of its step, by
// a look that comes after the Application was read, and nobody may have changed that since. So to
// take away what is not there changes it as well.
func (s *site) hold(ctx context.Context, o execute.Order, on bool) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		app, err := s.application(ctx, o.Step.Application)
		if err != nil {
			return err
		}
		if current, err := execute.Current(ctx, s.Marks, o); err != nil {
			return err
		} else if !current {
			return fmt.Errorf("order %d is old", o.Token.Sequence)
		}
		held := otherHolders(app, o.Run)
		if on {
			held = append(held, o.Run)
		}
		slices.Sort(held)
		old := app.DeepCopy()
		if app.Annotations == nil {
			app.Annotations = map[string]string{}
		}
		app.Annotations[v1alpha1.AnnotationHeldBy] = strings.Join(held, ",")
		if len(held) == 0 {
			delete(app.Annotations, v1alpha1.AnnotationHeldBy)
		}
		if !on {
			app.Annotations[fence.AnnotationLetGo] = fmt.Sprintf("%s %d", o.Run, o.Token.Sequence)
		}
		return s.Client.Patch(ctx, app, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	})
}

// rolledBackIn is how long the agent has to see that a claim was given back. It
// looks every 5 s.
const rolledBackIn = 20 * time.Second

// letGo takes the run's hold off, and waits until what it had stopped was
// started again. Where another site may write nothing starts: a claim that was
// given back must have been seen before. What needs it is started next, so that it has some time to
// become ready, too; that it does not keeps no roll-back from its end.
func (s *site) letGo(ctx context.Context, o execute.Order) execute.Answer {
	within := rolledBackIn
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)/2) // what comes after takes its time, too
	}
	soon, cancel := context.WithTimeout(ctx, within)
	s.await(soon, func(ctx context.Context) (*execute.Answer, string) {
		app, err := s.application(ctx, o.Step.Application)
		if err == nil && app.Status.Role != v1alpha1.RoleActive {
			return nil, ""
		}
		return &execute.Answer{}, ""
	})
	cancel()
	if err := s.hold(ctx, o, false); errors.Is(err, errNone) {
		return execute.Done("%v", err)
	} else if err != nil {
		return execute.Unknown("%v", err)
	}
	within = 0
	if deadline, ok := ctx.Deadline(); ok {
		within = time.Until(deadline) / 2
	}
	ready, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return s.await(ctx, func(ctx context.Context) (*execute.Answer, string) {
		app, err := s.application(ctx, o.Step.Application)
		if err != nil {
			return nil, err.Error()
		}
		rest := app.Status.Rest
		if app.Status.Role == v1alpha1.RoleActive && rest != nil && len(rest.Waits) > 0 && ready.Err() == nil {
			return nil, "it is not ready yet: " + strings.Join(rest.Waits, "; ")
		}
		restoring := app.Annotations[v1alpha1.AnnotationRestoring] != "" // which decides by itself what runs
		if app.Status.Role == v1alpha1.RoleActive && rest != nil && slices.Contains(rest.Runs, o.Run) && !restoring {
			return nil, strings.Join(append([]string{"the agent has not started it again yet"}, rest.Waits...), ": ")
		}
		return &execute.Answer{Outcome: failover.Done, Guard: execute.Guarded}, ""
	})
}

// fence asks the site to stop the application below the order's epoch. The
// site's own reconciler stops it once it has seen that epoch in the vault. That
// the API server lists no pod any more proves nothing: containers outlive pods
// that were deleted by force, or whose node is cut off. Only the nodes prove it.
func (s *site) fence(ctx context.Context, o execute.Order) execute.Answer {
	heard := false
	look := func(ctx context.Context) (*execute.Answer, string) {
		app, err := s.application(ctx, o.Step.Application)
		if errors.Is(err, errNone) {
			return nil, err.Error() + ": whether anything of it runs there, nobody watches"
		}
		if err != nil {
			return nil, err.Error()
		}
		epoch := o.Token.Epochs[o.Step.Application]
		st := app.Status
		heard = st.Epoch >= epoch && st.Role == v1alpha1.RoleSuperseded
		ran, err := s.unmoved(ctx, app, o)
		switch {
		case !heard:
			return nil, unheard(st, epoch)
		case err != nil:
			return nil, err.Error()
		case ran != "":
			return &execute.Answer{Outcome: failover.Refused, Note: ran}, ""
		case st.Fence != nil && st.Fence.Level == v1alpha1.FenceProven && st.Fence.Epoch >= epoch:
			return &execute.Answer{
				Outcome: failover.Done, Asked: true, Guard: execute.Fenced, Note: "every node says so",
				Proof: &failover.Proof{Application: o.Step.Application, Site: s.Site, Epoch: st.Fence.Epoch, How: "stopped"},
			}, ""
		case st.Fence != nil:
			return nil, "its nodes have not proven it yet: " + st.Fence.Message
		}
		return nil, "its agent has not begun to stop it yet"
	}
	switch o.Action {
	case failover.Undo: // who holds the epoch runs again by himself
		return s.runsAgain(ctx, o)
	case failover.Look:
		answer, why := look(ctx)
		if answer == nil {
			return execute.Answer{Outcome: failover.NotDone, Asked: heard, Note: why}
		}
		answer.Asked = heard
		return *answer
	}
	answer := s.await(ctx, look)
	answer.Asked = heard
	return answer
}

// unheard says what a site's agent does not know yet of an epoch, or has not followed yet.
func unheard(st v1alpha1.ApplicationStatus, epoch int64) string {
	if st.Epoch < epoch {
		return fmt.Sprintf("its agent has seen epoch %d, not %d yet", st.Epoch, epoch)
	}
	return fmt.Sprintf("its agent has seen epoch %d, and the application is %s there still", st.Epoch, cmp.Or(string(st.Role), "not judged"))
}

// tellEvery is how long an application that does not run again yet is waited for, before
// whoever rolls back is told what it waits for.
const tellEvery = 10 * time.Second

// runsAgain says whether the application, which a run has given back, runs here again: its
// agent knows the epoch, no node stops it, and what was started is ready. Until then it says
// what is waited for.
func (s *site) runsAgain(ctx context.Context, o execute.Order) execute.Answer {
	within := tellEvery
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)/2) // the answer takes its time, too
	}
	soon, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	heard := false
	answer := s.await(soon, func(ctx context.Context) (*execute.Answer, string) {
		app, err := s.application(ctx, o.Step.Application)
		if errors.Is(err, errNone) {
			refused := execute.Refuse("%v: whether it runs there, nobody watches", err)
			return &refused, ""
		}
		if err != nil {
			return nil, err.Error()
		}
		heard = true
		return s.back(ctx, app, o)
	})
	answer.Asked = heard
	return answer
}

// back says that an application runs here again; nil: not yet, and why.
func (s *site) back(ctx context.Context, app *v1alpha1.Application, o execute.Order) (*execute.Answer, string) {
	st, epoch := app.Status, o.Token.Epochs[o.Step.Application]
	held := otherHolders(app, o.Run)
	var answer execute.Answer
	switch {
	case st.Epoch > epoch && st.Role != v1alpha1.RoleActive:
		answer = execute.Superseded("site %s holds epoch %d of %s", st.EpochSite, st.Epoch, o.Step.Application)
		return &answer, ""
	case st.Epoch < epoch || st.Role != v1alpha1.RoleActive:
		return nil, unheard(st, epoch)
	case len(held) > 0:
		answer = execute.Done("run %s holds it at rest", strings.Join(held, ", "))
		return &answer, ""
	case st.Rest != nil && len(st.Rest.Waits) > 0:
		return nil, strings.Join(st.Rest.Waits, "; ")
	case st.Rest != nil && st.Rest.Refused == "" && len(st.Rest.Unready) == 0:
		return nil, "its agent has not started it again yet"
	}
	var reports v1alpha1.NodeFenceList
	if err := s.Client.List(ctx, &reports, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		return nil, fmt.Sprintf("list what nodes say: %v", err)
	}
	if keepers := lifting.Keepers(reports.Items, o.Step.Application, s.Now()); len(keepers) > 0 {
		return nil, strings.Join(keepers, "; ")
	}
	answer = execute.Done("it runs again at %s", s.Site)
	if st.Rest != nil && len(st.Rest.Unready) > 0 {
		const most = 20 // names in a journal
		named := st.Rest.Unready[:min(len(st.Rest.Unready), most)]
		answer.Note += ", and is as little ready as before: " + strings.Join(named, "; ")
		if more := len(st.Rest.Unready) - len(named); more > 0 {
			answer.Note += fmt.Sprintf("; and %d more", more)
		}
	}
	return &answer, ""
}

// otherHolders are the runs besides this one that hold an application at rest.
func otherHolders(app *v1alpha1.Application, run string) []string {
	return slices.DeleteFunc(app.HeldBy(), func(other string) bool { return other == run })
}

// demote has nothing to do but to see that the application rests: no storage
// that is moved by recovery points writes by itself.
func (s *site) demote(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("")
	}
	app, err := s.application(ctx, o.Step.Application)
	switch {
	case err != nil:
		return failed(err)
	case app.Status.Rest != nil && app.Status.Rest.Stopped:
		return execute.Done("its volumes are moved by recovery points, and are at rest")
	case o.Action == failover.Look:
		return execute.NotDone("it does not rest")
	}
	return execute.Unknown("it does not rest")
}
