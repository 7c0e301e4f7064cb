package entry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

// How many refused logins are noted one by one: so many at once for each user,
// and for all names that are nobody's together, and then one in each interval.
// The rest is counted, or whoever knocks could fill the disk with it.
const (
	notedAtOnce = 10
	notedEvery  = 10 * time.Minute
)

// wrong is why a login was refused, in the audit log.
const wrong = "name, password or code was wrong"

// nobody stands for all names that no user has: one of them may be a password,
// typed into the wrong field.
const nobody = "?"

// refusals are those that were not noted: of logins, or of what else is asked for.
type refusals struct {
	limit *account.Limit

	mu   sync.Mutex
	left map[string]int // by user; 0: none, but he is known
}

func newRefusals() *refusals {
	return &refusals{limit: account.NewLimit(notedAtOnce, notedEvery, 10_000), left: map[string]int{nobody: 0}}
}

// count counts one that is not noted. A name that no refusal was noted of
// counts as nobody's: made-up names must not fill the memory either.
func (f *refusals) count(name string) { f.add(name, 1) }

func (f *refusals) add(name string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.left[name]; !known {
		name = nobody
	}
	f.left[name] += n
}

// take returns how many were left out, and forgets them.
func (f *refusals) take(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.left[name]
	f.left[name] = 0
	return n
}

// names are those of whom some were left out.
func (f *refusals) names() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, n := range f.left {
		if n > 0 {
			all = append(all, name)
		}
	}
	return all
}

func leftOut(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d more were refused before and not noted one by one", n)
}

// refuse notes a login that was refused, or counts it. u is the user of that
// name, if there is one.
func (d *Door) refuse(ctx context.Context, act audit.Act, u store.User, name string) error {
	if u.ID == "" {
		name = nobody
	}
	left := d.refusals.take(name) // from here on the name is known
	if !d.refusals.limit.Allow(name, act.At) {
		d.refusals.add(name, left+1)
		return nil
	}
	return d.Console.Note(ctx, act, audit.Record{Action: "login", Object: name, Refused: wrong, Detail: leftOut(left)})
}

// Tell notes from time to time how many refused logins were left out, and once
// more when the context ends.
func (d *Door) Tell(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			d.tell(context.WithoutCancel(ctx), true)
			return
		case <-ticker.C:
			d.tell(ctx, false)
		}
	}
}

func (d *Door) tell(ctx context.Context, all bool) {
	d.tellOf(ctx, d.refusals, all, "login", wrong)
	d.tellOf(ctx, d.turned, all, refusedAction, "not permitted")
}

func (d *Door) tellOf(ctx context.Context, f *refusals, all bool, action, why string) {
	now := d.Now()
	for _, name := range f.names() {
		if !all && !f.limit.Allow(name, now) {
			continue
		}
		n := f.take(name)
		err := d.Console.Note(ctx, audit.Act{By: "console", At: now}, audit.Record{Action: action, Object: name, Refused: why, Detail: leftOut(n)})
		if err != nil {
			d.Log.Error("what was refused was not noted", "action", action, "user", name, "number", n, "err", err)
		}
	}
}
