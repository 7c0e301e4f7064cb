package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// homes is where the vault says which project is a console's home.
const homes = "consoles/"

// Home is where a console's own database is kept.
type Home struct {
	Console string // id
	Project string
}

// Homes lists the consoles whose home is in the vault.
func Homes(ctx context.Context, s vault.Store) ([]Home, error) {
	var all []Home
	err := s.List(ctx, homes, func(o vault.ObjectInfo) error {
		console, project, ok := strings.Cut(strings.TrimPrefix(o.Key, homes), "/")
		if ok && vault.CheckName(project) == nil {
			all = append(all, Home{Console: console, Project: project})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for consoles in the vault: %w", err)
	}
	return all, nil
}

// ErrNone says that there is no backup that can be brought back.
var ErrNone = errors.New("no backup of the console")

// Newest brings the newest backup of a database back into a file that is not
// there yet. Those that are damaged are passed over and returned.
func (s Shelf) Newest(ctx context.Context, database, path string) (d Document, damaged []error, err error) {
	entries, err := s.List(ctx, database)
	if err != nil {
		return d, nil, err
	}
	for _, e := range slices.Backward(entries) {
		d, err := s.Read(ctx, database, e.Number, path)
		if err == nil {
			return d, damaged, nil
		}
		if !isDamage(err) || ctx.Err() != nil {
			return d, damaged, err
		}
		damaged = append(damaged, err)
		if err := remove(path); err != nil {
			return d, damaged, err
		}
	}
	return d, damaged, errors.Join(append([]error{fmt.Errorf("restore %s: %w", s.prefix(database), ErrNone)}, damaged...)...)
}

func isDamage(err error) bool {
	for _, is := range []error{vault.ErrDamaged, vault.ErrNotFound, store.ErrDamaged, audit.ErrBroken} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// remove takes a database away, with what SQLite keeps beside it.
func remove(path string) error {
	for _, tail := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + tail); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what was not restored: %w", err)
		}
	}
	return nil
}
