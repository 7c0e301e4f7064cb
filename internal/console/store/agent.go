package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
)

// agentTables are what a project keeps of its agents.
const agentTables = `
CREATE TABLE enrolment (
	id TEXT PRIMARY KEY, site TEXT NOT NULL, hash BLOB NOT NULL, made_by TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL,
	used INTEGER NOT NULL DEFAULT 0, key BLOB, name TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE agent (
	site TEXT PRIMARY KEY, enrolment TEXT NOT NULL, removed INTEGER NOT NULL DEFAULT 0, since INTEGER NOT NULL, seen INTEGER NOT NULL DEFAULT 0,
	version TEXT NOT NULL DEFAULT '', ends INTEGER NOT NULL DEFAULT 0, said BLOB
) STRICT;
CREATE TABLE agent_outbox (
	site TEXT NOT NULL, id TEXT NOT NULL, acked INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (site, id)
) STRICT;
CREATE TABLE agent_event (number INTEGER PRIMARY KEY AUTOINCREMENT, site TEXT NOT NULL, event TEXT NOT NULL) STRICT;
CREATE INDEX agent_event_site ON agent_event (site, number);
`

// Errors of enrolment; each wraps ErrRefused.
var (
	ErrTokenUnknown = fmt.Errorf("%w: the console knows no such token", ErrRefused)
	ErrTokenUsed    = fmt.Errorf("%w: the token was used already", ErrRefused)
	ErrTokenOver    = fmt.Errorf("%w: the token has expired", ErrRefused)
	ErrTokenSite    = fmt.Errorf("%w: the token is for another site", ErrRefused)
	// ErrEnrolment says that an agent's certificate does not count any more.
	ErrEnrolment = fmt.Errorf("%w: the site was enrolled anew or removed since this certificate was given", ErrRefused)
)

// MaxEnrolmentLife is how long a token for an agent lives at the longest.
const MaxEnrolmentLife = 7 * 24 * time.Hour

// Enrolment is a token that lets one agent in, once.
type Enrolment struct {
	ID      string
	Site    string
	Hash    []byte
	By      string
	Created time.Time
	Expires time.Time
	Used    time.Time // zero: not yet
	key     []byte    // of who used it
	name    string    // that it was given
}

const enrolmentColumns = "id, site, hash, made_by, created, expires, used, key, name"

func scanEnrolment(row scanner) (e Enrolment, err error) {
	var created, expires, used int64
	err = row.Scan(&e.ID, &e.Site, &e.Hash, &e.By, &created, &expires, &used, &e.key, &e.name)
	e.Created, e.Expires, e.Used = fromMillis(created), fromMillis(expires), fromMillis(used)
	return e, err
}

// CreateEnrolment keeps a token for an agent, and forgets those that ended long ago.
func (p *Project) CreateEnrolment(ctx context.Context, act audit.Act, e Enrolment) error {
	life := e.Expires.Sub(act.At)
	switch {
	case vault.CheckName(e.Site) != nil:
		return fmt.Errorf("enrol site: %w: %w", ErrRefused, vault.CheckName(e.Site))
	case life <= 0 || life > MaxEnrolmentLife:
		return fmt.Errorf("enrol site %s: %w: the token must end, and within %d days", e.Site, ErrRefused, MaxEnrolmentLife/(24*time.Hour))
	}
	r := audit.Record{Action: "agent.token", Object: e.Site, Detail: "until " + e.Expires.UTC().Format(time.RFC3339)}
	return p.change(ctx, act, r, func(tx *sql.Tx, _ *audit.Record) error {
		if _, err := exec(ctx, tx, "DELETE FROM enrolment WHERE expires < ?", toMillis(act.At.Add(-MaxEnrolmentLife))); err != nil {
			return err
		}
		_, err := exec(ctx, tx, "INSERT INTO enrolment (id, site, hash, made_by, created, expires) VALUES (?, ?, ?, ?, ?, ?)",
			e.ID, e.Site, e.Hash, act.By, toMillis(act.At), toMillis(e.Expires))
		return err
	})
}

// UseEnrolment uses a token for a site and a key, and returns the name of the
// enrolment, which name makes after the site's one before. The same key may use it again. A refusal is
// noted; full is that of a site too many, which only who has a good token is told.
func (p *Project) UseEnrolment(ctx context.Context, act audit.Act, id string, hash []byte, site string, key []byte, full error, name func(before string) string) (given string, err error) {
	var refused error
	r := audit.Record{Action: "agent.enrol", Object: site}
	err = p.change(ctx, act, r, func(tx *sql.Tx, r *audit.Record) error {
		e, err := one(ctx, tx, scanEnrolment, "find token", "SELECT "+enrolmentColumns+" FROM enrolment WHERE id = ?", id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if refused = e.check(err == nil, hash, site, key, act.At, full); refused != nil {
			r.Refused = refused.Error()
			return nil
		}
		given = e.name
		if !e.Used.IsZero() {
			r.Detail = "again: the answer was lost"
			return nil
		}
		before, err := one(ctx, tx, scanAgent, "find agent", "SELECT "+agentColumns+" FROM agent WHERE site = ?", site)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		given = name(before.Enrolment)
		if err := must(ctx, tx, "use token", "UPDATE enrolment SET used = ?, key = ?, name = ? WHERE id = ?", toMillis(act.At), key, given, id); err != nil {
			return err
		}
		return enrolled(ctx, tx, site, given, act.At)
	})
	return given, errors.Join(err, refused)
}

// check says why a token does not let in.
func (e Enrolment) check(known bool, hash []byte, site string, key []byte, now time.Time, full error) error {
	switch {
	case !known || !account.SameHash(e.Hash, hash):
		return ErrTokenUnknown
	case e.Site != site:
		return ErrTokenSite
	case !e.Used.IsZero() && !bytes.Equal(e.key, key):
		return ErrTokenUsed
	case !now.Before(e.Expires), e.Created.Sub(now) > Ahead:
		return ErrTokenOver
	}
	return full
}

// enrolled notes the newest enrolment of a site.
func enrolled(ctx context.Context, tx *sql.Tx, site, name string, at time.Time) error {
	_, err := exec(ctx, tx, `INSERT INTO agent (site, enrolment, since) VALUES (?, ?, ?)
		ON CONFLICT (site) DO UPDATE SET enrolment = excluded.enrolment, since = excluded.since, removed = 0 WHERE excluded.enrolment > enrolment`, site, name, toMillis(at))
	return err
}

// Agent is what a project knows of a site's agent.
type Agent struct {
	Site      string
	Enrolment string
	Removed   bool
	Since     time.Time // when it was enrolled
	Seen      time.Time // its last word, by the console's clock
	Version   string
	Ends      time.Time // its certificate
	Said      []byte    // its state
}

func scanAgent(row scanner) (a Agent, err error) {
	var since, seen, ends int64
	err = row.Scan(&a.Site, &a.Enrolment, &a.Removed, &since, &seen, &a.Version, &ends, &a.Said)
	a.Since, a.Seen, a.Ends = fromMillis(since), fromMillis(seen), fromMillis(ends)
	return a, err
}

const agentColumns = "site, enrolment, removed, since, seen, version, ends, said"

// Agents lists the agents that count, by site.
func (p *Project) Agents(ctx context.Context) ([]Agent, error) {
	return query(ctx, p.read, scanAgent, "SELECT "+agentColumns+" FROM agent WHERE removed = 0 ORDER BY site")
}

// AdmitAgent says whether a certificate of an enrolment counts. One that is newer
// than what this console knows was given by another, with the same authority.
func (p *Project) AdmitAgent(ctx context.Context, act audit.Act, site, enrolment string) error {
	a, err := one(ctx, p.read, scanAgent, "find agent", "SELECT "+agentColumns+" FROM agent WHERE site = ?", site)
	if err == nil && a.Enrolment == enrolment && !a.Removed {
		return nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err == nil && a.Enrolment >= enrolment {
		return ErrEnrolment
	}
	r := audit.Record{Action: "agent.adopt", Object: site, Detail: "enrolled by another console of this authority"}
	return p.change(ctx, act, r, func(tx *sql.Tx, _ *audit.Record) error { return enrolled(ctx, tx, site, enrolment, act.At) })
}

// RemoveAgent shuts a site's agent out; a new token lets it in again.
func (p *Project) RemoveAgent(ctx context.Context, act audit.Act, site string) error {
	return p.change(ctx, act, audit.Record{Action: "agent.remove", Object: site}, func(tx *sql.Tx, _ *audit.Record) error {
		if err := must(ctx, tx, "remove agent of "+site, "UPDATE agent SET removed = 1, said = NULL WHERE site = ? AND removed = 0", site); err != nil {
			return err
		}
		_, err := exec(ctx, tx, "DELETE FROM enrolment WHERE site = ?", site)
		return err
	})
}

// Word is what an agent said, to be kept.
type Word struct {
	Site    string
	At      time.Time
	Version string
	Ends    time.Time
	Said    []byte // nil: as before
	Outbox  string
	Events  []SentEvent
	Told    []Handed // of documents
	Begun   []Answer // of runs
	// Restored is said of restores, the last word of each last.
	Restored []uplink.Restored
	// Kept is remembered as Keep does.
	Kept map[string][]byte
}

// SentEvent is an event and its place in its outbox.
type SentEvent struct {
	Seq  int64
	Body json.RawMessage
}

// keptEvents is how many events of a project are kept.
const keptEvents = 50_000

// HearAgents keeps what agents said, all of it or nothing. Events that were kept
// before are not kept twice.
func (p *Project) HearAgents(ctx context.Context, words []Word) error {
	if slices.ContainsFunc(words, func(w Word) bool { return len(w.Events) > 0 }) { // what is kept here is forgotten there
		if err := p.guarded().Ready(); err != nil {
			return err
		}
	}
	answered := false
	err := p.update(ctx, func(tx *sql.Tx) error {
		last := int64(0)
		for _, w := range words {
			if _, err := exec(ctx, tx, "UPDATE agent SET seen = ?, version = ?, ends = ?, said = coalesce(?, said) WHERE site = ?", toMillis(w.At), w.Version, toMillis(w.Ends), w.Said, w.Site); err != nil {
				return err
			}
			if err := keep(ctx, tx, w.At, w.Kept); err != nil {
				return err
			}
			if err := answer(ctx, tx, w.Site, w.At, w.Told); err != nil {
				return err
			}
			one, err := answerRequests(ctx, tx, w.Site, w.At, w.Begun)
			if err != nil {
				return err
			}
			more, err := answerRestorations(ctx, tx, w.Site, w.At, w.Restored)
			if err != nil {
				return err
			}
			answered = answered || one || more
			n, err := keepEvents(ctx, tx, w)
			if err != nil {
				return err
			}
			last = max(last, n)
		}
		if last == 0 {
			return nil
		}
		_, err := exec(ctx, tx, "DELETE FROM agent_event WHERE number <= ?", last-keptEvents)
		return err
	})
	if err == nil && answered {
		p.wake()
	}
	return err
}

func keepEvents(ctx context.Context, tx *sql.Tx, w Word) (last int64, err error) {
	if len(w.Events) == 0 {
		return 0, nil
	}
	acked, err := outboxAcked(ctx, tx, w.Site, w.Outbox)
	if err != nil {
		return 0, err
	}
	for _, e := range w.Events {
		if e.Seq <= acked {
			continue
		}
		result, err := tx.ExecContext(ctx, "INSERT INTO agent_event (site, event) VALUES (?, ?)", w.Site, string(e.Body))
		if err != nil {
			return 0, fmt.Errorf("keep event: %w", err)
		}
		if last, err = result.LastInsertId(); err != nil {
			return 0, err
		}
		acked = e.Seq
	}
	_, err = exec(ctx, tx, "INSERT INTO agent_outbox (site, id, acked, at) VALUES (?, ?, ?, ?) ON CONFLICT (site, id) DO UPDATE SET acked = excluded.acked, at = excluded.at", w.Site, w.Outbox, acked, toMillis(w.At))
	if err == nil {
		_, err = exec(ctx, tx, "DELETE FROM agent_outbox WHERE site = ?1 AND id NOT IN (SELECT id FROM agent_outbox WHERE site = ?1 ORDER BY at DESC LIMIT 16)", w.Site)
	}
	return last, err
}

// AgentAcked is up to where events of an outbox are kept.
func (p *Project) AgentAcked(ctx context.Context, site, outbox string) (int64, error) {
	return outboxAcked(ctx, p.read, site, outbox)
}

func outboxAcked(ctx context.Context, in queryer, site, outbox string) (int64, error) {
	all, err := query(ctx, in, func(row scanner) (n int64, err error) { return n, row.Scan(&n) }, "SELECT acked FROM agent_outbox WHERE site = ? AND id = ?", site, outbox)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[0], nil
}

// AgentEvent is an event as it is kept.
type AgentEvent struct {
	Number int64 // counts those of the project, in the order in which they came
	Site   string
	Body   json.RawMessage
}

// AgentEvents returns at most limit events after a number, oldest first; with
// after -1 the newest ones. site "" means all.
func (p *Project) AgentEvents(ctx context.Context, site string, after int64, limit int) ([]AgentEvent, error) {
	scan := func(row scanner) (e AgentEvent, err error) {
		var body string
		err = row.Scan(&e.Number, &e.Site, &body)
		e.Body = json.RawMessage(body)
		return e, err
	}
	if after < 0 {
		return query(ctx, p.read, scan, "SELECT * FROM (SELECT number, site, event FROM agent_event WHERE (?1 = '' OR site = ?1) ORDER BY number DESC LIMIT ?2) ORDER BY number", site, limit)
	}
	return query(ctx, p.read, scan, "SELECT number, site, event FROM agent_event WHERE (?1 = '' OR site = ?1) AND number > ?2 ORDER BY number LIMIT ?3", site, after, limit)
}
