package failover

// rollBack takes back what was begun, each step after all that came after it.
// Every step that was ever intended is taken back, also where a look says that
// it is not there: the act may still be under way, and its actuator refuses it
// once it has seen the later order.
func (m *Machine) rollBack() {
	for _, name := range m.inFlight() {
		f := m.flights[name]
		switch {
		case f.doing != Undo:
			delete(m.flights, name) // of the way there
		case m.now.Mono >= f.next && m.now.Mono < f.limit:
			f.id, f.next = m.emit(Undo, name, f.id), m.now.Mono+Patience
		case m.now.Mono >= f.limit:
			m.note(Entry{Kind: Stuck, Step: name, Note: "no answer: see to it that the site can be reached, then resume"})
			return
		}
	}
	blocked := map[string]bool{} // something that came after is still there
	for i := len(m.state.Spec.Steps) - 1; i >= 0; i-- {
		step := m.state.Spec.Steps[i]
		todo := m.state.toUndo(step)
		if todo && !blocked[step.Name] && m.flights[step.Name] == nil {
			m.note(Entry{Kind: Undoing, Step: step.Name})
		}
		for _, after := range step.After {
			blocked[after] = blocked[after] || todo || blocked[step.Name]
		}
	}
}

// undid takes note of an answer to an undo. What is superseded need not be
// taken back: its actuators obey another site.
func (m *Machine) undid(name string, f *flight, e Event) {
	switch e.Outcome {
	case Done, Superseded:
		m.note(Entry{Kind: Undone, Step: name, Note: e.Note, Epoch: e.Epoch})
	case Refused:
		m.note(Entry{Kind: Stuck, Step: name, Note: e.Note})
	default:
		f.next = m.now.Mono + Breath
	}
}
