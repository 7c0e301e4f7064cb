package steer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/settlement"
	"davit.dev/davit/internal/settlement/settlementtest"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

// bench is a desk with a project whose vault holds runs that nobody carries.
type bench struct {
	*Desk
	t       *testing.T
	console *store.Console
	project *store.Project
	other   *store.Project
	vault   *fault.Store
	in      *vault.Project
	who     map[string]entry.Who
	act     audit.Act
	// Runs that wait to be approved, of the test that is under way.
	drill, move string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	ctx, now := t.Context(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := &bench{t: t, vault: fault.New(mem.New(time.Now), 1, fault.Faults{}), who: map[string]entry.Who{}, act: audit.Act{By: "machine/test", At: now}}
	var err error
	b.console, err = store.Create(ctx, filepath.Join(t.TempDir(), "console"))
	b.must(err)
	t.Cleanup(func() {
		if err := b.console.Close(); err != nil {
			t.Error(err)
		}
	})
	b.in, _, err = consoletest.New(ctx, b.vault, "acme")
	b.must(err)
	b.project, err = b.console.CreateProject(ctx, b.act, "acme")
	b.must(err)
	b.other, err = b.console.CreateProject(ctx, b.act, "other")
	b.must(err)
	door := entry.NewDoor(b.console, account.Cost{Passes: 1, Memory: 64, Threads: 1}, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	b.Desk = &Desk{Door: door, Open: func(context.Context, *store.Project) (*vault.Project, error) { return b.in, nil }}
	for _, role := range []account.Role{account.Admin, account.Recoverer, account.Operator, account.Viewer, ""} {
		name := string(role)
		if role == "" {
			name = "stranger"
		}
		user, err := b.console.CreateUser(ctx, b.act, store.User{Name: name, Password: "x", Administrator: role == ""})
		b.must(err)
		if role != "" {
			b.must(b.project.SetMember(ctx, b.act, store.Member{User: user.ID, Name: name, Role: role}))
		}
		b.who[name] = entry.Who{Name: "user/" + name, Session: &store.Session{User: user}}
	}
	b.who["reader"] = b.robot(b.project, account.Read)
	b.who["protector"] = b.robot(b.project, account.Read, account.Protect)
	b.who["machine"] = b.robot(b.project, account.Read, account.Recover)
	b.who["foreign"] = b.robot(b.other, account.Read, account.Recover)
	return b
}

// One bench serves all: to make its databases takes longer than the tests. Each has
// runs of its own.
func TestDesk(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"Roles", b.testRoles},
		{"Groups", b.testGroups},
		{"Once", b.testOnce},
		{"LogFirst", b.testLogFirst},
		{"Silent", b.testSilent},
		{"Refusals", b.testRefusals},
		{"Typed", b.testTyped},
		{"Late", b.testLate},
		{"Said", b.testSaid},
		{"Settled", b.testSettled},
	} {
		b.drill, b.move = strings.ToLower(c.name)+"-drill", strings.ToLower(c.name)+"-failover"
		b.run(b.drill, plan.Drill)
		b.run(b.move, plan.Failover)
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			c.test(t)
		})
		b.t = t
	}
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) robot(p *store.Project, scopes ...account.Permission) entry.Who {
	b.t.Helper()
	id, token, hash, err := account.NewRobot()
	b.must(err)
	b.must(p.CreateToken(b.t.Context(), audit.Act{By: "user/admin", At: b.act.At}, store.Token{ID: id, Name: "nightly", Hash: hash, Scopes: scopes, Expires: b.act.At.Add(time.Hour)}))
	who, err := b.Door.Robot(b.t.Context(), p, token)
	b.must(err)
	return who
}

// run writes the journal of a run that waits to be approved.
func (b *bench) run(name string, verb plan.Verb, more ...failover.Entry) {
	b.t.Helper()
	spec := &failover.Spec{
		Run: name, Plan: "shop", Verb: verb, From: "east", To: "west", By: "zoe@console/acme", At: b.act.At, Accept: failover.TimedOut, Applications: []string{"shop"}, Approvals: 1,
		Steps: []plan.Step{
			{Name: "call", Kind: plan.KindManual, Prompt: "Call", Timeout: time.Hour},
			{Name: "claim/shop", Kind: plan.KindClaim, Application: "shop", Timeout: time.Minute, After: []string{"call"}},
		},
	}
	facts := &failover.Facts{Epochs: map[string]failover.Held{"shop": {Number: 1, Site: "east"}}, Holders: map[string][]string{"shop": {"east"}}}
	entries := []failover.Entry{
		{Kind: failover.Opened, At: b.act.At, Spec: spec}, {Kind: failover.Took, At: b.act.At, By: "agent west"}, {Kind: failover.Evaluated, At: b.act.At, Facts: facts},
	}
	b.must(journal.Create(b.in, name, "agent west").Append(b.t.Context(), append(entries, more...)))
}

func (b *bench) ask(who, run string, w Want) (Asked, error) {
	return b.Ask(b.t.Context(), b.who[who], b.project, b.act, run, w)
}

// left counts what is in a run's mailbox, and the log's records of what was asked.
func (b *bench) left(run string) (requests, records int) {
	b.t.Helper()
	all, err := mailbox.New(b.in).Newest(b.t.Context(), run, 100)
	b.must(err)
	log, err := b.project.Audit(b.t.Context(), 0, 1000)
	b.must(err)
	for _, r := range log {
		if strings.HasPrefix(r.Action, "run.") && r.Object == run {
			records++
		}
	}
	return len(all), records
}

// Who may want what: viewers nothing, operators what drills take but for approvals,
// recoverers and admins all, robots what their scope is. Whoever may not leaves nothing,
// neither in the vault nor in the log; what is offered is what may be asked.
func (b *bench) testRoles(t *testing.T) {
	drill, move := b.drill, b.move
	kinds := []failover.EventKind{failover.Approve, failover.Reject, failover.Pausing, failover.Cancel}
	all := func(run string) (names []string) {
		for _, k := range kinds {
			names = append(names, run+" "+string(k))
		}
		return names
	}
	both := append(all(drill), all(move)...)
	may := map[string][]string{
		"admin": both, "recoverer": both, "machine": both, "operator": {drill + " pause", drill + " cancel"}, "viewer": nil, "reader": nil, "protector": nil, "stranger": nil, "foreign": nil,
	}
	for name, mine := range may {
		as := entry.ErrForbidden
		if name == "stranger" || name == "foreign" {
			as = store.ErrNotFound // of another project, though he administers the console
		}
		for _, run := range []string{drill, move} {
			var offered []failover.EventKind
			s, err := b.Look(t.Context(), b.who[name], b.project, run)
			if err == nil {
				for _, o := range s.Offers {
					offered = append(offered, o.Kind)
				}
			} else if !errors.Is(err, as) {
				t.Errorf("%s looks at %s: %v", name, run, err)
			}
			for _, kind := range kinds {
				want := slices.Contains(mine, run+" "+string(kind))
				requests, records := b.left(run)
				_, err := b.ask(name, run, Want{ID: name + strings.ReplaceAll(string(kind), " ", ""), Kind: kind})
				if want != (err == nil) || !want && !errors.Is(err, as) || want != slices.Contains(offered, kind) {
					t.Errorf("%s wants %s of %s: %v; he is offered %v", name, kind, run, err, offered)
				}
				nowRequests, nowRecords := b.left(run)
				if grown := nowRequests - requests; grown != nowRecords-records || want != (grown == 1) || !want && grown != 0 {
					t.Errorf("%s wants %s of %s: %d requests and %d records more", name, kind, run, grown, nowRecords-records)
				}
			}
		}
	}
}

// What a run is told of whoever asks: his name, and the groups of his role and those below.
func (b *bench) testGroups(t *testing.T) {
	o, r, a := "operator@console/acme davit:console:operator", "recoverer@console/acme davit:console:recoverer", "admin@console/acme davit:console:admin"
	for name, want := range map[string]string{
		"operator": "operator@console/acme: " + o, "recoverer": "recoverer@console/acme: " + o + " " + r, "admin": "admin@console/acme: " + o + " " + r + " " + a,
		"viewer": "viewer@console/acme: ", "machine": "admin/nightly@console/acme: davit:console:recoverer",
	} {
		all, err := b.groups(t.Context(), b.who[name], b.project)
		if got := b.who[name].InRuns("acme") + ": " + strings.Join(all, " "); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	_, err := b.ask("operator", b.drill, Want{ID: "a", Kind: failover.Pausing, Note: "a look"})
	b.must(err)
	got, err := mailbox.New(b.in).Next(t.Context(), b.drill)
	if err != nil || got.By != "operator@console/acme" || strings.Join(got.Groups, " ") != o || got.Note != "a look" || !got.At.Equal(b.act.At) {
		t.Errorf("the run reads %+v, %v", got, err)
	}
}

// The same again is one request, also of many at once and by two consoles; the
// same name of another person is another.
func (b *bench) testOnce(t *testing.T) {
	second := &Desk{Door: b.Door, Open: b.Open}
	var all sync.WaitGroup
	numbers := make([]int64, 8)
	for i := range numbers {
		all.Go(func() {
			desk := []*Desk{b.Desk, second}[i%2]
			a, err := desk.Ask(t.Context(), b.who["admin"], b.project, b.act, b.drill, Want{ID: "same", Kind: failover.Pausing})
			if err != nil {
				t.Error(err)
			}
			numbers[i] = a.Number
		})
	}
	all.Wait()
	if n, _ := b.left(b.drill); n != 1 || slices.Max(numbers) != 1 || slices.Min(numbers) != 1 {
		t.Errorf("%d requests, with the numbers %v", n, numbers)
	}
	if a, err := b.ask("recoverer", b.drill, Want{ID: "same", Kind: failover.Pausing}); err != nil || a.Number != 2 {
		t.Errorf("somebody else: %+v, %v", a, err)
	}
	if a, err := b.ask("admin", b.drill, Want{ID: "other", Kind: failover.Pausing}); err != nil || a.Number != 3 {
		t.Errorf("once more: %+v, %v", a, err)
	}
	if len(b.runs) != 0 {
		t.Errorf("%d turns are left", len(b.runs))
	}
}

// guard is the way of changes to the vault, while it is shut.
type guard struct{ shut error }

func (g *guard) Ready() error                       { return nil }
func (g *guard) Wake()                              {}
func (g *guard) Await(context.Context, int64) error { return g.shut }

// What the log does not have, in the vault, is not asked: so a console that another one
// has replaced steers nothing.
func (b *bench) testLogFirst(t *testing.T) {
	defer b.console.Guards(func(*store.Project) store.Guard { return &guard{} })
	g := &guard{shut: errors.New("another console is active")}
	b.console.Guards(func(*store.Project) store.Guard { return g })
	want := Want{ID: "a", Kind: failover.Approve}
	if _, err := b.ask("admin", b.drill, want); !errors.Is(err, g.shut) {
		t.Errorf("asked without a record: %v", err)
	}
	if n, _ := b.left(b.drill); n != 0 {
		t.Errorf("%d requests", n)
	}
	g.shut = nil
	if _, err := b.ask("admin", b.drill, want); err != nil {
		t.Error(err)
	}
	if n, _ := b.left(b.drill); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// A vault that is silent is no refusal, and the same again is safe: also where the
// request reached the vault and the answer was lost.
func (b *bench) testSilent(t *testing.T) {
	for i, faults := range []fault.Faults{{Refuse: 1}, {Lose: 1}} {
		want := Want{ID: fmt.Sprint("n", i), Kind: failover.Approve}
		b.vault.Set(faults)
		if _, err := b.ask("admin", b.drill, want); !errors.Is(err, ErrSilent) {
			t.Errorf("%+v: %v", faults, err)
		}
		if _, err := b.Look(t.Context(), b.who["admin"], b.project, b.drill); faults.Refuse > 0 && !errors.Is(err, ErrSilent) {
			t.Errorf("%+v: %v", faults, err)
		}
		b.vault.Set(fault.Faults{})
		if n, _ := b.left(b.drill); n != 2*i { // the one whose answer was lost is there
			t.Errorf("%+v: %d requests", faults, n)
		}
		if a, err := b.ask("admin", b.drill, want); err != nil || a.Number != int64(i+1) {
			t.Errorf("%+v: %+v, %v", faults, a, err)
		}
	}
	if n, _ := b.left(b.drill); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// What makes no sense is refused with the reason, and leaves nothing.
func (b *bench) testRefusals(t *testing.T) {
	b.run("over", plan.Failover, failover.Entry{Kind: failover.Rejected, At: b.act.At, By: "anna", Note: "not today"})
	long := strings.Repeat("x", maxNote+1)
	for _, c := range []struct {
		run  string
		w    Want
		is   error
		says string
	}{
		{b.move, Want{ID: "", Kind: failover.Pausing}, store.ErrRefused, "id is 1 to 64"},
		{b.move, Want{ID: "a b", Kind: failover.Pausing}, store.ErrRefused, "id is 1 to 64"},
		{b.move, Want{ID: strings.Repeat("a", 64+1), Kind: failover.Pausing}, store.ErrRefused, "id is 1 to 64"},
		{b.move, Want{ID: "a", Kind: failover.Pausing, Note: long}, store.ErrRefused, "more than 1000 bytes"},
		{b.move, Want{ID: "a", Kind: failover.Commit}, store.ErrRefused, "now it takes: approve, reject, pause, cancel"},
		{b.move, Want{ID: "a", Kind: failover.Answer, Step: "call"}, store.ErrRefused, `does not take "answer call"`},
		{b.move, Want{ID: "a", Kind: "delete"}, store.ErrRefused, `does not take "delete"`},
		{"over", Want{ID: "a", Kind: failover.Pausing}, store.ErrRefused, "the run is over"},
		{"nobody", Want{ID: "a", Kind: failover.Pausing}, store.ErrNotFound, "find run nobody"},
		{"../x", Want{ID: "a", Kind: failover.Pausing}, store.ErrNotFound, "find run"},
	} {
		if _, err := b.ask("admin", c.run, c.w); !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s %.80v: %v", c.run, c.w, err)
		}
		if vault.CheckName(c.run) == nil {
			if requests, records := b.left(c.run); requests != 0 || records != 0 {
				t.Fatalf("%s %.80v: %d requests, %d records", c.run, c.w, requests, records)
			}
		}
	}
}

// What takes a site's name is not asked without it.
func (b *bench) testTyped(t *testing.T) {
	b.run("asks", plan.Failover,
		failover.Entry{Kind: failover.Approved, At: b.act.At, By: "anna@console/acme"},
		failover.Entry{Kind: failover.PausedBy, At: b.act.At, By: "", Pause: failover.ForInput, Note: "is east gone?"})
	s, err := b.Look(t.Context(), b.who["recoverer"], b.project, "asks")
	b.must(err)
	if !slices.ContainsFunc(s.Offers, func(o failover.Offer) bool { return o.Kind == failover.Consent && o.Site == "east" && o.Type == "east" }) {
		t.Fatalf("it is %s and offers %+v", s.State.Shown(), s.Offers)
	}
	for _, typed := range []string{"", "west", "East"} {
		if _, err := b.ask("recoverer", "asks", Want{ID: "a", Kind: failover.Consent, Site: "east", Typed: typed}); !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "type east") {
			t.Errorf("typed %q: %v", typed, err)
		}
	}
	if n, _ := b.left("asks"); n != 0 {
		t.Errorf("%d requests", n)
	}
	if a, err := b.ask("recoverer", "asks", Want{ID: "a", Kind: failover.Consent, Site: "east", Typed: "east"}); err != nil || a.Number != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

// An answer that comes late is found later, and none comes once the run is over.
func (b *bench) testLate(t *testing.T) {
	box := mailbox.New(b.in)
	for _, id := range []string{"a", "b"} {
		if a, err := b.ask("admin", b.drill, Want{ID: id, Kind: failover.Pausing}); err != nil || a.Answered {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	b.must(box.Reply(t.Context(), b.drill, 1, "no"))
	if a, err := b.Request(t.Context(), b.project, b.drill, 1); err != nil || !a.Answered || a.Refused != "no" || a.By != "admin@console/acme" {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := b.Request(t.Context(), b.project, b.drill, 2); err != nil || a.Answered {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := b.Request(t.Context(), b.project, b.drill, 3); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	b.run("ended", plan.Drill, failover.Entry{Kind: failover.Rejected, At: b.act.At, By: "anna", Note: "not today"})
	s, err := journal.Read(t.Context(), b.in, "ended")
	b.must(err)
	if a := (&at{project: b.in, box: box, state: s}).asked(mailbox.Asked{}); !a.Answered || !strings.Contains(a.Refused, "the run is over") {
		t.Errorf("%+v", a)
	}
}

// What steps said is for those who may act: a viewer reads runs without it.
func (b *bench) testSaid(t *testing.T) {
	for name, want := range map[string]error{
		"admin": nil, "recoverer": nil, "operator": nil, "machine": nil, "protector": nil,
		"viewer": entry.ErrForbidden, "reader": entry.ErrForbidden, "stranger": store.ErrNotFound, "foreign": store.ErrNotFound,
	} {
		for _, over := range []bool{false, true} { // one that is over is remembered, for those alone
			run := fmt.Sprintf("said-%s-%t", name, over)
			more := []failover.Entry{
				{Kind: failover.Ended, At: b.act.At, Step: "call", Status: failover.Broke, Said: "no line"}, {Kind: failover.Undone, At: b.act.At, Step: "claim/shop", Said: "given back"},
			}
			if over {
				more = append(more, failover.Entry{Kind: failover.Canceling, At: b.act.At, By: "zoe"})
			}
			b.run(run, plan.Drill, more...)
			for _, again := range []string{"admin", name, name} {
				all, err := b.Said(t.Context(), b.who[again], b.project, run, "")
				if again == "admin" && (err != nil || len(all) != 2) {
					t.Fatal(all, err)
				}
				if again == name && (!errors.Is(err, want) || (want == nil) != (len(all) == 2)) {
					t.Errorf("%s reads %s: %v, %v", name, run, all, err)
				}
			}
		}
	}
	if all, err := b.Said(t.Context(), b.who["operator"], b.project, "said-viewer-true", "call"); err != nil || len(all) != 1 || all[0].Text != "no line" || all[0].How() != "Failed" {
		t.Errorf("one step's: %+v, %v", all, err)
	}
	if _, err := b.Said(t.Context(), b.who["operator"], b.project, "nowhere", ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a run that is not there: %v", err)
	}
}

// What a run that is over left is settled by whoever may steer it, with a reason, and once: who says it
// again has the same answer, and nothing is asked.
func (b *bench) testSettled(t *testing.T) {
	b.must(journal.Create(b.in, "left", "agent west").Append(t.Context(), settlementtest.Left("left", "agent west", b.act.At)))
	offers := func(who string) (steps []string) {
		s, err := b.Look(t.Context(), b.who[who], b.project, "left")
		b.must(err)
		for _, o := range s.Offers {
			if o.Kind != failover.Settle || o.About == "" {
				t.Errorf("%+v", o)
			}
			steps = append(steps, o.Step)
		}
		return steps
	}
	if a, v := offers("recoverer"), offers("viewer"); !slices.Equal(a, []string{"warm-up", "mail"}) || len(v) > 0 {
		t.Errorf("a recoverer is offered %v, a viewer %v", a, v)
	}
	for _, c := range []struct {
		who  string
		w    Want
		is   error
		says string
	}{
		{"viewer", Want{ID: "a", Kind: failover.Settle, Note: "done"}, entry.ErrForbidden, ""},
		{"operator", Want{ID: "a", Kind: failover.Settle, Note: "done"}, entry.ErrForbidden, ""},
		{"recoverer", Want{ID: "a", Kind: failover.Settle}, store.ErrRefused, "say why"},
		{"recoverer", Want{ID: "a", Kind: failover.Settle, Step: "claim/shop", Note: "done"}, store.ErrRefused, "only warm-up, mail did"},
		{"recoverer", Want{ID: "a", Kind: failover.RollBack, Typed: "west"}, store.ErrRefused, "the run is over"},
	} {
		if _, err := b.ask(c.who, "left", c.w); !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s %+v: %v", c.who, c.w, err)
		}
	}
	if _, err := b.ask("recoverer", b.move, Want{ID: "a", Kind: failover.Settle, Note: "done"}); !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "it is not over") {
		t.Errorf("of a run that goes on: %v", err)
	}
	if n, records := b.left("left"); n != 0 || records != 0 {
		t.Fatalf("%d requests, %d records", n, records)
	}
	mail := Want{ID: "b", Kind: failover.Settle, Step: "mail", Note: "sent another"}
	a, err := b.ask("recoverer", "left", mail)
	if err != nil || a.Number != 1 || a.Answered {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, w := range []settlement.Word{{By: a.By, Reason: mail.Note, Step: a.Step, Request: a.Number}, {By: "ann", Reason: "done at the site"}} { // as an agent and a command would
		_, why, err := settlement.Write(t.Context(), b.in, "left", "agent west", w, time.Now)
		if b.must(err); why != "" {
			t.Fatal(why)
		}
	}
	for who, w := range map[string]Want{"recoverer": mail, "admin": {ID: "c", Kind: failover.Settle, Note: "I too"}} {
		if a, err := b.ask(who, "left", w); err != nil || !a.Answered || a.Refused != "" {
			t.Errorf("%s again: %+v, %v", who, a, err)
		}
	}
	if n, records := b.left("left"); n != 1 || records != 1 || len(offers("admin")) > 0 {
		t.Errorf("%d requests, %d records", n, records)
	}
}
