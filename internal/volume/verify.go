package volume

import (
	"context"
	"errors"

	"davit.dev/davit/internal/point"
)

// VerifyOptions say how deep to look.
type VerifyOptions struct {
	// ReadAll reads, decrypts and checks every content. Without it, only
	// the directories are read, and every content is looked up in the index
	// and its blob in the store.
	ReadAll bool
	// Progress is told how far the verification has come.
	Progress func(Progress)
}

// Damage is one thing that is wrong with stored data.
type Damage struct {
	Blob string // the blob's id in the repository, where known
	Path string // the entry of the snapshot it hurts, where known
	Err  error  // what is wrong
}

// VerifyReport is what a verification found. A report without damage means
// that everything looked at is as it was written.
type VerifyReport struct {
	Files, Dirs, Bytes int64 // of the snapshot, as looked at
	Blobs              int64 // blobs checked
	BlobBytes          int64 // bytes of blobs read
	Damaged            []Damage
	// Unlisted are blobs that no inventory knows, sorted: left by an
	// interrupted write, harmless unless a snapshot needs one, which is damage.
	Unlisted []string
}

// Err is nil without damage, or wraps ErrDamaged and names the first damage.
func (v VerifyReport) Err() error { return nil }

// Verify reads one snapshot back without restoring it. The error is for a
// verification that could not be carried out; damage is in the report.
func (r *Repository) Verify(ctx context.Context, snap point.Snapshot, opts VerifyOptions) (VerifyReport, error) {
	return VerifyReport{}, errors.ErrUnsupported
}

// VerifyBlobs reads every blob of the repository and compares it with the
// SHA-256 inventories. inventories are keys that must exist or have been
// merged since, as point.Snapshot names them; all that exist are used.
func (r *Repository) VerifyBlobs(ctx context.Context, inventories []string, opts VerifyOptions) (VerifyReport, error) {
	return VerifyReport{}, errors.ErrUnsupported
}
