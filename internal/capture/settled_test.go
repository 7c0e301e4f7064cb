package capture

import (
	"context"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
)

// flushing is a freezer that flushes, or cannot.
type flushing struct {
	*fakeFreezer
	flushes bool
}

func (f *flushing) Flush(_ context.Context, req FreezeRequest) bool {
	f.req = req
	_ = f.w.note("flush")
	return f.flushes
}

// TestWhatMayNotBeInTheCut: what was written right before a cut is known to be in it only
// where the volume was flushed. What is not known is read again the next time.
func TestWhatMayNotBeInTheCut(t *testing.T) {
	held, unused := point.Freeze{Held: true, Nodes: 1, Flushed: true}, point.Freeze{Held: true}
	partly := point.Freeze{Held: true, Nodes: 1}
	const flushed, frozen = skewed, 0 // how long before the cut, at least
	for name, test := range map[string]struct {
		objects string
		mode    FreezeMode
		freezer *flushing // nil: none
		live    string
		least   time.Duration
		calls   string
	}{
		"one volume, flushed":         {shop, "", &flushing{&fakeFreezer{}, true}, "", flushed, "revision, flush, cut"},
		"one volume, not flushed":     {shop, "", &flushing{&fakeFreezer{}, false}, "", unsettled, "flush, cut"},
		"one volume, nobody can":      {shop, "", nil, "", unsettled, "revision, cut"},
		"frozen":                      {twoVolumes, "", &flushing{&fakeFreezer{got: held}, true}, "", frozen, "revision, freeze, cut"},
		"frozen, and in nobody's use": {twoVolumes, "", &flushing{&fakeFreezer{got: unused}, true}, "", unsettled, "revision, freeze, cut"},
		"frozen, one in nobody's use": {twoVolumes, "", &flushing{&fakeFreezer{got: partly}, true}, "", unsettled, "revision, freeze, cut"},
		"the freeze did not hold":     {twoVolumes, "", &flushing{&fakeFreezer{}, true}, "", unsettled, "revision, freeze, cut"},
		"never to be frozen":          {twoVolumes, FreezeNever, &flushing{&fakeFreezer{}, true}, "", flushed, "revision, flush, cut"},
		"one is read live":            {twoVolumes, "", &flushing{&fakeFreezer{}, true}, "files", flushed, "revision, flush, cut"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.objects)
			w.live[test.live] = true
			if test.freezer != nil {
				test.freezer.w, w.freezer = w, test.freezer
			}
			if _, err := w.run(Spec{Freeze: test.mode}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(w.calls, ", "); !strings.Contains(got, test.calls) {
				t.Errorf("calls are %s; want %q", got, test.calls)
			}
			for claim, cut := range w.cuts {
				before := cut.At.Sub(cut.Settled)
				switch {
				case claim == test.live:
					if !cut.Settled.IsZero() {
						t.Errorf("%s is read live, and was settled at %s", claim, cut.Settled)
					}
				case before < test.least || test.least < unsettled && before >= unsettled:
					t.Errorf("%s counts as settled %s before its cut, want %s", claim, before, test.least)
				}
			}
		})
	}
}
