// Package promotion makes a second copy of a lost vault the vault that decides
// who may write. Every step may be given again, by any site, and all that give
// it end with the same vault: docs/decisions has the protocol and its limits.
package promotion

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"davit.dev/davit/internal/vault"
)

// Key is where a second copy says that it becomes the vault: docs/formats/vault.md.
const Key = "promotion.json"

const (
	recordVersion = 1
	maxRecord     = 64 << 10
)

// ErrPromoting says that a copy becomes the vault, or is it: nothing is copied
// into it any more.
var ErrPromoting = errors.New("the second copy becomes the vault")

// Record is the plain document by which a copy becomes the vault. Whoever writes
// it first decides for all.
type Record struct {
	FormatVersion int    `json:"formatVersion"`
	ID            string `json:"id"` // that the vault will have: 16 random bytes, hex
	Of            string `json:"of"` // of the lost vault
	// KeyVersion is the number that a new version of the data key has at the least.
	KeyVersion int64     `json:"keyVersion"`
	Created    time.Time `json:"created"`
	Site       string    `json:"site"` // that began it
	// Check is the SHA-256, in hex, of the document without its check.
	Check string `json:"check"`
}

// Read returns the record of a store; vault.ErrNotFound says that it has none.
func Read(ctx context.Context, store vault.Store) (Record, error) {
	r, err := store.Get(ctx, Key, 0, -1)
	if err != nil {
		return Record{}, fmt.Errorf("read %s: %w", Key, err)
	}
	defer r.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(r, maxRecord))
	if err != nil {
		return Record{}, fmt.Errorf("read %s: %w", Key, err)
	}
	record, err := parse(data)
	if err != nil {
		return Record{}, fmt.Errorf("read %s: %w", Key, err)
	}
	return record, nil
}

// begin writes the record, or returns the one that somebody wrote before.
func begin(ctx context.Context, store vault.Store, r Record) (Record, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Record{}, fmt.Errorf("make vault id: %w", err)
	}
	r.FormatVersion, r.ID, r.Created = recordVersion, hex.EncodeToString(id[:]), r.Created.UTC().Truncate(time.Second)
	data, err := r.encode()
	if err != nil {
		return Record{}, err
	}
	err = store.PutIfAbsent(ctx, Key, bytes.NewReader(data), int64(len(data)))
	if err != nil && !errors.Is(err, vault.ErrExists) {
		return Record{}, fmt.Errorf("write %s: %w", Key, err)
	}
	return Read(ctx, store)
}

func (r Record) encode() ([]byte, error) {
	r.Check = ""
	unchecked, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", Key, err)
	}
	sum := sha256.Sum256(unchecked)
	r.Check = hex.EncodeToString(sum[:])
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", Key, err)
	}
	return append(data, '\n'), nil
}

// parse accepts exactly what encode returns.
func parse(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	if r.FormatVersion > recordVersion {
		return r, fmt.Errorf("its format %d is newer than this davit's %d: use a newer davit", r.FormatVersion, recordVersion)
	}
	again, err := r.encode()
	if err != nil || !bytes.Equal(again, data) || r.FormatVersion < 1 || r.KeyVersion < 2 {
		return r, fmt.Errorf("%w: its check does not match", vault.ErrDamaged)
	}
	for _, id := range []string{r.ID, r.Of} {
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
			return r, fmt.Errorf("%w: %.40q is no vault's id", vault.ErrDamaged, id)
		}
	}
	return r, nil
}
