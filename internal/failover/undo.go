package failover

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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
		waits := m.state.claimsStand(&step) || m.state.othersFirst(&step)
		if todo && !waits && !blocked[step.Name] && m.flights[step.Name] == nil {
			e := Entry{Kind: Undoing, Step: step.Name}
			if st := m.state.Steps[step.Name]; st.unmoved() {
				e.Kind, e.Note = Undone, noted("it was not moved", st.Note)
			}
			m.note(e)
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

// othersFirst tells whether a step has to wait for all that turns before it is taken back.
func (s *State) othersFirst(step *plan.Step) bool {
	turn := s.turn(*step)
	return turn > 0 && slices.ContainsFunc(s.Spec.Steps, func(o plan.Step) bool { return s.toUndo(o) && s.turn(o) < turn })
}

// turn is when a step is taken back: a fence after what the run did, as then it can be seen that
// the source runs again; a name that the run did not come to move, as far as it knows, last. No clients are at
// the target by that, and a server which refuses or is silent must not keep the source stopped. It goes
// back under the epochs that went back: what may still move it has older ones.
func (s *State) turn(step plan.Step) int {
	switch {
	case step.Kind == plan.KindFence:
		return 1
	case s.Steps[step.Name].unmoved():
		return 0 // nothing is asked
	case step.Kind == plan.KindDNS && s.Steps[step.Name].Status != Succeeded:
		return 2
	}
	return 0
}

// stuck takes note that a step could not be taken back. A davit of before took names back first.
func (s *State) stuck(e Entry) {
	s.Phase, s.Why = RollbackFailed, e.Step+": "+e.Note
	if step := s.Spec.step(e.Step); s.turn(*step) > 1 && !s.othersFirst(step) {
		s.Why += "; " + cmp.Or(s.down(), "all else is taken back, and runs at site "+s.Spec.From+" again")
	}
}

// touched tells whether the run did anything by which the source may have stopped an
// application.
func (s *State) touched(app string) bool {
	return slices.ContainsFunc([]plan.Kind{plan.KindQuiesce, plan.KindClaim, plan.KindFence}, func(kind plan.Kind) bool {
		st := s.Steps[string(kind)+"/"+app]
		return st != nil && st.Meant
	})
}

// Watches tells whether a roll-back has taken everything back, and only waits until the
// source is seen to run again.
func (s *State) Watches() bool { return s.Phase == RollingBack && len(s.notBack()) == 0 }

// watchNoLonger ends a roll-back that only waits for that, as a person said so.
func (s *State) watchNoLonger(e Entry) {
	for _, step := range s.Spec.Steps {
		if s.toUndo(step) {
			s.undone(Entry{Step: step.Name, Status: Unknown, Note: "not waited for any longer, " + e.Note})
		}
	}
}

// notSeen drafts that nobody saw an application run again at the source. What the run did
// is taken back: that no other run may begin for it would help nobody.
func (m *Machine) notSeen(name, why string) {
	m.note(Entry{Kind: Undone, Step: name, Status: Unknown, Note: why})
}

// returning takes note of what the source says of an application that does not run again
// yet. As long as it says something, the application has the time that the target gives one
// to become ready.
func (m *Machine) returning(name string, f *flight, e Event) {
	if len(e.Asked) > 0 {
		f.said = e.Note
		if ready := m.state.Spec.step(string(plan.KindReady) + "/" + m.state.Spec.step(name).Application); ready != nil {
			f.limit = max(f.limit, f.began+ready.Timeout)
		}
	}
	f.said = cmp.Or(f.said, e.Note)
	f.next = m.now.Mono + Breath
}

// stillFlying asks again what has no answer yet, and is false where time is up.
func (m *Machine) stillFlying() bool {
	for _, name := range m.inFlight() {
		f := m.flights[name]
		switch {
		case f.doing != Undo && f.then != Undo:
			delete(m.flights, name) // of the way there
		case m.now.Mono >= f.limit && m.state.Spec.step(name).Kind == plan.KindFence:
			m.notSeen(name, noted("not seen to run again", f.said))
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
// the source's again, the application is where a roll-back brings it, and the run goes on to
// take back what it did. What obeys the newer epoch alone refuses that, and is left: nobody
// but who claimed knows what of it he needs.
func (m *Machine) overtake(name string, e Event) {
	if e.Site == m.state.Spec.From {
		m.note(Entry{Kind: Undone, Step: name, Status: Skipped, Note: e.Note, Epoch: e.Epoch})
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
	case (e.Outcome == Refused || e.Outcome == Superseded && !m.outlived(name, f)) && m.state.Spec.step(name).Kind == plan.KindFence:
		m.notSeen(name, e.Note)
	case e.Outcome == Superseded && !m.outlived(name, f):
		m.note(Entry{Kind: Undone, Step: name, Status: Skipped, Note: e.Note, Epoch: e.Epoch, Said: e.Said})
	case e.Outcome == Refused:
		m.note(Entry{Kind: Stuck, Step: name, Note: e.Note, Said: e.Said})
	case m.state.Spec.step(name).Kind == plan.KindFence:
		m.returning(name, f, e)
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
	if step.LetsGo() || len(s.Overtaken) == 0 {
		return false
	}
	return slices.ContainsFunc(s.applications(&step), func(app string) bool { _, yes := s.Overtaken[app]; return yes })
}

// remains tells whether a roll-back that is over, or has come so far, left what a step did.
func (s *State) remains(step plan.Step) bool {
	st := s.Steps[step.Name]
	return step.Kind != plan.KindFence && (st.Stands || st.Meant && step.Undoable() && !st.Undid && s.left(step))
}

// rolledBack says how a roll-back ended in which nothing is left to do. A run
// whose applications somebody claimed since has not brought them back.
func (s *State) rolledBack() {
	down := s.down()
	if len(s.Overtaken) == 0 {
		s.Phase, s.Why = RolledBack, sentences(down, s.leftAsItIs(), s.ledByHand())
		return
	}
	var stay []string
	for _, app := range slices.Sorted(maps.Keys(s.Overtaken)) {
		stay = append(stay, app+": "+s.Overtaken[app])
	}
	s.Phase, s.Why = Failed, "not rolled back, as it was claimed anew since, and stays there: "+strings.Join(stay, "; ")
	shared, halves := s.sharedLeft()
	if len(shared) > 0 {
		s.Why += fmt.Sprintf("; %s was left as it is too, and the applications that went back are not there: see to them by hand", strings.Join(shared, ", "))
	}
	for _, half := range halves {
		s.Why += "; " + half.Why
	}
	s.Why = sentences(s.Why, down, s.leftAsItIs(), s.ledByHand())
}

// sentences joins those that say something.
func sentences(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(one string) bool { return one == "" }), "; ")
}

// down names the applications that nobody saw run again at the source, with the reason; empty: none.
func (s *State) down() string {
	var unseen []string
	for _, step := range s.Spec.Steps {
		if why := s.Steps[step.Name].Unseen; why != "" {
			unseen = append(unseen, step.Application+": "+why)
		}
	}
	if len(unseen) == 0 {
		return ""
	}
	return fmt.Sprintf("not all of it was seen to run again at %s: %s: look there (`davit status`)", s.Spec.From, strings.Join(unseen, "; "))
}

// leftAsItIs says what a roll-back refused to take back, as somebody had claimed since;
// empty: nothing.
func (s *State) leftAsItIs() string {
	people, ours := s.standing()
	var all []string
	if len(people) > 0 {
		all = append(all, strings.Join(people, "; ")+": see to it by hand, unless that run needs it")
	}
	if len(ours) > 0 {
		all = append(all, strings.Join(ours, "; ")+": that run decides over what is there of it, and nothing of it runs below its epoch")
	}
	if len(all) == 0 {
		return ""
	}
	return "left as it is, as another run has claimed since: " + strings.Join(all, "; ")
}

// ledByHand says which names were not led back, as people lead them; empty: none.
func (s *State) ledByHand() string {
	var all []string
	for _, step := range s.Spec.Steps {
		if st := s.Steps[step.Name]; st.Led != "" {
			all = append(all, fmt.Sprintf("%s was not led back (%s, %s) and may lead to site %s still", step.Object, step.Name, st.Note, s.Spec.To))
		}
	}
	return sentences(all...)
}

// standing names what was not taken back, as somebody had claimed since: what people's
// steps did, and what Davit's own did, by what refused it. A claim alone is nothing that stands.
func (s *State) standing() (people, ours []string) {
	refused, more := map[string][]string{}, false
	for _, step := range s.Spec.Steps {
		st := s.Steps[step.Name]
		switch {
		case !st.Stands, st.Led != "", step.Kind == plan.KindFence: // of which it was only looked what became
		case step.Kind.OfPeople():
			people = append(people, noted(step.Name, st.Note))
		default:
			refused[st.Note] = append(refused[st.Note], step.Name)
			more = more || step.Kind != plan.KindClaim
		}
	}
	if !more {
		return people, nil
	}
	for _, why := range slices.Sorted(maps.Keys(refused)) {
		ours = append(ours, noted(strings.Join(refused[why], ", "), why))
	}
	return people, ours
}

// sharedLeft names the steps that were left although some of their
// applications went back to the source; halves are those of them that keep git from making
// these there.
func (s *State) sharedLeft() (names []string, halves []Remaining) {
	for _, step := range s.Spec.Steps {
		apps := s.applications(&step)
		if !s.Steps[step.Name].Meant || !step.Undoable() || s.Steps[step.Name].Undid || !s.left(step) || len(apps) <= len(s.Overtaken) {
			continue
		}
		if step.Kind != plan.KindSuspend || step.Side != plan.Source {
			names = append(names, step.Name)
			continue
		}
		back, gone := slices.Clone(apps), slices.Sorted(maps.Keys(s.Overtaken))
		back = slices.DeleteFunc(back, func(app string) bool { return slices.Contains(gone, app) })
		halves = append(halves, Remaining{
			Step: step.Name, Site: s.Spec.From,
			Why: fmt.Sprintf("%s: %s stays suspended at site %s, so that git makes nothing of %s there, which went back, as it would make %s too, which another site holds",
				step.Name, step.Object, s.Spec.From, strings.Join(back, ", "), strings.Join(gone, ", ")),
			Do: fmt.Sprintf("at site %s, take %s out of what %s makes, then resume it: %s", s.Spec.From, strings.Join(gone, ", "), step.Object, plan.Resumption(step.Object)),
		})
	}
	return names, halves
}

// Remaining is what a run that is over left for people to see to.
type Remaining struct {
	Step string `json:"step"`
	Site string `json:"site"` // where it is
	Why  string `json:"why"`
	Do   string `json:"do"`
	// Settled is who has seen to it; nil: nobody, as far as the journal knows.
	Settled *Settlement `json:"settled,omitempty"`
}

// Settlement is that somebody has seen to what a run left.
type Settlement struct {
	By     string    `json:"by"`
	At     time.Time `json:"at"` // by the clock of who wrote it into the journal, for people
	Reason string    `json:"reason"`
}

// settled takes note of it. Nothing else follows: what was left is neither done nor taken back.
func (s *State) settled(e Entry) {
	if s.Settled == nil {
		s.Settled = map[string]Settlement{}
	}
	if _, before := s.Settled[e.Step]; s.Phase.Over() && !before {
		s.Settled[e.Step] = Settlement{By: e.By, At: e.At, Reason: e.Note}
	}
}

// Remaining is what a run that is over left behind and only people can settle: what their
// steps did, and what keeps git still, where somebody has claimed since the run did.
func (s *State) Remaining() []Remaining {
	if !s.Phase.Over() || s.Spec.Verb == plan.Drill {
		return nil
	}
	var all []Remaining
	for _, step := range s.Spec.Steps {
		st := s.Steps[step.Name]
		if st.Led != "" {
			all = append(all, Remaining{Step: step.Name, Site: s.Spec.From, Why: noted(step.Name, st.Note), Do: step.ByHand(s.Spec.From)})
		}
		if !st.Stands || !step.Kind.OfPeople() {
			continue
		}
		site := s.Spec.To
		if step.Side == plan.Source {
			site = s.Spec.From
		}
		do := fmt.Sprintf("at site %s, take back by hand what %s did, unless whoever has claimed since needs it", site, step.Name)
		if step.Kind == plan.KindSuspend {
			do = fmt.Sprintf("once site %s alone holds all that %s makes, or the rest was taken out of it, resume it there: %s", site, step.Object, plan.Resumption(step.Object))
		}
		all = append(all, Remaining{Step: step.Name, Site: site, Why: noted(step.Name, st.Note), Do: do})
	}
	names, halves := s.sharedLeft()
	for _, name := range names {
		if step := s.Spec.step(name); step.Kind.OfPeople() {
			all = append(all, Remaining{Step: name, Site: s.Spec.To, Why: name + " was left as it is", Do: "see by hand to what " + name + " did for the applications that went back to site " + s.Spec.From})
		}
	}
	all = append(all, halves...)
	for i := range all {
		if by, done := s.Settled[all[i].Step]; done {
			all[i].Settled = &by
		}
	}
	return all
}
