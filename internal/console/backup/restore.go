package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
