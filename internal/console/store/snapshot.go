package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
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

// homeFile is the way into the vault of the console's home, beside the file of that
// project: who has lost it finds it again.
const homeFile = "home"

// home is what homeFile holds, sealed with the console's key.
type home struct {
	FormatVersion int             `json:"formatVersion"`
	Project       string          `json:"project"` // id
	Way           json.RawMessage `json:"way"`
}

// KeepHome keeps the way into the vault of the console's home beside its databases.
func (c *Console) KeepHome(id string, way any) error {
	text, err := json.Marshal(way)
	if err != nil { // its text could hold a secret
		return errors.New("encode the way into the vault of the console's home")
	}
	var known json.RawMessage
	if err := c.Home(id, &known); err == nil && bytes.Equal(known, text) {
		return nil
	}
	plain, err := json.Marshal(home{FormatVersion: 1, Project: id, Way: text})
	if err != nil {
		return errors.New("encode the way into the vault of the console's home")
	}
	data, err := sealed(c.key, homeFile, plain)
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, homeFile)
	err = os.WriteFile(path+".new", data, 0o600)
	if err == nil { // what could not be written whole takes no good one's place
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("keep the way into the vault of the console's home: %w", err)
	}
	return nil
}

// Home reads what KeepHome kept of the project with the id.
func (c *Console) Home(id string, into any) error {
	h, err := c.home()
	if err == nil && h.Project != id {
		err = fmt.Errorf("%s: %w: it is of project %s", readHome, ErrDamaged, h.Project)
	}
	if err != nil {
		return err
	}
	return h.open(into)
}

const readHome = "read the way into the vault of the console's home"

func (c *Console) home() (h home, err error) {
	data, err := os.ReadFile(filepath.Join(c.dir, homeFile))
	if err != nil {
		return h, fmt.Errorf("%s: %w", readHome, err)
	}
	plain, err := unsealed(c.key, homeFile, data)
	if err != nil {
		return h, fmt.Errorf("%s: %w", readHome, err)
	}
	if err := json.Unmarshal(plain, &h); err != nil { // its text could hold the secret
		return h, fmt.Errorf("%s: %w", readHome, ErrDamaged)
	}
	if h.FormatVersion != 1 {
		return h, fmt.Errorf("%s: %w: it is of format %d", readHome, ErrDamaged, h.FormatVersion)
	}
	return h, nil
}

func (h home) open(into any) error {
	if err := json.Unmarshal(h.Way, into); err != nil {
		return fmt.Errorf("%s: %w", readHome, ErrDamaged)
	}
	return nil
}

// Orphan is what is left of a console in a directory whose own database is lost:
// which one it is, and the way into the vault of its home.
func Orphan(dir string, way any) (id string, err error) {
	key, err := readKey(filepath.Join(dir, keyFile))
	if err != nil {
		return "", err
	}
	c := &Console{dir: dir, key: key}
	h, err := c.home()
	if err != nil {
		return "", err
	}
	return c.ID(), h.open(way)
}

// damagedTail is where a database is put that was damaged, when it was brought from
// the vault: for people who want to look into it. One is kept.
const damagedTail = ".damaged"

// Renew puts a database in the place of one that is lost and not open.
func Renew(path, fresh string) error {
	err := os.Rename(path, path+damagedTail)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put a damaged database aside: %w", err)
	}
	for _, tail := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + tail); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put a damaged database aside: %w", err)
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("renew database: %w", err)
	}
	return nil
}

// RenewProject is Renew for a project, which nobody opens meanwhile.
func (c *Console) RenewProject(id, fresh string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[id] != nil {
		return fmt.Errorf("renew database: %w: it is open", ErrRefused)
	}
	return Renew(c.projectPath(id), fresh)
}

// Lost says why a file that is open is not one any more: the console's own, or
// that of any project.
func (c *Console) Lost(ctx context.Context) error {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.open))
	c.mu.Unlock()
	err := c.file.Lost(ctx)
	for _, p := range all {
		if lost := p.Lost(ctx); lost != nil {
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
