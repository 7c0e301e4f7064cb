// Package journal has each change of a console's databases be in the vault
// before it is acknowledged, and carries out elsewhere what is there
// (docs/formats/console.md). Records are write-once objects with numbers without
// a gap: of two consoles that write the same number one is told so, and stops.
package journal

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// formatVersion is what this code writes, and the highest that it reads.
const formatVersion = 1

// maxRecord bounds a record, in bytes.
const maxRecord = 64 << 20

// Record is what one transaction, or some in a row, changed in a database.
type Record struct {
	FormatVersion int       `json:"formatVersion"`
	Console       string    `json:"console"`
	Database      string    `json:"database"`
	Number        int64     `json:"number"`
	Epoch         int64     `json:"epoch"`
	Holder        string    `json:"holder"` // of the epoch
	Previous      string    `json:"previous"`
	At            time.Time `json:"at"` // for people
	Changes       []string  `json:"changes,omitempty"`
}

// Errors, wrapped, by which callers decide.
var (
	// ErrFork says that a database holds what the journal does not, or the other way round.
	ErrFork = errors.New("the database does not continue to what the journal holds")
	// ErrOvertaken says that another console wrote the record.
	ErrOvertaken = errors.New("another console has written meanwhile")
)

// Book is the journal of one database in its vault.
type Book struct {
	backup.Shelf
	Database string
}

func (b Book) prefix() string {
	return b.Project.Root() + "console/" + b.Console + "/journal/" + b.Database + "/"
}

func (b Book) key(n int64) string { return fmt.Sprintf("%s%020d", b.prefix(), n) }

// kept is a record that is there, and since when, by the vault's clock.
type kept struct {
	number int64
	since  time.Time
}

// numbers are those of all records, in order.
func (b Book) numbers(ctx context.Context) ([]kept, error) {
	var all []kept
	err := b.Project.Store().List(ctx, b.prefix(), func(o vault.ObjectInfo) error {
		n, err := strconv.ParseInt(strings.TrimPrefix(o.Key, b.prefix()), 10, 64)
		if err != nil || n < 1 || o.Key != b.key(n) {
			return fmt.Errorf("%w: %s", vault.ErrDamaged, o.Key)
		}
		all = append(all, kept{n, o.Modified})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the console's journal: %w", err)
	}
	slices.SortFunc(all, func(a, b kept) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}

// Head is the highest number that was written; 0: none.
func (b Book) Head(ctx context.Context) (int64, error) {
	all, err := b.numbers(ctx)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[len(all)-1].number, nil
}

// Read returns a record and its hash.
func (b Book) Read(ctx context.Context, n int64) (Record, string, error) {
	key := b.key(n)
	sealed, err := b.Project.ReadSealed(ctx, key)
	if err != nil {
		return Record{}, "", err
	}
	plain, err := b.Authority.Unseal(key, sealed, maxRecord)
	if err != nil {
		return Record{}, "", err
	}
	r, err := parse(plain)
	if err == nil && (r.Number != n || r.Console != b.Console || r.Database != b.Database) {
		err = fmt.Errorf("%w: it is record %d of %s of another", vault.ErrDamaged, r.Number, r.Database)
	}
	if err != nil {
		return Record{}, "", fmt.Errorf("read %s: %w", key, err)
	}
	return r, sum(plain), nil
}

func parse(plain []byte) (r Record, err error) {
	if err := json.Unmarshal(plain, &r); err != nil { // its text could hold a secret
		return r, fmt.Errorf("%w: it is no record", vault.ErrDamaged)
	}
	switch {
	case r.FormatVersion != formatVersion:
		return r, fmt.Errorf("journal format %d, this davit reads %d: use a newer davit", r.FormatVersion, formatVersion)
	case r.Number < 1 || r.Epoch < 1 || r.Previous == "":
		return r, fmt.Errorf("%w: it is record %d of epoch %d", vault.ErrDamaged, r.Number, r.Epoch)
	}
	return r, nil
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

// put writes a record and returns where the journal is then. vault.ErrExists
// says that the number is taken.
func (b Book) put(ctx context.Context, r Record) (store.Position, error) {
	r.FormatVersion, r.Console, r.Database = formatVersion, b.Console, b.Database
	plain, err := json.Marshal(r)
	if err != nil { // its text could hold a secret
		return store.Position{}, errors.New("encode record of the journal")
	}
	to := store.Position{Number: r.Number, Epoch: r.Epoch, Hash: sum(plain)}
	sealed, err := b.Authority.Seal(b.key(r.Number), plain)
	if err != nil {
		return to, err
	}
	return to, b.Project.WriteSealedOnce(ctx, b.key(r.Number), sealed)
}

// spare is how many backups before the newest can be continued from.
const spare = 2

// What is kept of the journal although backups hold it, so that who follows from far
// or was away for a moment is not outrun: the records of the last while, by the
// vault's clock, but no more than so many.
const (
	keepFor  = time.Hour
	keepMost = 50_000
)

// Trim removes records that some backups hold and that are not of late. The newest
// record always stays, so that no number is given twice.
func (b Book) Trim(ctx context.Context) error {
	entries, err := b.List(ctx, b.Database)
	if err != nil || len(entries) <= spare {
		return err
	}
	d, err := b.Document(ctx, b.Database, entries[len(entries)-1-spare].Number)
	if err != nil || d.Journal == nil {
		return err
	}
	numbers, err := b.numbers(ctx)
	if err != nil {
		return err
	}
	now, err := b.Project.Clock(ctx)
	if err != nil {
		return fmt.Errorf("ask the vault for its time: %w", err)
	}
	for _, n := range surplus(numbers, *d.Journal, now) {
		if err := b.Project.Store().Delete(ctx, b.key(n)); err != nil {
			return fmt.Errorf("trim the console's journal: %w", err)
		}
	}
	return nil
}

// surplus are the records up to a number that need not be kept, oldest first. What is
// left has no gap: a record that is kept keeps all after it.
func surplus(all []kept, upto int64, now time.Time) (gone []int64) {
	for i, k := range all[:max(0, len(all)-1)] {
		if k.number > upto || now.Sub(k.since) < keepFor && len(all)-i <= keepMost {
			break
		}
		gone = append(gone, k.number)
	}
	return gone
}
