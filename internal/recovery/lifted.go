package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence/lifting"
	"davit.dev/davit/internal/restore"
)

const (
	// liftedWithin is how long the nodes of this site may take to hear that it may write
	// again, before what they would stop is started all the same: others may run it.
	liftedWithin = 30 * time.Second
	liftedLook   = 500 * time.Millisecond
)

// lifted waits until no node here would stop what is about to start: those of a site that
// was superseded lift their fence when they have heard from the vault by themselves, which
// may be later than whoever restores. Once is enough: no node fences what this site may
// write.
func (r *recovery) lifted(ctx context.Context) error {
	if r.opts.Mode == v1alpha1.RestoreClone || r.free {
		return nil
	}
	for deadline := r.deps.Clock.Now().Add(liftedWithin); ; {
		held, err := r.keepers(ctx)
		switch {
		case err != nil:
			r.warn("", "whether nodes of this site still stop what runs of %s is not known: %v", r.opts.Application, err)
		case len(held) > 0 && r.deps.Clock.Now().Before(deadline):
			r.deps.Progress.Note("before anything starts: " + strings.Join(held, ", "))
			if err := r.deps.Clock.Sleep(ctx, liftedLook); err != nil {
				return err
			}
			continue
		case len(held) > 0:
			r.warn("", "started all the same after %s, and stopped there until the node has heard from the vault: %s", liftedWithin, strings.Join(held, ", "))
		}
		r.free = true
		return nil
	}
}

// keepers names the nodes that would stop the application. Whoever may not read what nodes
// say asks none.
func (r *recovery) keepers(ctx context.Context) ([]string, error) {
	own := r.deps.Own
	if own == nil {
		own = r.deps.Cluster
	}
	served, err := own.Serves(ctx, schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "NodeFence"})
	if errors.Is(err, restore.ErrNotServed) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var reports []v1alpha1.NodeFence
	err = own.List(ctx, served[0], v1alpha1.SystemNamespace, "", func(u *unstructured.Unstructured) error {
		var report v1alpha1.NodeFence
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &report); err != nil {
			return fmt.Errorf("read NodeFence %s: %w", u.GetName(), err)
		}
		reports = append(reports, report)
		return nil
	})
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("list what nodes say: %w", err)
	}
	return lifting.Keepers(reports, r.opts.Application, r.deps.Clock.Now()), nil
}
