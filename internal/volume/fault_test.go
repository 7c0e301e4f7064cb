package volume

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/retry"
)

// patience tries often and waits for nothing, so that what fails for good
// fails at once.
var patience = retry.Policy{Tries: 20, First: time.Microsecond, Max: time.Microsecond}

// TestBadStoreBehindRetry has a store refuse, lose the answers to writes that
// happened, and break off reads, in every phase of a volume's life.
func TestBadStoreBehindRetry(t *testing.T) {
	for name, faults := range map[string]fault.Faults{
		"503":          {Refuse: 0.3},
		"lost replies": {Lose: 0.4},
		"torn reads":   {Tear: 0.4},
		"all of them":  {Refuse: 0.15, Lose: 0.15, Tear: 0.15},
	} {
		t.Run(name, func(t *testing.T) {
			bad := fault.New(mem.New(nil), 7, faults)
			r := openTest(t, retry.New(bad, patience))
			root, target := t.TempDir(), t.TempDir()
			put(t, root+"/a", random(1, 100_000))
			put(t, root+"/d/b", random(2, 3<<20))
			first := write(t, r, root)
			put(t, root+"/d/c", random(3, 50_000))
			snap := write(t, r, root, func(o *WriteOptions) { o.Previous = &first })
			if err := r.Delete(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			leave := func(context.Context) error { return nil }
			if _, err := r.Maintain(t.Context(), MaintainOptions{Full: true, Guard: leave}); err != nil {
				t.Fatal(err)
			}
			if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
				t.Error(diff)
			}
			checkClean(t, r, snap)
			if bad.Count() == 0 {
				t.Error("nothing went wrong, so nothing was tested")
			}
		})
	}
}

// TestStalledStore has a store that never answers again: each call ends when
// the caller's time is up, and the repository works once the store does.
func TestStalledStore(t *testing.T) {
	bad := fault.New(mem.New(nil), 7, fault.Faults{})
	r := openTest(t, retry.New(bad, patience))
	root, target := t.TempDir(), t.TempDir()
	put(t, root+"/a", random(1, 3<<20))
	snap := write(t, r, root)
	put(t, root+"/b", random(2, 3<<20))
	for name, call := range map[string]func(context.Context) error{
		"write": func(ctx context.Context) error {
			_, err := r.Write(ctx, WriteOptions{Root: root, Source: source})
			return err
		},
		"read": func(ctx context.Context) error { return r.Read(ctx, snap, target, ReadOptions{}) },
		"verify": func(ctx context.Context) error {
			_, err := r.Verify(ctx, snap, VerifyOptions{ReadAll: true})
			return err
		},
		"verify blobs": func(ctx context.Context) error {
			_, err := r.VerifyBlobs(ctx, nil, VerifyOptions{})
			return err
		},
	} {
		bad.Set(fault.Faults{Stall: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := call(ctx)
		cancel()
		if !errors.Is(err, vault.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		bad.Set(fault.Faults{})
	}
	snap = write(t, r, root)
	if err := r.Read(t.Context(), snap, target, ReadOptions{Resume: true, DeleteExtra: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
		t.Error(diff)
	}
}

// readsBy is a store whose streams are changed on their way.
type readsBy struct {
	vault.Store
	change atomic.Pointer[func(key string, r io.Reader) io.Reader]
}

func (s *readsBy) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	rc, err := s.Store.Get(ctx, key, offset, length)
	change := s.change.Load()
	if err != nil || change == nil {
		return rc, err
	}
	return struct {
		io.Reader
		io.Closer
	}{(*change)(key, rc), rc}, nil
}

// TestShortReads restores from streams that give half of what is asked for,
// and refuses those that end early and call it the end.
func TestShortReads(t *testing.T) {
	s := &readsBy{Store: newTestStore()}
	r := openTest(t, s)
	root, target := t.TempDir(), t.TempDir()
	put(t, root+"/a", random(1, 40_000))
	put(t, root+"/d/b", random(2, 3<<20))
	snap := write(t, r, root)
	halves := func(_ string, src io.Reader) io.Reader { return iotest.HalfReader(src) }
	s.change.Store(&halves)
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
		t.Error(diff)
	}
	checkClean(t, r, snap)
	ends := func(key string, src io.Reader) io.Reader {
		if strings.HasPrefix(key, testPrefix+"p") {
			return io.LimitReader(src, 1000)
		}
		return src
	}
	s.change.Store(&ends)
	if err := r.Read(t.Context(), snap, t.TempDir(), ReadOptions{}); err == nil {
		t.Error("restored from streams that end early")
	}
	rep, err := r.VerifyBlobs(t.Context(), snap.Inventories, VerifyOptions{})
	if err != nil || !errors.Is(rep.Err(), ErrDamaged) {
		t.Errorf("verified blobs that end early: %+v, %v", rep, err)
	}
}
