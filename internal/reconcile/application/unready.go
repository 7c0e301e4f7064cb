package application

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence/lifting"
	"davit.dev/davit/internal/restore/shape"
)

// unreadyFor is how long pods of a workload must have been as they are for it to count as one
// that is not ready by itself: what is about to stop it may have begun elsewhere.
const unreadyFor = time.Minute

// late is why a workload that runs is not ready; empty if it is, or if none can be.
func late(k *kind, o client.Object) string {
	d, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil { // of what the API server gave, it never does
		return "it cannot be read: " + err.Error()
	}
	return shape.Lacks(schema.GroupKind{Group: k.group, Kind: k.name}, d)
}

// nameOf names an object of the kind for people.
func (k *kind) nameOf(o client.Object) string {
	return k.name + " " + o.GetNamespace() + "/" + o.GetName()
}

// unready says of the application's workloads that run, by their names, which have not been ready
// for a while, and why: who starts them again need not wait for them. Where a node stops the
// application already, or nobody knows, or something of it was stopped at an earlier try, none has: that
// may be what they lack.
func (f fencer) unready(ctx context.Context, app *v1alpha1.Application, w *world) map[string]string {
	now, all := f.now(), map[string]string{}
	for i := range w.kinds {
		k := &w.kinds[i]
		for _, o := range k.objects {
			if isHalted(o) {
				return nil
			}
			if why := late(k, o); why != "" && k.runs(o) && w.lastingly(o, now.Add(-unreadyFor)) {
				all[k.nameOf(o)] = why
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	var reports v1alpha1.NodeFenceList
	err := f.reader.List(ctx, &reports, client.InNamespace(v1alpha1.SystemNamespace))
	if err != nil || len(lifting.Keepers(reports.Items, app.VaultName(), now)) > 0 {
		return nil
	}
	return all
}

// wasUnready tells whether a workload, by its name, was started again as one that had not been ready.
func wasUnready(rest *v1alpha1.RestStatus, name string) bool {
	return rest != nil && slices.ContainsFunc(rest.Unready, func(one string) bool { return strings.HasPrefix(one, name+": ") })
}

// lastingly tells whether a pod of a workload has not been ready since a time, and none of its pods
// has changed in that. One without pods may have been made just now.
func (w *world) lastingly(o client.Object, since time.Time) bool {
	d, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return false
	}
	text, err := shape.SelectorOf(d)
	if err != nil {
		return false
	}
	selector, err := labels.Parse(text)
	if err != nil {
		return false
	}
	found := false
	for _, p := range w.pods {
		if p.Namespace != o.GetNamespace() || !selector.Matches(labels.Set(p.Labels)) || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		ready, changed := false, p.CreationTimestamp.Time
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady {
				ready = c.Status == corev1.ConditionTrue
				if c.LastTransitionTime.After(changed) {
					changed = c.LastTransitionTime.Time
				}
			}
		}
		if changed.After(since) {
			return false
		}
		found = found || !ready
	}
	return found
}
