package failover

import (
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/plan"
)

// Offer is something that a person can want of a run now.
type Offer struct {
	Kind EventKind `json:"kind"`
	Step string    `json:"step,omitempty"`
	Site string    `json:"site,omitempty"`
	// Type is what the person has to type; empty: nothing.
	Type string `json:"type,omitempty"`
	// About is what it is about: the step's prompt, or what failed.
	About string `json:"about,omitempty"`
	// Approves says that it takes the right to approve.
	Approves bool `json:"approves,omitempty"`
}

// Offers are what people can want of the run as it stands: what the machine would
// refuse is not among them. It may be refused all the same by when it arrives.
func (s *State) Offers() []Offer {
	var all []Offer
	if s.Phase.Over() {
		for _, left := range s.Remaining() {
			if left.Settled == nil {
				all = append(all, Offer{Kind: Settle, Step: left.Step, About: left.Do})
			}
		}
		return all
	}
	if s.Phase == AwaitingApproval {
		all = append(all, Offer{Kind: Approve, Approves: true, About: "it takes " + s.Lacks()}, Offer{Kind: Reject, Approves: true})
	}
	all = append(all, s.answers()...)
	all = append(all, s.onward()...)
	all = append(all, s.mends()...)
	return append(all, s.endings()...)
}

// answers are to what the run asks.
func (s *State) answers() (all []Offer) {
	if s.Phase != Running {
		return nil
	}
	for _, step := range s.Spec.Steps {
		// No intention is noted of what only asks: it waits as soon as it is its turn.
		waits := step.Asks() && !s.Steps[step.Name].ended() && !slices.ContainsFunc(step.After, func(name string) bool { return !s.passed(name) })
		if waits {
			all = append(all, Offer{Kind: Answer, Step: step.Name, About: s.asks(step.Name), Approves: step.Kind == plan.KindApproval})
		}
	}
	if s.Pause == nil || s.Pause.Kind != ForInput || s.Spec.planned() {
		return all
	}
	for _, site := range s.unproven(s.Spec.Applications...) {
		all = append(all, Offer{Kind: Consent, Site: site, Type: site, About: s.Pause.Why})
	}
	return all
}

// WhyNoConsent says why nobody can say of a site that it has stopped, whatever he types;
// empty: somebody can.
func (s *State) WhyNoConsent(site string) string {
	switch {
	case !s.Facts.holds(site):
		why := fmt.Sprintf("site %q holds nothing that the run takes over", site)
		if waits := s.unproven(s.Spec.Applications...); len(waits) > 0 {
			why += "; nothing proves yet that " + strings.Join(waits, ", ") + " has stopped"
		}
		return why
	case s.Spec.planned():
		return "a planned move has a source that can prove it: find out why it does not, or roll back and fail over"
	}
	return ""
}

// unproven are the sites of which nothing proves that they have stopped these
// applications, and nobody has said so.
func (s *State) unproven(apps ...string) (sites []string) {
	for _, app := range apps {
		for _, site := range s.Facts.Holders[app] {
			if s.Vouched(app, site) == "" && s.Fences[app][site].Level < TimedOut && !slices.Contains(sites, site) {
				sites = append(sites, site)
			}
		}
	}
	return sites
}

// onward are to pause, and to go on.
func (s *State) onward() []Offer {
	switch {
	case s.Phase == SplitBrain, s.Phase == RollbackFailed:
		return []Offer{{Kind: Resume, About: s.Why}}
	case s.Pause == nil && s.Phase != AwaitingCommit:
		return []Offer{{Kind: Pausing}}
	case s.Pause == nil, s.Pause.Kind == ForInput, (s.Phase == Running || s.Phase == OutcomeUnknown) && s.failed() != "":
		return nil
	}
	return []Offer{{Kind: Resume, About: s.Pause.Why}}
}

// mends are of steps that failed.
func (s *State) mends() (all []Offer) {
	for _, step := range s.Spec.Steps {
		st := s.Steps[step.Name]
		if s.goesBack() && s.whyNotLed(&step) == "" {
			all = append(all, Offer{Kind: Skip, Step: step.Name, About: step.ByHand(s.Spec.From)})
		}
		if s.begins() && st.Status == Broke {
			all = append(all, Offer{Kind: Retry, Step: step.Name, About: st.Note})
		}
		if s.begins() && (st.Status == Broke || st.Status == Unknown) && step.Kind.WhyNotSkipped() == "" {
			all = append(all, Offer{Kind: Skip, Step: step.Name, About: st.Note})
		}
	}
	return all
}

// begins tells whether steps are begun yet: later nothing follows from mending one.
func (s *State) begins() bool {
	return s.Phase == Running || s.Phase == OutcomeUnknown || s.Phase == SplitBrain
}

// goesBack tells whether the run takes back what it did.
func (s *State) goesBack() bool { return s.Phase == RollingBack || s.Phase == RollbackFailed }

// whyNotLed says why a roll-back does not go on without a step; empty: it does, and people lead the name.
func (s *State) whyNotLed(step *plan.Step) string {
	switch {
	case step.Kind != plan.KindDNS:
		return "a roll-back goes on only without a name in the DNS, which people can lead: what else was done has to be taken back"
	case !s.toUndo(*step) || !s.Steps[step.Name].Undoing:
		return step.Name + " is not being taken back"
	}
	return ""
}

// endings end the run, or take it back.
func (s *State) endings() (all []Offer) {
	if s.Phase == AwaitingCommit {
		all = append(all, Offer{Kind: Commit})
	}
	if s.whyNotBack() == "" && s.Phase != RollbackFailed { // that one is resumed
		o := Offer{Kind: RollBack}
		if since := s.Exposed(); since != "" {
			o.Type, o.About = s.Spec.To, "what clients wrote at "+s.Spec.To+" since "+since+" is lost"
		}
		all = append(all, o)
	}
	if s.whyNotCancel() == "" {
		o := Offer{Kind: Cancel}
		if s.Phase == RollbackFailed {
			o.About = "what was not taken back stays as it is: " + strings.Join(s.notBack(), ", ")
		}
		if s.Watches() {
			o.About = "all is taken back: it is not waited for any longer that site " + s.Spec.From + " runs it again"
		}
		all = append(all, o)
	}
	return all
}

// whyNotBack says why the run cannot roll back now, whatever is typed.
func (s *State) whyNotBack() string {
	switch {
	case s.WayBack() != "":
		return s.WayBack()
	case s.Phase == RollingBack:
		return "the run rolls back already"
	case s.Phase == Evaluating || s.Phase == AwaitingApproval:
		return "nothing was done yet: cancel it"
	}
	return ""
}

// Meant tells whether any step was ever intended: before that, nothing was changed.
func (s *State) Meant() bool {
	return slices.ContainsFunc(s.Spec.Steps, func(step plan.Step) bool { return s.Steps[step.Name].Meant })
}

func (s *State) whyNotCancel() string {
	// One that can never be taken back, as a site is gone for good, would be in the way of the failover that
	// is needed then. So would one that only waits until its source runs again.
	if s.Meant() && s.Spec.Verb.Moves() && s.Phase != RollbackFailed && !s.Watches() {
		return "something was done already: roll back"
	}
	return ""
}

// notBack are the steps that a roll-back has not taken back. Of a fence it is only looked what became.
func (s *State) notBack() (names []string) {
	for _, step := range s.Spec.Steps {
		if step.Kind != plan.KindFence && s.toUndo(step) {
			names = append(names, step.Name)
		}
	}
	return names
}
