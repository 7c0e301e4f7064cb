package census

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/preflight"
)

// asked is one right.
type asked struct {
	verb, resource string // resource.group
	namespaces     []string
}

// Account is one whose rights are asked for, of some applications and steps.
type Account struct {
	Name    string
	Clients *kube.Clients // that act as it
	Needs   []preflight.Need
	Steps   []preflight.Right
}

// wanted are the rights that a run uses: to make what the points hold, and to
// keep its lease and its notes.
func (a Account) wanted() []asked {
	spaces := map[string][]string{}
	for _, n := range a.Needs {
		for _, k := range n.Kinds {
			spaces[k.Resource] = append(spaces[k.Resource], n.Namespaces...)
		}
	}
	var all []asked
	for resource, namespaces := range spaces {
		slices.Sort(namespaces)
		namespaces = slices.Compact(namespaces)
		for _, verb := range []string{"create", "get", "patch"} {
			all = append(all, asked{verb, resource, namespaces})
		}
	}
	for _, own := range []string{"leases.coordination.k8s.io", "configmaps"} {
		for _, verb := range []string{"create", "get", "update"} {
			all = append(all, asked{verb, own, []string{v1alpha1.SystemNamespace}})
		}
	}
	return all
}

// rights asks for those of whoever restores, and of the accounts that plans name.
// Without anybody whose rights matter nothing is asked.
func (c *census) rights(ctx context.Context) error {
	if c.Restorer != nil {
		c.site.Rights = Account{c.Who, c.Restorer, c.Needs, c.Steps}.rights(ctx)
	}
	for _, a := range c.Accounts {
		if c.site.RightsOf == nil {
			c.site.RightsOf = map[string]preflight.Rights{}
		}
		c.site.RightsOf[a.Name] = a.rights(ctx)
	}
	return nil
}

// rights asks for each, everywhere first, and where that is denied in each namespace.
func (a Account) rights(ctx context.Context) preflight.Rights {
	var mu sync.Mutex
	r := preflight.Rights{Who: a.Name}
	for _, n := range a.Needs {
		r.Applications = append(r.Applications, n.Application)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, w := range a.wanted() {
		g.Go(func() error {
			denied, err := a.denied(ctx, w)
			mu.Lock()
			defer mu.Unlock()
			r.Asked++
			r.Denied = append(r.Denied, denied...)
			return err
		})
	}
	named := map[preflight.Right]bool{}
	for _, right := range a.Steps {
		if named[right] { // another plan takes it, too
			continue
		}
		named[right] = true
		g.Go(func() error {
			allowed, err := a.may(ctx, asked{verb: right.Verb, resource: right.Resource}, right.Namespace)
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
	switch err := g.Wait(); {
	case apierrors.IsForbidden(err): // anybody may ask for his own: it is that nobody may act as the account
		r.Asked, r.Denied, r.Steps = max(r.Asked, 1), []string{preflight.Impersonated}, nil
	case err != nil:
		r.Err = err.Error()
	}
	slices.Sort(r.Denied)
	return r
}

func (a Account) denied(ctx context.Context, w asked) ([]string, error) {
	allowed, err := a.may(ctx, w, "")
	if err != nil || allowed {
		return nil, err
	}
	if len(w.namespaces) == 0 {
		return []string{w.verb + " " + w.resource}, nil
	}
	var denied []string
	for _, namespace := range w.namespaces {
		allowed, err := a.may(ctx, w, namespace)
		if err != nil {
			return nil, err
		}
		if !allowed {
			denied = append(denied, fmt.Sprintf("%s %s in %s", w.verb, w.resource, namespace))
		}
	}
	return denied, nil
}

func (a Account) may(ctx context.Context, w asked, namespace string) (bool, error) {
	name, group, _ := strings.Cut(w.resource, ".")
	name, sub, _ := strings.Cut(name, "/")
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: w.verb, Group: group, Resource: name, Subresource: sub, Namespace: namespace},
	}}
	answer, err := a.Clients.Kubernetes.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask for the right to %s %s: %w", w.verb, w.resource, err)
	}
	return answer.Status.Allowed, nil
}
