package copies

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
	"davit.dev/davit/internal/vault/reading"
)

// TestWhatIsReadFromACopyStaysThere until its reader has done: the copy is for
// reading only, but for the reader's note. The control is the same retention after him.
func TestWhatIsReadFromACopyStaysThere(t *testing.T) {
	r := newRig(t)
	rules := app()
	rules.Rules, rules.Expire = point.Retention{KeepLast: 1}, true
	for _, id := range []string{"p1", "p2", "p3"} {
		r.publish(id, 1, id == "p1")
	}
	r.pass(app())
	copied := r.open()
	session, err := reading.Begin(t.Context(), reading.Work{Project: copied, Application: "shop", Point: "p1", By: "restore r1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.pass(rules).Apps["shop"]; got.Err != nil || !slices.Equal(got.Deleted, []string{"p2"}) {
		t.Errorf("deleted %v, %v", got.Deleted, got.Err)
	}
	if ids := r.whole(); !slices.Equal(ids, []string{"p1", "p3"}) {
		t.Errorf("the copy has %v", ids)
	}
	session.Done(t.Context())
	if got := r.pass(rules).Apps["shop"]; got.Err != nil || !slices.Equal(got.Deleted, []string{"p1"}) {
		t.Errorf("control: deleted %v, %v", got.Deleted, got.Err)
	}
	if left := keys(t, r.second, "projects/default/reading/"); len(left) > 0 {
		t.Errorf("notes are left: %v", left)
	}
	if err := copied.WriteSealed(t.Context(), "projects/default/reading/shop/p1/reader-0", nil); !errors.Is(err, vault.ErrCopy) {
		t.Errorf("others write into the copy: %v", err)
	}
}

// stepwise is a first vault in which something happens step by step, each before a call,
// from the nth on.
type stepwise struct {
	vault.Store
	mu    sync.Mutex
	left  int
	steps []func()
}

func (s *stepwise) next() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left--; s.left < 0 && len(s.steps) > 0 {
		s.steps[0]()
		s.steps = s.steps[1:]
	}
}

func (s *stepwise) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.next()
	return s.Store.Get(ctx, key, offset, length)
}

func (s *stepwise) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	s.next()
	return s.Store.List(ctx, prefix, fn)
}

// TestAPointThatGoesWhileItIsCopied: a copier writes no note that it reads a point, and
// needs none. Wherever in a pass expiry takes the point from the first vault, nothing is
// called damaged, nothing fails, the other point comes, and what the copy has is whole:
// a manifest comes last, after a look at the marks that a removal begins with.
func TestAPointThatGoesWhileItIsCopied(t *testing.T) {
	came := false
	for n := 0; ; n++ {
		r := newRig(t)
		p1 := r.publish("p1", 1, true)
		r.publish("p2", 1, true)
		first := &stepwise{Store: r.first, left: n, steps: []func(){
			func() {
				if err := r.p.Mark(t.Context(), "shop", "p1", vault.Mark{Kind: vault.MarkDeleting, At: r.now, By: reading.Begun}); err != nil {
					t.Error(err)
				}
			},
			func() {
				if err := r.repo.Delete(t.Context(), p1.Volumes[0].Snapshot); err != nil {
					t.Error(err)
				}
			},
			func() {
				if err := r.p.DeletePoint(t.Context(), "shop", "p1"); err != nil {
					t.Error(err)
				}
			},
		}}
		report, err := r.copier(first, r.second).Pass(t.Context(), []App{app()})
		if err := errors.Join(err, report.Apps["shop"].Err); err != nil || len(report.Damaged) > 0 {
			t.Errorf("before call %d: %v, damaged: %v", n, err, report.Damaged)
		}
		if len(first.steps) == 3 {
			break // the pass has no such call
		}
		ids := r.whole()
		came = came || slices.Contains(ids, "p1")
		if !slices.Contains(ids, "p2") {
			t.Errorf("before call %d: the copy has %v", n, ids)
		}
	}
	if !came {
		t.Error("the point never came: nothing was tested")
	}
}

// locked is a copy whose object lock keeps everything until a time.
type locked struct {
	vault.Store
	lock.Locker
	until time.Time
}

func (l *locked) LockedUntil(context.Context, string) (time.Time, error) { return l.until, nil }

// TestWhatALockKeepsIsOfferedUntilItGoes: it is not marked as on its way out before it can
// be removed. The control is the same retention when the lock is over.
func TestWhatALockKeepsIsOfferedUntilItGoes(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, false)
	r.publish("p2", 1, false)
	r.pass(app())
	rules := app()
	rules.Rules, rules.Expire = point.Retention{KeepLast: 1}, true
	second := &locked{Store: r.second, until: r.now.Add(time.Hour)}
	for _, want := range [][]string{{"p1", "p2"}, {"p2"}} {
		report, err := r.copier(r.first, second).Pass(t.Context(), []App{rules})
		if err := errors.Join(err, report.Apps["shop"].Err); err != nil {
			t.Fatal(err)
		}
		infos, err := r.open().Points(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		var offered []string
		for _, info := range infos {
			if info.Point().Good() {
				offered = append(offered, info.ID)
			}
		}
		if !slices.Equal(offered, want) {
			t.Errorf("the copy offers %v, want %v", offered, want)
		}
		r.now = r.now.Add(2 * time.Hour)
	}
}
