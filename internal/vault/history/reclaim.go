package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/vault"
)

// Reclaimed is what was freed, or would be.
type Reclaimed struct {
	Versions int   `json:"versions"`
	Bytes    int64 `json:"bytes"`
	// Points counts recovery points among them: their manifests were deleted.
	Points int `json:"points"`
	// Overwritten counts former versions of what is never replaced, and of what
	// Davit never deletes. Something or somebody hid them, and they stay until it
	// is known which of the versions is the right one.
	Overwritten int `json:"overwritten"`
	// Refused counts versions that the store did not let go, as they are
	// locked; they go in a later run.
	Refused int `json:"refused,omitempty"`
}

// Reclaim destroys former versions that have been hidden since before a time.
// It never touches what is visible, and no former version of an object that is
// there and never replaced: that one was overwritten by somebody.
func Reclaim(ctx context.Context, store vault.Store, before time.Time, dryRun bool) (Reclaimed, error) {
	report, err := reclaim(ctx, store, before, dryRun)
	if err != nil {
		return report, fmt.Errorf("free former versions in %s: %w", store, err)
	}
	return report, nil
}

func reclaim(ctx context.Context, store vault.Store, before time.Time, dryRun bool) (Reclaimed, error) {
	keeper, objects, err := read(ctx, store)
	if err != nil {
		return Reclaimed{}, err
	}
	var report Reclaimed
	var doomed [][]Version
	for _, o := range objects {
		if gone := report.look(o, before); len(gone) > 0 {
			doomed = append(doomed, gone)
		}
	}
	if dryRun {
		return report, nil
	}
	f := freer{keeper: keeper}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, versions := range doomed {
		g.Go(func() error { return f.free(gctx, versions) })
	}
	err = g.Wait()
	report.Refused = f.refused
	if err == nil && f.refused > 0 && f.freed == 0 {
		err = fmt.Errorf("nothing was freed: %w", f.denied)
	}
	return report, err
}

// freer destroys versions.
type freer struct {
	keeper Keeper

	mu             sync.Mutex
	freed, refused int
	denied         error // the last refusal
}

// free destroys versions of one object, the oldest first: not every server
// takes two of one at once. A mark that hides them goes after all of them, and not
// while one is left: without it the object would be there again.
func (f *freer) free(ctx context.Context, versions []Version) error {
	left := false
	for _, v := range slices.Backward(versions) {
		if v.Latest && left {
			return nil
		}
		err := again(ctx, func() error { return f.keeper.DeleteVersion(ctx, v.Key, v.ID) })
		denied := errors.Is(err, vault.ErrDenied)
		if err != nil && !denied {
			return err
		}
		f.mu.Lock()
		left = left || denied
		if denied {
			f.refused++
			f.denied = err
		} else {
			f.freed++
		}
		f.mu.Unlock()
	}
	return nil
}

// again tries what the store did not answer a few times more: nothing below
// does that for versions.
func again(ctx context.Context, try func() error) error {
	pause := 50 * time.Millisecond
	for range 5 {
		if err := try(); !errors.Is(err, vault.ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause *= 2
	}
	return try()
}

// look counts what of an object goes, and returns it, the newest first.
func (r *Reclaimed) look(o object, before time.Time) []Version {
	gone := o.versions[0].Marker
	var doomed []Version
	for i, v := range o.versions {
		old := i > 0 && o.hidden(i).Before(before)
		switch {
		case !old:
		case (!gone && kindOf(o.key) >= decided || neverDeleted(o.key)) && !v.Marker:
			r.Overwritten++
		default:
			doomed = append(doomed, v)
			r.Versions++
			r.Bytes += v.Size
			if manifest(o.key) && !v.Marker {
				r.Points++
			}
		}
	}
	// A mark that hides nothing any more goes with what it hid.
	if gone && len(doomed) == len(o.versions)-1 && o.versions[0].Modified.Before(before) {
		doomed = slices.Insert(doomed, 0, o.versions[0])
	}
	return doomed
}

// neverDeleted tells whether Davit deletes such an object never: a mark on it is
// somebody else's.
func neverDeleted(key string) bool { return kindOf(key) == decided || dir(key) == "keyring" }

// dir is a key's kind of directory in its project.
func dir(key string) string {
	parts := strings.SplitN(key, "/", 4)
	if len(parts) < 4 {
		return ""
	}
	return parts[2]
}
