package journal_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/vault"
)

// far is a Log that takes its time for each record.
type far struct {
	memory
	delay  time.Duration
	silent int64 // from this record on; 0: never

	mu    sync.Mutex
	asked int
}

func (f *far) RunNumbers(context.Context, string) ([]int64, error) {
	all := make([]int64, len(f.memory))
	for i := range all {
		all[i] = int64(i) + 1
	}
	return all, nil
}

func (f *far) ReadRun(ctx context.Context, _ string, n int64) ([]byte, error) {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	select {
	case <-time.After(f.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch data := f.memory[n]; {
	case f.silent > 0 && n >= f.silent:
		return nil, vault.ErrUnavailable
	case data == nil:
		return nil, vault.ErrNotFound
	default:
		return data, nil
	}
}

func long(t *testing.T, records int) *far {
	t.Helper()
	f := &far{memory: memory{}, delay: 20 * time.Millisecond}
	j := journal.Create(f.memory, "r", "e1")
	if err := j.Append(t.Context(), opening("r", "e1")); err != nil {
		t.Fatal(err)
	}
	for len(f.memory) < records {
		if err := j.Append(t.Context(), intended("sandbox")); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// A run of many applications has hundreds or thousands of records, and whoever takes it over has 2 s
// beyond the lease of who died: one after the other, from a vault that is 20 ms away, these would take 12.
func TestALongJournalIsReadInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := long(t, 600)
		for name, read := range map[string]func() (int64, error){
			"taken over": func() (int64, error) {
				_, state, err := journal.Open(t.Context(), f, "r", "e2")
				if err != nil {
					return 0, err
				}
				return state.Sequence, nil
			},
			"followed": func() (int64, error) {
				state, err := journal.Follow(f, "r").Next(t.Context())
				if err != nil {
					return 0, err
				}
				return state.Sequence, nil
			},
		} {
			began := time.Now()
			if n, err := read(); err != nil || n != 600 {
				t.Errorf("%s: %d records, %v", name, n, err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s in %s", name, took)
			}
		}
	})
}

// What cannot be read ends it, and leaves nothing behind; a follower goes on from there.
func TestAJournalThatBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := long(t, 200)
		f.silent = 100
		if _, err := journal.Read(t.Context(), f, "r"); !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		r := journal.Follow(f, "r")
		if _, err := r.Next(t.Context()); !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		f.mu.Lock()
		f.silent, f.asked = 0, 0
		f.mu.Unlock()
		state, err := r.Next(t.Context())
		if err != nil || state.Sequence != 200 {
			t.Fatalf("%+v, %v", state, err)
		}
		if f.asked > 102 { // 100 to 200, and that there is no more
			t.Errorf("it read %d records again", f.asked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := journal.Read(ctx, f, "r"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("its time is over: %v", err)
		}
	})
}
