package entry

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryOfTriesIsGivenBack: once after each group of tries, and not between them.
func TestMemoryOfTriesIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door := NewDoor(nil, cheap, time.Now, slog.New(slog.DiscardHandler))
		var freed atomic.Int64
		door.ease = newEase(easeAfter, func() { freed.Add(1) })
		for group := range int64(2) {
			for range 3 {
				door.matches(t.Context(), "", "a password of nobody")
				if _, err := door.Hash(t.Context(), "another password"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(easeAfter / 2) // virtual time
				synctest.Wait()
				if freed.Load() != group {
					t.Fatalf("given back %d times amid the tries of group %d", freed.Load(), group)
				}
			}
			time.Sleep(easeAfter) // virtual time
			synctest.Wait()
			if freed.Load() != group+1 {
				t.Fatalf("given back %d times after group %d", freed.Load(), group)
			}
		}
	})
}
