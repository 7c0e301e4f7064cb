// Package backup keeps a console's databases in the vaults of its projects, and
// brings them back from there (docs/formats/console.md).
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// formatVersion is what this code writes, and the highest that it reads.
const formatVersion = 1

// The databases of a console.
const (
	ConsoleDatabase = "console"
	ProjectDatabase = "project"
)

// partSize is how much of a database one object holds, in bytes.
const partSize = 8 << 20

// Bound is a project of a console, and the way into its vault.
type Bound struct {
	ID      string        `json:"id"`
	Name    string        `json:"name"`
	Created time.Time     `json:"created"`
	Binding fleet.Binding `json:"binding"`
}

// Part is a part of a database.
type Part struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Tail is the newest record of an audit log.
type Tail struct {
	Sequence int64  `json:"sequence"`
	Hash     string `json:"hash"`
}

// Document says what a backup is. Its keys and bindings are secrets.
type Document struct {
	FormatVersion int       `json:"formatVersion"`
	Console       string    `json:"console"`
	Database      string    `json:"database"`
	Number        int64     `json:"number"`
	At            time.Time `json:"at"`
	Audit         Tail      `json:"audit"`
	Size          int64     `json:"size"`
	SHA256        string    `json:"sha256"`
	Parts         []Part    `json:"parts"`
	// Journal is the record of the database's journal up to which it has all; nil:
	// there was no journal yet.
	Journal *int64 `json:"journal,omitempty"`

	// Of a project:
	ID      string    `json:"id,omitempty"`
	Name    string    `json:"name,omitempty"`
	Created time.Time `json:"created,omitzero"`
	// Of the console:
	Key      []byte  `json:"key,omitempty"`
	Projects []Bound `json:"projects,omitempty"`
}

// Shelf is where the backups of one console are in one project.
type Shelf struct {
	Project   *vault.Project
	Authority *authority.Authority
	Console   string // id
}

func (s Shelf) prefix(database string) string {
	return s.Project.Root() + "console/" + s.Console + "/backups/" + database + "/"
}

func (s Shelf) documentKey(database string, n int64) string {
	return fmt.Sprintf("%s%020d/document", s.prefix(database), n)
}

func (s Shelf) partKey(database string, n int64, part int) string {
	return fmt.Sprintf("%s%020d/%08d", s.prefix(database), n, part)
}

// Entry is one backup on a shelf.
type Entry struct {
	Number int64
	At     time.Time // by the vault's clock
	parts  []string
	whole  bool // it has a document
}

// all lists what is there, oldest first, also what has no document.
func (s Shelf) all(ctx context.Context, database string) ([]Entry, error) {
	found := map[int64]*Entry{}
	prefix := s.prefix(database)
	err := s.Project.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		number, tail, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 1 || number != fmt.Sprintf("%020d", n) {
			return nil // none of ours
		}
		if found[n] == nil {
			found[n] = &Entry{Number: n}
		}
		e := found[n]
		if tail == "document" {
			e.whole, e.At = true, o.Modified
			return nil
		}
		e.parts = append(e.parts, o.Key)
		if !e.whole {
			e.At = o.Modified
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list backups of the console: %w", err)
	}
	entries := make([]Entry, 0, len(found))
	for _, e := range found {
		entries = append(entries, *e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return int(a.Number - b.Number) })
	return entries, nil
}

// List returns the backups of a database, oldest first.
func (s Shelf) List(ctx context.Context, database string) ([]Entry, error) {
	entries, err := s.all(ctx, database)
	return slices.DeleteFunc(entries, func(e Entry) bool { return !e.whole }), err
}

// Write keeps a file as the next backup. confirm is asked, if given, before it counts.
func (s Shelf) Write(ctx context.Context, path string, d Document, confirm func(ctx context.Context) error) (Document, error) {
	entries, err := s.all(ctx, d.Database)
	if err != nil {
		return d, err
	}
	d.Number = 1
	if n := len(entries); n > 0 {
		d.Number = entries[n-1].Number + 1
	}
	d.FormatVersion, d.Console, d.At = formatVersion, s.Console, d.At.UTC().Truncate(time.Millisecond)
	if err := s.writeParts(ctx, path, &d); err != nil {
		return d, fmt.Errorf("write backup: %w", err)
	}
	plain, err := json.Marshal(d)
	if err != nil { // its text could hold a secret
		return d, errors.New("encode backup")
	}
	if confirm != nil {
		if err := confirm(ctx); err != nil {
			return d, fmt.Errorf("write backup: %w", err)
		}
	}
	return d, s.put(ctx, s.documentKey(d.Database, d.Number), plain)
}

func (s Shelf) writeParts(ctx context.Context, path string, d *Document) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	whole, buffer := sha256.New(), make([]byte, partSize)
	for {
		n, err := io.ReadFull(f, buffer)
		if n == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		whole.Write(buffer[:n])
		d.Parts = append(d.Parts, Part{Size: int64(n), SHA256: sum(buffer[:n])})
		d.Size += int64(n)
		if err := s.put(ctx, s.partKey(d.Database, d.Number, len(d.Parts)), buffer[:n]); err != nil {
			return err
		}
	}
	d.SHA256 = hex.EncodeToString(whole.Sum(nil))
	return nil
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

func (s Shelf) put(ctx context.Context, key string, plain []byte) error {
	sealed, err := s.Authority.Seal(key, plain)
	if err != nil {
		return err
	}
	return s.Project.WriteSealedOnce(ctx, key, sealed)
}

func (s Shelf) get(ctx context.Context, key string, limit int64, unseal func(key string, sealed []byte, limit int64) ([]byte, error)) ([]byte, error) {
	sealed, err := s.Project.ReadSealed(ctx, key)
	if err != nil {
		return nil, err
	}
	return unseal(key, sealed, limit)
}

// maxDocument bounds a document, in bytes.
const maxDocument = 16 << 20

// Read brings a backup back into a file that is not there yet, reads its whole
// audit log, and compares all with what was noted.
func (s Shelf) Read(ctx context.Context, database string, n int64, path string) (Document, error) {
	d, err := s.Document(ctx, database, n)
	if err != nil {
		return d, err
	}
	if err = s.readParts(ctx, d, path); err == nil {
		err = check(ctx, d, path)
	}
	if err != nil {
		return d, fmt.Errorf("read %s: %w", s.documentKey(database, n), err)
	}
	return d, nil
}

// Document returns what a backup says of itself.
func (s Shelf) Document(ctx context.Context, database string, n int64) (Document, error) {
	key := s.documentKey(database, n)
	plain, err := s.get(ctx, key, maxDocument, s.Authority.Unseal)
	if err != nil {
		return Document{}, err
	}
	d, err := parse(plain)
	if err == nil && (d.Console != s.Console || d.Database != database || d.Number != n) {
		err = fmt.Errorf("%w: it is backup %d of %s of another", vault.ErrDamaged, d.Number, d.Database)
	}
	if err != nil {
		return d, fmt.Errorf("read %s: %w", key, err)
	}
	return d, nil
}

func parse(plain []byte) (Document, error) {
	var d Document
	if err := json.Unmarshal(plain, &d); err != nil { // its text could hold a secret
		return d, fmt.Errorf("%w: it is no document", vault.ErrDamaged)
	}
	if d.FormatVersion != formatVersion {
		return d, fmt.Errorf("backup format %d, this davit reads %d: use a newer davit", d.FormatVersion, formatVersion)
	}
	var size int64
	for _, p := range d.Parts {
		if p.Size < 1 || p.Size > partSize {
			return d, fmt.Errorf("%w: a part has %d bytes", vault.ErrDamaged, p.Size)
		}
		size += p.Size
	}
	if size != d.Size || d.Number < 1 || d.Database != ConsoleDatabase && d.Database != ProjectDatabase {
		return d, fmt.Errorf("%w: its parts are not the whole", vault.ErrDamaged)
	}
	return d, nil
}

func (s Shelf) readParts(ctx context.Context, d Document, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	whole := sha256.New()
	for i, part := range d.Parts {
		if err := s.readPart(ctx, d, i, part, f, whole); err != nil {
			return err
		}
	}
	if hex.EncodeToString(whole.Sum(nil)) != d.SHA256 {
		return fmt.Errorf("%w: the whole is not what was written", vault.ErrDamaged)
	}
	return f.Sync()
}

func (s Shelf) readPart(ctx context.Context, d Document, i int, part Part, into io.Writer, whole hash.Hash) error {
	plain, err := s.get(ctx, s.partKey(d.Database, d.Number, i+1), partSize, s.Authority.UnsealPart)
	if errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("%w: part %d is missing", vault.ErrDamaged, i+1)
	}
	if err != nil {
		return err
	}
	if int64(len(plain)) != part.Size || sum(plain) != part.SHA256 {
		return fmt.Errorf("%w: part %d is not what was written", vault.ErrDamaged, i+1)
	}
	whole.Write(plain)
	_, err = into.Write(plain)
	return err
}

// check opens the database and compares its audit log with what was noted.
func check(ctx context.Context, d Document, path string) error {
	look := store.CheckProject
	if d.Database == ConsoleDatabase {
		look = store.CheckConsole
	}
	tail, err := look(ctx, path)
	if err != nil {
		return err
	}
	if tail != (audit.Tail{Sequence: d.Audit.Sequence, Hash: d.Audit.Hash}) {
		return fmt.Errorf("%w: it ends with record %d, and record %d was noted", audit.ErrBroken, tail.Sequence, d.Audit.Sequence)
	}
	return nil
}

// What is kept of each database.
const (
	keepNewest  = 48
	keepDays    = 14
	keepOrphans = 24 * time.Hour
)

// Prune removes what needs not be kept, by the vault's clock as given.
func (s Shelf) Prune(ctx context.Context, database string, now time.Time) error {
	entries, err := s.all(ctx, database)
	if err != nil {
		return err
	}
	for _, e := range surplus(entries, now) {
		keys := e.parts
		if e.whole { // first: what has lost a part must not count
			keys = append([]string{s.documentKey(database, e.Number)}, keys...)
		}
		for _, key := range keys {
			if err := s.Project.Store().Delete(ctx, key); err != nil {
				return fmt.Errorf("remove old backup: %w", err)
			}
		}
	}
	return nil
}

// surplus are those that need not be kept. The highest number always stays, so
// that none is given twice.
func surplus(entries []Entry, now time.Time) (all []Entry) {
	whole := 0
	days := map[string]bool{}
	for i, e := range slices.Backward(entries) {
		if !e.whole {
			if i < len(entries)-1 && now.Sub(e.At) > keepOrphans {
				all = append(all, e)
			}
			continue
		}
		whole++
		day := e.At.UTC().Format(time.DateOnly)
		keep := whole <= keepNewest || !days[day] && now.Sub(e.At) < keepDays*24*time.Hour
		days[day] = true
		if !keep {
			all = append(all, e)
		}
	}
	return all
}
