package point

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Point is what the arithmetic needs to know of one recovery point.
type Point struct {
	ID          string
	Instant     time.Time
	Epoch       int64
	Consistency Consistency
	Verified    time.Time // when it was last read back whole or booted; zero: never
	Pinned      bool
	Quarantined bool
	Deleting    bool
	Damaged     bool // its manifest cannot be read
}

// Good tells whether the point may be offered.
func (p Point) Good() bool { return !p.Quarantined && !p.Deleting && !p.Damaged }

// byOrder sorts oldest first. Epochs come before instants: those of two sites
// are by two clocks, and what a later holder captured is later whatever the
// clock of the one before it said. Ids settle a tie, for all to agree.
func byOrder(a, b Point) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), a.Instant.Compare(b.Instant), cmp.Compare(a.ID, b.ID))
}

// Newest returns the newest good point whose instant is not after asOf; a zero
// asOf sets no bound.
func Newest(points []Point, asOf time.Time) (Point, bool) {
	return newestOf(points, func(p Point) bool {
		return p.Good() && (asOf.IsZero() || !p.Instant.After(asOf))
	})
}

func newestOf(points []Point, want func(Point) bool) (best Point, found bool) {
	for _, p := range points {
		if want(p) && (!found || byOrder(p, best) > 0) {
			best, found = p, true
		}
	}
	return best, found
}

// Retention says how long points are kept. A point is kept as long as any rule
// wants it. Without any rule all are kept.
type Retention struct {
	KeepLast int           // the newest so many good points; 0: no such rule
	MaxAge   time.Duration // points younger than this; 0: no such rule
	// Hourly and the others keep the newest good point of each of the newest so
	// many hours, days, weeks (from Monday), months and years that have one;
	// 0: no such rule.
	Hourly, Daily, Weekly, Monthly, Yearly int
	// Zone is where hours to years are counted; nil means UTC.
	Zone *time.Location
}

// Empty tells whether there is no rule.
func (r Retention) Empty() bool {
	r.Zone = nil
	return r == Retention{}
}

// Decision is the fate of one point, and why.
type Decision struct {
	Point  Point
	Keep   bool
	Reason string
	// Until is, of a point that its age keeps, when that ends: another rule may keep it
	// for longer. Zero: it has another reason.
	Until time.Time
}

// Keep decides on every point, newest first. Whatever the rules, it keeps
// pinned points, the newest good one, the last verified one, and damaged ones,
// whose loss is for a person to accept. Points being deleted stay on their way out.
// Those of an instant that is yet to come, by a clock that was wrong, are kept until it has
// come, and until then no other goes for them: what is captured now would be the older one.
func Keep(points []Point, rules Retention, now time.Time) []Decision {
	sorted := slices.Clone(points)
	slices.SortFunc(sorted, func(a, b Point) int { return byOrder(b, a) })
	k := keeper{rules: rules, now: now}
	k.last, k.hasLast = Newest(sorted, now.Add(ahead))
	k.verified, k.hasVerified = newestOf(sorted, func(p Point) bool { return k.counts(p) && !p.Verified.IsZero() })
	decisions := make([]Decision, 0, len(sorted))
	calendar := rules.calendar(sorted, k.counts)
	for i, p := range sorted {
		k.calendar = calendar[i]
		d := Decision{Point: p}
		if d.Keep, d.Reason = k.decide(p); d.Keep && d.Reason == k.young() {
			d.Until = p.Instant.Add(rules.MaxAge)
		}
		decisions = append(decisions, d)
		if k.counts(p) {
			k.newer++
		}
	}
	return decisions
}

// ahead is how much the clock of a point may be ahead of the one that asks.
const ahead = time.Minute

func (k *keeper) yetToCome(p Point) bool { return p.Instant.Sub(k.now) > ahead }

// counts tells whether a point may take the place of another.
func (k *keeper) counts(p Point) bool { return p.Good() && !k.yetToCome(p) }

// keeper is what decide knows besides the point itself.
type keeper struct {
	rules                Retention
	now                  time.Time
	last, verified       Point
	hasLast, hasVerified bool
	newer                int    // good points newer than the one at hand
	calendar             string // why a calendar rule keeps the one at hand
}

// young is the reason of a point that its age keeps.
func (k *keeper) young() string { return "younger than " + k.rules.MaxAge.String() }

func (k *keeper) decide(p Point) (keep bool, reason string) {
	age := k.now.Sub(p.Instant)
	switch {
	case p.Deleting:
		return false, "deletion has begun"
	case p.Pinned:
		return true, "pinned"
	case p.Damaged:
		return true, "damaged: delete it by hand"
	case k.yetToCome(p):
		return true, "of an instant that is yet to come"
	case k.hasLast && p.ID == k.last.ID:
		return true, "newest good point"
	case k.hasVerified && p.ID == k.verified.ID:
		return true, "last verified point"
	case k.rules.Empty():
		return true, "no rule expires it"
	case k.newer < k.rules.KeepLast:
		return true, fmt.Sprintf("among the last %d", k.rules.KeepLast)
	case k.rules.MaxAge > 0 && age < k.rules.MaxAge:
		return true, k.young()
	case k.calendar != "":
		return true, k.calendar
	}
	return false, fmt.Sprintf("%s old, %d newer", age.Round(time.Second), k.newer)
}

// RPO returns how much would be lost if the site were lost now: the age of the
// newest good point. It is never negative; false means all would be lost.
func RPO(points []Point, now time.Time) (time.Duration, bool) {
	newest, ok := Newest(points, time.Time{})
	if !ok {
		return 0, false
	}
	return max(now.Sub(newest.Instant), 0), true
}

// Loss returns what a restore from p lost, given when the source last wrote.
func Loss(p Point, lost time.Time) time.Duration { return max(lost.Sub(p.Instant), 0) }
