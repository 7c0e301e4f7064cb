package mover

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// A process may stand still for longer than it takes another to fill the volume and to start
// what runs on it. So a task that writes is made prepared: no node begins it, and all can
// see it. It begins by a change that the API server refuses if anybody has touched it,
// after a look whether the volume is its maker's still. Whoever is to fill a volume removes what others have
// prepared for it.
const (
	// AnnotationState is AwaitsBegin on a task that no node may begin yet. Tasks without it begin
	// when they are made.
	AnnotationState = "davit.dev/task-state"
	AwaitsBegin     = "prepared"
	// labelVolume is the volume of a task that writes.
	labelVolume = "davit.dev/volume"
)

// beginTries are how often a task that others change is begun.
const beginTries = 10

// Prepared tells whether a task must not be begun yet.
func Prepared(task *v1alpha1.VolumeTask) bool {
	return task.Annotations[AnnotationState] == AwaitsBegin
}

// prepare makes a task one that is to be begun, if it writes.
func prepare(task *v1alpha1.VolumeTask) {
	if task.Spec.Operation != v1alpha1.VolumeWrite {
		return
	}
	if task.Annotations == nil {
		task.Annotations = map[string]string{}
	}
	task.Annotations[AnnotationState] = AwaitsBegin
	at := []string{task.Spec.PersistentVolume}
	if at[0] == "" { // a directory of the node
		at = []string{task.Spec.Node, task.Spec.HostPath}
	}
	task.Labels[labelVolume] = digest(at...)
}

// begin lets a task run that was made or found, as it was then.
func (m *Mover) begin(ctx context.Context, req Request, task *v1alpha1.VolumeTask) error {
	for range beginTries {
		if !Prepared(task) {
			return nil
		}
		if err := m.withdrawOthers(ctx, task); err != nil {
			return err
		}
		if req.Still != nil {
			if err := req.Still(ctx); err != nil {
				return fmt.Errorf("begin volume task %s: %w", task.Name, err)
			}
		}
		begun := task.DeepCopy()
		delete(begun.Annotations, AnnotationState)
		err := m.system.Patch(ctx, begun, client.MergeFromWithOptions(task, client.MergeFromWithOptimisticLock{}))
		switch {
		case err == nil:
			return nil
		case apierrors.IsNotFound(err):
			return fmt.Errorf("%w: task %s was removed by someone else before it had begun", ErrTaskFailed, task.Name)
		case !apierrors.IsConflict(err):
			return fmt.Errorf("begin volume task %s: %w", task.Name, err)
		}
		if err := m.system.Get(ctx, client.ObjectKeyFromObject(task), task); err != nil {
			return fmt.Errorf("look at volume task %s: %w", task.Name, err)
		}
	}
	return fmt.Errorf("%w: task %s changes faster than it can be begun", ErrTaskFailed, task.Name)
}

// withdrawOthers removes what others have prepared for the same volume and not begun: whoever
// made it may stand still, and would begin it when what runs on the volume has started.
func (m *Mover) withdrawOthers(ctx context.Context, own *v1alpha1.VolumeTask) error {
	var tasks v1alpha1.VolumeTaskList
	err := m.system.List(ctx, &tasks, client.InNamespace(own.Namespace), client.MatchingLabels{labelVolume: own.Labels[labelVolume]})
	if err != nil {
		return fmt.Errorf("list volume tasks: %w", err)
	}
	var errs []error
	for i := range tasks.Items {
		t := &tasks.Items[i]
		if t.UID == own.UID || !Prepared(t) {
			continue
		}
		err := m.system.Delete(ctx, t, client.Preconditions{UID: &t.UID, ResourceVersion: &t.ResourceVersion})
		if client.IgnoreNotFound(err) != nil { // a conflict says that it has begun just now
			errs = append(errs, fmt.Errorf("withdraw volume task %s: %w", t.Name, err))
		}
	}
	return errors.Join(errs...)
}
