package quota

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

var now = time.Date(2026, 11, 27, 4, 5, 6, 0, time.UTC)

func projects(t *testing.T) (shop, bank *store.Project) {
	t.Helper()
	c, err := store.Create(t.Context(), filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for name, p := range map[string]**store.Project{"shop": &shop, "bank": &bank} {
		if *p, err = c.CreateProject(t.Context(), audit.Act{By: "user/anna", At: now}, name); err != nil {
			t.Fatal(err)
		}
	}
	return shop, bank
}

func act() audit.Act { return audit.Act{By: "user/anna", At: now} }

func token(p *store.Project, n int, life time.Duration) func() error {
	return func() error {
		t := store.Token{ID: fmt.Sprint("token-", n), Name: fmt.Sprint("ci-", n), Hash: []byte{byte(n)}, Scopes: []account.Permission{account.Read}, Created: now, Expires: now.Add(life)}
		return p.CreateToken(context.Background(), act(), t)
	}
}

// What a project may have is bounded, by kind and by project; the refusal says use and
// limit, and what ends makes room.
func TestTake(t *testing.T) {
	shop, bank := projects(t)
	if err := Set(t.Context(), shop, act(), Numbers{Tokens: 2}, nil); err != nil {
		t.Fatal(err)
	}
	take := func(p *store.Project, n int, at time.Time) error {
		return Take(t.Context(), p, Tokens, at, token(p, n, time.Hour))
	}
	for n := range 2 {
		if err := take(shop, n, now); err != nil {
			t.Fatal(err)
		}
	}
	err := take(shop, 2, now)
	if !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "it has 2 tokens, and may have 2") {
		t.Errorf("%v", err)
	}
	for n := range 3 { // the control: another project has no limit
		if err := take(bank, n, now); err != nil {
			t.Errorf("%v", err)
		}
	}
	if err := Take(t.Context(), shop, Members, now, func() error { return nil }); err != nil {
		t.Errorf("another kind: %v", err)
	}
	if err := take(shop, 3, now.Add(2*time.Hour)); err != nil {
		t.Errorf("tokens that are over are in the way: %v", err)
	}
	if err := Set(t.Context(), shop, act(), Numbers{Tokens: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if used, err := Used(t.Context(), shop, nil, now); err != nil || used.Tokens != 3 {
		t.Errorf("a limit below the use took something away: %+v, %v", used, err)
	}
	if err := Set(t.Context(), shop, act(), Numbers{Agents: -1}, nil); !errors.Is(err, store.ErrRefused) {
		t.Errorf("%v", err)
	}
}

// Of those who ask at once, as many get it as may.
func TestTakeAtOnce(t *testing.T) {
	shop, _ := projects(t)
	if err := Set(t.Context(), shop, act(), Numbers{Tokens: 3}, nil); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 12 {
		all.Go(func() { _ = Take(t.Context(), shop, Tokens, now, token(shop, n, time.Hour)) })
	}
	all.Wait()
	if used, err := Used(t.Context(), shop, nil, now); err != nil || used.Tokens != 3 {
		t.Errorf("%+v, %v", used, err)
	}
}

func TestRoom(t *testing.T) {
	shop, _ := projects(t)
	known := &fleet.Snapshot{Applications: []fleet.Application{{Points: []fleet.Point{{Stored: 60}, {Stored: 40}}}}}
	for most, refused := range map[int64]bool{0: false, 100: true, 101: false} {
		if err := Set(t.Context(), shop, act(), Numbers{Bytes: most}, nil); err != nil {
			t.Fatal(err)
		}
		if err := Room(t.Context(), shop, known, now); errors.Is(err, store.ErrRefused) != refused {
			t.Errorf("%d bytes: %v", most, err)
		}
	}
}

// A restore counts until it is over, and no longer than its site is asked: one that is lost
// with its site is in the way of no other for good.
func TestRestores(t *testing.T) {
	shop, _ := projects(t)
	add := func(id string, dry bool) {
		t.Helper()
		r := store.Restoration{ID: id, Site: "east", Application: id, Point: "p", Name: id, Dry: dry, Body: []byte("{}"), Until: now.Add(time.Minute)}
		if _, err := shop.Restore(t.Context(), act(), r, id); err != nil {
			t.Fatal(err)
		}
	}
	add("runs", false)
	add("waits", false)
	add("looks", true)
	word := store.Word{Site: "east", At: now, Restored: []uplink.Restored{{ID: "runs", State: uplink.Running}}}
	if err := shop.HearAgents(t.Context(), []store.Word{word}); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]int{0: 2, time.Hour: 1, store.AskedAgain + time.Hour: 0} {
		if used, err := Used(t.Context(), shop, nil, now.Add(after)); err != nil || used.Restores != want {
			t.Errorf("after %s: %d, want %d; %v", after, used.Restores, want, err)
		}
	}
}

// TestSetMeanwhile: of two administrators who saw the same limits, the second is told.
func TestSetMeanwhile(t *testing.T) {
	shop, _ := projects(t)
	seen := Numbers{}
	if err := Set(t.Context(), shop, act(), Numbers{Agents: 4}, &seen); err != nil {
		t.Fatal(err)
	}
	if err := Set(t.Context(), shop, act(), Numbers{Tokens: 9}, &seen); !errors.Is(err, store.ErrConflict) {
		t.Errorf("set over another's: %v", err)
	}
	if n, err := Limits(t.Context(), shop); err != nil || n != (Numbers{Agents: 4}) {
		t.Errorf("%+v, %v", n, err)
	}
	if err := Set(t.Context(), shop, act(), Numbers{Tokens: 9}, nil); err != nil { // who does not say what he saw overwrites
		t.Error(err)
	}
}
