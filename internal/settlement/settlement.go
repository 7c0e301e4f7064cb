// Package settlement lets people say that they have seen to what a run that is over left
// to them. The run's journal keeps who said so, when and why, and nothing else follows:
// what was left is neither done nor taken back, and whatever refused something because of
// it refuses it still. It starts no goroutine and keeps no clock.
package settlement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
)

// tries is how often a word is written anew when somebody else wrote at the same time.
const tries = 5

// Word is what somebody says.
type Word struct {
	By     string
	Reason string
	Step   string // that left it; empty: all that the run left
	// Request is the number of the request with which he said so, 0 if he writes himself.
	Request int64
}

// Entries are what the journal of a run takes note of: none, if somebody said it before.
// whyNot says why the word is not taken.
func (w Word) Entries(s *failover.State, at time.Time) (entries []failover.Entry, whyNot string) {
	left := s.Remaining()
	of := slices.IndexFunc(left, func(r failover.Remaining) bool { return r.Step == w.Step })
	switch {
	case !s.Phase.Over():
		return nil, fmt.Sprintf("it is not over, but %s: only what a run has left when it is over can be settled", s.Shown())
	case strings.TrimSpace(w.Reason) == "":
		return nil, "say why: the journal keeps it"
	case len(left) == 0:
		return nil, "it left nothing to people"
	case w.Step != "" && of < 0:
		return nil, fmt.Sprintf("step %s left nothing to people, only %s did", w.Step, steps(left))
	}
	for _, r := range left {
		if r.Settled == nil && (w.Step == "" || w.Step == r.Step) {
			entries = append(entries, failover.Entry{Kind: failover.Settled, At: at.UTC().Round(0), By: w.By, Step: r.Step, Note: w.Reason})
		}
	}
	if len(entries) > 0 {
		entries[0].Request = w.Request
	}
	return entries, ""
}

func steps(left []failover.Remaining) string {
	var names []string
	for _, r := range left {
		names = append(names, r.Step)
	}
	return strings.Join(names, ", ")
}

// Write has the journal of a run that is over keep a word, and returns what it says then.
// Nobody carries such a run: whoever has something to write takes it over for that. What
// somebody said before is not written again. whyNot says why the word is not taken; after
// an error nobody knows whether it is: the same again is safe.
func Write(ctx context.Context, log journal.Log, run, process string, w Word, now func() time.Time) (s *failover.State, whyNot string, err error) {
	for range tries {
		var j *journal.Journal
		if j, s, err = journal.Open(ctx, log, run, process); err != nil {
			return nil, "", err
		}
		at := now().UTC().Round(0)
		entries, why := w.Entries(s, at)
		if why != "" || len(entries) == 0 {
			return s, why, nil
		}
		err = j.Append(ctx, append([]failover.Entry{{Kind: failover.Took, At: at, By: process}}, entries...))
		switch {
		case err == nil:
			s, err = journal.Read(ctx, log, run)
			return s, "", err
		case !errors.Is(err, journal.ErrDeposed):
			return nil, "", err
		}
	}
	return nil, "", err
}
