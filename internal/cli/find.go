package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/bundle"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/imagery"
	"davit.dev/davit/internal/cli/installation"
	"davit.dev/davit/internal/cli/keys"
	"davit.dev/davit/internal/cli/past"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// cluster opens the cluster that the global flags name.
func (e *env) cluster() (wiring.Cluster, error) {
	return e.backend.Cluster(e.global.kubeconfig, e.global.context)
}

// findApplication finds an application by its name in the vault, or by
// namespace/name.
func findApplication(ctx context.Context, c client.Client, name string) (*v1alpha1.Application, error) {
	var all v1alpha1.ApplicationList
	if err := c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	var names []string
	for i := range all.Items {
		app := &all.Items[i]
		if app.VaultName() == name || app.Namespace+"/"+app.Name == name {
			return app, nil
		}
		names = append(names, app.VaultName())
	}
	if len(names) == 0 {
		return nil, exit.Refuse("`protect NAME --namespace NAMESPACE` protects one", "no application is protected here")
	}
	slices.Sort(names)
	return nil, exit.Refuse("`status` lists them; `protect` adds one", "there is no application %q here; known: %s", name, strings.Join(names, ", "))
}

// findPointObject finds a RecoveryPoint object in whatever namespace.
func findPointObject(ctx context.Context, c client.Client, id string) (*v1alpha1.RecoveryPoint, error) {
	var all v1alpha1.RecoveryPointList
	if err := c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list recovery points: %w", err)
	}
	for i := range all.Items {
		if all.Items[i].Name == id {
			return &all.Items[i], nil
		}
	}
	return nil, apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("recoverypoints").GroupResource(), id)
}

// opener opens vaults through the cluster that the global flags name.
func (e *env) opener() *access.Opener {
	return &access.Opener{
		Cluster: func() (client.Client, error) { return e.cluster() },
		Store:   e.backend.Store, Getenv: e.getenv, Vault: e.global.vault,
	}
}

// imagery is what the commands about images work with.
func (e *env) imagery() imagery.Host {
	return imagery.Host{
		Bounded: e.working,
		Point: func(ctx context.Context, cmd *cobra.Command, a *access.Address, name string) (*point.Manifest, error) {
			in, err := e.opener().Open(ctx, nil, a, cmd.Flags())
			if err != nil {
				return nil, err
			}
			app, id, err := choosePoint(ctx, e, in, name)
			if err != nil {
				return nil, err
			}
			return in.Project.Manifest(ctx, app, id)
		},
		Vault: func(ctx context.Context, cmd *cobra.Command, a *access.Address) (*access.Opened, error) {
			return e.opener().Open(ctx, nil, a, cmd.Flags())
		},
		Cluster: func() (client.Client, error) { return e.cluster() },
		Now:     e.now,
		Print:   e.print,
		Step:    func(format string, args ...any) { e.progress.Step(format, args...) },
	}
}

// keys is what `vault keys` works with.
func (e *env) keys() keys.Host {
	return keys.Host{
		Bounded: e.working, Now: e.now, Print: e.print, Ask: e.askFor,
		Open: func(ctx context.Context, cmd *cobra.Command, a *access.Address) (*access.Opened, error) {
			return e.opener().Open(ctx, nil, a, cmd.Flags())
		},
		Step: func(format string, args ...any) { e.progress.Step(format, args...) },
		Say: func(format string, args ...any) {
			e.progress.Done()
			fmt.Fprintf(e.Err, format, args...)
		},
		Args: func(n int, names string) cobra.PositionalArgs { return args(cobra.ExactArgs(n), names) },
	}
}

// past is what `vault revert` and `vault reclaim` work with.
func (e *env) past() past.Host {
	k := e.keys()
	return past.Host{
		Bounded: k.Bounded, Now: k.Now, Print: k.Print, Ask: k.Ask, Step: k.Step, Say: k.Say, Args: k.Args,
		Store: func(ctx context.Context, cmd *cobra.Command, a *access.Address) (vault.Store, error) {
			cfg, err := e.opener().Config(a, cmd.Flags())
			if err != nil {
				return nil, err
			}
			return e.backend.Store(ctx, cfg)
		},
	}
}

// bundling is what `support-bundle` works with.
func (e *env) bundling() bundle.Host {
	return bundle.Host{
		Out: e.Out, Bounded: e.working, Now: e.now, Print: e.print,
		Cluster: func() (bundle.Cluster, error) { return e.cluster() },
		Step:    func(format string, args ...any) { e.progress.Step(format, args...) },
	}
}

// installation is what `install` and `uninstall` work with.
func (e *env) installation() installation.Host {
	return installation.Host{
		Args: args(cobra.NoArgs, ""), Bounded: e.working, Cluster: e.cluster, Now: e.now, Print: e.print, Ask: e.askFor, Named: e.named,
		Timeout: func() time.Duration { return e.global.timeout },
		Step:    func(format string, args ...any) { e.progress.Step(format, args...) },
		Note:    func(format string, args ...any) { e.progress.Note(format, args...) },
	}
}
