package capture

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/capture/nameset"
	"davit.dev/davit/internal/point"
)

// set is a set of names.
type set map[string]bool

func (s set) sorted() []string {
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ref names a namespaced object that another one needs.
type ref struct{ group, kind, namespace, name string }

// needs are the names of what the captured objects need: small sets, gathered
// while the objects themselves stream by.
type needs struct {
	mu sync.Mutex
	// cluster holds names of cluster-scoped objects by resource.group.
	cluster map[string]set
	// kinds are the kinds captured at least once.
	kinds    map[string]Kind
	services nameset.Set // with a selector
	images   map[point.Image]bool
	// refs are namespaced needs, gathered only in selector mode.
	refs     map[ref]bool
	accounts set // namespace/name, the accounts whose rights come along; only in selector mode
	// claimPrefixes are what the names of StatefulSets' claims start with,
	// behind namespace/.
	claimPrefixes set
	bound         set // namespace/name of the bound claims in the point
	namespaces    set // that hold something of the point
}

func newNeeds() *needs {
	return &needs{
		cluster: map[string]set{}, kinds: map[string]Kind{}, services: nameset.Set{},
		images: map[point.Image]bool{}, refs: map[ref]bool{}, accounts: set{}, claimPrefixes: set{}, bound: set{}, namespaces: set{},
	}
}

func (n *needs) wantCluster(resource, name string) {
	if name == "" {
		return
	}
	if n.cluster[resource] == nil {
		n.cluster[resource] = set{}
	}
	n.cluster[resource][name] = true
}

// names returns the cluster-scoped names needed of one resource.
func (n *needs) names(resource string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cluster[resource].sorted()
}

func (n *needs) selects(namespace, name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.services.Has(namespace, name)
}

// boundClaims are the claims in the point that must have data in it.
func (n *needs) boundClaims() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bound.sorted()
}

// observe learns from one object. Those left out because a controller makes
// them count too: what the pods of an operator need, the operator needs.
func (n *needs) observe(k Kind, o *unstructured.Unstructured, keep, selective bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if keep {
		n.kinds[k.Name()] = k
		n.namespaces[o.GetNamespace()] = true
		if k.Name() == "persistentvolumeclaims" && text(o.Object, "status", "phase") == "Bound" {
			n.bound[o.GetNamespace()+"/"+o.GetName()] = true
		}
	}
	if pod := podSpec(k, o); pod != nil {
		n.observePod(k, o, pod)
		if selective {
			n.account(o.GetNamespace(), pod)
		}
	}
	n.observeKind(k, o)
	if selective {
		if k.Name() == "serviceaccounts" {
			n.accounts[o.GetNamespace()+"/"+o.GetName()] = true
		}
		n.observeRefs(o)
	}
}

// observeKind notes what objects of the kinds we know name.
func (n *needs) observeKind(k Kind, o *unstructured.Unstructured) {
	switch k.Name() {
	case "persistentvolumeclaims":
		n.wantCluster("storageclasses.storage.k8s.io", text(o.Object, "spec", "storageClassName"))
		n.wantCluster("volumeattributesclasses.storage.k8s.io", text(o.Object, "spec", "volumeAttributesClassName"))
		n.wantCluster("persistentvolumes", text(o.Object, "spec", "volumeName"))
	case "statefulsets.apps":
		templates, _, _ := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
		for _, t := range templates {
			template, _ := t.(map[string]any)
			n.wantCluster("storageclasses.storage.k8s.io", text(template, "spec", "storageClassName"))
			n.claimPrefixes[o.GetNamespace()+"/"+text(template, "metadata", "name")+"-"+o.GetName()+"-"] = true
		}
	case "ingresses.networking.k8s.io":
		n.wantCluster("ingressclasses.networking.k8s.io", cmp.Or(text(o.Object, "spec", "ingressClassName"),
			o.GetAnnotations()["kubernetes.io/ingress.class"]))
	case "gateways.gateway.networking.k8s.io":
		n.wantCluster("gatewayclasses.gateway.networking.k8s.io", text(o.Object, "spec", "gatewayClassName"))
	case "rolebindings.rbac.authorization.k8s.io":
		if text(o.Object, "roleRef", "kind") == "ClusterRole" {
			n.wantCluster("clusterroles.rbac.authorization.k8s.io", text(o.Object, "roleRef", "name"))
		}
	case "services":
		if selector, _, _ := unstructured.NestedMap(o.Object, "spec", "selector"); len(selector) > 0 {
			n.services.Add(o.GetNamespace(), o.GetName())
		}
	}
}

// text returns a string inside nested maps, or "".
func text(object map[string]any, fields ...string) string {
	s, _, _ := unstructured.NestedString(object, fields...)
	return s
}

// podSpec returns the spec of a pod, or of the pods an object makes, wherever
// kinds put it; custom resources that embed a template are found too.
func podSpec(k Kind, o *unstructured.Unstructured) map[string]any {
	paths := [][]string{{"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}}
	switch k.Name() {
	case "pods":
		paths = [][]string{{"spec"}}
	case "podtemplates":
		paths = [][]string{{"template", "spec"}}
	}
	for _, path := range paths {
		// NestedFieldNoCopy: only read, and pods are many.
		field, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
		spec, _ := field.(map[string]any)
		if _, ok := spec["containers"].([]any); ok {
			return spec
		}
	}
	return nil
}

func (n *needs) observePod(k Kind, o *unstructured.Unstructured, pod map[string]any) {
	n.wantCluster("runtimeclasses.node.k8s.io", text(pod, "runtimeClassName"))
	if class := text(pod, "priorityClassName"); !strings.HasPrefix(class, "system-") {
		n.wantCluster("priorityclasses.scheduling.k8s.io", class)
	}
	for _, field := range []string{"containers", "initContainers"} {
		for _, c := range maps(pod[field]) {
			if image := text(c, "image"); image != "" {
				n.images[point.Image{Reference: image}] = true
			}
		}
	}
	if k.Name() == "pods" {
		n.observeDigests(o, pod)
	}
}

// observeDigests pairs the images a pod names with the digests it runs.
func (n *needs) observeDigests(o *unstructured.Unstructured, pod map[string]any) {
	status, _ := o.Object["status"].(map[string]any)
	for _, pair := range [][2]string{{"containers", "containerStatuses"}, {"initContainers", "initContainerStatuses"}} {
		named := map[string]string{}
		for _, c := range maps(pod[pair[0]]) {
			named[text(c, "name")] = text(c, "image")
		}
		for _, c := range maps(status[pair[1]]) {
			reference := named[text(c, "name")]
			if digest := imageDigest(text(c, "imageID")); digest != "" && reference != "" {
				n.images[point.Image{Reference: reference, Digest: digest}] = true
			}
		}
	}
}

// imageDigest takes the registry's digest out of a container status's imageID.
// Without "@" it is the runtime's own id of the image, which names nothing in
// a registry.
func imageDigest(imageID string) string {
	_, digest, ok := strings.Cut(imageID, "@")
	if !ok || !strings.Contains(digest, ":") {
		return ""
	}
	return digest
}

// imageList returns the images, sorted; a reference whose digest is known does
// not appear without one.
func (n *needs) imageList() []point.Image {
	n.mu.Lock()
	defer n.mu.Unlock()
	resolved := set{}
	for image := range n.images {
		if image.Digest != "" {
			resolved[image.Reference] = true
		}
	}
	var images []point.Image
	for image := range n.images {
		if image.Digest != "" || !resolved[image.Reference] {
			images = append(images, image)
		}
	}
	slices.SortFunc(images, func(a, b point.Image) int {
		return cmp.Or(strings.Compare(a.Reference, b.Reference), strings.Compare(a.Digest, b.Digest))
	})
	return images
}

// maps returns the maps in a list.
func maps(list any) []map[string]any {
	items, _ := list.([]any)
	var all []map[string]any
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}

func (n *needs) account(namespace string, pod map[string]any) {
	name := cmp.Or(text(pod, "serviceAccountName"), "default")
	n.accounts[namespace+"/"+name] = true
	n.refs[ref{"", "ServiceAccount", namespace, name}] = true
}

// observeRefs notes the namespaced objects that any object names: its owners,
// and in its spec the references written as pods write them.
func (n *needs) observeRefs(o *unstructured.Unstructured) {
	for _, owner := range o.GetOwnerReferences() {
		gv, err := schema.ParseGroupVersion(owner.APIVersion)
		if err == nil {
			n.refs[ref{gv.Group, owner.Kind, o.GetNamespace(), owner.Name}] = true
		}
	}
	for _, field := range []string{"spec", "template", "imagePullSecrets", "secrets"} {
		n.walk(o.GetNamespace(), field, o.Object[field])
	}
	if name := text(o.Object, "spec", "serviceName"); name != "" {
		n.refs[ref{"", "Service", o.GetNamespace(), name}] = true
	}
	if text(o.Object, "roleRef", "kind") == "Role" {
		n.refs[ref{"rbac.authorization.k8s.io", "Role", o.GetNamespace(), text(o.Object, "roleRef", "name")}] = true
	}
}

// refFields are the fields whose value, or whose name inside, names an object.
var refFields = map[string]string{
	"secretName": "Secret", "secretRef": "Secret", "secretKeyRef": "Secret", "secret": "Secret",
	"imagePullSecrets": "Secret", "nodePublishSecretRef": "Secret", "secrets": "Secret",
	"configMap": "ConfigMap", "configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap",
	"claimName": "PersistentVolumeClaim", "service": "Service",
}

// walk looks for references anywhere below a field. A name that does not exist
// does no harm: it is looked for once.
func (n *needs) walk(namespace, field string, value any) {
	switch v := value.(type) {
	case map[string]any:
		if kind := refFields[field]; kind != "" {
			if name := text(v, "name"); name != "" {
				n.refs[ref{"", kind, namespace, name}] = true
			}
		}
		for key, inner := range v {
			n.walk(namespace, key, inner)
		}
	case []any:
		for _, inner := range v {
			n.walk(namespace, field, inner)
		}
	case string:
		if kind := refFields[field]; kind != "" && v != "" {
			n.refs[ref{"", kind, namespace, v}] = true
		}
	}
}
