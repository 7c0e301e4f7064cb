package restore

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/standstill"
	"davit.dev/davit/internal/restore/vacancy"
)

// stage stops and starts what uses volumes.
func (e *Engine) stage() standstill.Stage {
	patience := vacancy.GoneTimeout
	if e.notes != nil {
		patience = rehearsalPatience
	}
	return standstill.Stage{
		Cluster: e.cluster, Clock: e.clock, Progress: e.progress, Patience: patience, Brings: e.brings, Warn: e.rec.Warn,
		Brought: func(namespace, name string) bool { return e.brings(shape.KindPod, namespace, name) },
	}
}

// stop brings to rest what uses a claim.
func (e *Engine) stop(ctx context.Context, namespace, claim string) error {
	stopped, err := e.stage().Stop(ctx, namespace, claim)
	e.locked(func() {
		for _, name := range stopped {
			e.stopped[name] = true
		}
	})
	return err
}

// startAgain makes what was stopped again what it was, by this try or by one
// that was killed: the workloads that are restored have been by now. What
// mounts a claim that is not whole stays at rest.
func (e *Engine) startAgain(ctx context.Context) error {
	namespaces := slices.DeleteFunc(e.targetNamespaces(), e.isOurs) // nothing was there to stop
	started, kept, err := e.stage().Start(ctx, namespaces, func(kind schema.GroupKind, u *unstructured.Unstructured) string {
		for _, claim := range e.emptyIn(u.GetNamespace()) {
			if shape.Mounts(kind, u.Object, claim) {
				return "stays stopped, because it mounts claim " + claim + ", which is not filled: solve that and restore again, and it is started"
			}
		}
		return ""
	})
	e.locked(func() {
		clear(e.stopped)
		e.started = append(e.started, started...)
	})
	for name, why := range kept {
		e.rec.Warn(name, "%s", why)
	}
	return err
}

// leaveStopped says what a restore that was interrupted leaves at rest.
func (e *Engine) leaveStopped() {
	e.locked(func() {
		for name := range e.stopped {
			e.rec.Warn(name, "was stopped so that its volume can be filled, and stays stopped until the restore is given again and ends")
		}
	})
}
