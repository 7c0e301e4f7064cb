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
	keeper, err := keeperOf(store)
	if err != nil {
		return Reclaimed{}, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	f := &freer{keeper: keeper}
	s := &sweep{before: before}
	s.free = func(versions []Version, more bool) (left bool, err error) {
		switch {
		case dryRun:
		case more: // not every server takes two versions of one key at once
			return f.free(gctx, versions)
		default:
			g.Go(func() error {
				_, err := f.free(gctx, versions)
				return err
			})
		}
		return false, gctx.Err()
	}
	err = walk(ctx, keeper, "", visit{each: s.each, end: s.end})
	if groupErr := g.Wait(); groupErr != nil { // which ended the walk
		err = groupErr
	}
	report := s.report
	report.Refused = f.refused
	if err == nil && report.Refused > 0 && f.freed == 0 {
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
func (f *freer) free(ctx context.Context, versions []Version) (left bool, err error) {
	for _, v := range slices.Backward(versions) {
		if v.Latest && left {
			return left, nil
		}
		err := again(ctx, func() error { return f.keeper.DeleteVersion(ctx, v.Key, v.ID) })
		denied := errors.Is(err, vault.ErrDenied)
		if err != nil && !denied {
			return left, err
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
	return left, nil
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

// chunk is how many versions of one key are freed at once.
const chunk = 1000

// sweep finds what is to be freed. It remembers a chunk of one key.
type sweep struct {
	before time.Time
	report Reclaimed
	// free has versions of one key destroyed; with more, before it returns, and it tells
	// whether some are left.
	free func(versions []Version, more bool) (left bool, err error)

	newest Version   // of the key that is looked at
	hidden time.Time // since when the next version is
	stays  bool      // something beside newest
	doomed []Version // the newest first
	going  Reclaimed // what doomed comes to
}

func (s *sweep) each(v Version, i int) error {
	if i == 0 { // what was counted of a key of which the listing broke off is counted anew
		s.newest, s.hidden, s.stays, s.doomed, s.going = v, v.Modified, false, nil, Reclaimed{}
		return nil
	}
	old := s.hidden.Before(s.before)
	s.hidden = v.Modified
	switch {
	case !old:
		s.stays = true
		return nil
	case (!s.newest.Marker && kindOf(v.Key) >= decided || neverDeleted(v.Key)) && !v.Marker:
		s.stays = true
		s.going.Overwritten++
		return nil
	}
	s.doomed = append(s.doomed, v)
	s.going.Versions++
	s.going.Bytes += v.Size
	if manifest(v.Key) && !v.Marker {
		s.going.Points++
	}
	if len(s.doomed) < chunk {
		return nil
	}
	left, err := s.part(true)
	s.stays = s.stays || left
	return err
}

// part has what is doomed destroyed, and counts it.
func (s *sweep) part(more bool) (left bool, err error) {
	s.report.Versions += s.going.Versions
	s.report.Bytes += s.going.Bytes
	s.report.Points += s.going.Points
	s.report.Overwritten += s.going.Overwritten
	doomed := s.doomed
	s.doomed, s.going = nil, Reclaimed{}
	if len(doomed) == 0 {
		return false, nil
	}
	return s.free(doomed, more)
}

func (s *sweep) end(string) error {
	// A mark that hides nothing any more goes with what it hid.
	if s.newest.Marker && !s.stays && s.newest.Modified.Before(s.before) {
		s.doomed = append([]Version{s.newest}, s.doomed...)
	}
	_, err := s.part(false)
	return err
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
