package recovery

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// eye is a store in which something happens before the first pack is read. It may be
// for reading only.
type eye struct {
	vault.Store
	once    sync.Once
	looked  func()
	refuses error
}

func (s *eye) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if strings.Contains(key, "/objects/") {
		s.once.Do(s.looked)
	}
	return s.Store.Get(ctx, key, offset, length)
}

func (s *eye) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if s.refuses != nil {
		return s.refuses
	}
	return s.Store.Put(ctx, key, r, size)
}

func (w *world) readers() []reading.Reader {
	w.t.Helper()
	all, err := reading.Readers(w.t.Context(), w.project, "shop", time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// removed tries to remove the point as retention does.
func (w *world) removed(id string) error {
	w.t.Helper()
	claim, err := reading.Claim(w.t.Context(), w.project, "shop", id, "retention", "east")
	if err == nil {
		err = errors.Join(w.project.DeletePoint(w.t.Context(), "shop", id), claim.Release(w.t.Context()))
	}
	return err
}

func cloning() Options {
	return Options{Application: "shop", Point: "shop-1", Mode: v1alpha1.RestoreClone, NamespaceMapping: map[string]string{"shop": "copy"}}
}

// watched is a world with two points, in whose vault something happens before the
// first pack of one is read.
func watched(t *testing.T, looked func(w *world)) (*world, *eye) {
	t.Helper()
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant.Add(-time.Minute), point.Crash)
	w.capture("shop-2", "east", 1, instant, point.Crash)
	e := &eye{Store: w.project.Store(), looked: func() { looked(w) }}
	w.deps.Project = w.project.Over(func(vault.Store) vault.Store { return e })
	return w, e
}

// TestAPointStaysWhileItIsRestored: from before the first byte of it is read until
// the end. The control is the same removal in a vault that could not be told: the
// restore is warned, and fails.
func TestAPointStaysWhileItIsRestored(t *testing.T) {
	var met error
	w, _ := watched(t, func(w *world) {
		if readers := w.readers(); len(readers) != 1 || readers[0].Site != "west" || readers[0].For != "test" || !strings.HasPrefix(readers[0].By, "restore r") {
			w.t.Errorf("readers are %+v", readers)
		}
		met = w.removed("shop-1")
	})
	rep, err := Recover(t.Context(), cloning(), w.deps)
	if err != nil || rep.Phase != v1alpha1.RestoreCompleted || w.value("copy") != "shop-1" {
		t.Fatalf("%v %+v", err, rep)
	}
	if !errors.Is(met, reading.ErrRead) {
		t.Errorf("retention met %v", met)
	}
	if readers := w.readers(); len(readers) > 0 {
		t.Errorf("readers after the end: %+v", readers)
	}

	w, e := watched(t, func(w *world) { met = w.removed("shop-1") })
	e.refuses = vault.ErrDenied
	rep, err = Recover(t.Context(), cloning(), w.deps)
	if met != nil || err == nil {
		t.Errorf("control: removed with %v, restored with %v", met, err)
	}
	if !slices.ContainsFunc(rep.Result.Warnings, func(p restore.Problem) bool { return strings.Contains(p.Message, "nothing keeps point shop-1") }) {
		t.Errorf("control: warnings %+v", rep.Result.Warnings)
	}
}

// TestAVaultForReadingOnlyIsRestoredFrom, with a warning.
func TestAVaultForReadingOnlyIsRestoredFrom(t *testing.T) {
	w, e := watched(t, func(*world) {})
	e.refuses = vault.ErrDenied
	rep, err := Recover(t.Context(), cloning(), w.deps)
	if err != nil || rep.Phase != v1alpha1.RestoreWarned || w.value("copy") != "shop-1" {
		t.Errorf("%v %+v", err, rep)
	}
}

// TestWhatIsBeingRemovedIsNotRestored: it was listed a moment ago. The
// restore waits some seconds for the removal to stand back.
func TestWhatIsBeingRemovedIsNotRestored(t *testing.T) {
	w, _ := watched(t, func(*world) {})
	if _, err := reading.Claim(t.Context(), w.project, "shop", "shop-1", "retention", "east"); err != nil {
		t.Fatal(err)
	}
	_, err := Recover(t.Context(), cloning(), w.deps)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "choose another") || w.value("copy") != "" {
		t.Errorf("restored %q, %v", w.value("copy"), err)
	}
}

// TestAPointStaysBetweenTheParts of a restore that is given in parts, and after one
// that did not end well; looking at it alone keeps nothing.
func TestAPointStaysBetweenTheParts(t *testing.T) {
	w, _ := watched(t, func(*world) {})
	for _, look := range []func(context.Context, Options, Deps) (Report, error){Plan, Check} {
		if _, err := look(t.Context(), cloning(), w.deps); err != nil || len(w.readers()) > 0 {
			t.Errorf("looked at: %v, readers %+v", err, w.readers())
		}
	}
	opts := cloning()
	opts.To = sequence.Data
	if _, err := Recover(t.Context(), opts, w.deps); err != nil || !errors.Is(w.removed("shop-1"), reading.ErrRead) {
		t.Errorf("after the first part: %v, readers %+v", err, w.readers())
	}
	if _, err := Recover(t.Context(), cloning(), w.deps); err != nil || len(w.readers()) > 0 {
		t.Errorf("after the last part: %v, readers %+v", err, w.readers())
	}
	if err := w.removed("shop-1"); err != nil {
		t.Error(err)
	}
}
