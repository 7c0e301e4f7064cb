package census

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/plan"
)

const (
	// largePage bounds a page of objects that may be large: an Application of Argo CD
	// has the state of all that it makes.
	largePage = 50
	// mostRelied bounds how many objects are named; of more, none is.
	mostRelied = 5_000
)

// relied names the objects that steps of plans may rely on, of the kinds that are
// served. What cannot be listed leaves its list nil.
func (c *census) relied(ctx context.Context) {
	made, err := c.named(ctx, "", plan.Kustomizations, plan.HelmReleases, plan.ArgoCD)
	if err == nil {
		c.site.Reconcilers = made
	}
	names, err2 := c.named(ctx, v1alpha1.LabelMoves+"=true", plan.DNSEndpoints)
	if err2 == nil {
		c.site.Names = names
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, err := range map[string]error{"reconcilers": err, "names": err2} {
		if err != nil {
			c.site.Unread[what] = err.Error()
		}
	}
}

// named lists objects, never nil: of several resources with their resource before
// them.
func (c *census) named(ctx context.Context, selector string, resources ...string) ([]string, error) {
	all := []string{}
	for _, resource := range resources {
		versions := c.site.APIs[resource]
		if len(versions) == 0 {
			continue
		}
		group := schema.ParseGroupResource(resource)
		at := c.Clients.Dynamic.Resource(group.WithVersion(versions[0]))
		opts := metav1.ListOptions{Limit: largePage, LabelSelector: selector}
		for {
			list, err := at.List(ctx, opts)
			if err != nil {
				return nil, err
			}
			for i := range list.Items {
				if name := nameOf(&list.Items[i], resource, len(resources) > 1); name != "" {
					all = append(all, name)
				}
			}
			if len(all) > mostRelied { // one that is left out would be called missing
				return nil, fmt.Errorf("there are more than %d, too many to name", mostRelied)
			}
			if opts.Continue = list.GetContinue(); opts.Continue == "" {
				break
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

func nameOf(u *unstructured.Unstructured, resource string, qualified bool) string {
	name := u.GetNamespace() + "/" + u.GetName()
	switch {
	case qualified:
		return resource + "/" + name
	case u.GetAnnotations()[v1alpha1.AnnotationNameGuard] == "":
		return ""
	}
	return name
}

// accounts are the ServiceAccounts in Davit's namespace.
func (c *census) accounts(ctx context.Context) error {
	list, err := c.Clients.Kubernetes.CoreV1().ServiceAccounts(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	c.site.Accounts = []string{}
	for _, a := range list.Items {
		c.site.Accounts = append(c.site.Accounts, a.Name)
	}
	slices.Sort(c.site.Accounts)
	return nil
}
