// Package surrender tells the nodes of a site that a run gives an application's epoch back,
// before it does.
//
// Who rolls a run back may have taken it over from a process that stands still, and that goes
// on with what it was about to do when it wakes: no look keeps a workload from being made after it.
// The site that the epoch goes back to starts the application as soon as it reads so; this one
// may hear of that late, or not at all while the vault is out of its reach. So it is told through
// its own API server first, and its nodes stop whatever of the application comes still.
package surrender

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

const (
	// speaksFor is how old a node's report may be: of one that has said nothing for longer
	// nobody knows what it does, and waiting for it helps nobody.
	speaksFor = time.Minute
	look      = 500 * time.Millisecond
)

var (
	kindNodeFence = schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "NodeFence"}
	kindNode      = schema.GroupKind{Kind: "Node"}
)

// Declare notes on the Application, which is at this site, that the epoch is given back. A
// higher one that was noted stays.
func Declare(ctx context.Context, c port.Cluster, app *unstructured.Unstructured, epoch int64) error {
	served, err := c.Serves(ctx, app.GroupVersionKind().GroupKind())
	if err != nil {
		return fmt.Errorf("note that epoch %d is given back: %w", epoch, err)
	}
	for range answer.Attempts {
		if was, _ := strconv.ParseInt(app.GetAnnotations()[fence.AnnotationReturned], 10, 64); was >= epoch {
			return nil
		}
		var patch []byte
		patch, err = json.Marshal(map[string]any{"metadata": map[string]any{
			"resourceVersion": app.GetResourceVersion(), "annotations": map[string]any{fence.AnnotationReturned: strconv.FormatInt(epoch, 10)},
		}})
		if err == nil {
			_, err = c.Patch(ctx, served[0], app.GetNamespace(), app.GetName(), patch)
		}
		if apierrors.IsConflict(err) {
			app, err = c.Get(ctx, served[0], app.GetNamespace(), app.GetName())
			if err == nil {
				continue
			}
		}
		break
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("note on the Application that epoch %d is given back: %w", epoch, err)
	}
	return nil
}

// Await waits until every node that speaks says that it has noted that nothing of the
// application, by its name in the vault, runs there under the epoch or a lower one. It
// returns whom it waited for in vain within the time, in words; none if all have.
func Await(ctx context.Context, c port.Cluster, clock port.Clock, app string, epoch int64, within time.Duration) []string {
	for deadline := clock.Now().Add(within); ; {
		missing, waits := unheard(ctx, c, app, epoch, clock.Now())
		if !waits || !clock.Now().Before(deadline) || clock.Sleep(ctx, look) != nil {
			return missing
		}
	}
}

// unheard names the nodes that have not noted it yet, or whose containers have not ended; waits
// says that they may.
func unheard(ctx context.Context, c port.Cluster, app string, epoch int64, now time.Time) (missing []string, waits bool) {
	served, err := c.Serves(ctx, kindNodeFence)
	if err != nil {
		return []string{fmt.Sprintf("what nodes say is not known: %v", err)}, false
	}
	spoke := false
	err = c.List(ctx, served[0], v1alpha1.SystemNamespace, "", func(u *unstructured.Unstructured) error {
		var r v1alpha1.NodeFence
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &r); err != nil {
			return fmt.Errorf("read NodeFence %s: %w", u.GetName(), err)
		}
		if at := r.Status.ObservedAt; at == nil || now.Sub(at.Time) > speaksFor {
			return nil
		}
		spoke = true
		if !slices.ContainsFunc(r.Status.Applications, func(a v1alpha1.FencedApplication) bool {
			return a.Application == app && a.Epoch > epoch && a.Running == 0
		}) {
			missing = append(missing, "node "+r.Name)
		}
		return nil
	})
	switch {
	case err != nil:
		return []string{fmt.Sprintf("what nodes say is not known: %v", err)}, !apierrors.IsForbidden(err)
	case !spoke:
		return []string{"no node says anything"}, false
	}
	slices.Sort(missing)
	return missing, len(missing) > 0
}

// Proven tells whether every node of the cluster says, not long ago, that nothing of the application
// runs there under the epoch or a lower one, and that nothing will. Whoever may not look knows nothing.
func Proven(ctx context.Context, c port.Cluster, app string, epoch int64, now time.Time) bool {
	said := map[string][]metav1.OwnerReference{} // who says so, and of which machine of that name
	fences, err := c.Serves(ctx, kindNodeFence)
	if err == nil {
		err = c.List(ctx, fences[0], v1alpha1.SystemNamespace, "", func(u *unstructured.Unstructured) error {
			var r v1alpha1.NodeFence
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &r); err != nil {
				return fmt.Errorf("read NodeFence %s: %w", u.GetName(), err)
			}
			at := r.Status.ObservedAt
			if at != nil && now.Sub(at.Time) <= speaksFor && r.Status.Problem == "" && slices.ContainsFunc(r.Status.Applications, func(a v1alpha1.FencedApplication) bool {
				return a.Application == app && a.Epoch > epoch && a.Proven
			}) {
				said[r.Name] = r.OwnerReferences
			}
			return nil
		})
	}
	if err != nil {
		return false
	}
	nodes, err := c.Serves(ctx, kindNode)
	all := false
	if err == nil {
		all = true
		err = c.List(ctx, nodes[0], "", "", func(u *unstructured.Unstructured) error {
			all = all && slices.ContainsFunc(said[u.GetName()], func(o metav1.OwnerReference) bool { return o.UID == u.GetUID() })
			return nil
		})
	}
	return err == nil && all && len(said) > 0
}

// Warning says what follows when nodes were waited for in vain; empty if none was.
func Warning(app string, missing []string) string {
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("not noted yet that nothing of %s runs here any more: %s: what a process that stood still starts there runs until the node has heard from the vault", app, shape.Names(missing, 3))
}
