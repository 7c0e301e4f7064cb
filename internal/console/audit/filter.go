package audit

import (
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
