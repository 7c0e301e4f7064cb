package execute_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
)

// ledger is a journal's log in memory.
type ledger struct {
	mu      sync.Mutex
	records [][]byte
	written func()                  // told of every record that is written
	ages    map[int64]time.Duration // of records
	refuses func(n int64) bool      // whether it takes no such record now
}

func (l *ledger) RunNumbers(context.Context, string) ([]int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []int64
	for i := range l.records {
		all = append(all, int64(i)+1)
	}
	return all, nil
}

func (l *ledger) ReadRun(_ context.Context, _ string, n int64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[n-1], nil
}

func (l *ledger) RunAge(_ context.Context, _ string, n int64) (time.Duration, error) {
	return l.ages[n], nil
}

func (l *ledger) WriteRun(_ context.Context, _ string, n int64, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int64(len(l.records)) >= n {
		return vault.ErrExists
	}
	if l.refuses != nil && l.refuses(n) {
		return vault.ErrUnavailable
	}
	l.records = append(l.records, data)
	if l.written != nil {
		l.written()
	}
	return nil
}

// world is what actuators work on: it outlives executors.
type world struct {
	mu     sync.Mutex
	done   map[string]bool
	acts   map[string]int
	marks  execute.Memory
	breaks string // the step whose act is refused
	// newest is the newest epoch of each application that was claimed.
	newest map[string]int64
	// killAfter ends the executor after so many calls of actuators and records of the
	// journal; what is the last one happens, its answer does not come.
	calls, killAfter atomic.Int64
	kill             context.CancelFunc
}

// dies tells whether an executor's call was its last.
func (w *world) dies() bool {
	at := w.killAfter.Load()
	if at < 0 || w.calls.Add(1) <= at {
		return false
	}
	w.kill()
	return true
}

func (w *world) inner() execute.Actuator {
	return execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch o.Action {
		case failover.Look:
			if !w.done[o.Step.Name] {
				return execute.NotDone("")
			}
		case failover.Act:
			if o.Step.Name == w.breaks {
				return execute.Refuse("it breaks")
			}
			w.done[o.Step.Name] = true
			w.acts[o.Step.Name]++
		case failover.Undo:
			delete(w.done, o.Step.Name)
		}
		a := execute.Done("")
		if o.Step.Kind == plan.KindClaim {
			a.Epoch = o.Token.Epochs[o.Step.Application]
			if o.Action == failover.Undo { // the next one is the source's
				a.Epoch++
			}
			if w.newest == nil {
				w.newest = map[string]int64{}
			}
			w.newest[o.Step.Application] = max(w.newest[o.Step.Application], a.Epoch)
		}
		if o.Step.Kind == plan.KindSync {
			a.Point = &failover.Point{ID: "last"}
		}
		if o.Step.Kind == plan.KindFence {
			a.Proof = &failover.Proof{Application: o.Step.Application, Site: o.Site, Epoch: o.Token.Epochs[o.Step.Application], How: "stopped"}
		}
		return a
	})
}

func (w *world) epoch(_ context.Context, app string) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest[app], nil
}

func (w *world) actuator(blind bool) execute.Actuator {
	inner := w.inner()
	if !blind {
		aged, claims := &execute.Aged{Inner: inner, Marks: &w.marks, Newest: w.epoch}, inner
		inner = execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
			if o.Step.Kind == plan.KindClaim { // the vault's own keys keep those apart
				return claims.Do(ctx, o)
			}
			return aged.Do(ctx, o)
		})
	} else { // the negative control: it does not look
		seeing := inner
		inner = execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
			if o.Action == failover.Look {
				return execute.NotDone("")
			}
			return seeing.Do(ctx, o)
		})
	}
	return execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		a := inner.Do(ctx, o)
		if w.dies() {
			<-ctx.Done()
			return execute.Unknown("killed")
		}
		return a
	})
}

type survey struct{}

func (survey) Evaluate(_ context.Context, s failover.Spec) (*failover.Facts, error) {
	f := &failover.Facts{Epochs: map[string]failover.Held{}, Holders: map[string][]string{}}
	for _, app := range s.Applications {
		f.Epochs[app], f.Holders[app] = failover.Held{Number: 4, Site: s.From}, []string{s.From}
	}
	return f, nil
}

func (survey) Verify(context.Context, *failover.State) (failover.Outcome, string, string) {
	return failover.Done, "", ""
}

func spec(t *testing.T) failover.Spec {
	return specOf(t, plan.Failover, plan.Commit{Then: plan.ThenCommit})
}

// specOf is a run's of one application, or of some more, which another step serves that
// runs beside their claims.
func specOf(t *testing.T, verb plan.Verb, commit plan.Commit, more ...string) failover.Spec {
	t.Helper()
	p := &plan.Plan{
		Name: "p", Sites: []plan.Site{{Name: "east"}, {Name: "west"}}, Applications: []plan.Application{{Name: "shop"}},
		Fence:   plan.Fence{Timeout: 10 * time.Second},
		Steps:   []plan.Step{{Name: "warm", Kind: plan.KindCommand, Command: &plan.Command{Image: "x"}, After: []string{"ready/shop"}, Timeout: time.Minute}},
		Traffic: []plan.Traffic{{Name: "lb", Kind: plan.KindGate, Object: "lb"}},
		Commit:  commit,
	}
	apps := []string{"shop"}
	for _, app := range more {
		p.Applications = append(p.Applications, plan.Application{Name: app})
		apps = append(apps, app)
	}
	if len(more) > 0 {
		p.Steps = append(p.Steps, plan.Step{Name: "network", Kind: plan.KindCommand, Early: true, Command: &plan.Command{Image: "x"}, Undo: &plan.Command{Image: "x"}, Before: []string{"data/shop"}, Timeout: time.Minute})
	}
	slices.Sort(apps)
	g, err := p.Graph(verb)
	if err != nil {
		t.Fatal(err)
	}
	return failover.Spec{Run: "r", Plan: "p", Verb: verb, From: "east", To: "west", By: "ann", At: time.Now(), Accept: failover.TimedOut, Applications: apps, Steps: g.Steps, Fence: p.Fence, Commit: p.Commit}
}

// take takes the run up, as a new process would.
func take(t *testing.T, l *ledger, name string, s failover.Spec) (*failover.Machine, *journal.Journal) {
	t.Helper()
	j, state, err := journal.Open(context.Background(), l, "r", name)
	if errors.Is(err, vault.ErrNotFound) {
		m, err := failover.New(name, s)
		if err != nil {
			t.Fatal(err)
		}
		return m, journal.Create(l, "r", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return failover.TakeOver(name, state), j
}

// course is how a run goes where nobody dies.
type course struct {
	verb   plan.Verb
	commit plan.Commit
	breaks string            // the step that fails
	wish   execute.Request   // what a person wants when the run waits for its commit
	ends   failover.Phase    // as what it ends
	stays  func(string) bool // of a step: what it did is there in the end
	more   []string          // applications
}

// courses are the ways of all runs.
func courses() map[string]course {
	at, window := plan.Commit{Then: plan.ThenCommit}, plan.Commit{Window: 24 * time.Hour, Then: plan.ThenCommit}
	all := func(string) bool { return true }
	none := func(string) bool { return false }
	return map[string]course{
		"failover":                            {verb: plan.Failover, commit: at, ends: failover.Completed, stays: all},
		"switchover":                          {verb: plan.Switchover, commit: at, ends: failover.Completed, stays: all},
		"failback":                            {verb: plan.Failback, commit: at, ends: failover.Completed, stays: all},
		"drill":                               {verb: plan.Drill, ends: failover.Completed, stays: all},
		"drill that fails":                    {verb: plan.Drill, breaks: "ready/shop", ends: failover.Failed, stays: all},
		"failover, committed":                 {verb: plan.Failover, commit: window, wish: execute.Request{Kind: failover.Commit}, ends: failover.Completed, stays: all},
		"failover, rolled back":               {verb: plan.Failover, commit: window, wish: execute.Request{Kind: failover.RollBack, Text: "west"}, ends: failover.RolledBack, stays: none},
		"switchover that rolls itself back":   {verb: plan.Switchover, commit: at, breaks: "ready/shop", ends: failover.RolledBack, stays: none},
		"failback that rolls itself back":     {verb: plan.Failback, commit: at, breaks: "ready/shop", ends: failover.RolledBack, stays: none},
		"beside claims":                       {verb: plan.Failover, commit: at, ends: failover.Completed, stays: all, more: []string{"cart", "mail"}},
		"beside claims, rolled back":          {verb: plan.Failover, commit: window, wish: execute.Request{Kind: failover.RollBack, Text: "west"}, ends: failover.RolledBack, stays: none, more: []string{"cart", "mail"}},
		"switchover that fails in its middle": {verb: plan.Switchover, commit: at, breaks: "claim/shop", ends: failover.RolledBack, stays: none},
	}
}

// waiting brings what a person wants once a run waits for its commit.
type waiting struct {
	desk
	wish execute.Request
}

func (w *waiting) told(s *failover.State, _ []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Phase == failover.AwaitingCommit && w.wish.Kind != "" && len(w.all) == 0 {
		w.all = []execute.Request{w.wish}
	}
}

// play carries a run with an executor that dies after so many calls, and a
// second one that does not.
func play(t *testing.T, c course, killAfter int64, blind bool) (*failover.State, *world) {
	t.Helper()
	l, w := &ledger{}, &world{done: map[string]bool{}, acts: map[string]int{}, breaks: c.breaks}
	c.wish.Number, c.wish.By = 1, "bob"
	people := &waiting{desk: desk{replies: map[int64]string{}}, wish: c.wish}
	if c.wish.Kind == "" {
		people.wish = execute.Request{}
	}
	if !blind {
		l.written = func() { w.dies() }
	}
	s := specOf(t, c.verb, c.commit, c.more...)
	for n, at := range []int64{killAfter, -1} {
		ctx, cancel := context.WithCancel(t.Context())
		w.kill = cancel
		w.calls.Store(0)
		w.killAfter.Store(at)
		m, j := take(t, l, fmt.Sprintf("e%d", n), s)
		state, err := execute.New(execute.Options{
			Run: "r", Machine: m, Journal: j, Actuator: w.actuator(blind), Survey: survey{}, Requests: people, Watch: people.told,
			Enough: func(s *failover.State) bool { return s.Pause != nil && s.Pause.Kind == failover.ByFailure }, // else it waits for ever
		}).Run(ctx)
		cancel()
		if err == nil {
			return state, w
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	t.Fatal("the second executor did not bring it to an end")
	return nil, nil
}

// TestAnExecutorThatDiesAnywhereIsFollowedByAnother: after every look, act, undo
// and record of every kind of run. Nothing is done twice, and the run ends as if nobody
// had died.
func TestAnExecutorThatDiesAnywhereIsFollowedByAnother(t *testing.T) {
	for name, c := range courses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { everyDeath(t, c) })
		})
	}
}

func everyDeath(t *testing.T, c course) {
	for at := int64(0); ; at++ {
		state, w := play(t, c, at, false)
		if state.Phase != c.ends {
			t.Fatalf("killed after %d calls: it ended as %s: %s", at, state.Phase, state.Why)
		}
		for step, n := range w.acts {
			if n != 1 {
				t.Fatalf("killed after %d calls: %s was done %d times", at, step, n)
			}
		}
		for _, step := range state.Spec.Steps {
			acted := w.acts[step.Name] > 0
			if there := w.done[step.Name]; acted && step.Undoable() && there != c.stays(step.Name) {
				t.Fatalf("killed after %d calls: what %s did is there: %t", at, step.Name, there)
			}
			if c.ends == failover.Completed && !acted {
				t.Fatalf("killed after %d calls: %s was not done", at, step.Name)
			}
		}
		if state.Executor == "e0" { // it lived to the end
			if at < 10 {
				t.Fatalf("only %d calls were ends of executors", at)
			}
			return
		}
	}
}

func TestWithoutLooksThingsAreDoneTwice(t *testing.T) {
	t.Parallel()
	for at := int64(0); at < 100; at++ {
		state, w := play(t, courses()["failover"], at, true)
		for _, n := range w.acts {
			if n > 1 {
				return
			}
		}
		if state.Executor == "e0" {
			break
		}
	}
	t.Fatal("an executor that does not look did nothing twice: the test of looks proves nothing")
}

// desk brings requests from a test.
type desk struct {
	mu      sync.Mutex
	closed  atomic.Bool // as long as it is, nobody asks
	all     []execute.Request
	replies map[int64]string
}

func (d *desk) Next(context.Context, string) (*execute.Request, error) {
	if d.closed.Load() {
		return nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.all {
		if _, ok := d.replies[r.Number]; !ok {
			return &r, nil
		}
	}
	return nil, nil
}

func (d *desk) Reply(_ context.Context, _ string, n int64, refused string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replies[n] = refused
	return nil
}

func TestPeopleAreHeardAndAnswered(t *testing.T) {
	t.Parallel()
	l, w := &ledger{}, &world{done: map[string]bool{}, acts: map[string]int{}}
	w.killAfter.Store(-1)
	s := spec(t)
	s.Approvals = 1
	d := &desk{replies: map[int64]string{}, all: []execute.Request{
		{Number: 1, Kind: failover.Commit, By: "bob"},
		{Number: 2, Kind: failover.Approve, By: "ann"}, // asked for it herself
		{Number: 3, Kind: failover.Approve, By: "bob"},
	}}
	d.closed.Store(true) // what is asked too early is refused
	opens := func(s *failover.State, _ []string) {
		if s.Phase == failover.AwaitingApproval {
			d.closed.Store(false)
		}
	}
	m, j := take(t, l, "e", s)
	state, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: w.actuator(false), Survey: survey{}, Requests: d, Watch: opens}).Run(t.Context())
	if err != nil || state.Phase != failover.Completed {
		t.Fatal(state.Shown(), err)
	}
	if !state.Granted[3] || len(state.Granted) != 1 {
		t.Errorf("the journal has other requests than were granted: %v", state.Granted)
	}
	if d.replies[1] == "" || d.replies[2] == "" || d.replies[3] != "" || len(d.replies) != 3 {
		t.Fatalf("%v", d.replies)
	}
}

// TestWhatNobodyUnderstandsIsNotSaidToBeDone: a newer davit may ask for what this one has no word for, and
// nobody answers an effect, or deposes the executor, by asking.
func TestWhatNobodyUnderstandsIsNotSaidToBeDone(t *testing.T) {
	t.Parallel()
	l, w := &ledger{}, &world{done: map[string]bool{}, acts: map[string]int{}}
	w.killAfter.Store(-1)
	d := &desk{replies: map[int64]string{}, all: []execute.Request{
		{Number: 1, Kind: "rewind", By: "bob"}, {Number: 2, Kind: failover.Deposed, By: "bob"}, {Number: 3, Kind: failover.Recorded, By: "bob"}, {Number: 4, Kind: failover.Approve, By: "bob"},
	}}
	s := spec(t)
	s.Approvals = 1
	d.closed.Store(true)
	opens := func(s *failover.State, _ []string) {
		if s.Phase == failover.AwaitingApproval {
			d.closed.Store(false)
		}
	}
	m, j := take(t, l, "e", s)
	state, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: w.actuator(false), Survey: survey{}, Requests: d, Watch: opens}).Run(t.Context())
	if err != nil || state.Phase != failover.Completed {
		t.Fatal(state.Shown(), err)
	}
	for n := range int64(3) {
		if !strings.Contains(d.replies[n+1], "does not know what") {
			t.Errorf("request %d was answered %q", n+1, d.replies[n+1])
		}
	}
	if d.replies[4] != "" {
		t.Errorf("control: %q", d.replies[4])
	}
}

func TestOfTwoExecutorsOneStops(t *testing.T) {
	t.Parallel()
	l, w := &ledger{}, &world{done: map[string]bool{}, acts: map[string]int{}}
	w.killAfter.Store(-1)
	s := spec(t)
	s.Approvals = 1 // so that the first waits
	waiting := make(chan struct{})
	d := &desk{replies: map[int64]string{}}
	old := make(chan error, 1)
	m, j := take(t, l, "old", s)
	go func() {
		var once sync.Once
		_, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: w.actuator(false), Survey: survey{}, Requests: d, Watch: func(s *failover.State, _ []string) {
			if s.Phase == failover.AwaitingApproval {
				once.Do(func() { close(waiting) })
			}
		}}).Run(t.Context())
		old <- err
	}()
	<-waiting
	m, j = take(t, l, "new", s)
	enough := func(s *failover.State) bool { return slices.Contains(s.Approved, "bob") || s.Executor == "new" }
	if _, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: w.actuator(false), Survey: survey{}, Enough: enough}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.all = []execute.Request{{Number: 1, Kind: failover.Approve, By: "bob"}} // the old one wants to write now
	d.mu.Unlock()
	if err := <-old; !errors.Is(err, execute.ErrDeposed) {
		t.Fatal(err)
	}
}

// TestARefusalCanBeEnough: a process that carries a run only until a request is
// answered stops although nothing else happens.
func TestARefusalCanBeEnough(t *testing.T) {
	t.Parallel()
	l, w := &ledger{}, &world{done: map[string]bool{}, acts: map[string]int{}}
	w.killAfter.Store(-1)
	s := spec(t)
	s.Approvals = 1
	d := &desk{replies: map[int64]string{}, all: []execute.Request{{Number: 1, Kind: failover.Commit, By: "bob"}}}
	m, j := take(t, l, "e", s)
	enough := func(*failover.State) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.replies[1] != ""
	}
	state, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: w.actuator(false), Survey: survey{}, Requests: d, Enough: enough}).Run(t.Context())
	// Whether it was refused before or after the run came to wait for approval
	// is the scheduler's.
	if err != nil || state.Phase.Over() || !enough(state) {
		t.Fatal(state.Phase, err)
	}
}

// TestANameIsNotMovedOnWhileAllIsTakenBack: servers are silent, and a person takes the run back while their answer is
// waited for. The name goes back last: until then nobody goes on trying to lead clients to where all stops.
func TestANameIsNotMovedOnWhileAllIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, w := &ledger{}, &world{done: map[string]bool{}, acts: map[string]int{}}
		w.killAfter.Store(-1)
		s := specOf(t, plan.Switchover, plan.Commit{Then: plan.ThenCommit})
		for i := range s.Steps { // the gate is a name
			if s.Steps[i].Kind == plan.KindGate {
				s.Steps[i].Kind, s.Steps[i].Timeout = plan.KindDNS, 5*time.Minute
			}
		}
		d := &desk{replies: map[int64]string{}, all: []execute.Request{{Number: 1, Kind: failover.RollBack, By: "bob", Text: "west"}}}
		d.closed.Store(true)
		var moving, worked atomic.Bool
		inner := w.actuator(false)
		actuator := execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
			switch {
			case o.Step.Kind == plan.KindDNS && o.Action == failover.Act:
				moving.Store(true)
				d.closed.Store(false)
				<-ctx.Done() // it tries until then
				moving.Store(false)
				return execute.Unknown("the servers are silent")
			case o.Step.Kind == plan.KindClaim && o.Action == failover.Undo:
				worked.Store(true)
				time.Sleep(time.Second) // of the fake clock
				if moving.Load() {
					t.Error("the name is still being moved while the claims go back")
				}
			}
			return inner.Do(ctx, o)
		})
		m, j := take(t, l, "e", s)
		state, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: actuator, Survey: survey{}, Requests: d}).Run(t.Context())
		if err != nil || state.Phase != failover.RolledBack || !worked.Load() {
			t.Error(state.Shown(), state.Why, err)
		}
	})
}

// TestWorkloadsAreNotWaitedForLongerThanThePlanSays: the step that starts them waits for them as well, before the one
// that is there for it. Where a plan gives them less than half of that step's time, it waits no longer than that: the source of a
// planned move stands meanwhile. Nothing else knows of that limit.
func TestWorkloadsAreNotWaitedForLongerThanThePlanSays(t *testing.T) {
	for ready, want := range map[time.Duration]time.Duration{20 * time.Second: 20 * time.Second, 10 * time.Minute: 150 * time.Second} {
		for _, verb := range []plan.Verb{plan.Switchover, plan.Drill} {
			synctest.Test(t, func(t *testing.T) {
				l, w := &ledger{}, &world{done: map[string]bool{}, acts: map[string]int{}}
				w.killAfter.Store(-1)
				s := specOf(t, verb, plan.Commit{Then: plan.ThenCommit}, "cart")
				for i := range s.Steps {
					if s.Steps[i].Name == "ready/shop" {
						s.Steps[i].Timeout = ready
					}
				}
				var mu sync.Mutex
				got := map[string]time.Duration{}
				inner := w.actuator(false)
				actuator := execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
					mu.Lock()
					got[o.Step.Name] = o.Patience()
					mu.Unlock()
					return inner.Do(ctx, o)
				})
				m, j := take(t, l, "e", s)
				state, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: actuator, Survey: survey{}}).Run(t.Context())
				if err != nil || state.Phase != failover.Completed {
					t.Fatal(state.Shown(), state.Why, err)
				}
				for step, want := range map[string]time.Duration{"scale/shop": want, "scale/cart": 150 * time.Second, "apply/shop": 5 * time.Minute} {
					if got[step] != want {
						t.Errorf("%s, where %s has %s: %s waits %s, want %s", verb, "ready/shop", ready, step, got[step], want)
					}
				}
			})
		}
	}
}

// TestARunThatNobodyLookedAtForLongEnds: no other run has waited for it since lease.SilentAfter, and who was lost
// then may be back. Whoever carries it, and however long he has, it changes nothing; nor does one that was evaluated, and
// taken up again so late. The controls are one that is younger, one in which two sites ran the application until a person
// had it go on, one that was paused until then, one that has begun, and a drill, which moves nothing.
func TestARunThatNobodyLookedAtForLongEnds(t *testing.T) {
	const week = 7 * 24 * time.Hour
	split := []failover.Entry{{Kind: failover.Evaluated, Facts: &failover.Facts{Split: "both run it"}}}
	on := []failover.Entry{{Kind: failover.Resumed, By: "ann"}}
	facts, _ := survey{}.Evaluate(t.Context(), spec(t)) // never fails
	seen := []failover.Entry{{Kind: failover.Evaluated, Facts: facts}}
	for name, tt := range map[string]struct {
		verb   plan.Verb
		ages   map[int64]time.Duration
		before [][]failover.Entry // what the journal says after the first record; nil: it is opened now
		ends   failover.Phase
	}{
		"taken up after a week": {plan.Failover, map[int64]time.Duration{1: week}, [][]failover.Entry{}, failover.Failed},
		"its target was silent": {plan.Switchover, map[int64]time.Duration{1: lease.SilentAfter}, nil, failover.Failed},
		"a moment before":       {plan.Failover, map[int64]time.Duration{1: lease.SilentAfter - time.Second}, [][]failover.Entry{}, failover.Completed},
		"had go on just now":    {plan.Failover, map[int64]time.Duration{1: week, 3: time.Second}, [][]failover.Entry{split, on}, failover.Completed},
		"had go on, and then":   {plan.Failover, map[int64]time.Duration{1: week, 3: time.Hour}, [][]failover.Entry{split, on}, failover.Failed},
		"a drill after a week":  {plan.Drill, map[int64]time.Duration{1: week}, [][]failover.Entry{}, failover.Completed},

		"evaluated, a week ago":      {plan.Switchover, map[int64]time.Duration{2: week}, [][]failover.Entry{seen}, failover.Canceled},
		"and taken up before":        {plan.Failover, map[int64]time.Duration{2: week}, [][]failover.Entry{seen, {{Kind: failover.Took, By: "e7"}}}, failover.Canceled},
		"evaluated, a moment less":   {plan.Failover, map[int64]time.Duration{1: week, 2: lease.SilentAfter - time.Second}, [][]failover.Entry{seen}, failover.Completed},
		"paused until just now":      {plan.Failover, map[int64]time.Duration{2: week, 3: week}, [][]failover.Entry{seen, {{Kind: failover.PausedBy, Pause: failover.ByOperator}}, on}, failover.Completed},
		"begun, a week ago":          {plan.Failover, map[int64]time.Duration{2: week, 3: week}, [][]failover.Entry{seen, {{Kind: failover.Intended, Step: "fence/shop"}}}, failover.Completed},
		"a drill that had but begun": {plan.Drill, map[int64]time.Duration{2: week}, [][]failover.Entry{seen}, failover.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, w := &ledger{ages: tt.ages}, &world{done: map[string]bool{}, acts: map[string]int{}}
				w.killAfter.Store(-1)
				s := specOf(t, tt.verb, plan.Commit{Then: plan.ThenCommit})
				m, j := take(t, l, "e0", s)
				if tt.before != nil {
					opened := []failover.Entry{{Kind: failover.Opened, Spec: &s, By: s.By}, {Kind: failover.Took, By: "e0"}}
					for _, entries := range append([][]failover.Entry{opened}, tt.before...) {
						if err := j.Append(t.Context(), entries); err != nil {
							t.Fatal(err)
						}
					}
					m, j = take(t, l, "e1", s)
				}
				state, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: w.actuator(false), Survey: survey{}}).Run(t.Context())
				if err != nil || state.Phase != tt.ends {
					t.Fatalf("%s: %s, %v", state.Phase, state.Why, err)
				}
				if late := tt.ends != failover.Completed; late != (len(w.acts) == 0) || late != execute.Overdue(state) {
					t.Errorf("did %v: %s", w.acts, state.Why)
				}
			})
		})
	}
}

// TestARunThatIsCutOffBeforeItsFirstStepIsTakenUpAnew: its journal, and its target, are silent meanwhile, so that others
// may have begun without it. Nobody looks how old it is as long as it is carried. The controls are a run that is cut off
// for less, one that has begun, which others wait for, and a drill.
func TestARunThatIsCutOffBeforeItsFirstStepIsTakenUpAnew(t *testing.T) {
	for name, tt := range map[string]struct {
		verb   plan.Verb
		record int64 // at which the vault is gone
		lasts  time.Duration
		stops  bool
	}{
		"once it was evaluated": {plan.Switchover, 2, lease.SilentAfter + time.Minute, true},
		"at its first step":     {plan.Failover, 3, lease.SilentAfter + time.Minute, true},
		"for less":              {plan.Failover, 2, lease.SilentAfter - time.Minute, false},
		"it has begun":          {plan.Failover, 4, time.Hour, false},
		"a drill":               {plan.Drill, 2, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, w := &ledger{}, &world{done: map[string]bool{}, acts: map[string]int{}}
				w.killAfter.Store(-1)
				var since time.Time
				l.refuses = func(n int64) bool {
					if n == tt.record && since.IsZero() {
						since = time.Now()
					}
					return n >= tt.record && time.Since(since) < tt.lasts
				}
				s := specOf(t, tt.verb, plan.Commit{Then: plan.ThenCommit})
				m, j := take(t, l, "e0", s)
				state, err := execute.New(execute.Options{Run: "r", Machine: m, Journal: j, Actuator: w.actuator(false), Survey: survey{}}).Run(t.Context())
				if tt.stops != (err != nil) || tt.stops != (len(w.acts) == 0) || !tt.stops && state.Phase != failover.Completed {
					t.Errorf("%s, %v: did %v", state.Phase, err, w.acts)
				}
				if tt.stops && (errors.Is(err, execute.ErrDeposed) || len(l.records) != int(tt.record)-1) {
					t.Errorf("%v, with %d records", err, len(l.records))
				}
			})
		})
	}
}
