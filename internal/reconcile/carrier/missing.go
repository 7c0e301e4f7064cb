package carrier

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
)

// askEvery is how often the note of a run that has no journal is looked at.
const askEvery = time.Minute

// missing sees to a run that has no journal. Its executor may be about to open it,
// or may have died before; or the journal is gone.
func (d *desk) missing(ctx context.Context, f *followed) error {
	if f.order != nil || f.mine() {
		return nil
	}
	now := d.c.Now()
	if f.missed.IsZero() {
		f.missed = now
	}
	if !f.asked.IsZero() && now.Sub(f.asked) < askEvery {
		return nil
	}
	noted, err := d.noted(ctx, f.run)
	if err != nil {
		return err
	}
	f.asked = now
	if noted {
		return nil
	}
	return d.gone(ctx, f)
}

// noted tells whether the register has a run as under way. A note that is too old
// to be of a run about to begin is taken away by the run's target: the clocks of
// the others need not be right, and nor need that of who wrote it, so the vault's
// decides.
func (d *desk) noted(ctx context.Context, run string) (bool, error) {
	r := register.New(d.project)
	note, err := r.Note(ctx, run)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return false, nil
	case err != nil && !register.Unreadable(err):
		return false, err
	case err == nil && note.To != d.c.Site:
		return true, nil
	}
	age, err := r.Age(ctx, run)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case age <= StartWithin:
		return true, nil
	}
	return false, r.Forget(ctx, run)
}

// gone ends what is seen of a run that has neither journal nor note. Its object
// says so once the journal was missing for long enough.
func (d *desk) gone(ctx context.Context, f *followed) error {
	var o v1alpha1.Run
	err := d.c.Client.Get(ctx, client.ObjectKey{Name: f.run}, &o)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return err
	case err == nil && !ended(&o):
		if d.c.Now().Sub(f.missed) <= StartWithin {
			return nil
		}
		if err := d.bury(ctx, &o); err != nil {
			return err
		}
	}
	delete(d.runs, f.run)
	return nil
}

// bury says in an object that nobody will ever know how its run went on.
func (d *desk) bury(ctx context.Context, o *v1alpha1.Run) error {
	old, now := o.DeepCopy(), metav1.NewTime(d.c.Now())
	o.Status.Phase, o.Status.EndedAt = string(failover.Failed), &now
	o.Status.Why = "its journal is gone from the vault: how the run went on is not known"
	o.Status.Next = "`davit status` shows where the applications are; if nobody replaced the vault, find out who deleted the journal; then take this object away: `kubectl delete run " + o.Name + "`"
	meta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionSucceeded, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonDamaged, Message: o.Status.Why, ObservedGeneration: o.Generation,
	})
	if err := d.c.Client.Status().Patch(ctx, o, client.MergeFrom(old)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("show that the journal of run %s is gone: %w", o.Name, err)
	}
	d.c.Events.Event(o, corev1.EventTypeWarning, "JournalGone", o.Status.Why)
	return nil
}
