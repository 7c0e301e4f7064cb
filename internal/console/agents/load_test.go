package agents

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/uplink"
)

// Many agents over the real protocol in one process: all are let in, come back at
// once after the console was away, and one status round of all is kept. With
// DAVIT_SOAK they are 5,000.
func TestMany(t *testing.T) {
	n := 40
	if os.Getenv("DAVIT_SOAK") != "" {
		n = 5000
	}
	w := newWorld(t)
	w.server.address = account.NewLimit(2*n, time.Second, 10)
	all := make([]*agent, n)
	begun := time.Now()
	for i := range all {
		site := numbers(i, i)[0]
		all[i] = w.agent(site, w.link(w.token("acme", site)))
	}
	whole := func(state string) {
		t.Helper()
		var told sync.WaitGroup
		for _, a := range all {
			told.Go(func() {
				a.Board.Put([]uplink.Object{object("shop", state), object("wiki", state), object("mail", state)})
				if err := a.Outbox.Append(uplink.Event{Reason: state}); err != nil {
					t.Error(err)
				}
			})
		}
		told.Wait()
		until(t, "told by all", func() bool {
			for _, a := range all { // first: to look at what is known of all takes what they need
				if a.Outbox.Len() > 0 {
					return false
				}
			}
			told := 0
			for _, a := range w.server.Known(w.project("acme")) {
				if a.Connected && len(a.Objects) == 3 && a.Objects[0].State == state {
					told++
				}
			}
			return told == n
		})
	}
	whole("first")
	t.Logf("%d agents enrolled, connected and told in %s", n, time.Since(begun))
	begun = time.Now()
	whole("second")
	t.Logf("one status round: %s", time.Since(begun))
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("memory of console and agents together: %d MiB live, %d MiB taken", (m.HeapInuse+m.StackInuse)>>20, m.Sys>>20)
	w.stop()
	begun = time.Now()
	w.start()
	whole("third")
	t.Logf("all back after a restart: %s", time.Since(begun))
	if got := len(w.reasons("acme", "")); got != 3*n {
		t.Errorf("%d events of %d", got, 3*n)
	}
}
