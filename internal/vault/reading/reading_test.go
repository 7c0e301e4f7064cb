package reading

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// ajar is a store that may refuse to be written.
type ajar struct {
	vault.Store
	mu  sync.Mutex
	err error
}

func (s *ajar) shut(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *ajar) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return s.Store.Put(ctx, key, r, size)
}

// rig is a vault with one point. Its clock is the test's, and everybody's.
type rig struct {
	t       *testing.T
	store   *ajar
	p       *vault.Project
	session *Session // the newest
	between func()   // happens while a session waits to look again; nil: nothing

	mu   sync.Mutex
	time time.Time
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.time
}

func (r *rig) sleep(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.time = r.time.Add(d)
}

// reads has the newest session go on for a time, as keep does.
func (r *rig) reads(d time.Duration) {
	for range d / every {
		r.sleep(every)
		_ = r.session.say(r.t.Context())
	}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	r.store = &ajar{Store: mem.New(r.now)}
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if r.p, err = vault.CreateProject(t.Context(), r.store, "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	if err := r.store.Put(t.Context(), "projects/default/manifests/shop/shop-1", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) begin() (*Session, error) {
	work := Work{Project: r.p, Application: "shop", Point: "shop-1", By: "restore r-1", Site: "west"}
	s, err := begin(r.t.Context(), work, r.now, func(d time.Duration) <-chan time.Time {
		if d != lookAgain {
			return nil
		}
		if r.between != nil {
			r.between()
		}
		return time.After(0)
	})
	r.session = s
	return s, err
}

func (r *rig) mustBegin() *Session {
	r.t.Helper()
	s, err := r.begin()
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// claim claims a removal, and releases it.
func (r *rig) claim() error {
	c, err := Claim(r.t.Context(), r.p, "shop", "shop-1", "retention", "east")
	if err == nil {
		err = c.Release(r.t.Context())
	}
	return err
}

func (r *rig) notes() (n int) {
	r.t.Helper()
	err := r.store.List(r.t.Context(), "projects/default/reading/", func(vault.ObjectInfo) error { n++; return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// TestAReadersNote: it keeps the point while the reader goes on, is written again
// meanwhile, and is taken away at the end.
func TestAReadersNote(t *testing.T) {
	r := newRig(t)
	s := r.mustBegin()
	r.reads(10 * Lease)
	err := r.claim()
	var read *ReadError
	if !errors.As(err, &read) || !errors.Is(err, ErrRead) || len(read.Readers) != 1 || read.Readers[0].By != "restore r-1" {
		t.Fatalf("claim of a point that is read: %v", err)
	}
	if text := err.Error(); !strings.Contains(text, "by restore r-1 at site west until ") {
		t.Errorf("it says %q", text)
	}
	readers, err := Readers(t.Context(), r.p, "", r.now())
	if err != nil || len(readers) != 1 || readers[0].Point != "shop-1" || readers[0].Application != "shop" {
		t.Errorf("readers are %+v, %v", readers, err)
	}
	s.End(t.Context())
	if err := r.claim(); err != nil || r.notes() > 0 {
		t.Errorf("after the end: %v, and %d notes are left", err, r.notes())
	}
}

// TestADeadReadersNoteEnds, and not before its time; whoever does its work under
// its name takes it away.
func TestADeadReadersNoteEnds(t *testing.T) {
	r := newRig(t)
	r.mustBegin().Leave()
	r.sleep(Lease - time.Second)
	if err := r.claim(); !errors.Is(err, ErrRead) {
		t.Errorf("before its time: %v", err)
	}
	r.mustBegin().End(t.Context()) // one that found that another does its work
	if r.notes() != 1 {
		t.Errorf("%d notes after the end of another", r.notes())
	}
	r.mustBegin().Done(t.Context())
	if r.notes() != 0 {
		t.Errorf("%d notes are left", r.notes())
	}
	r.mustBegin().Leave()
	r.sleep(Lease + 11*time.Minute)
	if err := r.claim(); err != nil {
		t.Errorf("after its time: %v", err)
	}
	if err := Sweep(t.Context(), r.p, r.now()); err != nil || r.notes() != 1 {
		t.Errorf("swept too early: %v, %d notes", err, r.notes())
	}
	r.sleep(25 * time.Hour)
	if err := Sweep(t.Context(), r.p, r.now()); err != nil || r.notes() != 0 {
		t.Errorf("not swept: %v, %d notes", err, r.notes())
	}
}

// TestALapse: a reader whose note ended while the vault could not be written notes
// himself anew, and looks again.
func TestALapse(t *testing.T) {
	r := newRig(t)
	s := r.mustBegin()
	r.store.shut(vault.ErrUnavailable)
	r.reads(2 * Lease)
	r.store.shut(nil)
	r.reads(every)
	if err := r.claim(); !errors.Is(err, ErrRead) || r.notes() != 1 {
		t.Errorf("after a lapse: %v, %d notes", err, r.notes())
	}
	// While it lapses once more, the point goes.
	r.store.shut(vault.ErrUnavailable)
	r.reads(2 * Lease)
	r.store.shut(nil)
	c, err := Claim(t.Context(), r.p, "shop", "shop-1", "retention", "east")
	if err != nil {
		t.Fatal(err)
	}
	r.reads(every)
	if readers, err := Readers(t.Context(), r.p, "shop", r.now()); err != nil || len(readers) > 0 {
		t.Errorf("a reader who came too late counts: %v, %v", readers, err)
	}
	if err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.End(t.Context())
}

// TestAVaultThatCannotBeWritten: the session goes on trying.
func TestAVaultThatCannotBeWritten(t *testing.T) {
	r := newRig(t)
	r.store.shut(vault.ErrFull)
	s, err := r.begin()
	if !errors.Is(err, vault.ErrFull) || s == nil {
		t.Fatalf("began with %v, %v", s, err)
	}
	r.store.shut(nil)
	r.reads(every)
	if err := r.claim(); !errors.Is(err, ErrRead) {
		t.Errorf("once there is room: %v", err)
	}
	s.End(t.Context())
	if r.notes() != 0 {
		t.Errorf("%d notes are left", r.notes())
	}
}

// TestWhatLeavesIsNotRead: a point whose removal is claimed or has begun, or that is
// gone. The claim of a remover that died ends by itself.
func TestWhatLeavesIsNotRead(t *testing.T) {
	r := newRig(t)
	if _, err := Claim(t.Context(), r.p, "shop", "shop-1", "retention", "east"); err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		if s, err := r.begin(); !errors.Is(err, ErrLeaving) || s != nil || !strings.Contains(err.Error(), why) {
			t.Errorf("began with %v, %v; want %q", s, err, why)
		}
	}
	refused("by retention at site east")
	r.sleep(time.Hour)
	r.mustBegin().End(t.Context())
	if err := r.p.Mark(t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkDeleting, By: "retention: too old"}); err != nil {
		t.Fatal(err)
	}
	r.mustBegin().End(t.Context()) // it waits out its delay, and may be read until then
	if err := r.p.Mark(t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkDeleting, By: Begun}); err != nil {
		t.Fatal(err)
	}
	refused("parts of it may be gone")
	if err := r.p.DeletePoint(t.Context(), "shop", "shop-1"); err != nil {
		t.Fatal(err)
	}
	refused("it is gone")
	if err := Forget(t.Context(), r.p, "shop", "shop-1"); err != nil || r.notes() != 0 {
		t.Errorf("forgotten: %v, %d notes are left", err, r.notes())
	}
}

// TestTwoThatMeet: whoever wants to read waits for a removal that is only claimed yet,
// and reads if that stands back.
func TestTwoThatMeet(t *testing.T) {
	claimed := func() (*rig, *Removal) {
		r := newRig(t)
		c, err := Claim(t.Context(), r.p, "shop", "shop-1", "retention", "east")
		if err != nil {
			t.Fatal(err)
		}
		return r, c
	}
	end := func(r *rig, c *Removal, begun bool) func() {
		return func() {
			var err error
			if begun {
				err = r.p.Mark(t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkDeleting, By: Begun})
			}
			if err = errors.Join(err, c.Release(t.Context())); err != nil {
				t.Error(err)
			}
			r.between = nil
		}
	}
	r, c := claimed()
	r.between = end(r, c, false)
	r.mustBegin()
	if err := r.claim(); !errors.Is(err, ErrRead) {
		t.Errorf("one who waited is not seen: %v", err)
	}
	r, c = claimed()
	r.between = end(r, c, true)
	if _, err := r.begin(); !errors.Is(err, ErrLeaving) || !strings.Contains(err.Error(), "parts of it may be gone") || r.notes() != 0 {
		t.Errorf("a removal that has begun: %v, %d notes", err, r.notes())
	}
}

// TestAClaimWithoutAnAnswer may have arrived: it is taken away, and refuses nobody.
func TestAClaimWithoutAnAnswer(t *testing.T) {
	r := newRig(t)
	deaf := r.p.Over(func(s vault.Store) vault.Store { return unheard{s} })
	if _, err := Claim(t.Context(), deaf, "shop", "shop-1", "retention", "east"); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("claimed with %v", err)
	}
	if r.notes() != 0 {
		t.Error("the claim stays")
	}
	r.mustBegin()
}

// unheard writes, and has no answer.
type unheard struct{ vault.Store }

func (s unheard) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return errors.Join(s.Store.Put(ctx, key, r, size), vault.ErrUnavailable)
}

// TestDoneIsOfOneCluster: the same restore into another cluster, whose site has the
// same name or none, is another reader.
func TestDoneIsOfOneCluster(t *testing.T) {
	r := newRig(t)
	var all []*Session
	for _, cluster := range []string{"a", "b"} {
		s, err := Begin(t.Context(), Work{Project: r.p, Application: "shop", Point: "shop-1", By: "restore r-1", Cluster: cluster})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	all[0].Done(t.Context())
	if err := r.claim(); !errors.Is(err, ErrRead) || r.notes() != 1 {
		t.Errorf("%v, %d notes", err, r.notes())
	}
	all[1].Done(t.Context())
	if err := r.claim(); err != nil {
		t.Error(err)
	}
}

// TestNotesOfOthers: what cannot be opened counts, for no longer than a note may.
func TestNotesOfOthers(t *testing.T) {
	r := newRig(t)
	key := "projects/default/reading/shop/shop-1/reader-"
	if err := r.store.Put(t.Context(), key+"0", strings.NewReader("nonsense"), 8); err != nil {
		t.Fatal(err)
	}
	if err := r.claim(); !errors.Is(err, ErrRead) || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("one that cannot be opened: %v", err)
	}
	if err := r.p.WriteSealed(t.Context(), key+"1", []byte(`{"formatVersion":1,"by":"greedy","lease":999999999999999999}`)); err != nil {
		t.Fatal(err)
	}
	r.sleep(25 * time.Hour)
	if err := r.claim(); err != nil {
		t.Errorf("one that asks for years: %v", err)
	}
}

// TestASessionGoesOn: the note is written again and again, until the session is over.
func TestASessionGoesOn(t *testing.T) {
	r := newRig(t)
	ticks, waits := make(chan time.Time), make(chan time.Duration)
	work := Work{Project: r.p, Application: "shop", Point: "shop-1", By: "restore r-1", Site: "west"}
	s, err := begin(t.Context(), work, r.now, func(d time.Duration) <-chan time.Time { waits <- d; return ticks })
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		vault error
		next  time.Duration
	}{{nil, every}, {vault.ErrUnavailable, again}, {nil, every}} {
		<-waits
		r.store.shut(step.vault)
		r.sleep(every)
		ticks <- r.now()
		if got := <-waits; got != step.next {
			t.Errorf("with %v it waits %s next, want %s", step.vault, got, step.next)
		}
		go func() { ticks <- r.now() }() // once more, for the next step to meet it waiting
	}
	<-waits
	readers, err := Readers(t.Context(), r.p, "shop", r.now())
	if err != nil || len(readers) != 1 || !readers[0].Until.Equal(r.now().Add(Lease)) {
		t.Errorf("readers are %+v at %s, %v", readers, r.now(), err)
	}
	s.End(t.Context())
	if r.notes() != 0 {
		t.Errorf("%d notes are left", r.notes())
	}
}
