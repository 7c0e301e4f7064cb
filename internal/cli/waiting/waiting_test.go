package waiting

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// stage is a cluster whose watches the test feeds, or refuses.
type stage struct {
	client.WithWatch
	watches []*watch.FakeWatcher
	refused error
	opens   chan struct{} // when watches do; nil: at once
}

func newStage(refused error) *stage {
	s := &stage{refused: refused}
	s.WithWatch = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithInterceptorFuncs(interceptor.Funcs{
		Watch: func(ctx context.Context, _ client.WithWatch, _ client.ObjectList, _ ...client.ListOption) (watch.Interface, error) {
			if s.opens != nil {
				select {
				case <-s.opens:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			if s.refused != nil {
				return nil, s.refused
			}
			s.watches = append(s.watches, watch.NewFake())
			return s.watches[len(s.watches)-1], nil
		},
	}).Build()
	return s
}

func config(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
}

// asked is a wait that runs: how often it asked, and when it asks no more.
type asked struct {
	mu     sync.Mutex
	asks   int
	yes    int            // the time at which the answer is yes
	rename map[int]string // what the object is called from then on
	err    error
	ended  bool
}

func (a *asked) times() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asks
}

func (a *asked) end() (ended bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended, a.err
}

func (s *stage) run(ctx context.Context, o *corev1.ConfigMap, a *asked) {
	go func() {
		err := For(ctx, s, o, func(context.Context) (bool, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.asks++
			if name := a.rename[a.asks]; name != "" {
				o.Name = name
			}
			return a.asks == a.yes, nil
		})
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ended, a.err = true, err
	}()
	synctest.Wait()
}

// TestAChangeWakesIt long before the clock would.
func TestAChangeWakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a, start := newStage(nil), &asked{yes: 4}, time.Now()
		s.run(t.Context(), config("a"), a)
		for want := 2; want < 4; want++ { // first at once, then when the watch is open
			if got := a.times(); got != want {
				t.Fatalf("asked %d times, want %d", got, want)
			}
			s.watches[0].Modify(config("a"))
			synctest.Wait()
		}
		if ended, err := a.end(); !ended || err != nil || time.Since(start) != 0 {
			t.Errorf("ended %t, %v, after %s", ended, err, time.Since(start))
		}
	})
}

// TestWithoutChangesTheClockWakesIt: a watch that says nothing is not trusted
// for long, and where none is to be had it is asked often.
func TestWithoutChangesTheClockWakesIt(t *testing.T) {
	for name, c := range map[string]struct {
		refused error
		first   int
		want    time.Duration
	}{"silent": {nil, 2, relook}, "refused": {errors.New("forbidden"), 1, glance}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, a, start := newStage(c.refused), &asked{yes: c.first + 1}, time.Now()
				s.run(t.Context(), config("a"), a)
				time.Sleep(c.want - time.Nanosecond) // virtual time
				synctest.Wait()
				if got := a.times(); got != c.first {
					t.Errorf("asked %d times before %s", got, c.want)
				}
				time.Sleep(time.Nanosecond) // virtual time
				synctest.Wait()
				if ended, err := a.end(); !ended || err != nil {
					t.Errorf("ended %t, %v after %s", ended, err, time.Since(start))
				}
			})
		})
	}
}

// TestItFollowsAnotherName, and a watch that ended is begun anew.
func TestItFollowsAnotherName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a := newStage(nil), &asked{yes: 6, rename: map[int]string{3: "b"}}
		s.run(t.Context(), config("a"), a)
		s.watches[0].Modify(config("a"))
		synctest.Wait()
		if len(s.watches) != 2 || a.times() != 5 { // asked at once of the new one
			t.Fatalf("%d watches, asked %d times", len(s.watches), a.times())
		}
		s.watches[1].Stop()
		time.Sleep(glance) // virtual time
		synctest.Wait()
		if ended, err := a.end(); !ended || err != nil || len(s.watches) != 3 {
			t.Errorf("ended %t, %v, %d watches", ended, err, len(s.watches))
		}
	})
}

// TestAWatchThatDoesNotOpen keeps nobody from asking, and wakes when it opens at last.
func TestAWatchThatDoesNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a := newStage(nil), &asked{yes: 6}
		s.opens = make(chan struct{})
		s.run(t.Context(), config("a"), a)
		time.Sleep(2 * glance) // virtual time
		synctest.Wait()
		if got := a.times(); got != 3 {
			t.Fatalf("asked %d times while the watch did not open", got)
		}
		close(s.opens)
		synctest.Wait()
		if got := a.times(); got != 4 {
			t.Fatalf("asked %d times when it was open: what changed before is not told", got)
		}
		for range 2 {
			s.watches[0].Modify(config("a"))
			synctest.Wait()
		}
		if ended, err := a.end(); !ended || err != nil {
			t.Errorf("ended %t, %v", ended, err)
		}
	})
}

func TestItEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("its time is over")
		ctx, cancel := context.WithCancelCause(t.Context())
		s, a := newStage(nil), &asked{}
		s.run(ctx, config("a"), a)
		cancel(why)
		synctest.Wait()
		if ended, err := a.end(); !ended || !errors.Is(err, why) {
			t.Errorf("ended %t, %v", ended, err)
		}
	})
}

// TestNothingIsLeftRunning when the answer is there: the watch has been stopped.
func TestNothingIsLeftRunning(t *testing.T) {
	s, asks := newStage(nil), 0
	err := For(t.Context(), s, config("a"), func(context.Context) (bool, error) {
		asks++
		return asks == 2, nil // the second time the watch is open
	})
	if err != nil || len(s.watches) != 1 || !s.watches[0].IsStopped() {
		t.Errorf("For: %v; %d watches, of which the first must be stopped", err, len(s.watches))
	}
}
