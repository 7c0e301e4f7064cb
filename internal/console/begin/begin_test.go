package begin

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/failover/name"
	"davit.dev/davit/internal/plan"
)

type desk struct {
	*Desk
	t       *testing.T
	project *store.Project
	known   fleet.Known
	now     time.Time
}

// newDesk is that of a project with plan shop, at whose site west all runs may be
// begun: vera views, olaf operates, rita recovers.
func newDesk(t *testing.T) *desk {
	t.Helper()
	ctx := t.Context()
	c, err := store.Create(ctx, filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	d := &desk{t: t, now: time.Date(2026, 11, 27, 4, 5, 6, 0, time.UTC)}
	if d.project, err = c.CreateProject(ctx, d.act("anna"), "acme"); err != nil {
		t.Fatal(err)
	}
	for name, role := range map[string]account.Role{"anna": account.Admin} {
		d.member(name, role)
	}
	for name, role := range map[string]account.Role{"vera": account.Viewer, "olaf": account.Operator, "rita": account.Recoverer} {
		d.member(name, role)
	}
	text, err := yaml.YAMLToJSON([]byte(consoletest.PlanText))
	if err != nil {
		t.Fatal(err)
	}
	view := &ahead.View{Plans: []ahead.Plan{{Name: "shop", To: "west", Document: text}}}
	d.known = fleet.Known{Snapshot: &fleet.Snapshot{Ahead: view}, Agents: []fleet.Agent{{Site: "west", Connected: true, Runs: "all"}, {Site: "east", Connected: true, Runs: "none"}}}
	door := entry.NewDoor(c, account.Cost{Passes: 1, Memory: 64, Threads: 1}, func() time.Time { return d.now }, slog.New(slog.DiscardHandler))
	d.Desk = &Desk{Door: door, Fleet: func(*store.Project) fleet.Known { return d.known }}
	return d
}

func (d *desk) act(name string) audit.Act { return audit.Act{By: "user/" + name, At: d.now} }

func (d *desk) member(name string, role account.Role) {
	d.t.Helper()
	if err := d.project.SetMember(d.t.Context(), d.act("anna"), store.Member{User: "id-" + name, Name: name, Role: role}); err != nil {
		d.t.Fatal(err)
	}
}

func person(name string) entry.Who {
	return entry.Who{Name: "user/" + name, Session: &store.Session{User: store.User{ID: "id-" + name, Name: name}}}
}

func ask(id string, verb plan.Verb) Ask {
	return Ask{ID: strings.Repeat("0", 16) + id, Plan: "shop", Verb: verb}
}

// take asks, and does not wait for an answer that will not come.
func (d *desk) take(who entry.Who, a Ask) (store.Request, error) {
	ctx, cancel := context.WithCancel(d.t.Context())
	defer cancel()
	answered := make(chan struct{})
	defer close(answered)
	go func() { // the site's answer, once it was asked
		for {
			changed := d.project.Changed()
			all, err := d.project.Unanswered(ctx, "west", d.now)
			if err == nil && len(all) > 0 {
				_ = d.project.HearAgents(ctx, []store.Word{{Site: "west", At: d.now, Begun: []store.Answer{{ID: all[0].ID, State: "created"}}}})
			}
			select {
			case <-answered:
				return
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return d.Take(ctx, d.project, who, audit.Act{By: who.Name, At: d.now}, a)
}

// Viewers begin nothing, operators drills, recoverers all; a robot what its scope
// says; and the run bears the name of whoever asked.
func TestRoles(t *testing.T) {
	d := newDesk(t)
	robot := func(scopes ...account.Permission) entry.Who {
		return entry.Who{Name: "robot/ci", Token: &store.Token{Name: "ci", By: "user/rita", Scopes: scopes}}
	}
	n := 0
	for _, test := range []struct {
		who  entry.Who
		verb plan.Verb
		may  bool
	}{
		{person("vera"), plan.Drill, false},
		{person("vera"), plan.Failover, false},
		{person("olaf"), plan.Drill, true},
		{person("olaf"), plan.Failover, false},
		{person("olaf"), plan.Switchover, false},
		{person("olaf"), plan.Failback, false},
		{person("rita"), plan.Drill, true},
		{person("rita"), plan.Failover, true},
		{person("rita"), plan.Switchover, true},
		{person("rita"), plan.Failback, true},
	} {
		n++
		r, err := d.take(test.who, ask(string(rune('a'+n)), test.verb))
		if (err == nil) != test.may || !test.may && !errors.Is(err, entry.ErrForbidden) {
			t.Errorf("%s, %s: %+v, %v", test.who.Name, test.verb, r, err)
		}
	}
	if _, err := d.take(person("nobody"), ask("z", plan.Drill)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if Need(robot(account.Protect), plan.Drill) != account.Recover || Need(person("olaf"), plan.Drill) != account.Protect {
		t.Error("a robot drills without the scope recover")
	}
	if got := robot().InRuns("acme"); got != "rita/ci@console/acme" || !name.SamePerson(got, "rita") {
		t.Error(got)
	}
}

// Each refusal is before anything is kept; without what it is about the same is
// taken.
func TestRefused(t *testing.T) {
	d := newDesk(t)
	agents, snapshot := d.known.Agents, *d.known.Snapshot
	under := fleet.Run{Result: failover.Result{Run: "shop-failover-1", Plan: "shop", Verb: plan.Failover}, To: "west"}
	for name, test := range map[string]struct {
		change func(a *Ask)
		why    string
	}{
		"no verb":          {func(a *Ask) { a.Verb = "restore" }, "there is no run"},
		"no id":            {func(a *Ask) { a.ID = "short" }, "id"},
		"another plan":     {func(a *Ask) { a.Plan = "cash" }, "find plan cash"},
		"another site":     {func(a *Ask) { a.To = "north" }, "does not name site"},
		"lost in a drill":  {func(a *Ask) { a.Verb, a.Lost = plan.Drill, []string{"east"} }, "only a failover"},
		"lost target":      {func(a *Ask) { a.Lost = []string{"west"} }, "that could be lost"},
		"point of another": {func(a *Ask) { a.Points = map[string]string{"cash": "x"} }, "not of plan"},
		"move with points": {func(a *Ask) { a.Verb, a.Points = plan.Switchover, map[string]string{"shop": "x"} }, "planned move"},
		"closed site":      {func(a *Ask) { a.To = "east" }, "does not let the console begin runs; `davit enrol --runs"},
		"away":             {func(*Ask) { d.known.Agents = []fleet.Agent{{Site: "west", Runs: "all"}} }, "not connected. Begin it there: `davit failover shop --to west`"},
		"never came":       {func(*Ask) { d.known.Agents = nil }, "no agent of site west"},
		"too old":          {func(*Ask) { d.known.Agents = []fleet.Agent{{Site: "west", Connected: true}} }, "too old"},
		"drills only":      {func(*Ask) { d.known.Agents = []fleet.Agent{{Site: "west", Connected: true, Runs: "drill"}} }, "drills only"},
		"under way":        {func(*Ask) { d.known.Snapshot.Runs = []fleet.Run{under} }, "run shop-failover-1 of plan shop is under way"},
		"nothing read":     {func(*Ask) { d.known.Snapshot.Ahead = nil }, "has not read"},
	} {
		again := snapshot
		d.known.Agents, d.known.Snapshot = agents, &again
		a := ask("r", plan.Failover)
		test.change(&a)
		if _, err := d.take(person("rita"), a); err == nil || !strings.Contains(err.Error(), test.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all, err := d.project.Requests(t.Context(), "", 10); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	again := snapshot
	d.known.Agents, d.known.Snapshot = agents, &again
	over := under
	over.Over = true
	d.known.Snapshot.Runs = []fleet.Run{over}
	if r, err := d.take(person("rita"), ask("r", plan.Failover)); err != nil || r.State != "created" || r.Run != "shop-failover-20261127-040506" {
		t.Errorf("%+v, %v", r, err)
	}
	if Busy(fleet.Known{Snapshot: &fleet.Snapshot{Runs: []fleet.Run{{Result: failover.Result{Run: "d", Plan: "shop", Verb: plan.Drill}}}}}, "shop", "west", plan.Failover) != "" {
		t.Error("a failover waits for a drill")
	}
}

// The same request again, at once and later, is one; another is refused while the
// site may still begin the first.
func TestOnce(t *testing.T) {
	d := newDesk(t)
	first := ask("a", plan.Failover)
	var wait sync.WaitGroup
	runs := make(chan string, 8)
	for range 8 {
		wait.Go(func() {
			r, err := d.project.Request(t.Context(), d.act("rita"), request(t, d, first), "")
			if err != nil {
				t.Error(err)
			}
			runs <- r.Run
		})
	}
	wait.Wait()
	all, err := d.project.Requests(t.Context(), "shop", 10)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := d.project.Request(t.Context(), d.act("anna"), request(t, d, ask("b", plan.Failover)), ""); !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "has not answered yet") {
		t.Errorf("another beside it: %v", err)
	}
	if _, err := d.project.Request(t.Context(), d.act("anna"), request(t, d, first), ""); !errors.Is(err, store.ErrConflict) {
		t.Errorf("another's id: %v", err)
	}
	// Another site says nothing of it, and what was said stays said.
	for _, w := range []store.Word{
		{Site: "east", Begun: []store.Answer{{ID: first.ID, State: "created"}}},
		{Site: "west", Begun: []store.Answer{{ID: first.ID, State: "refused", Why: "no room"}}},
		{Site: "west", Begun: []store.Answer{{ID: first.ID, State: "created"}}},
	} {
		w.At = d.now
		if err := d.project.HearAgents(t.Context(), []store.Word{w}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := d.project.Requested(t.Context(), first.ID)
	if err != nil || r.State != "refused" || r.Why != "no room" {
		t.Fatalf("%+v, %v", r, err)
	}
	log, err := d.project.Audit(t.Context(), 0, 2)
	if err != nil || len(log) != 2 || log[0].Action != "run.refused" || log[0].Refused != "no room" || log[0].By != "agent/west" || log[1].Action != "run.request" || log[1].By != "user/rita" {
		t.Errorf("%+v, %v", log, err)
	}
	d.now = d.now.Add(time.Second)
	if _, err := d.project.Request(t.Context(), d.act("anna"), request(t, d, ask("b", plan.Failover)), ""); err != nil {
		t.Errorf("after the answer: %v", err)
	}
	s, err := Show(r, d.now)
	if err != nil || s.State != "refused" || s.By != "rita@console/acme" {
		t.Errorf("%+v, %v", s, err)
	}
	r.State = ""
	if s, err := Show(r, d.now.Add(Life)); err != nil || s.State != Unknown || !strings.Contains(s.Do, "davit runs show") {
		t.Errorf("%+v, %v", s, err)
	}
}

func request(t *testing.T, d *desk, a Ask) store.Request {
	a.To = "west"
	r, _, err := a.request("rita@console/acme", d.now)
	if err != nil {
		t.Error(err)
	}
	return r
}
