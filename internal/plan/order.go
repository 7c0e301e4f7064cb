package plan

import "fmt"

// CheckOrder says what keeps a run from carrying steps out in the order in which they stand, each after
// all that it waits for, and by their names.
func CheckOrder(steps []Step) error {
	known := map[string]bool{}
	for _, step := range steps {
		for _, after := range step.After {
			if !known[after] {
				return fmt.Errorf("step %s comes before %s, for which it waits", step.Name, after)
			}
		}
		if step.Timeout <= 0 || known[step.Name] {
			return fmt.Errorf("step %q has no timeout, or is there twice", step.Name)
		}
		known[step.Name] = true
	}
	return nil
}

// Awaited has for each step the place of the first one that waits for it. Steps are in the order of
// their waves.
func Awaited(steps []Step) map[string]int {
	first := map[string]int{}
	for i, step := range steps {
		for _, name := range step.After {
			if _, known := first[name]; !known {
				first[name] = i
			}
		}
	}
	return first
}

// Entrances are those of a run's steps that let clients in: what moves traffic and, of an application
// that has none, what starts it.
func Entrances(steps []Step) (all []Step) {
	led := map[string]bool{}
	for _, s := range steps {
		if s.Kind == KindDNS || s.Kind == KindGate {
			led[s.Application] = true
		}
	}
	for _, s := range steps {
		if s.Kind == KindDNS || s.Kind == KindGate || s.Kind == KindScale && !led[s.Application] && !led[""] {
			all = append(all, s)
		}
	}
	return all
}
