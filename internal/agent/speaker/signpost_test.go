package speaker

import (
	"context"
	"errors"
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/uplink/beacon"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// opened are vaults by the names of their objects.
type opened map[string]*vault.Project

func (opened) Protector(context.Context, string) (*protection.Protector, error) {
	return nil, errors.New("none")
}

func (o opened) Project(_ context.Context, name string) (*vault.Project, error) {
	if p := o[name]; p != nil {
		return p, nil
	}
	return nil, vault.ErrUnavailable
}

// The project's own vaults are asked, not another's and no copies. One that does
// not answer keeps no other from it.
func TestSignpost(t *testing.T) {
	ctx := t.Context()
	p, key, err := consoletest.New(ctx, mem.New(nil), "acme")
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Ensure(ctx, p, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	silent, copied := mine.DeepCopy(), mine.DeepCopy()
	silent.Name, copied.Name, copied.Spec = "silent", "copy", v1alpha1.VaultSpec{Project: "acme", CopyOf: "main"}
	s := newSpeaker(t, site.DeepCopy(), mine.DeepCopy(), other.DeepCopy(), silent, copied)
	s.Vaults = opened{"main": p}
	ask := signpost{s, "acme"}
	link := dial.Link{Console: "c", Authorities: [][]byte{a.Certificate.Raw}}
	if _, err := ask.Active(ctx, link); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("one vault is silent, the other says nothing: %v", err)
	}
	want := beacon.Record{Console: "c", Project: "acme", Epoch: 2, URL: "https://b.example.com:8443"}
	if err := beacon.Put(ctx, p, want, a, a.Certificate); err != nil {
		t.Fatal(err)
	}
	if got, err := ask.Active(ctx, link); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	link.Epoch = 3
	if _, err := ask.Active(ctx, link); !errors.Is(err, beacon.ErrOld) {
		t.Errorf("an old one: %v", err)
	}
	if _, err := (signpost{s, "nobodys"}).Active(ctx, link); !errors.Is(err, beacon.ErrNone) {
		t.Errorf("a project without vaults: %v", err)
	}
}
