package settlement_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/settlement"
	"davit.dev/davit/internal/settlement/settlementtest"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func now() time.Time { return at.Add(time.Hour) }

// stateOf is what entries add up to.
func stateOf(t *testing.T, entries []failover.Entry) *failover.State {
	t.Helper()
	s := failover.NewState()
	if err := s.Replay(1, entries); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWords(t *testing.T) {
	left := settlementtest.Left("r", "e", at)
	some := append(settlementtest.Left("r", "e", at), failover.Entry{Kind: failover.Settled, Step: "mail", By: "bob", Note: "sent another"})
	for name, c := range map[string]struct {
		of    []failover.Entry
		w     settlement.Word
		steps string // of the entries
		why   string
	}{
		"one":                 {left, settlement.Word{By: "ann", Reason: "done", Step: "mail"}, "mail", ""},
		"all":                 {left, settlement.Word{By: "ann", Reason: "done"}, "warm-up mail", ""},
		"the rest":            {some, settlement.Word{By: "ann", Reason: "done"}, "warm-up", ""},
		"one again":           {some, settlement.Word{By: "ann", Reason: "done", Step: "mail"}, "", ""},
		"no reason":           {left, settlement.Word{By: "ann", Reason: " \n"}, "", "say why"},
		"what was not left":   {left, settlement.Word{By: "ann", Reason: "done", Step: "claim/shop"}, "", "step claim/shop left nothing to people, only warm-up, mail did"},
		"no step of the run":  {left, settlement.Word{By: "ann", Reason: "done", Step: "tidy"}, "", "only warm-up, mail did"},
		"one that goes on":    {left[:len(left)-1], settlement.Word{By: "ann", Reason: "done"}, "", "it is not over, but RollingBack"},
		"one that left none":  {append(settlementtest.Left("r", "e", at)[:3:3], failover.Entry{Kind: failover.Canceling, By: "ann"}), settlement.Word{By: "ann", Reason: "done"}, "", "it left nothing to people"},
		"all, and it is done": {append(some[:len(some):len(some)], failover.Entry{Kind: failover.Settled, Step: "warm-up", By: "bob"}), settlement.Word{By: "ann", Reason: "done"}, "", ""},
	} {
		entries, why := c.w.Entries(stateOf(t, c.of), now())
		var steps []string
		for _, e := range entries {
			if e.Kind != failover.Settled || e.By != "ann" || e.Note != "done" || !e.At.Equal(now()) {
				t.Errorf("%s: %+v", name, e)
			}
			steps = append(steps, e.Step)
		}
		if got := strings.Join(steps, " "); got != c.steps || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s: entries of %q, refused: %q", name, got, why)
		}
	}
}

// TestAWordChangesNothingElse: what follows from the journal is the same before and after, but for who has
// seen to what: how the run ended, who carried it, what was left and refuses what, what other runs may do beside
// it. The control: to say of a step that it was taken back would change that.
func TestAWordChangesNothingElse(t *testing.T) {
	entries := settlementtest.Left("r", "e", at)
	before := stateOf(t, entries)
	after := before.Clone()
	said, why := settlement.Word{By: "bob", Reason: "done by hand"}.Entries(after, now())
	if why != "" || len(said) != 2 {
		t.Fatal(said, why)
	}
	if err := after.Replay(2, append([]failover.Entry{{Kind: failover.Took, At: now(), By: "cli"}}, said...)); err != nil {
		t.Fatal(err)
	}
	for _, r := range after.Remaining() {
		if s := r.Settled; s == nil || s.By != "bob" || s.Reason != "done by hand" || !s.At.Equal(now()) {
			t.Errorf("%+v", r)
		}
	}
	if got := commission.Next(after); got != "" {
		t.Errorf("it still asks for %q", got)
	}
	for _, offered := range after.Offers() {
		t.Errorf("it still offers %+v", offered)
	}
	if len(before.Offers()) != 2 || !strings.Contains(commission.Next(before), "`runs settle r --reason HOW`") {
		t.Errorf("before it offered %+v, and asked for %q", before.Offers(), commission.Next(before))
	}
	after.Settled, after.Sequence = before.Settled, before.Sequence
	if a, b := text(t, after), text(t, before); a != b {
		t.Errorf("another state:\n%s\n%s", a, b)
	}
	if a, b := text(t, after.Result()), text(t, before.Result()); a != b {
		t.Errorf("another result:\n%s\n%s", a, b)
	}
	undone := before.Clone()
	undone.Steps["mail"].Stands = false
	if text(t, undone.Result()) == text(t, before.Result()) {
		t.Error("the control: a step that was taken back is told like one that was left")
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestNobodyStepsBackIntoARunThatIsSettled: people can want nothing of it that they could not before.
func TestNobodyStepsBackIntoARunThatIsSettled(t *testing.T) {
	s := stateOf(t, append(settlementtest.Left("r", "e", at), failover.Entry{Kind: failover.Settled, Step: "mail", By: "bob", Note: "x"}))
	kinds := []failover.EventKind{
		failover.Approve, failover.Resume, failover.Retry, failover.Skip, failover.Answer, failover.Consent, failover.Commit, failover.RollBack, failover.Cancel, failover.Settle,
	}
	for _, kind := range kinds {
		m := failover.TakeOver("e2", s.Clone())
		m.Step(failover.Moment{Wall: at}, failover.Event{Kind: failover.Begin})
		m.Step(failover.Moment{Wall: at}, failover.Event{Kind: failover.Recorded})
		effects := m.Step(failover.Moment{Wall: at}, failover.Event{Kind: kind, By: "ann", Step: "mail", Site: "east", Text: "west", Note: "x"})
		if len(effects) != 1 || effects[0].Action != failover.Refuse || !strings.Contains(effects[0].Why, "the run is over: RolledBack") {
			t.Errorf("%s: %+v", kind, effects)
		}
	}
}

// shelf is a vault with the journal of a run that left something.
func shelf(t *testing.T) (*vault.Project, *fault.Store) {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	store := fault.New(mem.New(time.Now), 1, fault.Faults{})
	p, err := vault.CreateProject(t.Context(), store, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Create(p, "r", "e").Append(t.Context(), settlementtest.Left("r", "e", at)); err != nil {
		t.Fatal(err)
	}
	return p, store
}

// objects are all that is in a store.
func objects(t *testing.T, store vault.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := store.List(t.Context(), "", func(o vault.ObjectInfo) error {
		r, err := store.Get(t.Context(), o.Key, 0, -1)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		data, err := io.ReadAll(r)
		all[o.Key] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWrite: one record is written, once, whoever says it again and however often, and nothing else of the
// vault is touched. Who carried the run stays.
func TestWrite(t *testing.T) {
	p, store := shelf(t)
	before := objects(t, store)
	w := settlement.Word{By: "bob", Reason: "done by hand", Step: "mail", Request: 7}
	s, why, err := settlement.Write(t.Context(), p, "r", "cli 1", w, now)
	if err != nil || why != "" || s.Settled["mail"].By != "bob" || !s.Granted[7] || s.Executor != "e" || s.Phase != failover.RolledBack || len(s.Settled) != 1 {
		t.Fatalf("%+v, %q, %v", s, why, err)
	}
	w.By, w.Reason = "eve", "no, I did"
	if s, why, err = settlement.Write(t.Context(), p, "r", "cli 2", w, now); err != nil || why != "" || s.Settled["mail"].By != "bob" {
		t.Errorf("said again: %+v, %q, %v", s.Settled, why, err)
	}
	after := objects(t, store)
	if len(after) != len(before)+1 {
		t.Errorf("%d objects in the vault, there were %d", len(after), len(before))
	}
	for key, text := range before {
		if after[key] != text {
			t.Errorf("%s was changed", key)
		}
	}
	if _, why, err := settlement.Write(t.Context(), p, "r", "cli 2", settlement.Word{By: "eve", Reason: "x", Step: "tidy"}, now); err != nil || why == "" {
		t.Errorf("what was not left: %q, %v", why, err)
	}
	if _, _, err := settlement.Write(t.Context(), p, "none", "cli 2", w, now); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("no such run: %v", err)
	}
}

// TestManyWriteAtOnce: each learns that it is settled, and there is one word of each step.
func TestManyWriteAtOnce(t *testing.T) {
	p, _ := shelf(t)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			w := settlement.Word{By: fmt.Sprint("p", i), Reason: "done", Step: []string{"mail", "warm-up"}[i%2]}
			s, why, err := settlement.Write(t.Context(), p, "r", fmt.Sprint("cli ", i), w, now)
			if err != nil || why != "" || s.Settled[w.Step].By == "" {
				t.Errorf("%q, %v", why, err)
			}
		})
	}
	all.Wait()
	_, records, err := journal.History(t.Context(), p, "r")
	if err != nil || len(records) != 3 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

// TestAnAnswerThatIsLost: nobody knows then whether it is written; the same again is safe.
func TestAnAnswerThatIsLost(t *testing.T) {
	for _, faults := range []fault.Faults{{Refuse: 1}, {Lose: 1}} {
		p, store := shelf(t)
		w := settlement.Word{By: "bob", Reason: "done"}
		store.Set(faults)
		if _, _, err := settlement.Write(t.Context(), p, "r", "cli 1", w, now); err == nil {
			t.Errorf("%+v: no error", faults)
		}
		store.Set(fault.Faults{})
		s, why, err := settlement.Write(t.Context(), p, "r", "cli 1", w, now)
		if err != nil || why != "" || len(s.Settled) != 2 {
			t.Errorf("%+v: %q, %v", faults, why, err)
		}
		if _, records, err := journal.History(t.Context(), p, "r"); err != nil || len(records) != 2 {
			t.Errorf("%+v: %d records, %v", faults, len(records), err)
		}
	}
}

// TestADrillLeavesNothingToPeople, whatever became of its steps.
func TestADrillLeavesNothingToPeople(t *testing.T) {
	entries := settlementtest.Left("r", "e", at)
	entries[0].Spec.Verb = plan.Drill
	s := stateOf(t, append(entries[:3:3], failover.Entry{Kind: failover.Canceling, By: "ann"}))
	if _, why := (settlement.Word{By: "ann", Reason: "x"}).Entries(s, now()); why != "it left nothing to people" {
		t.Errorf("%s: %q", s.Phase, why)
	}
}
