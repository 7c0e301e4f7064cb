package drilling

import (
	"time"

	"davit.dev/davit/internal/schedule"
)

// retryAfter is when a drill that was refused is tried again, unless the schedule
// comes sooner.
const retryAfter = time.Hour

// turn is what decides when the next drill is due.
type turn struct {
	table    *schedule.Table
	interval bool      // and no cron expression
	created  time.Time // the plan
	last     time.Time // when a drill began last; zero: never
	refused  time.Time // when one was ordered since that was refused; zero: none
	now      time.Time
}

// due is when the next drill is due. It is the same however often it is asked,
// until a drill begins. What was missed is one drill, in the past.
func (t turn) due() time.Time {
	past := func(at time.Time) time.Time { // a clock may have been set back
		if at.After(t.now) {
			return t.now
		}
		return at
	}
	switch {
	case !t.refused.IsZero():
		at := past(t.refused)
		if slot := t.table.After(at); !slot.IsZero() && slot.Before(at.Add(retryAfter)) {
			return slot
		}
		return at.Add(retryAfter)
	case !t.last.IsZero():
		return t.table.After(past(t.last))
	case t.interval:
		return past(t.created)
	}
	return t.table.After(past(t.created))
}
