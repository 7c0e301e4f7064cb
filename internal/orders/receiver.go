package orders

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/vault"
)

// Longest is the most that an order is worked on, whatever it says itself.
const Longest = 24 * time.Hour

// unreadFor is how long an answer waits to be read.
const unreadFor = 24 * time.Hour

// Receiver is the site's end: it carries out the orders that lie in one vault for
// one site. Its methods may be called from one goroutine at a time.
type Receiver struct {
	Project  *vault.Project
	Site     string
	Actuator execute.Actuator

	mu      sync.Mutex
	busy    map[string]context.CancelCauseFunc // what ends the work on an order; of one that is only read, nil
	working sync.WaitGroup
}

// errWithdrawn ends the work on an order that nobody waits for any more: whoever sent it has decided
// something else, and what takes it back can begin only then.
var errWithdrawn = errors.New("the order was withdrawn")

// Poll begins what was ordered and is not under way yet, and returns how many
// orders there are. They go on when it returns, until ctx ends, or a later Poll finds
// them withdrawn; to look takes no longer than within.
func (r *Receiver) Poll(ctx context.Context, within time.Duration) (int, error) {
	looking, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	prefix := orderKey(r.Project, r.Site, "")
	var fresh []vault.ObjectInfo
	found, there, before := 0, map[string]bool{}, r.underWay()
	err := r.Project.Store().List(looking, prefix, func(o vault.ObjectInfo) error {
		found++
		there[strings.TrimPrefix(o.Key, prefix)] = true
		if r.take(strings.TrimPrefix(o.Key, prefix)) {
			fresh = append(fresh, o)
		}
		return nil
	})
	for id, end := range before {
		if err == nil && !there[id] {
			end(errWithdrawn)
		}
	}
	var now time.Time
	if err == nil && len(fresh) > 0 {
		now, err = r.Project.Clock(looking)
	}
	if err != nil {
		for _, o := range fresh {
			r.leave(strings.TrimPrefix(o.Key, prefix))
		}
		return found, fmt.Errorf("look for orders of site %s: %w", r.Site, err)
	}
	var errs []error
	for _, o := range fresh {
		id := strings.TrimPrefix(o.Key, prefix)
		data, err := r.Project.ReadSealed(looking, prefix+id)
		if err != nil && !errors.Is(err, vault.ErrDamaged) {
			r.leave(id)
			if !errors.Is(err, vault.ErrNotFound) { // else it was withdrawn
				errs = append(errs, fmt.Errorf("read order %s: %w", id, err))
			}
			continue
		}
		work := r.begin(ctx, id)
		r.working.Go(func() {
			defer r.leave(id)
			r.carryOut(work, id, data, err, now.Sub(o.Modified))
		})
	}
	return found, errors.Join(errs...)
}

// Wait returns when nothing is being carried out any more.
func (r *Receiver) Wait() { r.working.Wait() }

func (r *Receiver) take(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, busy := r.busy[id]; busy {
		return false
	}
	if r.busy == nil {
		r.busy = map[string]context.CancelCauseFunc{}
	}
	r.busy[id] = nil
	return true
}

func (r *Receiver) begin(ctx context.Context, id string) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, r.busy[id] = context.WithCancelCause(ctx)
	return ctx
}

func (r *Receiver) leave(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end := r.busy[id]; end != nil {
		end(nil)
	}
	delete(r.busy, id)
}

// underWay are the orders that are worked on, with what ends that.
func (r *Receiver) underWay() map[string]context.CancelCauseFunc {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := maps.Clone(r.busy)
	maps.DeleteFunc(all, func(_ string, end context.CancelCauseFunc) bool { return end == nil })
	return all
}

// carryOut does one order and answers it. One that this process could not
// finish, because it ends itself, stays for the next. One that nobody waits for
// any more, by the vault's clock, is forgotten: its executor died, and a site that
// comes back after days must not be stopped for it.
func (r *Receiver) carryOut(ctx context.Context, id string, data []byte, damage error, age time.Duration) {
	f, err := orderFile{}, damage
	if err == nil {
		f, err = parseOrder(data)
	}
	var answer execute.Answer
	switch {
	case err != nil:
		answer = execute.Refuse("%v", err)
	case age > f.Within:
		tidy(ctx, r.Project, orderKey(r.Project, r.Site, id))
		return
	case f.Order.Site != r.Site || !strings.HasPrefix(id, f.Order.Run+"."):
		answer = execute.Refuse("read order %s: %v: it is for site %q and of run %q", id, vault.ErrDamaged, f.Order.Site, f.Order.Run)
	default:
		within, cancel := context.WithTimeout(ctx, min(max(f.Within-age, time.Second), Longest))
		answer = r.Actuator.Do(within, f.Order)
		cancel()
	}
	if ctx.Err() != nil {
		return
	}
	file := answerFile{FormatVersion: formatVersion, Answer: answer}
	if err := put(ctx, r.Project, answerKey(r.Project, r.Site, id), file); err != nil && !errors.Is(err, vault.ErrExists) {
		return // the order stays, and is carried out again
	}
	tidy(ctx, r.Project, orderKey(r.Project, r.Site, id))
}

// Sweep deletes answers that nobody has read for a day, by the vault's clock.
func (r *Receiver) Sweep(ctx context.Context) error {
	now, err := r.Project.Clock(ctx)
	if err != nil {
		return fmt.Errorf("sweep answers of site %s: %w", r.Site, err)
	}
	var old []string
	err = r.Project.Store().List(ctx, answerKey(r.Project, r.Site, ""), func(o vault.ObjectInfo) error {
		if now.Sub(o.Modified) > unreadFor {
			old = append(old, o.Key)
		}
		return nil
	})
	errs := []error{err}
	for _, key := range old {
		errs = append(errs, r.Project.Store().Delete(ctx, key))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep answers of site %s: %w", r.Site, err)
	}
	return nil
}
