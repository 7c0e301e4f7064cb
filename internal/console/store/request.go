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

// requestTable is what people asked sites to begin.
const requestTable = `
CREATE TABLE request (
	id TEXT PRIMARY KEY, site TEXT NOT NULL, plan TEXT NOT NULL, run TEXT NOT NULL, body TEXT NOT NULL, asked_by TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER NOT NULL,
	state TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '', todo TEXT NOT NULL DEFAULT '', answered INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX request_plan ON request (plan, at);
`

// Request asks a site to begin a run.
type Request struct {
	// ID is chosen by whoever asks: the same again is the same request.
	ID   string
	Site string
	Plan string
	Run  string // what the run is to be called
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
}

// Open tells whether the site may still begin it.
func (r Request) Open(now time.Time) bool { return r.State == "" && uplink.Due(r.At, r.Until, now) }

// Bounds of requests.
const (
	// AskedAgain is for how long a site is asked what became of a request.
	AskedAgain = 7 * 24 * time.Hour
	// keptRequests is how many of a project are kept.
	keptRequests = 1000
)

const requestColumns = "id, site, plan, run, body, asked_by, at, until, state, why, todo, answered"

func scanRequest(row scanner) (r Request, err error) {
	var body string
	var at, until, answered int64
	err = row.Scan(&r.ID, &r.Site, &r.Plan, &r.Run, &body, &r.By, &at, &until, &r.State, &r.Why, &r.Do, &answered)
	r.Body, r.At, r.Until, r.Answered = json.RawMessage(body), fromMillis(at), fromMillis(until), fromMillis(answered)
	return r, err
}

// Request keeps a request for the site's agent, once it is in the vault as well.
// One that was made before is returned as it stands. While a site may still begin
// a run of a plan, no other of that plan is asked for.
func (p *Project) Request(ctx context.Context, act audit.Act, r Request, what string) (Request, error) {
	r.By, r.At = act.By, act.At.UTC().Truncate(time.Millisecond)
	record := audit.Record{Action: "run.request", Object: r.Run, Detail: what}
	err := p.change(ctx, act, record, func(tx *sql.Tx, _ *audit.Record) error {
		all, err := query(ctx, tx, scanRequest, "SELECT "+requestColumns+" FROM request WHERE id = ? OR plan = ?", r.ID, r.Plan)
		if err != nil {
			return err
		}
		for _, old := range all {
			switch {
			case old.ID == r.ID && old.Plan == r.Plan && old.Site == r.Site && old.By == r.By && string(old.Body) == string(r.Body):
				r = old
				return errAsked
			case old.ID == r.ID:
				return fmt.Errorf("ask for run %s: %w: another request has the id %s", r.Run, ErrConflict, r.ID)
			}
		}
		if i := slices.IndexFunc(all, func(old Request) bool { return old.Open(act.At) }); i >= 0 {
			return fmt.Errorf("ask for run %s: %w: %s asked for %s, and site %s has not answered yet: wait until %s",
				r.Run, ErrConflict, all[i].By, all[i].Run, all[i].Site, all[i].Until.Format(time.TimeOnly))
		}
		_, err = exec(ctx, tx, "INSERT INTO request (id, site, plan, run, body, asked_by, at, until) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			r.ID, r.Site, r.Plan, r.Run, string(r.Body), r.By, toMillis(r.At), toMillis(r.Until))
		if err != nil {
			return err
		}
		_, err = exec(ctx, tx, "DELETE FROM request WHERE id NOT IN (SELECT id FROM request ORDER BY at DESC, id LIMIT ?)", keptRequests)
		return err
	})
	return r, p.asked(ctx, err)
}

// errAsked says that the same was asked before.
var errAsked = errors.New("it was asked before")

// asked ends what is asked of a site: whoever waits for that is woken.
func (p *Project) asked(ctx context.Context, err error) error {
	if errors.Is(err, errAsked) { // it may be of a change that the vault has not taken
		return p.Settle(ctx)
	}
	if err == nil || errors.Is(err, ErrUnconfirmed) {
		p.wake()
	}
	return err
}

// Requested returns a request.
func (p *Project) Requested(ctx context.Context, id string) (Request, error) {
	return one(ctx, p.read, scanRequest, "find request", "SELECT "+requestColumns+" FROM request WHERE id = ?", id)
}

// Requests lists the newest requests, of a plan or, with "", of all.
func (p *Project) Requests(ctx context.Context, plan string, limit int) ([]Request, error) {
	return query(ctx, p.read, scanRequest, "SELECT "+requestColumns+" FROM request WHERE (?1 = '' OR plan = ?1) ORDER BY at DESC, id LIMIT ?2", plan, limit)
}

// Unanswered are the requests of which a site has not said what became of them,
// the oldest first. It is asked for a while after it was too late, too: it may
// have begun the run, and its answer was lost.
func (p *Project) Unanswered(ctx context.Context, site string, now time.Time) ([]Request, error) {
	return query(ctx, p.read, scanRequest, "SELECT "+requestColumns+" FROM request WHERE site = ? AND state = '' AND at > ? ORDER BY at, id", site, toMillis(now.Add(-AskedAgain)))
}

// Answer is what a site says of a request.
type Answer struct{ ID, State, Why, Do string }

// answerRequests keeps what a site says of requests that it was asked and has not
// answered. Of others it can say nothing.
func answerRequests(ctx context.Context, tx *sql.Tx, site string, at time.Time, all []Answer) (answered bool, err error) {
	for _, a := range all {
		n, err := exec(ctx, tx, "UPDATE request SET state = ?, why = ?, todo = ?, answered = ? WHERE id = ? AND site = ? AND state = ''",
			a.State, a.Why, a.Do, toMillis(at), a.ID, site)
		if err != nil {
			return answered, err
		}
		if n == 0 {
			continue
		}
		answered = true
		r, err := one(ctx, tx, scanRequest, "find request", "SELECT "+requestColumns+" FROM request WHERE id = ?", a.ID)
		if err != nil {
			return answered, err
		}
		if err := noteAnswer(ctx, tx, audit.Act{By: "agent/" + site, At: at}, "run."+a.State, r.Run, a.Why); err != nil {
			return answered, err
		}
	}
	return answered, nil
}

// noteAnswer has the audit log hold what a site answered.
func noteAnswer(ctx context.Context, tx *sql.Tx, act audit.Act, action, object, why string) error {
	if strings.HasSuffix(action, "."+uplink.Refused) {
		return note(ctx, tx, act, audit.Record{Action: action, Object: object, Refused: why})
	}
	return note(ctx, tx, act, audit.Record{Action: action, Object: object, Detail: why})
}
