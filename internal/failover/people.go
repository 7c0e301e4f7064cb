package failover

import (
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/plan"
)

// person handles what people want. What cannot be is refused, with the reason.
func (m *Machine) person(e Event) {
	if m.state.Granted[e.Request] { // whoever carried the run died before he said so
		return
	}
	before := len(m.draft)
	why := m.wants(e)
	if why == "" && len(m.draft) > before {
		m.draft[before].Request = e.Request
	}
	if why != "" {
		m.out = append(m.out, Effect{Action: Refuse, By: e.By, Why: string(e.Kind) + ": " + why})
	}
}

func (m *Machine) wants(e Event) string {
	s := m.state
	if s.Phase.Over() {
		return "the run is over: " + string(s.Phase)
	}
	if e.Denied != "" {
		return m.deny(e, e.Step, e.Denied)
	}
	switch e.Kind {
	case Approve:
		return m.approve(e)
	case Reject:
		if s.Phase != AwaitingApproval {
			return "the run does not wait for an approval"
		}
		m.note(Entry{Kind: Rejected, By: e.By, Note: "rejected by " + e.By + ": " + e.Note})
	case Pausing:
		if s.Pause != nil {
			return "the run is paused already"
		}
		m.note(Entry{Kind: PausedBy, By: e.By, Pause: ByOperator, Note: "by " + e.By})
	case Resume:
		return m.resume(e)
	case Retry:
		return m.retry(e)
	case Skip, Answer:
		return m.settleStep(e)
	case Consent:
		return m.consent(e)
	case Commit:
		if s.Phase != AwaitingCommit {
			return "the run is not done: it is " + string(s.Shown())
		}
		m.note(Entry{Kind: Committed, By: e.By})
	case RollBack:
		return m.wantsBack(e)
	case Cancel:
		return m.cancel(e)
	case Settle:
		return "only what a run that is over left can be settled: it is " + string(s.Shown())
	}
	return ""
}

func (m *Machine) resume(e Event) string {
	s := m.state
	switch {
	case s.Phase == SplitBrain, s.Phase == RollbackFailed:
	case s.Pause == nil:
		return "the run is not paused"
	case s.Pause.Kind == ForInput:
		return "the run waits for an answer: " + s.Pause.Why
	case (s.Phase == Running || s.Phase == OutcomeUnknown) && s.failed() != "":
		return "retry or skip step " + s.failed() + ", or roll back"
	}
	m.survey, m.flights = flight{}, m.keep()
	m.note(Entry{Kind: Resumed, By: e.By})
	return ""
}

// keep are the flights that go on when a run is resumed. Undos begin anew.
func (m *Machine) keep() map[string]*flight {
	if m.state.Phase == RollbackFailed {
		m.stands = map[string]bool{}
		return map[string]*flight{}
	}
	return m.flights
}

func (m *Machine) retry(e Event) string {
	s := m.state
	if s.Phase == RollbackFailed {
		return m.resume(e)
	}
	var any bool
	for _, step := range s.Spec.Steps {
		if s.begins() && s.Steps[step.Name].Status == Broke && (e.Step == "" && step.OnError != plan.Continue || e.Step == step.Name) {
			m.note(Entry{Kind: Retried, By: e.By, Step: step.Name})
			any = true
		}
	}
	if !any {
		return "no step failed that could be tried again now: the run is " + string(s.Shown())
	}
	return ""
}

// settleStep ends a step by a person's word.
func (m *Machine) settleStep(e Event) string {
	step := m.state.Spec.step(e.Step)
	if step == nil {
		return fmt.Sprintf("the run has no step %q", e.Step)
	}
	f, st := m.flights[e.Step], m.state.Steps[e.Step]
	if e.Kind == Answer {
		if !step.Asks() || f == nil || m.state.Phase != Running {
			return e.Step + " does not wait for an answer"
		}
		if step.Kind == plan.KindApproval {
			if done, why := m.agree(e, step); !done || why != "" {
				return why
			}
		}
		status := Succeeded
		if e.Outcome != Done {
			status = Broke
		}
		m.note(Entry{Kind: Ended, Step: e.Step, Status: status, By: e.By, Note: "by " + e.By + ": " + e.Note, Took: m.now.Mono - f.began})
		return ""
	}
	if why := step.Kind.WhyNotSkipped(); why != "" {
		return why
	}
	if m.state.goesBack() {
		return m.leadByHand(e, step)
	}
	if !m.state.begins() || st.Status != Broke && st.Status != Unknown {
		return e.Step + " did not fail, or holds nothing up any more"
	}
	m.note(Entry{Kind: Ended, Step: e.Step, Status: Skipped, By: e.By, Note: "skipped by " + e.By})
	if m.state.Pause != nil && m.state.Pause.Kind == ByFailure && m.onlyFailure(e.Step) {
		m.note(Entry{Kind: Resumed, By: e.By})
	}
	return ""
}

// leadByHand lets a roll-back go on without a name that nobody can lead back, as its servers are gone for good: whoever
// wants that leads it. It may lead to the target meanwhile, where nothing runs then: its clients meet errors, and no second
// writer. What was ordered may still lead it back.
func (m *Machine) leadByHand(e Event, step *plan.Step) string {
	if why := m.state.whyNotLed(step); why != "" {
		return why
	}
	m.note(Entry{Kind: Undone, Step: step.Name, Status: Skipped, By: e.By, Note: noted("skipped by "+e.By, e.Note)})
	if m.state.Phase == RollbackFailed {
		return m.resume(e)
	}
	return ""
}

// onlyFailure tells whether a step is all that holds the run up.
func (m *Machine) onlyFailure(name string) bool {
	return !slices.ContainsFunc(m.state.Spec.Steps, func(step plan.Step) bool {
		return step.Name != name && step.OnError != plan.Continue && m.state.Steps[step.Name].Status == Broke
	})
}

// consent lets a run go on although nothing proves that a site has stopped.
// The person types the site's name.
func (m *Machine) consent(e Event) string {
	switch why := m.state.WhyNoConsent(e.Site); {
	case why != "":
		return why
	case e.Text != e.Site:
		return fmt.Sprintf("type the name of the site, %s, to say that you made sure that it has stopped", e.Site)
	}
	m.note(Entry{Kind: Consented, By: e.By, Site: e.Site, Note: e.Note})
	return ""
}

func (m *Machine) wantsBack(e Event) string {
	s := m.state
	switch {
	case s.whyNotBack() != "":
		return s.whyNotBack()
	case s.Exposed() != "" && e.Text != s.Spec.To:
		return fmt.Sprintf("clients may have written at %s since %s: type %s to lose that, or fail back", s.Spec.To, s.Exposed(), s.Spec.To)
	}
	m.note(Entry{Kind: Rolling, By: e.By, Note: e.Note})
	return ""
}

func (m *Machine) cancel(e Event) string {
	s := m.state
	note := noted("by "+e.By, e.Note)
	switch {
	case s.whyNotCancel() != "":
		return s.whyNotCancel()
	case s.Phase == RollbackFailed:
		note += ": what was not taken back stays as it is (" + strings.Join(s.notBack(), ", ") + "), for " + s.Why
	case s.Watches(): // see watchNoLonger
	case s.Canceled:
		note += ": its sandbox may be left at site " + s.Spec.To
	case s.Meant() && s.Spec.Verb == plan.Restore:
		note += ": what was done stays as it is"
	}
	m.note(Entry{Kind: Canceling, By: e.By, Note: note})
	return ""
}
