// Package pool is what the simulator's runs call over HTTP: a server outside of all sites, that heeds
// what calls say of themselves, or does not.
package pool

import (
	"fmt"
	"time"

	"davit.dev/davit/internal/failover"
)

// Pool is one server.
type Pool struct {
	// Heeds says that it refuses calls that come after newer ones; Blind, that it does not all the same.
	Heeds, Blind bool
	newest       failover.Token // of the calls that it obeyed
	at           time.Duration  // when it obeyed that
}

// Call obeys a call, or refuses it. looked is when its sender looked last whether its order was still the newest. late
// says that it came after a newer one and nothing refused it, as nothing can where a sender stands still after his
// look and the server heeds nothing. harm says what must never be.
func (p *Pool) Call(now, looked time.Duration, token failover.Token) (obeyed, late bool, harm error) {
	late = token.Run == p.newest.Run && token.Sequence < p.newest.Sequence
	for app, n := range p.newest.Epochs {
		if own, of := token.Epochs[app]; of && own != n {
			late = own < n
			break
		}
	}
	switch {
	case late && p.Heeds && !p.Blind:
		return false, true, nil
	case late && p.Heeds:
		harm = fmt.Errorf("call %d of %s is obeyed after call %d of %s", token.Sequence, token.Run, p.newest.Sequence, p.newest.Run)
	case late && looked > p.at:
		harm = fmt.Errorf("call %d of %s was sent long after call %d of %s", token.Sequence, token.Run, p.newest.Sequence, p.newest.Run)
	case !late:
		p.newest, p.at = token, now
	}
	return true, late, harm
}
