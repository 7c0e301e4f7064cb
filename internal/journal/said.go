package journal

import (
	"context"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/transcript"
)

// Words are what one try of a step said.
type Words struct {
	Step string             `json:"step"`
	At   time.Time          `json:"at"` // when it had ended, by the clock of whoever carried the run
	Kind failover.EntryKind `json:"kind"`
	// Status is how the try ended; empty of one that took the step back.
	Status failover.Status `json:"status,omitempty"`
	Text   string          `json:"text"`
}

// How is how the try ended, for people.
func (w Words) How() string {
	switch w.Kind {
	case failover.Ended:
		return string(w.Status)
	case failover.Stuck:
		return "not taken back"
	}
	return "taken back"
}

// Said returns what the steps of a run said, in the order in which they ended, and what
// its journal adds up to. It is plain text, whoever wrote the journal: every site could.
func Said(ctx context.Context, log Log, run string) ([]Words, *failover.State, error) {
	var all []Words
	size := 0
	state, _, err := read(ctx, log, run, func(r record, _ string) {
		for _, e := range r.Entries {
			text := transcript.Keep(e.Said, nil)
			if text == "" {
				continue
			}
			all = append(all, Words{Step: e.Step, At: e.At.UTC(), Kind: e.Kind, Status: e.Status, Text: text})
			for size += len(text); size > 2*failover.MostSaid; all = all[1:] { // no executor keeps so much
				size -= len(all[0].Text)
			}
		}
	})
	return all, state, err
}
