package restore

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/obstacle"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/standstill"
	"davit.dev/davit/internal/restore/transform"
)

// objectName names an object for people: kind.group namespace/name.
func objectName(at Served, namespace, name string) string {
	return kindName(at.GVK.GroupKind(), namespace, name)
}

func kindName(kind schema.GroupKind, namespace, name string) string {
	if namespace != "" {
		name = namespace + "/" + name
	}
	return kind.String() + " " + name
}

// prepared is an object ready for the target.
type prepared struct {
	entry  *index.Entry
	kind   schema.GroupKind
	at     Served
	obj    *unstructured.Unstructured
	status any           // to be restored as well; nil for most
	wait   []shape.Owner // owners that are still to come
	name   string        // for people
}

// prepare turns what was captured into what is written.
func (e *Engine) prepare(ctx context.Context, en *index.Entry, raw []byte) (*prepared, error) {
	d, err := shape.Decode(raw)
	if err != nil {
		return nil, err
	}
	at, err := e.resolve(ctx, en.Res)
	if err != nil {
		return nil, err
	}
	p := &prepared{entry: en, kind: e.x.Kinds[en.Res], at: at, name: e.nameOf(en)}
	if e.wantsStatus(en.Res) {
		p.status = d["status"]
	}
	e.tellIsolated(p, d)
	if err := e.shape(en.Res, d, nil); err != nil {
		return nil, err
	}
	if e.opts.GitOps == gitops.Suspend {
		if err := e.gitStage().Rest(p.kind, d); err != nil {
			return nil, err
		}
	}
	p.obj = wrap(at, d)
	now, wait, err := e.owners(ctx, en, p.name)
	if err != nil {
		return nil, err
	}
	p.wait = wait
	if len(now) > 0 {
		shape.Child(d, "metadata")["ownerReferences"] = now
	}
	return p, nil
}

// shape strips, renames, transforms and labels, and tells matched, which may be
// nil, of the rules that matched. What was at rest when it was captured is
// restored as it was before.
func (e *Engine) shape(i int, d shape.Document, matched func(rule int)) error {
	res := e.m.Resources[i]
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	if change, err := standstill.Before(&unstructured.Unstructured{Object: d}); err == nil && change != nil {
		shape.Merge(d, change)
	}
	gitops.Undone(kind, d)
	shape.Strip(kind, d, shape.Options{NodePorts: e.opts.PreserveNodePorts, Classes: e.opts.StorageClassMapping})
	if ns := shape.Text(d, "metadata", "namespace"); e.names.To(ns) != ns {
		gitops.Unmark(d)
	}
	e.names.Rename(kind, d)
	if e.opts.Transforms != nil {
		if err := e.opts.Transforms.Apply(transform.Object{Kind: kind, Resource: res.Resource, Document: d}, matched); err != nil {
			return err
		}
		// Rules do not set what the cluster assigns either.
		shape.Strip(kind, d, shape.Options{NodePorts: e.opts.PreserveNodePorts})
	}
	meta := shape.Child(d, "metadata")
	labels, ok := meta["labels"].(map[string]any)
	if !ok {
		labels = map[string]any{}
		meta["labels"] = labels
	}
	labels[shape.LabelRestore] = e.opts.ID
	if e.opts.Isolation != nil {
		e.names.Inside(kind, d)
		shape.Isolate(kind, d, nil)
		if kind == shape.KindNamespace {
			e.opts.Isolation.Mark(d)
		}
	}
	return nil
}

// tellIsolated says what isolation takes out of an object, and what it may reach.
func (e *Engine) tellIsolated(p *prepared, captured shape.Document) {
	if e.opts.Isolation == nil {
		return
	}
	for _, note := range shape.Isolate(p.kind, runtime.DeepCopyJSON(captured), e.m.Namespaces) {
		e.rec.Warn(p.name, "%s", note)
	}
}

func (e *Engine) wantsStatus(i int) bool {
	res := e.m.Resources[i]
	return shape.MatchesKind(e.opts.RestoreStatusOf, schema.GroupResource{Group: res.Group, Resource: res.Resource})
}

// nameOf names an object of the point as it is called at the target.
func (e *Engine) nameOf(en *index.Entry) string {
	namespace, name := e.target(en)
	return kindName(e.x.Kinds[en.Res], namespace, name)
}

// target is where an object of the point goes.
func (e *Engine) target(en *index.Entry) (namespace, name string) {
	if e.x.Kinds[en.Res] == shape.KindNamespace {
		return "", e.names.To(en.Name)
	}
	if en.Namespace == "" {
		return "", en.Name
	}
	return e.names.To(en.Namespace), en.Name
}

// restoreObject brings one object to the target and records what became of it.
func (e *Engine) restoreObject(ctx context.Context, en *index.Entry, raw []byte) {
	name := e.nameOf(en)
	p, err := e.prepare(ctx, en, raw)
	if err == nil {
		err = e.heldBack(ctx, p)
	}
	if err == nil {
		err = e.put(ctx, p)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil: // the restore was stopped: nothing is known of this object
		return
	case answer.WebhookFailed(err) && shape.RankOf(e.x.Kinds[en.Res]) < shape.RankAround && e.postpone(en):
		e.progress.Note(name + " is tried again when the workloads run: " + err.Error())
		return
	default:
		e.failed(en, name, err)
	}
	e.step()
}

// postpone keeps an object for a second try, once.
func (e *Engine) postpone(en *index.Entry) (postponed bool) {
	e.locked(func() {
		if postponed = !e.later[en]; postponed {
			e.later[en] = true
		}
	})
	return postponed
}

func (e *Engine) step() {
	var done int64
	e.locked(func() { e.done++; done = e.done })
	e.progress.Objects(done, e.x.Total)
}

// put brings the object to the target, and all that hangs on it.
func (e *Engine) put(ctx context.Context, p *prepared) error {
	live, err := e.place(ctx, p)
	if err != nil {
		return err
	}
	e.made(ctx, p.entry, live)
	e.await(ctx, p.at, live, p.wait)
	if p.status == nil || (live.GetLabels()[shape.LabelRestore] != e.opts.ID) {
		return nil
	}
	return e.putStatus(ctx, p, live)
}

// place creates the object, or settles with what is there. A create
// that is refused also costs the API server far more than a look.
func (e *Engine) place(ctx context.Context, p *prepared) (*unstructured.Unstructured, error) {
	namespace := p.obj.GetNamespace()
	if e.present.Expects(ctx, p.at, namespace, e.isOurs(namespace)) {
		live, err := e.look(ctx, p)
		if err == nil {
			return e.meet(ctx, p, live)
		}
		if !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	live, err := e.create(ctx, p)
	e.present.Note(p.at, namespace, apierrors.IsAlreadyExists(err))
	switch {
	case err == nil:
		e.rec.Count(func(r *Result) { r.Created++ })
		e.decided(p.entry, report.Create, "")
		if p.kind == shape.KindNamespace {
			e.locked(func() { e.ours[p.obj.GetName()] = true })
		}
		return live, nil
	case apierrors.IsAlreadyExists(err):
		if live, err = e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName()); err != nil {
			return nil, err
		}
		return e.meet(ctx, p, live)
	}
	// Quotas, webhooks and checks of the object refuse before the API server
	// looks whether the name is taken.
	if live, getErr := e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName()); getErr == nil {
		e.present.Note(p.at, namespace, true)
		return e.meet(ctx, p, live)
	}
	return nil, err
}

// look looks at what is there. Of many objects of a kind it lists pages; those
// that others name come out of turn, and are looked at one by one.
func (e *Engine) look(ctx context.Context, p *prepared) (*unstructured.Unstructured, error) {
	get := e.cluster.Get
	if len(e.x.Entries[p.entry.Res]) >= many && !e.order.Named[p.entry.Node] {
		get = e.windows.Get
	}
	return get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName())
}

// many objects of a kind are looked at page by page.
const many = 100

// create makes the object. The API server looks at node ports before names, so
// that an object that exists already shows here too.
func (e *Engine) create(ctx context.Context, p *prepared) (*unstructured.Unstructured, error) {
	return e.yielding(p, func() (*unstructured.Unstructured, error) { return e.cluster.Create(ctx, p.at, p.obj) })
}

// yielding writes an object. A Service that is refused for a node port or an
// address family gets what there is: it is better reachable elsewhere than not
// there.
func (e *Engine) yielding(p *prepared, write func() (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	live, err := write()
	var yielded []string
	for err != nil && p.kind == shape.KindService {
		other := p.obj.DeepCopy()
		gave := obstacle.Yield(other.Object, err)
		if gave == "" {
			return live, err
		}
		p.obj, yielded = other, append(yielded, gave)
		live, err = write()
	}
	for _, gave := range yielded {
		e.rec.Warn(p.name, "%s", gave)
	}
	return live, err
}

// putStatus restores the status of the kinds it was asked for.
func (e *Engine) putStatus(ctx context.Context, p *prepared, live *unstructured.Unstructured) error {
	for range answer.Attempts {
		live = live.DeepCopy()
		live.Object["status"] = p.status
		_, err := e.cluster.Update(ctx, p.at, live, "status")
		if !apierrors.IsConflict(err) {
			return err
		}
		if live, err = e.cluster.Get(ctx, p.at, p.obj.GetNamespace(), p.obj.GetName()); err != nil {
			return err
		}
	}
	return fmt.Errorf("the object changes faster than its status can be set")
}

// heldBack refuses what must not run yet: whatever mounts a claim that is not
// whole, and custom resources beside one, whose operator might start on it.
func (e *Engine) heldBack(ctx context.Context, p *prepared) error {
	switch shape.RankOf(p.kind) {
	case shape.RankCustom:
		if empty := e.empty.In(p.obj.GetNamespace(), false); len(empty) > 0 {
			return fmt.Errorf("not created, because claim %s is not filled and its operator might start on it: solve that and restore again", empty[0])
		}
	case shape.RankWorkloads:
		if e.empty.MountedBy(p.kind, p.obj, true) == "" {
			return nil
		}
		if err := e.empty.Others(ctx, e.cluster, p.obj.GetNamespace()); err != nil { // others may be through by now
			return err
		}
		if why := e.empty.MountedBy(p.kind, p.obj, true); why != "" {
			return fmt.Errorf("not created, because %s", why)
		}
	}
	return nil
}

// wrap makes the document an object of the target's kind.
func wrap(at Served, d shape.Document) *unstructured.Unstructured {
	d["apiVersion"], d["kind"] = at.GVK.GroupVersion().String(), at.GVK.Kind
	return &unstructured.Unstructured{Object: d}
}
