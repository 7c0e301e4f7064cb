// Package drill is the target's side of drills: the plan's steps on clones of
// recovery points, in a sandbox of namespaces of their own. It makes nothing
// outside of the sandbox but what Davit notes for itself, claims no epoch, asks
// no other site, and moves no traffic.
//
// The sandbox's first namespace is made before anything else and says whose it
// is; clean-up removes all namespaces that bear the sandbox's name, and what
// filling their volumes left. Orders that come after it are refused.
package drill

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/probe"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/reason"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/transcript"
)

const look = 500 * time.Millisecond

// Namespace is one of a sandbox.
type Namespace struct {
	Name, Sandbox, Run string
	RestoreID          string
	Going              bool
}

// Cluster is where sandboxes are, with the rights of whoever drills.
type Cluster interface {
	probe.Cluster
	// Sandboxes lists the namespaces of all sandboxes.
	Sandboxes(ctx context.Context) ([]Namespace, error)
	// Enclose keeps the pods of namespaces to each other where the network
	// enforces that; nodes do so anyway.
	Enclose(ctx context.Context, namespaces []string) error
	// Clear deletes namespaces, and what filling their volumes left, and waits until
	// they are gone.
	Clear(ctx context.Context, all []Namespace) error
	// Open names a node that would not close the sandbox's pods in; empty: all do.
	Open(ctx context.Context) (string, error)
}

// Options are what a site drills with.
type Options struct {
	Recovery recovery.Deps
	Cluster  Cluster
	Marks    execute.Marks
	// Rehearse asks whether a name could be moved, and moves nothing; nil cannot.
	Rehearse func(ctx context.Context, step plan.Step, site string) (string, error)
}

// Site is this site as the target of drills.
type Site struct{ o Options }

// New makes it.
func New(o Options) *Site { return &Site{o} }

// Name is the name of a run's sandbox, as a label's value.
func Name(run string) string {
	sum := sha256.Sum256([]byte(run))
	return hex.EncodeToString(sum[:5])
}

// Home is the first namespace of a run's sandbox.
func Home(run string) string { return "davit-drill-" + Name(run) }

// Copy is the namespace that stands for another in a run's sandbox.
func Copy(run, namespace string) string {
	const most, kept = 63, 8
	name := Home(run) + "-" + namespace
	if len(name) > most {
		sum := sha256.Sum256([]byte(namespace))
		name = strings.TrimRight(name[:most-kept-1], "-") + "-" + hex.EncodeToString(sum[:kept/2])
	}
	return name
}

// Kinds are the actuators of a drill. Live are the site's own, for what a drill
// does as a move does: the plan's own commands and calls, which are told of the drill,
// and the probes of what no site runs.
func (s *Site) Kinds(live execute.Kinds) execute.Kinds {
	remembered := func(f execute.Func) execute.Actuator {
		return &execute.Aged{Inner: f, Marks: s.o.Marks, Blind: true, Again: true}
	}
	kinds := execute.Kinds{
		plan.KindSandbox: remembered(s.sandbox),
		plan.KindClone:   remembered(s.bring),
		plan.KindApply:   remembered(s.bring),
		plan.KindScale:   remembered(s.bring),
		plan.KindReady:   execute.Func(s.ready),
		plan.KindProbe:   execute.Func(s.probe),
		plan.KindDNS:     execute.Func(s.rehearse),
		plan.KindGate:    execute.Func(s.rehearse),
		plan.KindCleanup: remembered(s.cleanup),
	}
	for _, k := range []plan.Kind{plan.KindCommand, plan.KindHTTP, plan.KindInfra} {
		if inner, ok := live[k]; ok {
			kinds[k] = s.told(inner)
		}
	}
	if outside, ok := live[plan.KindOutside]; ok {
		kinds[plan.KindOutside] = outside
	}
	return kinds
}

// sandbox makes the sandbox's first namespace.
func (s *Site) sandbox(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("")
	}
	home := Home(o.Run)
	c := s.o.Recovery.Cluster
	at, err := c.Serves(ctx, shape.KindNamespace)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	marks := s.marks(o.Run)
	d := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": home, "labels": map[string]any{shape.LabelManagedBy: "davit"}},
	}}
	marks.Mark(d.Object)
	if _, err := c.Create(ctx, at[0], d); err != nil && !apierrors.IsAlreadyExists(err) {
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			return execute.Refuse("make namespace %s: %v", home, err)
		}
		return execute.Unknown("make namespace %s: %v", home, err)
	}
	if err := s.o.Cluster.Enclose(ctx, []string{home}); err != nil {
		return execute.Unknown("%v", err)
	}
	return execute.Done("namespaces %s and %s-*", home, home)
}

func (s *Site) marks(run string) *restore.Isolation {
	return &restore.Isolation{
		Home: Home(run), Labels: map[string]string{v1alpha1.LabelSandbox: Name(run)},
		Annotations: map[string]string{v1alpha1.AnnotationRun: run},
	}
}

// stages say how far a kind of step restores.
var stages = map[plan.Kind]sequence.Stage{
	plan.KindClone: sequence.Data, plan.KindApply: sequence.Objects, plan.KindScale: sequence.Whole,
}

// bring makes the clone, as far as the step says. Every part is the same
// restore, which continues.
func (s *Site) bring(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("the clean-up takes it away")
	}
	app := o.Step.Application
	point, err := s.point(ctx, o, app)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if point == "" && o.Step.Kind != plan.KindClone {
		return execute.Refuse("nothing says which recovery point the data of %s is from: do its data step first", app)
	}
	opts, err := s.cloning(ctx, o.Run, app, point)
	if err != nil {
		return failed(err)
	}
	opts.To, opts.ReadyTimeout = stages[o.Step.Kind], o.Patience()
	report, err := recovery.Recover(ctx, opts, s.o.Recovery)
	if err != nil {
		return failed(err)
	}
	if report.Result.Failed > 0 {
		return execute.Refuse("%d objects could not be cloned: %s", report.Result.Failed, some(report.Result.Failures))
	}
	note := ""
	if o.Step.Kind == plan.KindScale {
		note = some(report.Result.Warnings)
	}
	return execute.Answer{
		Outcome: failover.Done, Note: note, Guard: execute.Guarded, Point: &failover.Point{ID: report.Point, Instant: report.Instant},
	}
}

// point is the recovery point of an application's clone: that of the order, or
// the one that its data step took.
func (s *Site) point(ctx context.Context, o execute.Order, app string) (string, error) {
	if o.Point != nil {
		return o.Point.ID, nil
	}
	mark, err := s.o.Marks.Load(ctx, o.Run, "data/"+app)
	if err != nil || mark.Point == nil {
		return "", err
	}
	return mark.Point.ID, nil
}

// cloning are the options of a clone.
func (s *Site) cloning(ctx context.Context, run, app, id string) (recovery.Options, error) {
	opts := recovery.Options{Application: app, Point: id, Mode: v1alpha1.RestoreClone, NodePorts: v1alpha1.NodePortReassign}
	if id == "" {
		return opts, fmt.Errorf("%w: the drill names no recovery point of %s", recovery.ErrRefused, app)
	}
	var err error
	if opts.NamespaceMapping, err = s.mapping(ctx, run, app, id); err != nil {
		return opts, err
	}
	opts.Isolation = &recovery.Isolation{
		Isolation: *s.marks(run),
		Close: func(ctx context.Context) error {
			return s.o.Cluster.Enclose(ctx, slices.Sorted(maps.Values(opts.NamespaceMapping)))
		},
	}
	return opts, nil
}

// mapping is where the namespaces of a point go.
func (s *Site) mapping(ctx context.Context, run, app, id string) (map[string]string, error) {
	m, err := s.o.Recovery.Project.Manifest(ctx, app, id)
	if err != nil {
		return nil, err
	}
	mapping := map[string]string{}
	for _, ns := range m.Namespaces {
		mapping[ns] = Copy(run, ns)
	}
	return mapping, nil
}

// ready waits for the clone's workloads.
func (s *Site) ready(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("")
	}
	return s.until(ctx, o, func(ctx context.Context) (string, error) { return "", s.late(ctx, o) })
}

// late is what of the clone is not ready, as an error.
func (s *Site) late(ctx context.Context, o execute.Order) error {
	app := o.Step.Application
	id, err := s.point(ctx, o, app)
	if err != nil {
		return err
	}
	mapping, err := s.mapping(ctx, o.Run, app, id)
	if err != nil {
		return err
	}
	watch := reason.Watch{
		Finder: reason.Finder{Cluster: s.o.Recovery.Cluster}, ID: shape.ID(id, string(v1alpha1.RestoreClone), mapping), Kinds: reason.WaitedFor,
		Namespaces: slices.Sorted(maps.Values(mapping)),
	}
	lag, _, err := watch.Laggards(ctx, true)
	if err == nil && len(lag) > 0 {
		err = errors.New(lag[0].Object + ": " + lag[0].Why)
	}
	return err
}

// probe asks the clones. A look does not: what a look finds done is noted without
// its answers, and the report has to say what was not asked.
func (s *Site) probe(ctx context.Context, o execute.Order) execute.Answer {
	switch o.Action {
	case failover.Undo:
		return execute.Done("")
	case failover.Look:
		return execute.NotDone("")
	}
	where, err := s.namespaces(ctx, o)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	var said transcript.Tail // by the newest try
	answer := s.until(ctx, o, func(ctx context.Context) (string, error) {
		said = transcript.Tail{}
		asker := probe.Asker{Cluster: s.o.Cluster, To: func(ns string) (string, bool) { to, ok := where[ns]; return to, ok }, Said: &said}
		return asker.All(ctx, o.Step.Checks)
	})
	return answer.Saying(said.String())
}

// until tries something that changes nothing until it passes or time is up. A
// look tries once.
func (s *Site) until(ctx context.Context, o execute.Order, try func(context.Context) (string, error)) execute.Answer {
	for {
		answer, err := try(ctx)
		switch {
		case err == nil:
			return execute.Done("%s", answer)
		case o.Action == failover.Look:
			return execute.NotDone("%v", err)
		}
		select {
		case <-ctx.Done():
			return execute.Refuse("%v (tried for %s)", err, o.Step.Timeout)
		case <-time.After(look):
		}
	}
}

// namespaces are those of the sandbox, by what they stand for.
func (s *Site) namespaces(ctx context.Context, o execute.Order) (map[string]string, error) {
	all := map[string]string{}
	for app := range o.Token.Epochs {
		mark, err := s.o.Marks.Load(ctx, o.Run, "data/"+app)
		if err != nil {
			return nil, err
		}
		if mark.Point == nil {
			continue
		}
		mapping, err := s.mapping(ctx, o.Run, app, mark.Point.ID)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, mapping)
	}
	return all, nil
}

// told hands a step of the plan's own on, told that it is of a drill.
func (s *Site) told(inner execute.Actuator) execute.Actuator {
	return execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		where, err := s.namespaces(ctx, o)
		if err != nil {
			return execute.Unknown("%v", err)
		}
		var pairs []string
		for _, ns := range slices.Sorted(maps.Keys(where)) {
			pairs = append(pairs, ns+"="+where[ns])
		}
		if c := o.Step.Command; c != nil {
			told := *c
			told.Env = maps.Clone(c.Env)
			if told.Env == nil {
				told.Env = map[string]string{}
			}
			told.Env["DAVIT_DRILL"], told.Env["DAVIT_SANDBOX_NAMESPACES"] = "true", strings.Join(pairs, ",")
			o.Step.Command = &told
		}
		if c := o.Step.Call; c != nil {
			told := *c
			told.Told = map[string]string{"Davit-Drill": "true", "Davit-Sandbox-Namespaces": strings.Join(pairs, ",")}
			o.Step.Call = &told
		}
		return inner.Do(ctx, o)
	})
}

// rehearse asks whether traffic could be moved, and moves nothing.
func (s *Site) rehearse(ctx context.Context, o execute.Order) execute.Answer {
	switch {
	case o.Action == failover.Undo:
		return execute.Done("")
	case o.Step.Kind != plan.KindDNS || s.o.Rehearse == nil:
		return execute.Done("not rehearsed: this davit cannot ask a %s without moving it", o.Step.Kind)
	case o.Action == failover.Look:
		return execute.NotDone("")
	}
	note, err := s.o.Rehearse(ctx, o.Step, o.Site)
	if err != nil {
		return execute.Refuse("%v", err)
	}
	return execute.Done("only rehearsed: %s", note)
}

// cleanup removes the sandbox.
func (s *Site) cleanup(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("")
	}
	began, err := s.began(ctx, o.Run)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	removed, err := Clean(ctx, s.o.Recovery.Cluster, s.o.Cluster, o.Run)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	note := fmt.Sprintf("removed %d namespaces", removed)
	if told := s.meanwhile(ctx, o, began); told != "" {
		note += "; " + told
	}
	return execute.Done("%s", note)
}

// Clean removes a run's sandbox, and the Jobs of its steps: these first, as a
// sweep finds drills by their namespaces.
func Clean(ctx context.Context, c restore.Cluster, sandboxes Cluster, run string) (int, error) {
	all, err := sandboxes.Sandboxes(ctx)
	if err != nil {
		return 0, err
	}
	at, err := c.Serves(ctx, shape.KindJob)
	if err != nil {
		return 0, fmt.Errorf("look for Jobs of the drill: %w", err)
	}
	err = c.List(ctx, at[0], v1alpha1.SystemNamespace, v1alpha1.LabelSandbox+"="+Name(run), func(u *unstructured.Unstructured) error {
		if err := c.Delete(ctx, at[0], u, false); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove Job %s: %w", u.GetName(), err)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	mine := slices.DeleteFunc(all, func(n Namespace) bool { return n.Sandbox != Name(run) })
	return len(mine), sandboxes.Clear(ctx, mine)
}

// failed says what an error of a recovery means.
func failed(err error) execute.Answer {
	if errors.Is(err, recovery.ErrRefused) || errors.Is(err, recovery.ErrPreflight) || errors.Is(err, recovery.ErrNoPoint) {
		return execute.Refuse("%v", err)
	}
	return execute.Unknown("%v", err)
}

// some are the first few problems, for people.
func some(list []restore.Problem) string {
	var all []string
	for i, p := range list {
		if i == 3 {
			all = append(all, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		all = append(all, p.String())
	}
	return strings.Join(all, "; ")
}
