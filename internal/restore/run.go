package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/flow"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/isolation"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/rehearse"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/vacancy"
)

// The engine's steps besides the ranks.
const (
	StepLease = "lease"
	StepRead  = "read point"
	StepReady = "ready"
	StepAgain = "tried again"
)

const lastLookTime = 10 * time.Second

// Run restores. An error says that the restore was stopped, and that the same
// restore may be started again; what went wrong with single objects is in the
// result, which is filled as far as the restore came.
func (e *Engine) Run(ctx context.Context) (Result, error) {
	return e.RunAfter(ctx, nil)
}

// RunAfter is Run, and calls before once the lease is held and before the
// first object is written. Its error stops the restore.
func (e *Engine) RunAfter(ctx context.Context, before func(context.Context) error) (Result, error) {
	err := e.run(ctx, before)
	e.abandon()
	e.leaveStopped()
	if err != nil && e.git != nil {
		look, cancel := lastLook(ctx)
		_ = e.resumeGit(look, false) // the error that ended the restore is told
		cancel()
	}
	if err != nil && expired(ctx) && len(e.latecomers) > 0 {
		slices.Sort(e.latecomers)
		err = fmt.Errorf("%w: %s", err, shape.Names(e.latecomers, 3))
	}
	return e.rec.Result(), err
}

func (e *Engine) run(ctx context.Context, before func(context.Context) error) error {
	if e.opts.ID == "" {
		return errors.New("restore: no id: see ID")
	}
	if err := e.timed(StepRead, func() error { return e.load(ctx) }); err != nil {
		return err
	}
	var lease *hold.Hold
	held := ctx
	err := e.timed(StepLease, func() (err error) {
		held, lease, err = hold.Take(ctx, e.holding())
		return err
	})
	if err != nil {
		return err
	}
	e.attempt = lease.Attempt()
	err = e.restore(held, before)
	lease.Release(ctx, err == nil && e.rec.Result().Failed == 0 && e.opts.To == sequence.Whole)
	return err
}

// holding keeps other restores of the application away.
func (e *Engine) holding() hold.Options {
	return hold.Options{
		Application: e.m.Application, Namespace: e.opts.LeaseNamespace, ID: e.opts.ID, Again: e.opts.Again, Holder: e.opts.Holder,
		Cluster: port.Retry(e.leases, e.clock), Bare: e.leases, Also: e.opts.Still, Clock: e.clock, Progress: e.progress, Log: e.log,
		MakeNamespace: func(ctx context.Context, name string) error {
			labels := shape.Document{shape.LabelManagedBy: "davit"}
			if e.opts.Isolation != nil {
				labels = shape.Document{shape.LabelRestore: e.opts.ID}
			}
			return e.createNamespace(ctx, name, labels)
		},
	}
}

// restore does what Run does while the lease is held.
func (e *Engine) restore(ctx context.Context, before func(context.Context) error) error {
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	if err := e.git.Suspend(ctx, e.gitStage(), e); err != nil {
		return stopped(ctx, err)
	}
	e.leaveOut()
	if err := e.flow(ctx); err != nil || e.opts.To != sequence.Whole {
		return stopped(ctx, err)
	}
	if err := e.prune(ctx); err != nil {
		return stopped(ctx, err)
	}
	return stopped(ctx, e.resumeGit(ctx, e.rec.Result().Failed == 0))
}

// stopped prefers the reason for which the context ended.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// expired tells whether the restore's time is over, and not that somebody
// stopped it or took its lease.
func expired(ctx context.Context) bool { return errors.Is(ctx.Err(), context.DeadlineExceeded) }

// lastLook is a short time after the end, in which to find out what was
// waited for in vain.
func lastLook(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), lastLookTime)
}

// outOfTime records why an object was not there when the time was over.
func (e *Engine) outOfTime(ctx context.Context, en *index.Entry, err error) {
	if !expired(ctx) {
		return // stopped: nothing is known of this object
	}
	e.failed(en, e.nameOf(en), err)
	e.late(e.nameOf(en) + ": " + err.Error())
}

// late remembers what the restore's error names when its time was over.
func (e *Engine) late(what string) {
	e.locked(func() { e.latecomers = append(e.latecomers, what) })
}

// load reads the index unless preflight has.
func (e *Engine) load(ctx context.Context) error {
	if e.x != nil {
		return nil
	}
	git, err := gitops.NewCensus(ctx, e.opts.GitOps, e.cluster)
	if err != nil {
		return err
	}
	e.git = git
	guard, err := e.guard(ctx)
	if err != nil {
		return err
	}
	x, err := index.Reader{Source: e.source, Manifest: e.m, LeftOut: e.leftOut, Git: e.countGit, Reshape: e.reshape, Unfit: guard.Unfit()}.Read(ctx)
	if err == nil {
		err = guard.Refusal()
	}
	if err == nil {
		e.x = x
		e.rec.Count(func(r *Result) { r.Unfit = guard.Left() })
		if e.order, err = sequence.Build(e.x); err == nil {
			_, e.levels = e.order.Levels()
		}
	}
	return err
}

// guard keeps an isolated copy off what is there; nil without isolation.
func (e *Engine) guard(ctx context.Context) (*isolation.Guard, error) {
	if e.opts.Isolation == nil {
		return nil, nil
	}
	return isolation.New(ctx, e.cluster, e.opts.StorageClassMapping)
}

// leftOut says why a kind is not restored at all, or nothing.
func (e *Engine) leftOut(res point.Resource) string {
	return shape.LeftOut(res, e.opts.IncludeKinds, e.opts.ExcludeKinds, e.opts.Isolation != nil)
}

// reshape is an object as it will be at the target. Where a rule fails it stays
// as it was: preflight says so.
func (e *Engine) reshape(i int, d shape.Document) shape.Document {
	changed := runtime.DeepCopyJSON(d)
	if e.shape(i, changed, nil) != nil {
		return d
	}
	return changed
}

// leaveOut counts what is not restored, and warns where a person should know.
func (e *Engine) leaveOut() {
	for i, res := range e.m.Resources {
		if why := e.leftOut(res); why != "" {
			e.left(e.x.Kinds[i].String()+" (all)", why)
			e.rec.Count(func(r *Result) { r.Objects += res.Count; r.Skipped += res.Count })
			continue
		}
		for _, en := range e.x.Entries[i] {
			e.rec.Count(func(r *Result) { r.Objects++ })
			if en.Skip == "" {
				continue
			}
			e.rec.Count(func(r *Result) { r.Skipped++ })
			e.left(e.nameOf(en), en.Skip)
			if en.Warn {
				e.rec.Warn(e.nameOf(en), "not restored: %s", en.Skip)
			}
		}
	}
}

// timed runs one step and records its time.
func (e *Engine) timed(name string, f func() error) error {
	start := e.clock.Now()
	e.progress.StepStarted(name)
	err := f()
	e.progress.StepFinished(name, err)
	end := e.clock.Now()
	s := Step{Name: name, StartedAt: start, FinishedAt: end, Duration: end.Sub(start)}
	if err != nil {
		s.Message = err.Error()
	}
	e.rec.Count(func(r *Result) { r.Steps = append(r.Steps, s) })
	return err
}

// each streams the wanted objects through at most so many workers.
func (e *Engine) each(ctx context.Context, workers int, want func(*index.Entry) bool, do func(context.Context, *index.Entry, []byte)) error {
	return flow.Flow{Index: e.x, Manifest: e.m, Source: e.source, Workers: workers}.Each(ctx, want, do)
}

// establish waits until the definitions are served.
func (e *Engine) establish(ctx context.Context) error {
	defs := served.Definitions{Cluster: e.cluster, Clock: e.clock}
	defs.Begin()
	for i, entries := range e.x.Entries {
		for _, en := range entries {
			if e.x.Kinds[i] != shape.KindCRD || en.Skip != "" || e.isUnmade(en) {
				continue
			}
			why, err := defs.Established(ctx, en.Name)
			if err != nil {
				return err
			}
			if why != nil {
				e.failed(en, e.nameOf(en), why)
			}
		}
	}
	var kinds []schema.GroupKind
	for _, i := range e.needed() {
		if len(e.x.Defined[e.x.Kinds[i]]) > 0 {
			kinds = append(kinds, e.x.Kinds[i])
		}
	}
	return defs.Await(ctx, kinds)
}

func (e *Engine) isUnmade(en *index.Entry) (yes bool) {
	e.locked(func() { yes = e.unmade[en.UID] })
	return yes
}

// targetNamespaces are all namespaces that objects go to, sorted.
func (e *Engine) targetNamespaces() []string {
	seen := map[string]bool{}
	for i, entries := range e.x.Entries {
		for _, en := range entries {
			if en.Skip != "" {
				continue
			}
			namespace, name := e.target(en)
			if e.x.Kinds[i] == shape.KindNamespace {
				namespace = name
			}
			if namespace != "" {
				seen[namespace] = true
			}
		}
	}
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// own refuses a namespace that is somebody else's, where only new ones will do.
// That is looked at after the namespace is there, whoever made it.
func (e *Engine) own(ctx context.Context, name string) error {
	if !e.opts.NewNamespaces || e.notes != nil {
		return nil
	}
	at, err := e.served(ctx, shape.KindNamespace)
	if err != nil {
		return err
	}
	return vacancy.Own(ctx, e.cluster, at, name, e.opts.ID)
}

// createNamespace makes a namespace unless it is there.
func (e *Engine) createNamespace(ctx context.Context, name string, labels shape.Document) error {
	at, err := e.served(ctx, shape.KindNamespace)
	if err != nil {
		return err
	}
	if live, err := e.cluster.Get(ctx, at, "", name); !apierrors.IsNotFound(err) {
		if err == nil && live.GetLabels()[shape.LabelRestore] == e.opts.ID { // made before this restore was killed
			e.locked(func() { e.ours[name] = true })
		}
		return err
	}
	d := shape.Document{"apiVersion": "v1", "kind": "Namespace", "metadata": shape.Document{"name": name, "labels": labels}}
	e.opts.Isolation.Mark(d)
	_, err = e.cluster.Create(ctx, at, &unstructured.Unstructured{Object: d})
	if err == nil && labels[shape.LabelRestore] != nil {
		e.locked(func() { e.ours[name] = true })
		e.notes.Note(rehearse.Restored, int(shape.RankNamespaces), Planned{Object: kindName(shape.KindNamespace, "", name), Action: report.Create, Reason: "for what is restored into it"})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
