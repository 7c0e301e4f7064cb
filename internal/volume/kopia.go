package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/logging"
	"go.uber.org/zap"

	"davit.dev/davit/internal/volume/cache"
	"davit.dev/davit/internal/volume/logcore"
	"davit.dev/davit/internal/volume/staging"
)

// storageType is the name under which kopia knows our storage.
const storageType = "davit"

// connection is all that kopia writes into its config file about a store.
type connection struct {
	ID string `json:"id"`
}

// registry finds the storage of a connection. kopia opens repositories by a
// config file; ours names an entry here, so no secret is ever in that file.
var registry sync.Map // of random id to *storage

func init() {
	blob.AddSupportedStorage(storageType, connection{},
		func(_ context.Context, c *connection, _ bool) (blob.Storage, error) {
			s, ok := registry.Load(c.ID)
			if !ok {
				return nil, fmt.Errorf("open storage %s: not of this process", c.ID)
			}
			return s.(*storage), nil
		})
}

// instance is one open kopia repository over a storage of its own.
type instance struct {
	storage *storage
	rep     repo.DirectRepository
	dir     string // private, holds the config file; removed on close
}

// instanceOptions tell the long-lived instance, which may write and cache,
// from those made for one verification or maintenance.
type instanceOptions struct {
	readOnly bool
	cached   bool
	guard    Guard
	indexes  map[blob.ID]bool // those that it sees; nil for all
}

func (r *Repository) newStorage(io instanceOptions) *storage {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	s := &storage{
		id:       hex.EncodeToString(id),
		store:    r.opts.Store,
		prefix:   r.opts.Prefix,
		readOnly: io.readOnly,
		guard:    io.guard,
		indexes:  io.indexes,
		doomed:   map[blob.ID]bool{},
		ledger: &ledger{
			store:   r.opts.Store,
			prefix:  inventoryPrefix(r.opts.Prefix),
			seal:    r.opts.Seal,
			now:     r.opts.Now,
			session: newSession(r.opts.Now()),
		},
	}
	s.packs = cache.NewPacks(s.whole)
	if io.cached {
		s.disk = r.disk
	}
	return s
}

// openInstance opens the repository, which must exist.
func (r *Repository) openInstance(ctx context.Context, opts instanceOptions) (*instance, error) {
	dir, err := os.MkdirTemp("", "davit-volume-")
	if err != nil {
		return nil, fmt.Errorf("make volume repository's directory: %w", err)
	}
	in := &instance{storage: r.newStorage(opts), dir: dir}
	if err := in.open(ctx, r, opts); err != nil {
		in.forget()
		if errors.Is(err, ErrPassword) && r.changed(ctx, string(format.KopiaRepositoryBlobID)) {
			return nil, fmt.Errorf("open volume repository %s: %w: %s %w", r.opts.Prefix, ErrDamaged, format.KopiaRepositoryBlobID, errChanged)
		}
		return nil, err
	}
	return in, nil
}

// changed tells whether a blob is certainly not as an inventory lists it.
func (r *Repository) changed(ctx context.Context, id string) bool {
	inv, err := r.loadInventory(ctx)
	if err != nil || inv.blobs[id] == nil {
		return false
	}
	got, err := r.fingerprint(ctx, id)
	return err == nil && !inv.blobs[id].prints[got]
}

func (in *instance) open(ctx context.Context, r *Repository, opts instanceOptions) error {
	registry.Store(in.storage.id, in.storage)
	info := in.storage.ConnectionInfo()
	config := repo.LocalConfig{
		Storage: &info,
		// Without a directory kopia caches nothing on disk. Its cache of
		// contents cannot be turned off alone, and would copy all that is
		// restored; our storage keeps what is worth keeping.
		Caching: &content.CachingOptions{},
		ClientOptions: repo.ClientOptions{
			Hostname:                r.opts.Site,
			Username:                userName,
			Description:             "davit",
			ReadOnly:                opts.readOnly,
			FormatBlobCacheDuration: -1,
		},
	}
	file := filepath.Join(in.dir, "config.json")
	data, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode volume repository's config: %w", err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("write volume repository's config: %w", err)
	}
	rep, err := repo.Open(r.quiet(ctx), file, r.password, &repo.Options{
		DisableRepositoryLog: true,
		DoNotWaitForUpgrade:  true,
		TimeNowFunc:          r.opts.Now,
		OnFatalError:         func(err error) { r.log.Error("volume repository cannot go on", "error", err) },
	})
	if err != nil {
		return openError(r.opts.Prefix, opts.readOnly, err)
	}
	direct, ok := rep.(repo.DirectRepository)
	if !ok {
		return errors.Join(fmt.Errorf("open volume repository: unexpected %T", rep), rep.Close(ctx))
	}
	in.rep = direct
	return nil
}

// openError is damage where all that was done is reading, and the store gave
// an answer.
func openError(prefix string, readOnly bool, err error) error {
	switch {
	case errors.Is(err, repo.ErrInvalidPassword):
		return fmt.Errorf("open volume repository %s: %w", prefix, ErrPassword)
	case readOnly && !IsOutage(err):
		return fmt.Errorf("open volume repository %s: %w: %w", prefix, ErrDamaged, err)
	}
	return fmt.Errorf("open volume repository %s: %w", prefix, err)
}

// close gives the instance back.
func (in *instance) close(ctx context.Context) error {
	defer in.forget()
	if in.rep == nil {
		return nil
	}
	if err := in.rep.Close(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("close volume repository: %w", err)
	}
	return nil
}

func (in *instance) forget() {
	registry.Delete(in.storage.id)
	_ = os.RemoveAll(in.dir) // a temporary directory's leftovers hurt nobody
}

// Names under which kopia files our snapshots.
const (
	userName       = "davit"
	keyDerivation  = "pbkdf2-sha256-600000" // the password is a key already: no need for scrypt's 64 MiB
	hashAlgorithm  = "BLAKE3-256-128"
	splitter       = "FIXED-1M"
	maxPack        = 20 << 20
	encryptionAlgo = "AES256-GCM-HMAC-SHA256"
)

// setEpochs makes maintenance compact indexes hours after they were written,
// and not days: a site that captures every minute writes thousands a day, and
// no deleted content is freed before its index entries are compacted. A writer
// trusts its view of the epochs for one refresh, a sixth of the shortest epoch.
func (r *Repository) setEpochs(ctx context.Context, st *staging.Storage) error {
	m, err := format.NewManager(ctx, st, "", -1, r.password, r.opts.Now)
	if err != nil {
		return err
	}
	mp, err := m.GetMutableParameters(ctx)
	if err != nil {
		return err
	}
	mp.EpochParameters.EpochRefreshFrequency = 10 * time.Minute
	mp.EpochParameters.MinEpochDuration = time.Hour
	mp.EpochParameters.CleanupSafetyMargin = time.Hour
	mp.EpochParameters.FullCheckpointFrequency = 2
	mp.EpochParameters.EpochAdvanceOnCountThreshold = 10
	mp.EpochParameters.EpochAdvanceOnTotalSizeBytesThreshold = 4 << 20
	features, err := m.RequiredFeatures(ctx)
	if err != nil {
		return err
	}
	return m.SetParameters(ctx, mp, format.BlobStorageConfiguration{}, features)
}

// create makes the repository unless it is there: the two format blobs are
// made in memory, and one write-if-absent decides who of many created it.
func (r *Repository) create(ctx context.Context) error {
	staged := staging.New(&storage{})
	opts := &repo.NewRepositoryOptions{
		FormatBlockKeyDerivationAlgorithm: keyDerivation,
		BlockFormat: format.ContentFormat{
			Hash:       hashAlgorithm,
			Encryption: encryptionAlgo,
			MutableParameters: format.MutableParameters{
				MaxPackSize: maxPack,
			},
			EnablePasswordChange: true,
		},
		ObjectFormat: format.ObjectFormat{Splitter: splitter},
	}
	if err := repo.Initialize(r.quiet(ctx), staged, opts, r.password); err != nil {
		return fmt.Errorf("prepare volume repository: %w", err)
	}
	if err := r.setEpochs(r.quiet(ctx), staged); err != nil {
		return fmt.Errorf("prepare volume repository's indexes: %w", err)
	}
	s := r.newStorage(instanceOptions{})
	data := staged.Blobs[format.KopiaRepositoryBlobID]
	err := s.PutBlob(ctx, format.KopiaRepositoryBlobID, staging.Bytes(data), blob.PutOptions{DoNotRecreate: true})
	if err != nil && !errors.Is(err, blob.ErrBlobAlreadyExists) {
		return fmt.Errorf("create volume repository: %w", err)
	}
	return s.commit(ctx)
}

// quiet makes kopia log to our logger at level debug, and nowhere else.
func (r *Repository) quiet(ctx context.Context) context.Context {
	return logging.WithLogger(ctx, func(module string) logging.Logger {
		return zap.New(logcore.New(r.log.With("kopia", module))).Sugar()
	})
}
