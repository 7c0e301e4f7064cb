package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// listing is a store of which only the listing of versions counts.
type listing struct {
	vault.Store
	list    func(fn func(Version) error) error
	destroy func(key, id string) error
}

func (l listing) KeepsVersions(context.Context) (bool, error) { return true, nil }
func (l listing) SetVersions(context.Context) error           { return vault.ErrDenied }
func (l listing) RewritePolicy(context.Context) error         { return vault.ErrDenied }

func (l listing) ListVersions(_ context.Context, prefix string, fn func(Version) error) error {
	return l.list(func(v Version) error {
		if !strings.HasPrefix(v.Key, prefix) {
			return nil
		}
		return fn(v)
	})
}

func (l listing) GetVersion(context.Context, string, string, int64, int64) (io.ReadCloser, error) {
	return nil, vault.ErrNotFound
}

func (l listing) DeleteVersion(_ context.Context, key, id string) error { return l.destroy(key, id) }

var begun = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// sample are versions of so many keys, in order.
func sample(keys, each int) (all []Version) {
	for k := range keys {
		for i := range each {
			all = append(all, Version{Key: fmt.Sprintf("k%06d", k), ID: fmt.Sprint(i), Modified: begun.Add(-time.Duration(i) * time.Minute), Latest: i == 0, Marker: (k+i)%3 == 0})
		}
	}
	return all
}

// from lists versions, as they are.
func from(all []Version) func(fn func(Version) error) error {
	return func(fn func(Version) error) error {
		for _, v := range all {
			if err := fn(v); err != nil {
				return err
			}
		}
		return nil
	}
}

// visited is what a walk sees; where it begins again, from then on.
func visited(t *testing.T, k Keeper) (seen []Version) {
	t.Helper()
	last := ""
	var of []Version
	err := walk(t.Context(), k, "", visit{
		each: func(v Version, i int) error {
			if i == 0 {
				of = nil
			}
			if i != len(of) {
				t.Fatalf("%s: version %d comes after %d", v.Key, i, len(of))
			}
			of = append(of, v)
			return nil
		},
		end: func(key string) error {
			if key <= last { // it was begun again
				seen = nil
			}
			if of[0].Key != key {
				t.Errorf("%s ends, and %s was visited", key, of[0].Key)
			}
			last, seen = key, append(seen, of...)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// Versions are visited in order, whether the marks of a page come after its versions,
// the listing breaks off, or is in no order at all.
func TestWalkInOrder(t *testing.T) {
	want := sample(3000, 3)
	paged := slices.Clone(want)
	for page := range slices.Chunk(paged, 1000) {
		slices.SortStableFunc(page, func(a, b Version) int { return cmp.Compare(fmt.Sprint(a.Marker), fmt.Sprint(b.Marker)) })
	}
	mixed := slices.Clone(want)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	broken := 0
	for name, list := range map[string]func(fn func(Version) error) error{
		"in order": from(want), "pages with marks last": from(paged), "in no order": from(mixed),
		"broken off": func(fn func(Version) error) error {
			broken++
			if broken < 3 {
				if err := from(want[:len(want)*broken/4])(fn); err != nil {
					return err
				}
				return vault.ErrUnavailable
			}
			return from(want)(fn)
		},
	} {
		got := visited(t, listing{list: list})
		if !slices.Equal(got, want) {
			t.Errorf("%s: it is not what is there, in order: %d versions of %d", name, len(got), len(want))
		}
	}
	if broken != 3 {
		t.Errorf("it was listed %d times", broken)
	}
}

// A walk ends with what a visit says, and does not take that for the store's fault.
func TestWalkEnds(t *testing.T) {
	n, fault := 0, fmt.Errorf("no: %w", vault.ErrUnavailable)
	k := listing{list: func(fn func(Version) error) error { n++; return from(sample(3, 2))(fn) }}
	if err := walk(t.Context(), k, "", visit{each: func(Version, int) error { return fault }}); !errors.Is(err, fault) || n != 1 {
		t.Errorf("%v after %d listings", err, n)
	}
	if err := walk(t.Context(), k, "", visit{each: func(Version, int) error { return errEnough }}); err != nil || n != 2 {
		t.Errorf("%v after %d listings", err, n)
	}
}

// heap is what is retained now.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// retained is a listing of so many versions that are made as they are listed, and notes
// the most that is retained meanwhile.
func retained(n, each int, most *int64) func(fn func(Version) error) error {
	return func(fn func(Version) error) error {
		before := heap()
		for i := range n {
			v := Version{
				Key: fmt.Sprintf("projects/default/reports/run-%09d", i/each), ID: fmt.Sprint(i), Size: 100, ETag: fmt.Sprintf("%032d", i),
				Modified: begun.Add(-time.Duration(i%each) * time.Second), Latest: i%each == 0, Marker: i%each == 0,
			}
			if err := fn(v); err != nil {
				return err
			}
			if i%(n/4) == n/4-1 {
				*most = max(*most, heap()-before)
			}
		}
		return nil
	}
}

// However many versions a bucket has, of many keys or of one, only some are held in
// memory to bring back what was there and to free what is hidden.
func TestMemoryIsBounded(t *testing.T) {
	n, bound := 40_000, int64(4<<20) // all of them would take about 10 MiB
	if os.Getenv("DAVIT_SOAK") != "" {
		n = 1_000_000
	}
	for name, each := range map[string]int{"two of each key": 2, "all of one key": n} {
		var most int64
		freed := 0
		k := listing{Store: mem.New(nil), list: retained(n, each, &most), destroy: func(string, string) error { return nil }}
		f := &sweep{before: begun.Add(time.Hour), free: func(v []Version, _ bool) (bool, error) { freed += len(v); return false, nil }}
		if err := walk(t.Context(), k, "", visit{each: f.each, end: f.end}); err != nil || freed != n {
			t.Errorf("%s: %d of %d versions are freed, %v", name, freed, n, err)
		}
		if most > bound {
			t.Errorf("%s: %d MiB are held to free %d versions", name, most>>20, n)
		}
		most = 0
		r := &reverter{store: k, keeper: k, how: Reverting{To: begun.Add(-time.Second / 2), DryRun: true}}
		if err := r.pass(t.Context(), "", func(work) bool { return true }); err != nil || r.report.Deleted != n/each {
			t.Errorf("%s: %d objects would come back, %v", name, r.report.Deleted, err)
		}
		if most > bound {
			t.Errorf("%s: %d MiB are held to bring back %d objects", name, most>>20, n/each)
		}
	}
}
