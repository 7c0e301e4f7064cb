package ui

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/plan"
)

type beginData struct {
	planData
	To      string
	Sites   []string
	ID      string // of the request
	Unable  string // why the site's agent cannot be asked
	Busy    string // the run that is in the way
	Moves   bool
	Command string
	Problem string
	Reason  string
}

// ways are the runs that whoever looks may begin.
func (v *visit) ways() (all []plan.Verb) {
	for _, verb := range begin.Verbs() {
		if v.page.May[string(begin.Need(v.who, verb))] {
			all = append(all, verb)
		}
	}
	return all
}

func (v *visit) beginning(verb plan.Verb, to string) (d beginData, err error) {
	if !slices.Contains(begin.Verbs(), verb) {
		return d, store.ErrNotFound
	}
	if err := v.Door.May(v.ctx(), v.who, v.project, begin.Need(v.who, verb)); err != nil {
		return d, err
	}
	d.planData = planData{seen: v.look(), Verb: verb}
	v.page.Live, v.page.Refresh = "", false // nothing is typed twice
	d.Ahead = d.ahead()
	found, ok := d.Ahead.Plan(v.r.PathValue("name"))
	if !ok {
		return d, store.ErrNotFound
	}
	parsed, err := found.Parse()
	if err != nil {
		return d, fmt.Errorf("%w: plan %s cannot be carried out: %w", store.ErrRefused, found.Name, err)
	}
	d.Plan = found
	d.fill(parsed)
	for _, s := range parsed.Sites {
		d.Sites = append(d.Sites, s.Name)
	}
	d.To, d.Moves = cmp.Or(to, found.To), begin.Moves(verb)
	d.Unable, d.Busy = begin.Unable(d.Known, d.To, verb), begin.Busy(d.Known, found.Name, d.To, verb)
	d.Command = begin.Ask{Plan: found.Name, Verb: verb, To: d.To}.Command()
	d.ID, err = account.NewID()
	return d, err
}

// beginPage shows what a run would do and lose, and the form that asks for it.
func beginPage(v *visit) error {
	d, err := v.beginning(plan.Verb(cmp.Or(v.r.FormValue("verb"), string(plan.Drill))), v.r.FormValue("to"))
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "begin", string(d.Verb)+" of "+d.Plan.Name, d)
}

// beginRun takes the form. The plan's name, typed, is a person's word that he
// means this plan.
func beginRun(v *visit) error {
	ask := begin.Ask{
		ID: v.field("id"), Plan: v.r.PathValue("name"), Verb: plan.Verb(v.field("verb")), To: v.field("to"), Reason: v.field("reason"),
		Lost: v.r.PostForm["lost"], Asked: v.field("asked") == "true",
	}
	again := func(code int, problem string) error {
		d, err := v.beginning(ask.Verb, ask.To)
		if err != nil {
			return err
		}
		d.Problem, d.Reason = problem, ask.Reason
		return v.show(code, "begin", "Not begun", d)
	}
	if begin.Moves(ask.Verb) && v.field("confirm") != ask.Plan {
		return again(http.StatusUnprocessableEntity, "Nothing was begun: the plan's name was not typed exactly.")
	}
	r, err := v.Begins.Take(v.ctx(), v.project, v.who, v.Door.Act(v.who, v.r), ask)
	switch {
	case errors.Is(err, store.ErrRefused), errors.Is(err, store.ErrConflict):
		code := http.StatusUnprocessableEntity
		if errors.Is(err, store.ErrConflict) {
			code = http.StatusConflict
		}
		return again(code, "Nothing was begun: "+err.Error())
	case err != nil:
		return err
	}
	return v.then("/p/" + v.project.Name + "/requests/" + r.ID)
}

// requestPage says what became of a request.
func requestPage(v *visit) error {
	r, err := v.project.Requested(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	s, err := begin.Show(r, v.Door.Now())
	if err != nil {
		return err
	}
	d := struct {
		seen
		Request begin.Shown
		Seen    bool // the vault has the run
		Tone    string
	}{seen: v.look(), Request: s, Tone: map[string]string{"created": "good", "refused": "bad"}[s.State]}
	d.Tone = cmp.Or(d.Tone, "warn")
	if d.Known.Snapshot != nil {
		for _, run := range d.Known.Snapshot.Runs {
			d.Seen = d.Seen || run.Run == s.Run
		}
	}
	if s.State == "created" && d.Seen { // nothing more is said here
		return v.then("/p/" + v.project.Name + "/runs/" + s.Run)
	}
	v.page.Live += "?requests"
	v.page.Refresh = s.State == begin.Waiting || s.State == "created"
	return v.show(http.StatusOK, "request", strings.TrimSpace(string(s.Verb)+" of "+s.Plan), d)
}
