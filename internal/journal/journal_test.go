package journal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/fs"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/retry"
	"davit.dev/davit/internal/vault/s3"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func spec(run string) *failover.Spec {
	return &failover.Spec{
		Run: run, Plan: "shop", Verb: plan.Drill, To: "west", By: "ann", At: at, Accept: failover.TimedOut, Applications: []string{"shop"},
		Steps: []plan.Step{{Name: "sandbox", Kind: plan.KindSandbox, Timeout: time.Minute}, {Name: "cleanup", Kind: plan.KindCleanup, Timeout: time.Minute, After: []string{"sandbox"}}},
	}
}

func opening(run, executor string) []failover.Entry {
	return []failover.Entry{{Kind: failover.Opened, At: at, Spec: spec(run)}, {Kind: failover.Took, At: at, By: executor}}
}

func took(executor string) []failover.Entry {
	return []failover.Entry{{Kind: failover.Took, At: at, By: executor}}
}

func intended(step string) []failover.Entry {
	return []failover.Entry{{Kind: failover.Intended, At: at, Step: step}}
}

func project(t *testing.T, store vault.Store) *vault.Project {
	t.Helper()
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "acme", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stores are all backends; the S3 one where there is a server.
func stores(t *testing.T) map[string]func(t *testing.T) vault.Store {
	all := map[string]func(t *testing.T) vault.Store{
		"mem": func(*testing.T) vault.Store { return mem.New(nil) },
		"fs": func(t *testing.T) vault.Store {
			s, err := fs.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
	if address := os.Getenv("DAVIT_TEST_S3"); address != "" {
		all["s3"] = func(t *testing.T) vault.Store { return server(t, address) }
	}
	return all
}

func server(t *testing.T, address string) vault.Store {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		t.Fatal("DAVIT_TEST_S3: want http://ACCESS:SECRET@HOST:PORT/BUCKET")
	}
	secret, _ := u.User.Password()
	s, err := s3.Open(s3.Options{
		Endpoint: u.Scheme + "://" + u.Host, Bucket: strings.TrimPrefix(u.Path, "/"), Region: u.Query().Get("region"), PathStyle: true,
		AccessKey: u.User.Username(), SecretKey: secret, InsecureHTTP: true, Prefix: fmt.Sprintf("test/journal-%d", time.Now().UnixNano()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return retry.New(s, retry.Policy{Tries: 10, First: time.Millisecond, Max: 10 * time.Millisecond})
}

func TestJournal(t *testing.T) {
	for name, open := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("TakeOver", func(t *testing.T) { testTakeOver(t, project(t, open(t))) })
			t.Run("OneWriter", func(t *testing.T) { testOneWriter(t, project(t, open(t))) })
		})
	}
}

func testTakeOver(t *testing.T, p *vault.Project) {
	ctx := t.Context()
	if _, err := journal.Read(ctx, p, "r1"); !errors.Is(err, vault.ErrNotFound) {
		t.Fatalf("a journal that is not there: %v", err)
	}
	first := journal.Create(p, "r1", "e1")
	must(t, first.Append(ctx, opening("r1", "e1")))
	must(t, first.Append(ctx, intended("sandbox")))
	if err := journal.Create(p, "r1", "e0").Append(ctx, opening("r1", "e0")); !errors.Is(err, journal.ErrDeposed) {
		t.Errorf("a run was opened twice: %v", err)
	}
	second, state, err := journal.Open(ctx, p, "r1", "e2")
	if err != nil || state.Executor != "e1" || state.Steps["sandbox"].Status != failover.Doing {
		t.Fatalf("Open = %+v, %v", state, err)
	}
	must(t, second.Append(ctx, took("e2")))
	if err := first.Append(ctx, intended("cleanup")); !errors.Is(err, journal.ErrDeposed) {
		t.Errorf("the one before still writes: %v", err)
	}
	if err := first.Append(ctx, intended("cleanup")); !errors.Is(err, journal.ErrDeposed) {
		t.Errorf("it forgot that it was deposed: %v", err)
	}
	must(t, second.Append(ctx, []failover.Entry{{Kind: failover.Ended, At: at, Step: "sandbox", Status: failover.Succeeded}}))
	if state, err = journal.Read(ctx, p, "r1"); err != nil || state.Executor != "e2" || state.Sequence != 4 || state.Steps["sandbox"].Status != failover.Succeeded {
		t.Errorf("Read = %+v, %v", state, err)
	}
	const raw = "\x1b[2Jno such zone" // as one who is not careful writes it, or means harm
	must(t, second.Append(ctx, []failover.Entry{{Kind: failover.Ended, At: at, Step: "cleanup", Status: failover.Broke, Said: raw}}))
	said, state, err := journal.Said(ctx, p, "r1")
	if want := []journal.Words{{Step: "cleanup", At: at, Kind: failover.Ended, Status: failover.Broke, Text: "no such zone"}}; err != nil || !cmp.Equal(said, want) || state.Said != len(raw) {
		t.Errorf("Said = %+v, %v", said, err)
	}
	for n, want := range map[int64]bool{4: false, 5: true} { // entries that have none are stored as they were
		if record, err := p.ReadRun(ctx, "r1", n); err != nil || strings.Contains(string(record), `"said"`) != want {
			t.Errorf("record %d: %s, %v", n, record, err)
		}
	}
	much := make([]failover.Entry, 200) // a site that has the key of the project can write it
	for i := range much {
		much[i] = failover.Entry{Kind: failover.Ended, At: at, Step: "cleanup", Status: failover.Broke, Said: fmt.Sprint(i, strings.Repeat(" more", 4<<10))}
	}
	must(t, second.Append(ctx, much))
	must(t, second.Append(ctx, []failover.Entry{{Kind: failover.Ended, At: at, Step: "cleanup", Status: failover.Broke, Said: "the newest"}}))
	said, _, err = journal.Said(ctx, p, "r1")
	size := 0
	for _, w := range said {
		size += len(w.Text)
	}
	if err != nil || size > 2*failover.MostSaid || size < failover.MostSaid || said[len(said)-1].Text != "the newest" {
		t.Errorf("Said has %d bytes of %d tries, %v", size, len(said), err)
	}
	if runs, err := p.Runs(ctx); err != nil || !cmp.Equal(runs, []string{"r1"}) {
		t.Errorf("Runs = %v, %v", runs, err)
	}
}

func testOneWriter(t *testing.T, p *vault.Project) {
	must(t, journal.Create(p, "r", "e").Append(t.Context(), opening("r", "e")))
	var wg sync.WaitGroup
	won := make(chan string, 8)
	var open sync.WaitGroup
	open.Add(8)
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprint("e", i)
			j, _, err := journal.Open(t.Context(), p, "r", name)
			open.Done()
			open.Wait()
			if err != nil {
				t.Error(err)
				return
			}
			switch err := j.Append(t.Context(), took(name)); {
			case err == nil:
				won <- name
			case !errors.Is(err, journal.ErrDeposed):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(won)
	state, err := journal.Read(t.Context(), p, "r")
	if err != nil || len(won) != 1 || state.Executor != <-won {
		t.Errorf("%d won; %+v, %v", len(won), state, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnknownOutcome loses answers: the same entries are put again, and are
// found to be there.
func TestUnknownOutcome(t *testing.T) {
	store := fault.New(mem.New(nil), 1, fault.Faults{})
	p := project(t, store)
	j := journal.Create(p, "r", "e")
	store.Set(fault.Faults{Lose: 1})
	if err := j.Append(t.Context(), opening("r", "e")); !errors.Is(err, vault.ErrUnavailable) {
		t.Fatalf("Append = %v", err)
	}
	store.Set(fault.Faults{})
	if err := j.Append(t.Context(), took("e")); err == nil || errors.Is(err, journal.ErrDeposed) {
		t.Errorf("other entries were put under a key whose answer is out: %v", err)
	}
	must(t, j.Append(t.Context(), opening("r", "e")))
	must(t, j.Append(t.Context(), intended("sandbox")))
	if state, err := journal.Read(t.Context(), p, "r"); err != nil || state.Sequence != 2 {
		t.Errorf("Read = %+v, %v", state, err)
	}
}

// TestAgeIsByTheVaultsClock, whoever asks.
func TestAgeIsByTheVaultsClock(t *testing.T) {
	now := at
	p := project(t, mem.New(func() time.Time { return now }))
	if err := journal.Create(p, "r", "e1").Append(t.Context(), opening("r", "e1")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(40 * time.Minute)
	j, _, err := journal.Open(t.Context(), p, "r", "e2")
	if err != nil {
		t.Fatal(err)
	}
	if age, err := j.Age(t.Context(), 1); err != nil || age != 40*time.Minute {
		t.Errorf("the record is %s old, %v", age, err)
	}
	if _, err := j.Age(t.Context(), 2); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("a record that is not there: %v", err)
	}
}

// memory is a Log without a vault, for what no vault lets happen.
type memory map[int64][]byte

func (m memory) RunNumbers(context.Context, string) ([]int64, error) {
	var all []int64
	for n := int64(1); n <= 20; n++ {
		if m[n] != nil {
			all = append(all, n)
		}
	}
	return all, nil
}
func (m memory) ReadRun(_ context.Context, _ string, n int64) ([]byte, error) { return m[n], nil }

func (m memory) WriteRun(_ context.Context, _ string, n int64, data []byte) error {
	if m[n] != nil {
		return vault.ErrExists
	}
	m[n] = bytes.Clone(data)
	return nil
}

func (m memory) RunAge(context.Context, string, int64) (time.Duration, error) {
	return 0, vault.ErrUnavailable
}

func written(t testing.TB) memory {
	log := memory{}
	j := journal.Create(log, "r", "e1")
	for _, entries := range [][]failover.Entry{opening("r", "e1"), intended("sandbox")} {
		if err := j.Append(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
	}
	j, _, err := journal.Open(t.Context(), log, "r", "e2")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(t.Context(), took("e2")); err != nil {
		t.Fatal(err)
	}
	return log
}

// TestDamage changes records in every way that the format forbids.
func TestDamage(t *testing.T) {
	set := func(n int64, field string, value any) func(memory) {
		return func(m memory) {
			var r map[string]any
			if err := json.Unmarshal(m[n], &r); err != nil {
				t.Fatal(err)
			}
			r[field] = value
			m[n], _ = json.Marshal(r)
		}
	}
	for name, spoil := range map[string]func(memory){
		"a gap":                  func(m memory) { delete(m, 2) },
		"another run":            set(1, "run", "q"),
		"another number":         set(3, "sequence", 2),
		"the chain":              set(3, "previous", strings.Repeat("0", 64)),
		"one byte of a note":     set(2, "note", "x"), // breaks the hash of record 3
		"the epoch falls":        set(3, "epoch", 0),
		"the epoch jumps":        set(3, "epoch", 3),
		"a stranger writes":      set(3, "epoch", 1),
		"the name of another":    set(3, "executor", "e3"),
		"no entries":             set(3, "entries", []any{}),
		"an unknown kind":        set(3, "entries", []any{map[string]any{"kind": "took", "by": "e2"}, map[string]any{"kind": "dance"}}),
		"a step that is not":     set(3, "entries", []any{map[string]any{"kind": "took", "by": "e2"}, map[string]any{"kind": "intended", "step": "no"}}),
		"a new epoch acts first": set(3, "entries", []any{map[string]any{"kind": "intended", "step": "cleanup"}}),
		"no JSON":                func(m memory) { m[3] = []byte("{") },
		"opened twice":           set(3, "entries", []any{map[string]any{"kind": "took", "by": "e2"}, map[string]any{"kind": "opened", "spec": spec("r")}}),
	} {
		log := written(t)
		spoil(log)
		if _, err := journal.Read(t.Context(), log, "r"); !errors.Is(err, vault.ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
	}
	log := written(t)
	set(3, "formatVersion", 2)(log)
	if _, err := journal.Read(t.Context(), log, "r"); err == nil || !strings.Contains(err.Error(), "use a newer davit") {
		t.Errorf("a newer format: %v", err)
	}
	log = written(t)
	if _, err := journal.Read(t.Context(), log, "r"); err != nil {
		t.Errorf("untouched: %v", err)
	}
}

// FuzzRead reads whatever stands in the second record.
func FuzzRead(f *testing.F) {
	log := written(f)
	f.Add(log[1])
	f.Add(log[2])
	f.Add([]byte(`{"formatVersion":1,"run":"r","sequence":2,"previous":"","epoch":1,"executor":"e1","entries":[{"kind":"ended"},{"kind":"evaluated","facts":{"epochs":{}}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r map[string]any
		if json.Unmarshal(data, &r) == nil { // let the chain hold, so that the entries are read
			var one map[string]any
			if err := json.Unmarshal(log[2], &one); err != nil {
				t.Fatal(err)
			}
			r["previous"], r["run"], r["sequence"], r["epoch"], r["executor"], r["formatVersion"] = one["previous"], "r", 2, 1, "e1", 1
			data, _ = json.Marshal(r)
		}
		state, err := journal.Read(t.Context(), memory{1: log[1], 2: data}, "r")
		if err != nil {
			return
		}
		state.Result()
		failover.TakeOver("e", state).Waits()
	})
}
