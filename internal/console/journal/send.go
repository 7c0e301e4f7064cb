package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"davit.dev/davit/internal/console/store"
)

// Times of a Sender.
const (
	// every is how often it looks for changes of other processes, such as commands.
	every = 500 * time.Millisecond
	// putLimit is how long the vault may take for one round.
	putLimit = 30 * time.Second
	// Patience is how long a change waits to be acknowledged.
	Patience = 15 * time.Second
)

// Sender has the changes of one database be in the vault, while its process is
// the active one.
type Sender struct {
	Term
	DB store.Journaled
	// Open returns the database's journal; with again, not as it was opened before.
	Open func(ctx context.Context, again bool) (Book, error)
	// Confirm says that no newer epoch was claimed before the call.
	Confirm func(ctx context.Context) error
	// Allowed says why nothing may be decided now; nil: it may.
	Allowed func() error
	Dir     string // for databases that are brought back
	Log     *slog.Logger

	once    sync.Once
	kick    chan struct{}
	took    chan struct{} // closed when the database is taken over
	tried   chan struct{} // closed when that was tried
	first   sync.Once
	mu      sync.Mutex
	taken   bool
	fault   error
	put     int64 // up to here it is in the vault,
	counted int64 // and up to here it counts
	moved   chan struct{}
	ended   bool
}

var _ store.Guard = (*Sender)(nil)

func (s *Sender) init() {
	s.once.Do(func() {
		s.kick, s.took, s.tried, s.moved = make(chan struct{}, 1), make(chan struct{}), make(chan struct{}), make(chan struct{})
	})
}

// Tried is closed when it was tried once to take the database over.
func (s *Sender) Tried() <-chan struct{} {
	s.init()
	return s.tried
}

// Taken is closed when the database is taken over.
func (s *Sender) Taken() <-chan struct{} {
	s.init()
	return s.took
}

// Fault is why changes do not reach the vault; nil: they do.
func (s *Sender) Fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// Ready implements store.Guard.
func (s *Sender) Ready() error {
	if err := s.Allowed(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.taken {
		return errors.Join(fmt.Errorf("%w: what its vault holds has not been read yet", store.ErrPassive), s.fault)
	}
	return nil
}

// Wake implements store.Guard.
func (s *Sender) Wake() {
	s.init()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Await implements store.Guard.
func (s *Sender) Await(ctx context.Context, upto int64) error {
	s.init()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	for {
		s.mu.Lock()
		taken, counted, moved, ended, fault := s.taken, s.counted, s.moved, s.ended, s.fault
		s.mu.Unlock()
		switch {
		case taken && counted >= upto:
			return nil
		case ended:
			return fmt.Errorf("%w: %w", store.ErrUnconfirmed, store.ErrPassive)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", store.ErrUnconfirmed, ctx.Err())
		case <-limit.C:
			return errors.Join(store.ErrUnconfirmed, fault)
		}
	}
}

// Behind is how many changes are not known to be in the vault; of many, only that
// they are many.
func (s *Sender) Behind(ctx context.Context) (int, error) {
	all, err := s.DB.Waiting(ctx, most)
	return len(all), err
}

// Run sends until the context ends; a last time then.
func (s *Sender) Run(ctx context.Context) {
	s.init()
	defer s.end()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		s.Round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-ticker.C:
		}
	}
}

func (s *Sender) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	close(s.moved)
	s.moved = make(chan struct{})
}

// Round takes the database over, if that was not done yet, and sends what waits: record
// by record, and each is confirmed before the next. While much is written that nobody
// waits for, what is waited for is acknowledged all the same.
func (s *Sender) Round(ctx context.Context) {
	s.init()
	for s.record(ctx) {
	}
}

// record is a part of a round, and tells whether there may be more.
func (s *Sender) record(ctx context.Context) (more bool) {
	limited, cancel := context.WithTimeout(ctx, putLimit)
	defer cancel()
	sent, err := s.send(limited)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && ctx.Err() == nil && (s.fault == nil || s.fault.Error() != err.Error()) {
		s.Log.Warn("changes do not reach the vault", "err", err)
	}
	s.fault = err
	s.first.Do(func() { close(s.tried) })
	close(s.moved)
	s.moved = make(chan struct{})
	return sent && err == nil && ctx.Err() == nil
}

func (s *Sender) send(ctx context.Context) (sent bool, err error) {
	b, err := s.Open(ctx, s.Fault() != nil)
	if err != nil {
		return false, err
	}
	if err := s.take(ctx, b); err != nil {
		return false, err
	}
	upto, err := s.SendOne(ctx, b, s.DB)
	s.mu.Lock()
	s.put = max(s.put, upto)
	behind := s.put > s.counted
	put := s.put
	s.mu.Unlock()
	if !behind {
		return upto > 0, err
	}
	if confirmErr := s.Confirm(ctx); confirmErr != nil {
		return false, errors.Join(err, confirmErr)
	}
	s.mu.Lock()
	s.counted = put
	s.mu.Unlock()
	return upto > 0, err
}

// take takes the database over, once. One that does not continue to what the
// vault holds is made what it holds.
func (s *Sender) take(ctx context.Context, b Book) error {
	s.mu.Lock()
	taken := s.taken
	s.mu.Unlock()
	if taken {
		return nil
	}
	err := s.Take(ctx, b, s.DB)
	if errors.Is(err, ErrFork) {
		s.Log.Warn("the database does not continue to what the vault holds: it is made that", "err", err)
		if err := b.Rebuild(ctx, s.DB, s.Dir); err != nil {
			return err
		}
		err = s.Take(ctx, b, s.DB)
	}
	if err != nil {
		return err
	}
	cleared, err := s.DB.Cleared(ctx) // what does not wait any more is in the vault, whoever sent it
	if err != nil {
		return err
	}
	if err := s.Confirm(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken, s.put, s.counted = true, max(s.put, cleared), max(s.counted, cleared)
	close(s.took)
	return nil
}
