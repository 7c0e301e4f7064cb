package protection

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/schedule"
)

const (
	// KeptFor is how long a cut is kept at most for the next capture: the storage keeps for it
	// whatever is written over, and a schedule that takes so long has time to read all.
	KeptFor = 8 * 24 * time.Hour
	// crowdedFor is for how long no cut of an application is kept after one could not be made: a quota
	// or the storage may have no room for another beside it.
	crowdedFor   = 24 * time.Hour
	letGoTimeout = time.Minute
)

// KeepsCuts tells whether a snapshot of each volume is kept from one capture of an application to
// the next: where it asks for that, and its policy captures often enough.
func KeepsCuts(app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy, now time.Time) bool {
	s := policy.Spec.Schedule
	if app.Spec.Volumes.ChangedBlocks != v1alpha1.ChangedBlocksAuto || app.Spec.Policy == "" || policy.Spec.Suspend {
		return false
	}
	var every time.Duration
	if s.Every != nil {
		every = s.Every.Duration
	}
	table, err := schedule.Parse(every, s.Cron, s.TimeZone)
	if err != nil || table == nil {
		return false
	}
	next := table.After(now)
	return !next.IsZero() && table.After(next).Sub(next) < KeptFor
}

// LiedError says that a capture failed, and of volumes, by namespace/claim, what their storage had been
// found by then to have called unchanged that was not. No point says so: the next capture has to be told.
type LiedError struct {
	Volumes map[string]string
	Err     error
}

func (e *LiedError) Error() string { return e.Err.Error() }

// Unwrap returns why the capture failed.
func (e *LiedError) Unwrap() error { return e.Err }

// LiesOf is what was found of volumes' storage, by namespace/claim.
func LiesOf(volumes []point.Volume) map[string]string {
	found := map[string]string{}
	for _, v := range volumes {
		if b := v.Snapshot.Blocks; b != nil && b.Distrusted != "" {
			found[v.Namespace+"/"+v.Claim] = b.Distrusted
		}
	}
	return found
}

// distrust has nothing taken over by the word of storage that was found to lie, nor that word taken for the next
// time, also where no snapshot is known: the newest point may lack the volume, and another vault has none.
func distrust(previous map[string]point.Snapshot, found map[string]string) map[string]point.Snapshot {
	all := maps.Clone(previous)
	for key, what := range found {
		if all == nil {
			all = map[string]point.Snapshot{}
		}
		all[key] = all[key].Distrusting(what)
	}
	return all
}

// stillDistrusted has a point say of its volumes' storage what the one before says, where the storage was not asked
// although a person wants that: a policy that is suspended, or a quota, is no reason to trust it again.
func stillDistrusted(m *point.Manifest, spec capture.Spec, app *v1alpha1.Application) {
	if app.Spec.Volumes.ChangedBlocks != v1alpha1.ChangedBlocksAuto {
		return
	}
	for i := range m.Volumes {
		v := &m.Volumes[i]
		if was := spec.Previous[v.Namespace+"/"+v.Claim].Blocks; v.Snapshot.Blocks == nil && was != nil {
			v.Snapshot.Blocks = &point.Blocks{Compared: was.Compared, Distrusted: was.Distrusted, Reason: "its storage is not asked now: nothing is kept for it"}
		}
	}
}

// rememberLies keeps what was found of volumes' storage for the next capture.
func (p *Protector) rememberLies(spec capture.Spec, found map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.newest == nil {
		p.newest = map[string]map[string]point.Snapshot{}
	}
	p.newest[spec.Application] = distrust(spec.Previous, found)
}

// keeper is what Volumes are that keep cuts for the next capture to be compared with.
type keeper interface {
	// LetGo removes what was kept of the application: of the point, or of all others.
	LetGo(ctx context.Context, application, point string, others bool) error
}

// letGo removes what no capture is compared with any more: once a point is there, what was
// kept before; else what was kept of it. Where a cut could not be made beside what was kept, that goes,
// and nothing is kept for a while: there may be no room for both.
func (p *Protector) letGo(ctx context.Context, spec capture.Spec, failed error) {
	k, able := p.opts.Volumes.(keeper)
	before := slices.Collect(maps.Values(spec.Previous))
	if !able || !spec.ChangedBlocks && !slices.ContainsFunc(before, func(s point.Snapshot) bool { return s.Blocks != nil }) {
		return
	}
	id, others := spec.ID, failed == nil
	kept := slices.ContainsFunc(before, func(s point.Snapshot) bool { return s.Blocks != nil && s.Blocks.Base })
	if kept && errors.Is(failed, capture.ErrCut) && ctx.Err() == nil {
		id, others = "", true
		p.log.Warn("a volume could not be cut: the snapshots that were kept of the application go, and no more are kept for now", "application", spec.Application, "for", crowdedFor)
		p.mu.Lock()
		if p.full == nil {
			p.full = map[string]time.Time{}
		}
		p.full[spec.Application] = p.now()
		p.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGoTimeout)
	defer cancel()
	if err := k.LetGo(ctx, spec.Application, id, others); err != nil {
		p.log.Warn("snapshots that were kept for a comparison will be removed later", "error", err)
	}
}

// crowded tells whether nothing of an application is to be kept.
func (p *Protector) crowded(app string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, was := p.full[app]
	return was && p.now().Sub(at) < crowdedFor
}
