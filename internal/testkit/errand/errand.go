// Package errand is what all can see before it begins, in the simulator: a command's Job, or
// the task that fills a volume. It is made, and begins by a change of its own, which is
// refused if anybody changed it meanwhile.
package errand

// Errand is one.
type Errand struct {
	Number           int64 // of its order, which is its name
	Undo             bool
	Begun, Withdrawn bool
	Version          int
	Over, Broke      bool
}

// Open tells whether it is under way.
func (e *Errand) Open() bool { return e.Begun && !e.Over }

// Begin begins it, if nobody changed it since that version.
func (e *Errand) Begin(version int) bool {
	if e.Version != version || e.Begun {
		return false
	}
	e.Begun = true
	e.Version++
	return true
}

// Withdraw sees to it that what has not begun never does.
func (e *Errand) Withdraw() {
	if !e.Begun && !e.Withdrawn {
		e.Withdrawn = true
		e.Version++
	}
}
