// Package lead decides which of several processes of one console is the active
// one (docs/formats/console.md). Epochs are write-once objects in the vault, as
// those of applications are: whoever writes the next number first is active, and
// every lower one is not any more, whatever it believes. The active one counts;
// who waits watches the count by his own steady clock, and never compares clocks.
package lead

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"davit.dev/davit/internal/vault"
)

// ErrPassive says that this process is not the active one.
var ErrPassive = errors.New("this console is not the active one")

// ErrSetBack says that epochs are gone which were there: the vault was set back, or
// what is looked at is not the vault, such as an empty place where a directory was
// mounted. Nobody claims there.
var ErrSetBack = errors.New("epochs of the console are gone from the vault; if it was set back on purpose, start the consoles anew")

// Claim is what a process writes to become active. Number 0 is nobody's.
type Claim struct {
	FormatVersion int       `json:"formatVersion"`
	Number        int64     `json:"number"`
	Holder        string    `json:"holder"` // random, of one directory, which one process serves
	URL           string    `json:"url,omitempty"`
	At            time.Time `json:"at"` // for people
}

// Beat is the active one's sign of life: a count that grows.
type Beat struct {
	FormatVersion int   `json:"formatVersion"`
	Epoch         int64 `json:"epoch"`
	Count         int64 `json:"count"`
	Over          bool  `json:"over,omitempty"` // it ended by itself: nobody need wait
}

// Ledger is where claims and beats are kept.
type Ledger interface {
	// Newest returns the claim with the highest number, the zero one if there is none.
	Newest(ctx context.Context) (Claim, error)
	// Claim writes a claim under a free number; vault.ErrExists says it is taken.
	Claim(ctx context.Context, c Claim) error
	// Beat replaces the beat of an epoch.
	Beat(ctx context.Context, b Beat) error
	// ReadBeat returns the beat of an epoch, or vault.ErrNotFound.
	ReadBeat(ctx context.Context, epoch int64) (Beat, error)
}

// Times of a lease. Patience is longer than Lease: who waits claims later than
// the active one, cut off, knows that it is not. That is for people and load
// balancers; that there are never two writers rests on epochs alone.
const (
	Every    = 2 * time.Second // between two steps
	Lease    = 6 * time.Second // after the last good step began, one is active no more
	Patience = 9 * time.Second // without a new count, one who waits claims
)

// Role is what a process is.
type Role string

// Roles.
const (
	Active  Role = "active"
	Passive Role = "passive"
	// Silent holds the newest epoch that it knows, but the vault has not answered
	// for so long that another may have taken over.
	Silent Role = "silent"
)

// Options are what a Member is made of.
type Options struct {
	Ledger Ledger
	// Holder is this one's. No other process may have it at the same time: one that
	// finds its own holds an epoch that it knows nothing of claims the next at once.
	Holder string
	URL    string
	// Steady is a clock that never jumps, such as time.Since of a moment.
	Steady func() time.Duration
	// Now is for people.
	Now func() time.Time
	// Rise is called with a new epoch before anyone is told that this process is
	// active. If it fails, the process is not, and tries again.
	Rise func(ctx context.Context, epoch int64) error
}

// Member is one process of a console.
type Member struct {
	Options

	mu      sync.Mutex
	epoch   int64 // that this process holds; 0: none
	risen   bool
	count   int64
	renewed time.Duration // when the last good beat began
	after   time.Duration // it rises no sooner: the one before may call itself active until then
	tried   int64         // the number that was claimed last, with whatever outcome
	newest  Claim         // as last seen
	// What a waiting one saw last, and since when.
	seen  Beat
	since time.Duration
	heard bool
}

// New returns a member that is passive until it has taken a step.
func New(o Options) *Member { return &Member{Options: o} }

// Status is what a member is now.
type Status struct {
	Role  Role
	Epoch int64
	URL   string // of the active one, as last seen
}

// Status returns what the member is now.
func (m *Member) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Role: Passive, Epoch: m.newest.Number, URL: m.newest.URL}
	if m.epoch == 0 || !m.risen {
		return s
	}
	s.Role, s.Epoch, s.URL = Active, m.epoch, m.URL
	if m.Steady()-m.renewed >= Lease {
		s.Role = Silent
	}
	return s
}

// Confirm says that no newer epoch than this process's own was claimed before
// the call. Whoever asks after his record was put knows that who takes over
// reads it: only then may the record be acknowledged.
func (m *Member) Confirm(ctx context.Context) error {
	m.mu.Lock()
	held := m.epoch
	m.mu.Unlock()
	if held == 0 {
		return ErrPassive
	}
	newest, err := m.Ledger.Newest(ctx)
	if err != nil {
		return fmt.Errorf("look who is active: %w", err)
	}
	if newest.Number < held {
		return setBack(newest, held)
	}
	if newest.Number != held || newest.Holder != m.Holder {
		m.yield(newest)
		return fmt.Errorf("%w: epoch %d was claimed after epoch %d", ErrPassive, newest.Number, held)
	}
	return nil
}

func setBack(newest Claim, known int64) error {
	return fmt.Errorf("%w: the newest is %d, and epoch %d was there", ErrSetBack, newest.Number, known)
}

// ConfirmIn is Confirm for who writes in one epoch: a later one that this process
// holds meanwhile is not that.
func (m *Member) ConfirmIn(ctx context.Context, epoch int64) error {
	if err := m.Confirm(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.epoch != epoch {
		return fmt.Errorf("%w in epoch %d: it is in epoch %d", ErrPassive, epoch, m.epoch)
	}
	return nil
}

// yield makes the member passive.
func (m *Member) yield(newest Claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch, m.risen, m.count, m.newest, m.heard = 0, false, 0, newest, false
}

// Step looks, and renews or claims what is there to be renewed or claimed. One
// goroutine calls it, about every Every.
func (m *Member) Step(ctx context.Context) error {
	begun := m.Steady()
	newest, err := m.Ledger.Newest(ctx)
	if err != nil {
		m.deaf()
		return fmt.Errorf("look who is active: %w", err)
	}
	m.mu.Lock()
	known, held := max(m.newest.Number, m.epoch), m.epoch
	if newest.Number < known {
		m.heard = false
		m.mu.Unlock()
		return setBack(newest, known)
	}
	m.newest = newest
	m.mu.Unlock()
	switch {
	case held != 0 && newest.Number == held && newest.Holder == m.Holder:
		return m.renew(ctx, begun)
	case held != 0:
		m.yield(newest)
		return nil
	case newest.Number == 0, newest.Holder == m.Holder: // which is not here any more
		return m.claim(ctx, newest, begun, nil)
	}
	return m.wait(ctx, newest, begun)
}

// renew gives the next beat. A member whose rise failed tries again first.
func (m *Member) renew(ctx context.Context, begun time.Duration) error {
	m.mu.Lock()
	epoch, count, risen := m.epoch, m.count+1, m.risen
	m.mu.Unlock()
	if err := m.Ledger.Beat(ctx, Beat{Epoch: epoch, Count: count}); err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	if ok, err := m.still(ctx, epoch); !ok {
		return err
	}
	m.mu.Lock()
	m.count, m.renewed = count, begun
	after := m.after
	m.mu.Unlock()
	if risen {
		return nil
	}
	if left := after - m.Steady(); left > 0 {
		return fmt.Errorf("take over: the console before gave a sign of life when its epoch was claimed, and may call itself active for %s more", left.Round(time.Second))
	}
	return m.rise(ctx, epoch)
}

// still tells whether an epoch is the newest after a beat in it was given, if it has been
// silent before that: one who waits may have claimed the next since this step looked.
func (m *Member) still(ctx context.Context, epoch int64) (bool, error) {
	m.mu.Lock()
	silent := m.Steady()-m.renewed >= Lease
	m.mu.Unlock()
	if !silent {
		return true, nil
	}
	newest, err := m.Ledger.Newest(ctx)
	if err != nil {
		return false, fmt.Errorf("look who is active: %w", err)
	}
	if newest.Number == epoch && newest.Holder == m.Holder {
		return true, nil
	}
	if newest.Number < epoch {
		return false, setBack(newest, epoch)
	}
	m.yield(newest)
	return false, nil
}

func (m *Member) rise(ctx context.Context, epoch int64) error {
	if m.Rise != nil {
		if err := m.Rise(ctx, epoch); err != nil {
			return fmt.Errorf("take over: %w", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.risen = m.epoch == epoch
	return nil
}

// deaf forgets what was seen: while the vault does not answer, the silence of
// the active one proves nothing.
func (m *Member) deaf() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = false
}

// wait watches the count of the active one.
func (m *Member) wait(ctx context.Context, newest Claim, begun time.Duration) error {
	beat, err := m.Ledger.ReadBeat(ctx, newest.Number)
	if errors.Is(err, vault.ErrNotFound) { // claimed, and no beat yet
		beat, err = Beat{Epoch: newest.Number}, nil
	}
	if err != nil {
		m.deaf()
		return fmt.Errorf("look whether the active console lives: %w", err)
	}
	if beat.Over {
		return m.claim(ctx, newest, begun, nil)
	}
	m.mu.Lock()
	if !m.heard || m.seen != beat {
		m.seen, m.since, m.heard = beat, m.Steady(), true
	}
	// From when the answer was there until the next question was asked: an
	// answer that took long is no silence of the active one.
	silent := begun - m.since
	m.mu.Unlock()
	if silent < Patience {
		return nil
	}
	return m.claim(ctx, newest, begun, &beat)
}

// claim takes the next epoch. One that was lost, or whose outcome is unknown,
// is seen at the next step. last is the beat for which the one before was taken for dead;
// nil: it is not there any more.
func (m *Member) claim(ctx context.Context, newest Claim, begun time.Duration, last *Beat) error {
	c := Claim{Number: newest.Number + 1, Holder: m.Holder, URL: m.URL, At: m.Now().UTC()}
	m.mu.Lock()
	late := newest.Holder == m.Holder && newest.Number == m.tried // its own claim, which came when it was taken for lost
	m.tried = c.Number
	m.mu.Unlock()
	err := m.Ledger.Claim(ctx, c)
	if errors.Is(err, vault.ErrExists) || errors.Is(err, vault.ErrUnavailable) {
		after, lookErr := m.Ledger.Newest(ctx)
		if lookErr != nil {
			return fmt.Errorf("claim epoch %d: %w", c.Number, errors.Join(err, lookErr))
		}
		if after.Number != c.Number || after.Holder != m.Holder {
			m.yield(after) // and wait for this one
			return nil
		}
		err = nil
	}
	if err != nil {
		return fmt.Errorf("claim epoch %d: %w", c.Number, err)
	}
	var after time.Duration
	if late { // nobody knows when the one before gave its last sign of life
		after = m.Steady() + Lease
	}
	if last != nil { // a beat that came between the look and the claim: it sees this at its next look
		if beat, err := m.Ledger.ReadBeat(ctx, newest.Number); beat != *last && (last.Count != 0 || !errors.Is(err, vault.ErrNotFound)) {
			after = m.Steady() + Lease
		}
	}
	m.mu.Lock()
	m.epoch, m.risen, m.count, m.newest, m.after = c.Number, false, 0, c, after
	m.mu.Unlock()
	return m.renew(ctx, begun)
}

// End lets the next one take over at once.
func (m *Member) End(ctx context.Context) error {
	m.mu.Lock()
	epoch, count := m.epoch, m.count+1
	m.epoch, m.risen = 0, false
	m.mu.Unlock()
	if epoch == 0 {
		return nil
	}
	if err := m.Ledger.Beat(ctx, Beat{Epoch: epoch, Count: count, Over: true}); err != nil {
		return fmt.Errorf("give the lease back: %w", err)
	}
	return nil
}
