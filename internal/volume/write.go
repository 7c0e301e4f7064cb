package volume

import (
	"context"
	"errors"
	"time"

	"davit.dev/davit/internal/point"
)

// WriteOptions say what to write.
type WriteOptions struct {
	// Root is the directory whose tree is written. It is only read.
	Root string
	// Source labels the snapshot.
	Source Source
	// Previous is an earlier snapshot of the same source in this repository:
	// files equal to it in size and modification time are not read again.
	Previous *point.Snapshot
	// Cut is the instant at which the tree was cut from its volume. Zero
	// means that the tree is alive. Files changed less than two seconds
	// before it are read again by the next snapshot, whatever their times say.
	Cut time.Time
	// Progress is told how far the write has come, at most every 100 ms and
	// once at the end, never from two goroutines at once.
	Progress func(Progress)
	// Issue is told about every entry that is not exactly in the snapshot,
	// never from two goroutines at once.
	Issue func(Issue)
}

// Write stores the tree at opts.Root and returns its snapshot. Entries that
// could not be read are counted in Snapshot.Errors and told to opts.Issue,
// with a nil error; an error means that there is no snapshot.
func (r *Repository) Write(ctx context.Context, opts WriteOptions) (point.Snapshot, error) {
	return point.Snapshot{}, errors.ErrUnsupported
}
