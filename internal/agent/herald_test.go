package agent

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
)

// TestAbreast: a vault that does not answer keeps nobody from the others, however many there
// are; and nobody looks at one that is being looked at.
func TestAbreast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &herald{said: map[string]*heard{}, hands: make(chan struct{}, heraldAbreast)}
		answers := make(chan struct{})
		var mu sync.Mutex
		looked := map[string]int{}
		look := func(name string, wait bool) {
			h.beside(t.Context(), name, func(context.Context, *heard) {
				mu.Lock()
				looked[name]++
				mu.Unlock()
				if wait {
					<-answers
				}
			})
		}
		const others = 3 * heraldAbreast
		for range 2 { // ticks
			look("silent", true)
			for i := range others {
				look(fmt.Sprint("vault-", i), false)
			}
			synctest.Wait()
		}
		if looked["silent"] != 1 {
			t.Errorf("the silent vault was begun %d times, want once: it has not answered", looked["silent"])
		}
		for i := range others {
			if n := looked[fmt.Sprint("vault-", i)]; n != 2 {
				t.Errorf("vault-%d was looked at %d times, want at each tick", i, n)
			}
		}
		close(answers)
		h.wait()
		look("silent", false)
		h.wait()
		if looked["silent"] != 2 {
			t.Error("the vault that was silent is not looked at any more")
		}
	})
}
