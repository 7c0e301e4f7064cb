// Package directory is the directory that a console keeps its files in: its key, its own
// database, and one of each project.
package directory

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"davit.dev/davit/internal/console/store/table"
	"davit.dev/davit/internal/vault/seal"
)

// ErrRefused says that a rule forbids it.
var ErrRefused = errors.New("refused")

// Names in the console's directory.
const (
	consoleFile = "console.db"
	keyFile     = "console.key"
	projectsDir = "projects"
)

// Console is where a console's own database is in its directory.
func Console(dir string) string { return filepath.Join(dir, consoleFile) }

// Project is where the database of the project with the id is.
func Project(dir, id string) string { return filepath.Join(dir, projectsDir, id+".db") }

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
		return fmt.Errorf("write key of the console: %w", table.ErrDamaged)
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

// ReadKey reads the key of the console in a directory.
func ReadKey(dir string) (*seal.Key, error) {
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key of the console: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read key of the console: %w: others may read %s: chmod 600 it, and think about who has", ErrRefused, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key of the console: %w", err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != len(seal.Key{}) { // its text could hold the key
		return nil, fmt.Errorf("read key of the console: %w: %s is not 64 digits", table.ErrDamaged, path)
	}
	key := seal.Key(raw)
	return &key, nil
}
