package reading_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/reading"
)

var errDied = errors.New("died")

// actor is a process. Each of its calls to the store waits for its turn.
type actor struct {
	vault.Store
	turns chan chan bool // asks for a turn; false: it died before
	died  bool           // its own: from then on nothing it does arrives
}

func (a *actor) turn() error {
	if a.died {
		return errDied
	}
	turn := make(chan bool)
	a.turns <- turn
	if !<-turn {
		a.died = true
		return errDied
	}
	return nil
}

// Get takes no turn: what is written once reads the same at any time, or as if it had
// not been listed.
func (a *actor) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if a.died {
		return nil, errDied
	}
	return a.Store.Get(ctx, key, offset, length)
}

func (a *actor) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	if err := a.turn(); err != nil {
		return vault.ObjectInfo{}, err
	}
	return a.Store.Stat(ctx, key)
}

func (a *actor) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := a.turn(); err != nil {
		return err
	}
	return a.Store.Put(ctx, key, r, size)
}

func (a *actor) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := a.turn(); err != nil {
		return err
	}
	return a.Store.PutIfAbsent(ctx, key, r, size)
}

func (a *actor) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if err := a.turn(); err != nil {
		return err
	}
	return a.Store.List(ctx, prefix, fn)
}

func (a *actor) Delete(ctx context.Context, key string) error {
	if err := a.turn(); err != nil {
		return err
	}
	return a.Store.Delete(ctx, key)
}

// model is one recovery point, and those who read and remove it.
type model struct {
	t     *testing.T
	p     *vault.Project
	store vault.Store
	id    string

	mu      sync.Mutex
	ahead   time.Duration // of the store's clock
	reading int           // readers who were told that the point stays
	gone    bool          // parts of it may be missing
	harmed  bool          // somebody reads it then
	// What came about, over all runs, so that the model is no empty one.
	read, removed, stoodBack, refused int
}

func (m *model) clock() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.ahead)
}

func (m *model) note(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	m.harmed = m.harmed || m.gone && m.reading > 0
}

type process func(ctx context.Context, p *vault.Project, m *model)

// reads is a restore.
func reads(ctx context.Context, p *vault.Project, m *model) {
	s, err := reading.Begin(ctx, reading.Work{Project: p, Application: "shop", Point: m.id, By: "restore", Site: "west"})
	if err != nil {
		m.note(func() { m.refused++ })
		s.Leave()
		return
	}
	m.note(func() { m.reading++; m.read++ })
	_, _ = p.Store().Stat(ctx, "projects/default/objects/x") // the reading: others have their turns
	m.note(func() { m.reading-- })
	s.End(ctx)
}

// removes is expiry, as package protection does it.
func removes(ctx context.Context, p *vault.Project, m *model) {
	claim, err := reading.Claim(ctx, p, "shop", m.id, "retention", "east")
	if err != nil {
		m.note(func() { m.stoodBack++ })
		return
	}
	if err := m.takeAway(ctx, p, claim.Again); err != nil {
		return
	}
	_ = claim.Release(ctx)
	_ = reading.Forget(ctx, p, "shop", m.id)
}

// takeAway says that parts of the point may be gone, looks again, and removes it.
func (m *model) takeAway(ctx context.Context, p *vault.Project, again func(context.Context) error) error {
	if err := p.Mark(ctx, "shop", m.id, vault.Mark{Kind: vault.MarkDeleting, By: reading.Begun}); err != nil {
		return err
	}
	if again != nil {
		if err := again(ctx); err != nil {
			m.note(func() { m.stoodBack++ })
			return err
		}
	}
	m.note(func() { m.gone = true; m.removed++ })
	return p.Store().Delete(ctx, m.manifest())
}

func (m *model) manifest() string { return "projects/default/manifests/shop/" + m.id }

// removesBlindly looks who reads, and claims nothing. It is a control.
func removesBlindly(ctx context.Context, p *vault.Project, m *model) {
	readers, err := reading.Readers(ctx, p, "shop", m.clock())
	if err != nil || len(readers) > 0 {
		return
	}
	_ = m.takeAway(ctx, p, nil)
}

// removesOnce claims and looks, and does not look again. It is a control.
func removesOnce(ctx context.Context, p *vault.Project, m *model) {
	if _, err := reading.Claim(ctx, p, "shop", m.id, "retention", "east"); err == nil {
		_ = m.takeAway(ctx, p, nil)
	}
}

// later is a process that begins when all notes of before have ended: so long the others,
// which may have begun, stand still, as in a machine that was paused.
func later(process process) process {
	return func(ctx context.Context, p *vault.Project, m *model) {
		_, _ = p.Store().Stat(ctx, "projects/default/objects/x")
		m.note(func() { m.ahead += reading.Lease + 2*time.Hour })
		process(ctx, p, m)
	}
}

// removesUnlooked claims, and does not look who reads. It is a control.
func removesUnlooked(ctx context.Context, p *vault.Project, m *model) {
	_, err := reading.Claim(ctx, p, "shop", m.id, "retention", "east")
	if err != nil && !errors.Is(err, reading.ErrRead) {
		return
	}
	_ = m.takeAway(ctx, p, nil)
}

// readsUnlooked looks at the point, and then notes that it reads. It is a control.
func readsUnlooked(ctx context.Context, p *vault.Project, m *model) {
	if _, err := p.Store().Stat(ctx, m.manifest()); err != nil {
		return
	}
	if marks, err := p.Marks(ctx, "shop", m.id); err != nil || len(marks) > 0 {
		return
	}
	if err := p.WriteSealed(ctx, "projects/default/reading/shop/"+m.id+"/reader-00", []byte(`{"formatVersion":1,"by":"restore","lease":7200000000000}`)); err != nil {
		return
	}
	m.note(func() { m.reading++; m.read++ })
	_, _ = p.Store().Stat(ctx, "projects/default/objects/x")
	m.note(func() { m.reading-- })
}

func newModel(t *testing.T) *model {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	m := &model{t: t}
	m.store = mem.New(m.clock)
	if m.p, err = vault.CreateProject(t.Context(), m.store, "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	return m
}

// run has processes go on call by call, as choose says: which of those that wait, and
// whether it dies instead. It tells whether anybody read what may have been gone.
func (m *model) run(n int, choose func(waiting int) (which int, dies bool), processes ...process) bool {
	m.t.Helper()
	m.id, m.reading, m.gone, m.harmed = fmt.Sprintf("shop-%d", n), 0, false, false
	if err := m.store.Put(m.t.Context(), m.manifest(), strings.NewReader("x"), 1); err != nil {
		m.t.Fatal(err)
	}
	ended := make([]chan struct{}, len(processes))
	turns := make([]chan chan bool, len(processes))
	for i, process := range processes {
		ended[i], turns[i] = make(chan struct{}), make(chan chan bool)
		a := &actor{Store: m.store, turns: turns[i]}
		go func() {
			defer close(ended[i])
			process(m.t.Context(), m.p.Over(func(vault.Store) vault.Store { return a }), m)
		}()
	}
	asked := make([]chan bool, len(processes))
	for {
		var waiting []int
		for i := range processes { // each either waits for its turn, or has ended
			if asked[i] == nil {
				select {
				case asked[i] = <-turns[i]:
				case <-ended[i]:
					continue
				}
			}
			waiting = append(waiting, i)
		}
		if len(waiting) == 0 {
			m.clear()
			return m.harmed
		}
		which, dies := choose(len(waiting))
		turn := asked[waiting[which]]
		asked[waiting[which]] = nil
		turn <- !dies
	}
}

// clear takes away what a run left.
func (m *model) clear() {
	m.t.Helper()
	for _, kind := range []string{"reading", "marks", "manifests"} {
		var keys []string
		err := m.store.List(m.t.Context(), "projects/default/"+kind+"/", func(o vault.ObjectInfo) error { keys = append(keys, o.Key); return nil })
		for _, key := range keys {
			err = errors.Join(err, m.store.Delete(m.t.Context(), key))
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
}

// all goes through all orders of two processes, and says how many there were and
// how many did harm.
func (m *model) all(deaths bool, processes ...process) (runs, harmful int) {
	var path, width []int
	for {
		depth, dead := 0, false
		harmed := m.run(runs, func(waiting int) (int, bool) {
			options := waiting
			if deaths && !dead {
				options *= 2
			}
			if depth == len(path) {
				path, width = append(path, 0), append(width, options)
			}
			choice := path[depth]
			depth++
			dead = dead || choice >= waiting
			return choice % waiting, choice >= waiting
		}, processes...)
		runs++
		if harmed {
			harmful++
		}
		for len(path) > 0 && path[len(path)-1]+1 == width[len(path)-1] {
			path, width = path[:len(path)-1], width[:len(width)-1]
		}
		if len(path) == 0 {
			return runs, harmful
		}
		path[len(path)-1]++
	}
}

// TestNobodyReadsWhatIsRemoved: in every order of the calls of one who reads and one
// who removes, wherever one of them dies, or the remover is paused until its claim has ended.
func TestNobodyReadsWhatIsRemoved(t *testing.T) {
	for name, c := range map[string]struct {
		deaths bool
		reads  process
	}{"nobody dies": {false, reads}, "one dies": {true, reads}, "a remover is paused": {false, later(reads)}} {
		m := newModel(t)
		runs, harmful := m.all(c.deaths, c.reads, removes)
		t.Logf("%s: %d orders: read in %d, removed in %d, stood back in %d, refused in %d", name, runs, m.read, m.removed, m.stoodBack, m.refused)
		if harmful > 0 {
			t.Errorf("%s: the point was removed under a reader in %d of %d orders", name, harmful, runs)
		}
		if m.read == 0 || m.removed == 0 || m.stoodBack == 0 || m.refused == 0 {
			t.Errorf("%s: not all came about", name)
		}
	}
}

// TestSomebodyReadsWhatIsRemoved is the control: whoever leaves out one half of it
// does harm in some order.
func TestSomebodyReadsWhatIsRemoved(t *testing.T) {
	for name, processes := range map[string][]process{
		"looks and claims nothing":                    {reads, removesBlindly},
		"claims and does not look":                    {reads, removesUnlooked},
		"notes and does not look":                     {readsUnlooked, removes},
		"was paused for long and does not look again": {later(reads), removesOnce},
	} {
		m := newModel(t)
		if runs, harmful := m.all(false, processes...); harmful == 0 {
			t.Errorf("%s: no harm in %d orders", name, runs)
		}
	}
}

// TestManyReadAndRemove: several of each, in orders drawn at random.
func TestManyReadAndRemove(t *testing.T) {
	m := newModel(t)
	seed := rand.Uint64()
	draw := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // orders, not secrets
	for n := range 2000 {
		died := false
		choose := func(waiting int) (int, bool) {
			dies := !died && draw.IntN(40) == 0
			died = died || dies
			return draw.IntN(waiting), dies
		}
		if m.run(n, choose, reads, removes, reads, removes) {
			t.Fatalf("the point was removed under a reader: seed %d, order %d", seed, n)
		}
	}
	if m.read == 0 || m.removed == 0 {
		t.Errorf("read %d times, removed %d times", m.read, m.removed)
	}
}
