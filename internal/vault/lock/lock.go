// Package lock keeps what a vault must not lose under the object lock of its
// store: which objects are locked, for how long, and extending the locks of
// what is kept. Who has the store's credentials, and not the right to lift
// locks, can then destroy no recovery point.
package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/vault"
)

// Mode is who may lift a lock before its time.
type Mode string

// The modes.
const (
	Governance Mode = "Governance" // whoever has the store's right to
	Compliance Mode = "Compliance" // nobody
)

// Policy says how objects are locked as they are written. The zero one does not.
type Policy struct {
	Mode Mode
	Days int
}

// On tells whether anything is locked.
func (p Policy) On() bool { return p.Mode != "" && p.Days > 0 }

// Span is for how long an object is locked, from its writing or its last
// extension: a quarter more than the days that are promised, for an extension
// comes only now and then.
func (p Policy) Span() time.Duration { return time.Duration(p.Days) * 24 * time.Hour * 5 / 4 }

// Every is how often locks are extended.
func (p Policy) Every() time.Duration { return p.Span() / 10 }

// Locker is a store whose objects can be locked.
type Locker interface {
	// CheckLock says why the bucket cannot lock objects, or nil.
	CheckLock(ctx context.Context) error
	// Lock locks an object, or prolongs its lock. It never shortens one.
	Lock(ctx context.Context, key string, mode Mode, until time.Time) error
	// LockedUntil is when an object's lock ends; zero for one without.
	LockedUntil(ctx context.Context, key string) (time.Time, error)
}

// Of finds the store that locks below its decorators.
func Of(store vault.Store) (Locker, bool) {
	for store != nil {
		if l, ok := store.(Locker); ok {
			return l, true
		}
		below, ok := store.(interface{ Unwrap() vault.Store })
		if !ok {
			return nil, false
		}
		store = below.Unwrap()
	}
	return nil, false
}

// Covers tells whether an object is locked: what is written once, and the blobs
// of volumes that kopia never replaces. What says that somebody lives, what
// only waits to be taken back, and what is removed by design is not.
func Covers(key string) bool {
	if key == "davit.json" || key == "copy.json" || key == "promotion.json" {
		return true
	}
	parts := strings.Split(key, "/")
	if len(parts) < 3 || parts[0] != "projects" {
		return false
	}
	last := parts[len(parts)-1]
	switch parts[2] {
	case "project.json", "keyring", "keys", "manifests", "epochs", "moved", "apps", "runs":
		return true
	case "objects":
		return last != "begin"
	case "marks":
		kind, _, _ := strings.Cut(last, "-")
		return kind != string(vault.MarkDeleting) && kind != string(vault.MarkUndeleted)
	case "volumes":
		return len(parts) == 5 && (strings.HasSuffix(parts[3], "-inventory") || last == "kopia.repository" || last != "" && strings.ContainsRune("pqx", rune(last[0])))
	}
	return false
}

// parallel bounds the extensions under way.
const parallel = 8

// Report is what a pass did.
type Report struct {
	Objects int
	// Until is when the locks of what is kept end.
	Until time.Time
}

// Extend prolongs the locks of everything that is kept: the points that are not
// on their way out, the volumes' repositories that they need, and what belongs
// to no point. One that the store refuses keeps no other from it; an answer that does not come
// ends the pass. store is the project's own, as a second copy's project is for
// reading only. Any site may do it for all, at any time.
func Extend(ctx context.Context, p *vault.Project, store vault.Store, policy Policy, now time.Time) (Report, error) {
	report := Report{Until: now.Add(policy.Span()).UTC().Truncate(time.Second)}
	locker, ok := Of(store)
	if !ok {
		return report, errors.New("extend locks: the store cannot lock objects")
	}
	prefixes, err := kept(ctx, p)
	if err != nil {
		return report, fmt.Errorf("extend locks: %w", err)
	}
	keys := map[string]bool{}
	for _, prefix := range prefixes {
		err := p.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
			if Covers(o.Key) {
				keys[o.Key] = true
			}
			return nil
		})
		if err != nil {
			return report, fmt.Errorf("extend locks: %w", err)
		}
	}
	var refused atomic.Int64
	var first atomic.Pointer[error]
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for key := range keys {
		g.Go(func() error {
			err := locker.Lock(gctx, key, policy.Mode, report.Until)
			if err == nil || errors.Is(err, vault.ErrNotFound) { // gone since
				return nil
			}
			if gctx.Err() != nil || errors.Is(err, vault.ErrUnavailable) {
				return err
			}
			refused.Add(1)
			first.CompareAndSwap(nil, &err)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return report, fmt.Errorf("extend locks: %w", err)
	}
	if report.Objects = len(keys) - int(refused.Load()); refused.Load() > 0 {
		return report, fmt.Errorf("extend locks: of %d objects, %d were refused, the others are prolonged: %w", len(keys), refused.Load(), *first.Load())
	}
	return report, nil
}

// kept are the prefixes under which everything is kept.
func kept(ctx context.Context, p *vault.Project) ([]string, error) {
	root := p.Root()
	all := []string{"davit.json", "copy.json", "promotion.json", root + "project.json", root + "keyring/", root + "keys/", root + "epochs/", root + "moved/", root + "apps/", root + "runs/"}
	apps, err := p.Apps(ctx)
	if err != nil {
		return nil, err
	}
	repositories := map[string]bool{}
	for _, app := range apps {
		infos, err := p.Points(ctx, app)
		if err != nil {
			return nil, err
		}
		for _, info := range infos {
			if info.Deleting() {
				continue
			}
			for _, kind := range []string{"objects/", "marks/"} {
				all = append(all, root+kind+app+"/"+info.ID+"/")
			}
			all = append(all, root+"manifests/"+app+"/"+info.ID)
			if info.Manifest == nil { // it may need any
				continue
			}
			for _, v := range info.Manifest.Volumes {
				repositories[v.Snapshot.Repository] = true
			}
		}
	}
	for name := range repositories {
		prefix := p.VolumePrefix(name)
		all = append(all, prefix, strings.TrimSuffix(prefix, "/")+"-inventory/")
	}
	slices.Sort(all)
	return all, nil
}
