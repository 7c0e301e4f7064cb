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
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/imagery"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// cluster opens the cluster that the global flags name.
func (e *env) cluster() (Cluster, error) {
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

// vaultApp is the application's name in the vault for what a person typed.
func vaultApp(name string) string {
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		if namespace == v1alpha1.SystemNamespace {
			return rest
		}
		return namespace + "." + rest
	}
	return name
}

// isPoint tells whether the name is a recovery point's and not an application's.
func isPoint(name string) bool {
	_, ok := point.IDTime(name)
	return ok
}

// appOfPoint takes the application's name out of a point's. Names of more than
// 200 characters are cut in points' names, and so need findPoint.
func appOfPoint(id string) string {
	parts := strings.Split(id, "-")
	if len(parts) < 4 {
		return ""
	}
	return strings.Join(parts[:len(parts)-3], "-")
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

// parseInstant reads a time for --as-of: RFC 3339, a UTC time without zone,
// or how long ago.
func parseInstant(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(strings.TrimSuffix(s, " ago")); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z", "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, nil
		}
	}
	return time.Time{}, exit.Usage("write 2026-01-31T15:04:05Z, \"2026-01-31 15:04\" (UTC) or 10m for ten minutes ago", "time %q is not valid", s)
}

// parseMapping reads "from=to" pairs.
func parseMapping(flag string, pairs []string) (map[string]string, error) {
	mapping := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		from, to, ok := strings.Cut(pair, "=")
		if !ok || vault.CheckName(from) != nil || vault.CheckName(to) != nil {
			return nil, exit.Usage("write --"+flag+" FROM=TO", "--%s %q is not valid", flag, pair)
		}
		if was, taken := mapping[from]; taken && was != to {
			return nil, exit.Usage("", "--%s maps %q to both %q and %q", flag, from, was, to)
		}
		mapping[from] = to
	}
	return mapping, nil
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
		Cluster: func() (client.Client, error) { return e.cluster() },
		Print:   e.print,
		Step:    func(format string, args ...any) { e.progress.Step(format, args...) },
	}
}
