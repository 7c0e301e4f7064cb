package point

import (
	"fmt"
	"time"
)

// period is one calendar rule: keep the newest point of each of the newest so
// many periods that have one.
type period struct {
	name  string
	count int
	of    func(time.Time) int64 // which period an instant lies in
}

// periods are the calendar rules, as days and weeks are at a place.
func (r Retention) periods() []period {
	zone := r.Zone
	if zone == nil {
		zone = time.UTC
	}
	day := func(t time.Time) int64 {
		y, m, d := t.In(zone).Date()
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
	}
	const monday = 4 // 1970-01-01 was a Thursday, 4 days before the first Monday
	return []period{
		{"hour", r.Hourly, func(t time.Time) int64 {
			// An hour that comes twice in autumn is two.
			_, offset := t.In(zone).Zone()
			return floor(t.Unix()+int64(offset), 3600)<<8 | int64(offset/900+128)&0xff
		}},
		{"day", r.Daily, day},
		{"week", r.Weekly, func(t time.Time) int64 { return floor(day(t)-monday, 7) }},
		{"month", r.Monthly, func(t time.Time) int64 { y, m, _ := t.In(zone).Date(); return int64(y)*12 + int64(m) }},
		{"year", r.Yearly, func(t time.Time) int64 { return int64(t.In(zone).Year()) }},
	}
}

func floor(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}

// calendar returns why the calendar rules keep points, by their place in
// sorted, which has the newest first. The first one of a period there stands
// for it, so that points that come later never bring an older one back. counts
// tells which points may.
func (r Retention) calendar(sorted []Point, counts func(Point) bool) map[int]string {
	why := map[int]string{}
	for _, p := range r.periods() {
		seen := map[int64]bool{}
		for i := range sorted {
			if len(seen) >= p.count {
				break
			}
			at := p.of(sorted[i].Instant)
			if !counts(sorted[i]) || seen[at] {
				continue
			}
			seen[at] = true
			if why[i] == "" {
				why[i] = fmt.Sprintf("newest of its %s, among the last %d", p.name, p.count)
			}
		}
	}
	return why
}
