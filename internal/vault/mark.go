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
	MarkUnbootable  MarkKind = "unbootable"  // a restore test of it failed; offered all the same
	MarkRepaired    MarkKind = "repaired"    // takes off quarantines, whose damage is mended
	MarkUndeleted   MarkKind = "undeleted"   // takes off deletions that were waiting
)

var markKinds = []MarkKind{MarkVerified, MarkPinned, MarkUnpinned, MarkDeleting, MarkQuarantined, MarkUnbootable, MarkRepaired, MarkUndeleted}

// How a point was verified.
const (
	HowFull   = "full"   // every byte was read back
	HowSample = "sample" // objects, directories, and a part of the volumes' data
	HowBoot   = "boot"   // it was restored, came up, and passed its probes

	ByVerification = "verify" // who says so, in [Mark].By
)

// Mark is one write-once fact about one recovery point.
type Mark struct {
	Kind MarkKind  `json:"kind"`
	At   time.Time `json:"at"`           // by the writer's clock
	Site string    `json:"site"`         // where it was learned
	By   string    `json:"by,omitempty"` // who or what says so
	Note string    `json:"note,omitempty"`
	// How tells how it was verified; see the constants. Empty, in marks of
	// older writers, stands for HowFull.
	How string `json:"how,omitempty"`
	// RTO is how long a restored copy took until it worked, in nanoseconds.
	RTO time.Duration `json:"rto,omitempty"`
	// Probes are what a restored copy answered.
	Probes []MarkProbe `json:"probes,omitempty"`
	// Seen holds the ordinals of the pins and unpins that were there when this
	// pin or unpin was written. Mark fills it in; nil in marks of older writers.
	// In a repaired or undeleted mark it holds those that the mark takes off.
	Seen []string `json:"seen,omitzero"`
	// Ordinal tells marks of one kind apart and sorts them by time. Mark fills it in.
	Ordinal string `json:"ordinal"`
}

// OfBytes tells whether the mark says that the bytes of the vault that it is in are
// damaged. Another copy of the point may be whole.
func (m Mark) OfBytes() bool { return m.Kind == MarkQuarantined && m.By == ByVerification }

// MarkProbe is the answer to one probe of a restore test.
type MarkProbe struct {
	Name    string        `json:"name"`
	Passed  bool          `json:"passed"`
	Took    time.Duration `json:"took"` // nanoseconds
	Message string        `json:"message,omitempty"`
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
	if m.Kind == MarkPinned || m.Kind == MarkUnpinned {
		if m.Seen, err = p.seenPins(ctx, app, id); err != nil {
			return fmt.Errorf("mark point %s: %w", id, err)
		}
	}
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

// seenPins names the pins and unpins that a point has now.
func (p *Project) seenPins(ctx context.Context, app, id string) ([]string, error) {
	marks, err := p.Marks(ctx, app, id)
	seen := []string{}
	for _, m := range marks {
		if m.Kind == MarkPinned || m.Kind == MarkUnpinned {
			seen = append(seen, m.Ordinal)
		}
	}
	return seen, err
}

// pinned tells whether a pin is left that no unpin takes off. No clock takes
// part: a pin and an unpin that did not see each other leave the point pinned.
func pinned(marks []Mark) bool {
	return slices.ContainsFunc(marks, func(pin Mark) bool {
		return pin.Kind == MarkPinned && !slices.ContainsFunc(marks, func(m Mark) bool { return m.takesOff(pin) })
	})
}

// takesOff tells whether a mark is an unpin that saw the pin. One of an older
// writer does not say what it saw: there, clocks have to do, unless the pin saw it.
func (m Mark) takesOff(pin Mark) bool {
	switch {
	case m.Kind != MarkUnpinned:
		return false
	case m.Seen == nil:
		return m.At.After(pin.At) && !slices.Contains(pin.Seen, m.Ordinal)
	}
	return slices.Contains(m.Seen, pin.Ordinal)
}

// standing are the marks of a kind that no mark of the other kind takes off.
func standing(marks []Mark, kind, taker MarkKind) []Mark {
	var left []Mark
	for _, m := range marks {
		takes := func(t Mark) bool { return t.Kind == taker && slices.Contains(t.Seen, m.Ordinal) }
		if m.Kind == kind && !slices.ContainsFunc(marks, takes) {
			left = append(left, m)
		}
	}
	return left
}

// Unmark removes a mark that its writer takes back.
func (p *Project) Unmark(ctx context.Context, app, id string, m Mark) error {
	return p.store.Delete(ctx, p.at.mark(app, id, m.Kind, m.Ordinal))
}
