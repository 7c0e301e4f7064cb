package application

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
)

// lateBy is how late a proof may be before it counts as overdue.
const lateBy = time.Hour

// verified says whether the application's points stand as its policy asks.
// Damage is told whether or not a policy asked for the look.
func (s *scope) verified(damaged []string) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionVerified, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotVerified, ObservedGeneration: s.app.Generation}
	asked := s.policy != nil && s.policy.Spec.Verify != nil && s.app.Status.Role == v1alpha1.RoleActive
	last := s.app.Status.Verification
	switch {
	case len(damaged) > 0:
		slices.Sort(damaged)
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonDamaged
		c.Message = fmt.Sprintf("damaged in the vault, and not offered: %s; capture anew, find out what harmed the store, then delete them", shortList(damaged))
	case asked && last != nil && len(last.DamagedBlobs) > 0:
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonDamaged
		c.Message = fmt.Sprintf("blobs of volume data are not as they were written, and no second copy could mend them: %s; davit verify POINT says which points they hurt", shortList(last.DamagedBlobs))
	case asked && damagedCopy(last) != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonDamaged, damagedCopy(last)
	case !asked:
		c.Message = "the policy asks for no verification"
	case s.app.Status.Points == 0:
		c.Message = "there is no recovery point to read back"
	case last != nil && last.Next != nil && s.now.Sub(last.Next.Time) > lateBy:
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonOverdue
		c.Message = "verification was due at " + last.Next.UTC().Format(time.RFC3339)
		if last.Error != "" {
			c.Message += ": " + last.Error
		}
	case last == nil || last.At == nil:
		c.Message = "nothing has been read back yet"
	default:
		c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.ReasonSucceeded
		c.Message = fmt.Sprintf("%s read back (%s): %s", last.At.UTC().Format(time.RFC3339), last.How, shortList(last.Points))
	}
	return c
}

// damagedCopy says which second copy is damaged beyond what the first vault could
// mend; "" for none.
func damagedCopy(v *v1alpha1.VerificationStatus) string {
	if v == nil {
		return ""
	}
	for _, c := range v.Copies {
		if damage := append(slices.Clone(c.Damaged), c.DamagedBlobs...); len(damage) > 0 {
			return fmt.Sprintf("second copy %s is damaged, and the first vault could not mend it: %s; find out what harmed its store", c.Vault, shortList(damage))
		}
	}
	return ""
}

// shortList bounds what a message names.
func shortList(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// tested says whether the application comes up from its recovery points, as its
// policy asks to find out.
func (s *scope) tested() metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionTested, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotVerified, ObservedGeneration: s.app.Generation}
	last := s.app.Status.RestoreTest
	switch {
	case s.policy == nil || s.policy.Spec.RestoreTest == nil || s.app.Status.Role != v1alpha1.RoleActive:
		c.Message = "the policy asks for no restore test"
	case s.app.Status.Points == 0:
		c.Message = "there is no recovery point to restore"
	case last != nil && last.At != nil && last.Unproven != "":
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonNothingProven
		c.Message = fmt.Sprintf("%s, restored from %s, and nothing is proven: %s", last.At.UTC().Format(time.RFC3339), last.Point, last.Unproven)
	case last != nil && last.At != nil && !last.Passed:
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonTestFailed
		c.Message = fmt.Sprintf("%s, restored from %s: %s", last.At.UTC().Format(time.RFC3339), last.Point, last.Message)
	case last != nil && last.Running == nil && last.Next != nil && s.now.Sub(last.Next.Time) > lateBy:
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonOverdue
		c.Message = "a restore test was due at " + last.Next.UTC().Format(time.RFC3339)
		if last.Error != "" {
			c.Message += ": " + last.Error
		}
	case last == nil || last.At == nil:
		c.Message = "nothing has been restored for a test yet"
	case s.tooSlow(last):
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonTooSlow
		c.Message = fmt.Sprintf("%s, restored from %s: it worked after %s, and the RTO objective is %s",
			last.At.UTC().Format(time.RFC3339), last.Point, last.RTO.Duration, s.policy.Spec.Objectives.RTO.Duration)
	default:
		c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.ReasonSucceeded
		c.Message = fmt.Sprintf("%s, restored from %s: it worked", last.At.UTC().Format(time.RFC3339), last.Point)
		if last.RTO != nil {
			c.Message += " after " + last.RTO.Duration.String()
		}
	}
	return c
}

// tooSlow tells whether the last copy worked later than the objective allows.
func (s *scope) tooSlow(last *v1alpha1.RestoreTestStatus) bool {
	objective := s.policy.Spec.Objectives.RTO
	return objective != nil && objective.Duration > 0 && last.RTO != nil && last.RTO.Duration > objective.Duration
}
