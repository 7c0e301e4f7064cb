// Package zone is a name in the DNS that the simulator's runs move: a server that takes
// updates under a condition, and what package traffic decides over it.
package zone

import (
	"errors"
	"fmt"
	"reflect"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/traffic"
)

// Zone is one server, and the name.
type Zone struct {
	// Blind lets it take updates whatever it says by then.
	Blind bool
	// Shut is that it refuses whatever it is asked.
	Shut  bool
	seen  traffic.Seen
	moved failover.Token // by which it was moved last
}

// New is a server at which the name leads somewhere, and has no guard yet.
func New(values ...string) *Zone { return &Zone{seen: traffic.Seen{Values: values}} }

// Read is what the server says.
func (z *Zone) Read() traffic.Seen { return z.seen }

// Change is an update that holds as long as the server says what it said.
type Change struct {
	was    traffic.Seen
	values []string
	guard  traffic.Guard
	token  failover.Token
}

// Draft is the change that follows from what the server says; nil: none, and the verdict
// says why.
func Draft(action failover.Action, m traffic.Move, seen traffic.Seen) (*Change, traffic.Verdict) {
	c := &Change{was: seen, token: m.Token}
	var verdict traffic.Verdict
	switch action {
	case failover.Undo:
		verdict, _ = m.Return(seen)
		c.values, c.guard = m.Back(seen)
	case failover.Look:
		verdict, _ = m.Look(seen)
		c.values, c.guard = seen.Values, m.Sealed(seen)
	default:
		verdict, _ = m.Judge(seen)
		c.values, c.guard = m.To, m.After(seen)
	}
	if verdict != traffic.Moves {
		c = nil
	}
	return c, verdict
}

// errRefused is the server's, of a change whose condition does not hold.
var errRefused = errors.New("somebody was there before")

// Swap makes the change. harm says what must never be: that an order undid what one did
// that came after it.
func (z *Zone) Swap(c *Change) (harm, err error) {
	if z.Shut || !z.Blind && !reflect.DeepEqual(z.seen, c.was) {
		return nil, errRefused
	}
	if !reflect.DeepEqual(z.seen.Values, c.values) {
		for app, n := range z.moved.Epochs {
			if own, of := c.token.Epochs[app]; of && own < n {
				harm = fmt.Errorf("an order of epoch %d of %s moves a name that was moved under epoch %d", own, app, n)
			}
		}
		if z.moved.Run == c.token.Run && z.moved.Sequence > c.token.Sequence {
			harm = fmt.Errorf("order %d of %s moves a name after order %d", c.token.Sequence, c.token.Run, z.moved.Sequence)
		}
		z.moved = c.token
	}
	guard := c.guard
	z.seen = traffic.Seen{Values: c.values, Guard: &guard}
	return harm, nil
}
