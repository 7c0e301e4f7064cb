// Package volume keeps the file data of volumes: one repository per project
// and site, deduplicated, compressed and encrypted by kopia's library, stored
// in any vault.Store. Around kopia it puts what disaster recovery needs and
// kopia does not give: a SHA-256 inventory of every stored blob, an exact
// record of file-system facts kopia's tree cannot hold, a parallel and
// resumable restore, and maintenance that a superseded site cannot run.
// The layout is described in docs/formats/volumes.md.
package volume

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/tree"
)

// Errors that callers may decide on with errors.Is.
var (
	// ErrPassword says that the repository exists and the password does not
	// open it.
	ErrPassword = errors.New("wrong volume repository password")
	// ErrNoRepository says that a read-only Open found no repository.
	ErrNoRepository = errors.New("volume repository not found")
	// ErrNoSnapshot says that the repository does not hold the snapshot.
	ErrNoSnapshot = errors.New("volume snapshot not found")
	// ErrReadOnly says that the repository was opened for reading only.
	ErrReadOnly = errors.New("volume repository is read-only")
	// ErrNoSpace says that the target, or the cache, has no room left.
	ErrNoSpace = tree.ErrNoSpace
	// ErrDamaged says that stored data does not match what was written.
	ErrDamaged = tree.ErrDamaged
	// ErrClosed says that the repository was closed.
	ErrClosed = errors.New("volume repository is closed")
)

// Prefix is where the repository of one project and site lives in the vault.
// It ends with a slash.
func Prefix(project, site string) string {
	return path.Join("projects", project, "volumes", site) + "/"
}

// FormatBlob is the blob that makes a prefix a repository.
const FormatBlob = "kopia.repository"

// Options say which repository to open, and how.
type Options struct {
	// Store is the vault. The repository never closes it.
	Store vault.Store
	// Prefix is the repository's key prefix; see the function Prefix. The
	// inventories go beside it, under the prefix with "-inventory/" in place
	// of the final slash.
	Prefix string
	// Password opens the repository: at least 16 bytes of key material. It
	// is never written anywhere.
	Password []byte
	// CacheDir is a directory of this repository's own on local disk: index blobs
	// and metadata packs are kept there, encrypted as in the store. Empty
	// means a temporary one, removed by Close.
	CacheDir string
	// CacheLimit bounds what is kept in CacheDir, in bytes. Zero means 1 GiB.
	CacheLimit int64
	// ReadOnly refuses every change, and does not create the repository.
	ReadOnly bool
	// Site names the site whose repository this is; it is written into
	// snapshots.
	Site string
	// Parallel is how many files, or parts of one, are worked on at once.
	// Zero means GOMAXPROCS, but at least 4, and twice that for a restore: it waits
	// for the vault and for the disk besides.
	Parallel int
	// Logger gets kopia's own logs, at level debug. Nil means none.
	Logger *slog.Logger
	// Seal and Unseal protect inventories, which are plain JSON otherwise.
	// key is the object's key and must be bound to the sealed bytes. Both or
	// neither are set.
	Seal   func(key string, plain []byte) ([]byte, error)
	Unseal func(key string, sealed []byte) ([]byte, error)
	// Indexes names the index blobs by which a snapshot is to be read; none for
	// those of today. A second copy has snapshots that these know no more.
	Indexes func(ctx context.Context, snapshot string) ([]string, error)
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
}

// Source is what a snapshot is of: the label under which the next one finds
// its predecessor, and by which people find it.
type Source struct {
	Namespace string
	Claim     string
}

// String is the source for people: namespace/claim.
func (s Source) String() string { return s.Namespace + "/" + s.Claim }

// Progress is how far a Write, Read or Verify has come. Counts only grow.
type Progress = tree.Progress

// Pace waits until so many bytes of a volume may be read or written.
type Pace = tree.Pace

// Issue is something a person should know about one entry of a tree.
type Issue = tree.Issue

// IssueKind says what happened to an entry.
type IssueKind = tree.IssueKind

// What can happen to an entry.
const (
	Unreadable = tree.Unreadable
	Vanished   = tree.Vanished
	Changed    = tree.Changed
	Skipped    = tree.Skipped
)

// Guard says whether the caller may still change the repository: an error
// stops the work before its next change. A superseded site's guard fails.
type Guard func(ctx context.Context) error
