package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault/packed"
	"davit.dev/davit/internal/vault/seal"
)

// homeFile is the way into the vault of the console's home, beside the databases: who
// has lost those finds it again.
const homeFile = "home"

// maxHome bounds it, in bytes.
const maxHome = 1 << 20

// home is what homeFile holds, sealed with the console's key.
type home struct {
	FormatVersion int             `json:"formatVersion"`
	Project       string          `json:"project"` // id
	Way           json.RawMessage `json:"way"`
}

// keepHome keeps the way into the vault of the console's home, a project's by its id.
func keepHome(dir string, key *seal.Key, id string, way any) error {
	text, err := json.Marshal(way)
	if err != nil { // its text could hold a secret
		return errors.New("encode the way into the vault of the console's home")
	}
	if known, err := readHome(dir, key); err == nil && known.Project == id && bytes.Equal(known.Way, text) {
		return nil
	}
	plain, err := json.Marshal(home{FormatVersion: 1, Project: id, Way: text})
	if err != nil {
		return errors.New("encode the way into the vault of the console's home")
	}
	data, err := packed.Seal(key, homeFile, plain)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, homeFile)
	err = os.WriteFile(path+".new", data, 0o600)
	if err == nil { // what could not be written whole takes no good one's place
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("keep the way into the vault of the console's home: %w", err)
	}
	return nil
}

// readHome reads what keepHome kept.
func readHome(dir string, key *seal.Key) (h home, err error) {
	const what = "read the way into the vault of the console's home"
	data, err := os.ReadFile(filepath.Join(dir, homeFile))
	if err != nil {
		return h, fmt.Errorf("%s: %w", what, err)
	}
	plain, err := packed.Unseal(key.Only, homeFile, data, maxHome)
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

func (h home) open(into any) error {
	if err := json.Unmarshal(h.Way, into); err != nil { // its text could hold the secret
		return fmt.Errorf("read the way into the vault of the console's home: %w", store.ErrDamaged)
	}
	return nil
}

// damagedTail is where a database is put that was damaged, when it was brought from
// the vault: for people who want to look into it. One is kept.
const damagedTail = ".damaged"

// renew puts a database in the place of one that is lost and not open.
func renew(path, fresh string) error {
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
