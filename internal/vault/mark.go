package vault

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MarkKind is a fact learned about a recovery point after it was published.
type MarkKind string

// The kinds of marks.
const (
	MarkVerified    MarkKind = "verified"    // something read it back, whole
	MarkPinned      MarkKind = "pinned"      // never expires
	MarkUnpinned    MarkKind = "unpinned"    // takes the pin off
	MarkDeleting    MarkKind = "deleting"    // on its way out, never offered
	MarkQuarantined MarkKind = "quarantined" // not offered without a person's word
)

var markKinds = []MarkKind{MarkVerified, MarkPinned, MarkUnpinned, MarkDeleting, MarkQuarantined}

// Mark is one write-once fact about one recovery point.
type Mark struct {
	Kind MarkKind  `json:"kind"`
	At   time.Time `json:"at"`           // by the writer's clock
	Site string    `json:"site"`         // where it was learned
	By   string    `json:"by,omitempty"` // who or what says so
	Note string    `json:"note,omitempty"`
	// Ordinal tells marks of one kind apart and sorts them by time. Mark fills it in.
	Ordinal string `json:"ordinal"`
}

// Mark writes a mark. A zero At becomes the present.
func (p *Project) Mark(ctx context.Context, app, id string, m Mark) error {
	if err := checkNames(app, id); err != nil {
		return fmt.Errorf("mark point: %w", err)
	}
	if !slices.Contains(markKinds, m.Kind) {
		return fmt.Errorf("mark point %s: %w: unknown kind %q", id, ErrName, m.Kind)
	}
	if m.At.IsZero() {
		m.At = now()
	}
	var err error
	if m.Ordinal, err = ordinal(m.At); err != nil {
		return fmt.Errorf("mark point %s: %w", id, err)
	}
	return p.writeJSONOnce(ctx, p.at.mark(app, id, m.Kind, m.Ordinal), m)
}

// Marks returns a point's marks, oldest first.
func (p *Project) Marks(ctx context.Context, app, id string) ([]Mark, error) {
	if err := checkNames(app, id); err != nil {
		return nil, fmt.Errorf("read marks: %w", err)
	}
	prefix := p.at.pointMarks(app, id)
	tails, err := listKeys(ctx, p.store, prefix)
	if err != nil {
		return nil, err
	}
	var marks []Mark
	for _, tail := range tails {
		m, err := p.readMark(ctx, prefix+tail)
		if errors.Is(err, ErrNotFound) { // deleted since
			continue
		}
		if err != nil {
			return nil, err
		}
		marks = append(marks, m)
	}
	slices.SortFunc(marks, compareMarks)
	return marks, nil
}

// readMark reads one mark and checks that it stands under its own name.
func (p *Project) readMark(ctx context.Context, key string) (Mark, error) {
	var m Mark
	if err := p.readJSON(ctx, key, &m); err != nil {
		return m, err
	}
	if !strings.HasSuffix(key, "/"+string(m.Kind)+"-"+m.Ordinal) {
		return m, fmt.Errorf("read %s: %w: holds a mark of another name", key, ErrDamaged)
	}
	return m, nil
}

func compareMarks(a, b Mark) int {
	if c := strings.Compare(a.Ordinal, b.Ordinal); c != 0 {
		return c
	}
	return strings.Compare(string(a.Kind), string(b.Kind))
}

var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// ordinal returns 26 characters: 48 bits of Unix milliseconds and 80 random
// bits in Crockford's base 32, so that byte order is order in time.
func ordinal(at time.Time) (string, error) {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(max(at.UnixMilli(), 0))<<16)
	if _, err := rand.Read(raw[6:]); err != nil {
		return "", fmt.Errorf("read random: %w", err)
	}
	return crockford.EncodeToString(raw[:]), nil
}

// pinned tells whether the newest pin or unpin is a pin. Two of the same
// millisecond leave the point pinned.
func pinned(marks []Mark) bool {
	var pin, unpin time.Time
	for _, m := range marks {
		switch {
		case m.Kind == MarkPinned && m.At.After(pin):
			pin = m.At
		case m.Kind == MarkUnpinned && m.At.After(unpin):
			unpin = m.At
		}
	}
	return !pin.IsZero() && !unpin.After(pin)
}

// newest returns the newest mark of a kind, or nil.
func newest(marks []Mark, kind MarkKind) *Mark {
	for i := len(marks) - 1; i >= 0; i-- {
		if marks[i].Kind == kind {
			return &marks[i]
		}
	}
	return nil
}
