package restore

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/obstacle"
	"davit.dev/davit/internal/restore/policy"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/standstill"
	"davit.dev/davit/internal/restore/vacancy"
)

// policyOf is what happens to objects of a kind, and whether the kind was named.
func (e *Engine) policyOf(res point.Resource) (what Existing, named bool) {
	return policy.Set{Default: e.opts.Existing, Kinds: e.opts.ExistingKinds, Isolated: e.opts.Isolation != nil}.Of(res)
}

// decide says what is done with an object that exists already.
func (e *Engine) decide(p *prepared, live *unstructured.Unstructured) (report.Action, string) {
	ours := live.GetLabels()[shape.LabelRestore] == e.opts.ID
	switch {
	case live.GetDeletionTimestamp() != nil:
		return report.Conflict, "it exists and is being deleted: wait until it is gone and restore again" + vacancy.Held(live)
	case ours && p.kind == shape.KindClaim:
		return report.Continue, "" // the volume's data decides, see claim
	case !ours && p.kind == shape.KindAccount && p.obj.GetName() == "default" && e.isOurs(p.obj.GetNamespace()):
		return report.Updated, "made by the cluster with the namespace"
	}
	fields := e.difference(p, live)
	policy, named := e.policyOf(e.m.Resources[p.entry.Res])
	differs := "it differs in " + shape.Names(fields, 8)
	switch {
	case len(fields) == 0 && ours:
		return report.Continue, ""
	case len(fields) == 0:
		return report.SkipIt, ""
	case p.kind == shape.KindClaim: // without data in the point
		return report.SkipIt, "exists already and was left alone, though " + differs
	case policy == Replace && (named || shape.RankOf(p.kind) != shape.RankCustom):
		return report.Replaced, differs
	case policy != Skip:
		return report.Updated, differs
	case ours:
		return report.Continue, "was changed after it was restored, and was left alone: " + differs
	}
	return report.SkipIt, "exists already and was left alone, though " + differs
}

// difference compares the live object, stripped the same way and as it was
// before it was brought to rest, with the wanted one.
func (e *Engine) difference(p *prepared, live *unstructured.Unstructured) []string {
	want, have := e.comparable(p, live)
	var fields []string
	shape.Differ("", want, have, &fields)
	fields = append(fields, shape.Halted(live.Object)...)
	slices.Sort(fields)
	return fields
}

func (e *Engine) comparable(p *prepared, live *unstructured.Unstructured) (want, have shape.Document) {
	want = p.obj.DeepCopy().Object
	gitops.Undone(p.kind, want)
	unmark(want)
	return want, e.asCaptured(p.kind, live)
}

// asCaptured is a live object as a point would bring it back, without marks.
func (e *Engine) asCaptured(kind schema.GroupKind, live *unstructured.Unstructured) shape.Document {
	d := standstill.Undone(live).DeepCopy().Object
	gitops.Undone(kind, d)
	shape.Strip(kind, d, shape.Options{NodePorts: e.opts.PreserveNodePorts})
	unmark(d)
	return d
}

// unmark drops what a restore adds.
func unmark(d shape.Document) {
	shape.Drop(d, []string{"metadata"}, "ownerReferences")
	shape.Drop(d, []string{"metadata", "labels"}, shape.LabelRestore, shape.LabelNamespaceName)
	shape.Drop(d, []string{"metadata", "annotations"}, shape.AnnotationFilledFrom)
	shape.DropEmpty(shape.Child(d, "metadata"), "labels")
	shape.DropEmpty(shape.Child(d, "metadata"), "annotations")
}

// meet settles with an object that exists already and returns it.
func (e *Engine) meet(ctx context.Context, p *prepared, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	action, reason := e.decide(p, live)
	e.decided(p.entry, action, reason)
	if p.kind == shape.KindStatefulSet && (action == report.Updated || action == report.Replaced) && shape.SpareClaims(p.obj.Object, live.Object) {
		e.rec.Warn(p.name, "has fewer replicas in the point: it keeps the claims of the others, which hold data, with whenScaled: Retain instead of Delete")
	}
	switch action {
	case report.Continue:
		e.rec.Count(func(r *Result) { r.Continued++ })
		if reason != "" {
			e.rec.Warn(p.name, "%s", reason)
		}
		if p.kind == shape.KindNamespace {
			e.locked(func() { e.ours[p.obj.GetName()] = true })
		}
		return live, e.setOwners(ctx, p.at, live, shape.OwnersOf(p.obj))
	case report.Updated:
		return e.update(ctx, p, live)
	case report.Replaced:
		return e.replace(ctx, p, live)
	case report.SkipIt:
		e.rec.Count(func(r *Result) { r.Skipped++ })
		if reason != "" {
			e.rec.Warn(p.name, "%s", reason)
		}
		return live, nil
	}
	return nil, fmt.Errorf("%s", reason)
}

// update changes the object to what was captured: by server-side apply, which
// leaves alone what others added, or as a whole where the policy says so.
func (e *Engine) update(ctx context.Context, p *prepared, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if rank := shape.RankOf(p.kind); rank == shape.RankCustom || rank == shape.RankWorkloads {
		if err := hold.Still(ctx); err != nil { // by a look after the object was read: others may have started it, or stopped it, since
			return nil, err
		}
	}
	policy, named := e.policyOf(e.m.Resources[p.entry.Res])
	write := e.apply
	if policy.RollsBack() {
		write = e.overwrite
	}
	got, err := e.yielding(p, func() (*unstructured.Unstructured, error) {
		if p.kind == shape.KindService && shape.Recast(p.obj.Object, live.Object) {
			return nil, fmt.Errorf("spec.clusterIP: %w: a Service cannot become headless, or cease to be", answer.ErrImmutable)
		}
		return write(ctx, p, live)
	})
	mayReplace := named || shape.RankOf(p.kind) != shape.RankCustom
	if answer.Immutable(err) && policy == Exact && mayReplace {
		e.decided(p.entry, report.Replaced, "it cannot be changed in place")
		return e.replace(ctx, p, live)
	}
	if answer.Immutable(err) {
		return nil, fmt.Errorf("%w: it cannot be changed in place: to have it deleted and made anew, give --existing-kind %s=replace (existingKinds)",
			answer.Brief(err), gvrName(e.m.Resources[p.entry.Res]))
	}
	if err != nil {
		return nil, err
	}
	e.rec.Count(func(r *Result) { r.Updated++ })
	return got, e.stage().Forget(ctx, p.at, got)
}

func (e *Engine) apply(ctx context.Context, p *prepared, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return e.gitStage().Apply(ctx, p.at, p.obj, live)
}

// overwrite puts the captured object in the live one's place. What the cluster says of it, and its controllers rely on, stays.
func (e *Engine) overwrite(ctx context.Context, p *prepared, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	for range answer.Attempts {
		obj := p.obj.DeepCopy()
		gitops.KeepOthers(p.kind, obj.Object, live.Object)
		obj.SetResourceVersion(live.GetResourceVersion())
		obj.SetUID(live.GetUID())
		finalizers := append(obj.GetFinalizers(), live.GetFinalizers()...)
		slices.Sort(finalizers)
		obj.SetFinalizers(slices.Compact(finalizers))
		if owners, _ := shape.MergeOwners(live, shape.OwnersOf(obj)); len(owners) > 0 {
			shape.Child(obj.Object, "metadata")["ownerReferences"] = owners
		}
		if status, ok := live.Object["status"]; ok {
			obj.Object["status"] = status
		}
		got, err := e.cluster.Update(ctx, p.at, obj, "")
		if !apierrors.IsConflict(err) {
			return got, obstacle.Fixed(ctx, e.cluster, p.at, p.obj, err)
		}
		if live, err = e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName()); err == nil {
			err = hold.Still(ctx) // who changed it may be who restores by now
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the object changes faster than it can be overwritten: restore again")
}

// replace deletes the object and creates the captured one. When that is
// refused, what was there is put back.
func (e *Engine) replace(ctx context.Context, p *prepared, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	gitops.KeepOthers(p.kind, p.obj.Object, live.Object)
	// What makes pods goes with them; a StatefulSet without, as its claims may
	// go with it otherwise. Everything else keeps what hangs on it.
	orphan := shape.PodSpecOf(p.kind, live.Object) == nil || p.kind == shape.KindStatefulSet
	if err := e.cluster.Delete(ctx, p.at, live, orphan); err != nil {
		return nil, fmt.Errorf("delete it to make it anew: %w", err)
	}
	room := vacancy.Place{Cluster: e.cluster, Clock: e.clock, Progress: e.progress}
	if err := room.AwaitGone(ctx, p.at, live); err != nil {
		return nil, err
	}
	got, err := room.Fill(ctx, p.name, func() (*unstructured.Unstructured, error) { return e.create(ctx, p) })
	if apierrors.IsAlreadyExists(err) { // the answer to a first try may have been lost
		if made, look := e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName()); look == nil && made.GetLabels()[shape.LabelRestore] == e.opts.ID {
			got, err = made, nil
		}
	}
	if err == nil {
		e.rec.Count(func(r *Result) { r.Replaced++ })
		return got, nil
	}
	old := standstill.Undone(live).DeepCopy()
	shape.Strip(p.kind, old.Object, shape.Options{NodePorts: true})
	_, back := room.Fill(ctx, p.name, func() (*unstructured.Unstructured, error) { return e.cluster.Create(ctx, p.at, old) })
	if back != nil {
		return nil, fmt.Errorf("it was deleted, and cannot be made anew: %w; nor could what was there be put back: %w", err, back)
	}
	return nil, fmt.Errorf("it cannot be made anew, and what was there was put back: %w", err)
}
