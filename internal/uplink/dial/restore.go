package dial

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"davit.dev/davit/internal/uplink"
)

// Restores restore what a console asks for.
type Restores interface {
	// Restore carries out what a console asks for, unless there is a reason not to,
	// and says how it stands until it is over. One that was begun by the same request
	// before is followed, whatever the reason. An error says that it is not known: it
	// is asked again.
	Restore(ctx context.Context, r uplink.Restore, refuse Refusal, say func(uplink.Restored)) error
}

// AllowRestores says how a site lets a console restore.
const AllowRestores = "`davit enrol --restores clone` at the site lets the console restore copies, `--restores all` in place, too; until then restore there, with the site's kubeconfig"

// restorable is what a link permits, as the console is told.
func restorable(restores string) string {
	if restores == uplink.RestoresClone || restores == uplink.RestoresAll {
		return restores
	}
	return uplink.RestoresNone
}

// permitsRestore says why a site does not let a console restore, or look at what a
// restore would do: that shows what is there.
func permitsRestore(restores string, clone bool) Refusal {
	switch restorable(restores) {
	case uplink.RestoresAll:
		return Refusal{}
	case uplink.RestoresClone:
		if clone {
			return Refusal{}
		}
		return Refusal{"the site lets the console restore copies only, and this is one in place", AllowRestores}
	}
	return Refusal{"the site lets no console restore", AllowRestores}
}

// restores are what the console asks for in one stream.
type restores struct {
	mu      sync.Mutex
	open    int               // are under way
	said    []uplink.Restored // to be said
	changed chan struct{}
	under   sync.WaitGroup
}

// answer keeps what is to be said. Of one restore only the newest is.
func (r *restores) answer(said uplink.Restored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.said {
		if r.said[i].ID == said.ID {
			r.said[i] = said
			return
		}
	}
	r.said = append(r.said, said)
	tap(r.changed)
}

// look takes what is to be said.
func (r *restores) look() []uplink.Restored {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.said
	r.said = nil
	return all
}

func (r *restores) count(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open += n
	return r.open
}

// restore takes what the console asks for, if it is a console of the epoch that may,
// and follows it beside the stream until that ends.
func (s *session) restore(ctx context.Context, r uplink.Restore) error {
	if s.Restores == nil {
		return fmt.Errorf("%w: a restore for who restores nothing", uplink.ErrFrame)
	}
	if err := s.heed(uplink.Console{Epoch: r.Epoch, Active: true}); err != nil {
		return err
	}
	if err := s.rise(ctx, r.Epoch); err != nil {
		return err
	}
	if s.restores.count(1) > uplink.MostAsked {
		return fmt.Errorf("%w: more restores than were answered", uplink.ErrFrame)
	}
	permits := s.link.Restores
	s.restores.under.Go(func() {
		s.follow(ctx, r, permits)
		s.restores.count(-1)
	})
	return nil
}

func (s *session) follow(ctx context.Context, r uplink.Restore, permits string) {
	pause := s.Pause
	if pause == nil {
		pause = Pause
	}
	say := func(said uplink.Restored) {
		said.ID = r.ID
		s.restores.answer(said)
	}
	for attempt := 1; ctx.Err() == nil; attempt++ {
		refuse := permitsRestore(permits, r.Clone)
		if r.Cancel {
			refuse = Refusal{}
		} else if refuse == (Refusal{}) && s.orders.late(s.Now(), r.Until) {
			refuse = Refusal{"it came too late: it was to begin by " + r.Until.UTC().Format(time.RFC3339) + ", by the console's clock", "ask again, if it is still wanted"}
		}
		if s.Restores.Restore(ctx, r, refuse, say) == nil {
			return
		}
		pause(ctx, attempt)
	}
}

// told says what became of restores.
func told(to io.Writer, all []uplink.Restored) error {
	for _, r := range all {
		if err := uplink.Write(to, uplink.Up{Restored: &r}); err != nil {
			return err
		}
	}
	return nil
}
