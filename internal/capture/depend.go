package capture

import (
	"context"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// Kinds that the engine asks for by itself, as every cluster serves them. The
// catalog's own entry is used where there is one.
var (
	kindNamespace = Kind{Version: "v1", Kind: "Namespace", Resource: "namespaces", Versions: []string{"v1"}}
	kindClaim     = Kind{Version: "v1", Kind: "PersistentVolumeClaim", Resource: "persistentvolumeclaims", Namespaced: true, Versions: []string{"v1"}}
)

const (
	clusterRoles        = "clusterroles.rbac.authorization.k8s.io"
	clusterRoleBindings = "clusterrolebindings.rbac.authorization.k8s.io"
	roleBindings        = "rolebindings.rbac.authorization.k8s.io"
	definitions         = "customresourcedefinitions.apiextensions.k8s.io"
	apiServices         = "apiservices.apiregistration.k8s.io"
)

// byName are the cluster-scoped kinds of which just the named objects come along.
var byName = []string{
	"persistentvolumes", "storageclasses.storage.k8s.io", "volumeattributesclasses.storage.k8s.io",
	"priorityclasses.scheduling.k8s.io", "runtimeclasses.node.k8s.io",
	"ingressclasses.networking.k8s.io", "gatewayclasses.gateway.networking.k8s.io", definitions,
}

// find returns the catalog's kind of the name resource.group.
func (r *run) find(name string) (Kind, bool) {
	i := slices.IndexFunc(r.catalog.Kinds, func(k Kind) bool { return k.Name() == name })
	if i < 0 {
		return Kind{}, false
	}
	return r.catalog.Kinds[i], true
}

// dependencies writes the cluster-scoped objects that what was captured needs.
func (r *run) dependencies(ctx context.Context) error {
	r.step("reading what the objects depend on")
	r.res.Namespaces = r.used()
	for _, ns := range r.res.Namespaces {
		if err := r.named(ctx, kindNamespace, ns); err != nil {
			return err
		}
	}
	if err := r.bindings(ctx); err != nil {
		return err
	}
	if err := r.roles(ctx); err != nil {
		return err
	}
	r.needDefinitions()
	for _, name := range byName {
		k, ok := r.find(name)
		if !ok || r.spec.Filter.excludes(k.Resource, k.Group) {
			continue
		}
		for _, object := range r.needs.names(name) {
			if err := r.named(ctx, k, object); err != nil {
				return err
			}
		}
	}
	if err := r.wide(ctx); err != nil {
		return err
	}
	return r.servedFromInside(ctx)
}

// needDefinitions asks for a CRD of every captured kind that may have one.
func (r *run) needDefinitions() {
	r.needs.mu.Lock()
	defer r.needs.mu.Unlock()
	for name, k := range r.needs.kinds {
		if strings.Contains(k.Group, ".") && !k.Aggregated {
			r.needs.wantCluster(definitions, name)
		}
	}
}

// named writes one cluster-scoped object, if it exists.
func (r *run) named(ctx context.Context, k Kind, name string) error {
	return r.cluster(ctx, Query{Kind: k, Name: name}, func(*unstructured.Unstructured) bool { return true })
}

// cluster writes the cluster-scoped objects of a query that want accepts.
func (r *run) cluster(ctx context.Context, q Query, want func(*unstructured.Unstructured) bool) error {
	q.Revision = r.res.Revision
	w := r.writers.of(q.Kind)
	err := r.list(ctx, q, func(o *unstructured.Unstructured) error {
		if o.GetLabels()[labelManagedBy] != "" || o.GetDeletionTimestamp() != nil || !want(o) {
			return nil
		}
		return w.add(ctx, o, true)
	})
	return r.tolerate(q.Kind, err)
}

// bindings writes the ClusterRoleBindings that name the application's accounts.
func (r *run) bindings(ctx context.Context) error {
	k, ok := r.find(clusterRoleBindings)
	if !ok || r.spec.Filter.excludes(k.Resource, k.Group) {
		return nil
	}
	return r.cluster(ctx, Query{Kind: k}, func(o *unstructured.Unstructured) bool {
		if !r.bindsOurs(o) {
			return false
		}
		r.needs.mu.Lock()
		defer r.needs.mu.Unlock()
		r.needs.wantCluster(clusterRoles, text(o.Object, "roleRef", "name"))
		return true
	})
}

// bindsOurs tells whether a binding names an account of the application, or
// all accounts of one of its namespaces.
func (r *run) bindsOurs(o *unstructured.Unstructured) bool {
	r.needs.mu.Lock()
	defer r.needs.mu.Unlock()
	subjects, _, _ := unstructured.NestedSlice(o.Object, "subjects")
	for _, subject := range maps(subjects) {
		name, ns := text(subject, "name"), text(subject, "namespace")
		if ns == "" {
			ns = o.GetNamespace()
		}
		switch text(subject, "kind") {
		case "ServiceAccount":
			if r.spec.Select.Whole() && slices.Contains(r.spec.Namespaces, ns) || r.needs.accounts[ns+"/"+name] {
				return true
			}
		case "Group":
			group, ok := strings.CutPrefix(name, "system:serviceaccounts:")
			if ok && r.spec.Select.Whole() && slices.Contains(r.spec.Namespaces, group) {
				return true
			}
		}
	}
	return false
}

// roles writes the ClusterRoles that bindings name, and those they aggregate.
// Roles that every cluster is born with stay where they are.
func (r *run) roles(ctx context.Context) error {
	k, ok := r.find(clusterRoles)
	if !ok || r.spec.Filter.excludes(k.Resource, k.Group) {
		return nil
	}
	done := set{}
	var selectors []labels.Selector
	for _, name := range r.needs.names(clusterRoles) {
		err := r.cluster(ctx, Query{Kind: k, Name: name}, func(o *unstructured.Unstructured) bool {
			done[name] = true
			if isBootstrapRole(o) {
				return false
			}
			selectors = append(selectors, aggregated(o)...)
			return true
		})
		if err != nil {
			return err
		}
	}
	if len(selectors) == 0 {
		return nil
	}
	return r.cluster(ctx, Query{Kind: k}, func(o *unstructured.Unstructured) bool {
		return !done[o.GetName()] && !isBootstrapRole(o) && slices.ContainsFunc(selectors, func(s labels.Selector) bool {
			return s.Matches(labels.Set(o.GetLabels()))
		})
	})
}

func isBootstrapRole(o *unstructured.Unstructured) bool {
	return o.GetLabels()["kubernetes.io/bootstrapping"] == "rbac-defaults"
}

// aggregated returns the selectors of a role that is made of others.
func aggregated(o *unstructured.Unstructured) []labels.Selector {
	list, _, _ := unstructured.NestedSlice(o.Object, "aggregationRule", "clusterRoleSelectors")
	var all []labels.Selector
	for _, item := range maps(list) {
		var selector metav1.LabelSelector
		if runtime.DefaultUnstructuredConverter.FromUnstructured(item, &selector) != nil {
			continue
		}
		if s, err := metav1.LabelSelectorAsSelector(&selector); err == nil {
			all = append(all, s)
		}
	}
	return all
}

// servedFromInside writes what tells the API server to call a Service inside
// the application: webhooks and aggregated APIs.
func (r *run) servedFromInside(ctx context.Context) error {
	if !r.spec.Select.Whole() {
		return nil
	}
	for _, name := range []string{
		"mutatingwebhookconfigurations.admissionregistration.k8s.io",
		"validatingwebhookconfigurations.admissionregistration.k8s.io", apiServices,
	} {
		k, ok := r.find(name)
		if !ok || r.spec.Filter.excludes(k.Resource, k.Group) {
			continue
		}
		if err := r.cluster(ctx, Query{Kind: k}, r.callsInside); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) callsInside(o *unstructured.Unstructured) bool {
	if slices.Contains(r.spec.Namespaces, text(o.Object, "spec", "service", "namespace")) {
		return true
	}
	return slices.ContainsFunc(maps(o.Object["webhooks"]), func(hook map[string]any) bool {
		return slices.Contains(r.spec.Namespaces, text(hook, "clientConfig", "service", "namespace"))
	})
}
