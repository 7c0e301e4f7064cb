package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/journal/holder"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/hold"
)

// stillWriter returns a *lease.SupersededError when another site became the
// writer since this restore began: filling volumes can take hours, and nothing
// of the application may run after that. A clone is nobody's to fence.
func (r *recovery) stillWriter(ctx context.Context) error {
	if r.opts.Mode == v1alpha1.RestoreClone {
		return nil
	}
	err := lease.New(r.deps.Project).Check(ctx, r.opts.Application, r.report.Epoch)
	if err != nil {
		return fmt.Errorf("stopped, as it may change nothing here any more: %w", err)
	}
	return nil
}

// supersededAttempt finds the epoch that this very order claimed, if another
// one came after it.
func (r *recovery) supersededAttempt(history []lease.Epoch) (lease.Epoch, bool) {
	for _, e := range history[:max(len(history)-1, 0)] {
		if r.attempted(e) {
			return e, true
		}
	}
	return lease.Epoch{}, false
}

// attempted tells whether this very order claimed the epoch.
func (r *recovery) attempted(e lease.Epoch) bool {
	return r.opts.Attempt != "" && e.Claim.Request == r.opts.Attempt && r.self().Made(e.Claim)
}

// activate is asked before anything of the application may run here. What runs
// must be fenced when another site takes over, so the Application comes first,
// marked as not whole.
func (r *recovery) activate(ctx context.Context) error {
	if r.opts.Ahead {
		return fmt.Errorf("%w: data alone may come ahead of the claim, and this needs custom resources first", ErrRefused)
	}
	if err := r.stillWriter(ctx); err != nil {
		return err
	}
	r.protect(ctx)
	if err := r.lifted(ctx); err != nil {
		return err
	}
	if i := r.opts.Isolation; i != nil && i.Close != nil {
		if err := i.Close(ctx); err != nil {
			return fmt.Errorf("isolate the copy: %w", err)
		}
	}
	return hold.Still(ctx) // last: all that was asked before took its time
}

// protect brings the documents along, once. The application matters more: that
// they could not be brought is for a person to know, and stops nothing.
func (r *recovery) protect(ctx context.Context) {
	if r.opts.Mode != v1alpha1.RestoreTakeOver || r.brought {
		return
	}
	r.unprotected = r.timed(StepDocuments, func() error { return r.bringDocuments(ctx) })
	r.brought = r.unprotected == nil
}

// holdCaptures marks an Application that is at the target already, so that its
// agent does not capture what is not whole yet. A clone has another's name.
func (r *recovery) holdCaptures(ctx context.Context) error {
	if r.opts.Mode == v1alpha1.RestoreClone {
		return nil
	}
	err := r.markApplication(ctx, r.report.RestoreID)
	if apierrors.IsForbidden(err) {
		r.warn("", "the caller may not mark the Application, so its agent may capture it half restored: suspend its policy while this runs: %v", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("hold captures back: %w", err)
	}
	return nil
}

// letCapture takes the mark off: the application is whole.
func (r *recovery) letCapture(ctx context.Context) {
	if r.opts.Mode == v1alpha1.RestoreClone {
		return
	}
	if err := r.markApplication(ctx, nil); err != nil && !apierrors.IsForbidden(err) {
		r.warn("", "nothing is captured before the annotation %s is removed from the Application, which failed: %v", v1alpha1.AnnotationRestoring, err)
	}
}

// markApplication sets the annotation on the application's object, or removes
// it when value is nil. An object that is not there needs none.
func (r *recovery) markApplication(ctx context.Context, value any) error {
	own := r.deps.Own
	if own == nil {
		own = r.deps.Cluster
	}
	served, err := own.Serves(ctx, schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "Application"})
	if errors.Is(err, restore.ErrNotServed) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, at := range objectsOf(r.opts.Application) {
		if r.opts.Team && at.Namespace != r.opts.Namespace {
			continue
		}
		if err := r.mark(ctx, own, served[0], at, value); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("annotate Application %s: %w", at, err)
		}
	}
	return nil
}

// mark does it to one of them, if nobody changed it meanwhile: who stood still over that may find
// that another has ended the restore, and that the site has gone on since.
func (r *recovery) mark(ctx context.Context, own restore.Cluster, served restore.Served, at types.NamespacedName, value any) error {
	var err error
	for range answer.Attempts {
		var live *unstructured.Unstructured
		if live, err = own.Get(ctx, served, at.Namespace, at.Name); err != nil {
			return err
		}
		if value == nil && live.GetAnnotations()[v1alpha1.AnnotationRestoring] != r.report.RestoreID {
			return nil // it is off, or another's
		}
		if err := hold.Still(ctx); err != nil {
			return err
		}
		marks := map[string]any{v1alpha1.AnnotationRestoring: value}
		if value != nil && r.opts.Holds == nil && live.GetAnnotations()[v1alpha1.AnnotationRestoring] != value { // else it goes on, and runs wait for it
			if err := r.undisturbed(ctx, live.GetAnnotations()[v1alpha1.AnnotationHeldBy]); err != nil {
				return err
			}
		}
		if value == nil { // it is whole, and is to run: what runs once held here ended with the epoch that they took
			if marks[v1alpha1.AnnotationHeldBy], err = r.holders(ctx, live.GetAnnotations()[v1alpha1.AnnotationHeldBy]); err != nil {
				return err
			}
		}
		patch, bad := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": live.GetResourceVersion(), "annotations": marks}})
		if bad != nil {
			return fmt.Errorf("encode annotation: %w", bad)
		}
		if _, err = own.Patch(ctx, served, at.Namespace, at.Name, patch); !apierrors.IsConflict(err) {
			return err
		}
	}
	return err
}

// holders are those runs that go on holding the application, as the annotation has them; nil: none does.
func (r *recovery) holders(ctx context.Context, names string) (any, error) {
	var all []string
	for _, run := range strings.FieldsFunc(names, func(c rune) bool { return c == ',' || c == ' ' }) {
		holds, err := r.holds(ctx, run)
		if err != nil {
			return nil, err
		}
		if holds {
			all = append(all, run)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return strings.Join(all, ","), nil
}

// holds tells whether a run holds the application at rest here in earnest. None does where another
// site has the epoch, or once this one has the next.
func (r *recovery) holds(ctx context.Context, run string) (bool, error) {
	switch {
	case r.opts.Holds != nil:
		return r.opts.Holds(ctx, run)
	case r.contested, r.opts.Ahead, !r.self().Made(r.catalog.current().Claim):
		return false, nil
	}
	return holder.Of(r.deps.Project, r.opts.Application, r.report.Epoch)(ctx, run)
}

// undisturbed refuses to run an application that a run holds at rest, to move it: the run may have
// captured its last write, and what is written from now on would be left behind. A take-over
// claims the next epoch instead, which the run can then not claim: its target may be lost. It does so
// before its mark is there, by which one that is given again knows that it goes on.
func (r *recovery) undisturbed(ctx context.Context, names string) error {
	held, err := r.holders(ctx, names)
	switch {
	case r.opts.Mode == v1alpha1.RestoreTakeOver && (held != nil || err != nil):
		r.contested = true
		return r.claim(ctx)
	case err != nil:
		return fmt.Errorf("%w: %w: take it out of the annotation %s if you made sure that it is over", ErrRefused, err, v1alpha1.AnnotationHeldBy)
	case held != nil:
		return fmt.Errorf("%w: run %s holds %s at rest here, to move it, and would leave behind what is written from now on: wait until it is over, take it back (davit runs rollback), or take the application from it (--take-over)", ErrRefused, held, r.opts.Application)
	}
	return nil
}

// objectsOf are the Applications that a name in the vault can stand for: see
// v1alpha1.Application.VaultName.
func objectsOf(app string) []types.NamespacedName {
	all := []types.NamespacedName{{Namespace: v1alpha1.SystemNamespace, Name: app}}
	if namespace, name, ok := strings.Cut(app, "."); ok {
		all = append(all, types.NamespacedName{Namespace: namespace, Name: name})
	}
	return all
}
