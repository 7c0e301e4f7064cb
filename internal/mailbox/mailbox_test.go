package mailbox

import (
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func box(t *testing.T) Box {
	t.Helper()
	return boxAt(t, nil)
}

// boxAt is a box in a vault with a clock.
func boxAt(t *testing.T, now func() time.Time) Box {
	t.Helper()
	store := mem.New(now)
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "default", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return New(p)
}

func TestRequestsComeInOrderAndOnceAnsweredNoMore(t *testing.T) {
	b := box(t)
	ctx := t.Context()
	for _, kind := range []failover.EventKind{failover.Pausing, failover.Resume} {
		if _, err := b.Put(ctx, "r", execute.Request{Kind: kind, By: "ann"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Put(ctx, "another", execute.Request{Kind: failover.Cancel, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	for n, kind := range []failover.EventKind{failover.Pausing, failover.Resume} {
		for range 2 { // it comes until it is answered
			r, err := b.Next(ctx, "r")
			if err != nil || r == nil || r.Kind != kind || r.Number != int64(n)+1 {
				t.Fatal(r, err)
			}
		}
		if a, err := b.Answer(ctx, "r", int64(n)+1); err != nil || a != nil {
			t.Fatal(a, err)
		}
		if err := b.Reply(ctx, "r", int64(n)+1, "no"); err != nil {
			t.Fatal(err)
		}
		if a, err := b.Answer(ctx, "r", int64(n)+1); err != nil || a == nil || a.Refused != "no" {
			t.Fatal(a, err)
		}
	}
	if r, err := b.Next(ctx, "r"); err != nil || r != nil {
		t.Fatal(r, err)
	}
}

func TestWhatCannotBeReadIsAnsweredAndHoldsNothingUp(t *testing.T) {
	b := box(t)
	ctx := t.Context()
	if err := b.project.WriteSealedOnce(ctx, b.key("r", 1), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "r", execute.Request{Kind: failover.Commit, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	r, err := b.Next(ctx, "r")
	if err != nil || r == nil || r.Number != 2 {
		t.Fatal(r, err)
	}
	if a, err := b.Answer(ctx, "r", 1); err != nil || a == nil || a.Refused == "" {
		t.Fatal(a, err)
	}
}

// What is asked twice under one ID is one request, also when both come at once; and
// without the ID it is two.
func TestOneRequestOfAnID(t *testing.T) {
	b := box(t)
	ctx := t.Context()
	other, err := b.Put(ctx, "r", execute.Request{ID: "b", Kind: failover.Pausing, By: "ben"})
	if err != nil {
		t.Fatal(err)
	}
	numbers := make(chan int64, 4)
	for range cap(numbers) {
		go func() {
			n, err := b.Put(ctx, "r", execute.Request{ID: "a", Kind: failover.Pausing, By: "ann"})
			if err != nil {
				t.Error(err)
			}
			numbers <- n
		}()
	}
	first := <-numbers
	for range cap(numbers) - 1 {
		if n := <-numbers; n != first || n == other {
			t.Errorf("number %d, want %d", n, first)
		}
	}
	if n, err := b.Find(ctx, "r", "a"); err != nil || n != first {
		t.Error(n, err)
	}
	if n, err := b.Find(ctx, "r", "c"); err != nil || n != 0 {
		t.Error(n, err)
	}
	for want := first + 1; want < first+3; want++ {
		if n, err := b.Put(ctx, "r", execute.Request{Kind: failover.Pausing, By: "ann"}); err != nil || n != want {
			t.Error(n, err)
		}
	}
	if err := b.Reply(ctx, "r", first, "no"); err != nil {
		t.Fatal(err)
	}
	all, err := b.Newest(ctx, "r", 3)
	if err != nil || len(all) != 3 || all[0].Number != first+2 || all[0].Reply != nil || all[2].ID != "a" || all[2].Reply == nil || all[2].Reply.Refused != "no" {
		t.Errorf("%+v, %v", all, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"number":1,"kind":"pause","by":"ann"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parse(data, 1, nil); err == nil && (r.Number != 1 || r.By == "" || r.Kind == "") {
			t.Fatal(r)
		}
	})
}

// What nobody took up in time, by the vault's clock, is answered and not carried out,
// whatever time its author says; what was left later is.
func TestRequestsExpire(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	b := boxAt(t, func() time.Time { return now })
	ctx := t.Context()
	put := func(r execute.Request) {
		t.Helper()
		if _, err := b.Put(ctx, "r", r); err != nil {
			t.Fatal(err)
		}
	}
	put(execute.Request{Kind: failover.Commit, By: "ann", At: now.Add(24 * time.Hour)})
	now = now.Add(Expires - time.Second)
	if r, err := b.Next(ctx, "r"); err != nil || r == nil || r.Number != 1 { // the control: a second before
		t.Fatal(r, err)
	}
	put(execute.Request{Kind: failover.Pausing, By: "ben", At: now.Add(-24 * time.Hour)})
	now = now.Add(time.Second)
	for range 2 {
		if r, err := b.Next(ctx, "r"); err != nil || r == nil || r.Number != 2 {
			t.Fatal(r, err)
		}
	}
	if a, err := b.Answer(ctx, "r", 1); err != nil || a == nil || !strings.Contains(a.Refused, "ask again") {
		t.Error(a, err)
	}
}

// Other runs may have begun without one that nobody carried for long, and that had begun no step: what was to let it go
// on has to be said anew. The controls: what ends it, what was said just now, and runs that have begun, or move nothing.
func TestWhatWasToLetAnIdleRunGoOnExpiresSooner(t *testing.T) {
	for name, tt := range map[string]struct {
		kind  failover.EventKind
		verb  plan.Verb
		begun bool
		age   time.Duration
		taken bool
	}{
		"approved long ago":   {failover.Approve, plan.Switchover, false, lease.SilentAfter, false},
		"resumed long ago":    {failover.Resume, plan.Failover, false, lease.SilentAfter, false},
		"approved just now":   {failover.Approve, plan.Switchover, false, lease.SilentAfter - time.Second, true},
		"canceled long ago":   {failover.Cancel, plan.Switchover, false, lease.SilentAfter, true},
		"rejected long ago":   {failover.Reject, plan.Switchover, false, lease.SilentAfter, true},
		"paused long ago":     {failover.Pausing, plan.Switchover, false, lease.SilentAfter, true},
		"it had begun":        {failover.Resume, plan.Switchover, true, lease.SilentAfter, true},
		"a restore in place":  {failover.Approve, plan.Restore, false, lease.SilentAfter, true},
		"resumed, and begun":  {failover.Resume, plan.Failover, true, Expires - time.Second, true},
		"a drill is approved": {failover.Approve, plan.Drill, false, Expires - time.Second, true},
	} {
		now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
		b := boxAt(t, func() time.Time { return now })
		ctx := t.Context()
		spec := failover.Spec{Run: "r", Plan: "p", Verb: tt.verb, From: "east", To: "west", By: "ann", At: now, Accept: failover.TimedOut, Applications: []string{"shop"}}
		spec.Steps = []plan.Step{{Name: "claim/shop", Kind: plan.KindClaim, Timeout: time.Minute}}
		entries := []failover.Entry{{Kind: failover.Opened, At: now, Spec: &spec}, {Kind: failover.Took, By: "e"}}
		if tt.begun {
			entries = append(entries, failover.Entry{Kind: failover.Intended, Step: "claim/shop"})
		}
		if err := journal.Create(b.project, "r", "e").Append(ctx, entries); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Put(ctx, "r", execute.Request{Kind: tt.kind, By: "ben"}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(tt.age)
		if r, err := b.Next(ctx, "r"); err != nil || (r != nil) != tt.taken {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if a, err := b.Answer(ctx, "r", 1); err != nil || (a != nil) == tt.taken || a != nil && !strings.Contains(a.Refused, "ask again") {
			t.Errorf("%s: it is answered %+v, %v", name, a, err)
		}
	}
}

// What nobody answered in time, but the run's journal grants, was granted: whoever took it
// up died before he said so.
func TestTheJournalAnswersWhatExpired(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	b := boxAt(t, func() time.Time { return now })
	ctx := t.Context()
	for range 2 {
		if _, err := b.Put(ctx, "r", execute.Request{Kind: failover.Pausing, By: "ann"}); err != nil {
			t.Fatal(err)
		}
	}
	spec := failover.Spec{Run: "r", Plan: "p", Verb: plan.Failover, From: "east", To: "west", By: "ann", At: now, Accept: failover.TimedOut, Applications: []string{"shop"}}
	spec.Steps = []plan.Step{{Name: "claim/shop", Kind: plan.KindClaim, Timeout: time.Minute}}
	opened := []failover.Entry{{Kind: failover.Opened, At: now, Spec: &spec}, {Kind: failover.Took, By: "e"}}
	j := journal.Create(b.project, "r", "e")
	for _, entries := range [][]failover.Entry{opened, {{Kind: failover.PausedBy, By: "ann", Pause: failover.ByOperator, Request: 1}}} {
		if err := j.Append(ctx, entries); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(Expires)
	if r, err := b.Next(ctx, "r"); err != nil || r != nil {
		t.Fatal(r, err)
	}
	for n, refused := range map[int64]bool{1: false, 2: true} {
		if a, err := b.Answer(ctx, "r", n); err != nil || a == nil || (a.Refused != "") != refused {
			t.Errorf("request %d: %+v, %v", n, a, err)
		}
	}
}
