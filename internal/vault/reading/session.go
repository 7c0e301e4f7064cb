package reading

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"davit.dev/davit/internal/vault"
)

// How often a note is written again, and tried again where that did not work.
const (
	every = Lease / 12
	again = time.Minute
)

// How long a reader waits for a removal that is claimed to stand back, or to begin:
// two that meet would both stand back else, and a restore be refused for a point that
// stays. A removal says within a few calls to the vault which of the two it is.
var looks, lookAgain = 10, 500 * time.Millisecond // less in tests

// errClaimed is ErrLeaving of a removal that may stand back yet.
var errClaimed = fmt.Errorf("%w", ErrLeaving)

// Work is what reads a point.
type Work struct {
	Project            *vault.Project
	Application, Point string
	// By is who reads, for people, and the same when he comes again; Site is where,
	// and For who ordered it. Cluster is the one that bears the site's name.
	By, Site, For, Cluster string
	// Log is told when a note could not be written again. Nil: nobody.
	Log *slog.Logger
}

// Session is one reading of a point. A note that may have ended is not written
// again: the next has another name, and its writer looks again whether the point
// is there. So whoever takes an old note away takes nobody's.
type Session struct {
	Work
	in *vault.Project

	now   func() time.Time
	since time.Time
	after func(time.Duration) <-chan time.Time

	mu  sync.Mutex
	key string    // of the note; empty before the first
	at  time.Time // before the note was last written

	stop context.CancelFunc
	done chan struct{}
}

// Begin notes that a point is read, before anything of it is, and goes on writing
// so until the session is over or ctx is. ErrLeaving says that the point must not
// be read, and there is no session. Any other error says that the point is not
// known to be kept: the session goes on trying.
func Begin(ctx context.Context, w Work) (*Session, error) {
	return begin(ctx, w, time.Now, time.After)
}

func begin(ctx context.Context, w Work, now func() time.Time, after func(time.Duration) <-chan time.Time) (*Session, error) {
	if w.Log == nil {
		w.Log = slog.New(slog.DiscardHandler)
	}
	s := &Session{Work: w, in: writable(w.Project), now: now, since: now(), after: after, done: make(chan struct{})}
	err := s.say(ctx)
	if errors.Is(err, ErrLeaving) {
		return nil, err
	}
	ctx, s.stop = context.WithCancel(ctx)
	go s.keep(ctx, err == nil)
	return s, err
}

func (s *Session) keep(ctx context.Context, good bool) {
	defer close(s.done)
	for {
		wait := every
		if !good {
			wait = again
		}
		select {
		case <-ctx.Done():
			return
		case <-s.after(wait):
		}
		err := s.say(ctx)
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("The vault was not told that a point is being read: it may be removed meanwhile.", "point", s.Point, "error", err)
		}
		good = err == nil
	}
}

// say writes the note. The first, and one after a lapse, is followed by the look
// for who removes the point.
func (s *Session) say(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, began := s.key, s.now()
	fresh := was == "" || passed(s.at, began) > Lease
	if fresh {
		key, err := newKey(s.in, s.Application, s.Point, reader)
		if err != nil {
			return err
		}
		s.key = key
	}
	err := s.put(ctx)
	if err == nil && fresh {
		err = s.settled(ctx)
	}
	if fresh && err != nil { // a late write of it counts for its lease, and harms nobody
		s.drop(ctx, s.key)
		s.key = was
		return fmt.Errorf("note that point %s is being read: %w", s.Point, err)
	}
	if err != nil {
		return fmt.Errorf("note that point %s is still being read: %w", s.Point, err)
	}
	s.at = began
	if fresh && was != "" {
		s.drop(ctx, was)
	}
	return nil
}

func (s *Session) put(ctx context.Context) error {
	return write(ctx, s.in, s.key, note{By: s.By, For: s.For, Site: s.Site, Cluster: s.Cluster, At: s.since.UTC().Truncate(time.Second), Lease: Lease})
}

// passed is how long ago it was, by the clock that says more: one stops while the
// machine sleeps, the other may be set.
func passed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}

// settled is look, once whoever claimed the removal has stood back or begun. The
// reader's note stands meanwhile.
func (s *Session) settled(ctx context.Context) error {
	err := s.look(ctx)
	for n := 0; n < looks && errors.Is(err, errClaimed); n++ {
		select {
		case <-ctx.Done():
			return err
		case <-s.after(lookAgain):
		}
		err = s.look(ctx)
	}
	return err
}

// look is ErrLeaving when the point is being removed, or gone. It comes after the
// reader's own note.
func (s *Session) look(ctx context.Context) error {
	all, err := list(ctx, s.in, prefixOf(s.in, s.Application, s.Point))
	if err != nil {
		return err
	}
	now, err := mine(all, s.key)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.role == remover && now.Before(e.until()) {
			return fmt.Errorf("%w: by %s at site %s, from %s on", errClaimed, e.By, e.Site, e.At.UTC().Format(time.RFC3339))
		}
	}
	marks, err := s.in.Marks(ctx, s.Application, s.Point)
	if err != nil && !errors.Is(err, vault.ErrDamaged) {
		return err
	}
	for _, m := range marks {
		if m.Kind == vault.MarkDeleting && m.By == Begun {
			return fmt.Errorf("%w: parts of it may be gone", ErrLeaving)
		}
	}
	manifest := s.in.Root() + "manifests/" + s.Application + "/" + s.Point
	if _, err := s.in.Store().Stat(ctx, manifest); errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("%w: it is gone", ErrLeaving)
	} else if err != nil {
		return fmt.Errorf("look for point %s: %w", s.Point, err)
	}
	return nil
}

// drop takes a note away, if it can: else it ends by itself.
func (s *Session) drop(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putWithin)
	defer cancel()
	if err := s.in.Store().Delete(ctx, key); err != nil {
		s.Log.Debug("A reader's note stays until it ends.", "key", key, "error", err)
	}
}

// Leave ends the session and lets the note stand until it ends by itself, for
// whoever goes on with the same work.
func (s *Session) Leave() {
	if s == nil {
		return
	}
	s.stop()
	<-s.done
}

// End ends the session and takes its note away.
func (s *Session) End(ctx context.Context) {
	if s == nil {
		return
	}
	s.Leave()
	if s.key != "" {
		s.drop(ctx, s.key)
	}
}

// Done is End for whoever has done the whole work: the notes that the same reader at
// the same site and cluster left before, dead or half done, go as well. Nobody else
// may be doing the same work.
func (s *Session) Done(ctx context.Context) {
	if s == nil {
		return
	}
	s.End(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putWithin)
	defer cancel()
	all, err := list(ctx, s.in, prefixOf(s.in, s.Application, s.Point))
	if err != nil {
		s.Log.Debug("A reader's former notes stay until they end.", "point", s.Point, "error", err)
		return
	}
	for _, e := range all {
		if e.role == reader && e.By == s.By && e.Site == s.Site && e.Cluster == s.Cluster {
			s.drop(ctx, e.key)
		}
	}
}
