package recoverypoint

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
)

// noteFor bounds the writing of what was found, also while the agent ends.
const noteFor = 20 * time.Second

// noteLies keeps on the Application what a capture found of its volumes' storage. The point says so
// too, if there is one: what a capture finds that fails must outlive the agent, or the
// next one believes the storage again.
func (r *Reconciler) noteLies(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *subject, m *point.Manifest, failed error) {
	known := s.app.Distrusted()
	found := maps.Clone(known)
	var lied *protection.LiedError
	switch {
	case errors.As(failed, &lied):
		if found == nil {
			found = map[string]string{}
		}
		maps.Copy(found, lied.Volumes)
	case failed != nil || rp.Spec.Diverged:
		return
	default:
		found = protection.LiesOf(m.Volumes)
	}
	for _, key := range slices.Sorted(maps.Keys(found)) {
		r.Events.Eventf(rp, corev1.EventTypeWarning, "StorageLied", "claim %s: its driver called blocks unchanged that were not: %s", key, found[key])
	}
	if maps.Equal(known, found) {
		return
	}
	app := s.app.DeepCopy()
	if delete(app.Annotations, v1alpha1.AnnotationDistrusted); len(found) > 0 {
		text, err := json.Marshal(found)
		if err != nil {
			return // maps of strings always encode
		}
		if app.Annotations == nil {
			app.Annotations = map[string]string{}
		}
		app.Annotations[v1alpha1.AnnotationDistrusted] = string(text)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteFor)
	defer cancel()
	if err := r.Client.Patch(ctx, app, client.MergeFrom(&s.app)); client.IgnoreNotFound(err) != nil {
		log.FromContext(ctx).Error(err, "what was found of volumes' storage is not noted on the application")
	}
}
