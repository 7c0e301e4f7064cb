package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/vault/seal"
)

// ID names the console, and says nothing of its key.
func (c *Console) ID() string { return c.key.ID().String() }

// Key is the key that seals the console's secrets, for its own backup.
func (c *Console) Key() []byte { return append([]byte{}, c.key[:]...) }

// Snapshot writes the database, as it is at one instant, to a file that is not
// there yet.
func (f *file) Snapshot(ctx context.Context, path string) error {
	if _, err := f.write.ExecContext(ctx, "VACUUM INTO ?", path); f.write.note(err) != nil {
		return fmt.Errorf("copy database: %w", damage(err))
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	return nil
}

// CheckConsole and CheckProject open a database that stands alone, bring it to
// today's format and read its audit log to the end.
func CheckConsole(ctx context.Context, path string) (audit.Tail, error) {
	return checkFile(ctx, path, consoleMigrations)
}

// CheckProject is CheckConsole for a project's database.
func CheckProject(ctx context.Context, path string) (audit.Tail, error) {
	return checkFile(ctx, path, projectMigrations)
}

func checkFile(ctx context.Context, path string, migrations []string) (tail audit.Tail, err error) {
	f, err := openFile(ctx, path, false, migrations)
	if err != nil {
		return tail, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.VerifyAudit(ctx)
}

// Renew has the file of a project be put in the place of one that is lost, while
// nobody opens it.
func (c *Console) Renew(id string, put func(path string) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[id] != nil {
		return fmt.Errorf("renew database: %w: it is open", ErrRefused)
	}
	return put(c.projectPath(id))
}

// Swap is Renew for a project that may be open: it is closed at that moment, and opened
// again by whoever asks for it next.
func (c *Console) Swap(id string, put func(path string) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.open[id]
	delete(c.open, id)
	if p == nil {
		return put(c.projectPath(id))
	}
	return errors.Join(p.Close(), put(c.projectPath(id)))
}

// Lost says why a file that is open is not one any more: the console's own, or
// that of any project.
func (c *Console) Lost(ctx context.Context) error {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.open))
	c.mu.Unlock()
	err := c.file.Lost(ctx)
	for _, p := range all {
		lost := p.Lost(ctx)
		c.mu.Lock()
		there := c.open[p.ID] == p // it may have been removed meanwhile
		c.mu.Unlock()
		if lost != nil && there {
			err = errors.Join(err, fmt.Errorf("project %s: %w", p.Name, lost))
		}
	}
	return err
}

// ConsoleFile is where a console's own database is in its directory.
func ConsoleFile(dir string) string { return filepath.Join(dir, consoleFile) }

// ProjectFile is where the database of the project with the id is.
func ProjectFile(dir, id string) string { return filepath.Join(dir, projectsDir, id+".db") }

// Holds tells whether there is a console in the directory.
func Holds(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Moved are the names that make a directory a console, in the order in which
// they are taken away: without the first, there is none.
func Moved() []string {
	return []string{keyFile, consoleFile, consoleFile + "-wal", consoleFile + "-shm", projectsDir}
}

// Prepare makes the directory of a console that is being restored.
func Prepare(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, projectsDir), 0o700); err != nil {
		return fmt.Errorf("make directory of the console: %w", err)
	}
	return nil
}

// WriteKey writes the console's key, which makes the directory a console.
func WriteKey(dir string, raw []byte) error {
	if len(raw) != len(seal.Key{}) {
		return fmt.Errorf("write key of the console: %w", ErrDamaged)
	}
	f, err := os.OpenFile(filepath.Join(dir, keyFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write key of the console: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s\n", hex.EncodeToString(raw))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key of the console: %w", err)
	}
	return nil
}
