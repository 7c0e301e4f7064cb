package capture

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/selection"
)

// ofCluster are the cluster-scoped kinds that a cluster, its nodes and its
// storage make by themselves, and those of which other rules choose.
var ofCluster = []pattern{
	{resource: "nodes"},
	{resource: "namespaces"},
	{resource: "persistentvolumes"},
	{resource: "*", group: davitGroup},
	{resource: "*webhookconfigurations", group: "admissionregistration.k8s.io"},
	{resource: "apiservices", group: "apiregistration.k8s.io"},
	{resource: "csi*", group: "storage.k8s.io"},
	{resource: "snapshotmetadataservices", group: "cbt.storage.k8s.io"},
	{resource: "volumeattachments", group: "storage.k8s.io"},
	{resource: "volumesnapshotcontents", group: storageGroup},
	{resource: "volumegroupsnapshotcontents", group: "group" + storageGroup},
	{resource: "certificatesigningrequests", group: "certificates.k8s.io"},
	{resource: "ipaddresses", group: "networking.k8s.io"},
	{resource: "servicecidrs", group: "networking.k8s.io"},
	{resource: "resourceslices", group: "resource.k8s.io"},
	{resource: "storageversions", group: "internal.apiserver.k8s.io"},
	{resource: "storageversionmigrations", group: "storagemigration.k8s.io"},
}

const storageGroup = "snapshot.storage.k8s.io"

// wantWide tells whether objects of a kind come along with a whole cluster.
func wantWide(k Kind, f Filter) bool {
	in := func(list []pattern) bool {
		return slices.ContainsFunc(list, func(p pattern) bool { return p.matches(k.Resource, k.Group) })
	}
	for _, verb := range []string{"get", "list", "create"} {
		if !slices.Contains(k.Verbs, verb) {
			return false
		}
	}
	return !k.Namespaced && f.Match(k.Resource, k.Group) && !in(ofCluster) && !in(skippedKinds)
}

// wide writes what somebody made in the cluster outside of all namespaces,
// where the application is the whole cluster: nothing in a namespace need name
// a cluster-scoped resource, a definition without objects, the rights of a
// group of people.
func (r *run) wide(ctx context.Context) error {
	if !r.spec.Select.Cluster() {
		return nil
	}
	kept, dropped := set{}, set{}               // roles, by who is bound to them
	for _, roles := range []bool{false, true} { // judged by the bindings
		for _, k := range r.catalog.Kinds {
			if !wantWide(k, r.spec.Filter) || roles != (k.Name() == clusterRoles) {
				continue
			}
			err := r.cluster(ctx, Query{Kind: k}, func(o *unstructured.Unstructured) bool {
				switch {
				case isBornWith(o) || o.GetLabels()[LabelExclude] == "true":
					return false
				case k.Name() == definitions:
					return text(o.Object, "spec", "group") != davitGroup
				case k.Name() == clusterRoleBindings:
					role, ours := text(o.Object, "roleRef", "name"), !bindsSystem(o)
					kept[role], dropped[role] = kept[role] || ours, dropped[role] || !ours
					return ours
				case roles:
					return kept[o.GetName()] || !dropped[o.GetName()]
				}
				return true
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// isBornWith tells whether every cluster has the object, or remakes it.
func isBornWith(o *unstructured.Unstructured) bool {
	if isBootstrapRole(o) || o.GetAnnotations()["apf.kubernetes.io/autoupdate-spec"] == "true" {
		return true
	}
	switch name := o.GetName(); name {
	case "system-cluster-critical", "system-node-critical": // priorities
		return true
	default:
		return strings.HasPrefix(name, "system:") || strings.HasPrefix(name, "kubeadm:")
	}
}

// bindsSystem tells whether a binding is for accounts of the cluster's own
// namespaces alone: what they run is not captured, and the other cluster has
// its own.
func bindsSystem(o *unstructured.Unstructured) bool {
	subjects := maps(o.Object["subjects"])
	return len(subjects) > 0 && !slices.ContainsFunc(subjects, func(subject map[string]any) bool {
		return text(subject, "kind") != "ServiceAccount" || !selection.IsSystem(text(subject, "namespace"))
	})
}
