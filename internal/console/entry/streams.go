package entry

import (
	"errors"
	"fmt"
	"sync"
)

// MostStreams is how many streams of events one person, or one robot's token, may have
// open: watches and pages that are kept up to date. Each keeps a connection and, at every
// beat, has its rights looked up anew in two databases: 64 are about four a second. It is
// more than anybody looks at, and a person who leaves pages open, or a script that loses
// its watches, takes nothing from others.
const MostStreams = 64

// ErrStreams says that somebody has as many streams open as he may.
var ErrStreams = errors.New("too many streams are open")

// streams counts those that are open, by who has them.
type streams struct {
	mu   sync.Mutex
	open map[string]int
}

// Stream lets one more stream of events of somebody begin; leave is called at its end.
func (d *Door) Stream(who Who) (leave func(), err error) {
	of := who.Name
	if who.Token != nil { // robots of two projects may have one name
		of = "token/" + who.Token.ID
	}
	s := &d.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[string]int{}
	}
	if s.open[of] >= MostStreams {
		return nil, fmt.Errorf("%w: %s has %d, watches and pages together: close some of them first", ErrStreams, who.Name, MostStreams)
	}
	s.open[of]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[of]--; s.open[of] == 0 {
			delete(s.open, of)
		}
	}, nil
}
