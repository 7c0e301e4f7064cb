package capture

import (
	"context"
	"time"
)

// A file system writes a file's new time to the disk within seconds, and what was written
// into the file half a minute later, or when the disk gets to it. A cut of the disk in
// between has the new time with the old data, and nothing tells: the next capture finds
// the file as old as in this point, and would take over the old data for as long as nobody
// writes into the file again. A freeze flushes all of it before. Where there is none, it
// is asked for; and where it is not certain, the files that were changed not long before
// the cut are read again the next time.
const (
	// unsettled is how long before a cut what was written may not be on the disk.
	unsettled = 5 * time.Minute
	// skewed is by how much a node's clock, which files have their times from, may be
	// behind this process's.
	skewed = 3 * time.Second
)

// Flusher is a Freezer that can have volumes flushed without holding them still.
type Flusher interface {
	// Flush has all that was written to the volumes of the plans be on their disks, and
	// tells whether it is. It freezes nothing, and takes a few seconds at most.
	Flush(ctx context.Context, req FreezeRequest) bool
}

// flush has volumes flushed that are about to be cut while they are in use.
func (r *run) flush(ctx context.Context, cuts []VolumePlan) {
	flusher, able := r.ports.Freezer.(Flusher)
	if !able || len(cuts) == 0 {
		return
	}
	r.step("having the file systems flushed")
	began := r.opts.Now().UTC()
	if flusher.Flush(ctx, FreezeRequest{Application: r.spec.Application, Point: r.spec.ID, Plans: cuts, Window: DefaultFreezeWindow}) {
		r.flushed = began.Add(-skewed)
	}
}

// settled is until when what was written is certainly in the cut.
func (r *run) settled(c Cut) time.Time {
	switch f := r.res.Freeze; {
	case c.Plan.Method == MethodLive:
		return time.Time{}
	case f != nil && f.Held && f.Flushed:
		return c.At
	case !r.flushed.IsZero():
		return r.flushed
	}
	return c.At.Add(-unsettled)
}
