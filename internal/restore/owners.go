package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// owners returns the references that can be set now, and those that have to
// wait for an owner which this restore has still to create. References to
// owners that will never be there are dropped with a warning: an object with
// a dangling one would be deleted by the garbage collector.
func (e *Engine) owners(ctx context.Context, en *index.Entry, object string) (now []any, wait []shape.Owner, err error) {
	seen := map[string]bool{}
	for _, o := range en.Owners {
		if seen[o.UID] {
			continue
		}
		seen[o.UID] = true
		uid, pending, err := e.ownerUID(ctx, en, o)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("look for owner %s %s: %w", o.Kind, o.Name, err)
		case uid != "":
			now = append(now, e.mapOwner(o).Reference(uid))
		case pending:
			wait = append(wait, e.mapOwner(o))
		default:
			e.rec.Warn(object, "its owner %s %s is neither in the recovery point nor at the target: the reference is dropped", o.Kind, o.Name)
		}
	}
	return now, wait, nil
}

// mapOwner is the owner under its name and in its version at the target: the
// garbage collector looks it up by both.
func (e *Engine) mapOwner(o shape.Owner) shape.Owner {
	if o.GroupKind() == shape.KindNamespace {
		o.Name = e.names.To(o.Name)
	}
	if in := e.x.ByUID[o.UID]; in != nil {
		e.locked(func() {
			if at, ok := e.at[in.Res]; ok {
				o.APIVersion = at.GVK.GroupVersion().String()
			}
		})
	}
	return o
}

// ownerUID is the owner's UID at the target, or pending when the owner is to
// be created by this restore.
func (e *Engine) ownerUID(ctx context.Context, en *index.Entry, o shape.Owner) (uid string, pending bool, err error) {
	e.locked(func() { uid = e.uids[o.UID] })
	if uid != "" {
		return uid, false, nil
	}
	if in := e.x.ByUID[o.UID]; in != nil && in.Skip == "" {
		var failed bool
		e.locked(func() { failed = e.unmade[o.UID] })
		return "", !failed, nil
	}
	return e.foreignOwner(ctx, en, o)
}

// foreignOwner looks for an owner that the point does not hold.
func (e *Engine) foreignOwner(ctx context.Context, en *index.Entry, o shape.Owner) (string, bool, error) {
	at, err := e.served(ctx, o.GroupKind())
	if errors.Is(err, ErrNotServed) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	namespace := ""
	if at.Namespaced {
		namespace = e.names.To(en.Namespace)
	}
	live, err := e.cluster.Get(ctx, at, namespace, e.mapOwner(o).Name)
	if err != nil {
		return "", false, answer.IgnoreNotFound(err)
	}
	return string(live.GetUID()), false, nil
}

// made tells everyone that an object of the point is at the target.
func (e *Engine) made(ctx context.Context, en *index.Entry, live *unstructured.Unstructured) {
	if en.UID == "" {
		return
	}
	var waiting []wanted
	e.locked(func() {
		e.uids[en.UID] = string(live.GetUID())
		waiting = e.wants[en.UID]
		delete(e.wants, en.UID)
	})
	for _, w := range waiting {
		e.adopt(ctx, w, string(live.GetUID()))
	}
}

// await has an object adopted once its owners are there; some may have come
// between its making and now.
func (e *Engine) await(ctx context.Context, at Served, live *unstructured.Unstructured, wait []shape.Owner) {
	for _, o := range wait {
		w := wanted{at: at, namespace: live.GetNamespace(), name: live.GetName(), ref: o}
		var uid string
		e.locked(func() {
			if uid = e.uids[o.UID]; uid == "" {
				e.wants[o.UID] = append(e.wants[o.UID], w)
			}
		})
		if uid != "" {
			e.adopt(ctx, w, uid)
		}
	}
}

// adopt adds one owner reference to an object that is there.
func (e *Engine) adopt(ctx context.Context, w wanted, uid string) {
	object := objectName(w.at, w.namespace, w.name)
	live, err := e.cluster.Get(ctx, w.at, w.namespace, w.name)
	if err == nil {
		err = e.setOwners(ctx, w.at, live, []any{w.ref.Reference(uid)})
	}
	if err != nil {
		e.rec.Fail(object, fmt.Errorf("set owner %s %s: %w", w.ref.Kind, w.ref.Name, err))
	}
}

// setOwners adds references that the live object lacks. The resource version
// in the patch makes a concurrent change a conflict, which is looked at again.
func (e *Engine) setOwners(ctx context.Context, at Served, live *unstructured.Unstructured, refs []any) error {
	for range answer.Attempts {
		merged, changed := shape.MergeOwners(live, refs)
		if !changed {
			return nil
		}
		patch, err := json.Marshal(shape.Document{"metadata": shape.Document{
			"ownerReferences": merged, "resourceVersion": live.GetResourceVersion(),
		}})
		if err != nil {
			return fmt.Errorf("encode owners: %w", err)
		}
		_, err = e.cluster.Patch(ctx, at, live.GetNamespace(), live.GetName(), patch)
		if !apierrors.IsConflict(err) {
			return err
		}
		if live, err = e.cluster.Get(ctx, at, live.GetNamespace(), live.GetName()); err != nil {
			return err
		}
	}
	return errors.New("the object changes faster than its owner can be set: restore again")
}

// failed remembers that an object of the point will not be there, so that
// nothing waits for it as an owner.
func (e *Engine) failed(en *index.Entry, object string, err error) {
	e.rec.Fail(object, answer.Explain(err))
	e.decided(en, report.Conflict, answer.Explain(err).Error())
	if en.UID != "" {
		e.locked(func() { e.unmade[en.UID] = true })
	}
}

// abandon warns of references whose owner did not come after all.
func (e *Engine) abandon() {
	var left []wanted
	e.locked(func() {
		for _, ws := range e.wants {
			left = append(left, ws...)
		}
		e.wants = map[string][]wanted{}
	})
	for _, w := range left {
		e.rec.Warn(objectName(w.at, w.namespace, w.name),
			"its owner %s %s was not restored: the reference is dropped", w.ref.Kind, w.ref.Name)
	}
}
