package lead

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

// world is a vault and a steady clock that the test moves.
type world struct {
	t      *testing.T
	store  *fault.Store
	ledger InVault
	now    time.Duration
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: fault.New(mem.New(time.Now), 1, fault.Faults{})}
	p, key, err := consoletest.New(t.Context(), w.store, "acme")
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Ensure(t.Context(), p, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.ledger = InVault{Project: p, Authority: a, Console: "c0ffee"}
	return w
}

func (w *world) member(name string) *Member {
	return New(Options{
		Ledger: w.ledger, Holder: name, URL: "https://" + name, Steady: func() time.Duration { return w.now }, Now: time.Now,
	})
}

// step has members take one step each, and time pass.
func (w *world) step(members ...*Member) {
	w.t.Helper()
	for _, m := range members {
		if err := m.Step(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	w.now += Every
}

func (w *world) is(m *Member, role Role, epoch int64, url string) {
	w.t.Helper()
	if got := m.Status(); got != (Status{role, epoch, url}) {
		w.t.Errorf("%s is %+v, want %s of epoch %d at %s", m.Holder, got, role, epoch, url)
	}
}

// One is active while it counts; the other takes over when it stops, and at
// once when it ends by itself. One that wakes up is nobody.
func TestTakeover(t *testing.T) {
	w := newWorld(t)
	a, b := w.member("a"), w.member("b")
	for range 10 {
		w.step(a, b)
		w.is(a, Active, 1, "https://a")
		w.is(b, Passive, 1, "https://a")
	}
	for b.Status().Role == Passive { // a is stopped
		w.step(b)
		if w.now > time.Hour {
			t.Fatal("nobody takes over")
		}
	}
	w.is(a, Silent, 1, "https://a") // it knows by its own clock, before it has asked
	w.is(b, Active, 2, "https://b")
	if err := a.Confirm(t.Context()); !errors.Is(err, ErrPassive) {
		t.Errorf("one that woke up may acknowledge: %v", err)
	}
	w.is(a, Passive, 2, "https://b")
	w.step(a, b)
	w.is(a, Passive, 2, "https://b")
	if err := b.Confirm(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Confirm(t.Context()); !errors.Is(err, ErrPassive) {
		t.Errorf("one that has ended: %v", err)
	}
	w.step(a)
	w.is(a, Active, 3, "https://a")
	if err := a.ConfirmIn(t.Context(), 3); err != nil {
		t.Error(err)
	}
	if err := a.ConfirmIn(t.Context(), 1); !errors.Is(err, ErrPassive) {
		t.Errorf("what it began in its first epoch counts in its second: %v", err)
	}
}

// between is a ledger that something happens before.
type between struct {
	Ledger
	beat, claim func()
}

func once(f *func()) {
	if do := *f; do != nil {
		*f = nil
		do()
	}
}

func (l *between) Beat(ctx context.Context, b Beat) error {
	once(&l.beat)
	return l.Ledger.Beat(ctx, b)
}

func (l *between) Claim(ctx context.Context, c Claim) error {
	once(&l.claim)
	return l.Ledger.Claim(ctx, c)
}

// Whatever comes between a look and what follows from it, no two say at once that they are
// active: neither who was silent and gives a sign of life again just when another claims, nor
// who claims just when the other gives one.
func TestNeverTwoActive(t *testing.T) {
	silent := func() (w *world, a, b *Member, la, lb *between) {
		w = newWorld(t)
		a, b = w.member("a"), w.member("b")
		la, lb = &between{Ledger: a.Ledger}, &between{Ledger: b.Ledger}
		a.Ledger, b.Ledger = la, lb
		w.step(a, b)
		w.step(a, b)
		for w.now < Every+Patience { // a stands still
			w.step(b)
		}
		return w, a, b, la, lb
	}
	one := func(w *world, a, b *Member) {
		t.Helper()
		if a.Status().Role == Active && b.Status().Role == Active {
			t.Errorf("both are active: %+v, %+v", a.Status(), b.Status())
		}
	}
	goOn := func(w *world, a, b *Member) {
		t.Helper()
		for range 10 {
			_ = a.Step(t.Context()) // it may not rise yet
			one(w, a, b)
			_ = b.Step(t.Context())
			one(w, a, b)
			w.now += Every
			one(w, a, b)
		}
		w.is(b, Active, 2, "https://b")
		w.is(a, Passive, 2, "https://b")
	}
	t.Run("claimed before the sign of life", func(t *testing.T) {
		w, a, b, la, _ := silent()
		la.beat = func() {
			if err := b.Step(t.Context()); err != nil || b.Status().Role != Active {
				t.Fatalf("the control: it does not take over: %+v, %v", b.Status(), err)
			}
		}
		if err := a.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		one(w, a, b)
		goOn(w, a, b)
	})
	t.Run("claimed after the sign of life", func(t *testing.T) {
		w, a, b, _, lb := silent()
		lb.claim = func() {
			if err := a.Step(t.Context()); err != nil || a.Status().Role != Active {
				t.Fatalf("the control: it is not active again: %+v, %v", a.Status(), err)
			}
		}
		_ = b.Step(t.Context())
		one(w, a, b)
		goOn(w, a, b)
	})
}

// lost is a ledger that loses the first claim, which comes when all have looked.
type lost struct {
	Ledger
	claim *Claim
}

func (l *lost) Claim(ctx context.Context, c Claim) error {
	if l.claim == nil {
		l.claim = &c
		return vault.ErrUnavailable
	}
	return l.Ledger.Claim(ctx, c)
}

// A claim that comes after it was taken for lost makes nobody active beside one who has given
// a sign of life meanwhile.
func TestLateClaim(t *testing.T) {
	w := newWorld(t)
	a, b := w.member("a"), w.member("b")
	l := &lost{Ledger: b.Ledger}
	b.Ledger = l
	w.step(a, b)
	for l.claim == nil { // a stands still
		w.step(b)
	}
	if err := a.Step(t.Context()); err != nil || a.Status().Role != Active {
		t.Fatalf("the control: %+v, %v", a.Status(), err)
	}
	if err := l.Ledger.Claim(t.Context(), *l.claim); err != nil {
		t.Fatal(err)
	}
	for range 2 * Lease / time.Second {
		_ = b.Step(t.Context()) // it may not rise yet
		if a.Status().Role == Active && b.Status().Role == Active {
			t.Fatalf("both are active: %+v, %+v", a.Status(), b.Status())
		}
		w.now += time.Second
	}
	w.is(b, Active, 3, "https://b")
	w.step(a)
	w.is(a, Passive, 3, "https://b")
}

// Where the vault's epochs are gone nobody becomes active, however long it lasts:
// who looks may see an empty place, and the other the vault.
func TestSetBack(t *testing.T) {
	w := newWorld(t)
	a, b := w.member("a"), w.member("b")
	w.step(a, b)
	empty := newWorld(t)
	vaults := map[*Member]Ledger{a: a.Ledger, b: b.Ledger}
	for m := range vaults {
		m.Ledger = empty.ledger
	}
	if err := a.Confirm(t.Context()); !errors.Is(err, ErrSetBack) {
		t.Errorf("it is confirmed: %v", err)
	}
	for range 20 {
		for m := range vaults {
			if err := m.Step(t.Context()); !errors.Is(err, ErrSetBack) {
				t.Fatalf("%s: %v", m.Holder, err)
			}
		}
		w.now += Every
	}
	w.is(a, Silent, 1, "https://a")
	w.is(b, Passive, 1, "https://a")
	if c, err := empty.ledger.Newest(t.Context()); err != nil || c.Number != 0 {
		t.Errorf("someone claimed there: %+v, %v", c, err)
	}
	for m, l := range vaults { // the control: the vault is there again
		m.Ledger = l
	}
	w.step(a, b)
	w.is(a, Active, 1, "https://a")
	w.is(b, Passive, 1, "https://a")
}

// The negative control of Confirm: a member that goes by its lease alone still
// believes that it is active when another took over, its clock having stood
// still as that of a stopped process may.
func TestLeaseAloneProvesNothing(t *testing.T) {
	w := newWorld(t)
	frozen := w.now
	a := w.member("a")
	a.Steady = func() time.Duration { return frozen }
	b := w.member("b")
	w.step(a, b)
	for b.Status().Role == Passive {
		w.step(b)
	}
	w.is(a, Active, 1, "https://a")
	if err := a.Confirm(t.Context()); !errors.Is(err, ErrPassive) {
		t.Errorf("it may acknowledge: %v", err)
	}
}

// A vault that does not answer makes nobody active, and nobody takes over for
// that he cannot see.
func TestSilentVault(t *testing.T) {
	w := newWorld(t)
	a, b := w.member("a"), w.member("b")
	w.step(a, b)
	w.store.Set(fault.Faults{Refuse: 1})
	for range 10 {
		for _, m := range []*Member{a, b} {
			if err := m.Step(t.Context()); err == nil {
				t.Fatal("a step without a vault")
			}
		}
		w.now += Every
	}
	w.is(a, Silent, 1, "https://a")
	w.is(b, Passive, 1, "https://a")
	if err := a.Confirm(t.Context()); err == nil {
		t.Error("it may acknowledge without the vault")
	}
	w.store.Set(fault.Faults{})
	w.step(b, a) // that b could see no count proves nothing of a
	w.is(a, Active, 1, "https://a")
	w.is(b, Passive, 1, "https://a")
}

// Who takes over is not active before he has risen, and tries again.
func TestRise(t *testing.T) {
	w := newWorld(t)
	a := w.member("a")
	var tries []int64
	a.Rise = func(_ context.Context, epoch int64) error {
		tries = append(tries, epoch)
		if len(tries) == 1 {
			return errors.New("the journal cannot be read")
		}
		w.is(a, Passive, 1, "https://a")
		return nil
	}
	if err := a.Step(t.Context()); err == nil {
		t.Error("a rise that failed is not said")
	}
	w.is(a, Passive, 1, "https://a")
	w.step(a)
	w.step(a)
	w.is(a, Active, 1, "https://a")
	if fmt.Sprint(tries) != "[1 1]" {
		t.Errorf("rises: %v", tries)
	}
}

// A claim whose answer was lost is the claimer's.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t)
	a := w.member("a")
	w.store.Set(fault.Faults{Lose: 1})
	if err := a.Step(t.Context()); !errors.Is(err, vault.ErrUnavailable) {
		t.Fatalf("its beat was lost too: %v", err)
	}
	w.is(a, Passive, 1, "https://a")
	w.store.Set(fault.Faults{})
	w.step(a)
	w.is(a, Active, 1, "https://a")
}

// Of many that claim at once, one becomes active; each number is one's alone.
func TestRace(t *testing.T) {
	w := newWorld(t)
	var members []*Member
	for i := range 8 {
		members = append(members, w.member(fmt.Sprint("m", i)))
	}
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() {
			if err := m.Step(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	active := 0
	for _, m := range members {
		if m.Confirm(t.Context()) == nil {
			active++
		}
	}
	if active != 1 {
		t.Errorf("%d are active", active)
	}
}

// What a site writes with its own key counts for nothing.
func TestForgedClaim(t *testing.T) {
	w := newWorld(t)
	a := w.member("a")
	w.step(a)
	forged := []byte(`{"formatVersion":1,"number":2,"holder":"site","url":"https://evil.example.com"}`)
	if err := w.ledger.Project.WriteSealedOnce(t.Context(), w.ledger.claimKey(2), forged); err != nil {
		t.Fatal(err)
	}
	if err := a.Confirm(t.Context()); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("%v", err)
	}
	if got := a.Status().URL; got != "https://a" {
		t.Errorf("people are sent to %s", got)
	}
}
