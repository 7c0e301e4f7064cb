// Package schedule says when captures are due: at an interval, or by a cron
// expression in a time zone. It is pure; the names of zones come with it.
package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // images and minimal machines have no zones of their own

	"github.com/robfig/cron/v3"

	"davit.dev/davit/internal/point"
)

// Table is when captures are due.
type Table struct {
	every time.Duration
	cron  cron.Schedule
	zone  *time.Location
}

// Parse reads a schedule: an interval, or a five-field cron expression in a
// zone. It returns nil for neither, which is never.
func Parse(every time.Duration, expression, zone string) (*Table, error) {
	loc, err := Zone(zone)
	if err != nil {
		return nil, err
	}
	switch {
	case every > 0 && expression != "":
		return nil, errors.New("give an interval or a cron expression, not both")
	case every > 0:
		return &Table{every: every, zone: loc}, nil
	case expression == "":
		return nil, nil //nolint:nilnil // no schedule: captured only when asked
	case strings.Contains(expression, "TZ="):
		return nil, fmt.Errorf("cron expression %q: name the time zone beside it, not in it", expression)
	}
	table, err := cron.ParseStandard(expression)
	if err != nil {
		return nil, fmt.Errorf("cron expression %q: %w", expression, err)
	}
	return &Table{cron: table, zone: loc}, nil
}

// Zone finds a time zone by its IANA name; an empty one is UTC.
func Zone(name string) (*time.Location, error) {
	switch name {
	case "", "UTC":
		return time.UTC, nil
	case "Local":
		return nil, errors.New(`time zone "Local" is another one everywhere: name it, such as Europe/Lisbon`)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known: name it as in the IANA list, such as Europe/Lisbon", name)
	}
	return loc, nil
}

// Next returns when a capture is due, given when the last one started (zero:
// never) and when the application was made. One that was missed is due at once,
// and only that one.
func (t *Table) Next(last, created, now time.Time) time.Time {
	if t.cron == nil {
		return point.Next(last, t.every, now)
	}
	from := last
	if from.IsZero() {
		from = created
	}
	if from.After(now) {
		from = now
	}
	return t.after(from)
}

// After returns the first slot after an instant: an interval later, or the next
// time that the cron expression names; zero if there is none.
func (t *Table) After(from time.Time) time.Time {
	if t.cron == nil {
		return from.Add(t.every)
	}
	return t.after(from)
}

// after returns the first slot of the cron expression after an instant. An hour
// that the clock leaps over in spring counts as the one that it becomes: the
// night's capture is late then, and not left out.
func (t *Table) after(from time.Time) time.Time {
	local := from.In(t.zone)
	next := t.cron.Next(local)
	_, offset := local.Zone()
	leapt := t.cron.Next(from.In(time.FixedZone("", offset)))
	if leapt.IsZero() || !next.IsZero() && !leapt.Before(next) {
		return next
	}
	if _, later := leapt.In(t.zone).Zone(); later > offset {
		return leapt.In(t.zone)
	}
	return next
}

// LongestGap returns the longest time between two slots that follow each other
// within a year and a month of from. Zero says that there are no two.
func (t *Table) LongestGap(from time.Time) time.Duration {
	if t.cron == nil {
		return t.every
	}
	const most = 20000 // slots; an expression that has more repeats itself long before
	end := from.AddDate(1, 1, 0)
	var longest time.Duration
	at := t.after(from)
	for range most {
		next := t.after(at)
		if at.IsZero() || next.IsZero() || at.After(end) {
			break
		}
		longest = max(longest, next.Sub(at))
		at = next
	}
	return longest
}

// CheckObjective says why an RPO objective can never be kept by a schedule, with
// the arithmetic: gap is the longest time between two captures, took how long
// one takes until it may be offered, 0 where that is not known. Nil means that
// it can, or that there is no objective.
func CheckObjective(rpo, gap, took time.Duration) error {
	worst := point.WorstLoss(gap, took)
	if rpo <= 0 || gap <= 0 || worst <= rpo {
		return nil
	}
	if took == 0 {
		return fmt.Errorf("an RPO of %s can never be kept: up to %s pass between two captures, and so up to %s of work can be lost: capture more often, or allow more to be lost", rpo, gap, worst)
	}
	if took > gap {
		return fmt.Errorf("an RPO of %s cannot be kept: a capture takes %s, the next starts only then, and so up to %s + %s = %s of work can be lost: allow more to be lost, or make the application smaller", rpo, took, took, took, worst)
	}
	return fmt.Errorf("an RPO of %s cannot be kept: up to %s pass between two captures, each takes %s, and so up to %s + %s = %s of work can be lost: capture more often, or allow more to be lost", rpo, gap, took, gap, took, worst)
}
