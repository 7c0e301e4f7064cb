package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	keeper, objects, err := read(ctx, store)
	if err != nil {
		return Reverted{}, err
	}
	// The vault as it was proves that time and key are the right ones.
	was, err := vault.OpenProject(ctx, newView(store, keeper, objects, how.To), how.Project, how.Key)
	if err != nil {
		return Reverted{}, fmt.Errorf("open the vault as it was then: %w", err)
	}
	r := reverter{store: store, keeper: keeper, project: was, how: how}
	var first, last []work
	for _, o := range objects {
		w, needed, err := r.look(ctx, o)
		switch {
		case err != nil:
			return r.report, err
		case needed && manifest(o.key):
			last = append(last, w)
		case needed:
			first = append(first, w)
		}
	}
	r.report.Points = len(last)
	if how.DryRun {
		return r.report, nil
	}
	return r.report, r.carryOut(ctx, first, last)
}

type reverter struct {
	store   vault.Store
	keeper  Keeper
	project *vault.Project
	how     Reverting
	report  Reverted
}

// look says whether an object has to come back.
func (r *reverter) look(ctx context.Context, o object) (work, bool, error) {
	k, now := kindOf(o.key), o.versions[0]
	if k == passing {
		return work{}, false, nil
	}
	if k != living {
		r.noteOverwritten(o)
	}
	was, existed := o.at(r.how.To)
	if k == decided && (!existed || now.ID != was.ID) {
		newest, found, err := r.newestGenuine(ctx, o)
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

// noteOverwritten finds the first version that took the place of another.
func (r *reverter) noteOverwritten(o object) {
	for i := len(o.versions) - 1; i > 0; i-- {
		older, newer := o.versions[i], o.versions[i-1]
		if older.Marker || newer.Marker || older.ETag == newer.ETag && older.Size == newer.Size {
			continue
		}
		if first := &r.report.FirstOverwritten; first.IsZero() || newer.Modified.Before(*first) {
			*first = newer.Modified
		}
		return
	}
}

// newestGenuine is the newest version that the project's keys sealed: what was decided
// under a number last is what the sites go by, also where that was after the time to
// go back to. An epoch that vanishes makes two writers.
func (r *reverter) newestGenuine(ctx context.Context, o object) (Version, bool, error) {
	for _, v := range o.versions {
		if v.Marker {
			continue
		}
		if opens, err := r.opens(ctx, v); err != nil || opens {
			return v, opens, err
		}
	}
	return Version{}, false, nil
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

// carryOut brings objects back, what makes points visible last.
func (r *reverter) carryOut(ctx context.Context, passes ...[]work) error {
	for _, pass := range passes {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(parallel)
		for _, w := range pass {
			g.Go(func() error { return r.bringBack(gctx, w) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
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
