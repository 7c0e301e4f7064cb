package larder

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

// ForPlan are the names of all images that runs of a plan need at a site: those of its
// applications' newest points as Names has them, and those of its own steps.
func ForPlan(ctx context.Context, c client.Client, p *plan.Plan, site string, needs []preflight.Need, mirror string) ([]string, error) {
	var wanted []Wanted
	for _, n := range needs {
		wanted = append(wanted, Wanted{Application: n.Application, Images: n.Images})
	}
	var mappings []plan.Mapping
	for _, s := range p.Sites {
		if s.Name == site {
			mappings = s.Mappings
		}
	}
	all, err := Names(ctx, c, wanted, mirror, mappings)
	if err != nil {
		return nil, err
	}
	for _, i := range preflight.StepImages(p) {
		all = append(all, i.Reference)
	}
	return sorted(all), nil
}

// Record keeps what nodes have in the cluster, for the site's facts. What was seen of an image
// before is replaced, and what is too old to prove anything goes.
func Record(ctx context.Context, c client.Client, nodes []Node, now time.Time) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: census.StockName, Labels: map[string]string{v1alpha1.LabelManagedBy: "davit"},
		}}
		err := c.Get(ctx, client.ObjectKeyFromObject(cm), cm)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		stock := census.ReadStock(cm, now)
		for name, seen := range count(nodes, now) {
			stock[name] = seen
		}
		text, marshal := json.Marshal(stock)
		if marshal != nil {
			return marshal
		}
		cm.Data = map[string]string{census.StockKey: string(text)}
		if err != nil {
			return c.Create(ctx, cm)
		}
		return c.Update(ctx, cm)
	})
	if err != nil {
		return fmt.Errorf("keep what nodes have in ConfigMap %s/%s: %w", v1alpha1.SystemNamespace, census.StockName, err)
	}
	return nil
}

func count(nodes []Node, now time.Time) map[string]census.Stock {
	all := map[string]census.Stock{}
	for _, n := range nodes {
		for _, i := range n.Images {
			s := all[i.Name]
			s.At = now.UTC().Truncate(time.Second)
			if i.Present {
				s.Nodes++
			}
			all[i.Name] = s
		}
	}
	return all
}
