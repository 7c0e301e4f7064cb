package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/retry"
)

// TestBadLine does everything over a store that refuses, loses answers and
// breaks off, many times over: nothing of it shows.
func TestBadLine(t *testing.T) {
	for seed := range uint64(5) {
		faulty := fault.New(mem.New(nil), seed, fault.Faults{Refuse: 0.2, Lose: 0.2, Tear: 0.2})
		store := retry.New(faulty, retry.Policy{Tries: 60, First: time.Microsecond, Max: time.Microsecond})
		p, _ := project(t, store)
		for i := range 3 {
			m := publish(t, p, "shop", fmt.Sprintf("shop-%d", i), 20)
			if err := p.VerifyObjects(t.Context(), m, nil); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		if err := p.DeletePoint(t.Context(), "shop", "shop-1"); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if points, err := p.Points(t.Context(), "shop"); err != nil || len(points) != 2 {
			t.Errorf("seed %d: %d points, %v; want 2", seed, len(points), err)
		}
		if err := p.VerifyMetadata(t.Context(), nil); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if faulty.Count() == 0 {
			t.Errorf("seed %d: no fault was injected", seed)
		}
	}
}

// TestBadDisk reads through a store that flips a bit in half of all reads: what
// is read is right or refused.
func TestBadDisk(t *testing.T) {
	store := fault.New(mem.New(nil), 1, fault.Faults{})
	p, _ := project(t, store)
	m := publish(t, p, "shop", "shop-1", 50)
	store.Set(fault.Faults{Flip: 0.5})
	refused := 0
	for range 200 {
		i := 0
		err := p.ReadResource(t.Context(), m.Resources[0], func(got []byte) error {
			if want := object("configmaps", i); !bytes.Equal(got, want) {
				t.Fatalf("read %s, want %s", got, want)
			}
			i++
			return nil
		})
		if err != nil && (!errors.Is(err, vault.ErrDamaged) || i > 0) {
			t.Fatalf("%v after %d objects, want ErrDamaged before the first", err, i)
		}
		if err != nil {
			refused++
		}
	}
	if refused < 50 || refused > 150 {
		t.Errorf("refused %d of 200 reads, want about half", refused)
	}
}

// BenchmarkPack writes and reads back one pack of 4 MiB of API objects.
func BenchmarkPack(b *testing.B) {
	store := mem.New(nil)
	recovery, err := vault.NewRecoveryKey()
	if err != nil {
		b.Fatal(err)
	}
	p, err := vault.CreateProject(b.Context(), store, "acme", recovery.Recipient())
	if err != nil {
		b.Fatal(err)
	}
	var pack [][]byte
	for i := range 4096 {
		pack = append(pack, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"n%d","uid":"%032x"},"data":{"k":"%0900x"}}`, i, i*i*i, i*i))
	}
	b.SetBytes(4 << 20)
	for i := 0; b.Loop(); i++ {
		w, err := p.NewWriter(b.Context(), "shop", fmt.Sprintf("shop-%d", i))
		if err != nil {
			b.Fatal(err)
		}
		r := w.Resource(point.Resource{Resource: "configmaps", Version: "v1"})
		for _, object := range pack {
			if err := r.Add(b.Context(), object); err != nil {
				b.Fatal(err)
			}
		}
		res, err := r.Close(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := p.ReadResource(b.Context(), res, func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
		if err := w.Abort(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
