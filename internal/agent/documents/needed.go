package documents

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/uplink"
)

// Vaults opens vaults by the name of their objects.
type Vaults interface {
	Protector(ctx context.Context, name string) (*protection.Protector, error)
}

// unneeded refuses to take away what still holds something up.
func (k *Keeper) unneeded(ctx context.Context, d uplink.Document, live *unstructured.Unstructured) error {
	switch d.Kind {
	case "Application":
		return k.untaken(ctx, live)
	case "ProtectionPolicy":
		return k.unnamed(ctx, d)
	}
	return nil
}

// untaken refuses to take away an application that another site holds or ever
// held: without the object nothing would fence it here, or, after a failback,
// protect it. Whoever asked may not know of either. A status may be as old as the
// cluster's last loss, so the vaults are asked now, and silence takes nothing away.
func (k *Keeper) untaken(ctx context.Context, live *unstructured.Unstructured) error {
	const stays = "without this object nothing fences it here, or protects it after a failback. It stays until a person deletes it"
	annotations := live.GetAnnotations()
	if annotations[v1alpha1.AnnotationRestoring] != "" || annotations[v1alpha1.AnnotationHeldBy] != "" {
		return fault(uplink.Waiting, "a restore or a run has it in hand")
	}
	role, _, _ := unstructured.NestedString(live.Object, "status", "role")
	if role == string(v1alpha1.RoleSuperseded) {
		return fault(uplink.Conflict, "another site has taken it over: %s", stays)
	}
	names, err := k.vaultsOf(ctx, live)
	if err != nil {
		return err
	}
	app := v1alpha1.Application{}
	app.Name, app.Namespace = live.GetName(), live.GetNamespace()
	for _, name := range names {
		other, err := k.other(ctx, name, app.VaultName())
		if err != nil {
			return fault(uplink.Waiting, "whether another site has taken it over is not known: Vault %s gives no answer: %v", name, err)
		}
		if other.Number > 0 {
			return fault(uplink.Conflict, "site %s took it over with epoch %d in Vault %s: %s", other.Claim.Site, other.Number, name, stays)
		}
	}
	return nil
}

// other is the newest epoch of an application that another site ever held in a Vault.
func (k *Keeper) other(ctx context.Context, name, app string) (lease.Epoch, error) {
	p, err := k.Vaults.Protector(ctx, name)
	if err != nil {
		return lease.Epoch{}, err
	}
	return p.Other(ctx, app)
}

// vaultsOf are the Vaults where an application may have epochs: the one that it
// names, and all others of the project, for a document may just have named another.
// A copy has none of its own.
func (k *Keeper) vaultsOf(ctx context.Context, live *unstructured.Unstructured) ([]string, error) {
	var vaults v1alpha1.VaultList
	if err := k.Reader.List(ctx, &vaults); err != nil {
		return nil, fmt.Errorf("list vaults: %w", err)
	}
	named, _, _ := unstructured.NestedString(live.Object, "spec", "vault")
	names := []string{named}
	for _, v := range vaults.Items {
		if v.Spec.Project == k.Project && v.Spec.CopyOf == "" {
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// unnamed refuses to take away a policy that an application goes by, whoever made
// that one: it would not be captured any more.
func (k *Keeper) unnamed(ctx context.Context, d uplink.Document) error {
	var apps v1alpha1.ApplicationList
	if err := k.Reader.List(ctx, &apps, client.InNamespace(d.Namespace)); err != nil {
		return fmt.Errorf("list applications: %w", err)
	}
	var names []string
	for _, a := range apps.Items {
		if a.Spec.Policy == d.Name {
			names = append(names, a.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fault(uplink.Waiting, "applications here go by it: %s. They would not be captured any more: have them name another first", strings.Join(names, ", "))
}
