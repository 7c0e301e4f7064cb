// Package audit is the form of the console's audit log: records of who did
// what, each chained to the one before by its hash, so that none can be
// changed, left out or put between without all that follow saying so
// (docs/formats/console.md). It is pure; package store keeps the records.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrBroken says that the log is not what was written.
var ErrBroken = errors.New("audit log is broken")

// Act is who does something, and from where.
type Act struct {
	By   string // "user/anna", "robot/ci", "console", or "machine/root" for whoever works on its files
	From string // the network address; empty where there is none
	At   time.Time
}

// Record is one line of the log.
type Record struct {
	Sequence int64     `json:"sequence"` // 1, 2, ...
	At       time.Time `json:"at"`       // by the console's clock
	By       string    `json:"by"`
	From     string    `json:"from,omitempty"`
	Action   string    `json:"action"`           // such as "document.apply"
	Object   string    `json:"object,omitempty"` // what was acted on
	Refused  string    `json:"refused,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	// Previous is the hash of the record before; empty in the first.
	Previous string `json:"previous,omitempty"`
	// Hash is the SHA-256, in hex, of the record's JSON without it.
	Hash string `json:"hash,omitempty"`
}

// Tail is what the next record must fit to. The zero Tail is that of an empty log.
type Tail struct {
	Sequence int64
	Hash     string
}

// Tail returns what follows the record.
func (r Record) Tail() Tail { return Tail{r.Sequence, r.Hash} }

// Next chains a record to the tail.
func (t Tail) Next(r Record) (Record, error) {
	r.Sequence, r.Previous = t.Sequence+1, t.Hash
	r.At = r.At.UTC().Truncate(time.Millisecond)
	sum, err := r.sum()
	if err != nil {
		return r, err
	}
	r.Hash = sum
	return r, nil
}

// Follow says whether the record is the one after the tail.
func (t Tail) Follow(r Record) (Tail, error) {
	sum, err := r.sum()
	switch {
	case err != nil:
		return t, err
	case r.Sequence != t.Sequence+1:
		return t, fmt.Errorf("%w: record %d follows record %d", ErrBroken, r.Sequence, t.Sequence)
	case r.Previous != t.Hash:
		return t, fmt.Errorf("%w: record %d does not follow the one before it", ErrBroken, r.Sequence)
	case r.Hash != sum:
		return t, fmt.Errorf("%w: record %d is not what was written", ErrBroken, r.Sequence)
	}
	return r.Tail(), nil
}

func (r Record) sum() (string, error) {
	r.Hash = ""
	data, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("hash audit record: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
