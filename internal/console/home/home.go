// Package home keeps the way into the vault of a console's home, a project, beside its
// databases: who has lost those finds it again.
package home

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault/packed"
	"davit.dev/davit/internal/vault/seal"
)

// file is where it is in the console's directory.
const file = "home"

// most bounds it, in bytes.
const most = 1 << 20

// Home is what was kept, sealed with the console's key.
type Home struct {
	FormatVersion int             `json:"formatVersion"`
	Project       string          `json:"project"` // id
	Way           json.RawMessage `json:"way"`
}

// Keep keeps the way into the vault of the console's home, a project's by its id.
func Keep(dir string, key *seal.Key, id string, way any) error {
	text, err := json.Marshal(way)
	if err != nil { // its text could hold a secret
		return errors.New("encode the way into the vault of the console's home")
	}
	if known, err := Read(dir, key); err == nil && known.Project == id && bytes.Equal(known.Way, text) {
		return nil
	}
	plain, err := json.Marshal(Home{FormatVersion: 1, Project: id, Way: text})
	if err != nil {
		return errors.New("encode the way into the vault of the console's home")
	}
	data, err := packed.Seal(key, file, plain)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, file)
	err = os.WriteFile(path+".new", data, 0o600)
	if err == nil { // what could not be written whole takes no good one's place
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("keep the way into the vault of the console's home: %w", err)
	}
	return nil
}

// Read reads what Keep kept.
func Read(dir string, key *seal.Key) (h Home, err error) {
	const what = "read the way into the vault of the console's home"
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return h, fmt.Errorf("%s: %w", what, err)
	}
	plain, err := packed.Unseal(key.Only, file, data, most)
	if err != nil {
		return h, fmt.Errorf("%s: %w", what, err)
	}
	if err := json.Unmarshal(plain, &h); err != nil { // its text could hold the secret
		return h, fmt.Errorf("%s: %w", what, store.ErrDamaged)
	}
	if h.FormatVersion != 1 {
		return h, fmt.Errorf("%s: %w: it is of format %d", what, store.ErrDamaged, h.FormatVersion)
	}
	return h, nil
}

// Open reads the way.
func (h Home) Open(into any) error {
	if err := json.Unmarshal(h.Way, into); err != nil { // its text could hold the secret
		return fmt.Errorf("read the way into the vault of the console's home: %w", store.ErrDamaged)
	}
	return nil
}
