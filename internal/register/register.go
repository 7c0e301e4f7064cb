// Package register says which runs of a project are under way and how those that
// ended did, without reading their journals: a note while a run is under way,
// and a summary when it is over (docs/formats/journal.md, "Register"). The journals are the
// truth; what the register lacks is found there.
package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
)

const formatVersion = 1

// Note is what the register says of a run that is under way.
type Note struct {
	Run  string    `json:"run"`
	Plan string    `json:"plan"`
	Verb plan.Verb `json:"verb"`
	From string    `json:"from,omitempty"`
	To   string    `json:"to"`
	At   time.Time `json:"at"`
}

// Summary is a run in short.
type Summary struct {
	FormatVersion int            `json:"formatVersion"`
	Run           string         `json:"run"`
	Plan          string         `json:"plan"`
	Verb          plan.Verb      `json:"verb"`
	From          string         `json:"from,omitempty"`
	To            string         `json:"to"`
	By            string         `json:"by"`
	Phase         failover.Phase `json:"phase"`
	Why           string         `json:"why,omitempty"`
	Level         string         `json:"level,omitempty"`
	Begun         time.Time      `json:"begun"`
	Ended         time.Time      `json:"ended,omitzero"`
	// Executor carries the run, or did.
	Executor     string                       `json:"executor"`
	Applications []failover.ApplicationResult `json:"applications,omitempty"`
}

// Of sums a run up.
func Of(s *failover.State) Summary {
	r := s.Result()
	return Summary{
		FormatVersion: formatVersion, Run: r.Run, Plan: r.Plan, Verb: r.Verb, From: s.Spec.From, To: s.Spec.To, By: s.Spec.By, Phase: r.State, Why: r.Why,
		Level: r.Level, Begun: s.Begun, Ended: s.End, Executor: s.Executor, Applications: r.Applications,
	}
}

// Worst are the worst RPO and RTO of the applications; known says whether any
// of them was measured.
func (s Summary) Worst() (rpo, rto time.Duration, known bool) {
	for _, a := range s.Applications {
		if a.RPOKnown {
			rpo, known = max(rpo, a.RPO), true
		}
		rto = max(rto, a.RTO)
	}
	return rpo, rto, known
}

// Register is that of one project.
type Register struct{ project *vault.Project }

// New returns a project's register.
func New(p *vault.Project) Register { return Register{p} }

func (r Register) under(run string) string { return r.project.Root() + "running/" + run }
func (r Register) over(run string) string  { return r.project.Root() + "ended/" + run }

// Begin notes a run before its journal is opened: so nobody who looks for runs
// misses one.
func (r Register) Begin(ctx context.Context, s failover.Spec) error {
	note := Note{Run: s.Run, Plan: s.Plan, Verb: s.Verb, From: s.From, To: s.To, At: s.At}
	err := r.put(ctx, r.under(s.Run), s.Run, note)
	if err != nil && !errors.Is(err, vault.ErrExists) {
		return fmt.Errorf("note run %s: %w", s.Run, err)
	}
	return nil
}

// End keeps the summary of a run that is over, and takes its note away.
func (r Register) End(ctx context.Context, s *failover.State) error {
	if !s.Phase.Over() {
		return fmt.Errorf("sum up run %s: it is %s", s.Spec.Run, s.Phase)
	}
	run := s.Spec.Run
	err := r.put(ctx, r.over(run), run, Of(s))
	if errors.Is(err, vault.ErrExists) {
		err = r.mend(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("sum up run %s: %w", run, err)
	}
	return r.Forget(ctx, run)
}

// mend replaces a summary that is damaged, or that somebody without the key put in
// its place.
func (r Register) mend(ctx context.Context, s *failover.State) error {
	_, err := r.Summary(ctx, s.Spec.Run)
	switch {
	case errors.Is(err, vault.ErrDamaged):
		data, err := json.Marshal(Of(s))
		if err != nil {
			return err
		}
		return r.project.WriteSealed(ctx, r.over(s.Spec.Run), data)
	case errors.Is(err, journal.ErrNewer):
		return nil
	}
	return err
}

// Unreadable tells of an error whether it is of one object alone: damaged, put
// there by somebody without the key, or written by a newer davit. All else can
// still be read.
func Unreadable(err error) bool {
	return errors.Is(err, vault.ErrDamaged) || errors.Is(err, journal.ErrNewer)
}

// Age is how long a run has been noted as under way, by the vault's clock, or
// ErrNotFound.
func (r Register) Age(ctx context.Context, run string) (time.Duration, error) {
	o, err := r.project.Store().Stat(ctx, r.under(run))
	if err != nil {
		return 0, fmt.Errorf("look at the note of run %s: %w", run, err)
	}
	clock, err := r.project.Clock(ctx)
	if err != nil {
		return 0, err
	}
	return clock.Sub(o.Modified), nil
}

// Forget takes the note of a run away.
func (r Register) Forget(ctx context.Context, run string) error {
	if err := r.project.Store().Delete(ctx, r.under(run)); err != nil && !errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("take the note of run %s away: %w", run, err)
	}
	return nil
}

func (r Register) put(ctx context.Context, key, run string, v any) error {
	if err := vault.CheckName(run); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.project.WriteSealedOnce(ctx, key, data)
}

// names lists what lies under a prefix.
func (r Register) names(ctx context.Context, prefix string) ([]string, error) {
	var all []string
	err := r.project.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		if run := strings.TrimPrefix(o.Key, prefix); vault.CheckName(run) == nil {
			all = append(all, run)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	return all, nil
}

// Running names the runs that are noted as under way.
func (r Register) Running(ctx context.Context) ([]string, error) { return r.names(ctx, r.under("")) }

// States are the journals of the runs that are under way, but of one, for whoever
// begins a run of a plan. A noted run whose journal cannot be read is OutcomeUnknown
// and names no applications. Runs that the register lacks are looked for too, see
// hidden. One that is overtaken is left out.
func (r Register) States(ctx context.Context, name, but string) ([]*failover.State, error) {
	running, err := r.Running(ctx)
	if err != nil {
		return nil, err
	}
	var all []*failover.State
	for _, run := range running {
		if run == but {
			continue
		}
		s, err := journal.Read(ctx, r.project, run)
		if errors.Is(err, vault.ErrNotFound) {
			continue // it has not begun yet, or never did
		}
		if Unreadable(err) {
			s, err = r.unknown(ctx, run, err)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	hidden, err := r.hidden(ctx, name, append(running, but))
	if err != nil {
		return append(all, hidden...), err
	}
	var under []*failover.State
	for _, s := range append(all, hidden...) {
		gone, err := r.Overtaken(ctx, s)
		if err != nil && (ctx.Err() != nil || errors.Is(err, vault.ErrUnavailable)) { // else it is one object that says nothing
			return nil, err
		}
		if !gone {
			under = append(under, s)
		}
	}
	return under, nil
}

// Overtaken tells of a run that was to move applications whether it moves none any more, and nobody
// carries it: each was claimed since the run began, and not for it, and its journal and its target have been
// silent for as long as a site that is taken for lost. A run is carried at its target alone: if that is lost for
// good, no other run would ever begin. Should it come back, the run finds its numbers taken. A journal is silent
// of a run as well that waits for people, or for a long step: where its target lives, it is ended there.
// One that has begun no step has changed nothing, and claimed nothing: that nobody carries it is enough. Should it come
// back, whoever carries it looks how old it is, and ends it; or it waits for people.
func (r Register) Overtaken(ctx context.Context, s *failover.State) (bool, error) {
	blank := len(s.Facts.Epochs) == 0
	if !s.Spec.Verb.Moves() || blank && s.Phase != failover.Evaluating { // of one that cannot be read nobody knows
		return false, nil
	}
	for _, app := range s.Spec.Applications {
		if !s.Meant() {
			break
		}
		current, err := lease.New(r.project).Current(ctx, app)
		if err != nil {
			return false, err
		}
		if current.Number <= s.Facts.Epochs[app].Number || current.Claim.Request == s.Spec.Run {
			return false, nil
		}
	}
	age, err := r.project.RunAge(ctx, s.Spec.Run, s.Sequence)
	if err != nil || age < lease.SilentAfter {
		return false, err
	}
	sign, err := r.project.Site(ctx, s.Spec.To)
	if errors.Is(err, vault.ErrNotFound) || errors.Is(err, vault.ErrDamaged) { // one that lives writes another
		return true, nil
	}
	if err == nil {
		age, err = lease.Silence(ctx, r.project, sign)
	}
	return err == nil && age >= lease.SilentAfter, err
}

// Over tells whether a run has a summary by somebody with the key. What else was put
// in its place says nothing: only the run's journal can tell.
func (r Register) Over(ctx context.Context, run string) (bool, error) {
	_, err := r.Summary(ctx, run)
	switch {
	case err == nil, errors.Is(err, journal.ErrNewer):
		return true, nil
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrDamaged):
		return false, nil
	}
	return false, err
}

// unknown is a run whose journal cannot be read, as far as its note says.
func (r Register) unknown(ctx context.Context, run string, why error) (*failover.State, error) {
	note, err := r.Note(ctx, run)
	if err != nil && !Unreadable(err) && !errors.Is(err, vault.ErrNotFound) {
		return nil, err
	}
	s := failover.NewState()
	s.Spec.Run, s.Spec.Plan, s.Spec.Verb, s.Spec.From, s.Spec.To = run, note.Plan, note.Verb, note.From, note.To
	s.Phase, s.Why = failover.OutcomeUnknown, why.Error()
	return s, nil
}

// MayBeOf tells whether a run of which nothing can be read may be a plan's: so its name
// begins that nobody chose.
func MayBeOf(run, plan string) bool { return strings.HasPrefix(run, plan+"-") }

// Ended names the runs that have a summary.
func (r Register) Ended(ctx context.Context) ([]string, error) { return r.names(ctx, r.over("")) }

// Since names the runs that ended at a time of the vault's clock or later, and
// says when.
func (r Register) Since(ctx context.Context, at time.Time) (map[string]time.Time, error) {
	all := map[string]time.Time{}
	err := r.project.Store().List(ctx, r.over(""), func(o vault.ObjectInfo) error {
		if run := strings.TrimPrefix(o.Key, r.over("")); vault.CheckName(run) == nil && !o.Modified.Before(at) {
			all[run] = o.Modified
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	return all, nil
}

// Note reads what is noted of a run that is under way, or ErrNotFound.
func (r Register) Note(ctx context.Context, run string) (Note, error) {
	var n Note
	err := r.read(ctx, r.under(run), &n)
	if err == nil && n.Run != run {
		err = fmt.Errorf("read note of run %s: %w: it is of %q", run, vault.ErrDamaged, n.Run)
	}
	return n, err
}

// Summary reads how a run ended, or ErrNotFound.
func (r Register) Summary(ctx context.Context, run string) (Summary, error) {
	var s Summary
	err := r.read(ctx, r.over(run), &s)
	switch {
	case err != nil:
	case s.FormatVersion > formatVersion:
		err = fmt.Errorf("read summary of run %s: format %d, this davit reads %d: %w", run, s.FormatVersion, formatVersion, journal.ErrNewer)
	case s.Run != run || s.FormatVersion != formatVersion:
		err = fmt.Errorf("read summary of run %s: %w: it is of %q", run, vault.ErrDamaged, s.Run)
	}
	return s, err
}

func (r Register) read(ctx context.Context, key string, v any) error {
	data, err := r.project.ReadSealed(ctx, key)
	if err == nil {
		if err = json.Unmarshal(data, v); err != nil {
			err = fmt.Errorf("%w: %w", vault.ErrDamaged, err)
		}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}

// Line is a run in a list: Err says that nothing can be read of it.
type Line struct {
	Summary
	Err error
}

// List sums up all runs, the newest first. Journals are read of those alone
// that have no summary.
func (r Register) List(ctx context.Context) ([]Line, error) {
	ended, err := r.Ended(ctx)
	if err != nil {
		return nil, err
	}
	all, err := r.project.Runs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	summed := map[string]bool{}
	for _, run := range ended {
		summed[run] = true
	}
	var lines []Line
	for _, run := range all {
		line := Line{Summary: Summary{Run: run}}
		if summed[run] {
			line.Summary, line.Err = r.Summary(ctx, run)
		}
		if !summed[run] || line.Err != nil {
			line = r.fromJournal(ctx, run)
		}
		lines = append(lines, line)
	}
	slices.SortStableFunc(lines, func(a, b Line) int { return b.Begun.Compare(a.Begun) })
	return lines, nil
}

func (r Register) fromJournal(ctx context.Context, run string) Line {
	s, err := journal.Read(ctx, r.project, run)
	if err != nil {
		return Line{Summary: Summary{Run: run}, Err: err}
	}
	return Line{Summary: Of(s)}
}
