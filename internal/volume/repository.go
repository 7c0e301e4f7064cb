package volume

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/format"
	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/cache"
	"davit.dev/davit/internal/volume/tree"
)

// Repository is an open volume repository. Its methods may be called
// concurrently; several processes may have the same repository open.
type Repository struct {
	opts     Options
	log      *slog.Logger
	password string
	cacheDir string
	ownCache bool // cacheDir is temporary
	disk     *cache.Disk
	main     *instance
	writers  int // files, or parts of one, that a restore works on at once

	mu     sync.Mutex
	closed bool
	users  sync.WaitGroup // running methods
}

const (
	minPassword       = 16
	defaultCacheLimit = 1 << 30
	minParallel       = 4
)

// Open opens the repository, and creates it if it is missing. Of several
// processes creating it at once, one wins and all open the same repository.
func Open(ctx context.Context, opts Options) (*Repository, error) {
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("open volume repository: %w", err)
	}
	r := &Repository{opts: opts.withDefaults(), password: hex.EncodeToString(opts.Password)}
	if r.writers = r.opts.Parallel; opts.Parallel <= 0 {
		r.writers *= 2
	}
	r.opts.Password = nil
	r.log = r.opts.Logger
	if err := r.ensure(ctx); err != nil {
		return nil, err
	}
	if err := r.makeCache(); err != nil {
		return nil, err
	}
	in, err := r.openInstance(ctx, instanceOptions{readOnly: r.opts.ReadOnly, cached: true})
	if err != nil {
		return nil, errors.Join(err, r.dropCache())
	}
	r.main = in
	return r, nil
}

func (o Options) check() error {
	switch {
	case o.Store == nil:
		return errors.New("no store given")
	case !strings.HasSuffix(o.Prefix, "/") || strings.HasPrefix(o.Prefix, "/"):
		return fmt.Errorf("prefix %q must end, and not begin, with a slash", o.Prefix)
	case strings.HasSuffix(o.Prefix, "-inventory/"):
		return fmt.Errorf("prefix %q is kept for inventories: choose another site name", o.Prefix)
	case len(o.Password) < minPassword:
		return fmt.Errorf("password has %d bytes, and needs %d", len(o.Password), minPassword)
	case o.Site == "":
		return errors.New("no site given")
	case (o.Seal == nil) != (o.Unseal == nil):
		return errors.New("open repository: give both of Seal and Unseal, or neither")
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.CacheLimit == 0 {
		o.CacheLimit = defaultCacheLimit
	}
	if o.Parallel <= 0 {
		o.Parallel = max(minParallel, runtime.GOMAXPROCS(0))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1}))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// ensure makes sure that there is a repository.
func (r *Repository) ensure(ctx context.Context) error {
	_, err := r.opts.Store.Stat(ctx, r.opts.Prefix+string(format.KopiaRepositoryBlobID))
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, vault.ErrNotFound):
		return fmt.Errorf("look for volume repository %s: %w", r.opts.Prefix, err)
	case r.opts.ReadOnly:
		return fmt.Errorf("open volume repository %s: %w", r.opts.Prefix, ErrNoRepository)
	}
	return r.create(ctx)
}

func (r *Repository) makeCache() error {
	var err error
	if r.opts.CacheDir == "" {
		r.ownCache = true
		r.cacheDir, err = os.MkdirTemp("", "davit-cache-")
	} else if r.cacheDir, err = filepath.Abs(r.opts.CacheDir); err == nil {
		err = os.MkdirAll(r.cacheDir, 0o700)
	}
	if err == nil {
		r.disk, err = cache.Open(r.cacheDir, r.opts.CacheLimit)
	}
	if err != nil {
		return fmt.Errorf("make cache directory: %w", tree.NoSpace(err))
	}
	return nil
}

func (r *Repository) dropCache() error {
	if !r.ownCache {
		return nil
	}
	return os.RemoveAll(r.cacheDir)
}

// Close waits for running methods and gives back everything the repository
// holds on this machine. Closing twice is allowed.
func (r *Repository) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	r.users.Wait()
	return errors.Join(r.main.close(r.quiet(ctx)), r.dropCache())
}

// use counts a running method; the returned function ends it.
func (r *Repository) use() (func(), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	r.users.Add(1)
	return r.users.Done, nil
}

// parallel calls fn for 0 to n-1, opts.Parallel at a time, until one fails.
func (r *Repository) parallel(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Parallel)
	for i := range n {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return fn(gctx, i) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
