package vault

import (
	"errors"
	"testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// TestKeyVersionsSeen refuses a vault that knows less versions of its key than
// this site has seen, or others, unless the object names another vault.
func TestKeyVersionsSeen(t *testing.T) {
	store := mem.New(nil)
	marker, err := vault.Init(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.CreateProject(t.Context(), store, "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	p, err := vault.OpenProject(t.Context(), store, "default", key)
	if err != nil {
		t.Fatal(err)
	}
	r := &Reconciler{}
	opened := &vaults.Opened{Project: p, VaultID: marker.ID}
	v := &v1alpha1.Vault{Status: v1alpha1.VaultStatus{VaultID: marker.ID, KeyVersion: 2}}
	if err := r.takeKeys(t.Context(), v, opened); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("a vault that was put back gave %v, want ErrDamaged", err)
	}
	v.Status.VaultID = "another"
	if err := r.takeKeys(t.Context(), v, opened); err != nil {
		t.Errorf("another vault under the same name: %v", err)
	}
	if _, err := p.Rotate(t.Context(), vault.Rotation{}); err != nil {
		t.Fatal(err)
	}
	v.Status.VaultID = marker.ID
	if err := r.takeKeys(t.Context(), v, opened); err != nil {
		t.Errorf("the version that was seen: %v", err)
	}
	v.Status.KeyID = p.NewestKey().KeyID
	if err := r.takeKeys(t.Context(), v, opened); err != nil {
		t.Errorf("the key that was seen: %v", err)
	}
	v.Status.KeyID = p.KeyID()
	if err := r.takeKeys(t.Context(), v, opened); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("another key under the number that was seen gave %v, want ErrDamaged", err)
	}
}
