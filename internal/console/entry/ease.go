package entry

import (
	"sync"
	"time"
)

// easeAfter is how long no password must have been tried before the memory of
// those tries is given back.
const easeAfter = 2 * time.Second

// ease gives memory back that was needed for a moment: a password takes 64 MiB to
// try, and a console that does little else would keep those of several tries for
// minutes, as garbage that nothing makes it collect.
type ease struct {
	after time.Duration
	free  func()

	mu    sync.Mutex
	timer *time.Timer
}

func newEase(after time.Duration, free func()) *ease { return &ease{after: after, free: free} }

// later frees once nobody has called it for a while.
func (e *ease) later() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timer == nil {
		e.timer = time.AfterFunc(e.after, e.free)
		return
	}
	e.timer.Reset(e.after)
}
