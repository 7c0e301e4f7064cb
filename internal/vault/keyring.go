package vault

import (
	"context"
	"errors"
	"fmt"
)

// Keyring is what one site keeps, in a Kubernetes Secret, to open one project:
// its own identity, and the ids that vault and key must have, so that neither
// can be exchanged behind the site's back.
type Keyring struct {
	VaultID string
	Project string
	// KeyID is the newest data key when the site was admitted: a project that
	// does not have it is another one, or was put back to before that.
	KeyID    string
	Identity Identity
}

// Keys of a Keyring in a Secret's data.
const (
	secretVault    = "vault-id"
	secretProject  = "project"
	secretKeyID    = "key-id"
	secretIdentity = "identity"
)

// Secret returns the data of a Kubernetes Secret.
func (k Keyring) Secret() map[string][]byte {
	return map[string][]byte{
		secretVault:    []byte(k.VaultID),
		secretProject:  []byte(k.Project),
		secretKeyID:    []byte(k.KeyID),
		secretIdentity: []byte(k.Identity.Secret()),
	}
}

// ParseKeyring reads a Kubernetes Secret's data. Its errors hold no secrets.
func ParseKeyring(data map[string][]byte) (Keyring, error) {
	k := Keyring{
		VaultID: string(data[secretVault]),
		Project: string(data[secretProject]),
		KeyID:   string(data[secretKeyID]),
	}
	for _, key := range []string{secretVault, secretProject, secretKeyID, secretIdentity} {
		if len(data[key]) == 0 {
			return Keyring{}, fmt.Errorf("parse keyring: the Secret has no %q: add the vault to this site again", key)
		}
	}
	var err error
	if k.Identity, err = ParseIdentity(string(data[secretIdentity])); err != nil {
		return Keyring{}, fmt.Errorf("parse keyring: %w", err)
	}
	return k, nil
}

// Admit makes a new identity for a site and admits it to the project, which
// was opened with the recovery key. In a second copy, that is the one thing
// besides copying that writes: a wrapped key decides nothing.
func Admit(ctx context.Context, p *Project) (Keyring, error) {
	if below, ok := p.store.(readOnly); ok {
		p = p.Over(func(Store) Store { return below.Store })
	}
	marker, _, err := Identify(ctx, p.store)
	if err != nil {
		return Keyring{}, fmt.Errorf("admit site: %w", err)
	}
	identity, err := NewIdentity()
	if err != nil {
		return Keyring{}, fmt.Errorf("admit site: %w", err)
	}
	if err := p.AddRecipient(ctx, identity.Recipient()); err != nil {
		return Keyring{}, fmt.Errorf("admit site: %w", err)
	}
	return Keyring{VaultID: marker.ID, Project: p.name, KeyID: p.NewestKey().KeyID, Identity: identity}, nil
}

// Open opens the keyring's project, in its vault or in a second copy of it, and
// refuses any other vault or key.
func (k Keyring) Open(ctx context.Context, store Store) (*Project, error) {
	marker, _, err := Identify(ctx, store)
	if err != nil {
		return nil, err
	}
	if marker.ID != k.VaultID {
		if of, err := readMarker(ctx, store, copyKey); err == nil && of.ID == k.VaultID {
			return nil, fmt.Errorf("open %s: %w: it became the vault in place of %s: `davit vault promote` moves this site to it", store, ErrKey, k.VaultID)
		}
		return nil, fmt.Errorf("open %s: %w", store, errors.Join(ErrKey, fmt.Errorf("it is vault %s, this site was added to vault %s", marker.ID, k.VaultID)))
	}
	p, err := OpenProject(ctx, store, k.Project, k.Identity)
	if err != nil {
		return nil, err
	}
	if !p.hasKey(k.KeyID) { // another project, or an older state of this one
		return nil, fmt.Errorf("open project %s: %w: its data key is %s, this site was admitted to %s", k.Project, ErrKey, p.NewestKey().KeyID, k.KeyID)
	}
	return p, nil
}
