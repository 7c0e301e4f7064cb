package bed

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Threads that enter namespaces end with their goroutines, which the process's first one cannot.
func TestFirstThreadIsNobodys(t *testing.T) {
	var wg sync.WaitGroup
	held := make(chan struct{})
	var mu sync.Mutex
	threads := map[int]bool{}
	for range 64 {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			mu.Lock()
			threads[unix.Gettid()] = true
			if len(threads) == 64 { // each has a thread of its own, so all that were idle are in use
				close(held)
			}
			mu.Unlock()
			<-held
		})
	}
	wg.Wait()
	if threads[os.Getpid()] {
		t.Error("a goroutine runs on the process's first thread")
	}
}
