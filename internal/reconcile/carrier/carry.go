package carrier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/drill"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/kube/permit"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/orders"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/vault"
)

// DefaultAccount is with whose rights runs are carried whose plan names nobody.
const DefaultAccount = "davit-restore"

// retryAfter is how long what failed is left alone.
const retryAfter = 5 * time.Second

// errGone says that an order was called off, or refused already.
var errGone = errors.New("the order stands no more")

// take lets a goroutine carry the run, as soon as nobody else does.
func (d *desk) take(ctx context.Context, f *followed) {
	f.carried = make(chan struct{})
	f.again = d.c.Now().Add(tick)
	work := work{c: d.c, vault: d.vault, project: d.project, run: f.run, plan: f.plan, order: f.order}
	done := f.carried
	d.working.Go(func() {
		defer close(done)
		err := work.do(ctx, f)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, standby.ErrCarried):
			f.stuck.Store(nil)
		case errors.Is(err, execute.ErrDeposed):
			d.c.Log.Info("runs: another carries on", "vault", d.vault, "run", f.run)
			f.stuck.Store(nil)
			pause(ctx, retryAfter)
		case errors.Is(err, errGone):
			d.c.Log.Info("runs: order stands no more", "vault", d.vault, "run", f.run)
			f.refused.Store(true)
		case commission.Refused(err) != nil:
			d.c.refuse(ctx, work.order, err)
			f.refused.Store(true)
		default:
			d.c.Log.Warn("runs: carry", "vault", d.vault, "run", f.run, "error", err)
			d.c.waits(ctx, f, work.order, err)
			f.cannot(err)
			pause(ctx, retryAfter)
		}
	})
}

// cannot notes why the run is not carried here, where it should be.
func (f *followed) cannot(why error) {
	text := "this agent cannot carry it, and tries again: " + why.Error()
	if old := f.stuck.Load(); old == nil || (*old)[0] != text {
		f.stuck.Store(&[]string{text})
	}
}

// work is one try to carry a run.
type work struct {
	c       *Carrier
	vault   string
	project *vault.Project
	run     string
	plan    string
	order   *v1alpha1.Run // of a run that may not have begun
}

// do carries the run until it is over. An order that has no journal yet is opened.
func (w *work) do(ctx context.Context, f *followed) error {
	account := DefaultAccount
	found, err := plans.Find(ctx, w.c.Client, w.project, w.plan)
	switch {
	case err == nil:
		account = cmp.Or(found.Object.Spec.ServiceAccountName, account)
	case errors.Is(err, plans.ErrUnknown) && w.order != nil:
		return commission.Refuse("`plan ls` lists those that there are", "neither this cluster nor the vault %s has a plan %q", w.vault, w.plan)
	case errors.Is(err, plans.ErrUnknown): // of a file
	default:
		return err
	}
	target, err := w.c.Target(ctx, w.vault, account)
	if err != nil {
		return err
	}
	held, release, err := target.Hold(ctx, w.run, w.c.Process)
	if err != nil {
		return err
	}
	defer release()
	m, j, err := w.machine(held, target, found)
	if err != nil || m == nil {
		return err
	}
	s, err := execute.New(execute.Options{
		Run: w.run, Machine: m, Journal: j, Survey: target, Log: w.c.Log, Requests: w.requests(m.Spec(), m.State().Facts),
		Actuator: execute.Sites{Here: map[string]execute.Actuator{w.c.Site: target.Kinds()}, Elsewhere: orders.Sender{Project: w.project}},
		Watch: func(_ *failover.State, waits []string) {
			f.stuck.Store(nil)
			if old := f.waits.Load(); old == nil || !slices.Equal(*old, waits) {
				f.waits.Store(&waits)
			}
		},
	}).Run(held)
	if err != nil {
		return err
	}
	if _, err := evidence.Publish(ctx, w.project, w.run); err != nil { // it can be made later
		w.c.Log.Warn("runs: report", "vault", w.vault, "run", w.run, "error", err)
	}
	return register.New(w.project).End(ctx, s)
}

// requests are what people want of the run, as far as they may. A drill makes way
// for other runs, too.
func (w *work) requests(s failover.Spec, facts failover.Facts) execute.Requests {
	people := permit.Requests{Requests: mailbox.New(w.project), Client: w.c.Client, Plan: w.plan, Steps: s.Steps}
	if s.Verb != plan.Drill {
		return people
	}
	y := &drill.Yield{Requests: people, Project: w.project, Apps: s.Applications, Epochs: map[string]int64{}}
	for app, held := range facts.Epochs {
		y.Epochs[app] = held.Number
	}
	return y
}

// machine is that of the run as its journal says, or of a new one. Nil: there is
// nothing to carry.
func (w *work) machine(ctx context.Context, target Target, found plans.Found) (*failover.Machine, *journal.Journal, error) {
	j, state, err := journal.Open(ctx, w.project, w.run, w.c.Process)
	switch {
	case err == nil && state.Phase.Over():
		return nil, nil, register.New(w.project).End(ctx, state)
	case err == nil && state.Spec.To != w.c.Site:
		return nil, nil, nil
	case err == nil:
		w.c.Log.Info("runs: take over", "vault", w.vault, "run", w.run, "from", state.Executor)
		return failover.TakeOver(w.c.Process, state), j, nil
	case !errors.Is(err, vault.ErrNotFound) || w.order == nil:
		if errors.Is(err, vault.ErrNotFound) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	spec, err := w.spec(ctx, target, found)
	if err != nil {
		return nil, nil, err
	}
	m, err := failover.New(w.c.Process, *spec)
	if err != nil {
		return nil, nil, commission.Refuse("", "%v", err)
	}
	if err := w.wanted(ctx); err != nil {
		return nil, nil, err
	}
	if err := register.New(w.project).Begin(ctx, *spec); err != nil {
		return nil, nil, err
	}
	w.c.Log.Info("runs: begin", "vault", w.vault, "run", w.run, "plan", spec.Plan, "verb", spec.Verb)
	return m, journal.Create(w.project, w.run, w.c.Process), nil
}

// wanted tells whether the order still stands: the cache may not know yet that it
// was called off or refused.
func (w *work) wanted(ctx context.Context) error {
	var o v1alpha1.Run
	err := w.c.Reader.Get(ctx, client.ObjectKey{Name: w.order.Name}, &o)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("read Run %s again: %w", w.order.Name, err)
	case err != nil, o.UID != w.order.UID, !o.DeletionTimestamp.IsZero(), o.Status.Phase != "":
		return errGone
	}
	return nil
}

// spec is what an order asks for; a Refusal says why it cannot be.
func (w *work) spec(ctx context.Context, target Target, found plans.Found) (*failover.Spec, error) {
	o := w.order
	within := StartWithin
	if o.Labels[v1alpha1.LabelDeclared] == "true" {
		within = DeclaredWithin
	}
	if age := w.c.Now().Sub(o.CreationTimestamp.Time); age > within {
		return nil, commission.Refuse("create another, if it is still wanted", "nobody took the order up within %s", within)
	}
	p := found.Plan()
	ask := commission.Ask{
		Run: o.Name, Verb: plan.Verb(o.Spec.Verb), To: o.Spec.To, By: o.Spec.RequestedBy, Reason: o.Spec.Reason, At: o.CreationTimestamp.Time, Lost: o.Spec.Lost,
	}
	if o.Spec.AcceptFence == v1alpha1.AcceptAsked {
		ask.Accept = failover.Asked
	}
	if names := o.Annotations[commission.AnnotationDespite]; names != "" {
		ask.Despite = strings.Split(names, ",")
	}
	if o.Spec.LostAt != nil {
		ask.LostAt = o.Spec.LostAt.Time
	}
	points, err := w.points(ctx, p, o)
	if err != nil {
		return nil, err
	}
	ask.Points = points
	spec, err := commission.Spec(p, ask)
	if err != nil {
		return nil, err
	}
	under, err := register.New(w.project).States(ctx, spec.Plan, o.Name)
	if err != nil {
		return nil, err
	}
	if err := commission.Conflict(spec, under); err != nil {
		return nil, err
	}
	facts, err := target.Evaluate(ctx, *spec)
	if err != nil {
		return nil, err
	}
	if err := commission.Undivided(facts); err != nil {
		return nil, err
	}
	if len(facts.Problems) > 0 {
		return nil, commission.Refuse("solve that, and order another run", "nothing was changed: %s", strings.Join(facts.Problems, "; "))
	}
	if o.Labels[v1alpha1.LabelDeclared] == "true" {
		declared, err := commission.ReadDeclared(o.Annotations[v1alpha1.AnnotationDeclared])
		if err != nil {
			return nil, err
		}
		if err := declared.Still(spec, facts); err != nil {
			return nil, err
		}
	}
	if spec.From, err = commission.From(p, spec, facts); err != nil {
		return nil, err
	}
	return spec, w.foreseen(ctx, p, spec)
}

// foreseen refuses what a check says would not work. What cannot be looked at now
// the run sees for itself.
func (w *work) foreseen(ctx context.Context, p *plan.Plan, spec *failover.Spec) error {
	if w.c.Foresee == nil || !commission.Heeds(spec.Verb) {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, foreseePatience)
	defer cancel()
	findings, err := w.c.Foresee(limited, w.vault, p, spec.Verb)
	if err != nil && ctx.Err() == nil {
		w.c.Log.Warn("runs: look ahead", "vault", w.vault, "run", w.run, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	return commission.Foreseen(spec, findings)
}

// points are those that the order chooses.
func (w *work) points(ctx context.Context, p *plan.Plan, o *v1alpha1.Run) (map[string]failover.Point, error) {
	drills := o.Spec.Verb == v1alpha1.PlanVerb(plan.Drill) // which settles its points first: who takes it over takes the same
	if len(o.Spec.Points) == 0 && o.Spec.AsOf == nil && !drills {
		return nil, nil
	}
	reader := protection.New(protection.Options{Project: w.project, Site: w.c.Site, Now: w.c.Now})
	chosen := map[string]failover.Point{}
	for _, app := range p.Applications {
		id := string(o.Spec.Points[app.Name])
		if id == "" && o.Spec.AsOf == nil && !drills {
			continue
		}
		_, all, err := reader.Points(ctx, app.Name)
		if err != nil {
			return nil, err
		}
		got, ok := choose(all, id, o)
		if !ok {
			return nil, commission.Refuse(fmt.Sprintf("`points %s` lists them", app.Name), "%s has no recovery point %s that may be offered", app.Name, id)
		}
		chosen[app.Name] = failover.Point{ID: got.ID, Instant: got.Instant}
	}
	return chosen, nil
}

func choose(all []point.Point, id string, o *v1alpha1.Run) (point.Point, bool) {
	if id == "" {
		var asOf time.Time
		if o.Spec.AsOf != nil {
			asOf = o.Spec.AsOf.Time
		}
		return point.Newest(all, asOf)
	}
	i := slices.IndexFunc(all, func(p point.Point) bool { return p.ID == id })
	if i < 0 {
		return point.Point{}, false
	}
	return all[i], true
}
