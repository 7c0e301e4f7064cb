package transform

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"davit.dev/davit/internal/restore/report"
)

// Trial is what came of trying a set on a whole recovery point, object by
// object. It is safe for use by several goroutines and keeps no object.
type Trial struct {
	set     *Set
	mu      sync.Mutex
	matched []int64
	failed  map[string]*failing // by rule
}

// failing is a rule that fails: on which object first, and on how many more.
type failing struct {
	object string
	err    error
	more   int
}

// NewTrial begins one.
func NewTrial(s *Set) *Trial {
	return &Trial{set: s, matched: make([]int64, s.Len()), failed: map[string]*failing{}}
}

// Matched counts an object that a rule matched.
func (t *Trial) Matched(rule int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.matched[rule]++
}

// Failed counts an object on which a rule failed.
func (t *Trial) Failed(object string, err *Error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.failed[err.Rule]
	switch {
	case f == nil:
		t.failed[err.Rule] = &failing{object: object, err: err.Err}
		return
	case object < f.object:
		f.object, f.err = object, err.Err
	}
	f.more++
}

// Findings are the rules that fail, and if none does those that are of no use.
func (t *Trial) Findings() []report.Finding {
	var found []report.Finding
	for _, rule := range slices.Sorted(maps.Keys(t.failed)) {
		f := t.failed[rule]
		also := ""
		if f.more > 0 {
			also = fmt.Sprintf(" (and on %d more objects)", f.more)
		}
		found = append(found, report.Finding{
			Severity: report.Error, Reason: "TransformFails",
			Message: fmt.Sprintf("%s: fails on %s%s: %v", rule, f.object, also, f.err),
		})
	}
	for i, n := range t.matched {
		if n == 0 && len(t.failed) == 0 {
			found = append(found, report.Finding{
				Severity: report.Warning, Reason: "UnusedRule", Remedy: "look at its match, and at the objects with davit describe",
				Message: t.set.Title(i) + ": matched no object of the recovery point, or nothing in those that it matched",
			})
		}
	}
	return found
}
