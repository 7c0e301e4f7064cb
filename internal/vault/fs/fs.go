// Package fs is a vault's store in a directory, on a local disk or a shared
// file system with atomic rename and link (NFS has both). Objects are files;
// a write is a temporary file, flushed, that gets its name in one step.
package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"davit.dev/davit/internal/vault"
)

// tempDir holds files that have no name yet. No key starts with it.
const tempDir = ".davit-tmp"

// staleTemp is the age at which a temporary file's writer is taken for dead.
const staleTemp = 7 * 24 * time.Hour

// maxTries bounds how often a write makes its directory again that a
// concurrent Delete took away as empty.
const maxTries = 100

// Store keeps objects as files below a directory.
type Store struct{ root string }

var _ vault.Store = (*Store)(nil)

// Open uses an existing directory, which must be absolute and writable.
func Open(root string) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("open directory vault %q: want an absolute path", root)
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("open directory vault: %w: create the directory, or mount what should be there", translate(err))
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open directory vault: %s is no directory", root)
	}
	s := &Store{root: filepath.Clean(root)}
	s.clearTemp()
	return s, nil
}

// clearTemp removes temporary files that writers who died left behind long
// ago. Those that cannot be removed do no harm.
func (s *Store) clearTemp() {
	left, err := filepath.Glob(filepath.Join(s.root, tempDir, "put-*"))
	if err != nil {
		return
	}
	for _, name := range left {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > staleTemp {
			_ = os.Remove(name)
		}
	}
}

// String implements vault.Store.
func (s *Store) String() string { return "file://" + s.root }

// path returns the file that holds an object.
func (s *Store) path(key string) (string, error) {
	if err := vault.CheckKey(key); err != nil {
		return "", err
	}
	if first, _, _ := strings.Cut(key, "/"); first == tempDir {
		return "", fmt.Errorf("%w: %s is reserved", vault.ErrName, tempDir)
	}
	return filepath.Join(s.root, filepath.FromSlash(key)), nil
}

// Get implements vault.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	f, err := s.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if length < 0 {
		length = 1<<63 - 1 - max(offset, 0)
	}
	section := io.NewSectionReader(f, max(offset, 0), length)
	return &reader{ctx: ctx, section: section, file: f}, nil
}

func (s *Store) open(ctx context.Context, key string) (*os.File, error) {
	if err := checkContext(ctx); err != nil {
		return nil, err
	}
	name, err := s.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, translate(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = iofs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(translate(err), f.Close())
	}
	return f, nil
}

// reader reads a file until its caller's time is up.
type reader struct {
	ctx     context.Context //nolint:containedctx // a reader belongs to one call of Get
	section *io.SectionReader
	file    *os.File
}

func (r *reader) Read(p []byte) (int, error) {
	if err := checkContext(r.ctx); err != nil {
		return 0, err
	}
	n, err := r.section.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = translate(err)
	}
	return n, err
}

func (r *reader) Close() error { return r.file.Close() }

// Stat implements vault.Store.
func (s *Store) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	f, err := s.open(ctx, key)
	if err != nil {
		return vault.ObjectInfo{}, fmt.Errorf("stat %s: %w", key, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return vault.ObjectInfo{}, fmt.Errorf("stat %s: %w", key, translate(err))
	}
	return vault.ObjectInfo{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Put implements vault.Store.
func (s *Store) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.put(ctx, key, r, size, os.Rename)
}

// PutIfAbsent implements vault.Store: link(2) refuses a name that is taken.
func (s *Store) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.put(ctx, key, r, size, os.Link)
}

func (s *Store) put(ctx context.Context, key string, r io.ReadSeeker, size int64, name func(from, to string) error) error {
	target, err := s.path(key)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	temp, err := s.writeTemp(ctx, r, size)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	defer os.Remove(temp) // after a rename it is gone already
	if err := checkContext(ctx); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	if err := s.give(temp, target, name); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// give lets the temporary file have its name, for good once it returns nil.
func (s *Store) give(temp, target string, name func(from, to string) error) error {
	dir := filepath.Dir(target)
	for try := 1; ; try++ {
		if err := s.makeDir(dir); err != nil {
			return translate(err)
		}
		err := name(temp, target)
		if errors.Is(err, iofs.ErrNotExist) && try < maxTries { // the directory went away
			continue
		}
		if err != nil {
			return translate(err)
		}
		if err := syncDir(dir); err != nil {
			return translate(err)
		}
		return nil
	}
}

// writeTemp writes a flushed file without a name of its own.
func (s *Store) writeTemp(ctx context.Context, r io.ReadSeeker, size int64) (string, error) {
	if err := checkContext(ctx); err != nil {
		return "", err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("rewind: %w", err)
	}
	dir := filepath.Join(s.root, tempDir)
	if err := s.makeDir(dir); err != nil {
		return "", translate(err)
	}
	f, err := os.CreateTemp(dir, "put-*")
	if err != nil {
		return "", translate(err)
	}
	n, err := io.Copy(f, r)
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes, was promised %d", n, size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(translate(err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// makeDir makes a directory and those above it, each entry flushed.
func (s *Store) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if dir == s.root {
		return fmt.Errorf("%w: directory %s is gone", vault.ErrUnavailable, s.root)
	}
	for range maxTries {
		if err := s.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err := os.Mkdir(dir, 0o700)
		if errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if err != nil && !errors.Is(err, iofs.ErrExist) {
			return err
		}
		return syncDir(filepath.Dir(dir))
	}
	return fmt.Errorf("make %s: it is removed again and again", dir)
}

// syncDir flushes a directory's entries. One that is gone needs no flushing.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// List implements vault.Store.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if _, err := os.Stat(s.root); err != nil {
		return fmt.Errorf("list %s: %w: the vault's directory is gone", prefix, vault.ErrUnavailable)
	}
	dir, _ := path.Split(prefix)
	l := lister{ctx: ctx, root: s.root, prefix: prefix, fn: fn}
	return l.walk(strings.TrimSuffix(dir, "/"))
}

// lister walks directories in the byte order of whole keys.
type lister struct {
	ctx    context.Context //nolint:containedctx // a lister is one call of List
	root   string
	prefix string
	fn     func(vault.ObjectInfo) error
}

func (l *lister) walk(dir string) error {
	if err := checkContext(l.ctx); err != nil {
		return fmt.Errorf("list %s: %w", l.prefix, err)
	}
	entries, err := os.ReadDir(filepath.Join(l.root, filepath.FromSlash(dir)))
	if errors.Is(err, iofs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", l.prefix, translate(err))
	}
	// "a/" sorts after "a-": compare names as they stand in keys.
	inKey := func(e iofs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b iofs.DirEntry) int { return strings.Compare(inKey(a), inKey(b)) })
	for _, entry := range entries {
		if err := l.visit(path.Join(dir, entry.Name()), entry); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) visit(key string, entry iofs.DirEntry) error {
	if entry.IsDir() {
		below := key + "/"
		if key == tempDir || (!strings.HasPrefix(below, l.prefix) && !strings.HasPrefix(l.prefix, below)) {
			return nil
		}
		return l.walk(key)
	}
	if !strings.HasPrefix(key, l.prefix) || !entry.Type().IsRegular() {
		return nil
	}
	info, err := entry.Info()
	if errors.Is(err, iofs.ErrNotExist) { // deleted since
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", l.prefix, translate(err))
	}
	return l.fn(vault.ObjectInfo{Key: key, Size: info.Size(), Modified: info.ModTime()})
}

// Delete implements vault.Store. Directories that become empty go too.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := checkContext(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	name, err := s.path(key)
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	info, err := os.Lstat(name)
	if err != nil || info.IsDir() {
		if err == nil || errors.Is(err, iofs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return nil
		}
		return fmt.Errorf("delete %s: %w", key, translate(err))
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", key, translate(err))
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("delete %s: %w", key, translate(err))
	}
	for dir := filepath.Dir(name); dir != s.root; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // not empty
			break
		}
	}
	return nil
}

func checkContext(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", vault.ErrUnavailable, context.Cause(ctx))
	}
	return nil
}

// translate adds the Store's error to the operating system's.
func translate(err error) error {
	kinds := []struct {
		os    error
		vault error
	}{
		{iofs.ErrNotExist, vault.ErrNotFound},
		{syscall.ENOTDIR, vault.ErrNotFound},
		{iofs.ErrExist, vault.ErrExists},
		{iofs.ErrPermission, vault.ErrDenied},
		{syscall.EROFS, vault.ErrDenied},
		{syscall.ENOSPC, vault.ErrFull},
		{syscall.EDQUOT, vault.ErrFull},
		{syscall.EIO, vault.ErrUnavailable},
		{syscall.ESTALE, vault.ErrUnavailable},
		{syscall.ETIMEDOUT, vault.ErrUnavailable},
	}
	for _, kind := range kinds {
		if errors.Is(err, kind.os) {
			return fmt.Errorf("%w: %w", kind.vault, err)
		}
	}
	return err
}
