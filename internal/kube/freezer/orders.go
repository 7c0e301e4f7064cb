package freezer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/barrier"
	"davit.dev/davit/internal/kube/source"
)

const (
	labelPoint = v1alpha1.LabelPoint
	managedBy  = "davit"
	// again is how long an order that could not be given waits, tries how often.
	again, tries = 100 * time.Millisecond, 50
)

func (p *play) labels() map[string]string {
	return map[string]string{v1alpha1.LabelManagedBy: managedBy, labelPoint: source.PointLabel(p.req.Point)}
}

// name is that of the order for one node.
func (p *play) name(node string) string {
	sum := sha256.Sum256([]byte(p.req.Application + "\x00" + p.req.Point + "\x00" + node))
	return "freeze-" + hex.EncodeToString(sum[:10])
}

var orderOf = map[barrier.Action]v1alpha1.FreezeOrder{
	barrier.Arm: v1alpha1.OrderArm, barrier.Freeze: v1alpha1.OrderFreeze, barrier.Thaw: v1alpha1.OrderThaw,
}

// send gives a node an order, again and again while the API server does not
// take it. A node that cannot be told is lost: it thaws by itself.
func (p *play) send(ctx context.Context, e barrier.Effect) {
	if why := p.silent[e.Node]; why != "" {
		p.tell(ctx, barrier.Event{Kind: barrier.Lost, Node: e.Node, Why: why})
		return
	}
	var err error
	for range tries {
		if e.Action == barrier.Arm {
			err = p.create(ctx, e.Node)
		} else {
			err = p.change(ctx, e.Node, orderOf[e.Action])
		}
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
	if err != nil {
		p.tell(ctx, barrier.Event{Kind: barrier.Lost, Node: e.Node, Why: "it could not be told: " + err.Error()})
	}
}

func (p *play) create(ctx context.Context, node string) error {
	order := &v1alpha1.VolumeFreeze{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: p.name(node), Labels: p.labels()},
		Spec: v1alpha1.VolumeFreezeSpec{
			Node: node, Point: p.req.Point, Window: metav1.Duration{Duration: p.req.Window}, Order: v1alpha1.OrderArm, Volumes: p.places[node],
		},
	}
	err := p.f.client.Create(ctx, order)
	if apierrors.IsAlreadyExists(err) {
		return nil // ours, from a try whose answer was lost: an application's points have names of their own
	}
	return err
}

func (p *play) change(ctx context.Context, node string, order v1alpha1.FreezeOrder) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"order": order}})
	if err != nil {
		return err
	}
	obj := &v1alpha1.VolumeFreeze{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: p.name(node)}}
	return p.f.client.Patch(ctx, obj, client.RawPatch(types.MergePatchType, patch))
}

// remove takes the orders back. What cannot be removed now is swept later.
func (p *play) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	for node := range p.places {
		if p.silent[node] != "" {
			continue // it was given none
		}
		obj := &v1alpha1.VolumeFreeze{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: p.name(node)}}
		if err := client.IgnoreNotFound(p.f.client.Delete(ctx, obj)); err != nil {
			p.f.log.Warn("remove freeze order", "node", node, "error", err)
		}
	}
}

// orders lists those with the labels; nil means all of davit's.
func (f *Freezer) orders(ctx context.Context, labels map[string]string) ([]v1alpha1.VolumeFreeze, error) {
	if labels == nil {
		labels = map[string]string{v1alpha1.LabelManagedBy: managedBy}
	}
	var list v1alpha1.VolumeFreezeList
	if err := f.client.List(ctx, &list, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels(labels)); err != nil {
		return nil, fmt.Errorf("list freezes: %w", err)
	}
	return list.Items, nil
}

// follow tells the coordinator what the nodes report, until ctx is done.
func (p *play) follow(ctx context.Context) {
	told := map[string]v1alpha1.FreezePhase{} // by node
	for ctx.Err() == nil {
		w, err := p.f.client.Watch(ctx, &v1alpha1.VolumeFreezeList{}, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels(p.labels()))
		if err != nil {
			w = watch.NewEmptyWatch() // look at intervals instead
		}
		p.followOn(ctx, w, told)
		w.Stop()
	}
}

// followOn is follow for the life of one watch.
func (p *play) followOn(ctx context.Context, w watch.Interface, told map[string]v1alpha1.FreezePhase) {
	tick := time.NewTicker(relook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-w.ResultChan():
			if !open {
				p.look(ctx, told)
				return
			}
			if o, ok := e.Object.(*v1alpha1.VolumeFreeze); ok && p.ours(o) {
				p.report(ctx, o, e.Type == watch.Deleted, told)
			}
		case <-tick.C:
			p.look(ctx, told)
		}
	}
}

// look reads all orders, for when the watch said nothing.
func (p *play) look(ctx context.Context, told map[string]v1alpha1.FreezePhase) {
	list, err := p.f.orders(ctx, p.labels())
	if err != nil {
		return // the coordinator's deadlines decide
	}
	missing := maps.Clone(told)
	for i := range list {
		if p.ours(&list[i]) {
			delete(missing, list[i].Spec.Node)
			p.report(ctx, &list[i], false, told)
		}
	}
	for node := range missing {
		p.report(ctx, &v1alpha1.VolumeFreeze{Spec: v1alpha1.VolumeFreezeSpec{Node: node}}, true, told)
	}
}

// ours tells an order from one for a point of another application that has the same name.
func (p *play) ours(o *v1alpha1.VolumeFreeze) bool { return o.Name == p.name(o.Spec.Node) }

// report passes on what is new.
func (p *play) report(ctx context.Context, o *v1alpha1.VolumeFreeze, gone bool, told map[string]v1alpha1.FreezePhase) {
	node, phase := o.Spec.Node, o.Status.Phase
	if told[node] == v1alpha1.FreezeEnded {
		return
	}
	e := barrier.Event{Node: node, Held: o.Status.Held, Why: o.Status.Message}
	if o.Status.Took != nil {
		e.Took = o.Status.Took.Duration
	}
	switch {
	case gone:
		e = barrier.Event{Kind: barrier.Lost, Node: node, Why: "its order was removed by somebody else"}
		phase = v1alpha1.FreezeEnded
	case phase == told[node]:
		return
	case phase == v1alpha1.FreezeArmed:
		e.Kind = barrier.Armed
	case phase == v1alpha1.FreezeFrozen:
		e.Kind = barrier.Frozen
	case phase == v1alpha1.FreezeEnded:
		e.Kind = barrier.Ended
	}
	told[node] = phase
	p.tell(ctx, e)
}
