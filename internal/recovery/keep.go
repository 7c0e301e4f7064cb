package recovery

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/vault/reading"
)

// keepPoint notes in the vault that the point is being read, before anything of it
// is: nobody removes it then. One that is being removed already is refused. That it
// cannot be noted, as in a vault that is full or for reading only, is for a person
// to know, and stops nothing.
func (r *recovery) keepPoint(ctx context.Context) error {
	if !r.reads {
		return nil
	}
	var err error
	r.session, err = reading.Begin(ctx, reading.Work{
		Project: r.deps.Project, Application: r.opts.Application, Point: r.manifest.ID,
		By: "restore " + r.report.RestoreID, For: r.deps.Holder, Site: r.deps.Site, Cluster: r.deps.ClusterID, Log: r.deps.Log,
	})
	if errors.Is(err, reading.ErrLeaving) {
		return fmt.Errorf("%w: point %s cannot be relied on: %w: choose another", ErrRefused, r.manifest.ID, err)
	}
	if err != nil {
		r.warn("", "nothing keeps point %s from being removed while it is read, for that could not be noted in the vault: pin it if its retention is short: %v", r.manifest.ID, err)
	}
	return nil
}

// letGo ends what keepPoint began. Of work that is to be continued, the note stays
// until it ends by itself: another part of it, or whoever gives it again, finds the
// point still there.
func (r *recovery) letGo(ctx context.Context, err error) {
	switch {
	case Refused(err):
		r.session.End(ctx) // of this try alone: another may be at it
	case err != nil || ctx.Err() != nil || r.report.Result.Failed > 0 || r.opts.To != sequence.Whole && !r.opts.Ahead:
		r.session.Leave()
	default:
		r.session.Done(ctx)
	}
}
