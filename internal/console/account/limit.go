package account

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limit bounds how often something may be tried for one name, such as a
// password for a user. It remembers so many names at most; when there are more,
// the one that has the most tries left is forgotten first, so that nobody gets
// rid of what he used up by making up names.
type Limit struct {
	every time.Duration
	burst int
	most  int

	mu    sync.Mutex
	names map[string]*tries
}

type tries struct {
	*rate.Limiter
	last time.Time
}

// NewLimit allows burst tries at once, and then one in each interval.
func NewLimit(burst int, every time.Duration, most int) *Limit {
	return &Limit{every: every, burst: burst, most: most, names: map[string]*tries{}}
}

// Allow tells whether the name may be tried now, and counts it.
func (l *Limit) Allow(name string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.names[name]
	if t == nil {
		l.makeRoom(now)
		t = &tries{Limiter: rate.NewLimiter(rate.Every(l.every), l.burst)}
		l.names[name] = t
	}
	t.last = now
	return t.AllowN(now, 1)
}

// Forget has the name begin anew, after a try that was right.
func (l *Limit) Forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.names, name)
}

// makeRoom drops what has recovered, or else the name that is the nearest to
// it; of those, the one that was not tried for the longest.
func (l *Limit) makeRoom(now time.Time) {
	if len(l.names) < l.most {
		return
	}
	drop, most := "", -1.0
	for name, t := range l.names {
		left := t.TokensAt(now)
		if left >= float64(l.burst) {
			delete(l.names, name)
			continue
		}
		if left > most || left == most && t.last.Before(l.names[drop].last) {
			drop, most = name, left
		}
	}
	if len(l.names) >= l.most {
		delete(l.names, drop)
	}
}
