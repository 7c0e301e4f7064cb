package takeover_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/vault"
)

// carrier is a site that begins the runs that consoles ask for, and carries them with
// a journal and a mailbox in the vault. Its steps do nothing.
type carrier struct {
	t    *testing.T
	in   *vault.Project
	hold chan struct{} // until it is closed nothing is begun
	// mum keeps what was begun from being said until it is closed; nil: nothing does.
	mum chan struct{}
	// carries begins a run; nil: a drill that does nothing.
	carries func(b uplink.Begin) error

	mu     sync.Mutex
	asked  map[string]int    // how often a run was asked for, by the request's id
	epochs []int64           // of who asked
	begun  map[string]string // runs by the request's id
	work   sync.WaitGroup
}

func newCarrier(t *testing.T, in *vault.Project) *carrier {
	return &carrier{t: t, in: in, hold: make(chan struct{}), asked: map[string]int{}, begun: map[string]string{}}
}

func (c *carrier) Begin(ctx context.Context, b uplink.Begin, refuse dial.Refusal) (uplink.Begun, error) {
	c.mu.Lock()
	c.asked[b.ID]++
	c.epochs = append(c.epochs, b.Epoch)
	hold, mum := c.hold, c.mum
	c.mu.Unlock()
	select {
	case <-hold:
	case <-ctx.Done():
		return uplink.Begun{}, ctx.Err()
	}
	said, err := c.begin(b, refuse)
	if mum != nil && err == nil {
		select {
		case <-mum:
		case <-ctx.Done():
			return uplink.Begun{}, ctx.Err()
		}
	}
	return said, err
}

func (c *carrier) begin(b uplink.Begin, refuse dial.Refusal) (uplink.Begun, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch _, there := c.begun[b.ID]; {
	case there:
	case refuse.Why != "":
		return uplink.Begun{State: uplink.Refused, Why: refuse.Why, Do: refuse.Do}, nil
	default:
		carries := c.carries
		if carries == nil {
			carries = c.carry
		}
		if err := carries(b); err != nil {
			return uplink.Begun{}, err
		}
		c.begun[b.ID] = b.Run
	}
	return uplink.Begun{State: uplink.Created}, nil
}

// knows tells whether a request was heard of here, and whether its run was begun.
func (c *carrier) knows(id string) (asked, begun bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[id] > 0, c.begun[id] != ""
}

// carry has an executor carry a drill, which two others than who asked approve, until
// the test ends.
func (c *carrier) carry(b uplink.Begin) error {
	m, err := failover.New("agent west", failover.Spec{
		Run: b.Run, Plan: b.Plan, Verb: plan.Verb(b.Verb), To: "west", By: b.By, At: time.Now(), Accept: failover.TimedOut, Applications: []string{"shop"}, Approvals: 2,
		Steps: []plan.Step{
			{Name: "sandbox", Kind: plan.KindSandbox, Timeout: time.Minute},
			{Name: "call", Kind: plan.KindManual, Prompt: "Call the staff", Timeout: time.Hour, After: []string{"sandbox"}},
			{Name: "cleanup", Kind: plan.KindCleanup, Timeout: time.Minute, After: []string{"call"}},
		},
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	done := map[string]bool{}
	act := execute.Func(func(_ context.Context, o execute.Order) execute.Answer {
		mu.Lock()
		defer mu.Unlock()
		if o.Action == failover.Look && !done[o.Step.Name] {
			return execute.NotDone("")
		}
		done[o.Step.Name] = true
		return execute.Done("")
	})
	x := execute.New(execute.Options{Run: b.Run, Machine: m, Journal: journal.Create(c.in, b.Run, "agent west"), Actuator: act, Survey: surveyor{}, Requests: mailbox.New(c.in)})
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	c.t.Cleanup(func() { cancel(); c.work.Wait() })
	c.work.Go(func() {
		if _, err := x.Run(ctx); err != nil && ctx.Err() == nil {
			c.t.Errorf("run %s: %v", b.Run, err)
		}
	})
	return nil
}

type surveyor struct{}

func (surveyor) Evaluate(context.Context, failover.Spec) (*failover.Facts, error) {
	return &failover.Facts{}, nil
}

func (surveyor) Verify(context.Context, *failover.State) (failover.Outcome, string, string) {
	return failover.Done, "", ""
}

// person makes one with a role, and logs him in.
func (r *rig) person(name, role string) (token string) {
	r.t.Helper()
	r.call(r.a, r.token, "POST", "/users", map[string]string{"name": name, "password": password}, nil)
	r.call(r.a, r.token, "PUT", "/projects/"+project+"/members/"+name, map[string]string{"role": role}, nil)
	var in struct{ Token string }
	r.call(r.a, "", "POST", "/login", map[string]string{"name": name, "password": password}, &in)
	return in.Token
}

// insist asks one console and the other by turns for the same, with a limit for each,
// until what is answered is enough.
func (r *rig) insist(first *console, token, method, path string, in any, enough func(text []byte) bool) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if in == nil {
		body = nil
	}
	to, other := first, r.a
	if first == r.a {
		other = r.b
	}
	last := ""
	for end := time.Now().Add(patience); time.Now().Before(end); to, other = other, to {
		ctx, cancel := context.WithTimeout(r.t.Context(), askLimit)
		code, text, err := r.ask(ctx, to, token, method, "/api/v1"+path, string(body))
		cancel()
		if err == nil && code/100 == 2 && enough(text) {
			return nil
		}
		last = fmt.Sprintf("%s\n%s: %d %s %v", last[max(0, len(last)-2000):], to.name, code, text, err)
		time.Sleep(between) // between two tries
	}
	return fmt.Errorf("%s %s was not acknowledged:%s", method, path, last)
}

// west lets a site in that carries runs of a plan in the vault.
func (r *rig) west() *carrier {
	r.t.Helper()
	in := r.project()
	text, err := yaml.YAMLToJSON([]byte(consoletest.PlanText))
	r.must(err)
	_, err = shelf.New(in).Put(r.t.Context(), shelf.Sheet{Plan: "shop", At: time.Now(), Site: "east", Document: text})
	r.must(err)
	site := newCarrier(r.t, in)
	r.back([]*agent{r.carries(r.a, "west", []string{r.a.url, r.b.url}, inVault{in}, site)}, r.a)
	return site
}

// carries has a console let the agent of a site in that begins all runs.
func (r *rig) carries(at *console, site string, urls []string, v dial.Vault, c *carrier) *agent {
	r.t.Helper()
	var made struct{ Token string }
	r.call(at, r.token, "POST", "/projects/"+project+"/enrolments", map[string]any{"site": site, "minutes": 10}, &made)
	return r.agent(site, dial.Link{URLs: urls, Token: made.Token, Runs: uplink.RunsAll}, v, c)
}

// A drill is begun, approved by two and answered while the active console is killed
// with its request under way, and then stopped and woken with an approval under way.
// Who asks goes by turns to both with the same request. It is begun once, nobody counts
// twice, and one that wakes up leaves nothing in the run's mailbox.
func TestRunOutlivesConsoles(t *testing.T) {
	t.Parallel()
	r := newRig(t, directory(t))
	site := r.west()
	bob, carla := r.person("bob", "recoverer"), r.person("carla", "recoverer")
	id := strings.Repeat("r", 16)
	var run begin.Shown
	begun := make(chan error, 1)
	go func() {
		begun <- r.insist(r.a, r.token, "POST", "/projects/"+project+"/plans/shop/runs", api.NewRun{ID: id, Verb: "drill", To: "west"}, func(text []byte) bool {
			return json.Unmarshal(text, &run) == nil && run.State == uplink.Created
		})
	}()
	until(t, "asked for at the site", func() bool {
		site.mu.Lock()
		defer site.mu.Unlock()
		return len(site.asked) > 0
	})
	since := time.Now()
	r.signal(r.a, syscall.SIGKILL) // nobody has the answer, and the site begins it now
	close(site.hold)
	r.must(<-begun)
	t.Logf("killed: run %s is acknowledged %s later", run.Run, time.Since(since).Round(time.Millisecond))

	requests := "/projects/" + project + "/runs/" + run.Run + "/requests"
	want := func(first *console, token string, w steer.Want) {
		t.Helper()
		var a steer.Asked
		r.must(r.insist(first, token, "POST", requests, w, func(text []byte) bool { return json.Unmarshal(text, &a) == nil && a.Answered }))
		if a.Refused != "" {
			t.Errorf("%s: %+v", w.Kind, a)
		}
	}
	want(r.a, bob, steer.Want{ID: "same", Kind: failover.Approve})
	r.serve(r.a)
	until(t, "following: a", func() bool { return r.passive(r.a) && r.metric(r.a, "follow_seconds") < 2 })

	since = time.Now()
	r.signal(r.b, syscall.SIGSTOP)
	// The same approval, and an answer that is given to nobody else yet, wait at who
	// stands still for as long as it does.
	answer := steer.Want{ID: "late", Kind: failover.Answer, Step: "call", Note: "they know"}
	late := r.tardy(r.b, carla, requests, steer.Want{ID: "same", Kind: failover.Approve}, answer)
	want(r.b, carla, steer.Want{ID: "same", Kind: failover.Approve})
	t.Logf("stopped: the second approval is acknowledged %s later", time.Since(since).Round(time.Millisecond))
	look := func(enough func(now api.RunStanding) bool) {
		t.Helper()
		r.must(r.insist(r.a, r.token, "GET", "/projects/"+project+"/runs/"+run.Run, nil, func(text []byte) bool {
			var now api.RunStanding
			return json.Unmarshal(text, &now) == nil && enough(now)
		}))
	}
	look(func(now api.RunStanding) bool { // it would take the answer, if who wakes up could give it
		return slices.ContainsFunc(now.Offers, func(o failover.Offer) bool { return o.Kind == failover.Answer })
	})
	r.signal(r.b, syscall.SIGCONT)
	// The approval is in the vault by now, and it may say so. The answer is not, and it
	// must not leave it there.
	codes := late()
	t.Logf("woken: it answers %d", codes)
	if codes[1]/100 == 2 {
		t.Error("the console that woke up acknowledged what it was asked before")
	}
	until(t, "passive again", func() bool { return r.passive(r.b) })
	wanted := []string{"approve by bob@console/acme", "approve by carla@console/acme"}
	r.left(site.in, run.Run, wanted)
	want(r.b, carla, answer) // of who is active the run takes it
	look(func(now api.RunStanding) bool {
		if now.Run.Over && now.Run.State != failover.Completed {
			t.Errorf("the run is %s", now.Run.State)
		}
		return now.Run.Over
	})
	r.left(site.in, run.Run, append(wanted, "answer by carla@console/acme"))
	r.once(site, run.Run)
}

// left fails unless just that was wanted of a run, each once.
func (r *rig) left(in *vault.Project, run string, want []string) {
	r.t.Helper()
	got, err := wishes(r.t.Context(), in, run)
	r.must(err)
	if !slices.Equal(got, want) {
		r.t.Errorf("wanted of the run: %q, want %q", got, want)
	}
}

// wishes are what was wanted of a run, the oldest first.
func wishes(ctx context.Context, in *vault.Project, run string) (got []string, err error) {
	all, err := mailbox.New(in).Newest(ctx, run, 10)
	for _, a := range slices.Backward(all) {
		got = append(got, string(a.Kind)+" by "+a.By)
	}
	return got, err
}

// once fails unless the run was begun once, by no console that had been replaced, and
// the audit log has who wanted what.
func (r *rig) once(site *carrier, run string) {
	r.t.Helper()
	site.mu.Lock()
	defer site.mu.Unlock()
	if all := slices.Collect(maps.Values(site.begun)); len(all) != 1 || all[0] != run || !slices.IsSorted(site.epochs) {
		r.t.Errorf("begun: %q, want %q; asked for in epochs %d", all, run, site.epochs)
	}
	var log api.Audit
	r.must(r.insist(r.a, r.token, "GET", "/projects/"+project+"/audit?action=run.*&object="+run, nil, func(text []byte) bool { return json.Unmarshal(text, &log) == nil }))
	by := map[string]bool{}
	for _, e := range log.Items {
		by[e.Action+" "+e.By] = true
	}
	for _, want := range []string{"run.approve user/bob", "run.approve user/carla", "run.answer user/carla"} {
		if !by[want] {
			r.t.Errorf("the audit log has no %s: %v", want, by)
		}
	}
}

// tardy asks a console that does not answer now, and returns what it answers when it
// does; 0: nothing.
func (r *rig) tardy(c *console, token, path string, all ...any) (answers func() []int) {
	codes := make([]int, len(all))
	var asked sync.WaitGroup
	for i, w := range all {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(r.t.Context(), patience)
			defer cancel()
			body, err := json.Marshal(w)
			if err == nil {
				codes[i], _, err = r.ask(ctx, c, token, http.MethodPost, "/api/v1"+path, string(body))
			}
			if err != nil {
				codes[i] = 0
			}
		})
	}
	return func() []int { asked.Wait(); return codes }
}
