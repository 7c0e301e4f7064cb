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
		case bringsData(step):
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
		if bringsData(m.state.Spec.step(name)) {
			free--
		}
	}
	due := m.awaited()
	slices.SortStableFunc(data, func(a, b *plan.Step) int { return cmp.Compare(due[a.Name], due[b.Name]) })
	for _, step := range data[:min(max(free, 0), len(data))] {
		m.start(step)
	}
}

func bringsData(step *plan.Step) bool {
	return step.Kind == plan.KindRestore || step.Kind == plan.KindClone || step.Kind == plan.KindCatchUp
}

// awaited has for each step the place of the first one that waits for it. Steps
// are in the order of their waves.
func (m *Machine) awaited() map[string]int {
	if m.due == nil {
		m.due = map[string]int{}
		for i, step := range m.state.Spec.Steps {
			for _, name := range step.After {
				if _, known := m.due[name]; !known {
					m.due[name] = i
				}
			}
		}
	}
	return m.due
}
