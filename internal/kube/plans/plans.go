// Package plans finds recovery plans: those that a cluster serves, and those that
// the vault keeps.
package plans

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
)

// lastApplied is kubectl's own note.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// ErrUnknown says that neither the cluster nor the vault has the plan.
var ErrUnknown = errors.New("there is no such plan")

// Found is a plan and where it was found.
type Found struct {
	Object *v1alpha1.RecoveryPlan
	// Revision is that in the vault, and Site who wrote it; zero when it is the
	// cluster's, and not in the vault as it is.
	Revision int64
	Site     string
}

// Plan is what the core works with.
func (f Found) Plan() *plan.Plan { return document.Convert(f.Object) }

// Document is a plan as a person would write it.
func Document(p *v1alpha1.RecoveryPlan) (json.RawMessage, error) {
	annotations := maps.Clone(p.Annotations)
	delete(annotations, lastApplied)
	bare := struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ObjectMeta         `json:"metadata"`
		Spec            v1alpha1.RecoveryPlanSpec `json:"spec"`
	}{
		metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "RecoveryPlan"},
		metav1.ObjectMeta{Name: p.Name, Labels: p.Labels, Annotations: annotations},
		p.Spec,
	}
	data, err := json.Marshal(bare)
	if err != nil {
		return nil, fmt.Errorf("encode plan %s: %w", p.Name, err)
	}
	return data, nil
}

// Parse reads a plan that the vault keeps.
func Parse(sheet shelf.Sheet) (Found, error) {
	var p v1alpha1.RecoveryPlan
	if err := json.Unmarshal(sheet.Document, &p); err != nil {
		return Found{}, fmt.Errorf("read plan %s, revision %d: %w: %w", sheet.Plan, sheet.Revision, vault.ErrDamaged, err)
	}
	if p.Name != sheet.Plan {
		return Found{}, fmt.Errorf("read plan %s, revision %d: %w: it is of %q", sheet.Plan, sheet.Revision, vault.ErrDamaged, p.Name)
	}
	return Found{Object: &p, Revision: sheet.Revision, Site: sheet.Site}, nil
}

// Here returns the plan that the cluster serves, nil if it has none or may not be
// asked.
func Here(ctx context.Context, c client.Reader, name string) (*v1alpha1.RecoveryPlan, error) {
	if c == nil {
		return nil, nil
	}
	var p v1alpha1.RecoveryPlan
	err := c.Get(ctx, client.ObjectKey{Name: name}, &p)
	switch {
	case err == nil:
		return &p, nil
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err), apierrors.IsForbidden(err):
		return nil, nil
	}
	return nil, fmt.Errorf("read RecoveryPlan %s: %w", name, err)
}

// Find returns the plan that a run is to follow: the newest in the vault, unless
// the cluster has one that is not mirrored there yet.
func Find(ctx context.Context, c client.Reader, p *vault.Project, name string) (Found, error) {
	here, err := Here(ctx, c, name)
	if err != nil {
		return Found{}, err
	}
	if here != nil && !Mirrored(here) {
		return Found{Object: here}, nil
	}
	sheet, err := shelf.New(p).Get(ctx, name)
	switch {
	case errors.Is(err, vault.ErrNotFound) && here != nil:
		return Found{Object: here}, nil
	case errors.Is(err, vault.ErrNotFound):
		return Found{}, fmt.Errorf("%w: %s", ErrUnknown, name)
	case err != nil:
		return Found{}, err
	}
	return Parse(sheet)
}

// Mirrored tells whether the vault has held the plan as it is here now.
func Mirrored(p *v1alpha1.RecoveryPlan) bool {
	c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionMirrored)
	return c != nil && c.ObservedGeneration == p.Generation && p.Status.Revision > 0
}

// Vault names the Vault that keeps a plan: the one that it names, or the cluster's
// only one that is no copy.
func Vault(ctx context.Context, c client.Reader, p *v1alpha1.RecoveryPlan) (string, error) {
	if p.Spec.Vault != "" {
		return p.Spec.Vault, nil
	}
	var list v1alpha1.VaultList
	if err := c.List(ctx, &list); err != nil {
		return "", fmt.Errorf("list vaults: %w", err)
	}
	return Among(list.Items, p)
}

// Among is Vault among all that the cluster has.
func Among(vaults []v1alpha1.Vault, p *v1alpha1.RecoveryPlan) (string, error) {
	if p.Spec.Vault != "" {
		return p.Spec.Vault, nil
	}
	var own []string
	for i := range vaults {
		if vaults[i].Spec.CopyOf == "" {
			own = append(own, vaults[i].Name)
		}
	}
	switch len(own) {
	case 0:
		return "", errors.New("this site has no vault: davit vault add adds one")
	case 1:
		return own[0], nil
	}
	return "", fmt.Errorf("this site has several vaults, %s: say spec.vault", strings.Join(own, ", "))
}
