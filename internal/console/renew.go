package console

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

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
