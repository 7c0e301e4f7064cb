package execute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
)

// Times of an executor.
const (
	// appendTimeout bounds one put into the journal, and appendAgain is how
	// long to wait before the same is put again.
	appendTimeout = 15 * time.Second
	appendAgain   = time.Second
	// lookTimeout bounds a look (see Loop), surveyTimeout an evaluation or a verification.
	lookTimeout   = 30 * time.Second
	surveyTimeout = 2 * time.Minute
	// listen is how often it is asked whether people want something.
	listen = time.Second
)

// ErrDeposed says that another executor carries the run now.
var ErrDeposed = journal.ErrDeposed

// Survey looks at everything that a run is about.
type Survey interface {
	// Evaluate gathers what a run must know before it changes anything.
	Evaluate(ctx context.Context, s failover.Spec) (*failover.Facts, error)
	// Verify tells whether all of it stands at the target, and only there: Done, with a
	// note of whom nobody heard, NotDone with a note, or NoAnswer. split says that two
	// sites write.
	Verify(ctx context.Context, s *failover.State) (outcome failover.Outcome, note, split string)
}

// Request is what a person wants of a run.
type Request struct {
	Number int64 `json:"number"`
	// ID is whoever asks his own name for it: asked twice, it is one request.
	ID      string             `json:"id,omitempty"`
	Kind    failover.EventKind `json:"kind"`
	By      string             `json:"by"`
	Groups  []string           `json:"groups,omitempty"` // that the cluster knows By to be of
	At      time.Time          `json:"at"`
	Step    string             `json:"step,omitempty"`
	Site    string             `json:"site,omitempty"`
	Text    string             `json:"text,omitempty"` // what the person typed
	Note    string             `json:"note,omitempty"`
	Refused bool               `json:"refused,omitempty"` // of an answer: it could not be done
	// Denied is why By has no right to that. Whoever passes the request on sets
	// it; nobody can ask with it.
	Denied string `json:"-"`
}

// wants are what people can want of a run.
var wants = []failover.EventKind{
	failover.Approve, failover.Reject, failover.Pausing, failover.Resume, failover.Retry, failover.Skip, failover.Answer, failover.Consent,
	failover.Commit, failover.RollBack, failover.Cancel, failover.Settle,
}

// unknown says that a request is of a newer davit, or nobody's: whoever asked must not hear that
// it was done, and no answer to an effect comes that way. Empty: it is known.
func (r Request) unknown() string {
	if slices.Contains(wants, r.Kind) {
		return ""
	}
	return fmt.Sprintf("the davit that carries the run does not know what %q is: use one version of davit at all sites", r.Kind)
}

// event is the request for the machine.
func (r Request) event() failover.Event {
	e := failover.Event{Kind: r.Kind, By: r.By, Groups: r.Groups, Denied: r.Denied, Step: r.Step, Site: r.Site, Text: r.Text, Note: r.Note, Request: max(r.Number, 0)}
	if r.Kind == failover.Answer {
		e.Outcome = failover.Done
		if r.Refused {
			e.Outcome = failover.Refused
		}
	}
	return e
}

// Requests bring what people want to whoever carries the run.
type Requests interface {
	// Next returns the oldest request that has no reply, nil if there is none.
	Next(ctx context.Context, run string) (*Request, error)
	// Reply says that the journal holds what was asked, or why it was refused.
	Reply(ctx context.Context, run string, n int64, refused string) error
}

// Options are what an executor works with.
type Options struct {
	Run      string
	Machine  *failover.Machine
	Journal  *journal.Journal
	Actuator Actuator
	Survey   Survey
	Requests Requests // nil: nobody is listened to
	// Watch is told of every change. It must not block, nor keep the state, which
	// is the machine's own.
	Watch func(s *failover.State, waits []string)
	// Enough tells that the run need not be carried further for now, as it
	// waits for people. Nil: carry it until it is over.
	Enough func(s *failover.State) bool
	Log    *slog.Logger
}

// wanted is a request on its way to the machine.
type wanted struct {
	event failover.Event
	reply chan string
}

// Executor carries one run. Make one with New for each time that a run is
// taken up.
type Executor struct {
	o       Options
	start   time.Time
	machine *failover.Machine
	loop    *Loop
	events  chan failover.Event
	people  chan wanted
	work    sync.WaitGroup
	halted  string
	tried   time.Time                     // since when the journal is to be written; zero: it is
	asked   *wanted                       // accepted, the journal does not hold it yet
	acts    map[string]context.CancelFunc // by step
	moves   []context.CancelFunc          // of acts that move names
}

// New makes an executor.
func New(o Options) *Executor {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Executor{
		o: o, start: time.Now(), machine: o.Machine, loop: NewLoop(o.Machine), events: make(chan failover.Event, 64), people: make(chan wanted),
		acts: map[string]context.CancelFunc{},
	}
}

// Run carries the run until it is over, until Enough says so, or until ctx
// ends: the next executor then goes on from the journal. When it returns
// nothing of it runs any more. ErrDeposed says that another one carries the run.
func (e *Executor) Run(ctx context.Context) (*failover.State, error) {
	bounded, cancel := context.WithCancel(ctx)
	defer e.work.Wait()
	defer cancel()
	if e.o.Requests != nil {
		e.work.Add(1)
		go e.listen(bounded)
	}
	late := e.late(bounded)
	e.tell(bounded, failover.Event{Kind: failover.Begin})
	if late != "" { // heard before a step is begun
		e.tell(bounded, failover.Event{Kind: failover.Cancel, By: "davit", Note: late})
	}
	for {
		s := e.machine.Peek()
		switch {
		case e.halted != "":
			return s.Clone(), e.stopped()
		case e.machine.Writing(): // whatever it is, it must be known
		case s.Phase.Over(), e.o.Enough != nil && e.asked == nil && e.o.Enough(s):
			return s.Clone(), nil
		}
		if err := e.await(bounded); err != nil {
			return e.machine.State(), fmt.Errorf("carry run %s: %w", e.o.Run, context.Cause(ctx))
		}
	}
}

func (e *Executor) stopped() error {
	switch e.halted {
	case deposed:
		return fmt.Errorf("carry run: %w", ErrDeposed)
	case cutOff:
		return fmt.Errorf("carry run: %s", cutOff)
	}
	return fmt.Errorf("carry run: %s: this is a defect of Davit, and another executor meets it too: report it", e.halted)
}

const (
	deposed = "another executor carries the run"
	cutOff  = "its journal took nothing for so long that other runs may have begun without it: look whether the vault can be reached, then carry it on"
)

// await waits for something to happen.
func (e *Executor) await(ctx context.Context) error {
	var tick <-chan time.Time
	if d := e.machine.Deadline(); d > 0 {
		timer := time.NewTimer(max(d-time.Since(e.start), time.Millisecond))
		defer timer.Stop()
		tick = timer.C
	}
	people := e.people
	if e.machine.Writing() || e.asked != nil {
		people = nil // one at a time, so that each learns what became of it
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case ev := <-e.events:
		e.tell(ctx, ev)
	case w := <-people:
		e.asked = &w
		e.tell(ctx, w.event)
	case <-tick:
		e.tell(ctx, failover.Event{Kind: failover.Tick})
	}
	return nil
}

// tell hands the machine an event, and carries out what follows.
func (e *Executor) tell(ctx context.Context, ev failover.Event) {
	now := failover.Moment{Mono: time.Since(e.start), Wall: time.Now()}
	if ev.Kind == failover.Recorded {
		e.tried = time.Time{}
	}
	for _, task := range e.loop.Tell(now, ev) {
		e.do(ctx, task)
	}
	if e.asked != nil && !e.machine.Writing() {
		e.replied("")
	}
	if e.o.Watch != nil {
		e.o.Watch(e.machine.Peek(), e.machine.Waits())
	}
}

func (e *Executor) replied(refused string) {
	if e.asked != nil {
		e.asked.reply <- refused
		e.asked = nil
	}
}

func (e *Executor) do(ctx context.Context, t Task) {
	switch t.Action {
	case failover.Append:
		if e.cutOff() {
			e.halted = cutOff
			return
		}
		e.spawn(func() { e.append(ctx, t.Entries) })
	case failover.Evaluate, failover.Verify, failover.Age:
		e.spawn(func() { e.survey(ctx, t.Action, t.State) })
	case failover.Look, failover.Act, failover.Undo:
		e.begin(ctx, t)
	case failover.Refuse:
		e.replied(t.Why)
	case failover.Halt:
		e.halted = t.Why
	}
}

// cutOff tells whether the journal could not be written for so long that a run which has begun no step is in nobody's
// way (see register.Overtaken). What lies ready is not written any more: whoever takes the run up looks how old it is.
func (e *Executor) cutOff() bool {
	if e.tried.IsZero() {
		e.tried = time.Now()
	}
	s := e.machine.Peek()
	return s.Spec.Verb.Moves() && !s.Meant() && time.Since(e.tried) >= lease.SilentAfter
}

// begin lets a goroutine see to a step. An undo ends the act. So does any undo the move of a name, which may go back
// last: until then it would go on trying to lead clients to where all stops.
func (e *Executor) begin(ctx context.Context, t Task) {
	acting, cancel := context.WithTimeout(ctx, t.Limit)
	if end := e.acts[t.Step]; end != nil && t.Action == failover.Undo {
		end()
	}
	if t.Action == failover.Undo {
		for _, end := range e.moves {
			end()
		}
	}
	if t.Action == failover.Act {
		e.acts[t.Step] = cancel
	}
	if t.Action == failover.Act && t.effect.Step.Kind == plan.KindDNS {
		e.moves = append(e.moves, cancel)
	}
	e.spawn(func() {
		defer cancel()
		e.send(ctx, e.step(acting, t))
	})
}

func (e *Executor) spawn(f func()) {
	e.work.Add(1)
	go func() {
		defer e.work.Done()
		f()
	}()
}

func (e *Executor) send(ctx context.Context, ev failover.Event) {
	select {
	case e.events <- ev:
	case <-ctx.Done():
	}
}

func (e *Executor) append(ctx context.Context, entries []failover.Entry) {
	bounded, cancel := context.WithTimeout(ctx, appendTimeout)
	err := e.o.Journal.Append(bounded, entries)
	cancel()
	switch {
	case err == nil:
		e.send(ctx, failover.Event{Kind: failover.Recorded})
	case errors.Is(err, ErrDeposed):
		e.send(ctx, failover.Event{Kind: failover.Deposed})
	default:
		e.o.Log.Warn("journal not written, trying again", "error", err)
		pause(ctx, appendAgain)
		e.send(ctx, failover.Event{Kind: failover.Unrecorded})
	}
}

func (e *Executor) survey(ctx context.Context, a failover.Action, s *failover.State) {
	bounded, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	ev := failover.Event{Kind: failover.Surveyed, Outcome: failover.NoAnswer}
	switch a {
	case failover.Verify:
		ev.Outcome, ev.Note, ev.Split = e.o.Survey.Verify(bounded, s)
	case failover.Age:
		ev = e.age(bounded, s.Awaiting)
	default:
		facts, err := e.evaluate(bounded, s)
		ev = failover.Event{Kind: failover.Gathered, Facts: facts}
		if err != nil { // the vault may answer later: the machine asks again
			e.o.Log.Warn("nothing is known of the run's applications yet", "error", err)
			pause(ctx, appendAgain)
			ev.Facts, ev.Note = nil, err.Error()
		}
	}
	e.send(ctx, ev)
}

// evaluate gathers what is known. A run that moves applications, and has not been evaluated for so long, keeps no
// other from beginning (see register.Overtaken), and whom it calls lost may be back: it changes nothing any more,
// whoever carries it, and however long he has. Its age is asked last, as the look may take minutes.
func (e *Executor) evaluate(ctx context.Context, s *failover.State) (*failover.Facts, error) {
	facts, err := e.o.Survey.Evaluate(ctx, s.Spec)
	if err != nil || !s.Spec.Verb.Moves() {
		return facts, err
	}
	age, err := e.o.Journal.Age(ctx, s.Since)
	if err == nil && age >= lease.SilentAfter {
		facts.Split, facts.Problems = "", []string{tooLate(age)}
	}
	return facts, err
}

// late says why a run that is taken up must not begin its first step any more: it was evaluated, and nobody carried it
// for so long; empty: it may. One that waits for people does not begin by itself, and what they say then is new.
func (e *Executor) late(ctx context.Context) string {
	s := e.machine.Peek()
	for s.Spec.Verb.Moves() && s.Phase == failover.Running && s.Pause == nil && !s.Meant() && ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, appendTimeout)
		age, err := e.o.Journal.Age(bounded, s.Since)
		cancel()
		switch {
		case err != nil:
			e.o.Log.Warn("nobody says how long nobody carried the run", "error", err)
			pause(ctx, appendAgain)
		case age >= lease.SilentAfter:
			return tooLate(age)
		default:
			return ""
		}
	}
	return ""
}

const anew = "others may have acted since: order it anew, if it is still wanted"

func tooLate(age time.Duration) string {
	return fmt.Sprintf("nothing was changed: nobody carried the run for %s, and %s", age.Round(time.Second), anew)
}

// Overdue tells of a run that is over because nobody carried it for too long: nobody had it end, and what was ordered is not done.
func Overdue(s *failover.State) bool { return s.Phase.Over() && strings.HasSuffix(s.Why, anew) }

// age is how old a record of the journal is.
func (e *Executor) age(ctx context.Context, record int64) failover.Event {
	age, err := e.o.Journal.Age(ctx, record)
	if err != nil { // the machine asks again
		e.o.Log.Warn("nobody says how long the run has waited for its commit", "error", err)
		return failover.Event{Kind: failover.Aged, Outcome: failover.NoAnswer, Note: err.Error()}
	}
	return failover.Event{Kind: failover.Aged, Outcome: failover.Done, Age: age}
}

// step gives every order of a step, all at once, and sums up.
func (e *Executor) step(ctx context.Context, t Task) failover.Event {
	answers := make([]Answer, len(t.Orders))
	var sites sync.WaitGroup
	for i, o := range t.Orders {
		sites.Go(func() { answers[i] = e.o.Actuator.Do(ctx, o) })
	}
	sites.Wait()
	return t.Sum(answers)
}

// listen hands over what people want, one after the other.
func (e *Executor) listen(ctx context.Context) {
	defer e.work.Done()
	run := e.o.Run
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, appendTimeout)
		r, err := e.o.Requests.Next(bounded, run)
		cancel()
		if err != nil || r == nil {
			pause(ctx, listen)
			continue
		}
		if why := r.unknown(); why != "" {
			e.reply(ctx, run, r.Number, why)
			continue
		}
		w := wanted{event: r.event(), reply: make(chan string, 1)}
		select {
		case e.people <- w:
		case <-ctx.Done():
			return
		}
		select {
		case refused := <-w.reply:
			e.reply(ctx, run, r.Number, refused)
			e.send(ctx, failover.Event{Kind: failover.Tick}) // whoever waited for the reply may have enough now
		case <-ctx.Done(): // the request may be what ended the run
			select {
			case refused := <-w.reply:
				e.reply(ctx, run, r.Number, refused)
			default:
			}
		}
	}
}

// reply tells the person. It does not end with the run: a run that is over has
// one who waits for the word.
func (e *Executor) reply(ctx context.Context, run string, n int64, refused string) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendTimeout)
	defer cancel()
	if err := e.o.Requests.Reply(bounded, run, n, refused); err != nil {
		e.o.Log.Warn("the reply to a request was not written, it is tried again", "error", err)
		pause(ctx, appendAgain)
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
