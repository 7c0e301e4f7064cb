package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/selftest"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
)

func (e *env) vaultCheckCommand() *cobra.Command {
	var a access.Address
	cmd := &cobra.Command{
		Use:   "check [NAME]",
		Short: "Test a vault from here: reading, writing, conditional writes, keys",
		Long: `Writes, reads, lists and deletes in the vault, races conditional writes against each other, measures latency and clock
skew, and checks that this site's key opens the project; of a vault that was added with --no-overwrite, also that its credentials
can destroy nothing. What it writes it removes; what the bucket keeps of that (of the last test, always something) stays as former
versions under selftest/.`,
		Args: args(cobra.MaximumNArgs(1), "at most one NAME"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				e.global.vault = given[0]
			}
			return e.runVaultCheck(cmd, &a)
		},
	}
	a.BreakGlass(cmd.Flags())
	return cmd
}

func (e *env) runVaultCheck(cmd *cobra.Command, a *access.Address) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	store, open, kept, err := e.checkable(ctx, cmd, a)
	if err != nil {
		return err
	}
	e.progress.Step("testing %s", store)
	report := selftest.Run(ctx, store, e.now)
	if kept && report.Err() == nil {
		report.NoOverwrite(ctx, store)
	}
	if report.Err() == nil {
		report.Add("key opens the project", func() (string, error) {
			project, err := open(ctx)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("project %s", project.Name()), errors.Join(project.VerifyMetadata(ctx, nil), lease.Verify(ctx, project, nil))
		})
	}
	if err := e.print(report); err != nil {
		return err
	}
	if report.Err() != nil {
		return exit.OfVault(fmt.Errorf("check %s: %w", store, report.Err()))
	}
	return nil
}

type opener func(ctx context.Context) (*vault.Project, error)

// checkable opens the store apart from the project, so that each can be told
// from the other; kept says that nobody with the site's credentials is to
// destroy what is in it.
func (e *env) checkable(ctx context.Context, cmd *cobra.Command, a *access.Address) (_ vault.Store, _ opener, kept bool, _ error) {
	if a.URL != "" {
		cfg, err := e.opener().Config(a, cmd.Flags())
		if err != nil {
			return nil, nil, false, err
		}
		store, err := e.backend.Store(ctx, cfg)
		return store, func(ctx context.Context) (*vault.Project, error) {
			o, err := e.opener().OpenByAddress(ctx, a, cmd.Flags())
			if err != nil {
				return nil, err
			}
			return o.Project, nil
		}, false, err
	}
	c, err := e.cluster()
	if err != nil {
		return nil, nil, false, err
	}
	v, err := access.ChooseVault(ctx, c, e.global.vault)
	if err != nil {
		return nil, nil, false, err
	}
	cfg, data, err := access.StoreConfig(ctx, c, v)
	if err != nil {
		return nil, nil, false, err
	}
	store, err := e.backend.Store(ctx, cfg)
	return store, func(ctx context.Context) (*vault.Project, error) {
		keyring, err := vault.ParseKeyring(data)
		if err != nil {
			return nil, err
		}
		return keyring.Open(ctx, store)
	}, v.Spec.NoOverwrite, err
}

func (e *env) vaultListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List this site's vaults", Args: args(cobra.NoArgs, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := e.looking(cmd)
			defer cancel()
			c, err := e.cluster()
			if err != nil {
				return err
			}
			var all v1alpha1.VaultList
			if err := c.List(ctx, &all); err != nil {
				return fmt.Errorf("list vaults: %w", err)
			}
			views := view.Vaults{Vaults: []view.Vault{}, Now: e.now()}
			for i := range all.Items {
				views.Vaults = append(views.Vaults, view.OfVaultObject(&all.Items[i]))
			}
			return e.print(views)
		},
	}
}
