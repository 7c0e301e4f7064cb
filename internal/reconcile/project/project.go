// Package project turns what the vault knows of a recovery point into the
// RecoveryPoint object that shows it. The object is a view: removing it loses
// nothing, and the agent makes it again from the vault.
package project

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// Labels and annotations of RecoveryPoint objects.
const (
	// LabelVault names the Vault that holds the point.
	LabelVault = shape.LabelVault
	// AnnotationFromVault marks an object that was made from the vault, and so
	// asks for no capture.
	AnnotationFromVault = "davit.dev/from-vault"
	// AnnotationShown is, on a Vault, when the recovery points were listed in it that the
	// cluster shows now, in RFC 3339.
	AnnotationShown = "davit.dev/points-shown"
	// AnnotationPinned is what the vault last said about the pin.
	AnnotationPinned = "davit.dev/pinned-in-vault"
	// AnnotationDelete asks to delete the point from the vault: "true", or
	// "last-good" to allow it for the application's last good point too.
	// Removing the object alone does not.
	AnnotationDelete = "davit.dev/delete-from-vault"
	// AnnotationRestarted names the point that was started instead of one
	// whose capture was interrupted.
	AnnotationRestarted = "davit.dev/restarted-as"
)

// mostSaid is how much of a text a status shows: the API server takes 32 KiB in a condition, and
// refuses all of the status for one that is longer, which then says what it said before.
const mostSaid = 8 << 10

// Cut is a text, or as much of it as a status shows.
func Cut(text string) string {
	if len(text) <= mostSaid {
		return text
	}
	return strings.ToValidUTF8(text[:mostSaid], "") + " [and more]"
}

// Label sets the labels by which points are found.
func Label(rp *v1alpha1.RecoveryPoint, vaultName, app string) {
	if rp.Labels == nil {
		rp.Labels = map[string]string{}
	}
	rp.Labels[LabelVault] = vaultName
	rp.Labels[v1alpha1.LabelApplication] = LabelValue(app)
	rp.Labels[v1alpha1.LabelManagedBy] = "davit"
}

// Application is the name in the vault of the application that a point is of.
func Application(rp *v1alpha1.RecoveryPoint) string {
	app := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: rp.Namespace, Name: rp.Spec.Application}}
	return app.VaultName()
}

// LabelValue shortens a name to what a label may hold.
func LabelValue(name string) string {
	if len(name) > 63 {
		return name[:60] + "xxx"
	}
	return name
}

// Trigger says who asked for the point.
func Trigger(info vault.PointInfo) v1alpha1.PointTrigger {
	if info.Manifest != nil && info.Manifest.Trigger == "schedule" {
		return v1alpha1.TriggerSchedule
	}
	return v1alpha1.TriggerManual
}

// Status fills in the object's status.
func Status(rp *v1alpha1.RecoveryPoint, info vault.PointInfo, p point.Point) {
	s := &rp.Status
	s.Step = ""
	if m := info.Manifest; m != nil {
		Manifest(s, m)
	}
	s.Phase = phase(p)
	s.Verification, s.RestoreTest = verification(info), pointTest(info)
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: "may be offered"}
	switch {
	case info.Err != nil:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, v1alpha1.ReasonDamaged, info.Err.Error()
	case p.Quarantined && !info.Quarantined():
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, v1alpha1.ReasonSuperseded, "written under an epoch that was superseded: never offered by itself"
	case p.Quarantined:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, v1alpha1.ReasonDamaged, "marked as quarantined"
		if s.Verification != nil {
			ready.Message = s.Verification.Message
		}
	case p.Deleting:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, v1alpha1.ReasonProgressing, "being deleted"
	}
	ready.Message = Cut(ready.Message)
	meta.SetStatusCondition(&s.Conditions, ready)
	verified := metav1.Condition{Type: v1alpha1.ConditionVerified, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotVerified, Message: "nothing has read it back yet"}
	if v := s.Verification; v != nil {
		verified.Status, verified.Reason, verified.Message = metav1.ConditionTrue, v1alpha1.ReasonSucceeded, v.Message
		if v.Damaged {
			verified.Status, verified.Reason = metav1.ConditionFalse, v1alpha1.ReasonDamaged
		}
	}
	verified.Message = Cut(verified.Message)
	meta.SetStatusCondition(&s.Conditions, verified)
}

// ConditionRead is true while somebody reads the point, and keeps it from being
// removed. It is missing from one that nobody reads.
const ConditionRead = "BeingRead"

// Readers shows who of all readers reads the point.
func Readers(rp *v1alpha1.RecoveryPoint, app string, all []reading.Reader) {
	var texts []string
	for _, r := range all {
		if r.Application == app && r.Point == rp.Name {
			texts = append(texts, r.String())
		}
	}
	if len(texts) == 0 {
		meta.RemoveStatusCondition(&rp.Status.Conditions, ConditionRead)
		return
	}
	slices.Sort(texts)
	meta.SetStatusCondition(&rp.Status.Conditions, metav1.Condition{
		Type: ConditionRead, Status: metav1.ConditionTrue, Reason: "Reading", Message: Cut(strings.Join(texts, "; ")),
	})
}

func phase(p point.Point) v1alpha1.PointPhase {
	switch {
	case p.Deleting:
		return v1alpha1.PointDeleting
	case p.Quarantined, p.Damaged:
		return v1alpha1.PointQuarantined
	}
	return v1alpha1.PointAvailable
}

// verification is the newest verdict of something that read the point back.
func verification(info vault.PointInfo) *v1alpha1.Verification {
	for _, m := range slices.Backward(info.Marks) { // newest first
		damaged := m.OfBytes()
		if m.Kind == vault.MarkVerified || damaged {
			return &v1alpha1.Verification{At: metav1.NewTime(m.At), How: cmp.Or(m.How, v1alpha1.ProvenFull), Damaged: damaged, Message: m.Note}
		}
	}
	return nil
}

// pointTest is the verdict of the newest restore test.
func pointTest(info vault.PointInfo) *v1alpha1.PointTest {
	m := info.Tested()
	if m == nil {
		return nil
	}
	t := &v1alpha1.PointTest{At: metav1.NewTime(m.At), Passed: m.Kind == vault.MarkVerified, Message: m.Note}
	if m.RTO > 0 {
		t.RTO = &metav1.Duration{Duration: m.RTO.Round(time.Millisecond)}
	}
	return t
}

// Manifest copies what people want to see of a manifest.
func Manifest(s *v1alpha1.RecoveryPointStatus, m *point.Manifest) {
	s.Site, s.Epoch = m.Site, m.Epoch
	s.Instant, s.StartedAt, s.FinishedAt = seconds(m.Instant), seconds(m.StartedAt), seconds(m.FinishedAt)
	s.Consistency = string(m.Consistency)
	if f := m.Freeze; f != nil {
		s.Freeze = &v1alpha1.PointFreeze{Held: f.Held, Reason: f.Reason}
		if f.Frozen > 0 {
			s.Freeze.Frozen = &metav1.Duration{Duration: f.Frozen}
		}
	}
	if q := m.Quiesce; q != nil {
		s.Quiesce = &v1alpha1.PointQuiesce{Held: q.Held, Reason: q.Reason}
		if q.Rested > 0 {
			s.Quiesce.Rested = &metav1.Duration{Duration: q.Rested}
		}
	}
	s.Namespaces = m.Namespaces
	s.Objects, s.Volumes = m.Objects, int64(len(m.Volumes))
	s.Bytes, s.StoredBytes = m.Bytes, m.StoredBytes
	s.Warnings = int64(len(m.Warnings))
}

// seconds is how the API server keeps times.
func seconds(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.Truncate(time.Second)}
}
