// Package census gathers what a site says of itself, from its API server, with
// the rights of whoever asks. What cannot be read is named, and nothing else
// suffers from it.
package census

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/demand"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/version"
)

const (
	pageSize = 500
	// mostImages bounds how many names of images are kept.
	mostImages = 10_000
	// mostLabels bounds how many bytes of nodes' labels are kept: those of some 400 nodes. Of
	// more, none are.
	mostLabels = 1 << 20
)

// Options say what to gather, and of what.
type Options struct {
	Site, Cluster       string
	Domain, VaultDomain string
	KeyID               string
	// Clients look; Restorer is whose rights are asked for, under the name Who.
	Clients, Restorer *kube.Clients
	Who               string
	Needs             []preflight.Need
	// Steps are the rights that the plans' own steps take.
	Steps []preflight.Right
	// Accounts are those that plans name besides Restorer.
	Accounts []Account
	Roles    map[string]string
	Epochs   map[string]int64
	Now      func() time.Time
}

// census is one on its way.
type census struct {
	Options
	mu   sync.Mutex
	site *preflight.Site
}

// Take gathers the facts of a site.
func Take(ctx context.Context, o Options) *preflight.Site {
	c := &census{Options: o, site: &preflight.Site{
		Name: o.Site, Cluster: o.Cluster, At: o.Now().UTC(), Davit: version.String(), Domain: o.Domain, VaultDomain: o.VaultDomain, KeyID: o.KeyID,
		Roles: o.Roles, Epochs: o.Epochs, Unread: map[string]string{}, Nodes: []preflight.Node{}, Classes: []preflight.Class{}, APIs: map[string][]string{},
	}}
	var all sync.WaitGroup
	for what, gather := range map[string]func(context.Context) error{
		"version": c.version, "nodes": c.nodes, "storageClasses": c.classes, "ingressClasses": c.ingressClasses, "apis": c.apis, "quotas": c.quotas, "secrets": c.secrets, "configMaps": c.configMaps, "accounts": c.accounts, "rights": c.rights,
	} {
		all.Go(func() {
			if err := gather(ctx); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.site.Unread[what] = err.Error()
			}
		})
	}
	all.Wait()
	return c.site
}

func (c *census) version(context.Context) error {
	v, err := c.Clients.Discovery.ServerVersion() // has a timeout of its own
	if err != nil {
		return err
	}
	c.site.Kubernetes = v.GitVersion
	return nil
}

// nodes sums up what is free on each node, and which images they have.
func (c *census) nodes(ctx context.Context) error {
	nodes, err := c.Clients.Kubernetes.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	used, err := c.used(ctx)
	if err != nil {
		return err
	}
	images := map[string]int{}
	var out []preflight.Node
	labelled := 0
	for i := range nodes.Items {
		n := &nodes.Items[i]
		u := used[n.Name]
		free := preflight.Room{
			CPU: n.Status.Allocatable.Cpu().MilliValue() - u.CPU, Memory: n.Status.Allocatable.Memory().Value() - u.Memory,
			Pods: n.Status.Allocatable.Pods().Value() - u.Pods,
		}
		closed := Closed(n)
		out = append(out, preflight.Node{Name: n.Name, Free: free, Closed: closed, Labels: n.Labels})
		for key, value := range n.Labels {
			labelled += len(key) + len(value)
		}
		for _, image := range n.Status.Images {
			for _, name := range image.Names {
				if closed == "" && (len(images) < mostImages || images[name] > 0) {
					images[name]++
				}
			}
		}
	}
	c.stock(ctx, images, len(slices.DeleteFunc(slices.Clone(out), func(n preflight.Node) bool { return n.Closed != "" })))
	slices.SortFunc(out, func(a, b preflight.Node) int { return cmp.Compare(a.Name, b.Name) })
	if c.site.Labelled = labelled <= mostLabels; !c.site.Labelled {
		for i := range out {
			out[i].Labels = nil
		}
	}
	c.site.Nodes, c.site.Images = out, images
	return nil
}

// stock adds what was seen on nodes to what their kubelets name.
func (c *census) stock(ctx context.Context, images map[string]int, open int) {
	cm, err := c.Clients.Kubernetes.CoreV1().ConfigMaps(v1alpha1.SystemNamespace).Get(ctx, StockName, metav1.GetOptions{})
	if err != nil {
		return // nobody has looked
	}
	for name, s := range ReadStock(cm, c.Now()) {
		if images[name] > 0 || len(images) < mostImages {
			images[name] = min(open, max(images[name], s.Nodes))
		}
	}
}

// Closed says why a node takes no pods of applications.
func Closed(n *corev1.Node) string {
	if n.Spec.Unschedulable {
		return "cordoned"
	}
	for _, t := range n.Spec.Taints {
		if t.Effect != corev1.TaintEffectPreferNoSchedule {
			return "tainted " + t.Key
		}
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return "not ready"
		}
	}
	return ""
}

// used is what the pods of each node asked for.
func (c *census) used(ctx context.Context) (map[string]preflight.Room, error) {
	used := map[string]preflight.Room{}
	opts := metav1.ListOptions{Limit: pageSize, FieldSelector: "status.phase!=Succeeded,status.phase!=Failed"}
	for {
		list, err := c.Clients.Kubernetes.CoreV1().Pods("").List(ctx, opts)
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			asks, _ := demand.Room(&list.Items[i].Spec)
			u := used[list.Items[i].Spec.NodeName]
			used[list.Items[i].Spec.NodeName] = preflight.Room{CPU: u.CPU + asks.CPU, Memory: u.Memory + asks.Memory, Pods: u.Pods + 1}
		}
		if opts.Continue = list.Continue; opts.Continue == "" {
			return used, nil
		}
	}
}

// classes are the storage classes, with what their drivers say is left.
func (c *census) classes(ctx context.Context) error {
	list, err := c.Clients.Kubernetes.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	room := map[string]int64{}
	if capacities, err := c.Clients.Kubernetes.StorageV1().CSIStorageCapacities("").List(ctx, metav1.ListOptions{}); err == nil {
		for _, x := range capacities.Items {
			if x.Capacity != nil {
				room[x.StorageClassName] += min(max(x.Capacity.Value(), 0), 1<<58)
			}
		}
	}
	for _, x := range list.Items {
		class := preflight.Class{Name: x.Name, Provisioner: x.Provisioner, Default: isDefault(&x), Room: -1}
		if left, told := room[x.Name]; told {
			class.Room = left
		}
		c.site.Classes = append(c.site.Classes, class)
	}
	return nil
}

// ingressClasses are those of Ingresses.
func (c *census) ingressClasses(ctx context.Context) error {
	list, err := c.Clients.Kubernetes.NetworkingV1().IngressClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	c.site.IngressClasses = []preflight.IngressClass{}
	for _, x := range list.Items {
		c.site.IngressClasses = append(c.site.IngressClasses, preflight.IngressClass{Name: x.Name, Default: x.Annotations["ingressclass.kubernetes.io/is-default-class"] == "true"})
	}
	return nil
}

// gatewayClasses are those of Gateways, where there are any.
func (c *census) gatewayClasses(ctx context.Context) {
	versions := c.site.APIs["gatewayclasses.gateway.networking.k8s.io"]
	if len(versions) == 0 {
		return
	}
	at := c.Clients.Dynamic.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: versions[0], Resource: "gatewayclasses"})
	list, err := at.List(ctx, metav1.ListOptions{})
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.site.Unread["gatewayClasses"] = err.Error()
		return
	}
	c.site.GatewayClasses = []string{}
	for i := range list.Items {
		c.site.GatewayClasses = append(c.site.GatewayClasses, list.Items[i].GetName())
	}
}

func isDefault(c *storagev1.StorageClass) bool {
	return c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true"
}

// apis are the versions served of every kind. A group that does not answer is
// left out and named.
func (c *census) apis(ctx context.Context) error {
	_, lists, err := c.Clients.Discovery.ServerGroupsAndResources()
	var failed *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	if failed != nil {
		c.mu.Lock()
		for group, why := range failed.Groups {
			c.site.Unread["api "+group.String()] = why.Error()
		}
		c.mu.Unlock()
	}
	for _, list := range lists {
		group, version, found := strings.Cut(list.GroupVersion, "/")
		if !found {
			group, version = "", list.GroupVersion
		}
		for _, r := range list.APIResources {
			if !strings.Contains(r.Name, "/") {
				name := strings.TrimSuffix(r.Name+"."+group, ".")
				c.site.APIs[name] = append(c.site.APIs[name], version)
			}
		}
	}
	c.relied(ctx)
	c.gatewayClasses(ctx)
	return nil
}

func (c *census) quotas(ctx context.Context) error {
	list, err := c.Clients.Kubernetes.CoreV1().ResourceQuotas("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, q := range list.Items {
		if len(q.Spec.Scopes) > 0 || q.Spec.ScopeSelector != nil {
			continue // it counts only some pods, and which is not known beforehand
		}
		c.site.Quotas = append(c.site.Quotas, preflight.Quota{Namespace: q.Namespace, Name: q.Name, Hard: amounts(q.Spec.Hard), Used: amounts(q.Status.Used)})
	}
	return nil
}

func amounts(list corev1.ResourceList) map[string]int64 {
	out := map[string]int64{}
	for name, q := range list {
		value := (*resource.Quantity).Value
		if strings.HasSuffix(string(name), "cpu") {
			value = (*resource.Quantity).MilliValue
		}
		out[string(name)] = min(max(value(&q), 0), 1<<58)
	}
	return out
}

// secrets are the names of those in Davit's namespace.
func (c *census) secrets(ctx context.Context) error {
	list, err := c.Clients.Kubernetes.CoreV1().Secrets(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, s := range list.Items {
		c.site.Secrets = append(c.site.Secrets, s.Name)
	}
	return nil
}

// own tells whether Davit made an object, of which there may be one for each run. A
// name alone does not say so: people give theirs such names, too.
func own(m metav1.ObjectMeta) bool {
	return m.Labels[v1alpha1.LabelManagedBy] != "" || m.Labels[v1alpha1.LabelRestore] != "" ||
		strings.HasPrefix(m.Name, "davit-") && m.Labels["app.kubernetes.io/part-of"] == "davit"
}

// configMaps are the names of those in Davit's namespace that steps of plans may name.
func (c *census) configMaps(ctx context.Context) error {
	list, err := c.Clients.Kubernetes.CoreV1().ConfigMaps(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	c.site.ConfigMaps = []string{}
	for _, m := range list.Items {
		if !own(m.ObjectMeta) {
			c.site.ConfigMaps = append(c.site.ConfigMaps, m.Name)
		}
	}
	return nil
}
