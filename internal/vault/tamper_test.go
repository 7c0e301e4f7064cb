package vault_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// full makes a vault that holds one object of every kind there is.
func full(t *testing.T, store vault.Store) (*vault.Project, vault.Identity) {
	t.Helper()
	made, recovery := project(t, store)
	publish(t, made, "shop", "shop-1", 2)
	p := opened(t, store, recovery)
	_, err := p.Rotate(t.Context(), vault.Rotation{})
	errs := []error{
		err,
		p.Mark(t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkVerified, At: instant, Site: "east"}),
		p.Heartbeat(t.Context(), vault.SiteStatus{Site: "east", Time: instant}),
		p.WriteEpoch(t.Context(), "shop", 1, map[string]string{"site": "east"}),
		p.WriteEpoch(t.Context(), "shop", 2, map[string]string{"site": "west"}),
		p.WriteRun(t.Context(), "shop-failover", 1, []byte(`{"sequence":1}`)),
		p.WriteRun(t.Context(), "shop-failover", 2, []byte(`{"sequence":2}`)),
	}
	for _, revision := range []string{`{"a":1}`, `{"a":2}`} {
		_, err := p.PutDocument(t.Context(), vault.Document{Application: "shop", Site: "east", Objects: []json.RawMessage{json.RawMessage(revision)}})
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return p, recovery
}

// verify is all that "davit verify" does with davit's own objects.
func verify(ctx context.Context, store vault.Store, recovery vault.Identity) error {
	p, err := vault.OpenProject(ctx, store, "acme", recovery)
	if err != nil {
		return err
	}
	if err := p.VerifyMetadata(ctx, nil); err != nil {
		return err
	}
	return verifyPoint(ctx, p)
}

func verifyPoint(ctx context.Context, p *vault.Project) error {
	m, err := p.Manifest(ctx, "shop", "shop-1")
	if err != nil {
		return err
	}
	return p.VerifyObjects(ctx, m, nil)
}

// verifier returns the part of verify that reads the key.
func verifier(p *vault.Project, key string) func(context.Context) error {
	for _, part := range []string{"/manifests/", "/objects/", "/marks/"} {
		if strings.Contains(key, part) {
			return func(ctx context.Context) error { return verifyPoint(ctx, p) }
		}
	}
	return func(ctx context.Context) error { return p.VerifyMetadata(ctx, nil) }
}

// TestEveryByteIsGuarded changes every byte of every object, one at a time,
// and expects each change to be noticed.
func TestEveryByteIsGuarded(t *testing.T) {
	store := mem.New(nil)
	p, recovery := full(t, store)
	if err := verify(t.Context(), store, recovery); err != nil {
		t.Fatalf("untouched: %v", err)
	}
	tried := 0
	for _, key := range keys(t, store) {
		whole, check := read(t, store, key), verifier(p, key)
		for i := range whole {
			spoiled := slices.Clone(whole)
			spoiled[i] ^= 1 << (i % 8)
			write(t, store, key, spoiled)
			if err := check(t.Context()); err == nil {
				t.Errorf("%s: byte %d changed unnoticed", key, i)
			}
			tried++
		}
		write(t, store, key, whole)
	}
	t.Logf("%d changed bytes of %d objects", tried, len(keys(t, store)))
	if err := verify(t.Context(), store, recovery); err != nil {
		t.Fatalf("put right again: %v", err)
	}
}

// TestEveryObjectIsGuarded cuts, prolongs, removes and swaps whole objects.
func TestEveryObjectIsGuarded(t *testing.T) {
	store := mem.New(nil)
	p, recovery := full(t, store)
	all := keys(t, store)
	for i, key := range all {
		whole, other := read(t, store, key), read(t, store, all[(i+1)%len(all)])
		changes := map[string][]byte{
			"empty": {}, "half": whole[:len(whole)/2], "one byte short": whole[:len(whole)-1],
			"one byte more": append(slices.Clone(whole), 0), "twice": append(slices.Clone(whole), whole...),
			"another's": other,
		}
		for name, spoiled := range changes {
			write(t, store, key, spoiled)
			if err := verify(t.Context(), store, recovery); err == nil {
				t.Errorf("%s: %s went unnoticed", key, name)
			}
		}
		if err := store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if err := verify(t.Context(), store, recovery); err == nil && !mayVanish(key, p.NewestKey().KeyID) {
			t.Errorf("%s: its loss went unnoticed", key)
		}
		write(t, store, key, whole)
	}
}

// mayVanish names what no reader can miss: facts learned later, and the newest
// of what only grows. docs/formats/vault.md says so.
func mayVanish(key, newest string) bool {
	first := strings.Contains(key, "/keys/") && !strings.Contains(key, newest) // nobody needs it any more
	return first || strings.Contains(key, "/marks/") || strings.Contains(key, "/sites/") || strings.HasSuffix(key, "/00000000000000000002")
}

// TestDamageIsToldFromAbsence checks the errors that callers decide by.
func TestDamageIsToldFromAbsence(t *testing.T) {
	store := mem.New(nil)
	p, _ := full(t, store)
	m, err := p.Manifest(t.Context(), "shop", "shop-1")
	if err != nil {
		t.Fatal(err)
	}
	pack := m.Resources[0].Packs[0].Key
	whole := read(t, store, pack)
	whole[len(whole)-1] ^= 1
	write(t, store, pack, whole)
	var findings []vault.Finding
	err = p.VerifyObjects(t.Context(), m, func(f vault.Finding) { findings = append(findings, f) })
	if !errors.Is(err, vault.ErrDamaged) || !strings.Contains(err.Error(), pack) {
		t.Errorf("a changed pack gave %v, want ErrDamaged that names it", err)
	}
	bad := slices.DeleteFunc(findings, func(f vault.Finding) bool { return f.Err == nil })
	if len(bad) != 1 || bad[0].Key != pack {
		t.Errorf("findings: %+v", bad)
	}
	if err := store.Delete(t.Context(), pack); err != nil {
		t.Fatal(err)
	}
	if err := p.VerifyObjects(t.Context(), m, nil); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("a missing pack gave %v, want ErrNotFound", err)
	}
	manifest := "projects/acme/manifests/shop/shop-1"
	write(t, store, manifest, []byte("rubbish"))
	points, err := p.Points(t.Context(), "shop")
	if err != nil || len(points) != 1 || !errors.Is(points[0].Err, vault.ErrDamaged) || points[0].Point().Good() {
		t.Errorf("Points with a damaged manifest = %+v, %v", points, err)
	}
}
