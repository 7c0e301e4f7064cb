package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/shape"
)

// volumeOf finds the data captured for a claim.
func (e *Engine) volumeOf(en *entry) *point.Volume {
	if e.opts.SkipVolumes {
		return nil
	}
	for i := range e.m.Volumes {
		if v := &e.m.Volumes[i]; v.Namespace == en.namespace && v.Claim == en.name {
			return v
		}
	}
	return nil
}

// restoreClaim creates one claim and fills it. Whatever fails leaves the claim
// marked as empty, and nothing that mounts it is created.
func (e *Engine) restoreClaim(ctx context.Context, en *entry, raw []byte) {
	defer e.step()
	name := e.nameOf(en)
	p, err := e.prepare(ctx, en, raw)
	if err != nil {
		e.markEmpty(en)
		e.failed(en, name, err)
		return
	}
	vol := e.volumeOf(en)
	if vol == nil {
		if err := e.put(ctx, p); err != nil {
			e.failed(en, name, err)
			return
		}
		e.rec.Warn(name, "the recovery point holds no data for it: it starts empty")
		return
	}
	if err := e.fill(ctx, p, *vol); err != nil {
		e.markEmpty(en)
		if ctx.Err() != nil {
			e.outOfTime(ctx, en, err)
			return
		}
		e.failed(en, name, err)
	}
}

func (e *Engine) markEmpty(en *entry) {
	namespace, name := e.target(en)
	e.locked(func() { e.emptyClaims[namespace+"/"+name] = true })
}

// fill makes the claim and writes the volume's data into it.
func (e *Engine) fill(ctx context.Context, p *prepared, vol point.Volume) error {
	whole, err := e.claim(ctx, p, vol)
	if err != nil {
		return err
	}
	if !whole {
		if err := e.fillClaim(ctx, p, vol); err != nil {
			return err
		}
	}
	e.rec.Count(func(r *Result) { r.Volumes++; r.VolumeBytes += vol.Snapshot.Bytes })
	return nil
}

// claim sees to it that the claim is there and this restore's own, and tells
// whether it is whole already.
func (e *Engine) claim(ctx context.Context, p *prepared, vol point.Volume) (whole bool, err error) {
	live, err := e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName())
	switch {
	case apierrors.IsNotFound(err):
		if err := e.unused(ctx, p.obj.GetNamespace(), p.obj.GetName()); err != nil {
			return false, err
		}
		e.enlarge(p, vol)
		return false, e.putOwn(ctx, p, vol)
	case err != nil:
		return false, err
	}
	if why := e.claimConflict(live, vol); why != "" {
		return false, errors.New(why)
	}
	if whole = live.GetAnnotations()[shape.AnnotationFilledFrom] == vol.Snapshot.ID; !whole {
		if err := e.unused(ctx, p.obj.GetNamespace(), p.obj.GetName()); err != nil {
			return false, err
		}
	}
	return whole, e.put(ctx, p)
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
	if why := e.claimConflict(live, vol); why != "" {
		return errors.New(why)
	}
	return nil
}

// claimConflict says why data may not be written into a claim that exists, or
// nothing when it is this restore's own.
func (e *Engine) claimConflict(live *unstructured.Unstructured, vol point.Volume) string {
	from := live.GetAnnotations()[shape.AnnotationFilledFrom]
	switch {
	case live.GetDeletionTimestamp() != nil:
		return "it exists and is being deleted: wait until it is gone and restore again"
	case live.GetLabels()[shape.LabelRestore] != e.opts.ID:
		return "it exists and holds data that this restore did not put there, which is never overwritten: " +
			"to keep its data and bring back the rest, exclude the kind persistentvolumeclaims; " +
			"to have the point's data in its place, delete the claim, or restore into other namespaces with a namespace mapping"
	case from != "" && from != vol.Snapshot.ID:
		return "it was filled from another snapshot, " + from + ": delete the claim and restore again"
	}
	return ""
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
	c := e.x.consumerOf(vol.Namespace, vol.Claim)
	warnings, err := e.volumes.Fill(ctx, FillRequest{
		Namespace: p.obj.GetNamespace(), Claim: p.obj.GetName(), Volume: vol,
		Source:  e.m.Application + "/" + vol.Namespace + "/" + vol.Claim,
		PodSpec: c.spec, PodLabels: c.labels, Owner: e.opts.ID,
		Progress: func(done, total int64) { e.bytes(p.name, done, max(total, vol.Snapshot.Bytes)) },
	})
	for _, w := range warnings {
		e.rec.Warn(p.name, "%s", w)
	}
	if err != nil {
		return err
	}
	e.bytes(p.name, vol.Snapshot.Bytes, vol.Snapshot.Bytes)
	patch, err := json.Marshal(shape.Document{"metadata": shape.Document{"annotations": shape.Document{shape.AnnotationFilledFrom: vol.Snapshot.ID}}})
	if err != nil {
		return fmt.Errorf("encode annotation: %w", err)
	}
	if _, err := e.cluster.Patch(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName(), patch); err != nil {
		return fmt.Errorf("record that the claim is whole: %w", err)
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

// users are the kinds that could start pods on a claim by themselves.
var users = []schema.GroupKind{shape.KindPod, shape.KindStatefulSet, shape.KindDeployment, shape.KindDaemonSet, shape.KindReplicaSet, shape.KindJob, shape.KindCronJob}

// unused refuses a claim that something at the target would mount, or mounts,
// while it is being filled.
func (e *Engine) unused(ctx context.Context, namespace, claim string) error {
	for _, kind := range users {
		at, err := e.served(ctx, kind)
		if err != nil {
			return err
		}
		var by string
		err = e.cluster.List(ctx, at, namespace, "", func(u *unstructured.Unstructured) error {
			if by == "" && shape.Active(kind, u) && shape.Mounts(kind, u.Object, claim) {
				by = objectName(at, namespace, u.GetName())
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("look who uses claim %s/%s: %w", namespace, claim, err)
		}
		if by != "" {
			return fmt.Errorf("%s exists and would run on the volume while it is being filled: scale it to zero or delete it, and restore again", by)
		}
	}
	return nil
}
