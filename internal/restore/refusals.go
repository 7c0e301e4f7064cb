package restore

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/obstacle"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
)

// checkRefusals looks for what at the target would refuse objects.
func (e *Engine) checkRefusals(ctx context.Context) ([]Finding, error) {
	labels, err := e.liveNamespaces(ctx)
	if err != nil {
		return nil, err
	}
	finder := obstacle.Finder{Cluster: e.cluster, Exists: func(namespace string) bool { _, there := labels[namespace]; return there }, Brings: e.brings}
	found, err := e.askEach(ctx, finder)
	if err != nil {
		return nil, err
	}
	for _, namespace := range slices.Sorted(maps.Keys(labels)) {
		short, err := e.checkQuotas(ctx, finder, namespace)
		if err != nil {
			return nil, err
		}
		found = append(found, short...)
	}
	dead, err := e.checkWebhooks(ctx, finder, labels)
	return append(found, dead...), err
}

// liveNamespaces are those of the target's namespaces that objects go to, with
// their labels.
func (e *Engine) liveNamespaces(ctx context.Context) (map[string]map[string]string, error) {
	at, err := e.served(ctx, shape.KindNamespace)
	if err != nil {
		return nil, err
	}
	labels := map[string]map[string]string{}
	for _, name := range e.targetNamespaces() {
		live, err := e.cluster.Get(ctx, at, "", name)
		switch {
		case err == nil && live.GetDeletionTimestamp() == nil:
			labels[name] = live.GetLabels()
		case answer.IgnoreNotFound(err) != nil:
			return nil, err
		}
	}
	return labels, nil
}

// askEach asks about every object that is worth a question.
func (e *Engine) askEach(ctx context.Context, finder obstacle.Finder) ([]Finding, error) {
	var mu sync.Mutex
	var found []Finding
	var failed error
	err := e.each(ctx, e.opts.Workers, func(en *index.Entry) bool {
		return obstacle.Asked(e.x.Kinds[en.Res])
	}, func(ctx context.Context, en *index.Entry, raw []byte) {
		o, err := e.intended(ctx, en, raw)
		var asked []Finding
		if err == nil {
			asked, err = finder.Object(ctx, o)
		}
		mu.Lock()
		defer mu.Unlock()
		found = append(found, asked...)
		if err != nil && !errors.Is(err, errUnwritable) {
			failed = err
		}
	})
	slices.SortFunc(found, func(a, b Finding) int { return strings.Compare(a.Message, b.Message) })
	return found, errors.Join(err, failed)
}

// errUnwritable is the error of objects that other checks speak of.
var errUnwritable = errors.New("cannot be written at the target")

// intended is an object as it would be written, without its owners.
func (e *Engine) intended(ctx context.Context, en *index.Entry, raw []byte) (obstacle.Object, error) {
	d, err := shape.Decode(raw)
	if err != nil {
		return obstacle.Object{}, errors.Join(errUnwritable, err)
	}
	at, err := e.resolve(ctx, en.Res)
	if err != nil {
		return obstacle.Object{}, errors.Join(errUnwritable, err)
	}
	kind := e.x.Kinds[en.Res]
	if err := e.shape(en.Res, d, nil); err != nil {
		return obstacle.Object{}, errors.Join(errUnwritable, err)
	}
	return obstacle.Object{Name: e.nameOf(en), Kind: kind, At: at, Obj: wrap(at, d)}, nil
}

// checkQuotas adds up what goes into a namespace that is there, where quotas
// count it.
func (e *Engine) checkQuotas(ctx context.Context, finder obstacle.Finder, namespace string) ([]Finding, error) {
	quotas, err := finder.Quotas(ctx, namespace)
	if err != nil || quotas.Empty() {
		return nil, err
	}
	need, missing := obstacle.Need{}, map[*index.Entry]bool{}
	for _, i := range e.needed() {
		at, err := e.resolve(ctx, i)
		if err != nil || !at.Namespaced {
			continue
		}
		gr := at.GVR.GroupResource()
		whole := obstacle.Sized(e.x.Kinds[i])
		if !whole && !quotas.Names("count/"+gr.String()) && !quotas.Names(gr.Resource) {
			continue
		}
		there, err := finder.Names(ctx, at, namespace)
		if err != nil {
			return nil, err
		}
		var n int64
		for _, en := range e.x.Entries[i] {
			if in, name := e.target(en); en.Skip == "" && in == namespace && !there[name] {
				missing[en] = whole
				n++
			}
		}
		need.Count(gr, n)
	}
	var mu sync.Mutex
	err = e.each(ctx, e.opts.Workers, func(en *index.Entry) bool { return missing[en] }, func(ctx context.Context, en *index.Entry, raw []byte) {
		if o, err := e.intended(ctx, en, raw); err == nil {
			mu.Lock()
			defer mu.Unlock()
			need.Size(o)
		}
	})
	return quotas.Check(need), err
}

// checkWebhooks looks for webhooks that would refuse objects because nobody
// answers for them. One that the point's own Service serves does not count: what
// it refuses is tried again when that runs.
func (e *Engine) checkWebhooks(ctx context.Context, finder obstacle.Finder, labels map[string]map[string]string) ([]Finding, error) {
	var targets []obstacle.Target
	for _, i := range e.needed() {
		if at, err := e.resolve(ctx, i); err == nil {
			targets = append(targets, obstacle.Target{At: at, Namespaces: e.namespacesOf(i)})
		}
	}
	for captured, all := range e.x.NamespaceLabels {
		if to := e.names.To(captured); labels[to] == nil {
			labels[to] = all // as it will be
		}
	}
	return finder.Webhooks(ctx, targets, labels, func(namespace, service string) bool {
		return e.brings(shape.KindService, namespace, service)
	})
}

// brings tells whether the point holds an object, by its name at the target.
func (e *Engine) brings(kind schema.GroupKind, namespace, name string) bool {
	for i, entries := range e.x.Entries {
		if e.x.Kinds[i] == kind && slices.ContainsFunc(entries, func(en *index.Entry) bool {
			ns, n := e.target(en)
			return en.Skip == "" && ns == namespace && n == name
		}) {
			return true
		}
	}
	return false
}

// checkTransforms applies all rules to all objects and keeps none: a rule that
// fails must do so before anything changes.
func (e *Engine) checkTransforms(ctx context.Context) ([]Finding, error) {
	if e.opts.Transforms == nil {
		return nil, nil
	}
	trial := transform.NewTrial(e.opts.Transforms)
	all := func(*index.Entry) bool { return true }
	err := e.each(ctx, e.opts.Workers, all, func(_ context.Context, en *index.Entry, raw []byte) {
		d, err := shape.Decode(raw)
		if err != nil {
			return // fails by itself, by name
		}
		var rule *transform.Error
		if errors.As(e.shape(en.Res, d, trial.Matched), &rule) {
			trial.Failed(e.nameOf(en), rule)
		}
	})
	if err != nil {
		return nil, err
	}
	return trial.Findings(), nil
}
