// Package rehearse is the target of a dry run: it answers as the cluster would
// and writes nothing. What a restore changed is remembered here, so that it
// sees what it did; what a change would make of an object that is there the
// real target is asked, by a dry run of its own where it knows one.
package rehearse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// Target is the cluster of a dry run. It is safe for use by several goroutines.
type Target struct {
	port.Cluster              // reads
	would        port.Cluster // what the real target would make of a change; nil if it does not tell

	mu      sync.Mutex
	objects map[key]*state
	defined map[schema.GroupKind][]port.Served
	made    int
}

type key struct {
	kind            schema.GroupKind
	namespace, name string
}

func keyOf(at port.Served, namespace, name string) key {
	return key{at.GVK.GroupKind(), namespace, name}
}

// state is an object that the restore touched.
type state struct {
	before *unstructured.Unstructured // nil: it was not there
	now    *unstructured.Unstructured // nil: it is deleted
}

// New makes the target of a dry run over the real one. would tells what that
// would make of a change, and may be nil.
func New(live, would port.Cluster) *Target {
	return &Target{Cluster: live, would: would, objects: map[key]*state{}, defined: map[schema.GroupKind][]port.Served{}}
}

// Serves implements port.Cluster: also the kinds whose definitions were made.
func (t *Target) Serves(ctx context.Context, kind schema.GroupKind) ([]port.Served, error) {
	t.mu.Lock()
	defined := t.defined[kind]
	t.mu.Unlock()
	served, err := t.Cluster.Serves(ctx, kind)
	if errors.Is(err, port.ErrNotServed) && len(defined) > 0 {
		return defined, nil
	}
	return served, err
}

// Refresh implements port.Cluster.
func (t *Target) Refresh(context.Context) error { return nil }

// Get implements port.Cluster.
func (t *Target) Get(ctx context.Context, at port.Served, namespace, name string) (*unstructured.Unstructured, error) {
	if u, known := t.known(keyOf(at, namespace, name)); known {
		if u == nil {
			return nil, apierrors.NewNotFound(at.GVR.GroupResource(), name)
		}
		return u.DeepCopy(), nil
	}
	if t.isDefined(at) {
		return nil, apierrors.NewNotFound(at.GVR.GroupResource(), name)
	}
	return t.Cluster.Get(ctx, at, namespace, name)
}

func (t *Target) known(k key) (now *unstructured.Unstructured, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, known := t.objects[k]
	if !known {
		return nil, false
	}
	return s.now, true
}

// isDefined tells whether only definitions of the dry run serve the kind.
func (t *Target) isDefined(at port.Served) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.defined[at.GVK.GroupKind()], at)
}

// set remembers what an object is now; what it was the first time stays.
func (t *Target) set(k key, before, now *unstructured.Unstructured) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.objects[k]
	if s == nil {
		s = &state{before: before}
		t.objects[k] = s
	}
	s.now = now
}

// Create implements port.Cluster.
func (t *Target) Create(ctx context.Context, at port.Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	_, err := t.Get(ctx, at, obj.GetNamespace(), obj.GetName())
	if err == nil {
		return nil, apierrors.NewAlreadyExists(at.GVR.GroupResource(), obj.GetName())
	}
	if !apierrors.IsNotFound(err) {
		return nil, err
	}
	u := obj.DeepCopy()
	t.mu.Lock()
	t.made++
	u.SetUID(types.UID(fmt.Sprintf("rehearsed-%d", t.made)))
	t.mu.Unlock()
	kept := u
	switch kind := at.GVK.GroupKind(); kind {
	case shape.KindCRD:
		t.define(u)
	case shape.KindClaim, shape.KindNamespace:
	default:
		if _, replaced := t.known(keyOf(at, obj.GetNamespace(), obj.GetName())); !replaced {
			kept = head(u)
		}
	}
	t.set(keyOf(at, u.GetNamespace(), u.GetName()), nil, kept)
	return u.DeepCopy(), nil
}

// head is what is remembered of an object that is made: a large point must not
// be held in memory.
func head(u *unstructured.Unstructured) *unstructured.Unstructured {
	h := &unstructured.Unstructured{Object: map[string]any{"apiVersion": u.GetAPIVersion(), "kind": u.GetKind()}}
	h.SetNamespace(u.GetNamespace())
	h.SetName(u.GetName())
	h.SetUID(u.GetUID())
	h.SetLabels(u.GetLabels())
	return h
}

// define has a definition serve its kind at once.
func (t *Target) define(crd *unstructured.Unstructured) {
	crd.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Established", "status": "True"}}}
	spec := shape.Child(crd.Object, "spec")
	group := shape.Text(spec, "group")
	kind := schema.GroupKind{Group: group, Kind: shape.Text(spec, "names", "kind")}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, v := range shape.Items(spec, "versions") {
		if served, _ := v["served"].(bool); served {
			gv := schema.GroupVersion{Group: group, Version: shape.Text(v, "name")}
			t.defined[kind] = append(t.defined[kind], port.Served{
				GVK: gv.WithKind(kind.Kind), GVR: gv.WithResource(shape.Text(spec, "names", "plural")), Namespaced: shape.Text(spec, "scope") == "Namespaced",
			})
		}
	}
}

// Update implements port.Cluster.
func (t *Target) Update(ctx context.Context, at port.Served, obj *unstructured.Unstructured, subresource string) (*unstructured.Unstructured, error) {
	return t.change(ctx, at, obj.GetNamespace(), obj.GetName(), func(was *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		if subresource != "" {
			now := was.DeepCopy()
			now.Object[subresource] = obj.Object[subresource]
			return now, nil
		}
		return t.ask(obj, func(c port.Cluster) (*unstructured.Unstructured, error) { return c.Update(ctx, at, obj, "") })
	})
}

// Apply implements port.Cluster.
func (t *Target) Apply(ctx context.Context, at port.Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return t.change(ctx, at, obj.GetNamespace(), obj.GetName(), func(was *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		merged := was.DeepCopy() // as near as can be without the API server
		shape.Merge(merged.Object, runtime.DeepCopyJSON(obj.Object))
		return t.ask(merged, func(c port.Cluster) (*unstructured.Unstructured, error) { return c.Apply(ctx, at, obj) })
	})
}

// ask has the real target say what it would make of a change. Where it cannot,
// because something in its way does not take part in dry runs, guess stands.
func (t *Target) ask(guess *unstructured.Unstructured, try func(port.Cluster) (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	if t.would == nil {
		return guess, nil
	}
	got, err := try(t.would)
	if apierrors.IsBadRequest(err) || answer.WebhookFailed(err) {
		return guess, nil
	}
	return got, err
}

// Patch implements port.Cluster.
func (t *Target) Patch(ctx context.Context, at port.Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	var change shape.Document
	if err := utiljson.Unmarshal(patch, &change); err != nil {
		return nil, fmt.Errorf("read patch: %w", err)
	}
	return t.change(ctx, at, namespace, name, func(was *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		now := was.DeepCopy()
		shape.Merge(now.Object, change)
		return now, nil
	})
}

func (t *Target) change(ctx context.Context, at port.Served, namespace, name string, to func(was *unstructured.Unstructured) (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	was, err := t.Get(ctx, at, namespace, name)
	if err != nil {
		return nil, err
	}
	now, err := to(was)
	if err != nil {
		return nil, err
	}
	t.set(keyOf(at, namespace, name), was, now)
	return now.DeepCopy(), nil
}

// Delete implements port.Cluster: the object is gone at once.
func (t *Target) Delete(ctx context.Context, at port.Served, obj *unstructured.Unstructured, _ bool) error {
	was, err := t.Get(ctx, at, obj.GetNamespace(), obj.GetName())
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	t.set(keyOf(at, obj.GetNamespace(), obj.GetName()), was, nil)
	return nil
}

// List implements port.Cluster.
func (t *Target) List(ctx context.Context, at port.Served, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	sel, err := labels.Parse(selector)
	if err != nil {
		return fmt.Errorf("read selector: %w", err)
	}
	kind := at.GVK.GroupKind()
	t.mu.Lock()
	touched := map[key]*unstructured.Unstructured{}
	atRest := map[string]bool{}
	for k, s := range t.objects {
		if k.kind == kind && (namespace == "" || k.namespace == namespace) {
			touched[k] = s.now
		}
		if s.now != nil && s.now.GetAnnotations()[shape.AnnotationBefore] != "" {
			atRest[k.namespace] = true
		}
	}
	t.mu.Unlock()
	show := func(u *unstructured.Unstructured) error {
		if u == nil || !sel.Matches(labels.Set(u.GetLabels())) || kind == shape.KindPod && atRest[u.GetNamespace()] && controlled(u) {
			return nil
		}
		return fn(u)
	}
	if !t.isDefined(at) {
		err = t.Cluster.List(ctx, at, namespace, selector, func(u *unstructured.Unstructured) error {
			if _, mine := touched[key{kind, u.GetNamespace(), u.GetName()}]; mine {
				return nil
			}
			return show(u)
		})
		if err != nil {
			return err
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(touched), compare) {
		u := touched[k]
		if u != nil {
			u = u.DeepCopy()
		}
		if err := show(u); err != nil {
			return err
		}
	}
	return nil
}

// controlled tells whether a controller made the pod: where workloads were
// stopped, it is taken for one of theirs, which ends.
func controlled(u *unstructured.Unstructured) bool {
	return slices.ContainsFunc(shape.Items(u.Object, "metadata", "ownerReferences"), func(o shape.Document) bool {
		c, _ := o["controller"].(bool)
		return c
	})
}

func compare(a, b key) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

// Change is an object that was there and is another one now.
type Change struct {
	Kind        schema.GroupKind
	Before, Now *unstructured.Unstructured
}

// Changes returns every object that was there and would be there afterwards,
// and that the restore wrote to.
func (t *Target) Changes() []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Change
	for k, s := range t.objects {
		if s.before != nil && s.now != nil {
			all = append(all, Change{k.kind, s.before, s.now})
		}
	}
	return all
}

// Volumes fill nothing.
type Volumes struct{ port.Volumes }

// Fill implements port.Volumes.
func (Volumes) Fill(context.Context, port.FillRequest) ([]string, error) { return nil, nil }

// Clock passes by itself: whoever waits has waited.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock begins at an instant.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now implements port.Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Sleep implements port.Clock.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}
