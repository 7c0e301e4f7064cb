package failover

import (
	"cmp"
	"slices"

	"davit.dev/davit/internal/plan"
)

// Abreast is how many steps of a run bring data at once. Each is a restore of its
// own, and what they do to the target's API server and storage, what starts there
// already has to bear.
const Abreast = 8

// startReady starts the steps that may begin, but for data only so many at once:
// first that which is waited for first.
func (m *Machine) startReady() {
	var data []*plan.Step
	for i := range m.state.Spec.Steps {
		step := &m.state.Spec.Steps[i]
		switch {
		case m.flights[step.Name] != nil || !m.ready(step):
		case step.Kind.BringsData():
			data = append(data, step)
		default:
			m.start(step)
		}
	}
	if len(data) == 0 {
		return
	}
	free := Abreast
	for name := range m.flights {
		if m.state.Spec.step(name).Kind.BringsData() {
			free--
		}
	}
	if m.due == nil {
		m.due = plan.Awaited(m.state.Spec.Steps)
	}
	slices.SortStableFunc(data, func(a, b *plan.Step) int { return cmp.Compare(m.due[a.Name], m.due[b.Name]) })
	for _, step := range data[:min(max(free, 0), len(data))] {
		m.start(step)
	}
}
