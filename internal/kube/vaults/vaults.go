// Package vaults opens what a Vault object names: the store, by its address
// and the credentials in its Secret, and the project, by this site's identity.
// No secret leaves it but inside an open project, and none is in its errors.
package vaults

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/limit"
	"davit.dev/davit/internal/vault/listed"
	"davit.dev/davit/internal/vault/lock"
)

// ErrNotUsable says that the Vault object or its Secret cannot work as they
// are: a person must change them.
var ErrNotUsable = errors.New("vault object not usable")

// rememberBytes bounds what Listing remembers: some 10,000 manifests.
const rememberBytes = 64 << 20

// Opened is an open project and the object that named it.
type Opened struct {
	Object  v1alpha1.Vault
	Project *vault.Project
	// Listing is the project for showing all its points again and again: it
	// remembers what it read. Nothing is restored or verified by it.
	Listing *vault.Project
	VaultID string
	// Store is the store itself. That of a second copy is for its copier alone.
	Store vault.Store
}

// Open reads the Vault of that name, then its Secret, and opens the project.
// The reader must not be a cache: Secrets are not kept in memory.
func Open(ctx context.Context, c client.Reader, name string) (*Opened, error) {
	opened, err := open(ctx, c, name)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", name, err)
	}
	return opened, nil
}

func open(ctx context.Context, c client.Reader, name string) (*Opened, error) {
	o := &Opened{}
	err := c.Get(ctx, client.ObjectKey{Name: name}, &o.Object)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: there is no Vault of this name: see davit vault ls", ErrNotUsable)
	}
	if err != nil {
		return nil, fmt.Errorf("read Vault: %w", err)
	}
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: o.Object.Spec.SecretName}
	err = c.Get(ctx, key, &secret)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: its Secret %s is missing: add the vault to this site again", ErrNotUsable, key)
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", key, err)
	}
	return o, o.unlock(ctx, secret.Data)
}

func (o *Opened) unlock(ctx context.Context, data map[string][]byte) error {
	keyring, err := vault.ParseKeyring(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotUsable, err)
	}
	if keyring.Project != o.Object.Spec.Project {
		return fmt.Errorf("%w: its Secret is for project %s, it names project %s", ErrNotUsable, keyring.Project, o.Object.Spec.Project)
	}
	store, err := backend.Open(ctx, Config(&o.Object, data))
	if err != nil {
		return err
	}
	o.VaultID, o.Store = keyring.VaultID, store
	if o.Project, err = keyring.Open(ctx, store); err != nil {
		return err
	}
	if o.Project.IsCopy() != (o.Object.Spec.CopyOf != "") {
		return fmt.Errorf("%w: copyOf of the Vault and what is in the store do not agree: remove the Vault and add it again", ErrNotUsable)
	}
	o.Listing = o.Project.Over(func(s vault.Store) vault.Store { return listed.New(s, rememberBytes) })
	return nil
}

// Config is the way into the store of a Vault, given its Secret's data.
func Config(v *v1alpha1.Vault, data map[string][]byte) backend.Config {
	return backend.Config{
		URL:          v.Spec.URL,
		CA:           []byte(v.Spec.CABundle),
		AccessKey:    string(data["accessKey"]),
		SecretKey:    string(data["secretKey"]),
		SessionToken: string(data["sessionToken"]),
		Rates:        Rates(v),
		Lock:         Lock(v),
	}
}

// Lock is how the vault's objects are locked as they are written.
func Lock(v *v1alpha1.Vault) lock.Policy {
	if v.Spec.Immutability == nil {
		return lock.Policy{}
	}
	return lock.Policy{Mode: lock.Mode(v.Spec.Immutability.Mode), Days: int(v.Spec.Immutability.Days)}
}

// DeletionDelay is how long deleted points of the vault stay. No point is
// removed whose objects are locked: their locks end that long after they were
// prolonged for the last time.
func DeletionDelay(v *v1alpha1.Vault) time.Duration {
	delay := Lock(v).Span()
	if v.Spec.DeletionDelay == nil {
		return delay
	}
	return max(delay, v.Spec.DeletionDelay.Duration)
}

// MinBandwidth is the least that a vault's bandwidth may be bound to, in bytes
// per second: with less, nothing would ever end.
const MinBandwidth = 64 << 10

// Rates are the bounds on the way to a vault. A bandwidth that is too small, in
// an object of before that was refused, counts as the least.
func Rates(v *v1alpha1.Vault) limit.Rates {
	if v.Spec.Bandwidth == nil {
		return limit.Rates{}
	}
	bytes := max(v.Spec.Bandwidth.Value(), MinBandwidth)
	return limit.Rates{UploadPerSecond: bytes, DownloadPerSecond: bytes}
}

// Reason is the condition reason that an error of a vault stands for.
func Reason(err error) string {
	switch {
	case err == nil:
		return v1alpha1.ReasonSucceeded
	case errors.Is(err, vault.ErrKey):
		return v1alpha1.ReasonWrongKey
	case errors.Is(err, vault.ErrFull):
		return v1alpha1.ReasonVaultFull
	case errors.Is(err, vault.ErrDenied):
		return v1alpha1.ReasonVaultDenied
	case errors.Is(err, lease.ErrNameTaken):
		return v1alpha1.ReasonNameTaken
	case errors.Is(err, vault.ErrDamaged):
		return v1alpha1.ReasonDamaged
	case errors.Is(err, ErrNotUsable), errors.Is(err, vault.ErrName), errors.Is(err, vault.ErrNotFound):
		return v1alpha1.ReasonInvalid
	}
	return v1alpha1.ReasonVaultUnavailable
}
