package census

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/preflight"
)

// asked is one right.
type asked struct {
	verb, resource string // resource.group
	namespaces     []string
}

// wanted are the rights that a run uses: to make what the points hold, and to
// keep its lease and its notes.
func (c *census) wanted() []asked {
	spaces := map[string][]string{}
	for _, n := range c.Needs {
		for _, k := range n.Kinds {
			spaces[k.Resource] = append(spaces[k.Resource], n.Namespaces...)
		}
	}
	var all []asked
	for resource, namespaces := range spaces {
		slices.Sort(namespaces)
		for _, verb := range []string{"create", "get", "patch"} {
			all = append(all, asked{verb, resource, slices.Compact(namespaces)})
		}
	}
	for _, own := range []string{"leases.coordination.k8s.io", "configmaps"} {
		for _, verb := range []string{"create", "get", "update"} {
			all = append(all, asked{verb, own, []string{v1alpha1.SystemNamespace}})
		}
	}
	return all
}

// rights asks for each, everywhere first, and where that is denied in each
// namespace. Without anybody whose rights matter nothing is asked.
func (c *census) rights(ctx context.Context) error {
	if c.Restorer == nil {
		return nil
	}
	var mu sync.Mutex
	r := preflight.Rights{Who: c.Who}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, a := range c.wanted() {
		g.Go(func() error {
			denied, err := c.denied(ctx, a)
			mu.Lock()
			defer mu.Unlock()
			r.Asked++
			r.Denied = append(r.Denied, denied...)
			return err
		})
	}
	named := map[preflight.Right]bool{}
	for _, right := range c.Steps {
		if named[right] { // another plan takes it, too
			continue
		}
		named[right] = true
		g.Go(func() error {
			allowed, err := c.may(ctx, asked{verb: right.Verb, resource: right.Resource}, right.Namespace)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if r.Steps == nil {
				r.Steps = map[string]bool{}
			}
			r.Steps[right.String()] = allowed
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		r.Err = err.Error()
	}
	slices.Sort(r.Denied)
	c.site.Rights = r
	return nil
}

func (c *census) denied(ctx context.Context, a asked) ([]string, error) {
	allowed, err := c.may(ctx, a, "")
	if err != nil || allowed {
		return nil, err
	}
	if len(a.namespaces) == 0 {
		return []string{a.verb + " " + a.resource}, nil
	}
	var denied []string
	for _, namespace := range a.namespaces {
		allowed, err := c.may(ctx, a, namespace)
		if err != nil {
			return nil, err
		}
		if !allowed {
			denied = append(denied, fmt.Sprintf("%s %s in %s", a.verb, a.resource, namespace))
		}
	}
	return denied, nil
}

func (c *census) may(ctx context.Context, a asked, namespace string) (bool, error) {
	name, group, _ := strings.Cut(a.resource, ".")
	name, sub, _ := strings.Cut(name, "/")
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: a.verb, Group: group, Resource: name, Subresource: sub, Namespace: namespace},
	}}
	answer, err := c.Restorer.Kubernetes.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask for the right to %s %s: %w", a.verb, a.resource, err)
	}
	return answer.Status.Allowed, nil
}
