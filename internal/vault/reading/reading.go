// Package reading keeps recovery points from being removed while somebody reads
// them. Whoever reads a point for long notes it in the vault, and whoever removes
// one notes that; each looks for the other after its own note is written, so of
// two that meet at least one sees the other, and stands back. A note counts for a
// time from its last writing, by the store's clock at both ends: what died holds
// nothing up for ever. See docs/formats/vault.md, "Readers".
package reading

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
)

// Errors that callers may decide on.
var (
	// ErrRead says that somebody reads the point: it is not to be removed now.
	ErrRead = errors.New("recovery point is being read")
	// ErrLeaving says that the point is being removed, or gone: it is not to be read.
	ErrLeaving = errors.New("recovery point is being removed")
)

// Begun is the By of the deleting mark after which parts of a point may be gone.
const Begun = "removal begun"

// How long notes count from their last writing, by the store's clock.
const (
	// Lease is that of a reader: one that goes on writes it again every twelfth of it.
	Lease = 2 * time.Hour
	// claimLease is that of a remover, who gives up after claimBound by a clock
	// that it does not share with the store.
	claimLease = time.Hour
	claimBound = 10 * time.Minute
	// margin is what is given to a reader beyond its lease.
	margin = 10 * time.Minute
	// longest bounds what a note may ask for: it may be of anybody who can write.
	longest = 24 * time.Hour
	// putWithin bounds the writing of one note.
	putWithin = time.Minute
)

const formatVersion = 1

// The roles in the names of notes.
const (
	reader  = "reader"
	remover = "remover"
)

// note is what is written, sealed, under its own random name.
type note struct {
	FormatVersion int           `json:"formatVersion"`
	By            string        `json:"by"`
	For           string        `json:"for,omitempty"` // who ordered it, for people
	Site          string        `json:"site"`
	Cluster       string        `json:"cluster,omitempty"` // that bears the site's name
	At            time.Time     `json:"at"`                // by the writer's clock, for people
	Lease         time.Duration `json:"lease"`             // nanoseconds
}

// Reader is one who noted that he reads a point.
type Reader struct {
	Application string `json:"-"`
	Point       string `json:"-"`
	// By is who reads, for people, and Site where.
	By   string `json:"by"`
	Site string `json:"site,omitempty"`
	// For is who ordered it.
	For string `json:"for,omitempty"`
	// Since is when he began, by his own clock.
	Since time.Time `json:"since,omitzero"`
	// Until is when the note ends unless he goes on, by the store's clock.
	Until time.Time `json:"until"`
}

// String tells of the reader.
func (r Reader) String() string {
	text := "being read by " + r.By
	if r.For != "" {
		text += " of " + r.For
	}
	if r.Site != "" {
		text += " at site " + r.Site
	}
	return text + " until " + r.Until.UTC().Format(time.RFC3339)
}

// ReadError is ErrRead, with who reads.
type ReadError struct {
	Point   string
	Readers []Reader
}

// Error implements error.
func (e *ReadError) Error() string {
	all := make([]string, len(e.Readers))
	for i, r := range e.Readers {
		all[i] = r.String()
		if !r.Since.IsZero() {
			all[i] += ", since " + r.Since.UTC().Format(time.RFC3339)
		}
	}
	return fmt.Sprintf("point %s: %s: %s; that is later if it goes on", e.Point, ErrRead, strings.Join(all, "; "))
}

// Is makes it ErrRead.
func (e *ReadError) Is(target error) bool { return target == ErrRead }

// entry is a note as it lies in the vault.
type entry struct {
	note
	key, app, point, role string
	written               time.Time // by the store's clock
}

func (e entry) until() time.Time { return e.written.Add(e.Lease) }

func (e entry) reader() Reader {
	return Reader{Application: e.app, Point: e.point, By: e.By, For: e.For, Site: e.Site, Since: e.At, Until: e.until().UTC()}
}

func root(p *vault.Project) string                     { return p.Root() + "reading/" }
func prefixOf(p *vault.Project, app, id string) string { return root(p) + app + "/" + id + "/" }

// writable is the project for writing notes. A second copy's is for reading, but
// for these.
func writable(p *vault.Project) *vault.Project {
	return p.Over(func(s vault.Store) vault.Store {
		if c, ok := s.(interface{ Notes() vault.Store }); ok {
			return c.Notes()
		}
		return s
	})
}

func newKey(p *vault.Project, app, id, role string) (string, error) {
	if err := errors.Join(vault.CheckName(app), vault.CheckName(id)); err != nil {
		return "", err
	}
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("read random: %w", err)
	}
	return prefixOf(p, app, id) + role + "-" + hex.EncodeToString(raw[:]), nil
}

func write(ctx context.Context, p *vault.Project, key string, n note) error {
	n.FormatVersion = formatVersion
	plain, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	ctx, cancel := context.WithTimeout(ctx, putWithin)
	defer cancel()
	return p.WriteSealed(ctx, key, plain)
}

// list reads the notes under a prefix. One that cannot be opened counts as any
// other: it may be sealed with a key that this process does not know yet.
func list(ctx context.Context, p *vault.Project, prefix string) ([]entry, error) {
	var all []entry
	err := p.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		parts := strings.Split(strings.TrimPrefix(o.Key, root(p)), "/")
		if len(parts) != 3 {
			return nil
		}
		role, _, _ := strings.Cut(parts[2], "-")
		all = append(all, entry{key: o.Key, app: parts[0], point: parts[1], role: role, written: o.Modified})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	kept := all[:0]
	for _, e := range all {
		plain, err := p.ReadSealed(ctx, e.key)
		switch {
		case errors.Is(err, vault.ErrNotFound): // taken away since
			continue
		case err != nil && !errors.Is(err, vault.ErrDamaged):
			return nil, err
		}
		if err != nil || json.Unmarshal(plain, &e.note) != nil || e.FormatVersion > formatVersion {
			e.By = cmp.Or(e.By, "somebody whose note cannot be read")
		}
		if e.Lease <= 0 {
			e.Lease = Lease
		}
		e.Lease = min(e.Lease, longest)
		kept = append(kept, e)
	}
	return kept, nil
}

// mine finds when, by the store's clock, a note was written.
func mine(all []entry, key string) (time.Time, error) {
	i := slices.IndexFunc(all, func(e entry) bool { return e.key == key })
	if i < 0 {
		return time.Time{}, fmt.Errorf("note %s is not listed after it was written: %w", key, vault.ErrUnavailable)
	}
	return all[i].written, nil
}

// Readers are those who read points of an application, or with an empty name of
// any, at a time.
func Readers(ctx context.Context, p *vault.Project, app string, now time.Time) ([]Reader, error) {
	prefix := root(p)
	if app != "" {
		prefix += app + "/"
	}
	all, err := list(ctx, p, prefix)
	if err != nil {
		return nil, fmt.Errorf("look who reads: %w", err)
	}
	var readers []Reader
	for _, e := range all {
		if e.role == reader && e.until().After(now) {
			readers = append(readers, e.reader())
		}
	}
	return readers, nil
}

// sweepAfter is how long ago a note must have ended to be swept.
const sweepAfter = 24 * time.Hour

// Sweep takes away notes that ended long ago. No writer goes on with such a one:
// see [Session].
func Sweep(ctx context.Context, p *vault.Project, now time.Time) error {
	all, err := list(ctx, p, root(p))
	if err != nil {
		return fmt.Errorf("sweep readers' notes: %w", err)
	}
	var errs []error
	for _, e := range all {
		if now.Sub(e.until()) > sweepAfter {
			errs = append(errs, p.Store().Delete(ctx, e.key))
		}
	}
	return errors.Join(errs...)
}

// Forget takes away all notes of a point that is gone.
func Forget(ctx context.Context, p *vault.Project, app, id string) error {
	var keys []string
	err := p.Store().List(ctx, prefixOf(p, app, id), func(o vault.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	})
	errs := []error{err}
	for _, key := range keys {
		errs = append(errs, p.Store().Delete(ctx, key))
	}
	return errors.Join(errs...)
}
