// Package hold keeps, in a site's own cluster, the epochs for which it promises its peers nothing any more: of each
// application the newest that a claim was made with here. The numbers only grow. Whoever is asked for a
// promise reads them there, anew (docs/decisions/0039-promises.md).
package hold

import (
	"context"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/restore/port"
)

var (
	kindConfigMap = schema.GroupKind{Kind: "ConfigMap"}
	kindNamespace = schema.GroupKind{Kind: "Namespace"}
)

// raiseEvery is how long is waited before another try, where somebody else wrote meanwhile.
const raiseEvery = 50 * time.Millisecond

// Name is the ConfigMap of davit-system that has the holds of a project, which goes by the id of its first data key.
func Name(project string) string { return "davit-hold-" + project }

// Of is the number that an application's entry of the ConfigMap says; zero for none.
func Of(data map[string]string, app string) (int64, error) {
	text, there := data[app]
	if !there {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("read the hold of %s: %.40q is no epoch", app, text)
	}
	return n, nil
}

// Held tells whether all these epochs, or newer ones, are there.
func Held(ctx context.Context, c port.Cluster, project string, epochs map[string]int64) (held bool, err error) {
	live, _, err := get(ctx, c, project)
	if live == nil || err != nil {
		return false, err
	}
	lacks, err := lacking(live, epochs)
	return err == nil && len(lacks) == 0, err
}

// Raise writes the epochs, each unless a newer one is there. From when it returns, whoever reads finds them.
func Raise(ctx context.Context, c port.Cluster, project string, epochs map[string]int64) error {
	for {
		err := raise(ctx, c, project, epochs)
		if err == nil || !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(raiseEvery):
		}
	}
}

func raise(ctx context.Context, c port.Cluster, project string, epochs map[string]int64) error {
	live, at, err := get(ctx, c, project)
	if err != nil {
		return err
	}
	found := live != nil
	if !found {
		live = &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{
			"namespace": v1alpha1.SystemNamespace, "name": Name(project), "labels": map[string]any{v1alpha1.LabelManagedBy: "davit"},
		}}}
	}
	lacks, err := lacking(live, epochs)
	if err != nil || len(lacks) == 0 {
		return err
	}
	for app, n := range lacks {
		if err := unstructured.SetNestedField(live.Object, strconv.FormatInt(n, 10), "data", app); err != nil {
			return fmt.Errorf("write the hold of %s: %w", app, err)
		}
	}
	if found { // with the version that was read: of two that write at once, one reads again
		_, err = c.Update(ctx, at, live, "")
	} else {
		_, err = c.Create(ctx, at, live)
		if apierrors.IsNotFound(err) { // a cluster that has no Davit yet
			if err = makeNamespace(ctx, c); err == nil {
				_, err = c.Create(ctx, at, live)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("write ConfigMap %s: %w", live.GetName(), err)
	}
	return nil
}

func makeNamespace(ctx context.Context, c port.Cluster) error {
	at, err := c.Serves(ctx, kindNamespace)
	if err != nil {
		return fmt.Errorf("look at namespaces: %w", err)
	}
	_, err = c.Create(ctx, at[0], &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
		"name": v1alpha1.SystemNamespace, "labels": map[string]any{v1alpha1.LabelManagedBy: "davit"},
	}}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// get reads the ConfigMap; nil if there is none.
func get(ctx context.Context, c port.Cluster, project string) (*unstructured.Unstructured, port.Served, error) {
	served, err := c.Serves(ctx, kindConfigMap)
	if err != nil {
		return nil, port.Served{}, fmt.Errorf("look at ConfigMaps: %w", err)
	}
	live, err := c.Get(ctx, served[0], v1alpha1.SystemNamespace, Name(project))
	if apierrors.IsNotFound(err) {
		return nil, served[0], nil
	}
	if err != nil {
		return nil, served[0], fmt.Errorf("read ConfigMap %s: %w", Name(project), err)
	}
	return live, served[0], nil
}

// lacking are the epochs that are above what is there. A number that cannot be read is an error: it may be higher.
func lacking(live *unstructured.Unstructured, epochs map[string]int64) (map[string]int64, error) {
	data, _, err := unstructured.NestedStringMap(live.Object, "data")
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", live.GetName(), err)
	}
	lacks := map[string]int64{}
	for app, n := range epochs {
		held, err := Of(data, app)
		if err != nil {
			return nil, fmt.Errorf("%w: mend ConfigMap %s", err, live.GetName())
		}
		if held < n {
			lacks[app] = n
		}
	}
	return lacks, nil
}
