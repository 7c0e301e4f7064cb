package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
)

// fakeStillness is two file systems that tell what was done to them.
type fakeStillness struct {
	mu       sync.Mutex
	frozen   [2]bool
	freezes  int
	closed   chan bool // told whether it was clean
	lost     chan struct{}
	fail     error         // of Freeze of volume 1
	unguard  error         // of Freezing
	slow     chan struct{} // holds Freeze of volume 1 until closed
	stranger bool          // somebody else thaws volume 0
	thawErrs int           // so many thaws fail
}

func newFakeStillness() *fakeStillness {
	return &fakeStillness{closed: make(chan bool, 1), lost: make(chan struct{})}
}

func (f *fakeStillness) Freezing() error { return f.unguard }

func (f *fakeStillness) Freeze(volume int) error {
	if volume == 1 && f.slow != nil {
		<-f.slow
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.freezes++
	if volume == 1 && f.fail != nil {
		return f.fail
	}
	f.frozen[volume] = true
	return nil
}

func (f *fakeStillness) Thaw(volume int) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.thawErrs > 0 {
		f.thawErrs--
		return false, errors.New("kernel says no")
	}
	was := f.frozen[volume] && (!f.stranger || volume != 0)
	f.frozen[volume] = false
	return was, nil
}

func (f *fakeStillness) Lost() <-chan struct{} { return f.lost }
func (f *fakeStillness) Close(clean bool)      { f.closed <- clean }

func (f *fakeStillness) anyFrozen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.frozen[0] || f.frozen[1]
}

// stage is a freezer with an order for it.
type stage struct {
	*freezer
	t     *testing.T
	still *fakeStillness
	key   types.NamespacedName
}

func newStage(t *testing.T, still *fakeStillness, change func(*v1alpha1.VolumeFreeze)) *stage {
	t.Helper()
	order := &v1alpha1.VolumeFreeze{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "f", UID: "u1"},
		Spec: v1alpha1.VolumeFreezeSpec{
			Node: "n1", Point: "p", Window: metav1.Duration{Duration: time.Minute}, Order: v1alpha1.OrderArm,
			Volumes: []v1alpha1.FrozenVolume{{Claim: "a/b", PodUID: "x", PersistentVolume: "pv-1"}, {Claim: "a/c", PodUID: "x", PersistentVolume: "pv-2"}},
		},
	}
	if change != nil {
		change(order)
	}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(order).WithStatusSubresource(&v1alpha1.VolumeFreeze{}).Build()
	f := newFreezer(c, Options{Node: "n1", Now: time.Now})
	f.open = func(context.Context, string, v1alpha1.VolumeFreezeSpec) (stillness, error) { return still, nil }
	t.Cleanup(f.stop)
	return &stage{f, t, still, client.ObjectKeyFromObject(order)}
}

func (s *stage) look() {
	s.t.Helper()
	if _, err := s.Reconcile(context.Background(), ctrl.Request{NamespacedName: s.key}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) order(o v1alpha1.FreezeOrder) {
	s.t.Helper()
	var got v1alpha1.VolumeFreeze
	if err := s.client.Get(context.Background(), s.key, &got); err != nil {
		s.t.Fatal(err)
	}
	old := got.DeepCopy()
	got.Spec.Order = o
	if err := s.client.Patch(context.Background(), &got, client.MergeFrom(old)); err != nil {
		s.t.Fatal(err)
	}
	s.look()
}

// await waits until the order's status is of the phase.
func (s *stage) await(phase v1alpha1.FreezePhase) v1alpha1.VolumeFreezeStatus {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var got v1alpha1.VolumeFreeze
		if err := s.client.Get(context.Background(), s.key, &got); err != nil {
			s.t.Fatal(err)
		}
		if got.Status.Phase == phase {
			return got.Status
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("phase is %q, not %q: %+v", got.Status.Phase, phase, got.Status)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (s *stage) frozen() {
	s.t.Helper()
	s.look()
	s.await(v1alpha1.FreezeArmed)
	s.order(v1alpha1.OrderFreeze)
	s.await(v1alpha1.FreezeFrozen)
}

func TestFreezeIsHeldUntilTheOrder(t *testing.T) {
	s := newStage(t, newFakeStillness(), nil)
	s.frozen()
	s.look() // orders are seen again and again
	if !s.still.anyFrozen() {
		t.Fatal("reported as frozen, and is not")
	}
	s.order(v1alpha1.OrderThaw)
	st := s.await(v1alpha1.FreezeEnded)
	if !st.Held || st.Message != "" || st.Took == nil || st.Took.Duration <= 0 {
		t.Errorf("status is %+v", st)
	}
	if clean := <-s.still.closed; !clean || s.still.anyFrozen() {
		t.Errorf("closed clean %v, frozen %v", clean, s.still.anyFrozen())
	}
	// An old copy of the order must not begin anew.
	s.look()
	if s.still.freezes != 2 {
		t.Errorf("frozen %d times, want once each", s.still.freezes)
	}
}

func TestFreezeBreaks(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*fakeStillness)
		act     func(*stage)
		says    string
	}{
		{"watchdog dies", nil, func(s *stage) { close(s.still.lost) }, "its watchdog died"},
		{"a stranger thaws", func(f *fakeStillness) { f.stranger = true }, func(s *stage) { s.order(v1alpha1.OrderThaw) }, "somebody else thawed a file system while it was to be held"},
		{"the process ends", nil, func(s *stage) { s.cancel() }, "its process was stopped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeStillness()
			if tt.prepare != nil {
				tt.prepare(f)
			}
			s := newStage(t, f, nil)
			s.frozen()
			tt.act(s)
			if st := s.await(v1alpha1.FreezeEnded); st.Held || st.Message != tt.says {
				t.Errorf("status is %+v, want %q", st, tt.says)
			}
			<-f.closed
			if f.anyFrozen() {
				t.Error("something stays frozen")
			}
		})
	}
}

func TestFreezeThatFails(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*fakeStillness)
	}{
		{"one volume does not freeze", func(f *fakeStillness) { f.fail = errors.New("busy") }},
		{"no watchdog at the last moment", func(f *fakeStillness) { f.unguard = errors.New("busy") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeStillness()
			tt.prepare(f)
			s := newStage(t, f, nil)
			s.look()
			s.await(v1alpha1.FreezeArmed)
			s.order(v1alpha1.OrderFreeze)
			if st := s.await(v1alpha1.FreezeEnded); st.Held || st.Message != "busy" {
				t.Errorf("status is %+v", st)
			}
			<-f.closed
			if f.anyFrozen() {
				t.Error("something stays frozen")
			}
		})
	}
}

func TestFreezeRefused(t *testing.T) {
	s := newStage(t, newFakeStillness(), nil)
	s.open = func(context.Context, string, v1alpha1.VolumeFreezeSpec) (stillness, error) {
		return nil, errors.New("shared with the node")
	}
	s.look()
	if st := s.await(v1alpha1.FreezeEnded); st.Held || st.Message != "shared with the node" || st.Took != nil {
		t.Errorf("status is %+v", st)
	}
}

func TestLateFreezeIsUndone(t *testing.T) {
	f := newFakeStillness()
	f.slow = make(chan struct{})
	s := newStage(t, f, nil)
	s.look()
	s.await(v1alpha1.FreezeArmed)
	s.order(v1alpha1.OrderFreeze)
	s.order(v1alpha1.OrderThaw) // while the kernel still waits for writers
	close(f.slow)
	if st := s.await(v1alpha1.FreezeEnded); st.Held {
		t.Errorf("status is %+v", st)
	}
	<-f.closed
	if f.anyFrozen() {
		t.Error("the late freeze stays")
	}
}

func TestThawIsTriedAgain(t *testing.T) {
	f := newFakeStillness()
	s := newStage(t, f, nil)
	s.frozen()
	f.mu.Lock()
	f.thawErrs = 3
	f.mu.Unlock()
	s.order(v1alpha1.OrderThaw)
	if st := s.await(v1alpha1.FreezeEnded); !st.Held {
		t.Errorf("status is %+v", st)
	}
	if clean := <-f.closed; !clean || f.anyFrozen() {
		t.Error("not thawed")
	}
}

func TestRemovedOrderThaws(t *testing.T) {
	f := newFakeStillness()
	s := newStage(t, f, nil)
	s.frozen()
	if err := s.client.Delete(context.Background(), &v1alpha1.VolumeFreeze{ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: s.key.Name}}); err != nil {
		t.Fatal(err)
	}
	s.look()
	<-f.closed
	if f.anyFrozen() {
		t.Error("something stays frozen although nobody wants it")
	}
}

func TestOrderOfADeadProcessIsEnded(t *testing.T) {
	for _, phase := range []v1alpha1.FreezePhase{v1alpha1.FreezeArmed, v1alpha1.FreezeFrozen} {
		f := newFakeStillness()
		s := newStage(t, f, func(o *v1alpha1.VolumeFreeze) {
			o.Spec.Order, o.Status.Phase = v1alpha1.OrderFreeze, phase
		})
		s.look()
		if st := s.await(v1alpha1.FreezeEnded); st.Held || st.Message == "" || f.freezes > 0 {
			t.Errorf("%s: status is %+v after %d freezes", phase, st, f.freezes)
		}
	}
}
