package running

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/cli/equipping"
	"davit.dev/davit/internal/cli/forecast"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/words"
	"davit.dev/davit/internal/command"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/register"
)

// Outlook is what a failover would do, and lose.
type Outlook struct {
	Verb         plan.Verb    `json:"verb"`
	Plan         string       `json:"plan"`
	From         string       `json:"from"`
	To           string       `json:"to"`
	Fence        string       `json:"fence"`              // at worst
	Unproven     []string     `json:"unproven,omitempty"` // sites that the run will ask a person about
	Applications []OutlookApp `json:"applications"`
	Steps        []string     `json:"steps"`
	Problems     []string     `json:"problems,omitempty"`
	Unheard      string       `json:"unheard,omitempty"` // see failover.Facts
	// First is what the site lacks, and is done before the run begins.
	First *equipping.Need `json:"first,omitempty"`
	// Ahead is what is known of the sites and of earlier runs; Blind why not.
	Ahead *forecast.Sites `json:"ahead,omitempty"`
	Blind string          `json:"blind,omitempty"`
	now   time.Time
}

// OutlookApp is an application of an Outlook.
type OutlookApp struct {
	Name    string    `json:"name"`
	Epoch   int64     `json:"epoch"`
	Holders []string  `json:"holders,omitempty"`
	Point   string    `json:"point,omitempty"`
	Instant time.Time `json:"instant,omitzero"`
}

// Document implements output.Result.
func (o Outlook) Document() any { return o }

// Text implements output.Result.
func (o Outlook) Text(t *output.Text) {
	if o.Verb == plan.Drill {
		o.drill(t)
		return
	}
	planned := o.Verb != plan.Failover
	t.Line("%s%s of plan %s from site %s to site %s.", strings.ToUpper(string(o.Verb[:1])), o.Verb[1:], o.Plan, o.From, o.To)
	for _, a := range o.Applications {
		if planned {
			if o.Verb == plan.Failback {
				t.Line("  %s: what only site %s has is captured and kept; then the volumes here are brought up to date.", a.Name, o.To)
			}
			t.Line("  %s: stops at site %s, is captured once more, and starts here. Nothing is lost.", a.Name, o.From)
			continue
		}
		if a.Point == "" {
			t.Line("  %s: no recovery point may be offered.", a.Name)
			continue
		}
		t.Line("  %s: whatever was written after %s is lost, %s ago (%s).", a.Name, output.Time(a.Instant), output.Age(a.Instant, o.now), a.Point)
	}
	if !planned {
		t.Line("  Fence: %s at worst.", o.Fence)
	}
	if planned {
		o.proofs(t)
	} else if len(o.Unproven) > 0 {
		t.Line("  The run pauses until it is proven that %s has stopped. If you have made sure of it yourself, say so: --lost SITE.", strings.Join(o.Unproven, " and "))
	}
	if !planned && slices.Contains(o.Unproven, promotion.Nobody) { // a planned move says it as a problem
		t.Line("  %s: the vault was promoted, and a site that is cut off and was never moved over may run this without anybody's knowing. --lost %[1]s says that none does, `vault promote VAULT --lost-stopped` says it for good.", promotion.Nobody)
	}
	o.ahead(t)
	o.close(t)
}

// proofs says of whom a planned move wants a proof.
func (o Outlook) proofs(t *output.Text) {
	t.Line("  The agent of site %s has to prove that it has stopped; without that everything is taken back.", o.From)
	for _, site := range o.Unproven {
		if site != o.From && site != promotion.Nobody {
			t.Line("  So has that of site %s, which held it before; --lost %[1]s says that it is gone for good, and has stopped.", site)
		}
	}
}

// close says what comes before the run, and what keeps it from beginning.
func (o Outlook) close(t *output.Text) {
	if o.First != nil {
		for _, what := range o.First.Told() {
			t.Line("  First: %s.", what)
		}
	}
	if o.Unheard != "" {
		t.Line("  Unheard: %s", o.Unheard)
	}
	for _, p := range o.Problems {
		t.Line("  Problem: %s", p)
	}
}

// ahead is what a person should know before saying yes.
func (o Outlook) ahead(t *output.Text) {
	if o.Blind != "" {
		t.Line("  What else is known could not be looked up: %s", o.Blind)
	}
	if o.Ahead == nil {
		return
	}
	o.Ahead.Foretell(t, "  ")
	o.checks(t)
}

// checks are those that fail.
func (o Outlook) checks(t *output.Text) {
	if o.Ahead == nil {
		return
	}
	failing := *o.Ahead
	failing.Findings = slices.DeleteFunc(slices.Clone(failing.Findings), func(f preflight.Finding) bool { return f.Verdict != preflight.Fail })
	if len(failing.Findings) > 0 {
		t.Line("  Preflight: %s. `plan validate --sites` says more.", output.Plural(int64(len(failing.Findings)), "check fails", "checks fail"))
		failing.List(t, "    ", false)
	}
}

// drill says what a drill would do.
func (o Outlook) drill(t *output.Text) {
	t.Line("Drill of plan %s at site %s, beside what runs at site %s, which is not touched.", o.Plan, o.To, o.From)
	for _, a := range o.Applications {
		t.Line("  %s: a clone of %s, of %s ago.", a.Name, a.Point, output.Age(a.Instant, o.now))
	}
	t.Line("  Steps: %s", strings.Join(o.Steps, ", "))
	o.checks(t)
	o.close(t)
}

// Report is a run.
type Report struct {
	failover.Result
	Begun    time.Time `json:"begun,omitzero"`
	Executor string    `json:"executor"`
	To       string    `json:"to"`
	Next     string    `json:"next,omitempty"` // what a person can do
}

func reportOf(s *failover.State) Report {
	return Report{Result: s.Result(), Begun: s.Begun, Executor: s.Executor, To: s.Spec.To, Next: command.Named(command.Program, commission.Next(s))}
}

// Document implements output.Result.
func (r Report) Document() any { return r }

// Text implements output.Result.
func (r Report) Text(t *output.Text) {
	next := r.Next
	if strings.HasPrefix(next, "`davit runs show "+r.Run+"`") { // this is it
		next = ""
	}
	t.Fields("", "Run", r.Run, "Plan", r.Plan, "Verb", string(r.Verb), "To", r.To, "State", string(r.State), "Why", r.Why, "Next", next,
		"Fence", r.Level, "Unheard", r.Unheard, "Begun", output.Time(r.Begun), "Carried by", r.Executor)
	rows := make([][]string, 0, len(r.Applications))
	for _, a := range r.Applications {
		rpo, rto := "", ""
		if a.RPOKnown {
			rpo = output.Duration(a.RPO)
		}
		if a.RTO > 0 {
			rto = output.Duration(a.RTO)
		}
		rows = append(rows, []string{a.Name, a.Level, a.Point, rpo, rto})
	}
	t.Section("Applications")
	t.Table("  ", output.Columns("NAME", "FENCE", "POINT", ">RPO", ">RTO"), rows)
	rows = nil
	for _, s := range r.Steps {
		status := string(s.Status)
		switch {
		case s.Undone:
			status = "taken back"
		case s.Left:
			status = "left"
		}
		note := s.Note
		if m := s.Moved; m != nil {
			note = strings.TrimSuffix(fmt.Sprintf("fetched %s of %s; %s", output.Bytes(m.Bytes), output.Bytes(m.Of), note), "; ")
		}
		took := ""
		if s.Took > 0 {
			took = output.Duration(s.Took)
		}
		rows = append(rows, []string{s.Name, status, took, output.OneLine(note)})
	}
	t.Section("Steps")
	t.Table("  ", output.Columns("STEP", "STATUS", ">TOOK", "NOTE"), rows)
	words.Left(t, r.Remaining)
}

// Row is a run in a list.
type Row struct {
	Run   string    `json:"run"`
	Plan  string    `json:"plan,omitempty"`
	Verb  string    `json:"verb,omitempty"`
	To    string    `json:"to,omitempty"`
	State string    `json:"state"`
	Why   string    `json:"why,omitempty"`
	Begun time.Time `json:"begun,omitzero"`
}

func row(l register.Line) Row {
	if l.Err != nil {
		return Row{Run: l.Run, State: "unreadable", Why: l.Err.Error()}
	}
	return Row{Run: l.Run, Plan: l.Plan, Verb: string(l.Verb), To: l.To, State: string(l.Phase), Why: l.Why, Begun: l.Begun}
}

// List is all runs.
type List struct {
	Runs []Row `json:"runs"`
	now  time.Time
}

// Document implements output.Result.
func (l List) Document() any { return l }

// Text implements output.Result.
func (l List) Text(t *output.Text) {
	if len(l.Runs) == 0 {
		t.Line("There was no run yet.")
		return
	}
	var rows [][]string
	for _, r := range l.Runs {
		rows = append(rows, []string{r.Run, r.Verb, r.To, r.State, output.Age(r.Begun, l.now), output.Short(output.OneLine(r.Why), 80)})
	}
	t.Table("", output.Columns("RUN", "VERB", "TO", "STATE", ">AGE", "WHY"), rows)
}
