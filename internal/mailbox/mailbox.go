// Package mailbox keeps in the vault what people want of a run, and what became
// of it (docs/formats/journal.md, "Requests"): so it reaches whichever process carries the
// run, and nothing is lost when that one dies.
package mailbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
)

// Box is the mailbox of a project's runs.
type Box struct{ project *vault.Project }

var _ execute.Requests = Box{}

// New returns the mailbox of a project.
func New(p *vault.Project) Box { return Box{p} }

// Reply is what became of a request. Refused says why it cannot be; empty: the
// journal holds it.
type Reply struct {
	Number  int64  `json:"number"`
	Refused string `json:"refused,omitempty"`
}

// Expires is for how long a request may be taken up, by the vault's clock: whoever
// asked has decided something else since, if nobody carried the run meanwhile.
const Expires = time.Hour

const (
	answered = "-reply"
	digits   = 20
	tries    = 20
)

func (b Box) key(run string, n int64) string {
	return fmt.Sprintf("%srequests/%s/%0*d", b.project.Root(), run, digits, n)
}

// numbers lists which requests there are, and which have a reply.
func (b Box) numbers(ctx context.Context, run string) (all []int64, replied map[int64]bool, err error) {
	if err := vault.CheckName(run); err != nil {
		return nil, nil, fmt.Errorf("look for requests: %w", err)
	}
	prefix := b.project.Root() + "requests/" + run + "/"
	replied = map[int64]bool{}
	err = b.project.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		tail, reply := strings.CutSuffix(strings.TrimPrefix(o.Key, prefix), answered)
		n, err := strconv.ParseInt(tail, 10, 64)
		switch {
		case err != nil || n < 1 || len(tail) != digits:
			return nil // of a later version, or nobody's
		case reply:
			replied[n] = true
		default:
			all = append(all, n)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look for requests of run %s: %w", run, err)
	}
	slices.Sort(all)
	return all, replied, nil
}

// Put leaves a request for whoever carries the run, and returns its number. One
// with an ID that is there already is not left again: its number is returned.
func (b Box) Put(ctx context.Context, run string, r execute.Request) (int64, error) {
	for range tries {
		all, _, err := b.numbers(ctx, run)
		if err != nil {
			return 0, err
		}
		if n, err := b.find(ctx, run, r.ID, all); err != nil || n != 0 {
			return n, err
		}
		r.Number = 1
		if len(all) > 0 {
			r.Number = all[len(all)-1] + 1
		}
		data, err := json.Marshal(r)
		if err != nil {
			return 0, fmt.Errorf("ask run %s: %w", run, err)
		}
		err = b.project.WriteSealedOnce(ctx, b.key(run, r.Number), data)
		if errors.Is(err, vault.ErrExists) {
			continue // somebody else asks too
		}
		if err != nil {
			return 0, fmt.Errorf("ask run %s: %w", run, err)
		}
		return r.Number, nil
	}
	return 0, fmt.Errorf("ask run %s: too many others ask at once: try again", run)
}

// Find returns the number of the request with an ID, 0 if there is none.
func (b Box) Find(ctx context.Context, run, id string) (int64, error) {
	all, _, err := b.numbers(ctx, run)
	if err != nil {
		return 0, err
	}
	return b.find(ctx, run, id, all)
}

func (b Box) find(ctx context.Context, run, id string, all []int64) (int64, error) {
	if id == "" {
		return 0, nil
	}
	for _, n := range slices.Backward(all) {
		r, err := b.read(ctx, run, n)
		switch {
		case errors.Is(err, vault.ErrUnavailable), err != nil && ctx.Err() != nil:
			return 0, err
		case err == nil && r.ID == id:
			return n, nil
		}
	}
	return 0, nil
}

func (b Box) read(ctx context.Context, run string, n int64) (*execute.Request, error) {
	data, err := b.project.ReadSealed(ctx, b.key(run, n))
	if err != nil && !errors.Is(err, vault.ErrDamaged) {
		return nil, fmt.Errorf("read request %d of run %s: %w", n, run, err)
	}
	return parse(data, n, err)
}

// Asked is a request, and what became of it: nil while nobody knows.
type Asked struct {
	execute.Request
	Reply *Reply
}

// Get returns a request, and what became of it.
func (b Box) Get(ctx context.Context, run string, n int64) (*Asked, error) {
	r, err := b.read(ctx, run, n)
	if err != nil {
		return nil, err
	}
	reply, err := b.Answer(ctx, run, n)
	return &Asked{Request: *r, Reply: reply}, err
}

// Newest returns the newest requests, at most so many, the newest first. What cannot
// be read is left out.
func (b Box) Newest(ctx context.Context, run string, most int) ([]Asked, error) {
	all, replied, err := b.numbers(ctx, run)
	if err != nil {
		return nil, err
	}
	var out []Asked
	for _, n := range slices.Backward(all) {
		if len(out) == most {
			break
		}
		r, err := b.read(ctx, run, n)
		if err != nil && (errors.Is(err, vault.ErrUnavailable) || ctx.Err() != nil) {
			return nil, err
		}
		if err != nil {
			continue
		}
		a := Asked{Request: *r}
		if replied[n] {
			if a.Reply, err = b.Answer(ctx, run, n); err != nil {
				return nil, err
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// Next implements execute.Requests. One that cannot be read, or is too old, is passed
// over, and answered so.
func (b Box) Next(ctx context.Context, run string) (*execute.Request, error) {
	all, replied, err := b.numbers(ctx, run)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(n int64) bool { return replied[n] })
	if len(all) == 0 {
		return nil, nil
	}
	now, err := b.project.Clock(ctx)
	if err != nil {
		return nil, fmt.Errorf("see how old requests of run %s are: %w", run, err)
	}
	for _, n := range all {
		old, err := b.expired(ctx, run, n, now)
		if err != nil {
			return nil, err
		}
		if old {
			continue
		}
		data, err := b.project.ReadSealed(ctx, b.key(run, n))
		if err != nil && !errors.Is(err, vault.ErrDamaged) {
			return nil, fmt.Errorf("read request %d of run %s: %w", n, run, err)
		}
		r, err := parse(data, n, err)
		if err == nil {
			old, err := b.overtaken(ctx, run, r, now)
			if err != nil {
				return nil, err
			}
			if old {
				continue
			}
			return r, nil
		}
		if err := b.Reply(ctx, run, n, err.Error()); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// expired answers a request that is too old.
func (b Box) expired(ctx context.Context, run string, n int64, now time.Time) (bool, error) {
	old, at, err := b.older(ctx, run, n, now, Expires)
	if err != nil || !old {
		return false, err
	}
	s, err := b.journal(ctx, run, n)
	if err != nil {
		return false, err
	}
	return true, b.outdated(ctx, s, run, n, at, Expires)
}

// overtaken answers a request that was to let a run go on which has begun no step, and was left so long ago that
// other runs may have begun without that one (see register.Overtaken). Whoever asked did not know of them.
func (b Box) overtaken(ctx context.Context, run string, r *execute.Request, now time.Time) (bool, error) {
	if slices.Contains([]failover.EventKind{failover.Cancel, failover.Reject, failover.Pausing}, r.Kind) {
		return false, nil
	}
	old, at, err := b.older(ctx, run, r.Number, now, lease.SilentAfter)
	if err != nil || !old {
		return false, err
	}
	s, err := b.journal(ctx, run, r.Number)
	if err != nil || s.Meant() || s.Phase.Over() || !s.Spec.Verb.Moves() {
		return false, err
	}
	return true, b.outdated(ctx, s, run, r.Number, at, lease.SilentAfter)
}

// older tells whether a request was left so long ago, and when it was.
func (b Box) older(ctx context.Context, run string, n int64, now time.Time, than time.Duration) (bool, time.Time, error) {
	o, err := b.project.Store().Stat(ctx, b.key(run, n))
	if err != nil {
		return false, time.Time{}, fmt.Errorf("see how old request %d of run %s is: %w", n, run, err)
	}
	return now.Sub(o.Modified) >= than, o.Modified, nil
}

// journal is what a run's says: whether it grants a request, and what the run did. One without has granted nothing.
func (b Box) journal(ctx context.Context, run string, n int64) (*failover.State, error) {
	s, err := journal.Read(ctx, b.project, run)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return failover.NewState(), nil
	case err != nil:
		return nil, fmt.Errorf("see what became of request %d of run %s: %w", n, run, err)
	}
	return s, nil
}

// outdated answers a request that is not taken up any more.
func (b Box) outdated(ctx context.Context, s *failover.State, run string, n int64, at time.Time, within time.Duration) error {
	if s.Granted[n] { // whoever took it up died before he answered
		return b.Reply(ctx, run, n, "")
	}
	return b.Reply(ctx, run, n, fmt.Sprintf("it was left at %s, and nobody answered it within %s: it is not taken up any more. What the run has done says `davit runs show %s`; ask again if it is still wanted", at.UTC().Format(time.RFC3339), within, run))
}

func parse(data []byte, n int64, err error) (*execute.Request, error) {
	var r execute.Request
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("the request cannot be read: %w", err)
	case r.Number != n || r.Kind == "" || r.By == "":
		return nil, errors.New("the request says neither who asks nor what for")
	}
	return &r, nil
}

// Reply implements execute.Requests.
func (b Box) Reply(ctx context.Context, run string, n int64, refused string) error {
	data, err := json.Marshal(Reply{Number: n, Refused: refused})
	if err != nil {
		return fmt.Errorf("answer request %d of run %s: %w", n, run, err)
	}
	err = b.project.WriteSealedOnce(ctx, b.key(run, n)+answered, data)
	if err != nil && !errors.Is(err, vault.ErrExists) {
		return fmt.Errorf("answer request %d of run %s: %w", n, run, err)
	}
	return nil
}

// Answer returns what became of a request, nil while nobody knows.
func (b Box) Answer(ctx context.Context, run string, n int64) (*Reply, error) {
	data, err := b.project.ReadSealed(ctx, b.key(run, n)+answered)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, nil
	}
	var r Reply
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer to request %d of run %s: %w", n, run, err)
	}
	return &r, nil
}
