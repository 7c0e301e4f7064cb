package ui

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
)

// offer is something that can be wanted, as a form.
type offer struct {
	failover.Offer
	// ID is this form's own: sent twice, it is one request.
	ID string
	// Confirm is what is typed before something that cannot be taken back.
	Confirm string
	Label   string
}

// steering is what a run's page has for those who may steer.
type steering struct {
	Project, Run, To, Form string
	Over                   bool

	Offers []offer
	Asked  []steer.Asked
	// Answer is what became of what was just asked.
	Answer *steer.Asked
	// Said is what its steps said.
	Said []journal.Words
	// Fault is why none of it can be told now.
	Fault string
}

var labels = map[failover.EventKind]string{
	failover.Approve: "Approve", failover.Reject: "Reject", failover.Pausing: "Pause", failover.Resume: "Resume", failover.Retry: "Try again", failover.Skip: "Go on without it",
	failover.Answer: "It is done", failover.Consent: "It has stopped: I made sure", failover.Commit: "Commit", failover.RollBack: "Roll back", failover.Cancel: "Cancel the run",
	failover.Settle: "It is seen to",
}

// confirm is what has to be typed for an offer; empty: nothing.
func confirm(o failover.Offer, planName string) string {
	switch {
	case o.Type != "":
		return o.Type
	case o.Kind == failover.Skip:
		return o.Step
	case o.Kind == failover.Commit, o.Kind == failover.RollBack:
		return planName
	}
	return ""
}

// steering looks at a run's journal, for its page. r becomes what that says now.
func (v *visit) steering(r *fleet.Run) (*steering, error) {
	s, err := v.Steer.Look(v.ctx(), v.who, v.project, r.Run)
	if err != nil { // what was known of the run is still worth showing
		return &steering{Run: r.Run, Fault: err.Error()}, nil
	}
	*r = fleet.RunOf(s.State)
	d := &steering{Project: v.project.Name, Run: r.Run, To: r.To, Over: r.Over, Form: v.page.Form, Asked: s.Asked, Said: s.Said}
	for _, o := range s.Offers {
		id, err := account.NewID()
		if err != nil {
			return nil, err
		}
		d.Offers = append(d.Offers, offer{Offer: o, ID: id, Confirm: confirm(o, r.Plan), Label: labels[o.Kind]})
	}
	if n, err := strconv.ParseInt(v.r.URL.Query().Get("asked"), 10, 64); err == nil {
		if a, err := v.Steer.Request(v.ctx(), v.project, r.Run, n); err == nil {
			d.Answer = &a
		}
	}
	return d, nil
}

// askRun takes a form of a run's page.
func askRun(v *visit) error {
	run := v.r.PathValue("name")
	w := steer.Want{
		ID: v.field("id"), Kind: failover.EventKind(v.field("kind")), Step: v.field("step"), Site: v.field("site"), Typed: v.field("typed"), Note: v.field("note"), Failed: v.field("failed") != "",
	}
	err := v.confirmed(run, w)
	var a steer.Asked
	if err == nil {
		a, err = v.Steer.Ask(v.ctx(), v.who, v.project, v.Door.Act(v.who, v.r), run, w)
	}
	switch {
	case err == nil:
		return v.then(fmt.Sprintf("/p/%s/runs/%s?asked=%d", v.project.Name, url.PathEscape(run), a.Number))
	case errors.Is(err, store.ErrRefused), errors.Is(err, entry.ErrForbidden), errors.Is(err, steer.ErrSilent):
		v.page.Problem = strings.ReplaceAll(err.Error(), "\n", "; ")
		return v.run(code(err))
	}
	return err
}

func code(err error) int {
	for _, known := range verdicts {
		if errors.Is(err, known.is) {
			return known.code
		}
	}
	return http.StatusInternalServerError
}

// confirmed refuses what takes a word that was not typed. What is not offered any
// more is refused, or answered, later.
func (v *visit) confirmed(run string, w steer.Want) error {
	s, err := v.Steer.Look(v.ctx(), v.who, v.project, run)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Offers, func(o failover.Offer) bool { return o.Kind == w.Kind && o.Step == w.Step && o.Site == w.Site })
	if i < 0 {
		return nil
	}
	if word := confirm(s.Offers[i], s.State.Spec.Plan); word != "" && word != w.Typed {
		return fmt.Errorf("%w: nothing was asked: type %s to say that you mean it", store.ErrRefused, word)
	}
	return nil
}
