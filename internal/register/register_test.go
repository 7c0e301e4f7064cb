package register_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func project(t *testing.T) *vault.Project {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// begun opens a run that waits for an approval.
func begun(t *testing.T, p *vault.Project, run string) failover.Spec {
	t.Helper()
	at := time.Date(2026, 11, 27, 4, 0, len(run), 0, time.UTC)
	s := failover.Spec{
		Run: run, Plan: "shop", Verb: plan.Failover, From: "east", To: "west", By: "ann", At: at, Accept: failover.TimedOut, Approvals: 1,
		Applications: []string{"db"}, Steps: []plan.Step{{Name: "claim/db", Kind: plan.KindClaim, Application: "db", Timeout: time.Minute}},
	}
	if err := register.New(p).Begin(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	j := journal.Create(p, run, "test")
	if err := j.Append(t.Context(), []failover.Entry{{Kind: failover.Opened, At: at, Spec: &s, By: "ann"}, {Kind: failover.Took, At: at, By: "test"}}); err != nil {
		t.Fatal(err)
	}
	return s
}

func cancel(t *testing.T, p *vault.Project, run string) *failover.State {
	t.Helper()
	j, _, err := journal.Open(t.Context(), p, run, "another")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 27, 5, 0, 0, 0, time.UTC)
	if err := j.Append(t.Context(), []failover.Entry{{Kind: failover.Took, At: at, By: "another"}, {Kind: failover.Canceling, At: at, By: "ann"}}); err != nil {
		t.Fatal(err)
	}
	s, err := journal.Read(t.Context(), p, run)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRegister(t *testing.T) {
	p := project(t)
	r := register.New(p)
	begun(t, p, "one")
	begun(t, p, "twoo")
	if err := r.Begin(t.Context(), begun(t, p, "three")); err != nil {
		t.Errorf("noted twice: %v", err)
	}
	if running, err := r.Running(t.Context()); err != nil || fmt.Sprint(running) != "[one three twoo]" {
		t.Errorf("%v, %v", running, err)
	}
	note, err := r.Note(t.Context(), "one")
	if err != nil || note.To != "west" || note.Plan != "shop" {
		t.Errorf("%+v, %v", note, err)
	}
	s := cancel(t, p, "one")
	for range 2 { // once more does no harm
		if err := r.End(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	open, err := journal.Read(t.Context(), p, "twoo")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.End(t.Context(), open); err == nil {
		t.Error("a run that goes on was summed up")
	}
	if running, err := r.Running(t.Context()); err != nil || fmt.Sprint(running) != "[three twoo]" {
		t.Errorf("%v, %v", running, err)
	}
	if _, err := r.Note(t.Context(), "one"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("%v", err)
	}
	lines, err := r.List(t.Context())
	if err != nil || len(lines) != 3 || lines[0].Run != "three" || lines[2].Phase != failover.Canceled || lines[2].By != "ann" || lines[0].Phase != failover.Evaluating {
		t.Errorf("%+v, %v", lines, err)
	}
}

// A run whose summary was damaged, or never written, is found in its journal.
func TestTheJournalIsTheTruth(t *testing.T) {
	p := project(t)
	r := register.New(p)
	begun(t, p, "one")
	if err := r.End(t.Context(), cancel(t, p, "one")); err != nil {
		t.Fatal(err)
	}
	key := p.Root() + "ended/one"
	if err := p.Store().Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{"", "{", `{"formatVersion": 2, "run": "one"}`, `{"formatVersion": 1, "run": "other"}`} {
		if damage != "" {
			if err := p.WriteSealed(t.Context(), key, []byte(damage)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Summary(t.Context(), "one"); err == nil {
				t.Errorf("%s was read", damage)
			}
		}
		lines, err := r.List(t.Context())
		if err != nil || len(lines) != 1 || lines[0].Err != nil || lines[0].Phase != failover.Canceled {
			t.Errorf("%s: %+v, %v", damage, lines, err)
		}
	}
}

// plant puts an object that nobody with the key wrote.
func plant(t *testing.T, p *vault.Project, key string) {
	t.Helper()
	if err := p.Store().Put(t.Context(), p.Root()+key, strings.NewReader("planted"), 7); err != nil {
		t.Fatal(err)
	}
}

// What somebody without the key put in a summary's place is replaced by the summary.
func TestPlantedSummary(t *testing.T) {
	p := project(t)
	r := register.New(p)
	begun(t, p, "one")
	plant(t, p, "ended/one")
	if err := r.End(t.Context(), cancel(t, p, "one")); err != nil {
		t.Fatal(err)
	}
	if s, err := r.Summary(t.Context(), "one"); err != nil || s.Phase != failover.Canceled {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestAPlantedSummaryEndsNothing: whoever can write to the store, and has no key, takes
// a run's note away and puts something where its summary would be.
func TestAPlantedSummaryEndsNothing(t *testing.T) {
	p := project(t)
	r := register.New(p)
	begun(t, p, "one")
	begun(t, p, "two")
	if err := r.End(t.Context(), cancel(t, p, "two")); err != nil {
		t.Fatal(err)
	}
	for _, planted := range []func(){
		func() { plant(t, p, "ended/one") },
		func() { // a summary of another run
			data, err := p.ReadSealed(t.Context(), p.Root()+"ended/two")
			if err != nil {
				t.Fatal(err)
			}
			if err := p.WriteSealed(t.Context(), p.Root()+"ended/one", data); err != nil {
				t.Fatal(err)
			}
		},
		func() { _ = p.Store().Delete(t.Context(), p.Root()+"ended/one") },
	} {
		if err := r.Forget(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		planted()
		states, err := r.States(t.Context(), "shop", "")
		if err != nil || len(states) != 1 || states[0].Spec.Run != "one" {
			t.Errorf("under way: %+v, %v", states, err)
		}
		if states, err = r.States(t.Context(), "shop", "one"); err != nil || len(states) != 0 {
			t.Errorf("others: %+v, %v", states, err)
		}
	}
}

// A run of which nothing can be read keeps the others readable, and says what its
// note says.
func TestUnreadableRuns(t *testing.T) {
	p := project(t)
	r := register.New(p)
	begun(t, p, "one")
	for _, run := range []string{"damaged", "newer"} {
		if err := r.Begin(t.Context(), failover.Spec{Run: run, Plan: "cash", Verb: plan.Failover, To: "west"}); err != nil {
			t.Fatal(err)
		}
	}
	plant(t, p, "runs/damaged/00000000000000000001")
	if err := p.WriteRun(t.Context(), "newer", 1, []byte(`{"formatVersion": 99}`)); err != nil {
		t.Fatal(err)
	}
	plant(t, p, "running/planted")
	plant(t, p, "runs/planted/00000000000000000001")
	plant(t, p, "runs/stray")
	all, err := r.States(t.Context(), "shop", "")
	if err != nil || len(all) != 4 {
		t.Fatalf("%v, %v", all, err)
	}
	for i, want := range []string{"damaged cash OutcomeUnknown", "newer cash OutcomeUnknown", "one shop Evaluating", "planted  OutcomeUnknown"} {
		s := all[i]
		got := fmt.Sprint(s.Spec.Run, " ", s.Spec.Plan, " ", s.Phase)
		if got != want || (s.Why == "") != (i == 2) {
			t.Errorf("%s: %s, want %s", got, s.Why, want)
		}
	}
	if runs, err := p.Runs(t.Context()); err != nil || fmt.Sprint(runs) != "[damaged newer one planted]" {
		t.Errorf("%v, %v", runs, err)
	}
}

// Whoever follows a journal sees what whoever reads all of it sees.
func TestFollow(t *testing.T) {
	p := project(t)
	reader := journal.Follow(p, "one")
	if _, err := reader.Next(t.Context()); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("%v", err)
	}
	begun(t, p, "one")
	if s, err := reader.Next(t.Context()); err != nil || s.Sequence != 1 || s.Executor != "test" {
		t.Errorf("%+v, %v", s, err)
	}
	cancel(t, p, "one")
	if s, err := reader.Next(t.Context()); err != nil || s.Sequence != 2 || s.Phase != failover.Canceled {
		t.Errorf("%+v, %v", s, err)
	}
}
