// Package dialtest has what tests need to run agents without a cluster. Only tests
// import it.
package dialtest

import (
	"context"
	"sync"

	"davit.dev/davit/internal/uplink/dial"
)

// Keeper keeps an agent's link in memory, as a cluster's Secret does.
type Keeper struct {
	mu   sync.Mutex
	link dial.Link
}

// Keep is a Keeper that has a link.
func Keep(l dial.Link) *Keeper { return &Keeper{link: l} }

// Load implements dial.Keeper.
func (k *Keeper) Load(context.Context) (dial.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.link, nil
}

// Save implements dial.Keeper.
func (k *Keeper) Save(_ context.Context, l dial.Link) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.link = l
	return nil
}
