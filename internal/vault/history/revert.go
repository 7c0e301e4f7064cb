package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/vault"
)

const (
	// parallel bounds what is brought back or freed at once.
	parallel = 8
	// maxBlob is more than any object of a vault has, in bytes.
	maxBlob = 1 << 30
)

// Reverting says what is to be brought back.
type Reverting struct {
	// To is the time, by the store's clock, to which it is.
	To time.Time
	// Project is whose, and Key opens it.
	Project string
	Key     vault.Identity
	// DryRun changes nothing.
	DryRun bool
}

// Reverted is what was brought back, or would be.
type Reverted struct {
	// Deleted and Overwritten count objects that came back after they had been
	// deleted and overwritten since.
	Deleted     int   `json:"deleted"`
	Overwritten int   `json:"overwritten"`
	Points      int   `json:"points"` // manifests among them
	Bytes       int64 `json:"bytes"`
	// FirstOverwritten is when something that is never replaced was overwritten
	// first, in all of the vault's past: whatever it was, it was not Davit, but
	// for a repair.
	FirstOverwritten time.Time `json:"firstOverwritten,omitzero"`
	// Since counts objects that were not there then. They stay.
	Since int `json:"since"`
}

// work is one object that is to come back.
type work struct {
	was     Version
	deleted bool // it is gone now
}

// Revert brings back what was overwritten or deleted after a time. What is new
// since then stays, and so does all that was there meanwhile, as a former
// version: Revert may be called again, with another time. Objects that Davit
// replaces or removes as it goes come back only where what is there now is not
// genuine.
func Revert(ctx context.Context, store vault.Store, how Reverting) (Reverted, error) {
	report, err := revert(ctx, store, how)
	if err != nil {
		return report, fmt.Errorf("bring %s back to %s: %w", store, how.To.UTC().Format(time.RFC3339), err)
	}
	return report, nil
}

func revert(ctx context.Context, store vault.Store, how Reverting) (Reverted, error) {
	keeper, err := keeperOf(store)
	if err != nil {
		return Reverted{}, err
	}
	// The vault as it was proves that time and key are the right ones.
	was, err := vault.OpenProject(ctx, newView(store, keeper, how.To), how.Project, how.Key)
	if err != nil {
		return Reverted{}, fmt.Errorf("open the vault as it was then: %w", err)
	}
	r := reverter{store: store, keeper: keeper, project: was, how: how}
	last := map[string]bool{} // the directories of manifests that come back
	err = r.pass(ctx, "", func(w work) bool {
		if !manifest(w.was.Key) {
			return true
		}
		r.report.Points++
		last[manifestsOf(w.was.Key)] = true
		return false
	})
	if err != nil || how.DryRun {
		return r.report, err
	}
	for _, prefix := range slices.Sorted(maps.Keys(last)) { // what makes points visible comes last
		again := reverter{store: store, keeper: keeper, project: was, how: how}
		if err := again.pass(ctx, prefix, func(w work) bool { return manifest(w.was.Key) }); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

type reverter struct {
	store   vault.Store
	keeper  Keeper
	project *vault.Project
	how     Reverting
	report  Reverted
	key     keyed
}

// keyed is what is known of the key that is looked at.
type keyed struct {
	now, was Version
	found    bool    // was is the version that it had then
	newer    Version // the one that was looked at before
}

// pass looks at all objects with a prefix, and brings back as it goes those that need
// it and are wanted.
func (r *reverter) pass(ctx context.Context, prefix string, wanted func(w work) bool) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	err := walk(ctx, r.keeper, prefix, visit{each: r.each, end: func(key string) error {
		w, needed, err := r.look(gctx, key)
		if err != nil || !needed || !wanted(w) || r.how.DryRun {
			return err
		}
		g.Go(func() error { return r.bringBack(gctx, w) })
		return gctx.Err()
	}})
	if groupErr := g.Wait(); groupErr != nil { // which ended the walk
		err = groupErr
	}
	return err
}

func (r *reverter) each(v Version, i int) error {
	k := &r.key
	if i == 0 {
		*k = keyed{now: v}
	} else if kind := kindOf(v.Key); kind != passing && kind != living {
		r.noteOverwritten(k.newer, v)
	}
	if !k.found && !v.Modified.After(r.how.To) {
		k.was, k.found = v, true
	}
	k.newer = v
	return nil
}

// look says whether an object has to come back.
func (r *reverter) look(ctx context.Context, key string) (work, bool, error) {
	k, now, was := kindOf(key), r.key.now, r.key.was
	if k == passing {
		return work{}, false, nil
	}
	existed := r.key.found && !was.Marker
	if k == decided && (!existed || now.ID != was.ID) {
		newest, found, err := r.newestGenuine(ctx, key)
		if err != nil {
			return work{}, false, err
		}
		if found {
			was, existed = newest, newest.ID != now.ID || existed
		}
	}
	if !existed {
		if !now.Marker {
			r.report.Since++
		}
		return work{}, false, nil
	}
	if now.ID == was.ID || !now.Marker && now.ETag != "" && now.ETag == was.ETag && now.Size == was.Size {
		return work{}, false, nil
	}
	if k == living {
		genuine, err := r.genuine(ctx, now)
		if err != nil || genuine {
			return work{}, false, err
		}
	}
	if now.Marker {
		r.report.Deleted++
	} else {
		r.report.Overwritten++
	}
	r.report.Bytes += was.Size
	return work{was, now.Marker}, true, nil
}

// noteOverwritten notes a version that took the place of another, if it is the first
// of all.
func (r *reverter) noteOverwritten(newer, older Version) {
	if older.Marker || newer.Marker || older.ETag == newer.ETag && older.Size == newer.Size {
		return
	}
	if first := &r.report.FirstOverwritten; first.IsZero() || newer.Modified.Before(*first) {
		*first = newer.Modified
	}
}

// newestGenuine is the newest version that the project's keys sealed: what was decided
// under a number last is what the sites go by, also where that was after the time to
// go back to. An epoch that vanishes makes two writers.
func (r *reverter) newestGenuine(ctx context.Context, key string) (genuine Version, found bool, err error) {
	err = walk(ctx, r.keeper, key, visit{each: func(v Version, _ int) error {
		if v.Key != key { // a longer one: those come later
			return errEnough
		}
		if v.Marker {
			return nil
		}
		opens, err := r.opens(ctx, v)
		if err == nil && opens {
			genuine, found, err = v, true, errEnough
		}
		return err
	}})
	return genuine, found, err
}

// genuine tells whether an object that is replaced by design is one that the
// project's keys sealed, and is left as it is. What says that somebody lives and is gone, whoever lives writes anew.
func (r *reverter) genuine(ctx context.Context, now Version) (bool, error) {
	if kinds[dir(now.Key)] == passing { // kopia seals its own: whoever overwrote it is unknown
		return false, nil
	}
	if now.Marker {
		return kinds[dir(now.Key)] == living, nil
	}
	return r.opens(ctx, now)
}

func (r *reverter) opens(ctx context.Context, v Version) (bool, error) {
	data, err := r.fetch(ctx, v)
	if err != nil {
		return false, err
	}
	_, err = r.project.Unseal(v.Key, data, maxBlob)
	if err != nil && !errors.Is(err, vault.ErrDamaged) && !errors.Is(err, vault.ErrKey) {
		return false, err
	}
	return err == nil, nil
}

func (r *reverter) fetch(ctx context.Context, v Version) (data []byte, err error) {
	err = again(ctx, func() error {
		data, err = r.read(ctx, v)
		return err
	})
	return data, err
}

func (r *reverter) read(ctx context.Context, v Version) ([]byte, error) {
	in, err := r.keeper.GetVersion(ctx, v.Key, v.ID, 0, -1)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(in, maxBlob+1))
	if err == nil && int64(len(data)) != v.Size {
		err = fmt.Errorf("read %s as it was: got %d of %d bytes: %w", v.Key, len(data), v.Size, vault.ErrUnavailable)
	}
	return data, err
}

func (r *reverter) bringBack(ctx context.Context, w work) error {
	data, err := r.fetch(ctx, w.was)
	if err != nil {
		return err
	}
	if w.deleted {
		err = r.store.PutIfAbsent(ctx, w.was.Key, bytes.NewReader(data), w.was.Size)
		if !errors.Is(err, vault.ErrExists) && !errors.Is(err, vault.ErrNotFound) {
			return err
		}
		// A living writer was first, or the server takes the mark of a deletion
		// for an object.
		if _, err = r.store.Stat(ctx, w.was.Key); !errors.Is(err, vault.ErrNotFound) {
			return err
		}
	}
	return r.store.Put(ctx, w.was.Key, bytes.NewReader(data), w.was.Size)
}
