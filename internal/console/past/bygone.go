package past

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault"
)

// ErrServed says that a console which is active would not learn of what is changed here.
var ErrServed = errors.New("a console of this vault is active")

// WentBack is what a database went back to, or would.
type WentBack struct {
	Number  int64 `json:"number"` // of the backup
	Records int   `json:"journalRecords"`
	// At is when the last was written of what it went back to.
	At time.Time `json:"at"`
	// Short says why that is not all that was written by the time that was asked for.
	Short string `json:"short,omitempty"`
	// Passed are backups that are damaged.
	Passed []string `json:"damaged,omitempty"`
	// Since is how many records its audit log has of what was done since; they stay.
	Since   int64    `json:"auditRecordsSince"`
	Changes []Change `json:"changes"`
	// Younger says why nothing goes back; empty: it does.
	Younger string `json:"younger,omitempty"`
}

// Bygone is a console as it was, beside the one that goes back to it.
type Bygone struct {
	Time time.Time
	Act  audit.Act
	// Dry has it only be said what would change.
	Dry bool
	dir string // a console's directory, of which each project's database is as it was
}

// Open makes room for what was in a directory that is made anew.
func (b *Bygone) Open(dir string) error {
	b.dir = dir
	return errors.Join(os.RemoveAll(dir), directory.Prepare(dir), directory.Prepare(b.own()))
}

// own is where the console's own database is as it was: the one beside the projects lists all
// that there are now.
func (b *Bygone) own() string { return filepath.Join(b.dir, "own") }

// Close removes what was.
func (b *Bygone) Close() error { return os.RemoveAll(b.dir) }

// Fetch brings a database back as it was; d says what it is now.
func (b *Bygone) Fetch(ctx context.Context, s backup.Shelf, d journal.Copy) (*WentBack, error) {
	path := directory.Console(b.own())
	if d.Database == backup.ProjectDatabase {
		path = directory.Project(b.dir, d.ID)
	}
	if d.Created.After(b.Time) {
		return &WentBack{Younger: "it was made after that time, and stays as it is", Changes: []Change{}}, nil
	}
	p, err := journal.Book{Shelf: s, Database: d.Database}.At(ctx, path, b.Time)
	if err != nil {
		return nil, err
	}
	w := &WentBack{Number: p.Backup, Records: p.Records, At: p.At, Since: d.Audit.Sequence - p.Audit.Sequence}
	if p.Short != nil {
		w.Short = p.Short.Error()
	}
	for _, e := range p.Passed {
		w.Passed = append(w.Passed, e.Error())
	}
	return w, nil
}

// Carry has a console that nobody serves go back with its own database, if it is not nil, and
// with projects by their names.
func (b *Bygone) Carry(ctx context.Context, dir string, own *WentBack, projects map[string]*WentBack) (err error) {
	now, err := store.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, now.Close()) }()
	return b.CarryIn(ctx, now, own, projects)
}

// CarryIn is Carry in a console that is open, and may be served: who has it follows each change.
func (b *Bygone) CarryIn(ctx context.Context, now *store.Console, own *WentBack, projects map[string]*WentBack) (err error) {
	if err := errors.Join(now.Snapshot(ctx, directory.Console(b.dir)), directory.WriteKey(b.dir, now.Key()), directory.WriteKey(b.own(), now.Key())); err != nil {
		return err
	}
	then, err := store.Open(ctx, b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, then.Close()) }()
	if own != nil {
		if err := b.users(ctx, now, own); err != nil {
			return fmt.Errorf("go back in the console: %w", err)
		}
	}
	for name, w := range projects {
		if w.Younger != "" {
			continue
		}
		if err := b.project(ctx, now, then, name, w); err != nil {
			return fmt.Errorf("go back in project %s: %w", name, err)
		}
	}
	return nil
}

func (b *Bygone) users(ctx context.Context, now *store.Console, w *WentBack) (err error) {
	then, err := store.Open(ctx, b.own())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, then.Close()) }()
	if w.Changes, err = Users(ctx, now, then); err != nil {
		return err
	}
	return b.change(ctx, "console", now, then, w)
}

func (b *Bygone) project(ctx context.Context, now, then *store.Console, name string, w *WentBack) error {
	is, err := now.Project(ctx, name)
	if err != nil {
		return err
	}
	was, err := then.Project(ctx, name)
	if err != nil {
		return err
	}
	if w.Changes, err = Project(ctx, is, was); err != nil {
		return err
	}
	return b.change(ctx, "project "+name, is, was, w)
}

// logged is a database with its audit log, in which can be written.
type logged interface {
	store.Audited
	Note(ctx context.Context, act audit.Act, r audit.Record) error
}

// change notes what is gone back to, and carries it out.
func (b *Bygone) change(ctx context.Context, name string, now logged, then store.Audited, w *WentBack) error {
	if b.Dry {
		return nil
	}
	stays, err := stays(ctx, now, then)
	if err != nil {
		return err
	}
	detail := fmt.Sprintf("to what was defined at %s, by backup %d and %d records of the journal: %d changes, which follow; %s",
		b.Time.UTC().Format(time.RFC3339), w.Number, w.Records, len(w.Changes), stays)
	if err := now.Note(ctx, b.Act, audit.Record{Action: "goback", Object: name, Detail: detail}); err != nil {
		return err
	}
	for _, c := range w.Changes {
		if err := c.Carry(ctx, b.Act); err != nil {
			return err
		}
	}
	return nil
}

// stays says what an audit log has of the time between. It is whole: what is undone is not left
// out. That of then is its beginning, unless an end of the log was lost meanwhile.
func stays(ctx context.Context, now, then store.Audited) (string, error) {
	is, err := now.VerifyAudit(ctx)
	if err != nil {
		return "", err
	}
	was, err := then.VerifyAudit(ctx)
	if err != nil {
		return "", err
	}
	if was.Sequence > 0 {
		at, err := now.AuditAfter(ctx, was.Sequence-1, 1)
		if err != nil {
			return "", err
		}
		if len(at) == 0 || at[0].Hash != was.Hash {
			return fmt.Sprintf("the log of then is not the beginning of this one: it ended with record %d %s", was.Sequence, was.Hash), nil
		}
	}
	return fmt.Sprintf("the %d records after record %d %s are of what was done since, and stay", is.Sequence-was.Sequence, was.Sequence, was.Hash), nil
}

// again is between two looks at a beat.
const again = 200 * time.Millisecond

// Alone refuses to go back while a console is active: it would go on from what the vault holds,
// and what was changed here would be dropped. A beat that has not ended is looked at for as long as a
// second console waits.
func Alone(ctx context.Context, l lead.Ledger, patience time.Duration) error {
	c, err := l.Newest(ctx)
	if err != nil || c.Number == 0 {
		return err
	}
	first, err := l.ReadBeat(ctx, c.Number)
	if errors.Is(err, vault.ErrNotFound) || err == nil && first.Over {
		return nil
	}
	looks := time.NewTicker(again)
	defer looks.Stop()
	for over := time.After(patience); err == nil; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return nil
		case <-looks.C:
		}
		var b lead.Beat
		b, err = l.ReadBeat(ctx, c.Number)
		switch {
		case err == nil && b.Over:
			return nil
		case err == nil && b.Count != first.Count:
			return fmt.Errorf("go back: %w: the one at %s", ErrServed, c.URL)
		}
	}
	return fmt.Errorf("look who is active: %w", err)
}

// Shelved are the backups that there are of one database, oldest first.
type Shelved struct {
	Database string   `json:"database"`
	Backups  []Backup `json:"backups"`
	Fault    string   `json:"fault,omitempty"`
}

// Backup is one of them.
type Backup struct {
	Number int64     `json:"number"`
	At     time.Time `json:"at"` // by the vault's clock
}

// List says which backups there are of a database, or why that is not known.
func List(ctx context.Context, s backup.Shelf, database, name string, err error) Shelved {
	out := Shelved{Database: name, Backups: []Backup{}}
	var entries []backup.Entry
	if err == nil {
		entries, err = s.List(ctx, database)
	}
	for _, e := range entries {
		out.Backups = append(out.Backups, Backup{e.Number, e.At.UTC()})
	}
	if err != nil {
		out.Fault = err.Error()
	}
	return out
}
