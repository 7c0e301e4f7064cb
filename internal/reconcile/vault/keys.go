package vault

import (
	"context"
	"fmt"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/vault"
)

// takeKeys takes up what a rotation of the data key brought. A vault that knows
// less versions of the key than this site has seen, or another key under the
// number of the newest one seen, was changed by whoever can write to the store:
// nothing is sealed in it.
func (r *Reconciler) takeKeys(ctx context.Context, v *v1alpha1.Vault, opened *vaults.Opened) error {
	p := opened.Project
	seen := v.Status.KeyVersion
	if v.Status.VaultID != opened.VaultID { // the object names another vault now
		seen = 0
	}
	before := p.NewestKey()
	if err := p.Refresh(ctx); err != nil {
		return err
	}
	now := p.NewestKey()
	if now.Number < seen && !p.IsCopy() {
		return fmt.Errorf("%w: this site has seen version %d of the project's data key, and the vault has %d: someone put it back to an older state. Restore the vault's own history; if that is what you did on purpose, remove the Vault and add it again",
			vault.ErrDamaged, seen, now.Number)
	}
	if id := v.Status.KeyID; seen > 0 && id != "" && !p.IsCopy() && p.KeyVersions()[seen-1].KeyID != id {
		return fmt.Errorf("%w: this site has seen version %d of the project's data key as %s, and in the vault it is %s: someone exchanged it. Restore the vault's own history; if that is what you did on purpose, remove the Vault and add it again",
			vault.ErrDamaged, seen, id, p.KeyVersions()[seen-1].KeyID)
	}
	if !p.IsCopy() && (now.Number > before.Number || now.Number > seen) {
		return p.CompleteRotation(ctx)
	}
	return nil
}
