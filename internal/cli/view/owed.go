package view

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/kube/quiescer"
)

// Owed is what a capture that died did to an application and nobody has undone
// yet, although the agent tries every few seconds.
type Owed struct {
	Application string `json:"application,omitempty"`
	Hooks       int    `json:"hooks,omitempty"`
	// Pods are those in which hooks have to be undone.
	Pods    []string `json:"pods,omitempty"`
	Message string   `json:"message,omitempty"` // why it cannot be read
}

// gatherOwed reads what is owed to applications that nothing captures now: of
// those, the capture itself undoes it.
func (v *Status) gatherOwed(ctx context.Context, c client.Client) error {
	var records corev1.ConfigMapList
	err := c.List(ctx, &records, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels{quiescer.LabelOwed: "true"})
	if apierrors.IsForbidden(err) {
		return nil // the rest of the status is of use without it
	}
	if err != nil {
		return fmt.Errorf("look what is owed to applications: %w", err)
	}
	if len(records.Items) == 0 {
		return nil
	}
	var points v1alpha1.RecoveryPointList
	if err := c.List(ctx, &points); err != nil {
		return fmt.Errorf("list recovery points: %w", err)
	}
	for i := range records.Items {
		debt, err := quiescer.Read(&records.Items[i])
		if err != nil {
			v.Owed = append(v.Owed, Owed{Application: debt.Application, Message: err.Error()})
			continue
		}
		captured := slices.ContainsFunc(points.Items, func(p v1alpha1.RecoveryPoint) bool {
			return p.Status.Phase == v1alpha1.PointCapturing && ApplicationOf(&p) == debt.Application
		})
		if captured || len(debt.Owed) == 0 {
			continue
		}
		owed := Owed{Application: debt.Application, Hooks: len(debt.Owed)}
		for _, o := range debt.Owed {
			if pod := o.Target.Namespace + "/" + o.Target.Pod; !slices.Contains(owed.Pods, pod) {
				owed.Pods = append(owed.Pods, pod)
			}
		}
		v.Owed = append(v.Owed, owed)
	}
	return nil
}

// owedText says what a person has to look at: an application may be at rest.
func (v Status) owedText(t *output.Text) {
	if len(v.Owed) == 0 {
		return
	}
	t.Section("Left at rest")
	for _, o := range v.Owed {
		if o.Message != "" {
			t.Line("%s", output.OneLine(o.Message))
			continue
		}
		t.Line("%s: %s of a capture that died still to be undone, in %s; the agent tries again, and its log says what keeps it",
			o.Application, output.Plural(int64(o.Hooks), "hook"), strings.Join(o.Pods[:min(len(o.Pods), 5)], ", "))
	}
}
