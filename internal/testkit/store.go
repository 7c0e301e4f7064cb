package testkit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
)

// store is the vault: epochs, recovery points and journals.
type store struct {
	w       *world
	epochs  map[string][]claim
	points  map[string][]dataPoint
	records map[string][][]byte
	putAt   map[string][]time.Duration // when records were put
	stalled bool
	mode    fate // of the journal's next put
}

type claim struct {
	site     int
	request  string
	accepted int // points that were visible
	peers    []int
}

// dataPoint is a recovery point: which writes it holds.
type dataPoint struct {
	ids []int
	at  time.Duration
}

// fate is what happens to a put.
type fate int

const (
	arrives    fate = iota
	answerLost      // it arrives, its answer does not
	neverSent       // it is lost
	comesLate       // it arrives after its sender has given up
)

func (s *store) newest(app string) (int64, int) {
	all := s.epochs[app]
	return int64(len(all)), all[len(all)-1].site
}

// claim is the newest claim.
func (s *store) claim(app string) claimOf {
	n, holder := s.newest(app)
	c := s.epochs[app][n-1]
	return claimOf{n, holder, strings.HasSuffix(c.request, "/back"), c.peers}
}

// put claims a number, and says who has it.
func (s *store) put(app string, n int64, site int, request string) claim {
	all := s.epochs[app]
	if int64(len(all)) == n-1 {
		s.epochs[app] = append(all, claim{site, request, len(s.points[app]), s.w.peersOf(site)})
		if strings.HasSuffix(request, "/back") {
			s.w.nudge("return")
		} else {
			s.w.nudge("claim")
		}
		if s.w.opt.Isolated && site != 0 {
			s.w.isolate(s.w.sites[0], time.Minute)
		}
		if s.w.opt.Leaning && site != 0 {
			s.w.unheard(site, time.Minute)
		}
		s.w.log("vault: %s epoch %d is %s's (%s)", app, n, s.w.sites[site].name, request)
	}
	if int64(len(s.epochs[app])) < n {
		return claim{site: -1}
	}
	return s.epochs[app][n-1]
}

// RunNumbers implements journal.Log.
func (s *store) RunNumbers(_ context.Context, run string) ([]int64, error) {
	var all []int64
	for i := range s.records[run] {
		all = append(all, int64(i)+1)
	}
	return all, nil
}

// ReadRun implements journal.Log.
func (s *store) ReadRun(_ context.Context, run string, n int64) ([]byte, error) {
	if s.mode != arrives {
		return nil, vault.ErrUnavailable
	}
	return s.records[run][n-1], nil
}

// RunAge implements journal.Log. The vault's clock is the true one.
func (s *store) RunAge(_ context.Context, run string, n int64) (time.Duration, error) {
	return s.w.now - s.putAt[run][n-1], nil
}

// WriteRun implements journal.Log.
func (s *store) WriteRun(_ context.Context, run string, n int64, data []byte) error {
	write := func() error {
		switch have := int64(len(s.records[run])); {
		case have >= n:
			return vault.ErrExists
		case have < n-1:
			return fmt.Errorf("record %d before %d", n, have+1)
		}
		s.records[run], s.putAt[run] = append(s.records[run], data), append(s.putAt[run], s.w.now)
		return nil
	}
	switch s.mode {
	case neverSent:
		return vault.ErrUnavailable
	case comesLate:
		s.w.odd["late put"]++
		s.w.after(s.w.upTo(40*time.Second), func() { _ = write() })
		return vault.ErrUnavailable
	case answerLost:
		s.w.odd["lost answer of a put"]++
		_ = write()
		return vault.ErrUnavailable
	}
	return write()
}

// ask calls the vault, which may stand still: then requests are carried out
// without an answer, or not at all.
func (w *world) ask(from int, serve func() any, done func(answer any, ok bool)) {
	w.call(from, len(w.sites), 5*time.Second, func(reply func(any)) {
		if w.vault.stalled {
			if w.chance(50) {
				serve()
			}
			return
		}
		reply(serve())
	}, done)
}

// putFate decides what becomes of a put from a place.
func (w *world) putFate(from int) fate {
	v := len(w.sites)
	switch {
	case !w.up[from][v] || w.r.Float64() < w.loss[from][v]:
		return neverSent
	case w.r.IntN(60) == 0:
		return comesLate
	case w.vault.stalled:
		return []fate{answerLost, neverSent, comesLate}[w.r.IntN(3)]
	case !w.up[v][from] || w.r.Float64() < w.loss[v][from]:
		return answerLost
	}
	return arrives
}
