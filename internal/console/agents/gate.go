package agents

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A handshake takes half a millisecond of a core, and thousands come at once when a
// console was away. Each that runs beside the others makes all later, the renewal of
// the console's lease and the answers to people too, until agents give up whose
// handshakes are half done. So few run abreast, and the others wait in a row.
const (
	// abreast is how many agents shake hands at once.
	abreast = 32
	// turnLimit is how long one waits for its turn, before it is told to come again: an
	// agent waits for twice as long, so nothing is done for one that is gone.
	turnLimit = 5 * time.Second
	// heldLimit is how long a handshake keeps others waiting. One that takes longer
	// waits for its agent, or for nobody, and not for a core.
	heldLimit = time.Second
)

// errCrowded tells an agent to come again.
var errCrowded = errors.New("too many agents call at once")

// gate lets agents in by the order in which they came, some at a time.
type gate struct {
	places     chan struct{}
	turn, held time.Duration
}

func newGate(abreast int) *gate {
	return &gate{places: make(chan struct{}, abreast), turn: turnLimit, held: heldLimit}
}

// pass returns when it is the turn of a handshake, whose context this is. It has its
// place until it ends.
func (g *gate) pass(ctx context.Context) error {
	select {
	case g.places <- struct{}{}: // without a timer, where nobody waits
	default:
		late := time.NewTimer(g.turn)
		defer late.Stop()
		select {
		case g.places <- struct{}{}:
		case <-late.C:
			return errCrowded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	leave := sync.OnceFunc(func() { <-g.places })
	long := time.AfterFunc(g.held, leave)
	context.AfterFunc(ctx, func() {
		long.Stop()
		leave()
	})
	return nil
}
