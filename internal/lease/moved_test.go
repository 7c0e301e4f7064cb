package lease

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
)

// fact is what east, which held epoch 3 of the lost vault, notes.
func fact() Moved {
	return Moved{Application: "shop", Site: "east", Cluster: "e", Lost: lostVault, Request: promotion, Held: 3, Seen: 4, Leased: true, At: time.Unix(0, 0)}
}

// change has f change the bytes of an object.
func change(t *testing.T, s vault.Store, key string, f func([]byte) []byte) (was []byte) {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if was, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	now := f(bytes.Clone(was))
	if err := s.Put(t.Context(), key, bytes.NewReader(now), int64(len(now))); err != nil {
		t.Fatal(err)
	}
	return was
}

func flipped(at int) func([]byte) []byte {
	return func(data []byte) []byte { data[at%len(data)] ^= 1; return data }
}

// TestWhatASiteNotes is there once, whoever notes it again, and makes it a former
// holder by its name, also where nobody can read the rest: the control is an application,
// a site and a cluster of which nothing is noted.
func TestWhatASiteNotes(t *testing.T) {
	p := keptProject(t)
	key := movedKey(p, "shop", Mover{"east", "e"})
	if movers, err := Movers(t.Context(), p, ""); err != nil || len(movers) > 0 {
		t.Errorf("of a vault that was never promoted: %v, %v", movers, err)
	}
	if err := Note(t.Context(), p, fact()); err != nil {
		t.Fatal(err)
	}
	again := fact()
	again.Held, again.Seen = 5, 5
	if err := Note(t.Context(), p, again); err != nil { // of what is known later, the first counts
		t.Fatal(err)
	}
	if m, err := ReadMoved(t.Context(), p, "shop", Mover{"east", "e"}); err != nil || m.Held != 3 || m.Seen != 4 || !m.Leased || m.Lost != lostVault {
		t.Errorf("%+v, %v", m, err)
	}
	held := func(app string, id Identity) int64 {
		t.Helper()
		n, err := HeldLost(t.Context(), p, app, id)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	look := func(when string, want int64) {
		t.Helper()
		for _, app := range []string{"", "shop"} {
			movers, err := Movers(t.Context(), p, app)
			if err != nil || len(movers) != 1 || !slices.Equal(Holders([]Epoch{ofSite(9, "west", 0)}, movers["shop"]), []string{"east", "west"}) {
				t.Errorf("%s: %v, %v", when, movers, err)
			}
		}
		if n := held("shop", Identity{"east", "e"}); n != want {
			t.Errorf("%s: east held %d", when, n)
		}
	}
	look("noted", 3)
	for name, n := range map[string]int64{
		"another application": held("bank", Identity{"east", "e"}), "another site": held("shop", Identity{"west", "e"}),
		"another cluster": held("shop", Identity{"east", "x"}), "no cluster": held("shop", Identity{Site: "east"}),
	} {
		if n != 0 {
			t.Errorf("%s held %d", name, n)
		}
	}
	if movers, err := Movers(t.Context(), p, "sho"); err != nil || len(movers) > 0 {
		t.Errorf("of a name that another begins with: %v, %v", movers, err)
	}

	change(t, p.Store(), key, flipped(70))
	look("damaged", 1)
	if err := Note(t.Context(), p, fact()); err != nil { // the same command, given again, mends it
		t.Fatal(err)
	}
	look("noted anew", 3)

	other := fact()
	other.Request = "promotion-of-another"
	if err := Note(t.Context(), p, other); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("for another promotion: %v", err)
	}
	for name, bad := range map[string]func(*Moved){
		"never held": func(m *Moved) { m.Held = 0 }, "held more than it knew": func(m *Moved) { m.Held = 5 }, "no lost vault": func(m *Moved) { m.Lost = "" },
		"no promotion": func(m *Moved) { m.Request = "" }, "no cluster": func(m *Moved) { m.Cluster = "" }, "no name": func(m *Moved) { m.Site = "../x" },
	} {
		m := fact()
		m.Application = "bank"
		if bad(&m); Note(t.Context(), p, m) == nil {
			t.Errorf("%s: noted", name)
		}
	}
}

// TestAVaultThatIsSilentIsNoAnswer: no site is taken for one that held nothing.
func TestAVaultThatIsSilentIsNoAnswer(t *testing.T) {
	p := keptProject(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	silent := p.Over(func(s vault.Store) vault.Store { return mute{s} })
	if _, err := Movers(ctx, silent, ""); !errors.Is(err, vault.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := HeldLost(ctx, silent, "shop", Identity{"east", "e"}); !errors.Is(err, vault.ErrUnavailable) {
		t.Error(err)
	}
}

type mute struct{ vault.Store }

func (mute) List(context.Context, string, func(vault.ObjectInfo) error) error {
	return vault.ErrUnavailable
}

func (mute) Get(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, vault.ErrUnavailable
}

// promotedProject has each kind of object that stands beside epochs.
func promotedProject(t *testing.T) *vault.Project {
	t.Helper()
	p := keptProject(t)
	ledger := New(p)
	for n, c := range []Claim{
		nobodys(1, lostVault, promotion).Claim, nobodys(2, lostVault, promotion).Claim,
		{Site: "west", Cluster: "w", Request: "r3", Terms: &Terms{LeaseMillis: 1000}},
		{Site: "west", Cluster: "w", Request: "r4"},
	} {
		if _, err := ledger.Claim(t.Context(), "shop", int64(n)+1, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		StateKept(t.Context(), p, Kept{Application: "shop", Epoch: 3, Site: "west", Cluster: "w", Nodes: []string{"n"}}),
		Say(t.Context(), p, "shop", nobodys(2, lostVault, promotion), stoppedBy, time.Now()),
		Note(t.Context(), p, fact()),
	); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestVerifyReadsWhatStandsBesideEpochs: a byte that was changed anywhere, and an object
// under the name of another, are told, and where. The control is what was written.
func TestVerifyReadsWhatStandsBesideEpochs(t *testing.T) {
	p := promotedProject(t)
	verify := func() string {
		var told []string
		err := Verify(t.Context(), p, func(f vault.Finding) {
			if f.Err != nil {
				told = append(told, f.Key)
			}
		})
		if (err == nil) != (len(told) == 0) || err != nil && !errors.Is(err, vault.ErrDamaged) {
			t.Errorf("%v, told %v", err, told)
		}
		return strings.TrimPrefix(strings.Join(told, " "), p.Root())
	}
	if got := verify(); got != "" {
		t.Fatalf("as it was written: %q", got)
	}
	keys := map[string]string{"kept/": keptKey(p, "shop", 3), "stopped/": wordKey(p, "shop", 2), "moved/": movedKey(p, "shop", Mover{"east", "e"})}
	for dir, key := range keys {
		was := change(t, p.Store(), key, flipped(0))
		put := func([]byte) []byte { return was }
		for at := range was {
			change(t, p.Store(), key, put)
			change(t, p.Store(), key, flipped(at))
			if got := verify(); got != dir {
				t.Fatalf("byte %d of %s: %q", at, dir, got)
			}
		}
		change(t, p.Store(), key, put)
		tail := strings.TrimPrefix(key, p.Root()+dir)
		for name, stray := range map[string]string{
			"of another application": "bank" + strings.TrimPrefix(tail, "shop"), "too deep": tail + "x/y", "no name": "shop",
		} {
			if err := p.Store().Put(t.Context(), p.Root()+dir+stray, bytes.NewReader(was), int64(len(was))); err != nil {
				t.Fatal(err)
			}
			if got := verify(); got != dir {
				t.Errorf("%s, %s: %q", dir, name, got)
			}
			if err := p.Store().Delete(t.Context(), p.Root()+dir+stray); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := verify(); got != "" {
		t.Fatalf("put back: %q", got)
	}
}

// TestVerifyComparesThemWithTheEpochs: genuine, and not about the epoch that it names.
func TestVerifyComparesThemWithTheEpochs(t *testing.T) {
	for dir, write := range map[string]func(p *vault.Project) error{
		"kept/": func(p *vault.Project) error { // of an epoch that was claimed without a lease
			return StateKept(t.Context(), p, Kept{Application: "shop", Epoch: 4, Site: "west", Cluster: "w", Nodes: []string{"n"}})
		},
		"stopped/": func(p *vault.Project) error {
			return Say(t.Context(), p, "shop", nobodys(3, lostVault, promotion), stoppedBy, time.Now())
		},
		"moved/": func(p *vault.Project) error {
			other := fact()
			other.Site, other.Lost = "north", "another"
			return Note(t.Context(), p, other)
		},
	} {
		p := promotedProject(t)
		if err := write(p); err != nil {
			t.Fatal(err)
		}
		if err := Verify(t.Context(), p, nil); !errors.Is(err, vault.ErrDamaged) || !strings.Contains(err.Error(), p.Root()+dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
