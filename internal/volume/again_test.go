package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestASecondTryPutsWhatTheFirstHadNotFlushed: a first backup whose process
// dies shortly before its end costs what was stored since the index was last
// written, which happens every ten minutes: what an index names is listed in an
// inventory, and is not put again. The control is one that dies before those
// ten minutes: all of it is put again.
func TestASecondTryPutsWhatTheFirstHadNotFlushed(t *testing.T) {
	const total = 5 * maxPack
	root := t.TempDir()
	for i := range 40 {
		put(t, fmt.Sprintf("%s/f%d", root, i), random(uint64(100+i), total/40))
	}
	for _, slow := range []bool{true, false} {
		passes := 11 * time.Minute
		if !slow {
			passes = 0
		}
		dead, clock := diesNear(t, root, passes, total*8/10)
		before := dead.packed()
		r := openTest(t, dead, func(o *Options) { o.Now = clock })
		snap := write(t, r, root)
		part := float64(dead.packed()-before) / total
		if slow && part > 0.75 || !slow && part < 0.95 {
			t.Errorf("slow %t: the second try put %.0f %% of the data", slow, 100*part)
		}
		read, err := r.Verify(t.Context(), snap, VerifyOptions{ReadAll: true})
		blobs, berr := r.VerifyBlobs(t.Context(), snap.Inventories, VerifyOptions{})
		if err := errors.Join(err, berr, read.Err(), blobs.Err()); err != nil {
			t.Errorf("slow %t: %v", slow, err)
		}
	}
}

// packed is how many bytes of packs of data are stored.
func (s *testStore) packed() int {
	sum := 0
	for _, key := range s.keys(testPrefix + "p") {
		sum += len(s.object(key))
	}
	return sum
}

// diesNear writes a tree, and returns what the store held when so many bytes of
// packs were in it, as a process that died then left it. Once the first pack is
// there some time passes, if any; then it dies after it has written an index.
func diesNear(t *testing.T, root string, passes time.Duration, late int) (*testStore, func() time.Time) {
	t.Helper()
	var mu sync.Mutex
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return at
	}
	s := newTestStore()
	s.now = clock
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := openTest(t, s, func(o *Options) { o.Now = clock })
	var dead *testStore
	indexed := passes == 0
	var begun atomic.Int64
	s.setHook(func(op, key string) error {
		if op != "put" || !strings.HasPrefix(key, testPrefix+"p") {
			return nil
		}
		// One after the other: of packs that were put at once, none would be the last.
		for before := int(begun.Add(1)) - 1; len(s.keys(testPrefix+"p")) < before; {
			if err := ctx.Err(); err != nil {
				return err
			}
			time.Sleep(time.Millisecond) // between looks
		}
		stored := s.packed()
		mu.Lock()
		defer mu.Unlock()
		if stored > 0 {
			at, passes = at.Add(passes), 0
		}
		indexed = indexed || len(s.keys(testPrefix+IndexPrefix)) > 0
		if stored >= late && indexed && dead == nil {
			dead = newTestStore()
			s.mu.Lock()
			dead.objects, dead.times = maps.Clone(s.objects), maps.Clone(s.times)
			s.mu.Unlock()
			cancel()
		}
		return nil
	})
	if _, err := r.Write(ctx, WriteOptions{Root: root, Source: source}); !errors.Is(err, context.Canceled) || dead == nil {
		t.Fatalf("it was to die with %d bytes stored: %v", late, err)
	}
	s.setHook(nil)
	dead.now = clock
	return dead, clock
}
