package quiesce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/point"
)

var errDead = errors.New("nothing answers any more")

// server is a database in a pod. A held lock ends with its session; what a
// command did stays until a command undoes it.
type server struct {
	locked bool      // by a session
	paused bool      // by a command
	spells [][2]int  // of locks, by the field's time
	since  int       // of the present lock
	serves *fakeHold // who has the lock
}

// field is a cluster with some servers, and a clock that goes on with each event.
type field struct {
	mu      sync.Mutex
	now     int
	pods    []Pod
	servers map[string]*server // by UID
	calls   []string
	fail    map[string]error // by call
	ledger  []Owed
	lying   bool // sessions answer whatever happened, for the control
	killAt  int  // the number of the call at which this process dies; 0: never
	acted   bool // the call at which it dies still has its effect
	count   int
	profile func(Pod) (*Hook, string, error)
	dead    bool
}

func newField(n int) *field {
	f := &field{servers: map[string]*server{}, fail: map[string]error{}}
	for i := range n {
		f.add(fmt.Sprint("db-", i))
	}
	return f
}

func (f *field) add(name string) {
	uid := fmt.Sprint("u", len(f.servers))
	f.pods = append(f.pods, Pod{Namespace: "shop", Name: name, UID: uid, Containers: []Container{{"db", "registry/db:1"}}})
	f.servers[uid] = &server{}
}

func (s *server) unlock(now int) {
	if s.locked {
		s.locked, s.serves = false, nil
		s.spells = append(s.spells, [2]int{s.since, now})
	}
}

// call counts a call; alive says whether it reaches the cluster, and answered
// whether its answer comes back.
func (f *field) call(format string, args ...any) (alive bool, err error) {
	f.now++
	f.count++
	what := fmt.Sprintf(format, args...)
	f.calls = append(f.calls, what)
	if f.dead {
		return false, errDead
	}
	if f.count == f.killAt {
		f.die()
		return f.acted, errDead
	}
	return true, f.fail[what]
}

// die is the end of this process, and of its connections.
func (f *field) die() {
	f.dead = true
	for _, s := range f.servers {
		s.unlock(f.now)
	}
}

func (f *field) Pods(context.Context, []string) ([]Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if alive, err := f.call("pods"); !alive {
		return nil, err
	}
	return slices.Clone(f.pods), nil
}

func (f *field) Run(_ context.Context, t Target, a Action) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	alive, err := f.call("%s %s", a.Command[0], t.Pod)
	if !alive {
		return "", err
	}
	if !slices.ContainsFunc(f.pods, func(p Pod) bool { return p.UID == t.UID }) {
		return "", ErrGone
	}
	if err == nil || errors.Is(err, errDead) {
		f.servers[t.UID].paused = a.Command[0] == "pause"
	}
	return "", err
}

// fakeHold is a session.
type fakeHold struct {
	f      *field
	target Target
	ended  bool
}

func (f *field) Hold(_ context.Context, t Target, _ Hold) (Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	alive, err := f.call("hold %s", t.Pod)
	if !alive || err != nil {
		return nil, err
	}
	h := &fakeHold{f: f, target: t}
	s := f.servers[t.UID]
	s.locked, s.since, s.serves = true, f.now, h
	return h, nil
}

func (h *fakeHold) Held(context.Context) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	_, err := h.f.call("held %s", h.target.Pod)
	return err
}

func (h *fakeHold) Ask(context.Context) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	alive, err := h.f.call("ask %s", h.target.Pod)
	switch {
	case !alive || err != nil:
		return errors.Join(err, errDead)
	case h.f.lying:
		return nil
	case h.ended:
		return errors.New("the session ended")
	case h.f.servers[h.target.UID].serves != h:
		return errors.New("the lock is lost")
	}
	return nil
}

func (h *fakeHold) Close(context.Context) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	alive, err := h.f.call("close %s", h.target.Pod)
	if s := h.f.servers[h.target.UID]; alive && s.serves == h {
		s.unlock(h.f.now)
	}
	return err
}

func (h *fakeHold) Output() string { return "" }

func (f *field) Owe(_ context.Context, d Debt) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	alive, err := f.call("owe")
	if alive {
		f.ledger = d.Owed
	}
	return err
}

func (f *field) Leave(_ context.Context, _ string, done []Owed) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	alive, err := f.call("leave")
	if alive {
		f.ledger = slices.DeleteFunc(f.ledger, func(o Owed) bool {
			return slices.ContainsFunc(done, func(d Owed) bool { return d.Hook == o.Hook && d.Target.UID == o.Target.UID })
		})
	}
	return err
}

func (f *field) Step(string)                 {}
func (f *field) Note(string, string, string) {}
func (f *field) Warn(string, string)         {}

// clock goes on by a second at each look.
func (f *field) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now++
	return time.Unix(int64(f.now), 0)
}

func holding(name string) Hook {
	return Hook{Name: name, Pods: labels.Everything(), Hold: &Hold{Command: []string{"lock"}}}
}

func pausing(name string, order int32) Hook {
	return Hook{
		Name: name, Order: order, Pods: labels.Everything(),
		Before: &Action{Command: []string{"pause", name}}, After: &Action{Command: []string{"resume", name}},
	}
}

// capture plays one, with something in between.
func (f *field) capture(hooks []Hook, disturb func(step string)) (begun, done int, out *point.Quiesce, err error) {
	q := New(Spec{Application: "shop", Namespaces: []string{"shop"}, Hooks: hooks, Profile: f.profile}, Ports{Runner: f, Ledger: f, Report: f, Now: f.clock})
	ctx := context.Background()
	if err := q.Find(ctx); err != nil {
		return 0, 0, nil, err
	}
	disturb("found")
	if err = q.Before(ctx); err == nil {
		disturb("before the cut")
		begun = f.tick()
		disturb("during the cut")
		done = f.tick()
		q.Check(ctx)
		disturb("after the check")
	}
	err = errors.Join(err, q.After(ctx))
	_, out = q.Outcome()
	return begun, done, out, err
}

func (f *field) tick() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now++
	return f.now
}

// disturb does something bad to one of the pods.
func (f *field) disturb(r *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now++
	i := r.IntN(len(f.pods))
	pod := f.pods[i]
	s := f.servers[pod.UID]
	switch r.IntN(5) {
	case 0: // the session dies
		if s.serves != nil {
			s.serves.ended = true
		}
		s.unlock(f.now)
	case 1: // the server drops the lock, the session lives on
		s.unlock(f.now)
	case 2: // the pod dies; its container starts anew
		if s.serves != nil {
			s.serves.ended = true
		}
		s.unlock(f.now)
	case 3: // the pod is replaced
		s.unlock(f.now)
		f.pods = slices.Delete(f.pods, i, i+1)
		f.add(pod.Name)
	case 4: // another one comes
		f.add(fmt.Sprint("new-", len(f.servers)))
	}
}

// untrue says why a claim does not stand.
func (f *field) untrue(begun, done int) string {
	for _, p := range f.pods {
		s := f.servers[p.UID]
		spells := s.spells
		if s.locked {
			spells = append(spells, [2]int{s.since, f.now})
		}
		if !slices.ContainsFunc(spells, func(spell [2]int) bool { return spell[0] < begun && spell[1] > done }) {
			return fmt.Sprintf("%s was locked %v, and the cut from %d to %d", p.Name, spells, begun, done)
		}
	}
	return ""
}

func claims(t *testing.T, seed uint64, lying bool) (claimed bool, untrue string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	f := newField(1 + r.IntN(3))
	f.lying = lying
	at := []string{"found", "before the cut", "during the cut", "after the check", "never"}[r.IntN(5)]
	begun, done, out, err := f.capture([]Hook{holding("lock")}, func(step string) {
		if step == at {
			f.disturb(r)
		}
	})
	if err != nil && at != "found" {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if out == nil || !out.Held {
		if out != nil && out.Reason == "" {
			t.Fatalf("seed %d: not held, and no reason", seed)
		}
		return false, ""
	}
	// What happened after the check does not matter any more.
	if at == "after the check" {
		return true, ""
	}
	return true, f.untrue(begun, done)
}

// TestThePartLeastAtRest: of an application one part of which is held, while another is
// known not to have been brought to rest as its hook would have, nothing may be claimed.
func TestThePartLeastAtRest(t *testing.T) {
	name := func(name string) labels.Selector { return labels.SelectorFromSet(labels.Set{"is": name}) }
	play := func(disturb func(f *field, step string)) *point.Quiesce {
		t.Helper()
		f := newField(2)
		f.pods[0].Labels, f.pods[1].Labels = map[string]string{"is": "db"}, map[string]string{"is": "web"}
		lock, pause := holding("lock"), pausing("pause", 0)
		lock.Pods, pause.Pods, pause.Continue = name("db"), name("web"), true
		disturb(f, "start")
		_, _, out, err := f.capture([]Hook{lock, pause}, func(step string) { disturb(f, step) })
		if err != nil || out == nil {
			t.Fatalf("%+v, %v", out, err)
		}
		return out
	}
	if out := play(func(*field, string) {}); !out.Held || out.Pods != 1 {
		t.Errorf("both at rest: %+v", out)
	}
	for why, disturb := range map[string]func(f *field, step string){
		"run hook pause before the cut in shop/db-1: it is busy": func(f *field, _ string) { f.fail["pause db-1"] = errors.New("it is busy") },
		"hook pause did nothing in shop/db-1, which is odd": func(f *field, step string) {
			if step == "start" {
				f.pods[1].Unfit = "is odd"
			}
		},
		"hook pause: pod shop/db-9 appeared": func(f *field, step string) {
			if step == "during the cut" {
				f.add("db-9")
				f.pods[2].Labels = map[string]string{"is": "web"}
			}
		},
	} {
		if out := play(disturb); out.Held || !strings.Contains(out.Reason, why) {
			t.Errorf("%s: %+v", why, out)
		}
	}
}

// TestWhatIsClaimedIsTrue disturbs captures at each step.
func TestWhatIsClaimedIsTrue(t *testing.T) {
	held := 0
	for seed := range uint64(2000) {
		claimed, untrue := claims(t, seed, false)
		if untrue != "" {
			t.Fatalf("seed %d: claimed, but %s", seed, untrue)
		}
		if claimed {
			held++
		}
	}
	if held < 200 {
		t.Errorf("only %d of 2000 captures were application-consistent", held)
	}
}

// TestSessionsMustBeAsked is the control: believing sessions that are not asked
// truthfully gives an untrue claim.
func TestSessionsMustBeAsked(t *testing.T) {
	for seed := range uint64(2000) {
		if _, untrue := claims(t, seed, true); untrue != "" {
			return
		}
	}
	t.Error("no untrue claim without the question: it proves nothing")
}

// kill plays a capture that dies at a call, and returns whether it got that
// far and who is left at rest after the next agent has looked at the ledger.
func kill(at int, acted, collects bool) (reached bool, left string) {
	f := newField(2)
	f.killAt, f.acted = at, acted
	_, _, _, _ = f.capture([]Hook{pausing("first", 1), holding("lock"), pausing("last", 2)}, func(string) {})
	reached = f.dead
	f.dead, f.killAt = false, 0
	if collects {
		done, _ := Collect(context.Background(), Debt{Owed: f.ledger}, anything, f)
		_ = f.Leave(context.Background(), "shop", done)
		if len(f.ledger) > 0 {
			left = fmt.Sprintf("owed %+v", f.ledger)
		}
	}
	for _, p := range f.pods {
		if s := f.servers[p.UID]; s.locked || s.paused {
			left += fmt.Sprintf("%s: %+v", p.Name, *s)
		}
	}
	return reached, left
}

// TestKilledAtEveryStepLeavesNobodyAtRest kills the capture at each call that
// it makes, before and after the call had its effect.
func TestKilledAtEveryStepLeavesNobodyAtRest(t *testing.T) {
	steps, harmed := 0, 0
	for at := 1; ; at++ {
		reached, left := kill(at, false, true)
		_, also := kill(at, true, true)
		if left != "" || also != "" {
			t.Errorf("killed at call %d: %s %s", at, left, also)
		}
		if _, left := kill(at, true, false); left != "" {
			harmed++ // the control
		}
		if !reached {
			break
		}
		steps++
	}
	if steps < 13 || harmed == 0 {
		t.Errorf("%d steps; without the ledger %d of them leave the application at rest", steps, harmed)
	}
}

func TestOrder(t *testing.T) {
	f := newField(1)
	hold := holding("lock")
	hold.Order = 5
	if _, _, _, err := f.capture([]Hook{pausing("late", 7), hold, pausing("early", -1)}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(f.calls, ", ")
	want := "pods, owe, pause db-0, hold db-0, held db-0, pause db-0, ask db-0, pods, resume db-0, close db-0, resume db-0, leave"
	if got != want {
		t.Errorf("calls are %s\nwant %s", got, want)
	}
}

func TestHoldThatFails(t *testing.T) {
	for _, call := range []string{"hold db-0", "held db-0"} {
		for _, goesOn := range []bool{false, true} {
			f := newField(1)
			f.fail[call] = errors.New("refused")
			h := holding("lock")
			h.Continue = goesOn
			_, _, out, err := f.capture([]Hook{h}, func(string) {})
			if (err == nil) != goesOn || out.Held || !strings.Contains(out.Reason, "refused") {
				t.Errorf("%s, goes on %t: %v, %+v", call, goesOn, err, out)
			}
			if f.servers["u0"].locked {
				t.Errorf("%s: the server is still locked", call)
			}
		}
	}
}

func TestNothingIsDoneThatCannotBeWrittenDown(t *testing.T) {
	f := newField(1)
	f.fail["owe"] = errors.New("no room")
	_, _, _, err := f.capture([]Hook{pausing("p", 0)}, func(string) {})
	if err == nil || slices.Contains(f.calls, "pause db-0") {
		t.Errorf("err = %v after %v", err, f.calls)
	}
}

func TestPodThatIsGoneIsOwedNothing(t *testing.T) {
	f := newField(1)
	_, _, _, err := f.capture([]Hook{pausing("p", 0)}, func(step string) {
		if step == "during the cut" {
			f.pods = nil
		}
	})
	if err != nil || len(f.ledger) != 0 {
		t.Errorf("err = %v, still owed %v", err, f.ledger)
	}
}

func TestAfterThatFailsStaysOwed(t *testing.T) {
	f := newField(2)
	f.fail["resume db-1"] = errors.New("refused")
	_, _, _, err := f.capture([]Hook{pausing("p", 0)}, func(string) {})
	if err == nil || len(f.ledger) != 1 || f.ledger[0].Target.Pod != "db-1" {
		t.Fatalf("err = %v, owed %+v", err, f.ledger)
	}
	if done, err := Collect(t.Context(), Debt{Owed: f.ledger}, anything, f); err == nil || len(done) > 0 {
		t.Errorf("collected %v, %v", done, err)
	}
	delete(f.fail, "resume db-1")
	if done, err := Collect(t.Context(), Debt{Owed: f.ledger}, anything, f); err != nil || len(done) != 1 || f.servers["u1"].paused {
		t.Errorf("collected %v, %v", done, err)
	}
}

// anything permits everything.
func anything(context.Context, Owed) error { return nil }

func TestWhatIsNotPermittedIsLeftToAPerson(t *testing.T) {
	f := newField(2)
	f.fail["resume db-0"], f.fail["resume db-1"] = errors.New("refused"), errors.New("refused")
	if _, _, _, err := f.capture([]Hook{pausing("p", 0)}, func(string) {}); err == nil || len(f.ledger) != 2 {
		t.Fatalf("err = %v, owed %+v", err, f.ledger)
	}
	clear(f.fail)
	f.calls = nil
	only := func(_ context.Context, o Owed) error {
		if o.Target.Pod != "db-1" {
			return errors.New("the hook has changed")
		}
		return nil
	}
	done, err := Collect(t.Context(), Debt{Owed: f.ledger}, only, f)
	if err == nil || !strings.Contains(err.Error(), "the hook has changed") || len(done) != 1 || done[0].Target.Pod != "db-1" {
		t.Errorf("collected %v, %v", done, err)
	}
	if slices.Contains(f.calls, "resume db-0") || !f.servers["u0"].paused || f.servers["u1"].paused {
		t.Errorf("calls are %v", f.calls)
	}
	f.pods = f.pods[1:] // to a pod that is gone, nothing is owed
	if done, err := Collect(t.Context(), Debt{Owed: f.ledger[:1]}, only, f); err != nil || len(done) != 1 {
		t.Errorf("collected %v, %v", done, err)
	}
}

func TestOwedIsOf(t *testing.T) {
	h := pausing("p", 0)
	o := Owed{Hook: "p", Target: Target{Namespace: "shop", Pod: "db-0", Container: "db"}, Action: *h.After}
	for name, tt := range map[string]struct {
		change func()
		want   bool
	}{
		"the same":             {func() {}, true},
		"its container":        {func() { h.Container = "db" }, true},
		"another container":    {func() { h.Container = "web" }, false},
		"another command":      {func() { o.Action.Command = []string{"resume", "q"} }, false},
		"more of the command":  {func() { o.Action.Command = []string{"resume", "p", "q"} }, false},
		"its before":           {func() { o.Action = *h.Before }, false},
		"nothing after it now": {func() { h.After = nil }, false},
	} {
		was, had := h, o
		tt.change()
		if got := o.IsOf([]Hook{{Name: "other"}, h}); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
		h, o = was, had
	}
}

// TestProfile is for pods that have no hook of the application's own.
func TestProfile(t *testing.T) {
	lock := holding("profile db")
	lock.Pods, lock.Continue = nil, true
	choose := func(p Pod) (*Hook, string, error) {
		switch p.Annotations["is"] {
		case "db":
			return &lock, p.Containers[0].Name, nil
		case "nonsense":
			return nil, "", errors.New("no such profile")
		}
		return nil, "", nil
	}
	f := newField(3)
	f.profile = choose
	for i, is := range []string{"db", "db", ""} {
		f.pods[i].Annotations = map[string]string{"is": is}
	}
	f.pods[0].Labels = map[string]string{"own": "true"}
	own := pausing("own", 0)
	own.Pods = labels.SelectorFromSet(labels.Set{"own": "true"})
	_, _, out, err := f.capture([]Hook{own}, func(string) {})
	if err != nil || !out.Held || out.Pods != 1 {
		t.Fatalf("err = %v, %+v", err, out)
	}
	if got := strings.Join(f.calls, ", "); !strings.Contains(got, "hold db-1") || strings.Contains(got, "hold db-0") || strings.Contains(got, "hold db-2") {
		t.Errorf("calls are %s", got)
	}
	// One that appears is not at rest.
	_, _, out, err = f.capture(nil, func(step string) {
		if step == "during the cut" {
			f.add("db-9")
			f.pods[3].Annotations = map[string]string{"is": "db"}
		}
	})
	if err != nil || out.Held || !strings.Contains(out.Reason, "profile db: pod shop/db-9 appeared") {
		t.Errorf("err = %v, %+v", err, out)
	}
	// Nor is one whose profile is misspelt, whether it was there or appears.
	f = newField(2)
	f.profile = choose
	f.pods[0].Annotations, f.pods[1].Annotations = map[string]string{"is": "db"}, map[string]string{"is": "nonsense"}
	if _, _, out, err = f.capture(nil, func(string) {}); err != nil || out.Held || !strings.Contains(out.Reason, "shop/db-1 to rest: no such profile") {
		t.Errorf("err = %v, %+v", err, out)
	}
	f.pods = f.pods[:1]
	_, _, out, err = f.capture(nil, func(step string) {
		if step == "during the cut" {
			f.add("db-8")
			f.pods[1].Annotations = map[string]string{"is": "nonsense"}
		}
	})
	if err != nil || out.Held || !strings.Contains(out.Reason, "shop/db-8 to rest: no such profile") {
		t.Errorf("err = %v, %+v", err, out)
	}
	// A database that cannot be brought to rest does not stop the capture.
	f = newField(1)
	f.profile, f.pods[0].Annotations = choose, map[string]string{"is": "db"}
	f.fail["held db-0"] = errors.New("access denied")
	if _, _, out, err = f.capture(nil, func(string) {}); err != nil || out.Held || !strings.Contains(out.Reason, "access denied") {
		t.Errorf("err = %v, %+v", err, out)
	}
}

// asking is a hook of a Service, and then of a Job.
func asking(name, namespace string) Hook {
	return Hook{
		Name: name, Namespace: namespace, Before: &Action{HTTP: &HTTP{Service: "web", Method: "POST", Path: "/pause"}},
		After: &Action{Job: &Job{CronJob: "resume"}},
	}
}

// once is a Runner for hooks that are of no pod.
type once struct {
	Runner
	ran []string
}

func (o *once) Pods(context.Context, []string) ([]Pod, error) {
	return []Pod{{Namespace: "shop", Name: "a", UID: "a"}, {Namespace: "shop", Name: "b", UID: "b"}}, nil
}

func (o *once) Run(_ context.Context, t Target, a Action) (string, error) {
	o.ran = append(o.ran, t.Key()+": "+a.String())
	return "", nil
}

// TestApart: what is of no pod acts once, in one of the application's namespaces.
func TestApart(t *testing.T) {
	for name, tt := range map[string]struct {
		of         []string
		in, refuse string
	}{
		"its only namespace":  {of: []string{"shop"}},
		"one of them":         {of: []string{"other", "shop"}, in: "shop"},
		"which is not said":   {of: []string{"other", "shop"}, refuse: "says no namespace, and the application has 2"},
		"one that is foreign": {of: []string{"shop"}, in: "kube-system", refuse: "which is not the application's"},
	} {
		r := &once{}
		q := New(Spec{Application: "shop", Namespaces: tt.of, Hooks: []Hook{asking("q", tt.in)}}, Ports{Runner: r, Report: &field{}, Now: time.Now})
		err := q.Find(t.Context())
		if tt.refuse != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refuse) {
				t.Errorf("%s: Find = %v", name, err)
			}
			continue
		}
		if err := errors.Join(err, q.Before(t.Context()), q.After(t.Context())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(r.ran, "; "); got != "shop/service/web: POST /pause; shop/service/web: a Job of CronJob resume" {
			t.Errorf("%s: ran %s", name, got)
		}
		if hooks, rest := q.Outcome(); len(hooks) != 2 || rest != nil {
			t.Errorf("%s: %v, %v", name, hooks, rest)
		}
	}
	h := asking("q", "shop")
	o := Owed{Hook: "q", Target: Target{Namespace: "shop", Of: "service/web"}, Action: *h.After}
	if !o.IsOf([]Hook{h}) {
		t.Error("what is owed is not known again")
	}
	for name, change := range map[string]func(*Owed){
		"elsewhere":      func(o *Owed) { o.Target.Namespace = "other" },
		"in a pod":       func(o *Owed) { o.Target.Pod = "db-0" },
		"another's Job":  func(o *Owed) { o.Action = Action{Job: &Job{CronJob: "drop"}} },
		"a command, too": func(o *Owed) { o.Action.Command = []string{"drop"} },
	} {
		other := o
		if change(&other); other.IsOf([]Hook{h}) {
			t.Errorf("%s: it is taken for what is owed", name)
		}
	}
}
