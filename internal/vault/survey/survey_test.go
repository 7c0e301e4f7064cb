package survey

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/vaulttest"
)

func TestContract(t *testing.T) {
	vaulttest.Run(t, func(*testing.T) vault.Store { return New(mem.New(nil), NewBudget(1<<20)) })
}

// TestContractSurveyed: what this process writes it sees, surveyed or not.
func TestContractSurveyed(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vault.Store {
		s := New(mem.New(nil), NewBudget(1<<20))
		if err := s.Take(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		return s
	})
}

type rig struct {
	t      *testing.T
	below  *fault.Store
	budget *Budget
	store  *Store
	now    time.Time
}

func newRig(t *testing.T, budget int64) *rig {
	r := &rig{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), budget: NewBudget(budget)}
	r.below = fault.New(mem.New(func() time.Time { return r.now }), 1, fault.Faults{})
	r.store = New(r.below, r.budget)
	return r
}

// put writes below, as a site does.
func (r *rig) put(key, data string) {
	r.t.Helper()
	r.must(r.below.Put(r.t.Context(), key, strings.NewReader(data), int64(len(data))))
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// look reads all beneath a prefix.
func (r *rig) look(prefix string) (all string) {
	r.t.Helper()
	var keys []string
	r.must(r.store.List(r.t.Context(), prefix, func(o vault.ObjectInfo) error { keys = append(keys, o.Key); return nil }))
	for _, key := range keys {
		b, err := r.store.Get(r.t.Context(), key, 0, -1)
		r.must(err)
		data, err := io.ReadAll(b)
		r.must(errors.Join(err, b.Close()))
		all += string(data)
	}
	return all
}

// TestFewCalls: one list answers many, and an object is read once as it is.
func TestFewCalls(t *testing.T) {
	r := newRig(t, 1<<20)
	step := func(name, want string, calls int64) {
		t.Helper()
		before := r.store.Calls()
		r.must(r.store.Take(t.Context(), "p/"))
		got := ""
		for _, app := range []string{"a", "b", "c"} {
			got += r.look("p/" + app + "/")
		}
		if n := r.store.Calls() - before; got != want || n != calls {
			t.Errorf("%s: %q in %d calls, want %q in %d", name, got, n, want, calls)
		}
	}
	r.put("p/a/1", "a1")
	r.put("p/b/1", "b1")
	r.put("p/ab/1", "no")
	step("first", "a1b1", 3)
	step("again", "a1b1", 1)
	r.put("p/a/2", "a2")
	step("a new one", "a1a2b1", 2)
	r.now = r.now.Add(time.Second)
	r.put("p/b/1", "B1")
	step("another of the same size", "a1a2B1", 2)
	r.must(r.below.Delete(t.Context(), "p/a/1"))
	step("one is gone", "a2B1", 1)
	r.must(r.below.Delete(t.Context(), "p/b/1"))
	step("the last is gone", "a2", 1)
	if o, err := r.store.Stat(t.Context(), "p/a/2"); err != nil || o.Size != 2 {
		t.Error(o, err)
	}
	if have := r.budget.Left(); have != 1<<20-2 {
		t.Errorf("%d bytes are left", have)
	}
	r.store.Forget()
	if have := r.budget.Left(); have != 1<<20 {
		t.Errorf("%d bytes are left when all is forgotten", have)
	}
}

// TestBudgetIsShared: what does not fit is read each time, whoever has the rest.
func TestBudgetIsShared(t *testing.T) {
	r := newRig(t, 3)
	other := New(r.below, r.budget)
	for i := range 4 {
		r.put(fmt.Sprintf("p/%d", i), fmt.Sprint(i))
		r.put(fmt.Sprintf("q/%d", i), fmt.Sprint(i))
	}
	r.must(r.store.Take(t.Context(), "p/"))
	r.must(other.Take(t.Context(), "q/"))
	r.look("p/1")
	r.store, other = other, r.store
	r.look("q/")
	before := r.store.Calls()
	if got := r.look("q/"); got != "0123" || r.store.Calls()-before != 2 || r.budget.Left() != 0 {
		t.Errorf("%q in %d calls, %d bytes left", got, r.store.Calls()-before, r.budget.Left())
	}
	other.Forget()
	r.look("q/")
	before = r.store.Calls()
	if got := r.look("q/"); got != "0123" || r.store.Calls()-before != 1 {
		t.Errorf("%q in %d calls when the other gave back what it had", got, r.store.Calls()-before)
	}
}

// TestCutSurvey: a list that fails changes nothing, and is no answer.
func TestCutSurvey(t *testing.T) {
	r := newRig(t, 1<<20)
	r.put("p/a", "a")
	if !r.store.Heard().IsZero() {
		t.Error("heard before it was asked")
	}
	r.must(r.store.Take(t.Context(), "p/"))
	heard, mark := r.store.Heard(), r.store.Mark("p/")
	if !strings.Contains(heard.String(), " m=") { // else a clock that is set back makes a silent vault of it
		t.Errorf("heard by the wall's clock: %s", heard)
	}
	if heard.IsZero() || mark == 0 || r.store.Mark("p/none") != 0 {
		t.Error(heard, mark)
	}
	r.put("p/b", "b")
	r.below.Set(fault.Faults{Refuse: 1})
	if err := r.store.Take(t.Context(), "p/"); !errors.Is(err, vault.ErrUnavailable) {
		t.Fatal(err)
	}
	if all, surveyed := r.store.Under("p/"); !surveyed || len(all) != 1 || !r.store.Heard().Equal(heard) || r.store.Mark("p/") != mark {
		t.Errorf("%v, heard %s and %s", all, heard, r.store.Heard())
	}
	r.below.Set(fault.Faults{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.store.Take(ctx, "p/"); err == nil {
		t.Fatal("surveyed without time")
	}
	r.must(r.store.Take(t.Context(), "p/"))
	if r.store.Mark("p/") == mark {
		t.Error("a new object leaves the mark as it was")
	}
}

// TestSameMemory: a listing that is the same is not made again, and one that differs
// leaves those who read the former one theirs.
func TestSameMemory(t *testing.T) {
	r := newRig(t, 1<<20)
	for i := range 9 {
		r.put(fmt.Sprintf("p/%d", i), "x")
	}
	r.must(r.store.Take(t.Context(), "p/"))
	first, _ := r.store.Under("p/")
	copied := slices.Clone(first)
	r.must(r.store.Take(t.Context(), "p/"))
	if again, _ := r.store.Under("p/"); &again[0] != &first[0] {
		t.Error("the same was listed into memory of its own")
	}
	r.put("p/45", "x")
	r.must(r.store.Take(t.Context(), "p/"))
	if now, _ := r.store.Under("p/"); len(now) != 10 || now[5].Key != "p/45" || !slices.Equal(first, copied) {
		t.Errorf("%v, then %v", now, first)
	}
}

// TestReread: what is to be read again is, and nothing else.
func TestReread(t *testing.T) {
	r := newRig(t, 1<<20)
	r.put("p/a", "a")
	r.put("p/b", "b")
	r.must(r.store.Take(t.Context(), "p/"))
	r.look("p/")
	r.put("p/a", "A") // at the same time, of the same size: nothing in the list says so
	r.must(r.store.Take(t.Context(), "p/"))
	before := r.store.Calls()
	if got := r.look("p/"); got != "ab" || r.store.Calls() != before {
		t.Errorf("the control: %q", got)
	}
	r.store.Reread("p/a")
	if got := r.look("p/"); got != "Ab" || r.store.Calls() != before+1 || r.budget.Left() != 1<<20-2 {
		t.Errorf("%q in %d calls, %d bytes left", got, r.store.Calls()-before, r.budget.Left())
	}
}
