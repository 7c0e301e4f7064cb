package lease_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/retry"
)

// ledger opens a project in the store.
func ledger(tb interface {
	Context() context.Context
	Fatal(...any)
}, store vault.Store,
) *vault.Project {
	recovery, err := vault.NewRecoveryKey()
	if err != nil {
		tb.Fatal(err)
	}
	p, err := vault.CreateProject(tb.Context(), store, "acme", recovery.Recipient())
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func claim(site, request string) lease.Claim {
	return lease.Claim{Site: site, Holder: "test", Reason: "test", Request: request}
}

func TestClaimsFollowEachOther(t *testing.T) {
	e := lease.New(ledger(t, mem.New(nil)))
	if current, err := e.Current(t.Context(), "shop"); err != nil || current.Number != 0 {
		t.Fatalf("Current = %+v, %v; want number 0", current, err)
	}
	first, err := e.Claim(t.Context(), "shop", 1, claim("east", "a"))
	if err != nil || first.Number != 1 || first.Claim.Previous != 0 {
		t.Fatalf("Claim = %+v, %v", first, err)
	}
	if err := e.Check(t.Context(), "shop", 1); err != nil {
		t.Errorf("Check of the holder: %v", err)
	}
	if _, err := e.Claim(t.Context(), "shop", 3, claim("west", "b")); err == nil {
		t.Error("a claim that leaves a gap succeeded")
	}
	if _, err := e.Claim(t.Context(), "shop", 1, claim("west", "b")); !errors.Is(err, lease.ErrLost) {
		t.Errorf("a claim of a taken number gave %v, want ErrLost", err)
	}
	second, err := e.Claim(t.Context(), "shop", 2, claim("west", "b"))
	if err != nil || second.Claim.Previous != 1 {
		t.Fatalf("Claim = %+v, %v", second, err)
	}
	var superseded *lease.SupersededError
	err = e.Check(t.Context(), "shop", 1)
	if !errors.Is(err, lease.ErrSuperseded) || !errors.As(err, &superseded) || superseded.Current.Claim.Site != "west" {
		t.Errorf("Check of the loser = %v, want SupersededError by west", err)
	}
	if _, err := e.Claim(t.Context(), "shop", 1, claim("east", "a")); !errors.Is(err, lease.ErrSuperseded) {
		t.Errorf("claiming the old number again gave %v, want ErrSuperseded", err)
	}
	if err := e.Check(t.Context(), "shop", 5); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("Check of an epoch the vault lost = %v, want ErrDamaged", err)
	}
	if _, err := e.Claim(t.Context(), "shop", 3, lease.Claim{Site: "east"}); err == nil {
		t.Error("a claim without a request succeeded")
	}
	history, err := e.History(t.Context(), "shop")
	if err != nil || len(history) != 2 || history[1].Claim.Site != "west" {
		t.Errorf("History = %+v, %v", history, err)
	}
}

// TestOneWinner lets claimers race for each of several numbers over a store
// that loses answers: one wins, and knows it.
func TestOneWinner(t *testing.T) {
	faulty := fault.New(mem.New(nil), 3, fault.Faults{})
	store := retry.New(faulty, retry.Policy{Tries: 50, First: time.Microsecond, Max: time.Microsecond})
	e := lease.New(ledger(t, store))
	faulty.Set(fault.Faults{Refuse: 0.3, Lose: 0.4})
	for n := int64(1); n <= 10; n++ {
		const claimers = 16
		won := make([]bool, claimers)
		var wg sync.WaitGroup
		for i := range claimers {
			wg.Go(func() {
				_, err := e.Claim(t.Context(), "shop", n, claim("site", fmt.Sprintf("%d-%d", n, i)))
				if err != nil && !errors.Is(err, lease.ErrLost) {
					t.Errorf("Claim: %v", err)
				}
				won[i] = err == nil
			})
		}
		wg.Wait()
		winner := slices.Index(won, true)
		won = slices.DeleteFunc(won, func(w bool) bool { return !w })
		if len(won) != 1 {
			t.Fatalf("epoch %d has %d winners", n, len(won))
		}
		current, err := e.Current(t.Context(), "shop")
		if err != nil || current.Number != n || current.Claim.Request != fmt.Sprintf("%d-%d", n, winner) {
			t.Errorf("Current = %+v, %v; the winner was %d", current, err, winner)
		}
	}
	if faulty.Count() == 0 {
		t.Error("no fault was injected")
	}
}

// TestUnknownOutcomeIsAskedAgain loses the answer of a claim without any retry.
func TestUnknownOutcomeIsAskedAgain(t *testing.T) {
	store := fault.New(mem.New(nil), 1, fault.Faults{})
	e := lease.New(ledger(t, store))
	store.Set(fault.Faults{Lose: 1})
	if _, err := e.Claim(t.Context(), "shop", 1, claim("east", "a")); !errors.Is(err, vault.ErrUnavailable) {
		t.Fatalf("Claim = %v, want ErrUnavailable", err)
	}
	store.Set(fault.Faults{})
	if _, err := e.Claim(t.Context(), "shop", 1, claim("west", "b")); !errors.Is(err, lease.ErrLost) {
		t.Errorf("another's claim = %v, want ErrLost", err)
	}
	if again, err := e.Claim(t.Context(), "shop", 1, claim("east", "a")); err != nil || again.Number != 1 {
		t.Errorf("the same claim again = %+v, %v; want epoch 1", again, err)
	}
}

func TestGapInHistoryIsDamage(t *testing.T) {
	store := mem.New(nil)
	e := lease.New(ledger(t, store))
	for n := range int64(3) {
		if _, err := e.Claim(t.Context(), "shop", n+1, claim("east", fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Delete(t.Context(), "projects/acme/epochs/shop/00000000000000000002"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.History(t.Context(), "shop"); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("History = %v, want ErrDamaged", err)
	}
}

// TestBackReadsNoMoreThanItTakes, and what it did not read does not matter.
func TestBackReadsNoMoreThanItTakes(t *testing.T) {
	const gone, damaged = "gone", "damaged"
	for name, c := range map[string]struct {
		spoil map[int64]string
		until int64 // wants no more after that one
		read  string
		bad   bool
	}{
		"all":                       {nil, 0, "4 3 2 1", false},
		"the newest":                {nil, 4, "4", false},
		"damage that is not met":    {map[int64]string{2: damaged}, 3, "4 3", false},
		"a gap that is not met":     {map[int64]string{1: gone}, 2, "4 3 2", false},
		"found behind damage":       {map[int64]string{3: damaged}, 2, "4 2", false},
		"found behind a gap":        {map[int64]string{3: gone}, 2, "4 2", false},
		"not found, and damage":     {map[int64]string{3: damaged}, 0, "4 2 1", true},
		"not found, and a gap":      {map[int64]string{2: gone}, 0, "4 3 1", true},
		"not found, the first gone": {map[int64]string{1: gone}, 0, "4 3 2", true},
		"the newest is damaged":     {map[int64]string{4: damaged}, 3, "", true},
	} {
		store := mem.New(nil)
		e := lease.New(ledger(t, store))
		for n := range int64(4) {
			if _, err := e.Claim(t.Context(), "shop", n+1, claim("east", fmt.Sprint(n))); err != nil {
				t.Fatal(err)
			}
		}
		for n, how := range c.spoil {
			key := fmt.Sprintf("projects/acme/epochs/shop/%020d", n)
			err := store.Delete(t.Context(), key)
			if err == nil && how == damaged {
				err = store.Put(t.Context(), key, strings.NewReader("?"), 1)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var read []string
		err := e.Back(t.Context(), "shop", func(e lease.Epoch) bool {
			read = append(read, fmt.Sprint(e.Number))
			return e.Number != c.until
		})
		if got := strings.Join(read, " "); got != c.read || errors.Is(err, vault.ErrDamaged) != c.bad || !c.bad && err != nil {
			t.Errorf("%s: read %s, want %s; %v", name, got, c.read, err)
		}
	}
}

// TestNoPointOfALoserIsOffered plays random histories of two sites that
// capture, claim and publish late, and checks what would be offered against
// what is true: a point is sound if it was published before its epoch ended,
// or just fell into the moment between listing and claiming.
func TestNoPointOfALoserIsOffered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := lease.New(ledger(t, mem.New(nil)))
		var points []point.Point
		late := map[string]bool{}
		held := map[string]int64{}
		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			site := rapid.SampledFrom([]string{"east", "west"}).Draw(t, "site")
			history, err := e.History(t.Context(), "shop")
			if err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "claims") {
				c := claim(site, fmt.Sprint(step))
				c.Accepted = point.Accepted(points, lease.Summaries(history))
				won, err := e.Claim(t.Context(), "shop", int64(len(history))+1, c)
				if err != nil {
					t.Fatal(err)
				}
				held[site] = won.Number
				continue
			}
			id := fmt.Sprintf("p%d", step)
			points = append(points, point.Point{ID: id, Epoch: held[site]})
			late[id] = held[site] < int64(len(history))
		}
		history, err := e.History(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		bad := point.Quarantined(points, lease.Summaries(history))
		for _, p := range points {
			if got := slices.Contains(bad, p.ID); got != late[p.ID] {
				t.Errorf("point %s of epoch %d: quarantined %v, want %v", p.ID, p.Epoch, got, late[p.ID])
			}
		}
	})
}
