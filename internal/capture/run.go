package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/selection"
)

const (
	defaultWorkers       = 8
	defaultVolumeWorkers = 4
	releaseTimeout       = 2 * time.Minute
	maxWarnings          = 1000 // in the manifest; the log has the same bound
)

func (o Options) withDefaults() Options {
	o.Workers = cmp.Or(max(o.Workers, 0), defaultWorkers)
	o.VolumeWorkers = cmp.Or(max(o.VolumeWorkers, 0), defaultVolumeWorkers)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return o
}

// run is one capture.
type run struct {
	stop  context.CancelCauseFunc // ends the reading of objects
	spec  Spec
	ports Ports
	opts  Options

	catalog Catalog
	needs   *needs
	writers *writers
	plans   map[string]VolumePlan // by claim
	cuts    map[string]Cut        // by claim
	groups  map[string]string     // classes of group snapshots, by driver
	rest    *quiesce.Quiescence
	covered *selection.Cover // nil where the whole of the namespaces is captured
	left    set              // claims whose data a rule leaves out
	going   set              // chosen namespaces that are being deleted
	base    set              // claims, and classes of groups, whose cuts the next capture can be compared with
	whole   bool             // all of it is captured
	looking bool             // nothing is captured: see Look
	flushed time.Time        // until when the volumes were flushed before they were cut; zero: not known

	mu      sync.Mutex
	res     Result
	dropped int64 // warnings above the bound
}

func newRun(spec Spec, ports Ports, opts Options) *run {
	return &run{
		spec: spec, ports: ports, opts: opts, needs: newNeeds(),
		writers: newWriters(ports.Sink),
		plans:   map[string]VolumePlan{}, cuts: map[string]Cut{}, left: set{}, going: set{}, base: set{},
	}
}

// capture is the whole of it, in order. Whatever was made in the cluster is
// released on every way out.
func (r *run) capture(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	defer r.release(ctx)
	if err := r.window(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.objects(gctx) })
	g.Go(func() error { return r.readVolumes(gctx) })
	err := g.Wait()
	if err == nil {
		err = r.checkClaims()
	}
	r.whole = err == nil
	return err
}

// prepare finds out what there is and whether it can be captured, while
// nothing has been changed.
func (r *run) prepare(ctx context.Context) error {
	r.step("discovering kinds")
	var err error
	if r.catalog, err = r.ports.Cluster.Catalog(ctx); err != nil {
		return fmt.Errorf("discover kinds: %w", err)
	}
	for group, err := range r.catalog.Broken {
		r.warn("", fmt.Sprintf("API group %s cannot be discovered; objects of it are not in this point: %v", group, err))
	}
	for _, complaint := range r.spec.Filter.unmatched(r.catalog.Kinds) {
		r.warn("", complaint)
	}
	if err := r.checkNamespaces(ctx); err != nil {
		return err
	}
	r.step("planning volumes")
	if err := r.findNeededClaims(ctx); err != nil {
		return err
	}
	claims, err := r.claims(ctx, "")
	if err != nil {
		return err
	}
	if err := r.plan(ctx, claims); err != nil {
		return err
	}
	if err := r.planGroups(ctx); err != nil {
		return err
	}
	rest := quiesce.Spec{Application: r.spec.Application, Namespaces: r.spec.Namespaces, Hooks: r.spec.Hooks, Own: r.ownPod}
	if len(r.plans) > 0 { // else there is nothing to bring to rest
		rest.Profile = r.spec.Profile
	}
	r.rest = quiesce.New(rest, quiesce.Ports{Runner: r.ports.Hooks, Ledger: r.ports.Ledger, Report: reporter{r}, Now: r.opts.Now})
	return r.rest.Find(ctx)
}

// checkNamespaces refuses named namespaces that are missing or going away: a
// point of them would be empty, and retention would prefer it to the good ones.
// Those that patterns and labels choose were there a moment ago; see keepNamespaces.
func (r *run) checkNamespaces(ctx context.Context) error {
	named := slices.Clone(r.spec.Namespaces)
	if err := r.findNamespaces(ctx); err != nil {
		return err
	}
	if len(r.spec.Namespaces) == 0 {
		return errors.New("application names no namespace")
	}
	var errs []error
	for _, name := range named {
		found := false
		err := r.list(ctx, Query{Kind: kindNamespace, Name: name}, func(o *unstructured.Unstructured) error {
			found = true
			if o.GetDeletionTimestamp() != nil {
				return fmt.Errorf("namespace %s is being deleted", name)
			}
			return nil
		})
		if err == nil && !found {
			err = fmt.Errorf("namespace %s does not exist: correct the Application's namespaces", name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// window is the time in which the application may be held still: from the
// first before-hook to the last after-hook, with nothing in it but the cuts.
func (r *run) window(ctx context.Context) (err error) {
	defer func() {
		err = errors.Join(err, r.rest.After(ctx))
		r.res.Hooks, r.res.Quiesce = r.rest.Outcome()
	}()
	if err := r.rest.Before(ctx); err != nil {
		return err
	}
	r.step("cutting volumes")
	r.res.Instant = r.opts.Now().UTC()
	if r.res.Revision, err = r.ports.Cluster.Revision(ctx); err != nil {
		return fmt.Errorf("read the cluster's revision: %w", err)
	}
	if err := r.keepNamespaces(ctx); err != nil {
		return err
	}
	if err := r.replan(ctx); err != nil {
		return err
	}
	if err := r.cutTogether(ctx); err != nil {
		return err
	}
	r.res.CutBy = r.opts.Now().UTC()
	r.rest.Check(ctx)
	return nil
}

// reporter makes the run what package quiesce tells.
type reporter struct{ r *run }

// Step implements quiesce.Reporter.
func (p reporter) Step(text string) { p.r.step(text) }

// Note implements quiesce.Reporter.
func (p reporter) Note(level, object, message string) { p.r.note(level, object, message) }

// Warn implements quiesce.Reporter.
func (p reporter) Warn(object, message string) { p.r.warn(object, message) }

// list calls fn with every object of a query, one at a time.
func (r *run) list(ctx context.Context, q Query, fn func(*unstructured.Unstructured) error) error {
	if q.Kind.Aggregated {
		q.Revision = ""
	}
	got, err := r.ports.Cluster.List(ctx, q, func(page []unstructured.Unstructured) error {
		for i := range page {
			if err := fn(&page[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", titleOf(q.Kind, q.Namespace, q.Name), err)
	}
	switch {
	case got.Late:
		r.warn(q.Kind.Name(), "was listed after the instant: the cluster no longer had its revision")
	case got.Split:
		r.warn(q.Kind.Name(), "was listed at two revisions: the cluster dropped the first one midway")
	}
	return nil
}

// step tells what is being done now.
func (r *run) step(text string) {
	r.opts.Logger.Debug("capture", "application", r.spec.Application, "point", r.spec.ID, "step", text)
	if r.opts.Progress != nil {
		r.opts.Progress(text)
	}
}

// warn notes something a person should know.
func (r *run) warn(object, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.res.Warnings) >= maxWarnings {
		r.dropped++
		return
	}
	r.res.Warnings = append(r.res.Warnings, point.Warning{Object: object, Message: message})
	r.res.Log = append(r.res.Log, LogLine{At: r.opts.Now().UTC(), Level: "warning", Object: object, Message: message})
}

// note writes a line into the log only.
func (r *run) note(level, object, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Log = append(r.res.Log, LogLine{At: r.opts.Now().UTC(), Level: level, Object: object, Message: message})
}

// finish completes the result.
func (r *run) finish(err error) (*Result, error) {
	if err != nil {
		r.note("error", "", err.Error())
	}
	if r.dropped > 0 {
		r.res.Warnings = append(r.res.Warnings, point.Warning{Message: fmt.Sprintf("%d more warnings were left out", r.dropped)})
	}
	r.res.Consistency = consistency(r.res.Volumes, r.res.Freeze)
	if q := r.res.Quiesce; q != nil && q.Held && r.res.Consistency == point.Crash {
		r.res.Consistency = point.Application
		for i := range r.res.Volumes {
			r.res.Volumes[i].Consistency = point.Application
		}
	}
	r.res.Images = r.needs.imageList()
	for _, v := range r.res.Volumes {
		r.res.Bytes += v.Snapshot.Bytes
	}
	slices.SortFunc(r.res.Volumes, func(a, b point.Volume) int {
		return strings.Compare(a.Namespace+"/"+a.Claim, b.Namespace+"/"+b.Claim)
	})
	return &r.res, err
}

// consistency is the promise of the volumes together, whatever the application
// did meanwhile.
func consistency(volumes []point.Volume, freeze *point.Freeze) point.Consistency {
	promises := []point.Consistency{point.Crash}
	if len(volumes) > 1 && (freeze == nil || !freeze.Held) {
		promises = append(promises, point.PerVolume)
	}
	for _, v := range volumes {
		promises = append(promises, v.Consistency)
	}
	return point.Weakest(promises...)
}
