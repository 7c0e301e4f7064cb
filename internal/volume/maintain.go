package volume

import (
	"context"
	"errors"

	"davit.dev/davit/internal/point"
)

// MaintainOptions say what maintenance may do.
type MaintainOptions struct {
	// Guard is asked before maintenance and before every change it makes. It
	// must hold a lease, so that one process maintains at a time, and check
	// the epoch. It must not be nil.
	Guard Guard
	// Full also rewrites sparse packs and frees the space of deleted
	// snapshots, in two or more runs at least a day apart.
	Full bool
}

// MaintainReport is what maintenance did.
type MaintainReport struct {
	BlobsDeleted      int64
	BytesDeleted      int64
	InventoriesMerged int
}

// Stats is what the repository holds.
type Stats struct {
	Snapshots int64
	Blobs     int64
	Bytes     int64 // stored
}

// Delete forgets the snapshot. Its space is freed by Maintain later. A
// snapshot that is not there is no error.
func (r *Repository) Delete(ctx context.Context, snap point.Snapshot) error {
	return errors.ErrUnsupported
}

// Maintain compacts indexes, merges inventories and frees space.
func (r *Repository) Maintain(ctx context.Context, opts MaintainOptions) (MaintainReport, error) {
	return MaintainReport{}, errors.ErrUnsupported
}

// Stats counts what the repository holds, by listing it.
func (r *Repository) Stats(ctx context.Context) (Stats, error) {
	return Stats{}, errors.ErrUnsupported
}
