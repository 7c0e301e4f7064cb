package application

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/schedule"
)

func reasonOf(err error) string { return vaults.Reason(err) }

// summarize fills in the status and the metrics from the scope.
func (r *Reconciler) summarize(s *scope) {
	st := &s.app.Status
	st.ObservedGeneration = s.app.Generation
	st.Points, st.NewestPoint, st.NewestInstant = 0, "", nil
	var damaged []string
	for i := range s.points {
		rp := &s.points[i]
		if v := rp.Status.Verification; v != nil && v.Damaged {
			damaged = append(damaged, rp.Name)
		}
		if rp.Status.Phase != v1alpha1.PointAvailable || rp.Status.Instant == nil {
			continue
		}
		st.Points++
		if st.NewestInstant == nil || s.newer(rp.Status.Instant.Time, st.NewestInstant.Time) {
			st.NewestPoint, st.NewestInstant = rp.Name, rp.Status.Instant
		}
	}
	st.NewestInstant = st.NewestInstant.DeepCopy() // the answer to a patch is read into what it points to
	st.NextCapture = nil
	if s.next != nil {
		st.NextCapture = metaTime(*s.next)
	}
	protected := s.protected()
	s.say(protected)
	verified := s.verified(damaged)
	s.say(verified)
	tested := s.tested()
	s.say(tested)
	s.say(s.ready(protected, verified, tested))
	s.measure(len(damaged))
	s.measureFence()
	overdue := 0.0
	if verified.Reason == v1alpha1.ReasonOverdue {
		overdue = 1
	}
	measure.VerifyOverdue.WithLabelValues(s.app.VaultName()).Set(overdue)
	overdue = 0
	if tested.Reason == v1alpha1.ReasonOverdue {
		overdue = 1
	}
	measure.TestOverdue.WithLabelValues(s.app.VaultName()).Set(overdue)
}

// ahead is how much the clock that a point was captured by may be ahead of this one.
const ahead = time.Minute

// yetToCome tells an instant that only a clock that was wrong can have told.
func yetToCome(at, now time.Time) bool { return at.Sub(now) > ahead }

// newer tells whether a point is newer than another. One of an instant that is yet to
// come is older than all others: nobody knows its age, and it would hide that nothing follows.
func (s *scope) newer(at, than time.Time) bool {
	if a, b := yetToCome(at, s.now), yetToCome(than, s.now); a != b {
		return b
	}
	return at.After(than)
}

// say sets a condition.
func (s *scope) say(c metav1.Condition) {
	c.Message = cut(c.Message)
	meta.SetStatusCondition(&s.app.Status.Conditions, c)
}

// cut is a text, or as much of it as the status shows.
func cut(text string) string { return project.Cut(text) }

// protected compares the newest point's age with the objective.
func (s *scope) protected() metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionProtected, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, ObservedGeneration: s.app.Generation}
	st := &s.app.Status
	objective := s.objective()
	switch {
	case st.Role == v1alpha1.RoleSuperseded || st.Role == v1alpha1.RoleStandby:
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonSuperseded
		c.Message = s.holder() + " protects it"
	case st.NewestInstant == nil:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonNoPoint, errNoPoint.Error()
	case objective > 0 && yetToCome(st.NewestInstant.Time, s.now):
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonLagging
		c.Message = fmt.Sprintf("newest recovery point %s is of %s, which is yet to come: a clock was wrong, so that nobody knows how old it is", st.NewestPoint, st.NewestInstant.UTC().Format(time.RFC3339))
	case objective > 0 && s.now.Sub(st.NewestInstant.Time) > objective:
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonLagging
		c.Message = fmt.Sprintf("newest recovery point %s is older than the RPO objective of %s", st.NewestPoint, objective)
		if err := schedule.CheckObjective(objective, s.memory.gap, took(s.points)); err != nil && s.policy != nil && s.memory.table != nil {
			c.Message += ": " + err.Error()
		}
	case objective > 0:
		c.Message = fmt.Sprintf("newest recovery point is within the RPO objective of %s", objective)
	default:
		c.Message = "has a recovery point; no RPO objective is set"
	}
	return c
}

// took is how long the newest point's capture took from its instant until the
// point could be offered; 0 where that is not known.
func took(points []v1alpha1.RecoveryPoint) time.Duration {
	var newest *v1alpha1.RecoveryPointStatus
	for i := range points {
		st := &points[i].Status
		if st.Phase == v1alpha1.PointAvailable && st.Instant != nil && st.FinishedAt != nil && (newest == nil || newest.Instant.Before(st.Instant)) {
			newest = st
		}
	}
	if newest == nil {
		return 0
	}
	return max(newest.FinishedAt.Sub(newest.Instant.Time), 0)
}

func (s *scope) objective() time.Duration {
	if s.policy == nil || s.policy.Spec.Objectives.RPO == nil {
		return 0
	}
	return s.policy.Spec.Objectives.RPO.Duration
}

// ready folds everything into one answer.
func (s *scope) ready(protected, verified, tested metav1.Condition) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: protected.Message, ObservedGeneration: s.app.Generation}
	failed := newestFailure(s.points, s.now)
	switch {
	case s.problem != nil:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, s.problem.reason, s.problem.err.Error()
	case s.starting != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonProgressing, s.starting
	case s.app.Status.Role == v1alpha1.RoleStandby:
		c.Reason, c.Message = v1alpha1.ReasonSucceeded, "standing by: "+s.holder()+" runs it; when that is lost, davit restore "+s.app.VaultName()+" --take-over"
	case s.policy != nil && s.policy.Spec.Suspend:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonSuspended, "policy "+s.policy.Name+" is suspended: nothing is captured on schedule"
	case failed != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonCaptureFailed, failed
	case s.impossible != nil:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonImpossible, s.impossible.Error()
	case protected.Status != metav1.ConditionTrue:
		c.Status, c.Reason, c.Message = protected.Status, protected.Reason, protected.Message
	case verified.Status == metav1.ConditionFalse:
		c.Status, c.Reason, c.Message = verified.Status, verified.Reason, verified.Message
	case tested.Status == metav1.ConditionFalse:
		c.Status, c.Reason, c.Message = tested.Status, tested.Reason, tested.Message
	}
	return c
}

// newestFailure is why the newest capture failed, or empty if it did not.
func newestFailure(points []v1alpha1.RecoveryPoint, now time.Time) string {
	var newest *v1alpha1.RecoveryPoint
	for i := range points {
		rp := &points[i]
		if rp.Status.Phase != v1alpha1.PointFailed && rp.Status.Phase != v1alpha1.PointAvailable || yetToCome(started(rp), now) {
			continue
		}
		if newest == nil || started(newest).Before(started(rp)) {
			newest = rp
		}
	}
	if newest == nil || newest.Status.Phase != v1alpha1.PointFailed {
		return ""
	}
	if c := meta.FindStatusCondition(newest.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return newest.Name + ": " + c.Message
	}
	return newest.Name + ": capture failed"
}

// started is when work on the point began, or when it was asked for.
func started(rp *v1alpha1.RecoveryPoint) time.Time {
	if rp.Status.StartedAt != nil {
		return rp.Status.StartedAt.Time
	}
	return rp.CreationTimestamp.Time
}

func (s *scope) measure(damaged int) {
	name, st := s.app.VaultName(), &s.app.Status
	measure.Points.WithLabelValues(name).Set(float64(st.Points))
	measure.PointsDamaged.WithLabelValues(name).Set(float64(damaged))
	measure.BlocksDistrusted.WithLabelValues(name).Set(float64(len(s.app.Distrusted())))
	measure.Epoch.WithLabelValues(name).Set(float64(st.Epoch))
	for _, role := range []v1alpha1.Role{v1alpha1.RoleActive, v1alpha1.RoleSuperseded, v1alpha1.RoleStandby, v1alpha1.RoleUnknown} {
		is := 0.0
		if st.Role == role {
			is = 1
		}
		measure.Role.WithLabelValues(name, string(role)).Set(is)
	}
	if st.NewestInstant != nil {
		measure.NewestPointAge.WithLabelValues(name).Set(max(0, s.now.Sub(st.NewestInstant.Time).Seconds())) // the clock of who captured it may be ahead
	} else {
		measure.NewestPointAge.DeleteLabelValues(name)
	}
	if o := s.objective(); o > 0 && st.Role == v1alpha1.RoleActive {
		measure.RPOObjective.WithLabelValues(name).Set(o.Seconds())
	} else {
		measure.RPOObjective.DeleteLabelValues(name)
	}
}
