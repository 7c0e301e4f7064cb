package takeover_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
)

// scene is a phase of a run in which the active console is taken away.
type scene struct {
	name string
	site string // whose agent begins it
	// held is what the site does then, such as "act claim/shop", and goes on with when the
	// other console has shown it; empty: the run waits for people.
	held      string
	steps     string // of the plan, besides those that Davit puts in
	approvals int
	waits     bool   // for its commit
	breaks    string // a step that fails the first time
	unproven  bool   // nothing proves that the source has stopped
	// before brings the run there, and after to its end.
	before, after []wish
	// late is what is asked of the console that stands still, and must not come to count.
	late  steer.Want
	shows failover.Phase // empty: nobody has the run yet
	ends  failover.Phase
}

// wish is what a person wants of a run.
type wish struct {
	by string
	steer.Want
}

func wants(by string, kind failover.EventKind, more ...string) wish {
	w := wish{by, steer.Want{ID: string(kind[:3]), Kind: kind}}
	for _, one := range more {
		switch kind {
		case failover.RollBack:
			w.Typed = one
		case failover.Consent:
			w.Site, w.Typed = one, one
		default:
			w.Step = one
		}
	}
	return w
}

var (
	pause    = steer.Want{ID: "late", Kind: failover.Pausing}
	cancel   = steer.Want{ID: "late", Kind: failover.Cancel}
	takeBack = steer.Want{ID: "late", Kind: failover.RollBack}
)

// typed is a want with the target's name, as what loses data takes it.
func typed(w steer.Want) steer.Want { w.Typed = "west"; return w }

// scenes are all phases. Every step of a failover has two: it is about to be done, and it is
// being done.
func scenes(t *testing.T) []scene {
	manual := "{name: call, kind: manual, prompt: Call the staff, side: target, timeout: 30m0s, after: [ready/shop]}"
	gate := "{name: allow, kind: approval, prompt: May it be seen, timeout: 30m0s, after: [ready/shop]}"
	all := []scene{
		{name: "requested of who stands still", site: "west"},
		{name: "acknowledged", site: "north"},
		{name: "handed to the agent", site: "south"},
		{name: "begun and not said", site: "far"},
		{name: "pending", held: "begin"},
		{name: "evaluating", held: "evaluate", late: cancel, shows: failover.Evaluating},
		{
			name: "approved by one of two", approvals: 2, late: cancel, shows: failover.AwaitingApproval,
			before: []wish{wants("bob", failover.Approve)}, after: []wish{wants("carla", failover.Approve)},
		},
		{name: "to be approved, and rejected", approvals: 2, late: cancel, shows: failover.AwaitingApproval, after: []wish{wants("bob", failover.Reject)}, ends: failover.Canceled},
		{name: "a person's step", steps: manual, late: takeBack, shows: failover.Paused, after: []wish{wants("bob", failover.Answer, "call")}},
		{name: "an approval's step", steps: gate, late: takeBack, shows: failover.Paused, after: []wish{wants("bob", failover.Answer, "allow")}},
		{name: "consent", unproven: true, late: takeBack, shows: failover.Paused, after: []wish{wants("bob", failover.Consent, "east")}},
		{
			name: "paused by a person", held: "act scale/shop", late: takeBack, shows: failover.Paused,
			before: []wish{wants("bob", failover.Pausing)}, after: []wish{wants("bob", failover.Resume)},
		},
		{name: "paused by a failure", breaks: "apply/shop", late: takeBack, shows: failover.Paused, after: []wish{wants("bob", failover.Retry, "apply/shop")}},
		{name: "verifying", held: "verify", late: pause, shows: failover.Verifying},
		{name: "to be committed", waits: true, late: typed(takeBack), shows: failover.AwaitingCommit, after: []wish{wants("bob", failover.Commit)}},
		{
			name: "to be committed, and taken back", waits: true, late: steer.Want{ID: "late", Kind: failover.Commit}, shows: failover.AwaitingCommit,
			after: []wish{wants("bob", failover.RollBack, "west")}, ends: failover.RolledBack,
		},
		{
			name: "rolling back", held: "undo claim/shop", waits: true, late: pause, shows: failover.RollingBack,
			before: []wish{wants("bob", failover.RollBack, "west")}, ends: failover.RolledBack,
		},
		{name: "ended", held: "report", shows: failover.Completed},
		{name: "reported", shows: failover.Completed},
	}
	of, err := document.Parse(planText(t, "any", "west", ""))
	if err != nil {
		t.Fatal(err)
	}
	g, err := of.Graph(plan.Failover)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range g.Steps {
		for _, does := range []failover.Action{failover.Look, failover.Act} {
			at := string(does) + " " + step.Name
			all = append(all, scene{name: at, held: at, late: pause, shows: failover.Running})
		}
	}
	for i := range all {
		if all[i].site == "" {
			all[i].site = "west"
		}
		if all[i].ends == "" {
			all[i].ends = failover.Completed
		}
	}
	return all
}

func planText(t *testing.T, name, to, steps string) []byte {
	t.Helper()
	text, err := yaml.YAMLToJSON(fmt.Appendf(nil, `apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: %s}
spec:
  sites: [{name: east}, {name: %s}]
  fence: {timeout: 30s}
  applications: [{name: shop, probes: [{kind: http, target: "http://web.shop/health", timeout: 10s}]}]
  steps: [%s]
  traffic: [{name: entrance, kind: gate, object: entrance}]
`, name, to, steps))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// play is a run that is brought to its scene.
type play struct {
	scene
	t       *testing.T
	in      *vault.Project
	of      *plan.Plan
	id      string
	began   chan struct{} // closed when it is known whether the run was begun
	refused error         // why not
	at      chan struct{} // closed when the site holds
	on      chan struct{} // closed when it may go on
	over    chan struct{} // closed when the run is over and reported
	run     string        // its name, once it was acknowledged
	err     error

	mu   sync.Mutex
	once sync.Once
	acts map[string]int // how often each step was done or taken back
	done map[string]bool
}

// hold waits where the scene says so; false: whoever asked does not wait any more.
func (p *play) hold(ctx context.Context, where string) bool {
	if where != p.held {
		return true
	}
	p.once.Do(func() { close(p.at) })
	select {
	case <-p.on:
		return true
	case <-ctx.Done():
		return false
	}
}

// Do is what a site does, which is nothing but to note it.
func (p *play) Do(ctx context.Context, o execute.Order) execute.Answer {
	if !p.hold(ctx, string(o.Action)+" "+o.Step.Name) {
		return execute.Unknown("nobody waits any more")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	did := string(o.Action) + " " + o.Step.Name
	switch {
	case o.Action == failover.Look && !p.done[o.Step.Name]:
		return execute.NotDone("")
	case o.Action == failover.Act && o.Step.Name == p.breaks && p.acts["broke "+p.breaks] == 0:
		p.acts["broke "+p.breaks]++
		return execute.Refuse("it breaks")
	case o.Action == failover.Act && o.Step.Kind == plan.KindFence && p.unproven:
		return execute.Refuse("nobody is there")
	case o.Action != failover.Look:
		p.acts[did]++
		p.done[o.Step.Name] = o.Action == failover.Act
	}
	a := execute.Done("")
	switch o.Step.Kind {
	case plan.KindClaim:
		a.Epoch = o.Token.Epochs[o.Step.Application]
	case plan.KindFence:
		a.Proof = &failover.Proof{Application: o.Step.Application, Site: o.Site, Epoch: o.Token.Epochs[o.Step.Application], How: "stopped"}
	}
	return a
}

// Evaluate and Verify are what the site sees.
func (p *play) Evaluate(ctx context.Context, s failover.Spec) (*failover.Facts, error) {
	if !p.hold(ctx, "evaluate") {
		return nil, ctx.Err()
	}
	return &failover.Facts{Epochs: map[string]failover.Held{"shop": {Number: 4, Site: s.From}}, Holders: map[string][]string{"shop": {s.From}}}, nil
}

func (p *play) Verify(ctx context.Context, _ *failover.State) (failover.Outcome, string, string) {
	if !p.hold(ctx, "verify") {
		return failover.NoAnswer, "", ""
	}
	return failover.Done, "", ""
}

// carry has an executor carry the run, with a journal and a mailbox in the vault, and
// reports it then, as an agent does.
func (p *play) carry(b uplink.Begin, work *sync.WaitGroup) error {
	g, err := p.of.Graph(plan.Verb(b.Verb))
	if err != nil {
		return err
	}
	for i := range g.Steps {
		g.Steps[i].Timeout = time.Hour // what is held is no failure
	}
	spec := failover.Spec{
		Run: b.Run, Plan: b.Plan, Verb: plan.Verb(b.Verb), From: "east", To: p.site, By: b.By, At: time.Now(), Accept: failover.TimedOut,
		Applications: []string{"shop"}, Steps: g.Steps, Fence: p.of.Fence, Approvals: p.approvals,
	}
	if !p.waits {
		spec.Commit = plan.Commit{Then: plan.ThenCommit}
	}
	by := "agent " + p.site
	m, err := failover.New(by, spec)
	if err != nil {
		return err
	}
	x := execute.New(execute.Options{Run: b.Run, Machine: m, Journal: journal.Create(p.in, b.Run, by), Actuator: p, Survey: p, Requests: mailbox.New(p.in)})
	ctx, stop := context.WithCancel(context.WithoutCancel(p.t.Context()))
	p.t.Cleanup(func() { stop(); work.Wait() })
	work.Go(func() {
		p.hold(ctx, "begin")
		_, err := x.Run(ctx)
		if err == nil && p.hold(ctx, "report") {
			_, err = evidence.Publish(ctx, p.in, b.Run)
		}
		if err != nil && ctx.Err() == nil {
			p.t.Errorf("%s: %v", p.name, err)
		}
		close(p.over)
	})
	return nil
}

// stage is a rig with sites that carry runs.
type stage struct {
	*rig
	in    *vault.Project
	sites map[string]*carrier
	lines []*line  // of site north
	all   []*agent // who calls the consoles
	lined []*agent // who comes by the lines
	hands map[string]string
	plays map[string]*play // by plan
	mu    sync.Mutex
}

func newStage(t *testing.T, at place) *stage {
	t.Helper()
	s := &stage{rig: newRig(t, at), sites: map[string]*carrier{}, hands: map[string]string{}, plays: map[string]*play{}}
	s.in = s.project()
	for _, name := range []string{"bob", "carla"} {
		s.hands[name] = s.person(name, "recoverer")
	}
	for _, c := range []*console{s.a, s.b} {
		s.lines = append(s.lines, newLine(t, strings.TrimPrefix(c.url, "https://")))
	}
	direct := []string{s.a.url, s.b.url}
	for _, name := range []string{"west", "south", "far"} {
		s.all = append(s.all, s.carries(s.a, name, direct, inVault{s.in}, s.site(name)))
	}
	s.back(s.all, s.a)
	// North comes by its lines alone, so it does not look in the vault for another way.
	north := s.byLines(s.a, "north")
	until(t, "north", func() bool { return north.status().Connected })
	s.lined = append(s.lined, north)
	return s
}

// byLines lets a site in that comes by the lines alone.
func (s *stage) byLines(at *console, name string) *agent {
	s.t.Helper()
	return s.carries(at, name, []string{"https://" + s.lines[0].address, "https://" + s.lines[1].address}, nil, s.site(name))
}

func (s *stage) site(name string) *carrier {
	c := newCarrier(s.t, s.in)
	c.carries = func(b uplink.Begin) error {
		s.mu.Lock()
		p := s.plays[b.Plan]
		s.mu.Unlock()
		if p == nil {
			return fmt.Errorf("no plan %s", b.Plan)
		}
		return p.carry(b, &c.work)
	}
	s.sites[name] = c
	return c
}

// each does something for every play at once, and notes what is wrong with one.
func each(all []*play, do func(p *play) error) {
	var doing sync.WaitGroup
	for _, p := range all {
		doing.Go(func() {
			if p.err == nil {
				p.err = do(p)
			}
		})
	}
	doing.Wait()
}

// set has the vault have the plans of all scenes, and the sites be slow where those say so.
func (s *stage) set(act string) (all []*play) {
	s.t.Helper()
	for name, c := range s.sites {
		c.mu.Lock()
		c.hold, c.mum = make(chan struct{}), nil
		if name != "south" {
			close(c.hold)
		}
		if name == "far" {
			c.mum = make(chan struct{})
		}
		c.mu.Unlock()
	}
	for i, sc := range scenes(s.t) {
		all = append(all, s.play(fmt.Sprintf("%s-%02d", act, i), sc))
	}
	return all
}

// play has the vault have a plan for a scene.
func (s *stage) play(name string, sc scene) *play {
	s.t.Helper()
	text := planText(s.t, name, sc.site, sc.steps)
	of, err := document.Parse(text)
	s.must(err)
	_, err = shelf.New(s.in).Put(s.t.Context(), shelf.Sheet{Plan: name, At: time.Now(), Site: "east", Document: text})
	s.must(err)
	p := &play{
		scene: sc, t: s.t, in: s.in, of: of, id: strings.Repeat("0", 16) + name, began: make(chan struct{}),
		at: make(chan struct{}), on: make(chan struct{}), over: make(chan struct{}), acts: map[string]int{}, done: map[string]bool{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plays[name] = p
	return p
}

// letOn has the sites that hold requests go on with them.
func (s *stage) letOn() {
	for _, l := range s.lines {
		l.be(open)
	}
	close(s.sites["south"].hold)
	close(s.sites["far"].mum)
}

func (p *play) request() api.NewRun { return api.NewRun{ID: p.id, Verb: "failover", To: p.site} }

func (p *play) path() string { return "/projects/" + project + "/plans/" + p.of.Name + "/runs" }

// begin asks for the run until that is acknowledged.
func (s *stage) begin(p *play, first *console) {
	go func() {
		defer close(p.began)
		var shown begin.Shown
		p.refused = s.insist(first, s.token, "POST", p.path(), p.request(), func(text []byte) bool {
			return json.Unmarshal(text, &shown) == nil && shown.State == uplink.Created
		})
		p.run = shown.Run
	}()
}

// requested tells whether the request is what the scene is about.
func (p *play) requested() bool { return p.shows == "" && p.held == "" }

// bring brings the run to its scene.
func (s *stage) bring(p *play, active *console) error {
	site := s.sites[p.site]
	switch {
	case p.requested() && p.site == "west":
		return nil
	case p.site == "north": // in the vault, and on its way
		s.begin(p, active)
		return soon(p.name, func() bool { return s.asked(p, active) == begin.Waiting && s.metric(active, "journal_waiting") == 0 })
	case p.site == "south":
		s.begin(p, active)
		return soon(p.name, func() bool { asked, _ := site.knows(p.id); return asked })
	case p.site == "far":
		s.begin(p, active)
		return soon(p.name, func() bool { _, begun := site.knows(p.id); return begun })
	}
	s.begin(p, active)
	<-p.began
	if p.refused != nil {
		return p.refused
	}
	back := strings.HasPrefix(p.held, string(failover.Undo))
	if back {
		if err := soon("to be committed", func() bool { return s.stands(p, active) == failover.AwaitingCommit }); err != nil {
			return err
		}
	} else if err := p.arrive(); err != nil {
		return err
	}
	for _, w := range p.before {
		if err := s.want(p, active, w); err != nil {
			return err
		}
	}
	if err := p.arrive(); err != nil {
		return err
	}
	return s.shown(p, active)
}

// arrive waits until the site holds where it is to.
func (p *play) arrive() error {
	if p.held == "" {
		return nil
	}
	select {
	case <-p.at:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the site never came to %s", p.held)
	}
}

// soon waits for a condition.
func soon(what string, fn func() bool) error {
	for end := time.Now().Add(patience); !fn(); time.Sleep(between) { // between two looks
		if time.Now().After(end) {
			return fmt.Errorf("not %s", what)
		}
	}
	return nil
}

// get asks a console for a document; false: it does not give it.
func (s *stage) get(c *console, path string, into any) bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), askLimit)
	defer cancel()
	code, text, err := s.ask(ctx, c, s.token, http.MethodGet, "/api/v1/projects/"+project+path, "")
	return err == nil && code == http.StatusOK && json.Unmarshal(text, into) == nil
}

// asked is how a console shows the request; empty: it does not know it.
func (s *stage) asked(p *play, c *console) string {
	var now begin.Shown
	s.get(c, "/requests/"+p.id, &now)
	return now.State
}

// stands is how a console shows the run; empty: it does not know it.
func (s *stage) stands(p *play, c *console) failover.Phase {
	var now api.RunStanding
	s.get(c, "/runs/"+p.run, &now)
	return now.Run.State
}

// shown waits until a console shows the run as it stands.
func (s *stage) shown(p *play, c *console) error {
	switch {
	case p.requested() && p.site == "west": // it is not there yet
		return nil
	case p.requested():
		return soon("shown as asked for", func() bool { return s.asked(p, c) == begin.Waiting })
	case p.shows == "":
		return soon("shown as made", func() bool { return s.asked(p, c) == uplink.Created })
	}
	return soon("shown as "+string(p.shows), func() bool { return s.stands(p, c) == p.shows })
}

// want has a person want something until the run has taken it.
func (s *stage) want(p *play, first *console, w wish) error {
	var a steer.Asked
	err := s.insist(first, s.hands[w.by], "POST", "/projects/"+project+"/runs/"+p.run+"/requests", w.Want, func(text []byte) bool {
		return json.Unmarshal(text, &a) == nil && a.Answered
	})
	if err == nil && a.Refused != "" {
		err = fmt.Errorf("%s: %s", w.Kind, a.Refused)
	}
	return err
}

// finish has the run go on to its end at the console that is active now, and looks that it
// ended as it should, with nothing done twice.
func (s *stage) finish(p *play, active *console) error {
	close(p.on)
	if p.requested() {
		<-p.began
		if p.refused != nil {
			return p.refused
		}
	}
	for _, w := range p.after {
		if err := s.want(p, active, w); err != nil {
			return err
		}
	}
	select {
	case <-p.over:
	case <-time.After(patience):
		return fmt.Errorf("it does not end: it is %s", s.stands(p, active))
	}
	if got := s.stands(p, active); got != p.ends {
		return fmt.Errorf("it ended as %s, want %s", got, p.ends)
	}
	return errors.Join(p.acted(), s.wished(p), s.reported(p, active))
}

// acted fails unless each step was done once, and, where the run was taken back, undone.
func (p *play) acted() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := map[string]int{}
	g, err := p.of.Graph(plan.Failover)
	if err != nil {
		return err
	}
	for _, step := range g.Steps {
		if step.Asks() || p.ends == failover.Canceled || p.unproven && step.Kind == plan.KindFence {
			continue
		}
		want["act "+step.Name] = 1
		if p.ends == failover.RolledBack && step.Undoable() {
			want["undo "+step.Name] = 1
		}
	}
	if p.breaks != "" {
		want["broke "+p.breaks] = 1
	}
	if !maps.Equal(p.acts, want) {
		return fmt.Errorf("done: %v, want %v", p.acts, want)
	}
	return nil
}

// wished fails unless the run was asked for just what it was to be asked, each once.
func (s *stage) wished(p *play) error {
	var want []string
	for _, w := range append(slices.Clone(p.before), p.after...) {
		want = append(want, string(w.Kind)+" by "+w.by+"@console/"+project)
	}
	got, err := wishes(s.t.Context(), s.in, p.run)
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("wanted of the run: %q, want %q", got, want)
	}
	return err
}

// reported fails unless a console hands out the report of the run, as it ended.
func (s *stage) reported(p *play, c *console) error {
	q, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, c.url+"/p/"+project+"/runs/"+p.run+"/report/json", nil)
	if err != nil {
		return err
	}
	q.AddCookie(&http.Cookie{Name: "__Host-davit", Value: s.token})
	answer, err := s.web.Do(q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || !strings.Contains(string(text), string(p.ends))) {
		err = fmt.Errorf("the report: %d %.200s", answer.StatusCode, text)
	}
	return err
}

// act has every scene be on at once, takes the active console away, by killing it or by
// having it stand still, and has the other one bring all runs to their ends.
func (s *stage) act(name string, active, other *console, kill bool) (all []*play) {
	all = s.set(name)
	for _, l := range s.lines { // what is handed to north arrives later
		l.be(mute)
	}
	each(all, func(p *play) error { return s.bring(p, active) })
	s.signal(active, syscall.SIGSTOP)
	since := time.Now()
	late := map[*play]func() []int{}
	for _, p := range all {
		switch {
		case p.err != nil:
		case p.late.Kind != "":
			late[p] = s.tardy(active, s.hands["bob"], "/projects/"+project+"/runs/"+p.run+"/requests", p.late)
		case p.requested() && p.site == "west":
			late[p] = s.tardy(active, s.token, p.path(), p.request())
			s.begin(p, active)
		}
	}
	if kill {
		s.signal(active, syscall.SIGKILL)
	}
	took := s.takes(other, since)
	each(all, func(p *play) error { return s.shown(p, other) })
	s.t.Logf("%s: taken over in %s, all %d runs shown as they stand in %s", name, took, len(all), time.Since(since).Round(time.Millisecond))
	var before, after []*play
	for i, p := range all { // what a console wakes up to is what others did meanwhile, or left
		if kill || i%2 == 0 && !p.requested() {
			before = append(before, p)
		} else {
			after = append(after, p)
		}
	}
	if kill {
		s.letOn()
	}
	each(before, func(p *play) error { return s.finish(p, other) })
	if !kill {
		s.signal(active, syscall.SIGCONT)
	}
	for p, answers := range late {
		if code := answers()[0]; code/100 == 2 && !p.requested() {
			p.err = errors.Join(p.err, fmt.Errorf("the console that was taken away acknowledged %s", p.late.Kind))
		}
	}
	if !kill {
		until(s.t, "passive again", func() bool { return s.passive(active) })
		s.letOn()
	}
	each(after, func(p *play) error { return s.finish(p, other) })
	for _, p := range all {
		s.t.Run(name+" while "+p.name, func(t *testing.T) {
			if p.err != nil {
				t.Error(p.err)
			}
		})
	}
	s.logged(all, other)
	s.t.Logf("%s: all over %s after the loss", name, time.Since(since).Round(time.Millisecond))
	return all
}

// logged fails unless each run was asked for once, and begun once, by the audit log, by its
// site, and by no console that had been replaced.
func (s *stage) logged(all []*play, at *console) {
	s.t.Helper()
	noted := map[string]int{}
	for _, action := range []string{"run.request", "run.created"} {
		var log api.Audit
		s.call(at, s.token, http.MethodGet, "/projects/"+project+"/audit?limit=1000&action="+action, nil, &log)
		for _, e := range log.Items {
			noted[action+" "+e.Object]++
		}
	}
	for _, p := range all {
		if n, m := noted["run.request "+p.run], noted["run.created "+p.run]; n != 1 || m != 1 {
			s.t.Errorf("%s: the audit log has %d times that run %s was asked for, and %d times that it was made", p.name, n, p.run, m)
		}
	}
	for name, c := range s.sites {
		c.mu.Lock()
		if !slices.IsSorted(c.epochs) {
			s.t.Errorf("site %s was asked in epochs %d", name, c.epochs)
		}
		for id, run := range c.begun {
			if p := s.plays[id[16:]]; p == nil || p.run != run {
				s.t.Errorf("site %s has begun %s for request %s", name, run, id)
			}
		}
		c.mu.Unlock()
	}
}

// The active console is killed, and another time stopped and woken, with a run in each phase
// that there is. The other one shows each as it stands and brings it to its end; nothing that
// was acknowledged is lost or done twice, and one that wakes up commands nothing.
func TestLostInEveryPhase(t *testing.T) {
	t.Parallel()
	s := newStage(t, directory(t))
	s.act("killed", s.a, s.b, true)
	s.serve(s.a)
	until(t, "following: a", func() bool { return s.passive(s.a) && s.metric(s.a, "follow_seconds") < 2 })
	all := s.act("stopped", s.b, s.a, false)
	s.seen(all[len(all)-1])
}

// seen is the control of what finish looks for: a step that was done twice, and what a
// console that was replaced left for a run, are seen.
func (s *stage) seen(p *play) {
	s.t.Helper()
	p.acts["act claim/shop"]++
	if p.acted() == nil {
		s.t.Error("a step that was done twice is not seen")
	}
	_, err := mailbox.New(s.in).Put(s.t.Context(), p.run, execute.Request{ID: "late", Kind: p.late.Kind, By: "bob@console/" + project, At: time.Now()})
	s.must(err)
	if s.wished(p) == nil {
		s.t.Error("what was left for a run is not seen")
	}
}
