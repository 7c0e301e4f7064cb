// Package shelf keeps recovery plans in the vault, as they are written, in
// numbered revisions that are never replaced (docs/formats/vault.md): so that whoever
// has the vault has the plans, although the site that they were written at is lost.
package shelf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
)

const (
	formatVersion = 1
	digits        = 20
	tries         = 20
)

// ErrNewer says that a plan is kept in a format that only a newer davit reads.
var ErrNewer = errors.New("use a newer davit")

// Sheet is one revision of a plan.
type Sheet struct {
	FormatVersion int       `json:"formatVersion"`
	Plan          string    `json:"plan"`
	Revision      int64     `json:"revision"` // 1, 2, ...
	At            time.Time `json:"at"`
	Site          string    `json:"site"` // that wrote it
	// Document is the RecoveryPlan, as JSON, without status.
	Document json.RawMessage `json:"document"`
}

// Same tells whether two sheets say the same.
func (s Sheet) Same(document json.RawMessage) bool {
	var a, b bytes.Buffer
	return json.Compact(&a, s.Document) == nil && json.Compact(&b, document) == nil && bytes.Equal(a.Bytes(), b.Bytes())
}

// Shelf is that of one project.
type Shelf struct{ project *vault.Project }

// New returns a project's shelf.
func New(p *vault.Project) Shelf { return Shelf{p} }

func (s Shelf) root() string { return s.project.Root() + "plans/" }

func (s Shelf) key(plan string, n int64) string {
	return fmt.Sprintf("%s%s/%0*d", s.root(), plan, digits, n)
}

// newest lists plans with the number of their newest revision.
func (s Shelf) newest(ctx context.Context, prefix string) (map[string]int64, error) {
	all := map[string]int64{}
	err := s.project.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		plan, tail, ok := strings.Cut(strings.TrimPrefix(o.Key, s.root()), "/")
		n, err := strconv.ParseInt(tail, 10, 64)
		if ok && err == nil && n > 0 && len(tail) == digits && vault.CheckName(plan) == nil {
			all[plan] = max(all[plan], n)
		} // else of a later version, or nobody's
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list plans: %w", err)
	}
	return all, nil
}

// Revisions lists plans with the number of their newest revision.
func (s Shelf) Revisions(ctx context.Context) (map[string]int64, error) {
	return s.newest(ctx, s.root())
}

// List returns the newest revision of every plan, by name. Of one that cannot
// be read there is an error instead.
func (s Shelf) List(ctx context.Context) (map[string]Sheet, map[string]error, error) {
	newest, err := s.newest(ctx, s.root())
	if err != nil {
		return nil, nil, err
	}
	sheets, errs := map[string]Sheet{}, map[string]error{}
	for plan, n := range newest {
		sheet, err := s.read(ctx, plan, n)
		if err != nil {
			errs[plan] = err
			continue
		}
		sheets[plan] = sheet
	}
	return sheets, errs, nil
}

// Get returns a plan's newest revision, or vault.ErrNotFound.
func (s Shelf) Get(ctx context.Context, plan string) (Sheet, error) {
	if err := vault.CheckName(plan); err != nil {
		return Sheet{}, fmt.Errorf("look for plan: %w", err)
	}
	newest, err := s.newest(ctx, s.root()+plan+"/")
	if err != nil {
		return Sheet{}, err
	}
	n := newest[plan]
	if n == 0 {
		return Sheet{}, fmt.Errorf("look for plan %s: %w", plan, vault.ErrNotFound)
	}
	sheet, err := s.read(ctx, plan, n)
	sheet.Revision = n // also of one that cannot be read
	return sheet, err
}

func (s Shelf) read(ctx context.Context, plan string, n int64) (Sheet, error) {
	data, err := s.project.ReadSealed(ctx, s.key(plan, n))
	if err != nil {
		return Sheet{}, fmt.Errorf("read plan %s, revision %d: %w", plan, n, err)
	}
	sheet, err := parse(data)
	if err == nil && (sheet.Plan != plan || sheet.Revision != n) {
		err = fmt.Errorf("%w: it is revision %d of %q", vault.ErrDamaged, sheet.Revision, sheet.Plan)
	}
	if err != nil {
		return Sheet{}, fmt.Errorf("read plan %s, revision %d: %w", plan, n, err)
	}
	return sheet, nil
}

func parse(data []byte) (Sheet, error) {
	var s Sheet
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	switch {
	case s.FormatVersion > formatVersion:
		return s, fmt.Errorf("plan format %d, this davit reads %d: %w", s.FormatVersion, formatVersion, ErrNewer)
	case s.FormatVersion != formatVersion || len(s.Document) == 0:
		return s, fmt.Errorf("%w: it is no plan", vault.ErrDamaged)
	}
	return s, nil
}

// Put keeps a new revision, and returns it. When the newest says the same
// already, that one is returned and nothing is written; one that is damaged is no longer
// the newest then.
func (s Shelf) Put(ctx context.Context, sheet Sheet) (Sheet, error) {
	if err := vault.CheckName(sheet.Plan); err != nil {
		return sheet, fmt.Errorf("keep plan: %w", err)
	}
	for range tries {
		last, err := s.Get(ctx, sheet.Plan)
		switch {
		case err == nil && last.Same(sheet.Document):
			return last, nil
		case err != nil && !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, vault.ErrDamaged):
			return sheet, err
		}
		sheet.FormatVersion, sheet.Revision = formatVersion, last.Revision+1
		data, err := json.Marshal(sheet)
		if err != nil {
			return sheet, fmt.Errorf("keep plan %s: %w", sheet.Plan, err)
		}
		err = s.project.WriteSealedOnce(ctx, s.key(sheet.Plan, sheet.Revision), data)
		if errors.Is(err, vault.ErrExists) {
			continue // another site was faster: look again
		}
		if err != nil {
			return sheet, fmt.Errorf("keep plan %s: %w", sheet.Plan, err)
		}
		return sheet, nil
	}
	return sheet, fmt.Errorf("keep plan %s: too many others write it at once: try again", sheet.Plan)
}
