package standby

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
)

const conflicts = 20 // tries until a busy ConfigMap is given up for now

// page is a run's ConfigMap while it is written. Whoever has the turn writes what
// all others wait for with it: the steps of a run of many applications, each for
// itself, would be in each other's way most of the time.
type page struct {
	users   int
	waiting []*entry
	turn    chan struct{}
	live    *unstructured.Unstructured // as it was written last; of whoever has the turn
}

// entry is one mark on its way: it is written if it is still what it was.
type entry struct {
	key, was, text string
	done           chan error
}

func (n *notes) enter(run string, e *entry) *page {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pages[run]
	if p == nil {
		p = &page{turn: make(chan struct{}, 1)}
		if n.pages == nil {
			n.pages = map[string]*page{}
		}
		n.pages[run] = p
	}
	p.users++
	p.waiting = append(p.waiting, e)
	return p
}

// leave forgets the entry if nobody has begun to write it, and the page once
// nobody waits for it.
func (n *notes) leave(run string, p *page, e *entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.waiting = slices.DeleteFunc(p.waiting, func(other *entry) bool { return other == e })
	if p.users--; p.users == 0 {
		delete(n.pages, run)
	}
}

func (n *notes) take(p *page) []*entry {
	n.mu.Lock()
	defer n.mu.Unlock()
	batch := p.waiting
	p.waiting = nil
	return batch
}

// putBack leaves to the next one what this one could not write, as its own time is
// over.
func (n *notes) putBack(p *page, batch []*entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.waiting = append(batch, p.waiting...)
}

// write writes an entry: itself, or by whoever has the turn.
func (n *notes) write(ctx context.Context, run string, e *entry) error {
	p := n.enter(run, e)
	defer n.leave(run, p, e)
	select {
	case err := <-e.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx) // of what is on its way nobody knows the end
	case p.turn <- struct{}{}:
	}
	defer func() { <-p.turn }()
	select {
	case err := <-e.done: // by whoever had the turn before
		return err
	default:
	}
	batch, err := n.commit(ctx, run, p, n.take(p))
	if err != nil && ctx.Err() != nil {
		n.putBack(p, slices.DeleteFunc(batch, func(other *entry) bool { return other == e }))
		return err
	}
	for _, other := range batch {
		other.done <- err
	}
	return <-e.done
}

// commit writes entries, and returns those that share what came of it: those
// which are no longer what they were have heard so already.
func (n *notes) commit(ctx context.Context, run string, p *page, batch []*entry) ([]*entry, error) {
	at, err := serving(ctx, n.cluster, shape.KindConfigMap)
	if err != nil {
		return batch, err
	}
	for range conflicts {
		fresh := p.live == nil
		if fresh {
			if p.live, err = n.read(ctx, at, run); err != nil {
				return batch, err
			}
		}
		next := p.live.DeepCopy()
		fit, changed := enterAll(next, batch)
		if len(changed) > 0 && !fresh {
			p.live = nil // by another process, perhaps
			continue
		}
		for _, e := range changed {
			e.done <- execute.ErrMarked
		}
		if batch = fit; len(batch) == 0 {
			return nil, nil
		}
		written, err := n.put(ctx, at, next)
		if err == nil {
			p.live = written
			return batch, nil
		}
		p.live = nil
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
			return batch, err
		}
	}
	return batch, execute.ErrMarked
}

// enterAll changes the entries that are what they were.
func enterAll(page *unstructured.Unstructured, batch []*entry) (fit, changed []*entry) {
	data := shape.Child(page.Object, "data")
	if data == nil {
		data = shape.Document{}
		page.Object["data"] = data
	}
	for _, e := range batch {
		if shape.Text(data, e.key) != e.was {
			changed = append(changed, e)
			continue
		}
		data[e.key] = e.text
		fit = append(fit, e)
	}
	return fit, changed
}

// read reads a run's ConfigMap; one that is not there yet has no version.
func (n *notes) read(ctx context.Context, at restore.Served, run string) (*unstructured.Unstructured, error) {
	live, err := n.cluster.Get(ctx, at, v1alpha1.SystemNamespace, n.name(run))
	if apierrors.IsNotFound(err) {
		labels := map[string]any{shape.LabelManagedBy: "davit"}
		shape.OfVault(labels, n.vault)
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": n.name(run), "namespace": v1alpha1.SystemNamespace, "labels": labels},
		}}, nil
	}
	return live, err
}

func (n *notes) put(ctx context.Context, at restore.Served, page *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if page.GetResourceVersion() == "" {
		return n.cluster.Create(ctx, at, page)
	}
	return n.cluster.Update(ctx, at, page, "")
}
