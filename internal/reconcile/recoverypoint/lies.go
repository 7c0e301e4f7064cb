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
// next one believes the storage again. A point that lacks a volume says nothing of it, unless it is one
// without the option, by which a person trusts all of them again.
func (r *Reconciler) noteLies(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *subject, m *point.Manifest, failed error) {
	known := s.app.Distrusted()
	found := map[string]string{}
	maps.Copy(found, known)
	told := found
	var lied *protection.LiedError
	switch {
	case errors.As(failed, &lied):
		maps.Copy(found, lied.Volumes)
	case failed != nil || rp.Spec.Diverged:
		return
	default:
		if s.app.Spec.Volumes.ChangedBlocks != v1alpha1.ChangedBlocksAuto {
			clear(found)
		}
		for _, v := range m.Volumes {
			delete(found, v.Namespace+"/"+v.Claim)
		}
		told = protection.LiesOf(m.Volumes)
		maps.Copy(found, told)
	}
	for _, key := range slices.Sorted(maps.Keys(told)) {
		r.Events.Eventf(rp, corev1.EventTypeWarning, "StorageLied", "claim %s: its driver called blocks unchanged that were not: %s", key, told[key])
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
