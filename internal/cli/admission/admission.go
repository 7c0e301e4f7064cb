// Package admission gives a site its way into a project of a vault: the
// project is made with a recovery key, or entered with it, the site's name is
// claimed for its cluster, and what the cluster needs is written into it.
package admission

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// Request says how the site is to be admitted.
type Request struct {
	Project     string
	RecoveryKey string // file
	Join        bool   // the project exists
	// ReplaceLost takes the site's name from a cluster that is lost.
	ReplaceLost bool
	// Sign is the site and its cluster.
	Sign vault.SiteStatus
	// Confirm has a person say that the cluster of that sign is lost.
	Confirm func(lost vault.SiteStatus) error
}

// PrepareKey reads the recovery key to join with, or makes a new one. It
// checks the file before anything is changed.
func (r *Request) PrepareKey() (vault.Identity, error) {
	if r.RecoveryKey == "" {
		return vault.Identity{}, exit.Usage("the key it holds opens the vault when all sites are lost; keep it outside all of them", "--recovery-key-file is missing")
	}
	if r.Join {
		return access.ReadIdentity(r.RecoveryKey)
	}
	if _, err := os.Lstat(r.RecoveryKey); !errors.Is(err, os.ErrNotExist) {
		return vault.Identity{}, exit.Refuse("to admit this site with the key in it, give --join; for a new project, name a new file",
			"%s exists and is not overwritten", r.RecoveryKey)
	}
	if info, err := os.Stat(filepath.Dir(r.RecoveryKey)); err != nil || !info.IsDir() {
		return vault.Identity{}, exit.Usage("", "%s is no directory to keep the recovery key in", filepath.Dir(r.RecoveryKey))
	}
	return vault.NewRecoveryKey()
}

// Enter makes the project or joins it, and returns this site's own keyring.
// A new recovery key is on disk before anything is sealed with it.
func (r *Request) Enter(ctx context.Context, store vault.Store, key vault.Identity) (vault.Keyring, error) {
	if r.Sign.Site == promotion.Nobody { // its agent's proofs would be taken for those of sites that nothing can ask
		return vault.Keyring{}, exit.Refuse("`uninstall` here, then `install --site` with another name",
			"no site may be called %s: in a vault that was promoted, that is who holds what no site does", r.Sign.Site)
	}
	if r.Join {
		return r.join(ctx, store, key)
	}
	if err := WriteKey(r.RecoveryKey, r.Project, store.String(), key); err != nil {
		return vault.Keyring{}, err
	}
	if _, err := vault.Init(ctx, store); err != nil {
		return vault.Keyring{}, errors.Join(err, os.Remove(r.RecoveryKey))
	}
	project, err := vault.CreateProject(ctx, store, r.Project, key.Recipient())
	if errors.Is(err, vault.ErrExists) {
		return vault.Keyring{}, errors.Join(os.Remove(r.RecoveryKey), exit.Refuse(
			"give --join and the recovery key that was made with it, or choose another --project", "the vault has a project %q already", r.Project))
	}
	if err == nil {
		r.Sign.KeyID = project.NewestKey().KeyID
		err = lease.Beat(ctx, project, r.Sign)
	}
	if err != nil { // it may have come to be: the key file stays
		return vault.Keyring{}, exit.Hint(err, "keep "+r.RecoveryKey+"; run the same command with --join to see whether the project came to be")
	}
	return r.admit(ctx, project)
}

// admit makes the site's own key, and says in its sign of life which it is.
func (r *Request) admit(ctx context.Context, project *vault.Project) (vault.Keyring, error) {
	keyring, err := vault.Admit(ctx, project)
	if err != nil {
		return keyring, err
	}
	r.Sign.Recipient = keyring.Identity.Recipient().String()
	return keyring, lease.Beat(ctx, project, r.Sign)
}

func (r *Request) join(ctx context.Context, store vault.Store, key vault.Identity) (vault.Keyring, error) {
	project, err := vault.OpenProject(ctx, store, r.Project, key)
	if errors.Is(err, vault.ErrNotFound) {
		return vault.Keyring{}, exit.Refuse("check bucket, prefix and --project; without --join a new project is made", "join: %v", err)
	}
	if err != nil {
		return vault.Keyring{}, err
	}
	r.Sign.KeyID = project.NewestKey().KeyID
	if err := r.takeName(ctx, project); err != nil {
		return vault.Keyring{}, err
	}
	return r.admit(ctx, project)
}

// takeName makes this cluster the one that bears the site's name, before it is
// admitted: two clusters of one name would write under each other's.
func (r *Request) takeName(ctx context.Context, project *vault.Project) error {
	err := lease.Beat(ctx, project, r.Sign)
	var taken *lease.NameTakenError
	if !errors.As(err, &taken) {
		return err
	}
	silent, err := lease.Silence(ctx, project, taken.Sign)
	if err != nil {
		return err
	}
	another := fmt.Sprintf("the vault knows site %s as another cluster (%s), which gave a sign of life %s ago",
		taken.Sign.Site, taken.Sign.Cluster, silent.Round(1e9))
	const rename = "`uninstall` here, then `install --site` with a name that no other cluster has"
	switch {
	case silent < lease.SilentAfter:
		return exit.Refuse(fmt.Sprintf("%s; if that cluster is lost, try again once it has been silent for %s", rename, lease.SilentAfter), "%s: it lives", another)
	case !r.ReplaceLost:
		return exit.Refuse(rename+"; if that cluster is lost and this one replaces it, give --replace-lost-site", "%s", another)
	}
	if err := r.Confirm(taken.Sign); err != nil {
		return err
	}
	return lease.Replace(ctx, project, r.Sign)
}

// WriteKey writes a recovery key for its owner's eyes only, and never over
// another file.
func WriteKey(file, project, store string, key vault.Identity) (err error) {
	f, err := exit.NewFile(file, "write recovery key")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = fmt.Fprintf(f, "# Davit recovery key of project %s in %s\n# public key: %s\n# Whoever has this file and the vault can read everything in it. Without it, a vault whose sites are all lost is lost.\n%s\n",
		project, store, key.Recipient(), key.Secret())
	if err != nil {
		return fmt.Errorf("write recovery key: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write recovery key: %w", err)
	}
	return nil
}

// Save writes the Secret, then the Vault that names it.
func Save(ctx context.Context, c client.Client, object *v1alpha1.Vault, cfg backend.Config, keyring vault.Keyring) error {
	data := keyring.Secret()
	for name, value := range map[string]string{access.AccessKey: cfg.AccessKey, access.SecretKey: cfg.SecretKey, access.SessionToken: cfg.SessionToken} {
		if value != "" {
			data[name] = []byte(value)
		}
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: object.Spec.SecretName,
			Labels: map[string]string{"app.kubernetes.io/part-of": "davit"},
		},
		Type: corev1.SecretTypeOpaque, Data: data,
	}
	err := objects.Put(ctx, c, secret, &corev1.Secret{}, func(old *corev1.Secret) { old.Data = data })
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", secret.Name, err)
	}
	spec := object.Spec
	if err := objects.Put(ctx, c, object, &v1alpha1.Vault{}, func(old *v1alpha1.Vault) { old.Spec = spec }); err != nil {
		return fmt.Errorf("write Vault %s: %w", object.Name, err)
	}
	return nil
}
