package ui

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

// auditPages is how many records a page of the audit log has.
const auditPages = 100

func auditPage(v *visit) error { return v.audit(v.project) }

func consoleAuditPage(v *visit) error {
	if err := v.administers(); err != nil {
		return err
	}
	return v.audit(v.Door.Console)
}

type auditData struct {
	Items  []audit.Record
	Length int64
	Hash   string
	Broken error
	Older  string // where older records are
	// What is looked for, as it was typed.
	By, Action, Object, Since, Until string
	Refused                          bool
}

// wanted is what of a log is looked for.
func (v *visit) wanted() (d auditData, f audit.Filter, err error) {
	text := func(name string) string { return strings.TrimSpace(v.r.FormValue(name)) }
	d = auditData{By: text("by"), Action: text("action"), Object: text("object"), Since: text("since"), Until: text("until"), Refused: text("refused") == "true"}
	f = audit.Filter{By: d.By, Action: d.Action, Object: d.Object, Refused: d.Refused}
	if f.Since, err = typed(d.Since); err == nil {
		f.Until, err = typed(d.Until)
	}
	if err == nil && len(d.Until) == len(time.DateOnly) { // a day is over when it ends
		f.Until = f.Until.Add(24*time.Hour - time.Millisecond)
	}
	return d, f, err
}

// times are as what a time may be typed, in UTC where it does not say.
var times = []string{time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", time.RFC3339}

func typed(text string) (at time.Time, err error) {
	if text == "" {
		return at, nil
	}
	for _, layout := range times {
		if at, err = time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return at, fmt.Errorf("%.40q is not a time such as 2026-11-27, 2026-11-27 04:00 or 2026-11-27T04:00:00Z", text)
}

func (v *visit) audit(of store.Audited) error {
	before, err := strconv.ParseInt(v.r.FormValue("before"), 10, 64)
	if err != nil {
		before = 0
	}
	code := http.StatusOK
	d, wanted, amiss := v.wanted()
	if amiss != nil { // nothing is shown as if it were what was looked for
		code, v.page.Problem = http.StatusUnprocessableEntity, amiss.Error()
	} else {
		part, err := wanted.Select(v.ctx(), of.Audit, before, auditPages)
		if err != nil {
			return err
		}
		d.Items = part.Records
		if !part.End && part.At > 1 {
			d.Older = v.again("before", strconv.FormatInt(part.At, 10))
		}
	}
	tail, broken := of.VerifyAudit(v.ctx())
	d.Length, d.Hash, d.Broken = tail.Sequence, tail.Hash, broken
	return v.show(code, "audit", "Audit log", d)
}
