// Package machinery reaches management clusters of Cluster API.
package machinery

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/standby/machines"
)

// manager is who the applied fields belong to.
const manager = "davit"

// Cluster is a management cluster.
type Cluster struct {
	clients *kube.Clients
	mapper  meta.RESTMapper
}

var _ machines.Cluster = (*Cluster)(nil)

// New makes it, with the clients' rights.
func New(clients *kube.Clients) *Cluster {
	return &Cluster{clients: clients, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(clients.Discovery))}
}

// Open opens the one that a Secret leads to, read by secret: with the kubeconfig's
// rights there. Without a name it is the one of here.
func Open(ctx context.Context, here *kube.Clients, secret func(context.Context, string) (map[string][]byte, error), name string) (machines.Cluster, error) {
	if name == "" {
		return New(here), nil
	}
	data, err := secret(ctx, name)
	if err != nil {
		return nil, err
	}
	text := data["value"] // as Cluster API itself names it
	if len(text) == 0 {
		text = data["kubeconfig"]
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("read Secret %s/%s: it has neither value nor kubeconfig", v1alpha1.SystemNamespace, name)
	}
	clients, err := outside(text)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig in Secret %s/%s: %w", v1alpha1.SystemNamespace, name, err)
	}
	return New(clients), nil
}

// outside opens a cluster by a kubeconfig that whoever may write a Secret wrote: it
// runs no program where davit is, and reads no file there.
func outside(text []byte) (*kube.Clients, error) {
	all, err := clientcmd.Load(text)
	if err != nil {
		return nil, err
	}
	for _, u := range all.AuthInfos {
		if u.Exec != nil || u.AuthProvider != nil || u.TokenFile != "" || u.ClientCertificate != "" || u.ClientKey != "" {
			return nil, errHere
		}
	}
	for _, c := range all.Clusters {
		if c.CertificateAuthority != "" {
			return nil, errHere
		}
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*all, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	return kube.New(cfg)
}

var errHere = errors.New("it runs a program or names a file for its credentials: write a token or a certificate into it")

func (c *Cluster) resource(name, namespace string) (dynamic.ResourceInterface, error) {
	gvr, err := c.mapper.ResourceFor(schema.ParseGroupResource(name).WithVersion(""))
	if err != nil {
		return nil, err
	}
	return c.clients.Dynamic.Resource(gvr).Namespace(namespace), nil
}

func (c *Cluster) of(u *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := u.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	return c.clients.Dynamic.Resource(mapping.Resource).Namespace(u.GetNamespace()), nil
}

func dry(try bool) []string {
	if try {
		return []string{metav1.DryRunAll}
	}
	return nil
}

// Get implements machines.Cluster.
func (c *Cluster) Get(ctx context.Context, resource, namespace, name string) (*unstructured.Unstructured, error) {
	at, err := c.resource(resource, namespace)
	if err != nil {
		return nil, err
	}
	return at.Get(ctx, name, metav1.GetOptions{})
}

// Patch implements machines.Cluster.
func (c *Cluster) Patch(ctx context.Context, resource, namespace, name string, patch []byte, try bool) (*unstructured.Unstructured, error) {
	at, err := c.resource(resource, namespace)
	if err != nil {
		return nil, err
	}
	return at.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager, DryRun: dry(try)})
}

// Live implements machines.Cluster.
func (c *Cluster) Live(ctx context.Context, document *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	at, err := c.of(document)
	if err != nil {
		return nil, err
	}
	return at.Get(ctx, document.GetName(), metav1.GetOptions{})
}

// Apply implements machines.Cluster.
func (c *Cluster) Apply(ctx context.Context, document *unstructured.Unstructured, try bool) (*unstructured.Unstructured, error) {
	at, err := c.of(document)
	if err != nil {
		return nil, err
	}
	return at.Apply(ctx, document.GetName(), document, metav1.ApplyOptions{FieldManager: manager, Force: true, DryRun: dry(try)})
}

// Delete implements machines.Cluster.
func (c *Cluster) Delete(ctx context.Context, live *unstructured.Unstructured) error {
	at, err := c.of(live)
	if err != nil {
		return err
	}
	// Its controllers take what is below it away in their own order.
	uid, policy := live.GetUID(), metav1.DeletePropagationBackground
	return at.Delete(ctx, live.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &policy})
}
