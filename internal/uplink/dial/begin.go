package dial

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"davit.dev/davit/internal/uplink"
)

// Begins make Runs.
type Begins interface {
	// Begin makes the Run that a console asks for, unless there is a reason not to,
	// and says what became of it. One that was made of the same request before is
	// the answer, whatever the reason. An error says that it is not known: it is
	// asked again.
	Begin(ctx context.Context, b uplink.Begin, refuse Refusal) (uplink.Begun, error)
}

// Refusal says why a run is not begun and what to do about it; the zero one says
// that it may be.
type Refusal struct{ Why, Do string }

// Allow says how a site lets a console begin runs.
const Allow = "`davit enrol --runs drill` at the site lets the console begin drills, `--runs all` all runs; until then begin it there, with the target's kubeconfig"

// permitted is what a link permits, as the console is told.
func permitted(runs string) string {
	if runs == uplink.RunsDrill || runs == uplink.RunsAll {
		return runs
	}
	return uplink.RunsNone
}

// permits says why a site does not let a console begin a run.
func permits(runs, verb string) Refusal {
	switch permitted(runs) {
	case uplink.RunsAll:
		return Refusal{}
	case uplink.RunsDrill:
		if verb == "drill" {
			return Refusal{}
		}
		return Refusal{fmt.Sprintf("the site lets the console begin drills only, and this is a %.32s", verb), Allow}
	}
	return Refusal{"the site lets no console begin runs", Allow}
}

const (
	// beginLimit is how long one try may take.
	beginLimit = 45 * time.Second
	// beginMost is how many may wait.
	beginMost = 64
)

// orders are the runs that the console asks for.
type orders struct {
	mu    sync.Mutex
	runs  string // what the link permits
	waits []uplink.Begin
	begun []uplink.Begun // to be said
	// mine is when the stream was asked for by the agent's clock, and theirs what
	// the console's said after that.
	mine, theirs time.Time
	more         chan struct{}
	changed      chan struct{}
}

func (o *orders) ready() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more, o.changed = make(chan struct{}, 1), make(chan struct{}, 1)
	}
}

// forget drops what waits: the console asks the next stream for all that it has no
// answer to.
func (o *orders) forget(runs string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.runs, o.waits, o.begun = runs, nil, nil
}

func (o *orders) clock(mine, theirs time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mine, o.theirs = mine, theirs
}

// late tells whether it is later than that by the console's clock, or may be: how
// long the first word was under way counts as passed, and so does what either
// clock here says has passed. One of them stands still while a machine sleeps. Where
// both have gone back, as without a steady one, nobody knows how long it was.
func (o *orders) late(now, until time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	passed := max(now.Sub(o.mine), now.Round(0).Sub(o.mine.Round(0)))
	return o.theirs.IsZero() || passed < 0 || !o.theirs.Add(passed).Before(until)
}

func (o *orders) push(b uplink.Begin) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waits) >= beginMost {
		return fmt.Errorf("%w: more runs than were answered", uplink.ErrFrame)
	}
	o.waits = append(o.waits, b)
	tap(o.more)
	return nil
}

func (o *orders) next() (b uplink.Begin, runs string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waits) == 0 {
		return b, "", false
	}
	return o.waits[0], o.runs, true
}

// answer keeps an answer to be said. One to a stream that has ended is given anew,
// when the console asks anew.
func (o *orders) answer(said uplink.Begun) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waits) == 0 || o.waits[0].ID != said.ID {
		return
	}
	o.waits, o.begun = o.waits[1:], append(o.begun, said)
	tap(o.changed)
}

// look takes the answers that are to be said, and returns what tells of more.
func (o *orders) look() (all []uplink.Begun, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all, o.begun = o.begun, nil
	return all, o.changed
}

func tap(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// begin makes the runs that are asked for, one after the other.
func (c *Client) begin(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.orders.more:
		}
		for b, runs, ok := c.orders.next(); ok && ctx.Err() == nil; b, runs, ok = c.orders.next() {
			c.beginOne(ctx, b, runs)
		}
	}
}

func (c *Client) beginOne(ctx context.Context, b uplink.Begin, runs string) {
	refuse := permits(runs, b.Verb)
	if refuse == (Refusal{}) && c.orders.late(c.Now(), b.Until) {
		refuse = Refusal{"it came too late: it was to begin by " + b.Until.UTC().Format(time.RFC3339) + ", by the console's clock", "ask again, if it is still wanted"}
	}
	try, cancel := context.WithTimeout(ctx, beginLimit)
	said, err := c.Begins.Begin(try, b, refuse)
	cancel()
	if err == nil {
		said.ID = b.ID
		c.orders.answer(said)
		return
	}
	pause := c.Pause
	if pause == nil {
		pause = Pause
	}
	pause(ctx, 1)
}

// ordered takes what the console asks for, if it is a console of the epoch that may.
func (s *session) ordered(ctx context.Context, b uplink.Begin) error {
	if s.Begins == nil {
		return fmt.Errorf("%w: a run for who begins none", uplink.ErrFrame)
	}
	if err := s.heed(uplink.Console{Epoch: b.Epoch, Active: true}); err != nil {
		return err
	}
	if err := s.rise(ctx, b.Epoch); err != nil {
		return err
	}
	return s.orders.push(b)
}

// say says what became of runs.
func say(to io.Writer, all []uplink.Begun) error {
	for _, b := range all {
		if err := uplink.Write(to, uplink.Up{Begun: &b}); err != nil {
			return err
		}
	}
	return nil
}
