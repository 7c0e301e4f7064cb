package mover

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
)

func listFor(obj client.Object) client.ObjectList {
	if _, ok := obj.(*v1alpha1.VolumeTask); ok {
		return &v1alpha1.VolumeTaskList{}
	}
	return &corev1.PodList{}
}

// runTask orders the work, waits for it and removes the order. Removing it
// early is how the node is told to stop.
func (m *Mover) runTask(ctx context.Context, req Request, op v1alpha1.VolumeOperation, snap *point.Snapshot, at place) (res Result, err error) {
	task, err := req.task(op, snap, at)
	if err != nil {
		return Result{}, err
	}
	prepare(task)
	if err := m.createTask(ctx, req, task); err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, m.removeTask(ctx, task)) }()
	done, err := m.awaitTask(ctx, req, task)
	if err != nil {
		return Result{}, err
	}
	res.Warnings, res.Fetched = done.Status.Warnings, done.Status.BytesFetched
	if op == v1alpha1.VolumeRead {
		if err := json.Unmarshal([]byte(done.Status.Snapshot), &res.Snapshot); err != nil {
			return Result{}, fmt.Errorf("decode snapshot of task %s: %w", task.Name, err)
		}
	}
	return res, nil
}

const taskPrefix = "volume-"

func (r Request) taskParts(op v1alpha1.VolumeOperation) []string {
	return []string{r.Owner, string(op), r.Source, r.Namespace, r.Claim}
}

func (r Request) task(op v1alpha1.VolumeOperation, snap *point.Snapshot, at place) (*v1alpha1.VolumeTask, error) {
	var text string
	if snap != nil {
		data, err := json.Marshal(snap)
		if err != nil {
			return nil, fmt.Errorf("encode snapshot: %w", err)
		}
		text = string(data)
	}
	var cut *metav1.MicroTime
	if !r.Cut.IsZero() {
		cut = &metav1.MicroTime{Time: r.Cut.UTC().Truncate(time.Microsecond)}
	}
	var marks map[string]string
	if at.coming {
		marks = map[string]string{AwaitsMounts: "true"}
	}
	return &v1alpha1.VolumeTask{
		ObjectMeta: metav1.ObjectMeta{
			Annotations: marks,
			Namespace:   v1alpha1.SystemNamespace,
			Name:        taskPrefix + wide(r.taskParts(op)...),
			Labels:      r.labels(),
		},
		Spec: v1alpha1.VolumeTaskSpec{
			Node:             at.node,
			Operation:        op,
			Vault:            r.Vault,
			Site:             r.Site,
			Source:           r.Source,
			PodUID:           at.podUID,
			PersistentVolume: at.volume,
			HostPath:         at.hostPath,
			Live:             r.Live,
			Cut:              cut,
			Snapshot:         text,
			Blocks:           r.Blocks,
		},
	}, nil
}

// createTask makes the task, or goes on with the same one left by an earlier
// run. A finished or different one is replaced.
func (m *Mover) createTask(ctx context.Context, req Request, task *v1alpha1.VolumeTask) error {
	for {
		made := task.DeepCopy()
		err := m.system.Create(ctx, made)
		if err == nil {
			return m.begin(ctx, req, made)
		}
		if !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create volume task: %w", err)
		}
		var old v1alpha1.VolumeTask
		err = m.system.Get(ctx, client.ObjectKeyFromObject(task), &old)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("get volume task: %w", err)
		}
		if equality.Semantic.DeepEqual(old.Spec, task.Spec) && old.DeletionTimestamp.IsZero() && !finished(old.Status.Phase) {
			return m.begin(ctx, req, &old)
		}
		if err := m.deleteAndWait(ctx, m.system, &old); err != nil {
			return fmt.Errorf("remove old volume task: %w", err)
		}
	}
}

// takeOver removes what a version with shorter names has begun for the same writing, and died:
// under another name it would go on beside this, also when the workload runs, and keep a volume
// that one pod alone may use.
func (m *Mover) takeOver(ctx context.Context, req Request, op v1alpha1.VolumeOperation) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	task := &v1alpha1.VolumeTask{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: taskPrefix + digest(req.taskParts(op)...)}}
	if err := m.deleteAndWait(ctx, m.system, task); err != nil {
		return fmt.Errorf("remove volume task %s of an earlier version: %w", task.Name, err)
	}
	if !req.needsHolder() {
		return nil
	}
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = req.Namespace, holderPrefix+digest(req.Owner, req.Namespace, req.Claim)
	err := m.workload.Get(ctx, client.ObjectKeyFromObject(pod), pod)
	if err == nil && pod.Labels[v1alpha1.LabelManagedBy] == managedBy && pod.Labels[LabelOwner] == ownerLabel(req.Owner) {
		err = m.deleteAndWait(ctx, m.workload, pod)
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove holder pod %s/%s of an earlier version: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

func (m *Mover) removeTask(ctx context.Context, task *v1alpha1.VolumeTask) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := client.IgnoreNotFound(m.system.Delete(ctx, task)); err != nil {
		return fmt.Errorf("remove volume task %s: %w", task.Name, err)
	}
	return nil
}

// awaitTask follows the task to its end. Silence is measured by this
// process's clock from the last change it saw, so nodes' clocks do not matter.
func (m *Mover) awaitTask(ctx context.Context, req Request, task *v1alpha1.VolumeTask) (*v1alpha1.VolumeTask, error) {
	got := &v1alpha1.VolumeTask{}
	got.Namespace, got.Name = task.Namespace, task.Name
	var version, lie string
	heard, watch := m.opts.Now(), vigil{m: m}
	err := await(ctx, m.system, got, &v1alpha1.VolumeTaskList{}, func(exists bool) (bool, error) {
		if !exists {
			return false, fmt.Errorf("%w: task %s was removed by someone else", ErrTaskFailed, task.Name)
		}
		if got.ResourceVersion != version {
			version, heard, lie = got.ResourceVersion, m.opts.Now(), cmp.Or(got.Status.Distrusted, lie)
			req.report(got.Status)
		}
		switch got.Status.Phase {
		case v1alpha1.TaskSucceeded:
			return true, nil
		case v1alpha1.TaskFailed:
			err := fmt.Errorf("%w on node %s: %s", ErrTaskFailed, got.Spec.Node, got.Status.Message)
			if got.Status.NoAnswer {
				err = fmt.Errorf("%w: %w", ErrNoAnswer, err)
			}
			return false, err
		}
		silence := m.opts.Now().Sub(heard)
		if why := watch.lost(ctx, got.Spec.Node); why != "" && silence >= m.opts.NodeGrace {
			return false, m.orElsewhere(ctx, got.Spec.Node, fmt.Errorf("%w: %w: %s", ErrNoAnswer, ErrNoNodeProcess, why))
		}
		if silence < m.opts.SilenceTimeout {
			return false, nil
		}
		return false, m.silent(ctx, got)
	})
	if err != nil && lie != "" {
		err = &LiedError{Lie: lie, Err: err}
	}
	if err != nil {
		return nil, err
	}
	return got, nil
}

// LiedError says that a Read failed, and what had been found by then that the volume's storage called
// unchanged and was not.
type LiedError struct {
	Lie string
	Err error
}

func (e *LiedError) Error() string { return e.Err.Error() }

// Unwrap returns why the Read failed.
func (e *LiedError) Unwrap() error { return e.Err }

// silent explains a task that shows no life.
func (m *Mover) silent(ctx context.Context, task *v1alpha1.VolumeTask) error {
	reason, _, err := m.nodeProcess(ctx, task.Spec.Node)
	if err == nil && reason != "" {
		return fmt.Errorf("%w: %w on node %s: %s", ErrNoAnswer, ErrNoNodeProcess, task.Spec.Node, reason)
	}
	return fmt.Errorf("%w: %w: no sign of life for %s: see the log of the davit node pod on node %s", ErrNoAnswer, ErrTaskFailed, m.opts.SilenceTimeout, task.Spec.Node)
}

func (r Request) report(s v1alpha1.VolumeTaskStatus) {
	if r.Progress != nil && s.Phase != "" {
		r.Progress(Progress{BytesDone: s.BytesDone, BytesTotal: s.BytesTotal, FilesDone: s.FilesDone})
	}
}

// Sweep removes the holder pods and tasks that a dead run of the owner left.
// With an empty owner it removes everybody's: only when nothing runs.
func (m *Mover) Sweep(ctx context.Context, owner string) error {
	labels := client.MatchingLabels{v1alpha1.LabelManagedBy: managedBy}
	if owner != "" {
		labels[LabelOwner] = ownerLabel(owner)
	}
	var errs []error
	var tasks v1alpha1.VolumeTaskList
	if err := m.system.List(ctx, &tasks, client.InNamespace(v1alpha1.SystemNamespace), labels, client.HasLabels{LabelOwner}); err != nil {
		errs = append(errs, fmt.Errorf("list volume tasks: %w", err))
	}
	for i := range tasks.Items {
		errs = append(errs, client.IgnoreNotFound(m.system.Delete(ctx, &tasks.Items[i])))
	}
	var pods corev1.PodList
	if err := m.workload.List(ctx, &pods, labels, client.HasLabels{LabelOwner}); err != nil {
		errs = append(errs, fmt.Errorf("list holder pods: %w", err))
	}
	for i := range pods.Items {
		errs = append(errs, client.IgnoreNotFound(m.workload.Delete(ctx, &pods.Items[i])))
	}
	return errors.Join(errs...)
}

// SweepReads removes the holder pods in davit-system and the Read tasks of
// captures that died. running returns the owners that are alive; it is asked
// after the leftovers were listed, so that a new one is not taken for dead.
func (m *Mover) SweepReads(ctx context.Context, running func(context.Context) ([]string, error)) error {
	where := []client.ListOption{client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels{v1alpha1.LabelManagedBy: managedBy}, client.HasLabels{LabelOwner}}
	var tasks v1alpha1.VolumeTaskList
	if err := m.system.List(ctx, &tasks, where...); err != nil {
		return fmt.Errorf("list volume tasks: %w", err)
	}
	var pods corev1.PodList
	if err := m.workload.List(ctx, &pods, where...); err != nil {
		return fmt.Errorf("list holder pods: %w", err)
	}
	owners, err := running(ctx)
	if err != nil {
		return err
	}
	alive := map[string]bool{}
	for _, owner := range owners {
		alive[ownerLabel(owner)] = true
	}
	var errs []error
	for i := range tasks.Items {
		if t := &tasks.Items[i]; t.Spec.Operation == v1alpha1.VolumeRead && !alive[t.Labels[LabelOwner]] {
			errs = append(errs, client.IgnoreNotFound(m.system.Delete(ctx, t)))
		}
	}
	for i := range pods.Items {
		if !alive[pods.Items[i].Labels[LabelOwner]] {
			errs = append(errs, client.IgnoreNotFound(m.workload.Delete(ctx, &pods.Items[i])))
		}
	}
	return errors.Join(errs...)
}

// finished tells whether the node process is done with a task. Its result
// belongs to the run that asked: the volume may have been written since.
func finished(phase v1alpha1.TaskPhase) bool {
	return phase == v1alpha1.TaskSucceeded || phase == v1alpha1.TaskFailed
}
