package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/barrier"
	"davit.dev/davit/internal/freeze"
)

const (
	// patience is how long an armed session waits for the order to freeze.
	patience = time.Minute
	// thawAgain and thawFor bound the tries of a thaw that the kernel refuses.
	thawAgain, thawFor = 100 * time.Millisecond, time.Minute
)

// stillness is what a session freezes and thaws. Volumes are counted from 0.
type stillness interface {
	// Freezing tells the watchdog that the window begins.
	Freezing() error
	Freeze(volume int) error
	Thaw(volume int) (still bool, err error)
	// Lost is closed when the watchdog is gone.
	Lost() <-chan struct{}
	// Close lets go of everything; clean says that all was thawed.
	Close(clean bool)
}

// newest passes the newest thing that a session said to whoever reports it.
type newest struct {
	changed chan struct{}

	mu   sync.Mutex
	said barrier.Said
}

func (n *newest) set(s barrier.Said) {
	n.mu.Lock()
	n.said = s
	n.mu.Unlock()
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

func (n *newest) get() barrier.Said {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.said
}

// session carries out one order. All of it runs in one goroutine; what the
// kernel may keep waiting runs beside it.
type session struct {
	uid    types.UID
	now    func() time.Time
	holder *barrier.Holder
	words  chan barrier.Word
	ended  chan struct{}
	said   newest

	still   stillness
	beside  sync.WaitGroup
	trouble bool // a thaw failed
}

func newSession(order *v1alpha1.VolumeFreeze, now func() time.Time) *session {
	return &session{
		uid: order.UID, now: now,
		holder: barrier.NewHolder(len(order.Spec.Volumes), order.Spec.Window.Duration, patience, now()),
		words:  make(chan barrier.Word), ended: make(chan struct{}), said: newest{changed: make(chan struct{}, 1)},
	}
}

// tell passes an order on. An ended session needs none.
func (s *session) tell(w barrier.Word) {
	select {
	case s.words <- w:
	case <-s.ended:
	}
}

// armed is what opening gave.
type armed struct {
	still stillness
	err   error
}

// play runs the session until nothing is frozen any more. open may be slow.
func (s *session) play(ctx context.Context, open func(context.Context) (stillness, error)) {
	opening := make(chan armed, 1)
	opener, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		still, err := open(opener)
		opening <- armed{still, err}
	}()
	stopping := ctx.Done()
	var lost <-chan struct{}
	for s.holder.Said().State != barrier.StateEnded {
		timer := s.timer()
		var word barrier.Word
		select {
		case word = <-s.words:
		case got := <-opening:
			opening = nil
			if word = s.opened(got); got.err == nil {
				lost = got.still.Lost()
			}
		case <-lost:
			word, lost = barrier.Word{Signal: barrier.GuardLost}, nil
		case <-stopping:
			word, stopping = barrier.Word{Signal: barrier.Stopping}, nil
		case <-timer.C:
			word = barrier.Word{Signal: barrier.Clock}
		}
		timer.Stop()
		s.step(word)
	}
	close(s.ended)
	stop()
	s.beside.Wait()
	if opening != nil { // what is still being opened is closed when it comes
		go func() {
			if late := <-opening; late.err == nil {
				late.still.Close(true)
			}
		}()
	}
	if s.still != nil {
		s.still.Close(!s.trouble)
	}
}

func (s *session) opened(got armed) barrier.Word {
	if got.err != nil {
		return barrier.Word{Signal: barrier.Refused, Why: got.err.Error()}
	}
	s.still = got.still
	return barrier.Word{Signal: barrier.Ready}
}

// timer ends at the holder's deadline; without one, never within a freeze.
func (s *session) timer() *time.Timer {
	d := s.holder.Deadline()
	if d.IsZero() {
		return time.NewTimer(time.Hour)
	}
	return time.NewTimer(max(0, d.Sub(s.now())))
}

// step does what the holder wants.
func (s *session) step(word barrier.Word) {
	if word.Signal == barrier.Thawed && word.Why != "" {
		s.trouble = true
	}
	tasks := s.holder.Step(s.now(), word)
	var unguarded error
	if len(tasks) > 0 && tasks[0].Deed == barrier.FreezeVolume {
		unguarded = s.still.Freezing()
	}
	for _, task := range tasks {
		switch task.Deed {
		case barrier.FreezeVolume:
			if unguarded != nil {
				s.step(barrier.Word{Signal: barrier.Froze, Volume: task.Volume, Why: unguarded.Error()})
				continue
			}
			s.beside.Go(func() { s.freeze(task.Volume) })
		case barrier.ThawVolume:
			s.beside.Go(func() { s.thaw(task.Volume) })
		case barrier.Report:
			s.said.set(s.holder.Said())
		}
	}
}

func (s *session) freeze(volume int) {
	word := barrier.Word{Signal: barrier.Froze, Volume: volume}
	if err := s.still.Freeze(volume); err != nil {
		word.Why = err.Error()
	}
	s.tell(word)
}

// thaw tries until the kernel has thawed, or for so long that only the
// watchdog may still help.
func (s *session) thaw(volume int) {
	word := barrier.Word{Signal: barrier.Thawed, Volume: volume}
	for tries := int(thawFor / thawAgain); ; tries-- {
		still, err := s.still.Thaw(volume)
		word.Still = still
		if err == nil {
			word.Why = ""
			break
		}
		if word.Why = err.Error(); tries == 0 {
			break
		}
		time.Sleep(thawAgain)
	}
	s.tell(word)
}

// opener opens the volumes of an order.
type opener struct {
	place               locator
	runDir, kubeletRoot string
}

// open finds and opens every volume, refuses those that are not the
// application's alone, flushes them so that the freeze is short, and hands them
// to the watchdog.
func (o opener) open(ctx context.Context, name string, spec v1alpha1.VolumeFreezeSpec) (stillness, error) {
	t := &together{}
	for _, v := range spec.Volumes {
		system, err := o.openOne(v)
		if err != nil {
			t.Close(true)
			return nil, fmt.Errorf("claim %s: %w", v.Claim, err)
		}
		t.systems = append(t.systems, system)
	}
	if err := t.flush(); err != nil {
		t.Close(true)
		return nil, err
	}
	guard, err := freeze.Arm(ctx, o.runDir, name, spec.Window.Duration, t.systems)
	if err != nil {
		t.Close(true)
		return nil, fmt.Errorf("%w: see the log of container watchdog of this node's davit-node pod", err)
	}
	t.guard = guard
	return t, nil
}

func (o opener) openOne(v v1alpha1.FrozenVolume) (*freeze.FileSystem, error) {
	dir, err := o.place.mounted(v.PodUID, v.PersistentVolume)
	if err != nil {
		return nil, err
	}
	system, err := freeze.Of(dir.File)
	if err == nil {
		err = freeze.Check(dir.Name(), o.kubeletRoot, v.PersistentVolume)
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return system, nil
}

// together are the open file systems of one order.
type together struct {
	systems []*freeze.FileSystem
	guard   *freeze.Guard
}

func (t *together) flush() error {
	errs := make([]error, len(t.systems))
	var wg sync.WaitGroup
	for i, system := range t.systems {
		wg.Go(func() { errs[i] = system.Flush() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Freezing implements stillness.
func (t *together) Freezing() error { return t.guard.Freezing() }

// Freeze implements stillness.
func (t *together) Freeze(volume int) error { return t.systems[volume].Freeze() }

// Thaw implements stillness.
func (t *together) Thaw(volume int) (bool, error) { return t.systems[volume].Thaw() }

// Lost implements stillness.
func (t *together) Lost() <-chan struct{} { return t.guard.Lost() }

// Close implements stillness. A guard that is not told that all is well thaws.
func (t *together) Close(clean bool) {
	if t.guard != nil {
		t.guard.Close(clean)
	}
	for _, system := range t.systems {
		_ = system.Close()
	}
}
