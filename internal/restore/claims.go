package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/occupant"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/vacancy"
)

// volumeOf finds the data captured for a claim.
func (e *Engine) volumeOf(en *index.Entry) *point.Volume {
	if e.opts.SkipVolumes {
		return nil
	}
	for i := range e.m.Volumes {
		if v := &e.m.Volumes[i]; v.Namespace == en.Namespace && v.Claim == en.Name {
			return v
		}
	}
	return nil
}

// restoreClaim creates one claim and fills it. Whatever fails leaves the claim
// marked as empty, and nothing that mounts it is created.
func (e *Engine) restoreClaim(ctx context.Context, en *index.Entry, raw []byte) {
	defer e.step()
	name := e.nameOf(en)
	p, err := e.prepare(ctx, en, raw)
	if err != nil {
		e.empty.Mark(e.target(en))
		e.failed(en, name, err)
		return
	}
	vol := e.volumeOf(en)
	if vol == nil {
		annotations := p.obj.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[shape.AnnotationFilledFrom] = shape.FilledFromNothing
		p.obj.SetAnnotations(annotations)
		starts := "it stays as it is"
		live, err := e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName())
		if apierrors.IsNotFound(err) || err == nil && live.GetLabels()[shape.LabelRestore] == e.opts.ID && live.GetAnnotations()[shape.AnnotationFilledFrom] == shape.FilledFromNothing {
			starts = "it starts empty"
		}
		if err := e.put(ctx, p); err != nil {
			e.failed(en, name, err)
			return
		}
		e.rec.Warn(name, "the recovery point holds no data for it: %s", starts)
		return
	}
	if err := e.fill(ctx, p, *vol); err != nil {
		if ctx.Err() != nil {
			e.outOfTime(ctx, en, err)
			return
		}
		e.failed(en, name, err)
		return
	}
	e.empty.Whole(e.target(en))
}

// fill makes the claim and writes the volume's data into it.
func (e *Engine) fill(ctx context.Context, p *prepared, vol point.Volume) error {
	action, why, err := e.claim(ctx, p, vol)
	if err != nil {
		return err
	}
	e.decided(p.entry, action, why)
	if why != "" && action != report.RollBack {
		e.rec.Warn(p.name, "%s", why)
	}
	switch action {
	case report.SkipIt:
		return nil
	case report.Continue: // it is whole
	default:
		if err := e.fillClaim(ctx, p, vol); err != nil {
			return err
		}
	}
	e.rec.Count(func(r *Result) { r.Volumes++; r.VolumeBytes += vol.Snapshot.Bytes })
	return nil
}

// claim sees to it that the claim is there and may be filled: Create or
// RollBack say that it has to be, Continue that it is whole, SkipIt that it is
// left alone.
func (e *Engine) claim(ctx context.Context, p *prepared, vol point.Volume) (report.Action, string, error) {
	live, err := e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName())
	switch {
	case apierrors.IsNotFound(err):
		if err := e.vacate(ctx, p); err != nil {
			return "", "", err
		}
		e.enlarge(p, vol)
		return report.Create, "", e.putOwn(ctx, p, vol)
	case err != nil:
		return "", "", err
	}
	action, why := e.claimVerdict(p.entry, live, vol)
	switch action {
	case report.Conflict:
		return "", "", errors.New(why)
	case report.SkipIt:
		e.rec.Count(func(r *Result) { r.Skipped++ })
		e.made(ctx, p.entry, live)
		return action, why, nil
	case report.RollBack:
		return action, why, e.rollBack(ctx, p, live, vol)
	case report.Continue:
		if policy, _ := e.policyOf(e.m.Resources[p.entry.Res]); policy.RollsBack() {
			why = occupant.Wrote(ctx, e.cluster, p.obj.GetNamespace(), p.obj.GetName())
		}
	case report.Create:
		if err := e.vacate(ctx, p); err != nil {
			return "", "", err
		}
	}
	return action, why, e.put(ctx, p)
}

// vacate makes sure that nothing uses the volume: what does is stopped where
// the claims' policy lets it, and is the reason of a refusal elsewhere.
func (e *Engine) vacate(ctx context.Context, p *prepared) error {
	if policy, _ := e.policyOf(e.m.Resources[p.entry.Res]); !policy.RollsBack() {
		return occupant.None(ctx, e.cluster, p.obj.GetNamespace(), p.obj.GetName())
	}
	return e.stop(ctx, p.obj.GetNamespace(), p.obj.GetName())
}

// rollBack stops what uses the volume and marks the claim as not whole: from
// then on nothing takes it for intact before it is filled.
func (e *Engine) rollBack(ctx context.Context, p *prepared, live *unstructured.Unstructured, vol point.Volume) error {
	if size, err := resource.ParseQuantity(shape.Text(live.Object, "status", "capacity", "storage")); err == nil && size.Value() < vol.Snapshot.Bytes {
		return fmt.Errorf("the volume has %s, and the point's data needs %d bytes: enlarge the claim, and restore again", size.String(), vol.Snapshot.Bytes)
	}
	if err := e.stop(ctx, p.obj.GetNamespace(), p.obj.GetName()); err != nil {
		return err
	}
	patch, err := json.Marshal(shape.Document{"metadata": shape.Document{
		"uid":         string(live.GetUID()),
		"labels":      shape.Document{shape.LabelRestore: e.opts.ID},
		"annotations": shape.Document{shape.AnnotationFilledFrom: nil, shape.AnnotationFilledFor: nil},
	}})
	if err != nil {
		return fmt.Errorf("encode mark: %w", err)
	}
	if live, err = e.cluster.Patch(ctx, p.at, live.GetNamespace(), live.GetName(), patch); err != nil {
		return fmt.Errorf("mark the claim as not whole: %w", err)
	}
	e.rec.Count(func(r *Result) { r.Updated++ })
	e.made(ctx, p.entry, live)
	return e.stop(ctx, p.obj.GetNamespace(), p.obj.GetName()) // others saw no mark before, and may have started it
}

// putOwn creates the claim and looks at what is there then: whoever made one
// of the name since it was looked for keeps it, and no data goes into it.
func (e *Engine) putOwn(ctx context.Context, p *prepared, vol point.Volume) error {
	if err := e.put(ctx, p); err != nil {
		return err
	}
	live, err := e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName())
	if err != nil {
		return fmt.Errorf("look at the claim that was made: %w", err)
	}
	if action, why := e.claimVerdict(p.entry, live, vol); action != report.Create {
		return fmt.Errorf("somebody else made the claim in between: %s", why)
	}
	return nil
}

// claimVerdict says what becomes of a claim that exists. Create says that it
// is this restore's own and not whole yet.
func (e *Engine) claimVerdict(en *index.Entry, live *unstructured.Unstructured, vol point.Volume) (report.Action, string) {
	by := live.GetLabels()[shape.LabelRestore]
	from := live.GetAnnotations()[shape.AnnotationFilledFrom]
	policy, named := e.policyOf(e.m.Resources[en.Res])
	thisTime := live.GetAnnotations()[shape.AnnotationFilledFor] == e.attempt && e.attempt != ""
	switch {
	case live.GetDeletionTimestamp() != nil:
		return report.Conflict, "it exists and is being deleted: wait until it is gone and restore again" + vacancy.Held(live)
	case by == e.opts.ID && from == "":
		return report.Create, ""
	case by == e.opts.ID && from == vol.Snapshot.ID && (thisTime || !policy.RollsBack()):
		return report.Continue, ""
	case shape.Text(live.Object, "status", "phase") == "Lost":
		return report.Conflict, "it has lost its volume: delete the claim and restore again"
	case policy.RollsBack():
		return report.RollBack, "its data is replaced by the point's; what uses it is stopped before, and started again"
	case by != "" && from == "":
		return report.Conflict, "restore " + by + " was filling it and did not end: give that one again, " +
			"or have the point's data in its place with --existing-kind persistentvolumeclaims=replace"
	case by == e.opts.ID && from != vol.Snapshot.ID:
		return report.Conflict, "it was filled from another snapshot, " + from + ": delete the claim and restore again"
	case e.opts.KeepClaims || named:
		return report.SkipIt, "exists already: it and its data were left alone, and the point's data was not restored; " +
			"to have that in its place, give --existing-kind persistentvolumeclaims=replace"
	}
	return report.Conflict, "it exists and holds data that this restore did not put there, which is never overwritten unasked: " +
		"to keep its data and bring back the rest, give --existing-kind persistentvolumeclaims=skip; " +
		"to have the point's data in its place, give --existing-kind persistentvolumeclaims=replace, delete the claim, or restore into other namespaces with a namespace mapping"
}

// enlarge asks for the captured size where the request was smaller than what
// the volume held.
func (e *Engine) enlarge(p *prepared, vol point.Volume) {
	requests := shape.Child(p.obj.Object, "spec", "resources", "requests")
	asked, err := resource.ParseQuantity(fmt.Sprint(requests["storage"]))
	if requests == nil || err != nil || vol.Capacity == 0 || asked.Value() >= vol.Snapshot.Bytes {
		return
	}
	requests["storage"] = resource.NewQuantity(vol.Capacity, resource.BinarySI).String()
	e.rec.Warn(p.name, "asked for %s but held more: %s is asked for", asked.String(), requests["storage"])
}

func (e *Engine) fillClaim(ctx context.Context, p *prepared, vol point.Volume) error {
	if e.volumes == nil {
		return errors.New("nothing can fill volumes here: run davit install at the target")
	}
	c := e.x.ConsumerOf(vol.Namespace, vol.Claim)
	warnings, err := e.volumes.Fill(ctx, FillRequest{
		Namespace: p.obj.GetNamespace(), Claim: p.obj.GetName(), Volume: vol,
		Source:  e.m.Application + "/" + vol.Namespace + "/" + vol.Claim,
		PodSpec: c.Spec, PodLabels: c.Labels, Owner: e.opts.ID,
		Progress: func(done, total int64) { e.bytes(p.name, done, max(total, vol.Snapshot.Bytes)) },
		Fetched:  func(bytes int64) { e.rec.Count(func(r *Result) { r.FetchedBytes += bytes }) },
	})
	for _, w := range warnings {
		e.rec.Warn(p.name, "%s", w)
	}
	used := occupant.None(ctx, e.cluster, p.obj.GetNamespace(), p.obj.GetName())
	switch {
	case err != nil && errors.As(used, &occupant.InUse{}): // which may well be why
		return fmt.Errorf("%w; something ran on the volume while it was being filled: %w", err, used)
	case err != nil:
		return err
	case used != nil:
		return fmt.Errorf("something ran on the volume while it was being filled, so its data may be mixed: %w", used)
	}
	e.bytes(p.name, vol.Snapshot.Bytes, vol.Snapshot.Bytes)
	meta := shape.Document{"annotations": shape.Document{shape.AnnotationFilledFrom: vol.Snapshot.ID, shape.AnnotationFilledFor: e.attempt}}
	e.locked(func() {
		if uid := e.uids[p.entry.UID]; uid != "" { // of the one that was filled
			meta["uid"] = uid
		}
	})
	patch, err := json.Marshal(shape.Document{"metadata": meta})
	if err != nil {
		return fmt.Errorf("encode annotation: %w", err)
	}
	live, err := e.cluster.Patch(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName(), patch)
	if err != nil {
		return fmt.Errorf("record that the claim is whole: %w", err)
	}
	if live.GetDeletionTimestamp() != nil { // what makes a claim in its place makes an empty one
		return errors.New("the claim was deleted while it was filled: wait until it is gone, and restore again")
	}
	return nil
}

func (e *Engine) bytes(name string, done, total int64) {
	var doneAll, totalAll int64
	e.locked(func() {
		e.filled[name] = [2]int64{done, total}
		for _, f := range e.filled {
			doneAll, totalAll = doneAll+f[0], totalAll+f[1]
		}
	})
	e.progress.Bytes(doneAll, totalAll)
}
