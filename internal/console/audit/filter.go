package audit

import (
	"context"
	"strings"
	"time"
)

// Filter says which records are wanted; the zero Filter wants all.
type Filter struct {
	// By is who did it, with or without what is before the slash; Action and Object
	// are what was done, and to what. Each is compared whole, or, where it ends in
	// "*", as a beginning; empty is any.
	By, Action, Object string
	// Refused wants only what was refused.
	Refused bool
	// Since and Until bound the time, both included; zero is no bound.
	Since, Until time.Time
}

// Match tells whether a record is wanted.
func (f Filter) Match(r Record) bool {
	_, name, _ := strings.Cut(r.By, "/")
	switch {
	case !fits(f.By, r.By) && !fits(f.By, name), !fits(f.Action, r.Action), !fits(f.Object, r.Object):
		return false
	case f.Refused && r.Refused == "":
		return false
	case !f.Since.IsZero() && r.At.Before(f.Since), !f.Until.IsZero() && r.At.After(f.Until):
		return false
	}
	return true
}

func fits(pattern, text string) bool {
	if beginning, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(text, beginning)
	}
	return pattern == "" || pattern == text
}

// Bounds of one answer: how many records are read at once, and in all.
const (
	stride = 1000
	reads  = 50 * stride
)

// Part is what was found in a part of a log.
type Part struct {
	Records []Record
	// At is the sequence number of the last record that was looked at, and End says that
	// there is none behind it.
	At  int64
	End bool
}

// Select finds so many records at the most that are wanted, from a place in a log on. It
// looks at a bounded number of records, for a filter may want none.
func (f Filter) Select(ctx context.Context, read func(ctx context.Context, at int64, limit int) ([]Record, error), at int64, limit int) (Part, error) {
	part, page := Part{At: at}, stride
	if f == (Filter{}) {
		page = limit
	}
	for n := 0; n < reads; n += page {
		records, err := read(ctx, part.At, page)
		if err != nil {
			return Part{}, err
		}
		for _, r := range records {
			part.At = r.Sequence
			if f.Match(r) {
				part.Records = append(part.Records, r)
			}
			if len(part.Records) == limit {
				return part, nil
			}
		}
		if len(records) < page {
			part.End = true
			return part, nil
		}
	}
	return part, nil
}
