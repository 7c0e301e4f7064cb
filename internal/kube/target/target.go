// Package target adapts a Kubernetes cluster to the ports of the restore engine.
package target

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/port"
)

// FieldManager is who restored fields belong to.
const FieldManager = "davit"

// unservedFor bounds the wait for an API server to say that it has a kind no more.
const (
	unservedFor   = 10 * time.Second
	unservedEvery = 200 * time.Millisecond
)

// pageSize is how many objects one listing asks for.
const pageSize = 500

// Cluster acts on one cluster as one user. It is safe for use by several
// goroutines.
type Cluster struct {
	clients *kube.Clients
	dryRun  []string // All, when nothing is to be written
	rights  rights

	mu     sync.Mutex
	served map[schema.GroupKind][]restore.Served // nil until asked
	broken map[schema.GroupVersion]error         // those that did not answer the last time
}

var _ restore.Cluster = (*Cluster)(nil)

// New makes the port. The clients' rights are those of the restore.
func New(clients *kube.Clients) *Cluster {
	return &Cluster{clients: clients, rights: rights{now: time.Now}}
}

// DryRun is the same cluster, where writes only say what they would come to.
func (c *Cluster) DryRun() port.Cluster {
	dry := New(c.clients)
	dry.dryRun = []string{metav1.DryRunAll}
	return dry
}

// Refresh implements restore.Cluster.
func (c *Cluster) Refresh(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.served = nil
	return nil
}

// Serves implements restore.Cluster.
func (c *Cluster) Serves(_ context.Context, kind schema.GroupKind) ([]restore.Served, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.served == nil {
		if err := c.discover(); err != nil {
			return nil, err
		}
	}
	if served := c.served[kind]; len(served) > 0 {
		return served, nil
	}
	for gv, err := range c.broken {
		if gv.Group == kind.Group {
			return nil, fmt.Errorf("%w: %s: group %s does not answer: %w", restore.ErrUnanswered, kind, gv, err)
		}
	}
	return nil, fmt.Errorf("%w: %s", restore.ErrNotServed, kind)
}

// discover asks for everything at once: two requests with aggregated discovery.
func (c *Cluster) discover() error {
	groups, lists, err := c.clients.Discovery.ServerGroupsAndResources()
	var partial *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &partial) {
		return fmt.Errorf("discover kinds: %w", err)
	}
	c.broken = nil
	if partial != nil {
		c.broken = partial.Groups
	}
	c.served = map[schema.GroupKind][]restore.Served{}
	byVersion := map[string]*metav1.APIResourceList{}
	for _, list := range lists {
		byVersion[list.GroupVersion] = list
	}
	for _, group := range groups {
		for _, version := range preferredFirst(group) {
			c.learn(byVersion[version])
		}
	}
	return nil
}

func preferredFirst(group *metav1.APIGroup) []string {
	versions := []string{group.PreferredVersion.GroupVersion}
	for _, v := range group.Versions {
		if v.GroupVersion != group.PreferredVersion.GroupVersion {
			versions = append(versions, v.GroupVersion)
		}
	}
	return versions
}

func (c *Cluster) learn(list *metav1.APIResourceList) {
	if list == nil {
		return
	}
	gv, err := schema.ParseGroupVersion(list.GroupVersion)
	if err != nil {
		return
	}
	for _, r := range list.APIResources {
		if isSubresource(r.Name) {
			continue
		}
		kind := schema.GroupKind{Group: gv.Group, Kind: r.Kind}
		c.served[kind] = append(c.served[kind], restore.Served{
			GVK: gv.WithKind(r.Kind), GVR: gv.WithResource(r.Name), Namespaced: r.Namespaced,
		})
	}
}

func isSubresource(name string) bool {
	for i := range len(name) {
		if name[i] == '/' {
			return true
		}
	}
	return false
}

func (c *Cluster) at(at restore.Served, namespace string) dynamic.ResourceInterface {
	r := c.clients.Dynamic.Resource(at.GVR)
	if at.Namespaced && namespace != "" {
		return r.Namespace(namespace)
	}
	return r
}

// Get implements restore.Cluster.
func (c *Cluster) Get(ctx context.Context, at restore.Served, namespace, name string) (*unstructured.Unstructured, error) {
	return c.at(at, namespace).Get(ctx, name, metav1.GetOptions{})
}

// Create implements restore.Cluster.
func (c *Cluster) Create(ctx context.Context, at restore.Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return c.at(at, obj.GetNamespace()).Create(ctx, obj, metav1.CreateOptions{FieldManager: FieldManager, DryRun: c.dryRun})
}

// Update implements restore.Cluster.
func (c *Cluster) Update(ctx context.Context, at restore.Served, obj *unstructured.Unstructured, subresource string) (*unstructured.Unstructured, error) {
	opts := metav1.UpdateOptions{FieldManager: FieldManager, DryRun: c.dryRun}
	if subresource == "" {
		return c.at(at, obj.GetNamespace()).Update(ctx, obj, opts)
	}
	return c.at(at, obj.GetNamespace()).Update(ctx, obj, opts, subresource)
}

// Apply implements restore.Cluster.
func (c *Cluster) Apply(ctx context.Context, at restore.Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return c.at(at, obj.GetNamespace()).Apply(ctx, obj.GetName(), obj, metav1.ApplyOptions{FieldManager: FieldManager, Force: true, DryRun: c.dryRun})
}

// Patch implements restore.Cluster.
func (c *Cluster) Patch(ctx context.Context, at restore.Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	return c.at(at, namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager, DryRun: c.dryRun})
}

// Delete implements restore.Cluster.
func (c *Cluster) Delete(ctx context.Context, at restore.Served, obj *unstructured.Unstructured, orphan bool) error {
	uid, policy := obj.GetUID(), metav1.DeletePropagationForeground
	if orphan {
		policy = metav1.DeletePropagationOrphan
	}
	err := c.at(at, obj.GetNamespace()).Delete(ctx, obj.GetName(), metav1.DeleteOptions{
		PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}, DryRun: c.dryRun,
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Try implements restore.Cluster.
func (c *Cluster) Try(ctx context.Context, at restore.Served, obj *unstructured.Unstructured) error {
	_, err := c.at(at, obj.GetNamespace()).Create(ctx, obj, metav1.CreateOptions{FieldManager: FieldManager, DryRun: []string{metav1.DryRunAll}})
	return err
}

// List implements restore.Cluster.
func (c *Cluster) List(ctx context.Context, at restore.Served, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	opts := metav1.ListOptions{LabelSelector: selector, Limit: pageSize}
	for {
		page, err := c.at(at, namespace).List(ctx, opts)
		if apierrors.IsNotFound(err) {
			return c.unserved(ctx, at.GVK.GroupKind(), err)
		}
		if err != nil {
			return err
		}
		for i := range page.Items {
			if err := fn(&page.Items[i]); err != nil {
				return err
			}
		}
		if opts.Continue = page.GetContinue(); opts.Continue == "" {
			return nil
		}
	}
}

// unserved tells of a kind whose list was not found whether it is served no more. An API
// server lets go of a kind and of the word that it has it one after the other, so it is asked for a while.
func (c *Cluster) unserved(ctx context.Context, kind schema.GroupKind, notFound error) error {
	err, gone := notFound, false
	_ = wait.PollUntilContextTimeout(ctx, unservedEvery, unservedFor, true, func(ctx context.Context) (bool, error) {
		if e := c.Refresh(ctx); e != nil {
			return false, e
		}
		_, e := c.Serves(ctx, kind)
		if errors.Is(e, restore.ErrNotServed) {
			err, gone = fmt.Errorf("%w: %w", e, notFound), true
		}
		return gone, nil
	})
	return err
}

// May implements restore.Cluster.
func (c *Cluster) May(ctx context.Context, verb string, at restore.Served, namespace string) (bool, string, error) {
	what, asked := right{verb, namespace, at.GVR}, c.rights.now()
	if c.rights.has(what) {
		return true, "", nil
	}
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: verb, Group: at.GVR.Group, Version: at.GVR.Version, Resource: at.GVR.Resource,
		},
	}}
	got, err := c.clients.Kubernetes.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, "", fmt.Errorf("ask for the right to %s %s: %w", verb, at.GVR.Resource, err)
	}
	if got.Status.Allowed {
		c.rights.keep(what, asked)
	}
	return got.Status.Allowed, got.Status.Reason, nil
}
