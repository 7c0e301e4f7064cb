// Package report tells what a run was: who asked for it and when, what was
// decided, how long each step took, what was measured, what people were asked,
// and what failed. It is pure: a journal goes in, a Report comes out, as JSON
// and as one page of HTML that needs nothing else (docs/formats/report.md).
package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// FormatVersion is what this code writes.
const FormatVersion = 1

// Record is one record of the journal.
type Record struct {
	Sequence, Epoch int64
	Executor        string
	Hash            string
	Entries         []failover.Entry
}

// Report is what a run was, as far as its journal goes.
type Report struct {
	FormatVersion int       `json:"formatVersion"`
	Run           string    `json:"run"`
	Plan          string    `json:"plan"`
	Verb          plan.Verb `json:"verb"`
	From          string    `json:"from,omitempty"`
	To            string    `json:"to"`
	By            string    `json:"by"`
	Reason        string    `json:"reason,omitempty"`
	Asked         time.Time `json:"asked"`
	LostAt        time.Time `json:"lostAt,omitzero"`
	// Until is when the last record was written; the run's end once it is Over.
	Until time.Time      `json:"until"`
	Over  bool           `json:"over"`
	State failover.Phase `json:"state"`
	Why   string         `json:"why,omitempty"`
	// Fence is the weakest level that the run relied on; of moves alone.
	Fence        string          `json:"fence,omitempty"`
	Objectives   plan.Objectives `json:"objectives"`
	Applications []Application   `json:"applications"`
	Steps        []Step          `json:"steps"`
	// Remaining is what a run that is over left to people, and who has seen to it.
	Remaining []failover.Remaining `json:"remaining,omitempty"`
	// Carriers are the processes that carried the run, in order.
	Carriers []Carrier `json:"carriers"`
	// People is what was asked of people, and what they said, in order.
	People []Word `json:"people"`
	// Failures are what failed, also where the run went on.
	Failures []string `json:"failures"`
	// Events are all entries of the journal, in order.
	Events  []Event `json:"events"`
	Journal Journal `json:"journal"`
}

// Journal is what the report is made of: so many records, the last of which has
// that hash.
type Journal struct {
	Records int64  `json:"records"`
	Head    string `json:"head"`
}

// Application is what was measured of one.
type Application struct {
	failover.ApplicationResult
	// Instant is the time of its recovery point.
	Instant time.Time `json:"instant,omitzero"`
	// Holders are the sites that ever held it, and what keeps each from writing.
	Holders []Holder `json:"holders,omitempty"`
}

// Holder is a site that once held an application.
type Holder struct {
	Site  string `json:"site"`
	Level string `json:"level"`
	How   string `json:"how,omitempty"`
}

// Step is a step, with every time that it was tried or taken back.
type Step struct {
	failover.StepResult
	Kind        plan.Kind    `json:"kind"`
	Application string       `json:"application,omitempty"`
	Side        plan.Side    `json:"side,omitempty"`
	Checks      []plan.Check `json:"checks,omitempty"`
	Spans       []Span       `json:"spans,omitempty"`
}

// Span is one try of a step, by the clocks of who carried the run.
type Span struct {
	Begin time.Time `json:"begin"`
	// End is zero while it goes on.
	End    time.Time       `json:"end,omitzero"`
	Undo   bool            `json:"undo,omitempty"`
	Status failover.Status `json:"status,omitempty"`
}

// Carrier is a process that carried the run.
type Carrier struct {
	Name  string    `json:"name"`
	Epoch int64     `json:"epoch"`
	Since time.Time `json:"since"`
}

// Word is something that people were asked, or said.
type Word struct {
	At   time.Time `json:"at"`
	By   string    `json:"by,omitempty"` // empty: Davit asked
	Text string    `json:"text"`
}

// Event is an entry of the journal.
type Event struct {
	Record int64              `json:"record"`
	At     time.Time          `json:"at"`
	Kind   failover.EntryKind `json:"kind"`
	By     string             `json:"by,omitempty"`
	Step   string             `json:"step,omitempty"`
	Text   string             `json:"text,omitempty"`
}

// New tells the story of a run. Records are those of its journal, from the
// first on; the state is what they add up to.
func New(s *failover.State, records []Record) *Report {
	result := s.Result()
	r := &Report{
		FormatVersion: FormatVersion, Run: s.Spec.Run, Plan: s.Spec.Plan, Verb: s.Spec.Verb, From: s.Spec.From, To: s.Spec.To, By: s.Spec.By,
		Reason: s.Spec.Reason, Asked: s.Spec.At, LostAt: s.Spec.LostAt, Over: s.Phase.Over(), State: result.State, Why: result.Why,
		Fence: result.Level, Objectives: s.Spec.Objectives, Remaining: result.Remaining, Carriers: []Carrier{}, People: []Word{}, Failures: []string{}, Events: []Event{},
	}
	for _, a := range result.Applications {
		r.Applications = append(r.Applications, application(s, a))
	}
	spans := map[string][]Span{}
	for _, record := range records {
		r.Journal = Journal{record.Sequence, record.Hash}
		for _, e := range record.Entries {
			r.entry(record, e)
			span(spans, e)
			r.Until = e.At
		}
	}
	for i, step := range result.Steps {
		spec := s.Spec.Steps[i]
		r.Steps = append(r.Steps, Step{step, spec.Kind, spec.Application, spec.Side, spec.Checks, spans[step.Name]})
	}
	if r.Over && !s.End.IsZero() {
		r.Until = s.End
	}
	return r
}

func application(s *failover.State, a failover.ApplicationResult) Application {
	out := Application{ApplicationResult: a}
	for _, step := range s.Spec.Steps {
		if p := s.Steps[step.Name].Point; p != nil && p.ID == a.Point && step.Application == a.Name {
			out.Instant = p.Instant
		}
	}
	for _, site := range s.Facts.Holders[a.Name] {
		f := s.Fences[a.Name][site]
		how := f.How
		if by := s.Vouched(a.Name, site); by != "" && f.Level < failover.TimedOut {
			how = by + " said that it has stopped"
		}
		out.Holders = append(out.Holders, Holder{site, f.Level.String(), how})
	}
	return out
}

// span adds what an entry says of the tries of a step.
func span(spans map[string][]Span, e failover.Entry) {
	all := spans[e.Step]
	open := len(all) > 0 && all[len(all)-1].End.IsZero()
	switch e.Kind {
	case failover.Intended, failover.Undoing:
		if open && all[len(all)-1].Undo == (e.Kind == failover.Undoing) {
			return // of an executor that died: it goes on
		}
		if open {
			all[len(all)-1].End = e.At
		}
		all = append(all, Span{Begin: e.At, Undo: e.Kind == failover.Undoing})
	case failover.Ended, failover.Undone, failover.Stuck, failover.Overtaken:
		if e.Status == failover.Doing || !open && e.Status == failover.Unknown && len(all) > 0 && all[len(all)-1].Status == failover.Unknown {
			return // it says why there is no end yet
		}
		if !open {
			all = append(all, Span{Begin: e.At.Add(-e.Took)})
		}
		last := &all[len(all)-1]
		last.End, last.Status = e.At, cmp.Or(e.Status, failover.Succeeded)
		if e.Kind == failover.Stuck || e.Kind == failover.Overtaken {
			last.Status = failover.Broke
		}
	default:
		return
	}
	spans[e.Step] = all
}

// entry adds what an entry says of people, processes and failures.
func (r *Report) entry(record Record, e failover.Entry) {
	r.Events = append(r.Events, Event{record.Sequence, e.At, e.Kind, e.By, e.Step, tell(e)})
	carries := !slices.ContainsFunc(record.Entries, func(e failover.Entry) bool { return e.Kind == failover.Settled }) // of a run that is over
	if e.Kind == failover.Took && carries {
		r.Carriers = append(r.Carriers, Carrier{e.By, record.Epoch, e.At})
	}
	if w := word(e); w != "" {
		r.People = append(r.People, Word{e.At, e.By, w})
	}
	switch {
	case e.Kind == failover.Ended && (e.Status == failover.Broke || e.Status == failover.Unknown), e.Kind == failover.Stuck, e.Kind == failover.Overtaken:
		r.Failures = append(r.Failures, e.Step+": "+cmp.Or(e.Note, string(e.Status)))
	case e.Kind == failover.Evaluated && e.Facts != nil:
		r.Failures = append(r.Failures, e.Facts.Problems...)
	case e.Kind == failover.Verified && e.Note != "", e.Kind == failover.Split:
		r.Failures = append(r.Failures, string(e.Kind)+": "+e.Note)
	}
}

// word is what an entry says that people were asked, or said; empty if nothing.
func word(e failover.Entry) string {
	switch e.Kind {
	case failover.Opened:
		text := "asked for the run"
		if e.Spec != nil && e.Spec.Reason != "" {
			text += ": " + e.Spec.Reason
		}
		if e.Spec != nil && len(e.Spec.Lost) > 0 {
			text += fmt.Sprintf(" (and made sure that these sites have stopped: %v)", e.Spec.Lost)
		}
		return text
	case failover.PausedBy:
		if e.By == "" {
			return "waits: " + e.Note
		}
		return "paused it"
	case failover.Ended:
		if e.By != "" {
			return e.Step + ": " + string(e.Status) + note(e.Note)
		}
	case failover.Consented:
		return "said that site " + e.Site + " has stopped" + note(e.Note)
	case failover.Denied:
		return "was refused " + cmp.Or(e.Step, "it") + note(e.Note)
	case failover.Approved, failover.Rejected, failover.Resumed, failover.Committed, failover.Canceling:
		if e.By != "" {
			return string(e.Kind) + note(e.Note)
		}
	case failover.Retried:
		return "tried " + e.Step + " again"
	case failover.Settled:
		return "has seen to what " + e.Step + " left" + note(e.Note)
	case failover.Rolling:
		if e.By != "" {
			return "rolled it back" + note(e.Note)
		}
	}
	return ""
}

func note(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// tell is an entry for people.
func tell(e failover.Entry) string {
	switch e.Kind {
	case failover.Opened:
		if e.Spec != nil {
			return fmt.Sprintf("%s of plan %s to site %s, %d steps", e.Spec.Verb, e.Spec.Plan, e.Spec.To, len(e.Spec.Steps))
		}
	case failover.Evaluated:
		if e.Facts != nil {
			return facts(e.Facts)
		}
	case failover.Ended:
		text := string(e.Status)
		if e.Point != nil {
			text += fmt.Sprintf(", point %s of %s", e.Point.ID, e.Point.Instant.UTC().Format(time.RFC3339))
		}
		if e.Epoch > 0 {
			text += fmt.Sprintf(", epoch %d", e.Epoch)
		}
		return text + note(e.Note)
	case failover.Fenced:
		return fmt.Sprintf("site %s of %s: %s%s", e.Site, e.Application, e.Level, note(e.Note))
	case failover.Consented:
		return "site " + e.Site + note(e.Note)
	case failover.PausedBy:
		return string(e.Pause) + note(e.Note)
	case failover.Verified:
		return cmp.Or(e.Note, e.Unheard)
	}
	return e.Note
}

func facts(f *failover.Facts) string {
	var apps []string
	for app := range f.Epochs {
		apps = append(apps, app)
	}
	slices.Sort(apps)
	text := ""
	for _, app := range apps {
		text += fmt.Sprintf("%s is at site %s by epoch %d; ", app, f.Epochs[app].Site, f.Epochs[app].Number)
	}
	if f.Split != "" {
		text += f.Split
	} else {
		text += fmt.Sprintf("%d problems", len(f.Problems))
	}
	if f.Unheard != "" {
		text += "; " + f.Unheard
	}
	return text
}
