package point

import (
	"hash/fnv"
	"time"
)

// Next returns when the next run is due, given when the last one started (zero:
// never) and how often they come. Runs that were missed are made up for by one,
// at once; so the result is never before now. A last start in the future, as
// after a clock was set back, does not put the next run off beyond one interval.
func Next(last time.Time, every time.Duration, now time.Time) time.Time {
	if last.IsZero() || every <= 0 {
		return now
	}
	if last.After(now) {
		last = now
	}
	due := last.Add(every)
	if due.Before(now) {
		return now
	}
	return due
}

// Spread returns a delay below every, the same each time for one name, so that
// applications with one interval do not all start in the same second.
func Spread(name string, every time.Duration) time.Duration {
	if every <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return time.Duration(h.Sum64() % uint64(every))
}

// Overdue tells whether the objective is missed at present: there is no good
// point, or the newest is older than the objective.
func Overdue(points []Point, objective time.Duration, now time.Time) bool {
	age, ok := RPO(points, now)
	return objective > 0 && (!ok || age > objective)
}

// WorstLoss returns how much work can be lost at worst, with captures that
// start gap apart at most and take took until they may be offered. One that
// takes longer than gap puts off the next. The work done since the last point's
// instant is lost, and that is oldest just before the next one can be offered.
func WorstLoss(gap, took time.Duration) time.Duration { return max(gap, took) + took }
