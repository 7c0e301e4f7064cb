package vault

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// FormatVersion is the version of the vault format this package writes and the
// newest it reads.
const FormatVersion = 1

// markerKey is where a vault says that it is one.
const markerKey = "davit.json"

// Marker is the plain document that makes a place in object storage a vault.
type Marker struct {
	FormatVersion int       `json:"formatVersion"`
	ID            string    `json:"id"` // 16 random bytes, hex
	Created       time.Time `json:"created"`
	// Check is the SHA-256, in hex, of the document without its check.
	Check string `json:"check"`
}

// Init makes the store a vault and returns its marker. A store that is one
// already stays as it is: racing calls all return the same marker.
func Init(ctx context.Context, store Store) (Marker, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Marker{}, fmt.Errorf("make vault id: %w", err)
	}
	return InitAs(ctx, store, Marker{FormatVersion: FormatVersion, ID: hex.EncodeToString(id[:]), Created: time.Now().UTC().Truncate(time.Second)})
}

// InitAs is Init with a marker that was decided upon before.
func InitAs(ctx context.Context, store Store, m Marker) (Marker, error) {
	data, err := m.encode()
	if err != nil {
		return Marker{}, err
	}
	err = putOnce(ctx, store, markerKey, data)
	if err != nil && !errors.Is(err, ErrExists) {
		return Marker{}, err
	}
	return ReadMarker(ctx, store)
}

// ReadMarker reads the vault's marker. ErrNotFound says that the store is no
// vault: the address is wrong, or Init has not been called.
func ReadMarker(ctx context.Context, store Store) (Marker, error) {
	m, err := readMarker(ctx, store, markerKey)
	if errors.Is(err, ErrNotFound) {
		return Marker{}, fmt.Errorf("%s holds no vault (%s is missing): check bucket and prefix, or add it as a new vault: %w", store, markerKey, ErrNotFound)
	}
	return m, err
}

func readMarker(ctx context.Context, store Store, key string) (Marker, error) {
	data, err := readAll(ctx, store, key, maxPlain)
	if err != nil {
		return Marker{}, err
	}
	m, err := parseMarker(data)
	if err != nil {
		return Marker{}, fmt.Errorf("read %s: %w", key, err)
	}
	return m, nil
}

// encode fills in the check and returns the marker's only valid text.
func (m Marker) encode() ([]byte, error) {
	m.Check = ""
	unchecked, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode marker: %w", err)
	}
	sum := sha256.Sum256(unchecked)
	m.Check = hex.EncodeToString(sum[:])
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode marker: %w", err)
	}
	return append(data, '\n'), nil
}

// parseMarker accepts exactly what encode returns.
func parseMarker(data []byte) (Marker, error) {
	var m Marker
	if err := json.Unmarshal(data, &m); err != nil {
		return Marker{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if m.FormatVersion > FormatVersion {
		return Marker{}, fmt.Errorf("vault format %d is newer than this davit's %d: use a newer davit", m.FormatVersion, FormatVersion)
	}
	again, err := m.encode()
	if err != nil || string(again) != string(data) || m.FormatVersion < 1 {
		return Marker{}, fmt.Errorf("%w: its check does not match", ErrDamaged)
	}
	return m, nil
}
