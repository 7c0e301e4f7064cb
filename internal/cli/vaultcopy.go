package cli

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// addCopy makes a store the second copy of a vault that this site has. What
// opens the project is in it when it returns, the points follow.
func (e *env) addCopy(ctx context.Context, o *vaultAdd, cfg backend.Config) error {
	c, err := e.cluster()
	if err != nil {
		return err
	}
	sign, err := e.admissible(ctx, c, o)
	if err != nil {
		return err
	}
	if o.join {
		return e.joinCopy(ctx, c, o, cfg, sign.Site)
	}
	first, err := access.ChooseVault(ctx, c, o.copyOf)
	if err != nil {
		return err
	}
	if err := admission.Distinct(first, o.domain, cfg.URL); err != nil {
		return err
	}
	_, data, err := access.StoreConfig(ctx, c, first)
	if err != nil {
		return err
	}
	keyring, err := vault.ParseKeyring(data)
	if err != nil {
		return fmt.Errorf("open vault %s: %w", first.Name, err)
	}
	store, err := e.backend.Store(ctx, cfg)
	if err == nil {
		err = o.fits(ctx, store)
	}
	if err != nil {
		return err
	}
	e.progress.Step("testing %s", store)
	if report := o.test(ctx, store, e.now); report.Err() != nil {
		return e.failedTest(report)
	}
	o.Project = first.Spec.Project
	object := o.object(cfg)
	if o.dryRun {
		return e.print(view.VaultAdded{Vault: object, DryRun: true})
	}
	e.progress.Step("copying what opens project %s", o.Project)
	in, err := e.opener().OpenHere(ctx, c, first.Name)
	if err != nil {
		return err
	}
	if err := copies.Bootstrap(ctx, in.Project, store); err != nil {
		if errors.Is(err, vault.ErrExists) {
			return exit.Refuse("give an empty bucket or prefix", "%v", err)
		}
		return err
	}
	if err := admission.Save(ctx, c, object, cfg, keyring); err != nil {
		return exit.Hint(err, "mend the cause and run the same command again")
	}
	return e.print(view.VaultAdded{Vault: object, Site: in.Site})
}

// joinCopy gives a site that does not have the first vault a way into a copy.
func (e *env) joinCopy(ctx context.Context, c wiring.Cluster, o *vaultAdd, cfg backend.Config, site string) error {
	key, err := access.ReadIdentity(o.RecoveryKey)
	if err != nil {
		return err
	}
	store, err := e.backend.Store(ctx, cfg)
	if err != nil {
		return err
	}
	e.progress.Step("opening the copy")
	project, err := vault.OpenProject(ctx, store, o.Project, key)
	if errors.Is(err, vault.ErrNotFound) {
		return exit.Refuse("check bucket, prefix and --project", "join the copy: %v", err)
	}
	if err != nil {
		return err
	}
	if !project.IsCopy() {
		return exit.Refuse("leave --copy-of out", "%s is a vault, and no copy of one", store)
	}
	object := o.object(cfg)
	if o.dryRun {
		return e.print(view.VaultAdded{Vault: object, DryRun: true})
	}
	keyring, err := vault.Admit(ctx, project)
	if err != nil {
		return err
	}
	if err := admission.Save(ctx, c, object, cfg, keyring); err != nil {
		return exit.Hint(err, "mend the cause and run the same command again")
	}
	return e.print(view.VaultAdded{Vault: object, Site: site, Joined: true})
}
