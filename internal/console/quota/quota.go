// Package quota bounds what one project of a console may have, so that no tenant takes
// what others need. Administrators of the console set it; what is there already stays
// when a limit is set below it, and nothing here is in the way of protection: captures
// and runs at sites ask no console.
package quota

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
)

// secret is the name under which a project's limits are kept, beside its other
// settings: so they are in the vault's journal and in backups.
const secret = "quota"

// Numbers are limits, or what is used of them. A limit of 0 is none.
type Numbers struct {
	Documents int `json:"documents"` // that the console keeps
	Agents    int `json:"agents"`    // sites that were let in
	Members   int `json:"members"`   // people with a role
	Tokens    int `json:"tokens"`    // of robots, that count
	Restores  int `json:"restores"`  // asked for and not over, dry runs aside
	// Bytes are those of recovery points in the vault, as stored when they were
	// captured. Over it the console takes no new application; those there are go on
	// being protected.
	Bytes int64 `json:"bytes"`
}

// Kind is what a limit is of.
type Kind string

// The kinds.
const (
	Documents Kind = "documents"
	Agents    Kind = "agents"
	Members   Kind = "members"
	Tokens    Kind = "tokens"
	Restores  Kind = "restores"
	Bytes     Kind = "bytes"
)

// Kinds are all kinds, as people read them.
func Kinds() []Kind { return []Kind{Documents, Agents, Members, Tokens, Restores, Bytes} }

// Of is the number of a kind.
func (n Numbers) Of(k Kind) int64 {
	switch k {
	case Documents:
		return int64(n.Documents)
	case Agents:
		return int64(n.Agents)
	case Members:
		return int64(n.Members)
	case Tokens:
		return int64(n.Tokens)
	case Restores:
		return int64(n.Restores)
	case Bytes:
		return n.Bytes
	}
	return 0
}

// Limits are a project's. store.ErrNotFound is no error: it has none.
func Limits(ctx context.Context, p *store.Project) (n Numbers, err error) {
	if err = p.Secret(ctx, secret, &n); errors.Is(err, store.ErrNotFound) {
		return Numbers{}, nil
	}
	if err != nil {
		return n, fmt.Errorf("read quota of project %s: %w", p.Name, err)
	}
	return n, nil
}

// Set gives a project other limits. With seen, those have to be its limits still, else
// store.ErrConflict says that another administrator set others meanwhile.
func Set(ctx context.Context, p *store.Project, act audit.Act, n Numbers, seen *Numbers) error {
	for _, k := range Kinds() {
		if n.Of(k) < 0 {
			return fmt.Errorf("set quota of project %s: %w: %d %s are not possible; 0 is no limit", p.Name, store.ErrRefused, n.Of(k), k)
		}
	}
	one, _ := taking.LoadOrStore(p.ID, new(sync.Mutex))
	if mutex, ok := one.(*sync.Mutex); ok {
		mutex.Lock()
		defer mutex.Unlock()
	}
	if seen != nil {
		is, err := Limits(ctx, p)
		if err != nil {
			return err
		}
		if is != *seen {
			return fmt.Errorf("set quota of project %s: %w: its limits are others by now: read them again and make the change there", p.Name, store.ErrConflict)
		}
	}
	return p.KeepSecret(ctx, act, secret, n)
}

// Used is what a project has now. Of its vault it is what the console read last.
func Used(ctx context.Context, p *store.Project, known *fleet.Snapshot, now time.Time) (Numbers, error) {
	var n Numbers
	for _, k := range Kinds() {
		used, err := count(ctx, p, k, known, now)
		if err != nil {
			return n, err
		}
		switch k {
		case Documents:
			n.Documents = int(used)
		case Agents:
			n.Agents = int(used)
		case Members:
			n.Members = int(used)
		case Tokens:
			n.Tokens = int(used)
		case Restores:
			n.Restores = int(used)
		case Bytes:
			n.Bytes = used
		}
	}
	return n, nil
}

// mostOpen is how many restores are looked at: more are not kept.
const mostOpen = 1000

func count(ctx context.Context, p *store.Project, k Kind, known *fleet.Snapshot, now time.Time) (n int64, err error) {
	switch k {
	case Documents:
		all, _, err := p.Documents(ctx, "", "")
		return int64(len(all)), err
	case Agents:
		all, err := p.Agents(ctx)
		return int64(len(all)), err
	case Members:
		all, err := p.Members(ctx)
		return int64(len(all)), err
	case Tokens:
		all, err := p.Tokens(ctx)
		for _, t := range all {
			if t.Revoked.IsZero() && now.Before(t.Expires) {
				n++
			}
		}
		return n, err
	case Restores:
		all, err := p.Restorations(ctx, "", mostOpen)
		for _, r := range all {
			asked := r.State != "" && now.Sub(r.At) < store.AskedAgain // later no site says how it ended: it may be lost
			if !r.Dry && !r.Over() && (asked || r.Open(now)) {
				n++
			}
		}
		return n, err
	case Bytes:
		if known == nil {
			return 0, nil
		}
		for _, a := range known.Applications {
			for _, point := range a.Points {
				n += point.Stored
			}
		}
	}
	return n, nil
}

// taking has one at a time count and take of a project, whoever holds its database.
var taking sync.Map // of *sync.Mutex, by the project's id

// Take does what takes one more of a kind, unless the project has all that it may have.
// The refusal says the use and the limit.
func Take(ctx context.Context, p *store.Project, k Kind, now time.Time, do func() error) error {
	return Weigh(ctx, p, k, now, func(full error) error {
		if full != nil {
			return full
		}
		return do()
	})
}

// Weigh is Take for what has to be refused for another reason first: do is told why there
// is no room.
func Weigh(ctx context.Context, p *store.Project, k Kind, now time.Time, do func(full error) error) error {
	limits, err := Limits(ctx, p)
	if err != nil {
		return err
	}
	if limits.Of(k) == 0 {
		return do(nil)
	}
	one, _ := taking.LoadOrStore(p.ID, new(sync.Mutex))
	if mutex, ok := one.(*sync.Mutex); ok {
		mutex.Lock()
		defer mutex.Unlock()
	}
	full := within(ctx, p, k, limits, nil, now)
	if full != nil && !errors.Is(full, store.ErrRefused) {
		return full
	}
	return do(full)
}

// Room refuses where the project's recovery points take more bytes than they may.
func Room(ctx context.Context, p *store.Project, known *fleet.Snapshot, now time.Time) error {
	limits, err := Limits(ctx, p)
	if err != nil || limits.Bytes == 0 {
		return err
	}
	return within(ctx, p, Bytes, limits, known, now)
}

func within(ctx context.Context, p *store.Project, k Kind, limits Numbers, known *fleet.Snapshot, now time.Time) error {
	used, err := count(ctx, p, k, known, now)
	if err != nil {
		return err
	}
	if used < limits.Of(k) {
		return nil
	}
	return fmt.Errorf("%w: the quota of project %s: it has %d %s, and may have %d: remove some, or ask an administrator of the console for more", store.ErrRefused, p.Name, used, k, limits.Of(k))
}
