package barrier

import (
	"fmt"
	"time"
)

// State is what a Holder reports.
type State string

// The states of a Holder, in their order.
const (
	StateNone   State = ""
	StateArmed  State = "Armed"
	StateFrozen State = "Frozen"
	StateEnded  State = "Ended"
)

// Signal says what an event of a Holder is.
type Signal int

// The events of a Holder.
const (
	Ready       Signal = iota // everything is open and guarded
	Refused                   // it cannot be done; Why says it
	OrderFreeze               // the coordinator says freeze
	OrderThaw                 // the coordinator says thaw
	Abandoned                 // the order was removed
	Froze                     // Volume is frozen now, or is not because of Why
	Thawed                    // Volume is thawed now; Still says whether it had been frozen until then
	GuardLost                 // the watchdog is gone: nobody would thaw after us
	Stopping                  // this process ends
	Clock                     // time has passed
)

// Word is something a Holder is told.
type Word struct {
	Signal Signal
	Volume int
	Still  bool
	Why    string
}

// Deed says what a Holder wants done.
type Deed int

// The effects of a Holder.
const (
	FreezeVolume Deed = iota // freeze Volume; answered by Froze, however late
	ThawVolume               // thaw Volume; answered by Thawed
	Report                   // tell the coordinator State, and the rest of Said
)

// Task is something a Holder wants done.
type Task struct {
	Deed   Deed
	Volume int
}

// Said is what a Holder tells its coordinator.
type Said struct {
	State State
	Held  bool
	Why   string
	// Took is the time from before the first freeze until after the last thaw.
	Took time.Duration
}

// at is what a Holder knows of one file system.
type at int

const (
	running  at = iota
	asked       // to freeze, no answer yet: the kernel cannot be interrupted
	still       // frozen
	thawingV    // asked to thaw
	done        // thawed, or never frozen
)

// Holder is the machine of one node in one capture.
type Holder struct {
	window, patience time.Duration
	volumes          []at
	state            State
	begun            time.Time // of the first freeze
	deadline         time.Time
	ordered          bool // the coordinator ordered the thaw
	releasing        bool
	why              string
	took             time.Duration
}

// NewHolder makes the machine for so many file systems. window bounds the
// freeze, patience the wait for the order to freeze.
func NewHolder(volumes int, window, patience time.Duration, now time.Time) *Holder {
	return &Holder{window: window, patience: patience, volumes: make([]at, volumes), deadline: now.Add(patience)}
}

// Deadline is when the Holder wants a Clock; zero when it has ended.
func (h *Holder) Deadline() time.Time {
	if h.state == StateEnded || h.releasing {
		return time.Time{}
	}
	return h.deadline
}

// Said is what the coordinator may be told now.
func (h *Holder) Said() Said {
	s := Said{State: h.state, Why: h.why, Took: h.took}
	s.Held = h.state == StateEnded && h.ordered && h.why == ""
	return s
}

// Step takes a word and returns what to do, in order.
func (h *Holder) Step(now time.Time, w Word) []Task {
	switch w.Signal {
	case Froze:
		return h.froze(now, w)
	case Thawed:
		return h.thawed(now, w)
	}
	if h.state == StateEnded {
		return nil
	}
	switch w.Signal {
	case Ready:
		if h.state != StateNone || h.releasing {
			return nil
		}
		h.state = StateArmed
		return []Task{{Deed: Report}}
	case OrderFreeze:
		return h.freeze(now)
	case OrderThaw:
		if h.releasing {
			return nil // told again, or too late
		}
		if h.ordered = h.state == StateFrozen; !h.ordered {
			h.fail("was told to thaw before everything was frozen")
		}
		return h.release(now)
	case Refused:
		h.fail(w.Why)
	case Abandoned:
		h.fail("its order was removed")
	case GuardLost:
		h.fail("its watchdog died")
	case Stopping:
		h.fail("its process was stopped")
	case Clock:
		if d := h.Deadline(); d.IsZero() || now.Before(d) {
			return nil
		}
		h.fail(h.late())
	}
	return h.release(now)
}

func (h *Holder) late() string {
	if h.begun.IsZero() {
		return fmt.Sprintf("no order to freeze came within %s", h.patience)
	}
	return fmt.Sprintf("no order to thaw came within the window of %s", h.window)
}

// fail notes the first reason why it did not hold. After an orderly thaw
// nothing but the kernel's answer can take the proof away.
func (h *Holder) fail(why string) {
	if h.why == "" && !h.ordered {
		h.why = why
	}
}

// freeze starts the window before the first freeze is asked for.
func (h *Holder) freeze(now time.Time) []Task {
	if h.state != StateArmed || h.releasing || !h.begun.IsZero() {
		return nil
	}
	h.begun, h.deadline = now, now.Add(h.window)
	var tasks []Task
	for i := range h.volumes {
		h.volumes[i] = asked
		tasks = append(tasks, Task{FreezeVolume, i})
	}
	return tasks
}

// froze takes the kernel's answer. One that comes after the release is undone
// at once.
func (h *Holder) froze(now time.Time, w Word) []Task {
	if h.volumes[w.Volume] != asked {
		return nil
	}
	if w.Why != "" {
		h.volumes[w.Volume] = done
		h.fail(w.Why)
		return h.release(now)
	}
	if h.releasing {
		h.volumes[w.Volume] = thawingV
		return []Task{{ThawVolume, w.Volume}}
	}
	h.volumes[w.Volume] = still
	for _, v := range h.volumes {
		if v != still {
			return nil
		}
	}
	h.state = StateFrozen
	return []Task{{Deed: Report}}
}

// release thaws what is frozen. What is still being frozen follows when the
// kernel has answered.
func (h *Holder) release(now time.Time) []Task {
	h.releasing = true
	var tasks []Task
	for i, v := range h.volumes {
		switch v {
		case running:
			h.volumes[i] = done
		case still:
			h.volumes[i] = thawingV
			tasks = append(tasks, Task{ThawVolume, i})
		}
	}
	return append(tasks, h.end(now)...)
}

func (h *Holder) thawed(now time.Time, w Word) []Task {
	if h.volumes[w.Volume] != thawingV {
		return nil
	}
	h.volumes[w.Volume] = done
	if !w.Still && h.why == "" {
		h.why = "somebody else thawed a file system while it was to be held"
		if w.Why != "" {
			h.why = w.Why
		}
	}
	return h.end(now)
}

// end reports once nothing is frozen or being frozen any more.
func (h *Holder) end(now time.Time) []Task {
	if h.state == StateEnded {
		return nil
	}
	for _, v := range h.volumes {
		if v != done {
			return nil
		}
	}
	h.state = StateEnded
	if !h.begun.IsZero() {
		h.took = now.Sub(h.begun)
	}
	return []Task{{Deed: Report}}
}
