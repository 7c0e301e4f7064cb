package console

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/store"
)

func TestAnewTakesItsTime(t *testing.T) {
	var a anew
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		if a = a.next(time.Second); a.times != i+1 || a.pause != want*time.Second {
			t.Fatalf("%+v after %d times", a, i+1)
		}
	}
	if a = a.next(anewCalm); a.pause != 0 || a.times != 1 {
		t.Errorf("what was long ago counts: %+v", a)
	}
}

// On a disk that loses databases again and again a console does not go round and round:
// it waits, and says what to do.
func TestLostAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var pauses []time.Duration
	losses := 4
	w.change = func(o *Options) {
		o.lost = func(context.Context, *store.Console) error {
			mu.Lock()
			defer mu.Unlock()
			if losses == 0 {
				return nil
			}
			losses--
			return errors.New("planted")
		}
		o.pause = func(_ context.Context, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			pauses = append(pauses, d)
		}
	}
	w.start() // it is away again and again
	consoletest.Until(t, "lost four times", func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		return losses == 0 && len(pauses) == 3, w.logs.String()
	})
	consoletest.Until(t, "active again", func() (bool, string) { return w.answers("", "/healthz/active"), w.logs.String() })
	mu.Lock()
	defer mu.Unlock()
	for i, d := range pauses {
		if d != anewFirst<<i {
			t.Errorf("pauses: %v", pauses)
		}
	}
	if text := w.logs.String(); !strings.Contains(text, "its disk may be failing") {
		t.Errorf("it is not said: %s", text)
	}
}

// To read the whole of a damaged database takes long. The lease is renewed meanwhile: a
// console that goes on being active is not replaced for that.
func TestLeaseDoesNotWaitForFiles(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	looking, looked := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(looked) })
	var once sync.Once
	w.change = func(o *Options) {
		o.lost = func(ctx context.Context, _ *store.Console) error {
			once.Do(func() { close(looking) })
			select {
			case <-looked:
			case <-ctx.Done():
			}
			return nil
		}
	}
	w.serve()
	<-looking
	first := w.beat()
	consoletest.Until(t, "renewed while a file is read", func() (bool, string) { return w.beat().Count >= first.Count+3, w.logs.String() })
}

// beat is the newest of the active console, as the vault has it.
func (w *world) beat() lead.Beat {
	w.t.Helper()
	c, err := store.Open(w.t.Context(), w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	l := ledger{newShelves(w.options(), c)}
	newest, err := l.Newest(w.t.Context())
	var b lead.Beat
	if err == nil {
		b, err = l.ReadBeat(w.t.Context(), newest.Number)
	}
	if err := errors.Join(err, c.Close()); err != nil {
		w.t.Fatal(err)
	}
	return b
}
