package failover

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"davit.dev/davit/internal/plan"
)

// rollBack takes back what was begun, each step after all that came after it.
// Every step that was ever intended is taken back, also where a look says that
// it is not there: the act may still be under way, and its actuator refuses it
// once it has seen the later order. First it looks whether the run's claims
// still stand: what was claimed anew since stays as it is.
func (m *Machine) rollBack() {
	if !m.stillFlying() || !m.lookedAtClaims() {
		return
	}
	blocked := map[string]bool{} // something that came after is still there
	for i := len(m.state.Spec.Steps) - 1; i >= 0; i-- {
		step := m.state.Spec.Steps[i]
		todo := m.state.toUndo(step)
		waits := m.state.claimsStand(&step)
		if todo && !waits && !blocked[step.Name] && m.flights[step.Name] == nil {
			m.note(Entry{Kind: Undoing, Step: step.Name})
		}
		// What waits for claims lets what it came after go first. Plan.Check has it come
		// before all claims, but the plan of a run that is under way may be older.
		for _, after := range step.After {
			blocked[after] = blocked[after] || todo && !waits || blocked[step.Name]
		}
	}
}

// claimsStand tells whether what makes applications from git at the source has to
// stay suspended for now: it would start them while the target still may write them.
func (s *State) claimsStand(step *plan.Step) bool {
	if step.Kind != plan.KindSuspend || step.Side != plan.Source {
		return false
	}
	apps := s.applications(step)
	return slices.ContainsFunc(s.Spec.Steps, func(c plan.Step) bool {
		return c.Kind == plan.KindClaim && slices.Contains(apps, c.Application) && s.toUndo(c)
	})
}

// stillFlying asks again what has no answer yet, and is false where time is up.
func (m *Machine) stillFlying() bool {
	for _, name := range m.inFlight() {
		f := m.flights[name]
		switch {
		case f.doing != Undo && f.then != Undo:
			delete(m.flights, name) // of the way there
		case m.now.Mono >= f.limit:
			m.note(Entry{Kind: Stuck, Step: name, Note: noted("no answer: see to it that the site can be reached, then resume", f.said)})
			return false
		case m.now.Mono >= f.next:
			f.id, f.next = m.emit(f.doing, name, f.id), m.now.Mono+Patience
		}
	}
	return true
}

// lookedAtClaims tells whether it is known of every claim that it stands, or
// does not. One that is being given back is not looked at: it stands no more.
func (m *Machine) lookedAtClaims() bool {
	known := true
	for _, step := range m.state.Spec.Steps {
		if step.Kind != plan.KindClaim || !m.state.toUndo(step) || m.state.Steps[step.Name].Undoing || m.stands[step.Name] {
			continue
		}
		known = false
		if m.flights[step.Name] == nil {
			f := &flight{doing: Look, then: Undo, began: m.now.Mono, limit: m.now.Mono + step.Timeout, next: m.now.Mono + Patience}
			m.flights[step.Name] = f
			f.id = m.emit(Look, step.Name, 0)
		}
	}
	return known
}

// sawClaim takes note of a look at a claim that is to be given back.
func (m *Machine) sawClaim(name string, f *flight, e Event) {
	switch e.Outcome {
	case Done, NotDone:
		delete(m.flights, name)
		m.stands[name] = true
	case Superseded:
		delete(m.flights, name)
		m.overtake(name, e)
	case Refused:
		m.note(Entry{Kind: Stuck, Step: name, Note: "whether the claim stands cannot be seen: " + e.Note})
	default:
		f.next = m.now.Mono + Breath
	}
}

// overtake drafts that somebody claimed an application after the run. If it is
// the source's again, what the run did is taken back all the same.
func (m *Machine) overtake(name string, e Event) {
	if e.Site == m.state.Spec.From {
		m.note(Entry{Kind: Undone, Step: name, Note: e.Note, Epoch: e.Epoch})
		return
	}
	m.note(Entry{Kind: Overtaken, Step: name, Site: e.Site, Note: e.Note, Epoch: e.Epoch})
}

// undid takes note of an answer to an undo. What is superseded need not be
// taken back: its actuators obey whoever claimed since.
func (m *Machine) undid(name string, f *flight, e Event) {
	switch {
	case e.Outcome == Superseded && m.state.Spec.step(name).Kind == plan.KindClaim:
		m.overtake(name, e)
	case e.Outcome == Done:
		m.note(Entry{Kind: Undone, Step: name, Note: e.Note, Epoch: e.Epoch, Said: e.Said})
	case e.Outcome == Superseded && !m.outlived(name, f):
		m.note(Entry{Kind: Undone, Step: name, Status: Skipped, Note: e.Note, Epoch: e.Epoch, Said: e.Said})
	case e.Outcome == Refused:
		m.note(Entry{Kind: Stuck, Step: name, Note: e.Note, Said: e.Said})
	default:
		f.said = cmp.Or(f.said, e.Note)
		f.next = m.now.Mono + Breath
	}
}

// overtaken takes note that a claim stands no more, and is nobody's to give back.
func (s *State) overtaken(e Entry) {
	step, spec := s.Steps[e.Step], s.Spec.step(e.Step)
	step.Undoing, step.Note = false, e.Note
	if step.Status != Succeeded { // it never stood: whoever was faster has what the run never had
		step.Undid = true
		return
	}
	if s.Overtaken == nil {
		s.Overtaken = map[string]string{}
	}
	s.Overtaken[spec.Application] = e.Note
}

// left tells whether a step stays as it is when the run rolls back, because
// it serves what was claimed anew. To let go of what the source holds at rest
// hurts nobody: the source does not start what it does not hold. What makes an
// application from git there stays suspended, as it would.
func (s *State) left(step plan.Step) bool {
	if letsGo(step) || len(s.Overtaken) == 0 {
		return false
	}
	return slices.ContainsFunc(s.applications(&step), func(app string) bool { _, yes := s.Overtaken[app]; return yes })
}

func letsGo(step plan.Step) bool {
	return step.Kind == plan.KindQuiesce || step.Kind == plan.KindSuspend && step.Side != plan.Source
}

// rolledBack says how a roll-back ended in which nothing is left to do. A run
// whose applications somebody claimed since has not brought them back.
func (s *State) rolledBack() {
	if len(s.Overtaken) == 0 {
		s.Phase = RolledBack
		if stay := s.standing(); len(stay) > 0 {
			s.Why = "left as it is, as another run has claimed since: " + strings.Join(stay, "; ") + ": see to it by hand, unless that run needs it"
		}
		return
	}
	var stay []string
	for _, app := range slices.Sorted(maps.Keys(s.Overtaken)) {
		stay = append(stay, app+": "+s.Overtaken[app])
	}
	s.Phase, s.Why = Failed, "not rolled back, as it was claimed anew since, and stays there: "+strings.Join(stay, "; ")
	if shared := s.sharedLeft(); len(shared) > 0 {
		s.Why += fmt.Sprintf("; %s was left as it is too, and the applications that went back are not there: see to them by hand", strings.Join(shared, ", "))
	}
}

// standing names what people's steps did that was not taken back, as another run had
// claimed: no actuator of Davit's stops that, as it stops workloads of a lower epoch.
func (s *State) standing() []string {
	var stay []string
	for _, step := range s.Spec.Steps {
		ours := step.Kind != plan.KindCommand && step.Kind != plan.KindHTTP && step.Kind != plan.KindInfra && step.Kind != plan.KindSuspend && step.Kind != plan.KindResume
		if st := s.Steps[step.Name]; st.Stands && !ours {
			stay = append(stay, noted(step.Name, st.Note))
		}
	}
	return stay
}

// sharedLeft names the steps that were left although some of their
// applications went back to the source.
func (s *State) sharedLeft() []string {
	var names []string
	for _, step := range s.Spec.Steps {
		if s.Steps[step.Name].Meant && step.Undoable() && !s.Steps[step.Name].Undid && s.left(step) && len(s.applications(&step)) > len(s.Overtaken) {
			names = append(names, step.Name)
		}
	}
	return names
}
