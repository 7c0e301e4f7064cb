package restore

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/rehearse"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// countGit is asked about every object while the point is read. A copy in
// another namespace is not git's.
func (e *Engine) countGit(kind schema.GroupKind, h shape.Head) (skip string) {
	if ns := h.Metadata.Namespace; e.names.To(ns) != ns {
		return ""
	}
	return e.git.Count(kind, h)
}

func (e *Engine) gitStage() gitops.Stage {
	s := gitops.Stage{Cluster: e.cluster, Clock: e.clock, ID: e.opts.ID, Application: e.m.Application}
	if e.opts.Isolation == nil { // whose leases are its own
		s.Leases, s.Home = port.Retry(e.leases, e.clock), e.opts.LeaseNamespace
	}
	return s
}

// checkGit says who may undo the restore, and who cannot be suspended.
func (e *Engine) checkGit(ctx context.Context) ([]Finding, error) {
	return e.git.Findings(ctx, e.gitStage())
}

// Reconciler implements gitops.Told.
func (e *Engine) Reconciler(r gitops.Reconciler, action report.Action, reason string) {
	e.notes.Note(rehearse.Suspended, 0, Planned{Object: r.String(), Action: action, Reason: reason})
	e.progress.Note(r.String() + ": " + string(action) + ": " + reason)
}

// resumeGit lets git go on, unless half an application is there: it could
// start workloads on volumes that are not filled.
func (e *Engine) resumeGit(ctx context.Context, whole bool) error {
	resumed, left, err := e.git.Resume(ctx, e.gitStage(), whole)
	for name, why := range left {
		e.rec.Warn(name, "%s", why)
	}
	for _, name := range resumed {
		e.progress.Note(name + " goes on")
	}
	return err
}
