package application

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/schedule"
)

const (
	// retryAfter is when a failed scheduled capture is tried again, if its
	// schedule does not come sooner.
	retryAfter = time.Minute
	// keepFailed is how many failed points stay to be looked at.
	keepFailed = 5
)

// schedule asks for a capture when one is due.
func (r *Reconciler) schedule(ctx context.Context, s *scope) error {
	if err := r.forgetFailures(ctx, s); err != nil {
		return err
	}
	if err := protection.Restoring(s.app); err != nil {
		s.fail(v1alpha1.ReasonProgressing, err)
		return nil
	}
	if s.policy == nil || s.policy.Spec.Suspend || s.standing.Role != v1alpha1.RoleActive {
		return nil
	}
	table, gap, err := s.timetable()
	if err != nil {
		s.fail(v1alpha1.ReasonInvalid, err)
		return nil
	}
	if err := schedule.CheckObjective(s.objective(), gap, 0); err != nil {
		// Said, and captured all the same: better late points than none.
		s.impossible = fmt.Errorf("policy %s: %w", s.policy.Name, err)
	}
	last, failed := lastScheduled(s.points, s.memory.started, s.now)
	next := nextCapture(table, last, failed, s.app.CreationTimestamp.Time, s.now)
	s.next = next
	if next == nil || next.After(s.now) {
		return nil
	}
	for i := range s.points {
		if active(&s.points[i]) {
			r.skip(s, s.points[i].Name, last)
			return nil
		}
	}
	if err := r.request(ctx, s); err != nil {
		return err
	}
	s.next = nextCapture(table, s.now, false, s.app.CreationTimestamp.Time, s.now)
	return nil
}

// timetable reads the policy's schedule, and how far apart its captures are at
// most. Both are kept, as the latter takes some counting.
func (s *scope) timetable() (*schedule.Table, time.Duration, error) {
	spec, m := s.policy.Spec.Schedule, s.memory
	every := time.Duration(0)
	if spec.Every != nil {
		every = spec.Every.Duration
	}
	key := fmt.Sprint(every, " ", spec.Cron, " ", spec.TimeZone)
	if m.tableOf != key {
		table, err := schedule.Parse(every, spec.Cron, spec.TimeZone)
		if err != nil {
			return nil, 0, fmt.Errorf("policy %s: %w", s.policy.Name, err)
		}
		m.tableOf, m.table, m.gap = key, table, 0
		if table != nil {
			m.gap = table.LongestGap(s.now)
		}
	}
	return m.table, m.gap, nil
}

// nextCapture is when the schedule asks for the next point; nil means never.
// A slot that was missed is made up for at once, and only once.
func nextCapture(table *schedule.Table, last time.Time, failed bool, created, now time.Time) *time.Time {
	if table == nil {
		return nil
	}
	next := table.Next(last, created, now)
	if next.IsZero() { // a day that never comes
		return nil
	}
	if retry := last.Add(retryAfter); failed && retry.Before(next) {
		next = retry
	}
	return &next
}

// lastScheduled is when the schedule last started a capture, and whether it
// failed. remembered is what this process knows, as caches lag. What was started at a time
// that is yet to come was so by a clock that was wrong, and would put off all others till then;
// one that is a little ahead, as the leader's before this one, is none.
func lastScheduled(points []v1alpha1.RecoveryPoint, remembered, now time.Time) (at time.Time, failed bool) {
	if !yetToCome(remembered, now) {
		at = remembered
	}
	for i := range points {
		rp := &points[i]
		if rp.Spec.Trigger != v1alpha1.TriggerSchedule {
			continue
		}
		if begun := asked(rp); !begun.Before(at) && !yetToCome(begun, now) {
			at, failed = begun, rp.Status.Phase == v1alpha1.PointFailed
		}
	}
	return at, failed
}

// asked is when a point was asked for: its name says so more exactly, and also
// for one that was made at another site.
func asked(rp *v1alpha1.RecoveryPoint) time.Time {
	if at, ok := point.IDTime(rp.Name); ok {
		return at
	}
	return rp.CreationTimestamp.Time
}

// skip leaves a slot out because the previous capture still runs, and says so
// once for each slot.
func (r *Reconciler) skip(s *scope, running string, last time.Time) {
	slot := *s.next
	if every := s.policy.Spec.Schedule.Every; every != nil && every.Duration > 0 && !last.IsZero() {
		slot = last.Add(s.now.Sub(last).Truncate(every.Duration))
	}
	if slot.Equal(s.memory.skippedFor) {
		return
	}
	s.memory.skippedFor = slot
	measure.Skipped.WithLabelValues(s.app.VaultName()).Inc()
	r.Events.Eventf(s.app, corev1.EventTypeWarning, "CaptureSkipped", "the capture due at %s is left out: %s is still being captured", slot.UTC().Format(time.RFC3339), running)
}

// request creates the RecoveryPoint object that its reconciler takes up.
func (r *Reconciler) request(ctx context.Context, s *scope) error {
	id, err := s.protector.NewPointID(s.app.VaultName())
	if err != nil {
		return err
	}
	rp := &v1alpha1.RecoveryPoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.app.Namespace, Name: id},
		Spec:       v1alpha1.RecoveryPointSpec{Application: s.app.Name, Trigger: v1alpha1.TriggerSchedule},
	}
	project.Label(rp, s.app.Spec.Vault, s.app.VaultName())
	if err := r.Client.Create(ctx, rp); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("ask for recovery point: %w", err)
	}
	s.memory.started = s.now
	return nil
}

// forgetFailures removes the oldest failed points, and before them those that are yet to
// come: they would have every new one removed, unseen.
func (r *Reconciler) forgetFailures(ctx context.Context, s *scope) error {
	var failed []*v1alpha1.RecoveryPoint
	for i := range s.points {
		if s.points[i].Status.Phase == v1alpha1.PointFailed {
			failed = append(failed, &s.points[i])
		}
	}
	for len(failed) > keepFailed {
		oldest := 0
		for i := range failed {
			if s.newer(started(failed[oldest]), started(failed[i])) {
				oldest = i
			}
		}
		if err := r.Client.Delete(ctx, failed[oldest]); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove failed point: %w", err)
		}
		failed = append(failed[:oldest], failed[oldest+1:]...)
	}
	return nil
}
