package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// opened opens the project of the store.
func opened(t *testing.T, store vault.Store, id vault.Identity) *vault.Project {
	t.Helper()
	p, err := vault.OpenProject(t.Context(), store, "acme", id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// admitted makes a project with a recovery key and one site.
func admitted(t *testing.T, store vault.Store) (p *vault.Project, recovery vault.Identity, site vault.Keyring) {
	t.Helper()
	made, recovery := project(t, store)
	site, err := vault.Admit(t.Context(), made)
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, store, recovery), recovery, site
}

func rotate(t *testing.T, p *vault.Project, r vault.Rotation) vault.KeyVersion {
	t.Helper()
	v, err := p.Rotate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func readable(t *testing.T, p *vault.Project, id string) error {
	t.Helper()
	m, err := p.Manifest(t.Context(), "shop", id)
	if err != nil {
		return err
	}
	return p.VerifyObjects(t.Context(), m, nil)
}

func TestRotationKeepsWhatIsOldReadable(t *testing.T) {
	store := mem.New(nil)
	p, recovery, site := admitted(t, store)
	publish(t, p, "shop", "shop-1", 3)
	running, err := site.Open(t.Context(), store) // an agent that was there before
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(2); n <= 4; n++ {
		if v := rotate(t, p, vault.Rotation{}); v.Number != n {
			t.Errorf("rotation gave version %d, want %d", v.Number, n)
		}
		publish(t, p, "shop", fmt.Sprintf("shop-%d", n), 3)
	}
	all := map[string]*vault.Project{"the rotator": p, "a site that runs on": running, "who opens anew": opened(t, store, recovery)}
	for who, q := range all {
		for n := 1; n <= 4; n++ {
			if err := readable(t, q, fmt.Sprintf("shop-%d", n)); err != nil {
				t.Errorf("%s cannot read point %d: %v", who, n, err)
			}
		}
		if got := q.NewestKey().Number; got != 4 {
			t.Errorf("%s seals with version %d, want 4", who, got)
		}
	}
	// What the site writes from now on is sealed with the new key.
	publish(t, running, "shop", "shop-5", 1)
	if raw := read(t, store, "projects/acme/manifests/shop/shop-5"); !strings.Contains(fmt.Sprintf("%x", raw[10:26]), running.NewestKey().KeyID) {
		t.Errorf("sealed with key %x, want %s", raw[10:26], running.NewestKey().KeyID)
	}
	if err := verifyAll(t, store, recovery); err != nil {
		t.Error(err)
	}
}

func verifyAll(t *testing.T, store vault.Store, id vault.Identity) error {
	return opened(t, store, id).VerifyMetadata(t.Context(), nil)
}

// TestRemovedRecipient is shut out of what is written after, whatever he kept.
// The control: with a rotation that does not remove him, he reads on.
func TestRemovedRecipient(t *testing.T) {
	for _, removed := range []bool{true, false} {
		store := mem.New(nil)
		p, _, site := admitted(t, store)
		publish(t, p, "shop", "shop-1", 2)
		kept, err := site.Open(t.Context(), store) // he keeps the old key in memory
		if err != nil {
			t.Fatal(err)
		}
		r := vault.Rotation{Volumes: true}
		if removed {
			r.Remove = []vault.Recipient{site.Identity.Recipient()}
		}
		rotate(t, p, r)
		publish(t, p, "shop", "shop-2", 2)
		if err := readable(t, kept, "shop-1"); err != nil {
			t.Errorf("removed %v: what was written before: %v", removed, err)
		}
		err = readable(t, kept, "shop-2")
		if removed && !errors.Is(err, vault.ErrKey) || !removed && err != nil {
			t.Errorf("removed %v: reading a new point gave %v", removed, err)
		}
		if _, err := site.Open(t.Context(), store); removed != errors.Is(err, vault.ErrKey) {
			t.Errorf("removed %v: opening gave %v", removed, err)
		}
		if _, err := kept.NewWriter(t.Context(), "shop", "shop-3"); removed != errors.Is(err, vault.ErrKey) {
			t.Errorf("removed %v: capturing gave %v", removed, err)
		}
		if got := kept.RepositoryKey("east_2"); removed != (got == nil) {
			t.Errorf("removed %v: password of the new repository: %x", removed, got)
		}
		if string(kept.RepositoryKey("east")) != string(p.RepositoryKey("east")) || string(p.RepositoryKey("east")) == string(p.RepositoryKey("east_2")) {
			t.Error("want the old repository's password as it was, and another one for the new")
		}
		if err := p.AddRecipient(t.Context(), site.Identity.Recipient()); err != nil {
			t.Fatal(err)
		}
		if again, err := site.Open(t.Context(), store); err != nil || readable(t, again, "shop-1") != nil || readable(t, again, "shop-2") != nil {
			t.Errorf("admitted again: %v", err)
		}
	}
}

// TestRemovedRecipientPlantsAnother: who was removed has the key before, and the
// store's credentials. Whom he wraps that to is not given the new key. The
// control: a rotation that removes nobody admits whoever came meanwhile.
func TestRemovedRecipientPlantsAnother(t *testing.T) {
	for _, removed := range []bool{true, false} {
		store := mem.New(nil)
		p, recovery, site := admitted(t, store)
		accomplice, err := vault.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.AddRecipient(t.Context(), accomplice.Recipient()); err != nil { // as the one to be removed could
			t.Fatal(err)
		}
		planted := "projects/acme/keys/" + p.KeyID() + "/" + accomplice.Recipient().Fingerprint()
		raw := read(t, store, planted)
		if err := store.Delete(t.Context(), planted); err != nil {
			t.Fatal(err)
		}
		r := vault.Rotation{}
		if removed {
			r.Remove = []vault.Recipient{site.Identity.Recipient()}
		}
		rotate(t, p, r)
		if err := store.PutIfAbsent(t.Context(), planted, bytes.NewReader(raw), int64(len(raw))); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := opened(t, store, recovery).CompleteRotation(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := vault.OpenProject(t.Context(), store, "acme", accomplice); removed != errors.Is(err, vault.ErrKey) {
				t.Errorf("removed %v: whoever was planted: %v", removed, err)
			}
			rotate(t, p, vault.Rotation{}) // nor by the next one
		}
	}
}

// TestVersionExchanged puts other versions in the place of one that was seen, as
// who holds the key before it can: who saw it takes none of them.
func TestVersionExchanged(t *testing.T) {
	store := mem.New(nil)
	p, recovery, _ := admitted(t, store)
	forger := opened(t, store, recovery)
	seen := rotate(t, p, vault.Rotation{})
	if err := store.Delete(t.Context(), "projects/acme/keyring/00000000000000000002"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		rotate(t, forger, vault.Rotation{})
	}
	if err := p.Refresh(t.Context()); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("taking up what was exchanged gave %v, want ErrDamaged", err)
	}
	if got := p.NewestKey(); got.KeyID != seen.KeyID {
		t.Errorf("seals with %s, want %s", got.KeyID, seen.KeyID)
	}
}

// holding is a store that deletes nothing of what is locked.
type holding struct{ vault.Store }

func (h holding) Delete(context.Context, string) error {
	return fmt.Errorf("delete: %w", vault.ErrLocked)
}

// TestRemovalOnAStoreThatLocks is done although older wraps must stay: they open
// what the removed one could read anyway.
func TestRemovalOnAStoreThatLocks(t *testing.T) {
	store := mem.New(nil)
	p, _, site := admitted(t, store)
	p = p.Over(func(s vault.Store) vault.Store { return holding{s} })
	rotate(t, p, vault.Rotation{Remove: []vault.Recipient{site.Identity.Recipient()}})
	if _, err := site.Open(t.Context(), store); !errors.Is(err, vault.ErrKey) {
		t.Errorf("the removed one: %v, want ErrKey", err)
	}
}

func TestRotationIsForThoseWhoStay(t *testing.T) {
	store := mem.New(nil)
	p, recovery, _ := admitted(t, store)
	if _, err := p.Rotate(t.Context(), vault.Rotation{Remove: []vault.Recipient{recovery.Recipient()}}); !errors.Is(err, vault.ErrKey) {
		t.Errorf("removing oneself gave %v, want ErrKey", err)
	}
	if got := p.NewestKey().Number; got != 1 {
		t.Errorf("version %d after a rotation that was refused", got)
	}
}

// TestRotationsRace lets many rotate, admit and capture at once: everyone who
// was admitted can read everything afterwards.
func TestRotationsRace(t *testing.T) {
	store := mem.New(nil)
	_, recovery, _ := admitted(t, store)
	var mu sync.Mutex
	var sites []vault.Keyring
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			p, err := vault.OpenProject(t.Context(), store, "acme", recovery)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := p.Rotate(t.Context(), vault.Rotation{}); err != nil && !errors.Is(err, vault.ErrExists) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			p, err := vault.OpenProject(t.Context(), store, "acme", recovery)
			if err != nil {
				t.Error(err)
				return
			}
			site, err := vault.Admit(t.Context(), p)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			sites = append(sites, site)
		})
		wg.Go(func() {
			p, err := vault.OpenProject(t.Context(), store, "acme", recovery)
			if err != nil {
				t.Error(err)
				return
			}
			publish(t, p, "shop", fmt.Sprintf("shop-%d", i), 2)
		})
	}
	wg.Wait()
	for _, site := range sites {
		p, err := site.Open(t.Context(), store)
		if err != nil {
			t.Errorf("a site that was admitted while the key rotated: %v", err)
			continue
		}
		for i := range 4 {
			if err := readable(t, p, fmt.Sprintf("shop-%d", i)); err != nil {
				t.Error(err)
			}
		}
	}
	if err := verifyAll(t, store, recovery); err != nil {
		t.Error(err)
	}
}

// dying fails every write after the first n, as if the process had been killed.
type dying struct {
	vault.Store
	left *int
}

var errKilled = errors.New("killed")

func (d dying) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if *d.left == 0 {
		return errKilled
	}
	*d.left--
	return d.Store.PutIfAbsent(ctx, key, r, size)
}

func (d dying) Delete(ctx context.Context, key string) error {
	if *d.left == 0 {
		return errKilled
	}
	return d.Store.Delete(ctx, key)
}

// TestRotationKilledAnywhere kills a rotation after each of its writes: before
// the deciding one nothing has changed, after it the key is there for all, and
// the next rotation goes on in either case.
func TestRotationKilledAnywhere(t *testing.T) {
	for writes := 0; ; writes++ {
		store := mem.New(nil)
		p, recovery, site := admitted(t, store)
		publish(t, p, "shop", "shop-1", 1)
		stays, err := vault.Admit(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		left := writes
		dies := p.Over(func(s vault.Store) vault.Store { return dying{s, &left} })
		remove := vault.Rotation{Remove: []vault.Recipient{site.Identity.Recipient()}}
		_, killed := dies.Rotate(t.Context(), remove)
		again := opened(t, store, recovery)
		if again.NewestKey().Number == 1 {
			if killed == nil {
				t.Fatal("a rotation that was not killed did nothing")
			}
			rotate(t, again, remove)
		}
		publish(t, again, "shop", "shop-2", 1)
		other, err := stays.Open(t.Context(), store)
		if err != nil || readable(t, other, "shop-1") != nil || readable(t, other, "shop-2") != nil {
			t.Errorf("killed after %d writes: a site that stays: %v", writes, err)
		}
		if _, err := site.Open(t.Context(), store); !errors.Is(err, vault.ErrKey) {
			t.Errorf("killed after %d writes: the removed one: %v", writes, err)
		}
		if err := verifyAll(t, store, recovery); err != nil {
			t.Errorf("killed after %d writes: %v", writes, err)
		}
		if killed == nil {
			return
		}
	}
}

// TestVaultPutBack removes the newest version, as who holds an old key and the
// store's credentials might: nobody who saw it goes on with the old key.
func TestVaultPutBack(t *testing.T) {
	store := mem.New(nil)
	p, _, _ := admitted(t, store)
	rotate(t, p, vault.Rotation{})
	late, err := vault.Admit(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(t, store) {
		if strings.Contains(key, "/keyring/") {
			if err := store.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := p.NewWriter(t.Context(), "shop", "shop-1"); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("capturing gave %v, want ErrDamaged", err)
	}
	if _, err := late.Open(t.Context(), store); !errors.Is(err, vault.ErrKey) {
		t.Errorf("a site admitted to the newer key: %v, want ErrKey", err)
	}
}

func TestRepositoryNames(t *testing.T) {
	store := mem.New(nil)
	p, _, _ := admitted(t, store)
	rotate(t, p, vault.Rotation{})
	rotate(t, p, vault.Rotation{Volumes: true})
	rotate(t, p, vault.Rotation{})
	if got := p.Repository("east"); got != "east_3" {
		t.Errorf("the site writes to %s, want east_3", got)
	}
	for _, name := range []string{"east_2", "east_4", "east_9", "east_x", "east_"} {
		if key := p.RepositoryKey(name); key != nil {
			t.Errorf("%s has a password", name)
		}
	}
}
