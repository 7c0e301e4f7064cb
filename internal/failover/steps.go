package failover

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/internal/plan"
)

// run starts steps, and pauses when only people can help.
func (m *Machine) run() {
	s := m.state
	if s.Phase == Running || s.Phase == OutcomeUnknown {
		m.startReady()
	}
	m.timeOut()
	if len(m.draft) == 0 {
		m.needInput()
	}
}

// ready tells whether a step may begin.
func (m *Machine) ready(step *plan.Step) bool {
	s := m.state
	st := s.Steps[step.Name]
	if st.Status == Unknown && step.OnError != plan.Continue || m.unproven(step) {
		return true // to be looked at
	}
	if st.ended() || s.Phase == OutcomeUnknown && st.Status != Doing {
		return false
	}
	if s.Fault != "" && (step.Kind != plan.KindCleanup || m.busy(step.Name)) {
		return false
	}
	for _, after := range step.After {
		if s.Fault == "" && !s.passed(after) {
			return false
		}
	}
	if s.Fault == "" && st.Status != Doing && s.failed() != "" { // last, as it looks at every step
		return false
	}
	return !step.Activates() || m.mayActivate(step)
}

// unproven tells whether a fence step has ended and its proof is still wanted:
// a source that comes back may give it.
func (m *Machine) unproven(step *plan.Step) bool {
	st := m.state.Steps[step.Name]
	return step.Kind == plan.KindFence && st.ended() && st.Status != Succeeded && step.OnError == plan.Continue && !m.state.meets(step.Application)
}

// busy tells whether something else than a step is being done. Of what only waits for a
// person nothing is.
func (m *Machine) busy(but string) bool {
	for name, f := range m.flights {
		if name != but && (f.doing != "" || !m.state.Spec.step(name).Asks()) {
			return true
		}
	}
	return false
}

// passed tells whether what waits for a step may begin.
func (s *State) passed(name string) bool {
	switch s.Steps[name].Status {
	case Succeeded, Skipped:
		return true
	case Broke, Unknown:
		return s.Spec.step(name).OnError == plan.Continue
	}
	return false
}

// mayActivate tells whether the fence rule holds for all that the step is about.
func (m *Machine) mayActivate(step *plan.Step) bool {
	for _, app := range m.state.applications(step) {
		if !m.state.meets(app) {
			return false
		}
	}
	return true
}

// start looks first, always: the step may have been done by whoever carried
// the run before. Only what a person does is not looked at.
func (m *Machine) start(step *plan.Step) {
	f := &flight{then: Act, began: m.now.Mono, limit: m.now.Mono + step.Timeout}
	if m.state.Steps[step.Name].ended() {
		f.then, f.limit, f.watch = "", 0, m.unproven(step)
	}
	m.flights[step.Name] = f
	if step.Asks() {
		f.doing, f.limit = "", 0
		return
	}
	m.look(step.Name)
}

// look asks, or asks again under the same number: as long as nothing is done in
// between, an answer to any of the questions will do.
func (m *Machine) look(name string) {
	f := m.flights[name]
	if f.doing != Look {
		f.id = 0
	}
	f.doing, f.next = Look, m.now.Mono+Patience
	if f.watch || f.then == "" {
		f.next = m.now.Mono + LookAgain
	}
	f.id = m.emit(Look, name, f.id)
}

// send carries out what the journal holds the intention of.
func (m *Machine) send(name string, a Action) {
	f := m.flights[name]
	if f == nil {
		f = &flight{then: a, began: m.now.Mono, limit: m.now.Mono + m.patience(name, a)}
		m.flights[name] = f
	}
	f.doing, f.next, f.said = a, f.limit, ""
	if a == Undo {
		f.next = m.now.Mono + Patience
	}
	f.id = m.emit(a, name, 0)
}

// patience is how long an order may take. What takes a command back may have to wait first
// for the command, which the site ends when its time is over; and a source that lets go of what
// it holds, for nodes that have not heard of that, however soon the plan wants it at rest.
func (m *Machine) patience(name string, a Action) time.Duration {
	step, st := m.state.Spec.step(name), m.state.Steps[name]
	if a == Undo && step.Kind == plan.KindQuiesce {
		return max(step.Timeout, LettingGo)
	}
	if a == Undo && (step.Kind == plan.KindCommand || step.Kind == plan.KindInfra) && (st.Status == Doing || st.Status == Unknown) {
		return 2*step.Timeout + Grace
	}
	return step.Timeout
}

// emit puts out an effect about a step, under a number or, if it is 0, a new one.
func (m *Machine) emit(a Action, name string, id int64) int64 {
	again := id != 0
	if !again {
		m.ids++
		id = m.ids
	}
	step := m.state.Spec.step(name)
	token := Token{Run: m.state.Spec.Run, Sequence: m.state.Steps[name].Sequence, Epochs: map[string]int64{}}
	for _, app := range m.state.applications(step) {
		token.Epochs[app] = m.state.Epochs[app]
		if step.Kind == plan.KindClaim && a != Undo {
			token.Epochs[app] = m.state.Facts.Epochs[app].Number + 1
		}
	}
	if f := m.flights[name]; f != nil && !again {
		f.epochs = token.Epochs
	}
	m.out = append(m.out, Effect{Action: a, ID: id, Step: step, Token: token, Sandbox: m.sandbox(), Sites: m.sites(a, step), Point: m.point(step)})
	return id
}

// outlived tells whether what superseded an order may be the run's own claim: an early
// step runs beside the claims, and goes out with the epochs from before. Whose the newest
// epoch is, an order tells that goes out with what the claim brought. One that was given back
// brings no more, nor does one that somebody else was faster with.
func (m *Machine) outlived(name string, f *flight) bool {
	if m.state.Spec.step(name).Kind == plan.KindClaim {
		return false
	}
	return m.brought(f.epochs) || m.claiming(f.epochs)
}

// tooSoon tells whether an order would go out with the very epochs that the run's own claim
// superseded, while that claim is still under way: each would be one more entry of the
// journal, and be refused like the one before.
func (m *Machine) tooSoon(name string, f *flight) bool {
	return f.outlived != nil && m.state.Spec.step(name).Kind != plan.KindClaim && !m.brought(f.outlived) && m.claiming(f.outlived)
}

// brought tells whether the run knows a newer epoch than an order went out with.
func (m *Machine) brought(sent map[string]int64) bool {
	for app, epoch := range sent {
		if m.state.Epochs[app] > epoch {
			return true
		}
	}
	return false
}

// claiming tells whether a claim of the run may yet bring a newer epoch of one of an
// order's applications.
func (m *Machine) claiming(sent map[string]int64) bool {
	for app := range sent {
		claim := m.state.Steps[string(plan.KindClaim)+"/"+app]
		if claim != nil && !claim.Undid && (claim.Undoing || claim.Meant && claim.Status != Succeeded && claim.Status != Broke) {
			return true
		}
	}
	return false
}

// point is what a data step must bring: the point that was chosen or, in a
// planned move, the one that the source's last write is in. Not the newest: an
// earlier capture may become visible late.
func (m *Machine) point(step *plan.Step) *Point {
	if step.Kind != plan.KindRestore && step.Kind != plan.KindClone {
		return nil
	}
	if p, chosen := m.state.Spec.Points[step.Application]; chosen {
		return &p
	}
	if sync := m.state.Steps[string(plan.KindSync)+"/"+step.Application]; sync != nil && sync.Status == Succeeded {
		return sync.Point
	}
	return nil
}

// sites are where a step acts.
func (m *Machine) sites(a Action, step *plan.Step) []string {
	switch {
	case step.Kind == plan.KindFence && a != Undo:
		return slices.DeleteFunc(slices.Clone(m.state.Facts.Holders[step.Application]), func(site string) bool {
			return m.state.neverAnswers(step.Application, site)
		})
	case step.Side == plan.Source:
		return []string{m.state.Spec.From}
	}
	return []string{m.state.Spec.To}
}

// neverAnswers tells of a former holder that to ask it would only take the fence's time:
// whom a word is about for good, and nobody, once a person said that no such site is
// left. A cluster that bears that name is asked. While a planned move asks, nothing runs
// anywhere: it asks nobody of whom a person said that he is lost.
func (s *State) neverAnswers(app, site string) bool {
	said := s.Consents[site] != "" && (site == Nobody || s.Spec.planned())
	return s.Facts.Words[app][site] != "" || said && s.Facts.Shared[app] != site
}

// answered finds the flight that an event answers.
func (m *Machine) answered(e Event) (string, *flight) {
	name := m.flightOf(e.ID)
	f := m.flights[name]
	if f != nil {
		f.id = 0
	}
	return name, f
}

func (m *Machine) looked(e Event) {
	name, f := m.answered(e)
	if f == nil || f.doing != Look {
		return
	}
	if f.then == Undo {
		m.sawClaim(name, f, e)
		return
	}
	st := m.state.Steps[name]
	late := f.limit != 0 && m.now.Mono >= f.limit
	switch {
	case e.Outcome == Done:
		note := e.Note
		if !st.Meant {
			note = "was done already"
		}
		m.end(name, Succeeded, note, e)
	case f.watch:
		f.next = m.now.Mono + LookAgain
	case e.Outcome == NotDone && f.then == "":
		m.end(name, Broke, noted("a look says that it was not done", e.Note), e)
	case e.Outcome == NotDone && late && m.outlasts(name): // see concludes
		f.next, f.said = m.now.Mono+Breath, e.Note
	case e.Outcome == NotDone && late:
		m.end(name, Broke, noted(fmt.Sprintf("not done within %s", m.state.Spec.step(name).Timeout), e.Note), e)
	case e.Outcome == NotDone && f.then == Act && m.tooSoon(name, f):
		f.next = m.now.Mono + Breath
	case e.Outcome == NotDone && f.then == Act:
		m.intend(name)
	case e.Outcome == Superseded && !m.outlived(name, f):
		m.end(name, Broke, "superseded: "+e.Note, e)
	case e.Outcome == Refused:
		m.lookRefused(name, f, e)
	default:
		f.next = m.now.Mono + Breath
		m.goesOn(name, f, e)
	}
}

// outOfTime is why the outcome of a step is unknown.
const outOfTime = "no answer, and its time is up"

// goesOn takes note of why a step does not come to an end. What only people can end
// stands in the journal, once, for those who wait; so does that it goes on by itself
// again.
func (m *Machine) goesOn(name string, f *flight, e Event) {
	st := m.state.Steps[name]
	if e.Outcome == Busy || f.said == "" || !m.stuck[name] {
		f.said = e.Note
	}
	if e.Outcome != Busy || st.Status != Doing && st.Status != Unknown {
		return
	}
	want := ""
	if e.Stuck {
		want = e.Note
	}
	if st.Status == Unknown {
		want = noted(outOfTime, want)
	}
	if st.Note == want || !e.Stuck && st.Status == Unknown && !m.stuck[name] {
		return
	}
	m.stuck[name] = e.Stuck
	m.note(Entry{Kind: Ended, Step: name, Status: st.Status, Note: want, Took: st.Took})
}

// noted adds what the site says of it.
func noted(what, note string) string {
	if note == "" {
		return what
	}
	return what + ": " + note
}

// lookRefused takes note that whoever was asked will not say, whatever the wait: a
// right is missing, or the order makes no sense there. What was never intended was not done. Of what
// was, nobody knows, which is no reason to go on; but the source of a planned move says why its fence does not count.
func (m *Machine) lookRefused(name string, f *flight, e Event) {
	switch {
	case f.then == "": // it has ended, and is looked at only to know
		f.next = m.now.Mono + LookAgain
	case m.state.Steps[name].Meant && (!m.state.Spec.planned() || m.state.Spec.step(name).Kind != plan.KindFence):
		m.end(name, Unknown, "whether it was done cannot be seen: "+e.Note, e)
	default:
		m.end(name, Broke, e.Note, e)
	}
}

// intend drafts the intention, unless the run is not to begin anything now.
func (m *Machine) intend(name string) {
	step := m.state.Spec.step(name)
	held := m.state.Pause != nil && m.state.Pause.Kind != ForInput
	if held || m.state.Phase != Running && m.state.Phase != OutcomeUnknown || step.Activates() && !m.mayActivate(step) {
		delete(m.flights, name) // it begins anew when the run goes on
		return
	}
	m.note(Entry{Kind: Intended, Step: name})
}

func (m *Machine) acted(e Event) {
	name, f := m.answered(e)
	if f == nil {
		return
	}
	switch {
	case f.doing == Undo:
		m.undid(name, f, e)
	case f.doing != Act:
	case e.Outcome == Done:
		m.end(name, Succeeded, e.Note, e)
	case e.Outcome == Refused:
		m.refused(name, e)
	case e.Outcome == Superseded && !m.outlived(name, f):
		m.end(name, Broke, "superseded: "+e.Note, e)
	default: // unknown: look, never guess, and not at once
		f.outlived = nil
		if e.Outcome == Superseded {
			f.outlived = f.epochs
		}
		f.doing, f.id, f.next, f.said = Look, 0, m.now.Mono+m.breath(name), e.Note
	}
}

// refused ends a step that was not done, and will not be. A name that was refused whenever it was tried has let no
// clients in: as after any error before that, a planned move goes back by itself. The journal says so, as a davit of
// before waits there for a person.
func (m *Machine) refused(name string, e Event) {
	st, then := m.state.Steps[name], m.state.Clone()
	m.end(name, Broke, e.Note, e)
	end := &m.draft[len(m.draft)-1]
	end.Untouched = m.state.Spec.step(name).Kind == plan.KindDNS && (st.Attempts == 1 || st.Untouched)
	if then.ended(*end); end.Untouched && then.Phase == RollingBack {
		m.note(Entry{Kind: Rolling, Note: name + ": " + e.Note})
	}
}

// breath is how long it is waited after a try of a step that came to nothing: at first little, as
// what is in its way is mostly over soon, and longer after some tries. Each is an entry of the journal,
// and a step may have hours.
func (m *Machine) breath(name string) time.Duration {
	const quick = 5
	return min(max(time.Duration(m.state.Steps[name].Attempts-quick), 1)*Breath, LookAgain)
}

// end drafts how a step ended.
func (m *Machine) end(name string, status Status, note string, e Event) {
	var took time.Duration
	if f := m.flights[name]; f != nil {
		took = m.now.Mono - f.began
	}
	m.note(Entry{Kind: Ended, Step: name, Status: status, Note: note, Took: took, Point: e.Point, Moved: e.Moved, Epoch: e.Epoch, Said: e.Said})
}

// timeOut looks again where no answer came, and gives up where time is up.
func (m *Machine) timeOut() {
	for _, name := range m.inFlight() {
		f := m.flights[name]
		st := m.state.Steps[name]
		status, why := m.concludes(name, f)
		switch {
		case status != "":
			m.end(name, status, why, Event{})
		case f.doing == Act && m.now.Mono >= f.limit:
			m.look(name)
		case f.doing != Look || m.now.Mono < f.next:
		case f.then == "" || m.now.Mono < f.limit || st.Meant && m.now.Mono < f.limit+Grace || m.outlasts(name):
			m.look(name)
		case st.Meant:
			m.end(name, Unknown, noted(outOfTime, f.said), Event{})
		default:
			m.end(name, Broke, noted(outOfTime, f.said), Event{})
		}
	}
}

func (m *Machine) inFlight() []string { return slices.Sorted(maps.Keys(m.flights)) }

// ongoing keeps watch over what goes on while no step may begin, and over the
// journal's deadlines.
func (m *Machine) ongoing() {
	if len(m.draft) > 0 {
		return
	}
	switch m.state.Phase {
	case Running, OutcomeUnknown:
		if m.state.Pause != nil && m.state.Pause.Kind != ForInput {
			m.lookAtUnknown()
			m.timeOut()
		}
		m.leases()
	}
}

// lookAtUnknown goes on looking while a run is paused: to know changes nothing.
func (m *Machine) lookAtUnknown() {
	for i := range m.state.Spec.Steps {
		step := &m.state.Spec.Steps[i]
		if m.state.Steps[step.Name].Status == Unknown && step.OnError != plan.Continue && m.flights[step.Name] == nil {
			m.start(step)
		}
	}
}

// asks is what a step asks of people.
func (s *State) asks(name string) string {
	step := s.Spec.step(name)
	if step.Kind != plan.KindApproval {
		return step.Prompt
	}
	return fmt.Sprintf("%s (it takes %s)", step.Prompt, s.question(step).Lacks())
}

// needInput pauses when only a person can bring the run on.
func (m *Machine) needInput() {
	s := m.state
	if s.Pause != nil || s.Phase != Running {
		return
	}
	var why string
	for name, f := range m.flights {
		if f.watch {
			continue
		}
		if !s.Spec.step(name).Asks() {
			return // something goes on
		}
		if f.doing == "" && (why == "" || name < why) {
			why = name
		}
	}
	if why != "" {
		m.note(Entry{Kind: PausedBy, Pause: ForInput, Note: why + ": " + s.asks(why)})
		return
	}
	if name := s.failed(); name != "" && s.Fault == "" {
		m.note(Entry{Kind: PausedBy, Pause: ByFailure, Note: name + ": " + s.Steps[name].Note})
		return
	}
	if unfenced := m.hopeless(); unfenced != "" {
		m.note(Entry{Kind: PausedBy, Pause: ForInput, Note: unfenced})
	}
}
