package protection

import (
	"context"
	"fmt"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// date gives the times of a point by the vault's clock where this site's is ahead of it, and
// says so in the point: one of tomorrow would for a day be taken for newer than all
// that follows. It is done before the point is written, so that whoever reads it, in this
// vault or a copy, needs no clock to tell which is the newest. took is how long the capture
// was, and never too short.
//
// A vault's clock may be wrong too, and behind: so no point becomes older than the one
// before it. Where it cannot be asked, this site's stands.
func (p *Protector) date(ctx context.Context, app string, m *point.Manifest, took time.Duration) {
	clock, err := p.opts.Project.Clock(ctx)
	now := p.now()
	if err != nil {
		p.log.Warn("a point is dated by this site's clock alone", "application", app, "error", err)
		return
	}
	at := momentOf(m.Instant, now, clock, took)
	if at.Equal(m.Instant) {
		return
	}
	infos, err := p.opts.Listing.Points(ctx, app)
	if err != nil {
		p.log.Warn("a point is dated by this site's clock, which is ahead of the vault's: what is before it cannot be read", "application", app, "error", err)
		return
	}
	for _, info := range infos { // by the time of this site those before it may be
		if of := info.Manifest; of != nil && of.Epoch == m.Epoch && !of.Instant.Before(at) && of.Instant.Before(m.Instant) {
			at = of.Instant.Add(time.Millisecond)
		}
	}
	m.Warnings = append(m.Warnings, point.Warning{Message: fmt.Sprintf(
		"this site's clock said %s, which is %s after the vault's: the point is dated %s instead; mend time synchronisation",
		m.Instant.UTC().Format(time.RFC3339), m.Instant.Sub(at).Round(time.Second), at.UTC().Format(time.RFC3339))})
	m.Instant = at.UTC()
	for i := range m.Volumes {
		m.Volumes[i].Instant = momentOf(m.Volumes[i].Instant, now, clock, took).UTC()
		if b := m.Volumes[i].Snapshot.Blocks; b != nil { // of this capture, or of a point that has its time already
			b.Compared = momentOf(b.Compared, now, clock, took).UTC()
		}
	}
	if m.StartedAt = momentOf(m.StartedAt, now, clock, took).UTC(); m.StartedAt.After(at) {
		m.StartedAt = m.Instant
	}
	before := m.Instant // a clock that was set meanwhile leaves no order among them
	for _, t := range []*time.Time{&m.CutBy, &m.FinishedAt} {
		if *t = momentOf(*t, now, clock, took).UTC(); t.Before(before) {
			*t = before
		}
		before = *t
	}
}

// momentOf is what the vault's clock said when this site's said at, if that is ahead by more
// than is safe; now and clock are what they say now. at is of a capture that took so long: of a
// clock that was set meanwhile no more is believed.
func momentOf(at, now, clock time.Time, took time.Duration) time.Time {
	moment := clock.Add(-min(max(now.Sub(at), 0), took))
	if at.Sub(moment) > vault.SafeSkew {
		return moment
	}
	return at
}
