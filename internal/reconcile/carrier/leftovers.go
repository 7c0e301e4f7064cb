package carrier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordination "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/standby/errand"
)

// How long after a run's end what it left at this site is kept.
const (
	// keepLeases is short: they are listed every second, and the journal alone keeps
	// executors of one run apart.
	keepLeases = 24 * time.Hour
	// keepMarks is of the Jobs of steps, with what their pods say, and of the marks by which
	// a site knows old orders: a process that was paused for longer than this must not go on.
	keepMarks = 30 * 24 * time.Hour
)

// leftover is what a run left in davit-system of this cluster.
type leftover struct {
	object client.Object
	run    string
	keep   time.Duration
}

// clear removes what runs of this vault that ended long ago left in the cluster. What
// is of no run in the vault stays.
func (a *adopter) clear(ctx context.Context) error {
	all, err := a.leftovers(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	r := register.New(a.project)
	ended, err := r.Since(ctx, time.Time{})
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range all {
		// Of an older davit's objects nobody says which vault they are from: the run does.
		if of := l.object.GetLabels()[shape.LabelVault]; of != "" && of != a.vault {
			continue
		}
		at, ok := ended[l.run]
		if !ok || a.c.Now().Sub(at) < l.keep {
			continue
		}
		// Anybody who may write to the vault can put an object there; only who has the key can say
		// that a run is over.
		if over, err := r.Over(ctx, l.run); err != nil || !over {
			errs = append(errs, err)
			continue
		}
		uid, version := l.object.GetUID(), l.object.GetResourceVersion()
		err := a.c.Client.Delete(ctx, l.object, client.PropagationPolicy(metav1.DeletePropagationBackground),
			client.Preconditions{UID: &uid, ResourceVersion: &version})
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("remove what run %s left: %w", l.run, err))
		}
	}
	return errors.Join(errs...)
}

// leftovers are what any run may have left here.
func (a *adopter) leftovers(ctx context.Context) ([]leftover, error) {
	var all []leftover
	home := client.InNamespace(v1alpha1.SystemNamespace)
	var leases coordination.LeaseList
	if err := a.c.Reader.List(ctx, &leases, home); err != nil {
		return nil, fmt.Errorf("list leases of runs: %w", err)
	}
	for i := range leases.Items {
		l := &leases.Items[i]
		if run, ok := strings.CutPrefix(l.Name, leasePrefix); ok && !a.holds(l) {
			all = append(all, leftover{object: l, run: run, keep: keepLeases})
		}
	}
	names := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}}
	if err := a.c.Reader.List(ctx, &names, home); err != nil {
		return nil, fmt.Errorf("list notes of runs: %w", err)
	}
	for i := range names.Items {
		m := &names.Items[i]
		if run, ok := standby.NotesOf(m.Name, a.vault); ok {
			gone := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, Labels: m.Labels, UID: m.UID, ResourceVersion: m.ResourceVersion}}
			all = append(all, leftover{object: gone, run: run, keep: keepMarks})
		}
	}
	var jobs batchv1.JobList
	if err := a.c.Reader.List(ctx, &jobs, home, client.HasLabels{errand.LabelStep}); err != nil {
		return nil, fmt.Errorf("list Jobs of steps: %w", err)
	}
	for i := range jobs.Items {
		if run := jobs.Items[i].Annotations[errand.AnnotationRun]; run != "" {
			all = append(all, leftover{object: &jobs.Items[i], run: run, keep: keepMarks})
		}
	}
	return all, nil
}

// holds tells whether somebody may carry the Lease's run. Who died keeps it, and renews it no more.
func (a *adopter) holds(l *coordination.Lease) bool {
	renewed := l.Spec.RenewTime
	return l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" && (renewed == nil || a.c.Now().Sub(renewed.Time) < keepLeases)
}
