package volume

import (
	"context"
	"errors"

	"davit.dev/davit/internal/point"
)

// ReadOptions say how to restore a tree.
type ReadOptions struct {
	// Progress is told how far the restore has come, at most every 100 ms
	// and once at the end, never from two goroutines at once.
	Progress func(Progress)
	// DeleteExtra removes what the target holds and the snapshot does not; an
	// empty lost+found in the target's root stays.
	DeleteExtra bool
	// Resume keeps files that are complete and equal to the snapshot's in
	// size and modification time, as an earlier, interrupted Read left them.
	Resume bool
}

// Read restores the snapshot's tree into the directory target, which must
// exist and takes on the mode, owner and time of the snapshot's root. All of
// it is on stable storage when Read returns nil. A full disk is ErrNoSpace;
// an owner, mode, time or attribute that cannot be set is an error. After any
// error, the same call with Resume continues.
func (r *Repository) Read(ctx context.Context, snap point.Snapshot, target string, opts ReadOptions) error {
	return errors.ErrUnsupported
}
