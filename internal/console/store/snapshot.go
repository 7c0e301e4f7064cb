package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"davit.dev/davit/internal/console/audit"
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
	return c.swap(id, put)
}

// swap is Swap under mu.
func (c *Console) swap(id string, put func(path string) error) error {
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
