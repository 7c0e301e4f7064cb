package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/capture/nameset"
	"davit.dev/davit/internal/jsontree"
	"davit.dev/davit/internal/point"
)

// writers holds one open writer per kind, and serialises what goes into it.
type writers struct {
	sink Sink
	mu   sync.Mutex
	open map[string]*kindWriter
}

type kindWriter struct {
	kind  Kind
	mu    sync.Mutex
	out   ObjectWriter
	bytes int64
	seen  nameset.Set // only where asked for
}

func newWriters(sink Sink) *writers { return &writers{sink: sink, open: map[string]*kindWriter{}} }

func (w *writers) of(k Kind) *kindWriter {
	w.mu.Lock()
	defer w.mu.Unlock()
	kw := w.open[k.Name()]
	if kw == nil {
		kw = &kindWriter{kind: k, seen: nameset.Set{}, out: w.sink.Resource(point.Resource{
			Group: k.Group, Version: k.Version, Kind: k.Kind, Resource: k.Resource, Namespaced: k.Namespaced,
			Versions: k.Versions, Dependency: !k.Namespaced,
		})}
		w.open[k.Name()] = kw
	}
	return kw
}

// buffers hold the memory in which objects are encoded: a writer keeps none of it.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// add writes an object. With once, an object written before is passed over.
func (kw *kindWriter) add(ctx context.Context, o *unstructured.Unstructured, once bool) error {
	strip(o)
	buffer, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	data, err := jsontree.Append((*buffer)[:0], o.Object)
	*buffer = data[:0]
	if err != nil {
		return fmt.Errorf("encode %s: %w", title(kw.kind, o), err)
	}
	kw.mu.Lock()
	defer kw.mu.Unlock()
	if once && !kw.seen.Add(o.GetNamespace(), o.GetName()) {
		return nil
	}
	kw.bytes += int64(len(data))
	return kw.out.Add(ctx, data)
}

func (kw *kindWriter) has(namespace, name string) bool {
	kw.mu.Lock()
	defer kw.mu.Unlock()
	return kw.seen.Has(namespace, name)
}

// close closes every writer, also after an error, and returns the resources
// that hold objects, sorted.
func (w *writers) close(ctx context.Context) (resources []point.Resource, objects, bytes int64, err error) {
	for _, kw := range w.open {
		res, closeErr := kw.out.Close(ctx)
		if closeErr != nil {
			err = errors.Join(err, closeErr)
			continue
		}
		if res.Count > 0 {
			resources = append(resources, res)
		}
		objects += res.Count
		bytes += kw.bytes
	}
	slices.SortFunc(resources, func(a, b point.Resource) int {
		return strings.Compare(a.Group+"/"+a.Resource, b.Group+"/"+b.Resource)
	})
	return resources, objects, bytes, err
}

// objects lists and writes everything that belongs to the application.
func (r *run) objects(whole context.Context) (err error) {
	ctx, stop := context.WithCancelCause(whole)
	defer stop(nil)
	r.stop = stop
	defer func() {
		var closed error
		r.res.Resources, r.res.Objects, r.res.Bytes, closed = r.writers.close(whole)
		slices.Sort(r.res.Scope.Kinds)
		for _, s := range r.spec.Select.Any {
			r.res.Scope.Selectors = append(r.res.Scope.Selectors, s.String())
		}
		r.res.Scope.Narrowed = len(r.spec.Select.Pods) > 0 || len(r.spec.Select.Workloads) > 0
		err = errors.Join(err, closed)
	}()
	var now, later []Kind
	for _, k := range r.catalog.Kinds {
		switch {
		case !wantKind(k, r.spec.Filter):
		case k.Name() == "endpoints": // judged by the Services
			later = append(later, k)
		default:
			now = append(now, k)
		}
	}
	if err := r.cover(ctx, r.res.Revision); err != nil {
		return err
	}
	r.step(fmt.Sprintf("reading objects of %d kinds", len(now)+len(later)))
	for _, kinds := range [][]Kind{now, later} {
		if err := r.each(ctx, kinds, r.kind); err != nil {
			return err
		}
	}
	if !r.spec.Select.Whole() {
		if err := r.pointing(ctx); err != nil {
			return err
		}
		if err := r.needed(ctx); err != nil {
			return err
		}
	}
	return r.dependencies(ctx)
}

// each calls fn for every kind, some at a time. ctx is that of objects.
func (r *run) each(ctx context.Context, kinds []Kind, fn func(context.Context, Kind) error) error {
	// Not the context of a group: that ends once all is listed, and with it would
	// end the writing of what is still on its way into the vault then.
	var g errgroup.Group
	g.SetLimit(r.opts.Workers)
	for _, k := range kinds {
		g.Go(func() error {
			err := fn(ctx, k)
			if err != nil {
				r.stop(err)
			}
			return err
		})
	}
	if g.Wait() != nil {
		return context.Cause(ctx) // of several errors the first: the others follow from it
	}
	return nil
}

// kind writes one kind's objects of all namespaces.
func (r *run) kind(ctx context.Context, k Kind) error {
	w, whole := r.writers.of(k), true
	for _, ns := range r.spec.Namespaces {
		for _, q := range r.queries(k, ns) {
			q.Revision = r.res.Revision
			err := r.list(ctx, q, func(o *unstructured.Unstructured) error {
				if !r.selects(k, o) {
					return nil
				}
				return r.take(ctx, w, o)
			})
			whole = whole && err == nil
			if err = r.tolerate(k, err); err != nil {
				return err
			}
		}
	}
	if whole {
		r.looked(k)
	}
	return nil
}

// looked remembers that every object of the kind was seen.
func (r *run) looked(k Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Scope.Kinds = append(r.res.Scope.Kinds, schema.GroupKind{Group: k.Group, Kind: k.Kind}.String())
}

// Captured tells whether an object of a namespaced kind would be captured
// wherever it is looked for: it is no helper of Davit's, not excluded, not
// made anew by the cluster.
func Captured(res point.Resource, o *unstructured.Unstructured) bool {
	k := Kind{Group: res.Group, Version: res.Version, Kind: res.Kind, Resource: res.Resource, Namespaced: true, Verbs: []string{"get", "list", "create"}}
	return wantKind(k, Filter{}) && judge(k, o).keep
}

// tolerate decides what a list that failed means: see the package comment.
func (r *run) tolerate(k Kind, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrUnservable): // gone since discovery, or a view
		return nil
	case k.Aggregated && errors.Is(err, ErrUnavailable):
		r.warn(k.Name(), fmt.Sprintf("is served by an API that does not answer; objects of it are not in this point: %v", err))
		return nil
	}
	return fmt.Errorf("%w: repair what serves the kind, or leave it out with excludeKinds %q", err, k.Name())
}

// take judges one object, learns what it needs, and writes it.
func (r *run) take(ctx context.Context, w *kindWriter, o *unstructured.Unstructured) error {
	v := judge(w.kind, o)
	if v.warn != "" {
		r.warn(title(w.kind, o), v.warn)
	}
	r.needs.observe(w.kind, o, v.keep, !r.spec.Select.Whole())
	if !v.keep || w.kind.Name() == "endpoints" && r.needs.selects(o.GetNamespace(), o.GetName()) {
		return nil
	}
	return w.add(ctx, o, !r.spec.Select.Whole())
}
