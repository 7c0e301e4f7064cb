package api

import (
	"fmt"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

var auditQuery = []parameter{
	{"before", "only records before this sequence number"},
	{"after", "only records after this sequence number, oldest first; 0 is from the beginning"},
	{"limit", "at most so many, 1000 at the most"},
	{"by", "only of this one, such as user/anna, anna or robot/*"},
	{"action", "only this action, such as member.set or member.*"},
	{"object", "only what was done to this, or begins so where it ends in *"},
	{"refused", "true: only what was refused"},
	{"since", "only from this time on, as RFC 3339 has it"},
	{"until", "only up to this time"},
}

func auditRoutes() []route {
	return []route{
		{method: "GET", path: "/audit", summary: "The console's own audit log, newest first, for administrators", query: auditQuery, out: Audit{}, serve: consoleAudit},
		{method: "GET", path: inProject + "/audit", summary: "The audit log, newest first", need: account.Audit, query: auditQuery, out: Audit{}, serve: auditLog},
	}
}

// Audit is a part of an audit log.
type Audit struct {
	Items []audit.Record `json:"items"`
	// Next is where to go on: as before of the next request, or, of one with after,
	// as after. Without it there is nothing older.
	Next int64 `json:"next,omitempty"`
}

func auditLog(c *call) (any, error) { return c.audit(c.project) }

func consoleAudit(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	return c.audit(c.Door.Console)
}

// auditPage is how many records one answer has at the most.
const auditPage = 1000

// ask is what is wanted of an audit log.
type ask struct {
	audit.Filter
	forward bool // oldest first
	at      int64
	limit   int
}

func (c *call) audit(of store.Audited) (any, error) {
	q, err := c.ask()
	if err != nil {
		return nil, err
	}
	read := of.Audit
	if q.forward {
		read = of.AuditAfter
	}
	part, err := q.Select(c.ctx(), read, q.at, q.limit)
	if err != nil {
		return nil, err
	}
	out := Audit{Items: append([]audit.Record{}, part.Records...)}
	// A log grows at its end alone: who reads forward can always go on.
	if q.forward || !part.End && part.At > 1 {
		out.Next = part.At
	}
	return out, nil
}

func (c *call) ask() (q ask, err error) {
	q.Filter = audit.Filter{By: c.query("by"), Action: c.query("action"), Object: c.query("object"), Refused: c.query("refused") == "true"}
	place := "before"
	if q.forward = c.r.URL.Query().Has("after"); q.forward {
		place = "after"
	}
	if q.forward && c.query("before") != "" {
		return q, fmt.Errorf("%w: give before or after, not both", errBad)
	}
	if q.at, err = revision(c.query(place)); err != nil {
		return q, err
	}
	limit, err := revision(c.query("limit"))
	if err != nil {
		return q, err
	}
	if q.limit = int(limit); limit == 0 || limit > auditPage {
		q.limit = auditPage
	}
	if q.Since, err = c.instant("since"); err != nil {
		return q, err
	}
	q.Until, err = c.instant("until")
	return q, err
}

func (c *call) instant(name string) (at time.Time, err error) {
	text := c.query(name)
	if text == "" {
		return at, nil
	}
	if at, err = time.Parse(time.RFC3339, text); err != nil {
		return at, fmt.Errorf("%w: %s %q is not a time such as 2026-11-27T04:00:00Z", errBad, name, text)
	}
	return at, nil
}
