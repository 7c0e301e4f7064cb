package retry_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/retry"
)

func put(ctx context.Context, s vault.Store, data string) error {
	return s.PutIfAbsent(ctx, "key", strings.NewReader(data), int64(len(data)))
}

func TestGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := retry.New(fault.New(mem.New(nil), 1, fault.Faults{Refuse: 1}), retry.Default)
		began := time.Now()
		if err := put(t.Context(), s, "x"); !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("PutIfAbsent = %v, want ErrUnavailable", err)
		}
		if took := time.Since(began); took < 5*time.Second || took > 15*time.Second {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestHonoursDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, faults := range map[string]fault.Faults{"refused": {Refuse: 1}, "stalled": {Stall: 1}} {
			s := retry.New(fault.New(mem.New(nil), 1, faults), retry.Default)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			err := put(ctx, s, "x")
			cancel()
			if !errors.Is(err, vault.ErrUnavailable) || time.Since(began) != time.Second {
				t.Errorf("%s: %v after %v, want ErrUnavailable after 1s", name, err, time.Since(began))
			}
		}
	})
}

// slow answers after a while.
type slow struct {
	vault.Store
	after time.Duration
}

func (s *slow) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	time.Sleep(s.after) // of a bubble: how slow it is
	return s.Store.Stat(ctx, key)
}

func (s *slow) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	return s.Store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		err := fn(o)
		time.Sleep(s.after) // of a bubble: how long the list takes
		return err
	})
}

// TestSilenceIsToldOf: whoever waits hears of it, once and with what is known of why, but
// not where there was an answer, nor in the middle of a long list.
func TestSilenceIsToldOf(t *testing.T) {
	stat := func(ctx context.Context, s vault.Store) { _, _ = s.Stat(ctx, "key") } // what it says does not matter
	list := func(ctx context.Context, s vault.Store) {
		_ = s.List(ctx, "", func(vault.ObjectInfo) error { return nil }) // what it says does not matter
	}
	for name, tt := range map[string]struct {
		store func(full vault.Store) vault.Store
		do    func(context.Context, vault.Store)
		want  string // what is told; empty: nothing
	}{
		"refused":     {func(s vault.Store) vault.Store { return fault.New(s, 1, fault.Faults{Refuse: 1}) }, stat, "mem: unavailable"},
		"stalled":     {func(s vault.Store) vault.Store { return fault.New(s, 1, fault.Faults{Stall: 1}) }, stat, "mem: "},
		"slow":        {func(s vault.Store) vault.Store { return &slow{s, 4 * time.Second} }, stat, "mem: "},
		"fast":        {func(s vault.Store) vault.Store { return &slow{s, 2 * time.Second} }, stat, ""},
		"a long list": {func(s vault.Store) vault.Store { return &slow{s, time.Minute} }, list, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				full := mem.New(nil)
				if err := put(t.Context(), full, "x"); err != nil {
					t.Fatal(err)
				}
				policy, told := retry.Default, []string{}
				policy.Silent = func(store string, last error) {
					text := store + " "
					if errors.Is(last, vault.ErrUnavailable) {
						text += "unavailable"
					}
					told = append(told, text)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				tt.do(ctx, retry.New(tt.store(full), policy))
				synctest.Wait()
				switch {
				case tt.want == "" && len(told) > 0, tt.want != "" && (len(told) != 1 || told[0] != tt.want):
					t.Errorf("told %q, want %q", told, tt.want)
				}
			})
		})
	}
}

// scripted answers put-if-absent as told: "lose" does it and says nothing,
// "refuse" does not, "do" does.
type scripted struct {
	vault.Store
	script []string
	before func()
}

func (s *scripted) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	step := s.script[0]
	s.script = s.script[1:]
	if s.before != nil {
		s.before()
	}
	if step == "refuse" {
		return vault.ErrUnavailable
	}
	err := s.Store.PutIfAbsent(ctx, key, r, size)
	if step == "lose" {
		return vault.ErrUnavailable
	}
	return err
}

// TestUnknownOutcomes tries every way in which a conditional put can go
// without an answer, with and without a rival.
func TestUnknownOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tests := []struct {
			name   string
			script string
			rival  bool // took the key before
			want   error
		}{
			{"at once", "do", false, nil},
			{"taken", "do", true, vault.ErrExists},
			{"answer lost, tried again", "lose do", false, nil},
			{"answer lost thrice", "lose lose lose", false, nil},
			{"refused, then done", "refuse do", false, nil},
			{"refused throughout", "refuse refuse refuse", false, vault.ErrUnavailable},
			{"rival, answer lost", "lose do", true, vault.ErrExists},
			{"rival, never an answer", "refuse lose refuse", true, vault.ErrExists},
		}
		for _, test := range tests {
			store := mem.New(nil)
			if test.rival {
				if err := put(t.Context(), store, "rival"); err != nil {
					t.Fatal(err)
				}
			}
			s := retry.New(&scripted{Store: store, script: strings.Fields(test.script)}, retry.Policy{Tries: 3, First: time.Second, Max: time.Second})
			err := put(t.Context(), s, "ours")
			if !errors.Is(err, test.want) || (test.want == nil && err != nil) {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
		}
	})
}

// TestReplacedWhileRead replaces an object whose reading breaks off.
func TestReplacedWhileRead(t *testing.T) {
	store := mem.New(nil)
	old, fresh := strings.Repeat("a", 1000), strings.Repeat("b", 2000)
	faulty := fault.New(store, 5, fault.Faults{Tear: 1})
	if err := store.Put(t.Context(), "key", strings.NewReader(old), 1000); err != nil {
		t.Fatal(err)
	}
	r, err := retry.New(faulty, retry.Policy{Tries: 5}).Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), "key", strings.NewReader(fresh), 2000); err != nil {
		t.Fatal(err)
	}
	faulty.Set(fault.Faults{})
	rest, err := io.ReadAll(r)
	if !errors.Is(err, vault.ErrUnavailable) || strings.Contains(string(rest), "b") {
		t.Errorf("read on into another object: %d bytes, %v", len(rest), err)
	}
}

// TestLongStreamsGoOn breaks streams before and after so much has come that it is not
// compared any more.
func TestLongStreamsGoOn(t *testing.T) {
	store := mem.New(nil)
	want := strings.Repeat("0123456789abcdef!", 200_000) // 3.4 MB
	if err := store.Put(t.Context(), "key", strings.NewReader(want), int64(len(want))); err != nil {
		t.Fatal(err)
	}
	broken := 0
	for seed := range uint64(6) {
		faulty := fault.New(store, seed, fault.Faults{Tear: 0.7})
		r, err := retry.New(faulty, retry.Policy{Tries: 20}).Get(t.Context(), "key", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != want {
			t.Errorf("seed %d: %d of %d bytes, or others: %v", seed, len(got), len(want), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		broken += faulty.Count()
	}
	if broken < 6 {
		t.Errorf("%d streams broke", broken)
	}
}
