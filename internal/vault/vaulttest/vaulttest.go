// Package vaulttest holds what every store must do, as one suite of tests that
// runs against all backends and decorators.
package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"davit.dev/davit/internal/vault"
)

// Run tests a store. Each call of open returns an empty one.
func Run(t *testing.T, open func(t *testing.T) vault.Store) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, s vault.Store)
	}{
		{"RoundTrip", testRoundTrip},
		{"Ranges", testRanges},
		{"Missing", testMissing},
		{"Replace", testReplace},
		{"PutIfAbsent", testPutIfAbsent},
		{"PutIfAbsentRace", testRace},
		{"WrongSize", testWrongSize},
		{"Rewinds", testRewinds},
		{"List", testList},
		{"ListStops", testListStops},
		{"Delete", testDelete},
		{"Keys", testKeys},
		{"ReplaceIsAtomic", testAtomic},
		{"DeleteBesidePut", testDeleteBesidePut},
		{"Canceled", testCanceled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func put(t *testing.T, s vault.Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(data), int64(len(data))); err != nil {
		t.Fatalf("Put(%s): %v", key, err)
	}
}

func get(t *testing.T, s vault.Store, key string, offset, length int64) string {
	t.Helper()
	r, err := s.Get(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("Get(%s): %v", key, err)
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatalf("Get(%s): read: %v", key, err)
	}
	return string(data)
}

func keys(t *testing.T, s vault.Store, prefix string) []string {
	t.Helper()
	var all []string
	err := s.List(t.Context(), prefix, func(o vault.ObjectInfo) error {
		all = append(all, o.Key)
		return nil
	})
	if err != nil {
		t.Fatalf("List(%q): %v", prefix, err)
	}
	return all
}

func testRoundTrip(t *testing.T, s vault.Store) {
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 1, 1000, 64 << 10, 5<<20 + 1} {
		data := make([]byte, size)
		_, _ = random.Read(data)
		key := fmt.Sprintf("sizes/%d", size)
		before := time.Now()
		if err := s.Put(t.Context(), key, bytes.NewReader(data), int64(size)); err != nil {
			t.Fatalf("Put of %d bytes: %v", size, err)
		}
		if got := get(t, s, key, 0, -1); got != string(data) {
			t.Errorf("%d bytes came back as %d others", size, len(got))
		}
		info, err := s.Stat(t.Context(), key)
		if err != nil || info.Size != int64(size) || info.Key != key {
			t.Errorf("Stat = %+v, %v; want size %d", info, err, size)
		}
		if skew := info.Modified.Sub(before).Abs(); skew > time.Minute {
			t.Errorf("Modified is %v from now", skew)
		}
	}
	if s.String() == "" {
		t.Error("String() is empty")
	}
}

func testRanges(t *testing.T, s vault.Store) {
	put(t, s, "range", "0123456789")
	tests := []struct {
		offset, length int64
		want           string
	}{
		{0, -1, "0123456789"},
		{0, 10, "0123456789"},
		{0, 1, "0"},
		{0, 0, ""},
		{3, 0, ""},
		{3, 4, "3456"},
		{3, -1, "3456789"},
		{9, 1, "9"},
		{8, 100, "89"},
		{10, -1, ""},
		{10, 5, ""},
		{99, -1, ""},
	}
	for _, test := range tests {
		if got := get(t, s, "range", test.offset, test.length); got != test.want {
			t.Errorf("Get(%d, %d) = %q, want %q", test.offset, test.length, got, test.want)
		}
	}
}

func testMissing(t *testing.T, s vault.Store) {
	put(t, s, "there/object", "x")
	for _, key := range []string{"missing", "there/missing", "there", "there/object/below"} {
		for _, length := range []int64{-1, 0, 5} {
			if r, err := s.Get(t.Context(), key, 0, length); !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("Get(%s, 0, %d) = %v, %v; want ErrNotFound", key, length, r, err)
			}
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("Stat(%s) = %v, want ErrNotFound", key, err)
		}
	}
}

func testReplace(t *testing.T, s vault.Store) {
	put(t, s, "a/b", "the first, longer one")
	put(t, s, "a/b", "second")
	if got := get(t, s, "a/b", 0, -1); got != "second" {
		t.Errorf("got %q after replacing", got)
	}
}

func testPutIfAbsent(t *testing.T, s vault.Store) {
	if err := s.PutIfAbsent(t.Context(), "once", strings.NewReader("first"), 5); err != nil {
		t.Fatalf("PutIfAbsent on a free key: %v", err)
	}
	if err := s.PutIfAbsent(t.Context(), "once", strings.NewReader("other"), 5); !errors.Is(err, vault.ErrExists) {
		t.Errorf("PutIfAbsent on a taken key = %v, want ErrExists", err)
	}
	if got := get(t, s, "once", 0, -1); got != "first" {
		t.Errorf("the object became %q", got)
	}
	if err := s.Delete(t.Context(), "once"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutIfAbsent(t.Context(), "once", strings.NewReader("again"), 5); err != nil {
		t.Errorf("PutIfAbsent after Delete: %v", err)
	}
}

// testRace lets 50 callers race for one key, several times.
func testRace(t *testing.T, s vault.Store) {
	for round := range 4 {
		key := fmt.Sprintf("race/%d", round)
		var won atomic.Int64
		winners := make([]string, 50)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range winners {
			wg.Go(func() {
				<-start
				data := fmt.Sprintf("caller %d", i)
				err := s.PutIfAbsent(t.Context(), key, strings.NewReader(data), int64(len(data)))
				switch {
				case err == nil:
					won.Add(1)
					winners[i] = data
				case !errors.Is(err, vault.ErrExists):
					t.Errorf("PutIfAbsent: %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d: %d winners", round, won.Load())
		}
		if got := get(t, s, key, 0, -1); !slices.Contains(winners, got) {
			t.Errorf("round %d: the object is %q, not the winner's", round, got)
		}
	}
}

func testWrongSize(t *testing.T, s vault.Store) {
	for _, size := range []int64{2, 4} {
		if err := s.Put(t.Context(), "short", strings.NewReader("abc"), size); err == nil {
			t.Errorf("Put of 3 bytes as %d succeeded", size)
		}
		if err := s.PutIfAbsent(t.Context(), "short", strings.NewReader("abc"), size); err == nil {
			t.Errorf("PutIfAbsent of 3 bytes as %d succeeded", size)
		}
	}
	if _, err := s.Stat(t.Context(), "short"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("Stat = %v, want ErrNotFound", err)
	}
}

// testRewinds hands over a reader that stands at its end.
func testRewinds(t *testing.T, s vault.Store) {
	r := strings.NewReader("whole")
	_, _ = io.Copy(io.Discard, r)
	if err := s.Put(t.Context(), "rewound", r, 5); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, "rewound", 0, -1); got != "whole" {
		t.Errorf("got %q", got)
	}
}

func testList(t *testing.T, s vault.Store) {
	want := []string{"a", "b-c/x", "b.c/x", "b/1", "b/10", "b/2", "b/c-d", "b/c/d", "b/c/e/f", "b0", "c/x"}
	for _, i := range rand.Perm(len(want)) {
		put(t, s, want[i], want[i])
	}
	if !slices.IsSorted(want) {
		t.Fatal("the test's own list is not in byte order")
	}
	for _, prefix := range []string{"", "a", "b", "b/", "b/1", "b/c", "b/c/", "b-", "b/c/e/f", "nothing", "b/c/e/f/", "c/x/"} {
		matching := slices.DeleteFunc(slices.Clone(want), func(key string) bool { return !strings.HasPrefix(key, prefix) })
		if diff := cmp.Diff(matching, keys(t, s, prefix), cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) })); diff != "" && len(matching) > 0 {
			t.Errorf("List(%q) (-want +got):\n%s", prefix, diff)
		}
	}
	err := s.List(t.Context(), "", func(o vault.ObjectInfo) error {
		if o.Size != int64(len(o.Key)) || o.Modified.IsZero() {
			return fmt.Errorf("object %+v", o)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func testListStops(t *testing.T, s vault.Store) {
	for i := range 5 {
		put(t, s, fmt.Sprintf("stop/%d", i), "x")
	}
	stop := fmt.Errorf("enough: %w", vault.ErrUnavailable) // must not be taken for the store's own
	calls := 0
	err := s.List(t.Context(), "stop/", func(vault.ObjectInfo) error {
		calls++
		if calls == 2 {
			return stop
		}
		return nil
	})
	if err != stop || calls != 2 { //nolint:errorlint // the very error
		t.Errorf("List = %v after %d calls, want fn's error after 2", err, calls)
	}
}

func testDelete(t *testing.T, s vault.Store) {
	put(t, s, "d/e/f", "x")
	put(t, s, "d/e/g", "x")
	for _, key := range []string{"d/e/f", "d/e/f", "never/there", "d/e", "d"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%s): %v", key, err)
		}
	}
	if diff := cmp.Diff([]string{"d/e/g"}, keys(t, s, "")); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	put(t, s, "d/e/f", "back")
	if got := get(t, s, "d/e/f", 0, -1); got != "back" {
		t.Errorf("got %q", got)
	}
}

func testKeys(t *testing.T, s vault.Store) {
	element := strings.Repeat("n", 200)
	long := strings.Join([]string{element, element, element, element, strings.Repeat("l", 96)}, "/")
	for _, key := range []string{"a+b/c=d&e", "with:colon", "100%25", "(x)~_!*'", "#?", long} {
		put(t, s, key, "value of "+key)
		if got := get(t, s, key, 0, -1); got != "value of "+key {
			t.Errorf("%s holds %q", key, got)
		}
		if got := keys(t, s, key); !slices.Equal(got, []string{key}) {
			t.Errorf("List(%s) = %q", key, got)
		}
	}
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a/.", "sp ace", "ta\tb", "é", "back\\slash", long + "x"} {
		if err := s.Put(t.Context(), key, strings.NewReader("x"), 1); !errors.Is(err, vault.ErrName) {
			t.Errorf("Put(%q) = %v, want ErrName", key, err)
		}
		if _, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, vault.ErrName) {
			t.Errorf("Get(%q) = %v, want ErrName", key, err)
		}
		if err := s.Delete(t.Context(), key); !errors.Is(err, vault.ErrName) {
			t.Errorf("Delete(%q) = %v, want ErrName", key, err)
		}
	}
}

// testAtomic reads while an object is replaced over and over.
func testAtomic(t *testing.T, s vault.Store) {
	versions := []string{strings.Repeat("a", 200_000), strings.Repeat("b", 100_000)}
	put(t, s, "atomic", versions[0])
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		for i := range 20 {
			data := versions[i%2]
			if err := s.Put(t.Context(), "atomic", strings.NewReader(data), int64(len(data))); err != nil {
				t.Errorf("Put: %v", err)
			}
		}
	})
	defer wg.Wait()
	for !done.Load() {
		r, err := s.Get(t.Context(), "atomic", 0, -1)
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		got, err := io.ReadAll(r)
		_ = r.Close()
		if err == nil && !slices.Contains(versions, string(got)) {
			t.Fatalf("read a mixture of %d bytes", len(got))
		}
		if err != nil && !errors.Is(err, vault.ErrUnavailable) { // a reader may say that it lost the race
			t.Fatalf("read: %v", err)
		}
	}
}

// testDeleteBesidePut writes into a place that is emptied at the same time.
func testDeleteBesidePut(t *testing.T, s vault.Store) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			key := fmt.Sprintf("shared/dir/%d", worker)
			for range 15 {
				if err := s.Put(t.Context(), key, strings.NewReader("x"), 1); err != nil {
					t.Errorf("Put: %v", err)
				}
				if err := s.Delete(t.Context(), key); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if left := keys(t, s, ""); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func testCanceled(t *testing.T, s vault.Store) {
	put(t, s, "c", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := s.Get(ctx, "c", 0, -1)
	_, statErr := s.Stat(ctx, "c")
	for name, err := range map[string]error{
		"Get": getErr, "Stat": statErr,
		"Put":         s.Put(ctx, "c", strings.NewReader("y"), 1),
		"PutIfAbsent": s.PutIfAbsent(ctx, "d", strings.NewReader("y"), 1),
		"List":        s.List(ctx, "", func(vault.ObjectInfo) error { return nil }),
		"Delete":      s.Delete(ctx, "c"),
	} {
		if !errors.Is(err, vault.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want ErrUnavailable and context.Canceled", name, err)
		}
	}
	if got := get(t, s, "c", 0, -1); got != "x" {
		t.Errorf("a canceled operation changed the object to %q", got)
	}
}
