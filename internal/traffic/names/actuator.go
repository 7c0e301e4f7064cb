// Package names moves names in the DNS, at whatever servers or services keep
// them: it asks all, has each change what it keeps, and waits until all say the new.
package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
)

const (
	// again is how long to wait before servers are asked once more.
	again = time.Second
	// patience is how long a silent server is asked in a failover, which goes on without it.
	patience = 15 * time.Second
)

// Actuator does the steps of kind dns.
type Actuator struct {
	Open Open
	Now  func() time.Time
	// Again and Patience are for tests; zero means the usual.
	Again, Patience time.Duration
}

// Do implements execute.Actuator.
func (a *Actuator) Do(ctx context.Context, o execute.Order) execute.Answer {
	if o.Sandbox != "" {
		return execute.Refuse("a drill moves no name in the DNS: take the step out of its verbs")
	}
	m, err := a.open(ctx, o)
	if err != nil {
		return a.cannot(o, err)
	}
	var answer execute.Answer
	switch o.Action {
	case failover.Look:
		answer = m.look(ctx)
	case failover.Undo:
		answer = m.carry(ctx, m.back)
	default:
		answer = m.carry(ctx, m.forth)
	}
	answer.Guard = m.guard
	return answer
}

// errPlan says that the plan, which stays as it is throughout a run, does not
// let the step be done anywhere.
var errPlan = errors.New("add it to the record")

// cannot answers an order for which there is no move. Of a step that the run has
// ordered before, an update may have arrived, and without the key nothing can be sealed.
func (a *Actuator) cannot(o execute.Order, err error) execute.Answer {
	switch {
	case o.Action != failover.Look:
		return execute.Refuse("%v", err)
	case o.Token.Sequence == 0 || errors.Is(err, errPlan):
		return execute.NotDone("%v", err) // it cannot have begun
	}
	return execute.Unknown("%v", err)
}

// mover moves one name at all of its servers.
type mover struct {
	traffic.Move
	servers         []*server
	guard           execute.Guard
	action          failover.Action
	forgiving       bool // silence of a server stops it not
	again, patience time.Duration
	now             func() time.Time
}

// server is one, and what came of the last time it was asked or told.
type server struct {
	Server
	told    bool
	seen    traffic.Seen
	err     error
	verdict traffic.Verdict
	note    string
}

func (a *Actuator) open(ctx context.Context, o execute.Order) (*mover, error) {
	r := o.Step.Record
	if r == nil || len(r.To[o.Site]) == 0 {
		return nil, fmt.Errorf("move %s: the plan does not say where it leads at site %s: %w", o.Step.Object, o.Site, errPlan)
	}
	service, err := a.Open(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("move %s: %w", o.Step.Object, err)
	}
	m := &mover{
		Move: MoveOf(o.Step.Object, r, o.Site, o.Token), action: o.Action,
		forgiving: o.Verb == plan.Failover, guard: service.Guard, again: a.Again, patience: a.Patience, now: a.Now,
	}
	if m.again == 0 {
		m.again = cmp.Or(service.Again, again)
	}
	if m.patience == 0 {
		m.patience = patience
	}
	for _, s := range service.Servers {
		m.servers = append(m.servers, &server{Server: s.Server, told: !s.Watch})
	}
	return m, nil
}

// MoveOf is the move that a record wants.
func MoveOf(object string, r *plan.Record, site string, token failover.Token) traffic.Move {
	m := traffic.Move{
		Name: strings.TrimSuffix(object, "."), Zone: strings.TrimSuffix(r.Zone, "."), TTL: r.Life(),
		To: traffic.Sort(r.To[site]), Site: site, Token: token,
	}
	for _, values := range r.To {
		m.Known = append(m.Known, traffic.Sort(values)...)
	}
	return m
}

// each does something at all servers at once.
func (m *mover) each(do func(s *server)) {
	var wait sync.WaitGroup
	for _, s := range m.servers {
		wait.Go(func() { do(s) })
	}
	wait.Wait()
}

// read asks every server, and judges. Those that are only watched may be left
// out: nothing waits for them before the others are told.
func (m *mover) read(ctx context.Context, watched bool) {
	m.each(func(s *server) {
		s.verdict, s.note = "", ""
		if !s.told && !watched {
			return
		}
		if s.seen, s.err = s.Read(ctx, m.Zone, m.Name); s.err != nil {
			return
		}
		if s.told {
			s.verdict, s.note = m.judge(s.seen)
		} else if slices.Equal(s.seen.Values, m.To) != (m.action == failover.Undo) {
			s.verdict = traffic.Stands
		}
	})
}

// judge says what the order finds.
func (m *mover) judge(seen traffic.Seen) (traffic.Verdict, string) {
	switch m.action {
	case failover.Look:
		return m.Look(seen)
	case failover.Undo:
		return m.Return(seen)
	}
	return m.Judge(seen)
}

// look tells whether the name is moved. If not, that stays so: servers refuse
// from then on what was sent before. A step that the run has not ordered yet
// has number 0 and nothing to seal.
func (m *mover) look(ctx context.Context) execute.Answer {
	m.read(ctx, true)
	if answer, ends := m.sum(true); ends {
		return answer
	}
	if !m.forgiving {
		for _, s := range m.servers {
			if s.told && lost(s.err) {
				return execute.Unknown("%v", s.err)
			}
		}
	}
	m.each(func(s *server) {
		if m.Token.Sequence > 0 && s.told && s.err == nil && s.verdict == traffic.Moves {
			s.err = s.Swap(ctx, m.Move, s.seen, s.seen.Values, m.Sealed(s.seen))
		}
	})
	for _, s := range m.servers {
		if s.verdict == traffic.Moves && lost(s.err) {
			return execute.Unknown("%v", s.err)
		}
	}
	if m.silent() {
		return execute.Unknown("%s", m.says())
	}
	return execute.NotDone("%s", m.says())
}

// lost tells whether an error leaves open what happened.
func lost(err error) bool {
	var refused *RefusedError
	return err != nil && !errors.As(err, &refused)
}

// silent tells whether no server that takes updates has answered.
func (m *mover) silent() bool {
	return !slices.ContainsFunc(m.servers, func(s *server) bool {
		return s.told && !lost(s.err)
	})
}

// forth and back change one server.
func (m *mover) forth(ctx context.Context, s *server) error {
	return s.Swap(ctx, m.Move, s.seen, m.To, m.After(s.seen))
}

func (m *mover) back(ctx context.Context, s *server) error {
	values, guard := m.Back(s.seen)
	return s.Swap(ctx, m.Move, s.seen, values, guard)
}

// carry changes every server that takes updates, and waits until all that
// serve the zone say the new.
func (m *mover) carry(ctx context.Context, change func(context.Context, *server) error) execute.Answer {
	began, sent := m.now(), false
	for {
		m.read(ctx, false)
		if answer, ends := m.sum(m.forgiving && m.now().Sub(began) >= m.patience); ends {
			return answer
		}
		if why := m.foreign(); why != "" {
			return never(sent, why)
		}
		refusals, may := m.tell(ctx, change)
		sent = sent || may
		m.read(ctx, true)
		if answer, ends := m.sum(m.forgiving && m.now().Sub(began) >= m.patience); ends {
			return answer
		}
		if why := m.refuses(refusals); why != "" {
			return never(sent, why)
		}
		select {
		case <-ctx.Done():
			return execute.Unknown("%s", strings.Join(append(refusals, m.says()), "; "))
		case <-time.After(m.again):
		}
	}
}

// never answers an order that cannot be carried out. To refuse it says that nothing came of it: not so
// where an update was sent that was taken, or of which nobody knows what became.
func never(sent bool, why string) execute.Answer {
	if sent {
		return execute.Unknown("%s", why)
	}
	return execute.Refuse("%s", why)
}

// tell changes what can be changed, and returns what was refused. sent tells whether a server may have
// changed something.
func (m *mover) tell(ctx context.Context, change func(context.Context, *server) error) (refusals []string, sent bool) {
	var mu sync.Mutex
	m.each(func(s *server) {
		err, told := s.err, s.told && s.err == nil && s.verdict == traffic.Moves
		if told {
			err = change(ctx, s)
		}
		mu.Lock()
		defer mu.Unlock()
		var refused *RefusedError
		if errors.As(err, &refused) {
			refusals = append(refusals, err.Error())
		}
		sent = sent || told && (err == nil || lost(err) && !errors.Is(err, ErrChanged))
	})
	slices.Sort(refusals)
	return refusals, sent
}

// refuses says why it can never be done here: every server that takes updates
// refuses, and none has moved.
func (m *mover) refuses(refusals []string) string {
	told := 0
	for _, s := range m.servers {
		if s.told && s.verdict == traffic.Stands {
			return ""
		}
		if s.told {
			told++
		}
	}
	if len(refusals) < told {
		return ""
	}
	return strings.Join(refusals, "; ")
}

func (m *mover) foreign() string {
	for _, s := range m.servers {
		if s.verdict == traffic.Foreign {
			return s.Name() + ": " + s.note
		}
	}
	return ""
}

// sum says what all servers together mean, once that is an end. Without
// silence no server is done without.
func (m *mover) sum(silence bool) (execute.Answer, bool) {
	stand, waits := 0, 0
	for _, s := range m.servers {
		switch {
		case s.verdict == traffic.Superseded:
			return execute.Superseded("%s: %s", s.Name(), s.note), true
		case s.verdict == traffic.Late:
			return execute.Unknown("%s: %s", s.Name(), s.note), true
		case s.verdict == traffic.Stands:
			if s.told {
				stand++
			}
		case lost(s.err) && silence && m.forgiving: // what is dead leads nobody
		default:
			waits++
		}
	}
	if stand == 0 || waits > 0 {
		return execute.Answer{}, false
	}
	return execute.Answer{Outcome: failover.Done, Note: m.says()}, true
}

// says tells of servers that do not stand; empty if all do.
func (m *mover) says() string {
	var out []string
	for _, s := range m.servers {
		switch {
		case s.err != nil:
			out = append(out, s.err.Error())
		case s.verdict == traffic.Stands:
		case s.note != "":
			out = append(out, s.Name()+": "+s.note)
		case len(s.seen.Values) == 0:
			out = append(out, fmt.Sprintf("%s has no %s", s.Name(), m.Name))
		default:
			out = append(out, fmt.Sprintf("%s says that %s leads to %s", s.Name(), m.Name, strings.Join(s.seen.Values, ", ")))
		}
	}
	return strings.Join(out, "; ")
}
