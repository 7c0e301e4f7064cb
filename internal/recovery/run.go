package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// recovery is one run of the use case.
type recovery struct {
	opts     Options
	deps     Deps
	report   Report
	catalog  *catalog
	manifest *point.Manifest
	rules    *transform.Set
	mirror   *transform.Mirror
	engine   *restore.Engine
	extra    []restore.Problem // warnings besides the engine's
	// reads says that the point is to be kept while it is read; session keeps it.
	reads   bool
	session *reading.Session
	// brought says that the documents are there; unprotected why not.
	brought     bool
	unprotected error
	// free says that no node here would stop what starts.
	free bool
	// contested says that a run is about to claim the application from this site.
	contested bool
}

// Recover brings an application back. The report is filled as far as it came,
// also when there is an error. An error means that the recovery was refused or
// stopped; objects that failed are in the report, whose phase is Failed then.
func Recover(ctx context.Context, opts Options, deps Deps) (Report, error) {
	r := begin(opts, deps)
	r.reads = true
	err := r.run(ctx)
	r.letGo(ctx, err)
	return r.finish(err), err
}

// Plan says what Recover would do, object by object, and changes nothing. The
// findings of preflight are in the report; they are no error.
func Plan(ctx context.Context, opts Options, deps Deps) (Report, error) {
	r := begin(opts, deps)
	err := r.plan(ctx)
	r.report.FinishedAt = r.deps.Now()
	r.report.Phase = v1alpha1.RestorePending
	if err != nil {
		r.report.Error = err.Error()
	}
	return r.report, err
}

// Check does what comes before Recover changes anything: it chooses the point,
// applies the rules and has the target looked at. What forbids the recovery is
// an error, or a blocking finding of the report.
func Check(ctx context.Context, opts Options, deps Deps) (Report, error) {
	r := begin(opts, deps)
	err := r.prepare(ctx)
	r.report.FinishedAt = r.deps.Now()
	return r.report, err
}

func begin(opts Options, deps Deps) *recovery {
	if opts.Mode == "" {
		opts.Mode = v1alpha1.RestoreInPlace
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Clock == nil {
		deps.Clock = callersClock{now: deps.Now}
	}
	deps.Now = deps.Clock.Now
	if deps.Progress == nil {
		deps.Progress = restore.Silent{}
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	r := &recovery{opts: opts, deps: deps}
	r.report = Report{
		Application: opts.Application, Mode: opts.Mode, Site: deps.Site,
		Phase: v1alpha1.RestoreRunning, StartedAt: deps.Now(),
	}
	return r
}

func (r *recovery) plan(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	plan, err := r.engine.Plan(ctx)
	for i := range plan {
		if !r.opts.Diff {
			plan[i].Diff = ""
		}
	}
	r.report.Plan = plan
	if err != nil || !r.opts.Order {
		return err
	}
	drawing, err := r.engine.Order(ctx)
	r.report.Order = &drawing
	return err
}

// prepare does everything that changes nothing: choose, apply the rules, check.
func (r *recovery) prepare(ctx context.Context) error {
	if err := r.timed(StepChoose, func() error { return r.choose(ctx) }); err != nil {
		return err
	}
	if err := r.compileRules(ctx); err != nil {
		return err
	}
	if err := r.keepPoint(ctx); err != nil {
		return err
	}
	r.engine = restore.New(r.manifest, r.engineOptions(), restore.Deps{
		Source: source{r.deps.Project}, Cluster: r.cluster(), Leases: r.deps.Own, Volumes: r.deps.Volumes,
		Progress: r.deps.Progress, Clock: r.deps.Clock, Log: r.deps.Log,
	})
	return r.timed(StepPreflight, func() (err error) {
		r.report.Findings, err = r.engine.Preflight(ctx)
		if errors.Is(err, vault.ErrDamaged) || errors.Is(err, vault.ErrNotFound) {
			return fmt.Errorf("%w, nothing was changed: the point is not whole in the vault, choose another: %w", ErrPreflight, err)
		}
		if err != nil {
			return fmt.Errorf("preflight: %w", err)
		}
		r.report.Findings = append(r.report.Findings, r.checkMirror(ctx)...)
		return nil
	})
}

// Blocked is ErrPreflight if findings forbid a recovery, and says why.
func Blocked(findings []restore.Finding) error {
	if bad := restore.Blocking(findings); len(bad) > 0 {
		return fmt.Errorf("%w, nothing was changed: %s%s", ErrPreflight, bad[0], more(len(bad)-1))
	}
	return nil
}

func (r *recovery) run(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if err := Blocked(r.report.Findings); err != nil {
		return err
	}
	before := r.steps()
	result, err := r.engine.RunAfter(ctx, r.beforeObjects)
	r.report.Result = result
	r.merge(before, result.Steps)
	if err != nil {
		return fmt.Errorf("restore %s: %w", r.manifest.ID, err)
	}
	if r.opts.To != sequence.Whole {
		return nil // the rest is still to come, the documents with it
	}
	r.protect(ctx) // again, where it could not be done before anything ran
	if r.unprotected != nil {
		r.warn("", "the application is neither protected nor fenced here yet: %v: restore again, or run davit protect", r.unprotected)
	}
	if result.Failed == 0 {
		r.letCapture(ctx)
	}
	return nil
}

// beforeObjects runs once the lease is held and before the first object is
// written.
func (r *recovery) beforeObjects(ctx context.Context) error {
	if err := r.holdCaptures(ctx); err != nil {
		return err
	}
	if r.opts.Ahead {
		return r.stillWriter(ctx) // whoever that is: it is not this site
	}
	if r.opts.Mode != v1alpha1.RestoreTakeOver {
		return nil
	}
	return r.timed(StepClaim, func() error { return r.claim(ctx) })
}

func more(n int) string {
	if n < 1 {
		return ""
	}
	return fmt.Sprintf(" (and %d more findings)", n)
}

// choose settles the point and applies the rules of epochs.
func (r *recovery) choose(ctx context.Context) (err error) {
	if r.deps.Project.IsCopy() && r.opts.Mode != v1alpha1.RestoreClone {
		return fmt.Errorf("%w: this is a second copy of a vault, which says nothing of who runs %s now: restore it as a clone (--as-clone), or from the first vault", ErrRefused, r.opts.Application)
	}
	if r.catalog, err = readCatalog(ctx, r.deps.Project, r.opts.Application); err != nil {
		return err
	}
	current := r.catalog.current()
	r.report.PreviousEpoch, r.report.Epoch, r.report.EpochSite = current.Number, current.Number, current.Claim.Site
	if r.manifest, err = r.catalog.choose(r.opts); err != nil {
		return err
	}
	m := r.manifest
	r.report.Point, r.report.Instant, r.report.Consistency, r.report.SourceSite = m.ID, m.Instant, m.Consistency, m.Site
	r.report.RPO = max(r.report.StartedAt.Sub(m.Instant), 0)
	if ahead := m.Instant.Sub(r.report.StartedAt); ahead > vault.SafeSkew {
		r.warn("", "the point was taken %s after now by this site's clock: its clock and that of site %s differ, and the RPO is not known: mend time synchronisation", ahead.Round(time.Second), m.Site)
	}
	r.report.RestoreID = shape.ID(m.ID, string(r.opts.Mode), r.opts.NamespaceMapping)
	if err := r.checkSeen(); err != nil {
		return err
	}
	if err := checkMode(r.opts, m, current, r.self()); err != nil {
		return err
	}
	if r.opts.Mode == v1alpha1.RestoreTakeOver && !r.self().Made(current.Claim) {
		return r.ownName(ctx)
	}
	return nil
}

func (r *recovery) engineOptions() restore.Options {
	opts := restore.Options{
		ID: r.report.RestoreID, Holder: r.deps.Holder,
		NamespaceMapping: r.opts.NamespaceMapping, StorageClassMapping: r.opts.StorageClassMapping,
		Transforms: r.rules,
		Existing:   restore.Existing(r.opts.Existing), ExistingKinds: policies(r.opts.ExistingKinds),
		KeepClaims: r.opts.Mode == v1alpha1.RestoreInPlace, Captured: capture.Captured,
		PreserveNodePorts: r.preserveNodePorts(), GitOps: gitops.Mode(r.opts.GitOps),
		IncludeKinds: r.opts.IncludeKinds, ExcludeKinds: r.opts.ExcludeKinds,
		RestoreStatusOf: r.opts.RestoreStatusOf, ReadyTimeout: r.opts.ReadyTimeout,
		AcceptFuzzy: r.opts.AcceptFuzzy, Workers: r.opts.Workers, To: r.opts.To,
		Activate: r.activate, Still: r.stillWriter, NewNamespaces: r.opts.NewNamespaces && r.opts.Mode == v1alpha1.RestoreClone,
	}
	if r.opts.Again {
		opts.Again = cmp.Or(r.opts.Attempt, r.report.StartedAt.UTC().Format(time.RFC3339Nano))
	}
	if r.opts.Team {
		opts.ExcludeKinds = append(slices.Clone(opts.ExcludeKinds), clusterScoped(r.manifest)...)
	}
	if r.opts.Isolation != nil {
		opts.Isolation = &r.opts.Isolation.Isolation
	}
	return opts
}

// clusterScoped are the kinds of a point that no namespace holds.
func clusterScoped(m *point.Manifest) []string {
	var kinds []string
	for _, res := range m.Resources {
		if res.Namespaced {
			continue
		}
		kinds = append(kinds, strings.TrimSuffix(res.Resource+"."+res.Group, "."))
	}
	return kinds
}

func policies(kinds map[string]v1alpha1.ExistingPolicy) map[string]restore.Existing {
	all := make(map[string]restore.Existing, len(kinds))
	for pattern, policy := range kinds {
		all[pattern] = restore.Existing(policy)
	}
	return all
}

// preserveNodePorts keeps them unless asked otherwise: load balancers outside
// the cluster point at them. A clone would take them from the original.
func (r *recovery) preserveNodePorts() bool {
	if r.opts.NodePorts == "" {
		return r.opts.Mode != v1alpha1.RestoreClone
	}
	return r.opts.NodePorts == v1alpha1.NodePortPreserve
}

// self is who claims.
func (r *recovery) self() lease.Identity {
	return lease.Identity{Site: r.deps.Site, Cluster: r.deps.ClusterID}
}

// ownName refuses a take-over under a name that another cluster bears.
func (r *recovery) ownName(ctx context.Context) error {
	err := lease.CheckName(ctx, r.deps.Project, r.self())
	if errors.Is(err, lease.ErrNameTaken) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// claim makes this site the one writer. Preflight has passed and the lease is
// held; no object has been written yet. A restore that is continued finds its
// own claim and goes on.
func (r *recovery) claim(ctx context.Context) error {
	fresh, err := readCatalog(ctx, r.deps.Project, r.opts.Application)
	if err != nil {
		return err
	}
	current := fresh.current()
	if current.Number > 0 && r.self().Made(current.Claim) {
		if returned, err := r.returned(ctx); err != nil {
			return err
		} else if current.Number > returned && (!r.contested || current.Number > r.catalog.current().Number) || r.attempted(current) {
			r.claimed(current)
			return nil
		}
	}
	if err := r.ownName(ctx); err != nil {
		return err
	}
	if old, superseded := r.supersededAttempt(fresh.history); superseded {
		return fmt.Errorf("%w: this take-over won epoch %d, and %s has taken over since, with epoch %d: it is not carried out a second time; to take over again, order it anew",
			ErrRefused, old.Number, r.self().Name(current.Claim), current.Number)
	}
	if current.Number != r.catalog.current().Number { // and so checkSeen holds still
		return fmt.Errorf("%w: %s claimed epoch %d while this restore was being prepared: look again", ErrRefused, r.self().Name(current.Claim), current.Number)
	}
	if newest, ok := point.Newest(fresh.points, time.Time{}); ok && r.opts.Point == "" && r.opts.AsOf.IsZero() && newest.Instant.After(r.manifest.Instant) {
		r.warn("", "the newer point %s appeared while this one was being prepared: is the source still alive?", newest.ID)
	}
	if err := r.hold(ctx, fresh.history, current.Number+1); err != nil {
		return err
	}
	epoch, err := lease.New(r.deps.Project).Claim(ctx, r.opts.Application, current.Number+1, lease.Claim{
		Site: r.deps.Site, Cluster: r.deps.ClusterID, Holder: r.deps.Holder, Reason: "take-over from " + r.manifest.ID,
		At:       r.deps.Now(),
		Accepted: point.Accepted(fresh.points, lease.Summaries(fresh.history)),
		Request:  cmp.Or(r.opts.Attempt, r.report.RestoreID),
	})
	if err != nil {
		return errClaim(err)
	}
	r.claimed(epoch)
	return nil
}

func (r *recovery) claimed(epoch lease.Epoch) {
	r.report.Epoch = epoch.Number
	if before := r.catalog.current(); before.Number > 0 && !r.self().Made(before.Claim) {
		r.report.Fence = "asked"
	}
	r.deps.Log.Info("epoch held", "application", r.opts.Application, "epoch", epoch.Number)
}

func (r *recovery) warn(object, format string, args ...any) {
	r.extra = append(r.extra, restore.Problem{Object: object, Message: fmt.Sprintf(format, args...)})
}

// timed runs one step of the use case and records its time.
func (r *recovery) timed(name string, f func() error) error {
	start := r.deps.Now()
	r.deps.Progress.StepStarted(name)
	err := f()
	r.deps.Progress.StepFinished(name, err)
	end := r.deps.Now()
	s := restore.Step{Name: name, StartedAt: start, FinishedAt: end, Duration: end.Sub(start)}
	if err != nil {
		s.Message = err.Error()
	}
	r.report.Steps = append(r.report.Steps, s)
	return err
}

func (r *recovery) steps() int { return len(r.report.Steps) }

// merge puts the use case's steps between the engine's: the claim, which ran
// once the engine held its lease, and the documents, before what may run.
func (r *recovery) merge(before int, engine []restore.Step) {
	own := append([]restore.Step(nil), r.report.Steps[before:]...)
	steps := r.report.Steps[:before:before]
	for _, s := range engine {
		for len(own) > 0 && own[0].StartedAt.Before(s.StartedAt) {
			steps, own = append(steps, own[0]), own[1:]
		}
		steps = append(steps, s)
		if s.Name == restore.StepLease && len(own) > 0 && own[0].Name == StepClaim {
			steps, own = append(steps, own[0]), own[1:]
		}
	}
	r.report.Steps = append(steps, own...)
}

// callersClock tells the caller's time and sleeps by the machine's.
type callersClock struct {
	port.WallClock
	now func() time.Time
}

// Now implements restore.Clock.
func (c callersClock) Now() time.Time { return c.now() }

// finish folds everything into the phase and the measured times.
func (r *recovery) finish(err error) Report {
	rep := &r.report
	rep.FinishedAt = r.deps.Now()
	rep.Result.Warnings = append(rep.Result.Warnings, r.extra...)
	if rep.Result.Ready {
		for _, s := range rep.Steps {
			if s.Name == restore.StepReady {
				rep.RTO = s.FinishedAt.Sub(rep.StartedAt)
			}
		}
	}
	switch {
	case err != nil:
		rep.Phase, rep.Error = v1alpha1.RestoreFailed, err.Error()
	case rep.Result.Failed > 0:
		rep.Phase = v1alpha1.RestoreFailed
		rep.Error = fmt.Sprintf("%d objects could not be restored: solve what is named and restore again, it continues", rep.Result.Failed)
	case len(rep.Result.Warnings) > 0 || len(rep.Findings) > 0:
		rep.Phase = v1alpha1.RestoreWarned
	default:
		rep.Phase = v1alpha1.RestoreCompleted
	}
	return *rep
}

// Refused tells whether an error came before anything was changed.
func Refused(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrPreflight) || errors.Is(err, ErrNoPoint) || errors.Is(err, ErrBusy)
}
