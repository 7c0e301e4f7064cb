package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/uplink"
)

// restorationTable is what people asked sites to restore, or to say of it. preview
// is not in the vault's journal: it shows what is in a cluster.
const restorationTable = `
CREATE TABLE restoration (
	id TEXT PRIMARY KEY, site TEXT NOT NULL, application TEXT NOT NULL, point TEXT NOT NULL, name TEXT NOT NULL, dry INTEGER NOT NULL, body TEXT NOT NULL, asked_by TEXT NOT NULL,
	at INTEGER NOT NULL, until INTEGER NOT NULL, state TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '', todo TEXT NOT NULL DEFAULT '', answered INTEGER NOT NULL DEFAULT 0,
	outcome TEXT NOT NULL DEFAULT '', preview TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX restoration_application ON restoration (application, at);
`

// Restoration asks a site for a restore, or for what it would do.
type Restoration struct {
	// ID is chosen by whoever asks: the same again is the same.
	ID          string
	Site        string
	Application string
	Point       string
	Name        string // what the Restore is to be called
	Dry         bool
	// Body says the rest of what is asked.
	Body json.RawMessage
	By   string // as the audit log has it
	At   time.Time
	// Until is when it is too late to begin.
	Until time.Time

	State    string // "": the site has not answered
	Why      string
	Do       string
	Answered time.Time
	// Outcome is what a restore has done so far, and Preview what a dry run found.
	Outcome, Preview json.RawMessage
}

// Over tells whether nothing more will be said of it.
func (r Restoration) Over() bool {
	over, _ := uplink.RestoreOver(r.State)
	return over
}

// Open tells whether the site may still begin it.
func (r Restoration) Open(now time.Time) bool { return r.State == "" && uplink.Due(r.At, r.Until, now) }

// Bounds of what is kept of a project.
const (
	keptRestorations = 1000
	keptPreviews     = 50
)

const restorationColumns = "id, site, application, point, name, dry, body, asked_by, at, until, state, why, todo, answered, outcome, preview"

func scanRestoration(row scanner) (r Restoration, err error) {
	var body, outcome, preview string
	var at, until, answered int64
	err = row.Scan(&r.ID, &r.Site, &r.Application, &r.Point, &r.Name, &r.Dry, &body, &r.By, &at, &until, &r.State, &r.Why, &r.Do, &answered, &outcome, &preview)
	r.Body, r.Outcome, r.Preview = json.RawMessage(body), json.RawMessage(outcome), json.RawMessage(preview)
	r.At, r.Until, r.Answered = fromMillis(at), fromMillis(until), fromMillis(answered)
	return r, err
}

// Restore keeps what a site's agent is asked for, once it is in the vault as well.
// What was asked before is returned as it stands. While a restore of an application
// may still be begun, or runs at the site as far as is known, no other of it is
// asked for.
func (p *Project) Restore(ctx context.Context, act audit.Act, r Restoration, what string) (Restoration, error) {
	r.By, r.At = act.By, act.At.UTC().Truncate(time.Millisecond)
	record := audit.Record{Action: "restore.request", Object: r.Name, Detail: what}
	if r.Dry {
		record.Action = "restore.preview"
	}
	err := p.change(ctx, act, record, func(tx *sql.Tx, _ *audit.Record) error {
		all, err := query(ctx, tx, scanRestoration, "SELECT "+restorationColumns+" FROM restoration WHERE id = ? OR application = ? AND dry = 0", r.ID, r.Application)
		if err != nil {
			return err
		}
		for _, old := range all {
			switch {
			case old.ID == r.ID && old.Application == r.Application && old.Site == r.Site && old.By == r.By && old.Dry == r.Dry && string(old.Body) == string(r.Body):
				r = old
				return errAsked
			case old.ID == r.ID:
				return fmt.Errorf("ask for restore %s: %w: another request has the id %s", r.Name, ErrConflict, r.ID)
			}
		}
		if i := slices.IndexFunc(all, func(old Restoration) bool {
			running := old.State == uplink.Running && old.Site == r.Site && act.At.Sub(old.At) < AskedAgain // later nobody says how it ended
			return running || old.Open(act.At)
		}); i >= 0 && !r.Dry {
			return fmt.Errorf("ask for restore %s: %w: %s asked site %s for %s, and that is not over: wait for it", r.Name, ErrConflict, all[i].By, all[i].Site, all[i].Name)
		}
		_, err = exec(ctx, tx, "INSERT INTO restoration (id, site, application, point, name, dry, body, asked_by, at, until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			r.ID, r.Site, r.Application, r.Point, r.Name, r.Dry, string(r.Body), r.By, toMillis(r.At), toMillis(r.Until))
		if err != nil {
			return err
		}
		for dry, most := range map[bool]int{true: keptPreviews, false: keptRestorations} {
			_, err = exec(ctx, tx, "DELETE FROM restoration WHERE dry = ?1 AND id NOT IN (SELECT id FROM restoration WHERE dry = ?1 ORDER BY at DESC, id LIMIT ?2)", dry, most)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return r, p.asked(ctx, err)
}

// Withdraw has the site take a restore back, if it has not begun.
func (p *Project) Withdraw(ctx context.Context, act audit.Act, id string) error {
	return p.asked(ctx, p.change(ctx, act, audit.Record{Action: "restore.cancel"}, func(tx *sql.Tx, record *audit.Record) error {
		r, err := one(ctx, tx, scanRestoration, "find restore", "SELECT "+restorationColumns+" FROM restoration WHERE id = ?", id)
		if err == nil && (r.Dry || r.Over()) {
			err = fmt.Errorf("cancel restore %s: %w: it is over, or a dry run", r.Name, ErrRefused)
		}
		if err != nil {
			return err
		}
		record.Object = r.Name
		return must(ctx, tx, "cancel restore", "UPDATE restoration SET body = json_set(body, '$.cancel', json('true')) WHERE id = ?", id)
	}))
}

// Restoration returns what was asked for.
func (p *Project) Restoration(ctx context.Context, id string) (Restoration, error) {
	return one(ctx, p.read, scanRestoration, "find restore", "SELECT "+restorationColumns+" FROM restoration WHERE id = ?", id)
}

// Restorations lists what was asked for, of an application or, with "", of all, the
// newest first and without previews.
func (p *Project) Restorations(ctx context.Context, application string, limit int) ([]Restoration, error) {
	columns := strings.Replace(restorationColumns, "preview", "''", 1) // they are large
	return query(ctx, p.read, scanRestoration, "SELECT "+columns+" FROM restoration WHERE (?1 = '' OR application = ?1) ORDER BY at DESC, id LIMIT ?2", application, limit)
}

// Unrestored are those of which a site has not said the last, the oldest first. It is
// asked for a while after it was too late, too: its answer may have been lost.
func (p *Project) Unrestored(ctx context.Context, site string, now time.Time) ([]Restoration, error) {
	return query(ctx, p.read, scanRestoration, "SELECT "+restorationColumns+" FROM restoration WHERE site = ? AND state IN ('', ?) AND at > ? ORDER BY at, id",
		site, uplink.Running, toMillis(now.Add(-AskedAgain)))
}

// answerRestorations keeps what a site says of what it was asked and has not said
// the last of. Of others it can say nothing.
func answerRestorations(ctx context.Context, tx *sql.Tx, site string, at time.Time, all []uplink.Restored) (answered bool, err error) {
	for _, a := range all {
		r, err := one(ctx, tx, scanRestoration, "find restore", "SELECT "+restorationColumns+" FROM restoration WHERE id = ? AND site = ?", a.ID, site)
		if errors.Is(err, ErrNotFound) || err == nil && (r.Over() || r.Dry && a.State == uplink.Running || !r.Dry && a.State == uplink.Planned) {
			continue
		}
		if err != nil {
			return answered, err
		}
		answered = true
		outcome, preview := string(a.Result), ""
		if a.State == uplink.Planned {
			outcome, preview = preview, outcome
		}
		_, err = exec(ctx, tx, "UPDATE restoration SET state = ?, why = ?, todo = ?, answered = ?, outcome = ?, preview = ? WHERE id = ?", a.State, a.Why, a.Do, toMillis(at), outcome, preview, a.ID)
		if err != nil {
			return answered, err
		}
		if a.State == r.State || r.Dry { // how far it is is no act, and a dry run does nothing
			continue
		}
		if err := noteAnswer(ctx, tx, audit.Act{By: "agent/" + site, At: at}, "restore."+a.State, r.Name, a.Why); err != nil {
			return answered, err
		}
	}
	return answered, nil
}
