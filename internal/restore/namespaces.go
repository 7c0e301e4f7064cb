package restore

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// labelNamespaceName is what the API server sets on every Namespace.
const labelNamespaceName = "kubernetes.io/metadata.name"

// renamer maps captured namespaces to wanted ones, in objects' own namespace
// and where the kinds it knows name one:
//
//   - subjects of RoleBindings and ClusterRoleBindings: ServiceAccounts, and the
//     users and groups that stand for them (system:serviceaccount:ns:name);
//   - services of webhook configurations, of CRD conversion and of APIServices;
//   - namespace selectors by kubernetes.io/metadata.name in NetworkPolicies, pod
//     affinity, webhooks and admission policies; namespace lists of pod affinity;
//   - parentRefs and backendRefs of Gateway API routes;
//   - cross-namespace parameters of IngressClasses and admission bindings.
//
// It does not look into ConfigMaps, environment variables, arguments and custom
// resources: a host name like db.shop.svc stays as it was.
type renamer map[string]string

// to is where a namespace goes.
func (r renamer) to(namespace string) string {
	if wanted, ok := r[namespace]; ok {
		return wanted
	}
	return namespace
}

// field maps the namespace in one field, if there is one.
func (r renamer) field(d document, key string) {
	if ns, ok := d[key].(string); ok {
		d[key] = r.to(ns)
	}
}

// strings maps every namespace in a list.
func (r renamer) strings(d document, key string) {
	list, _ := d[key].([]any)
	for i, v := range list {
		if ns, ok := v.(string); ok {
			list[i] = r.to(ns)
		}
	}
}

// rename maps everything the object says about namespaces.
func (r renamer) rename(kind schema.GroupKind, d document) {
	if len(r) == 0 {
		return
	}
	meta := child(d, "metadata")
	if kind == kindNamespace {
		r.field(meta, "name")
		return
	}
	r.field(meta, "namespace")
	if kind.Group == groupGateway {
		r.route(d)
	}
	if spec := podSpecOf(kind, d); spec != nil {
		r.affinity(child(spec, "affinity"))
	}
	if fn, ok := renamers[kind]; ok {
		fn(r, d)
	}
}

var renamers = map[schema.GroupKind]func(renamer, document){
	{Group: groupRBAC, Kind: "RoleBinding"}:                           renamer.subjects,
	{Group: groupRBAC, Kind: "ClusterRoleBinding"}:                    renamer.subjects,
	{Group: groupAdmission, Kind: "ValidatingWebhookConfiguration"}:   renamer.webhooks,
	{Group: groupAdmission, Kind: "MutatingWebhookConfiguration"}:     renamer.webhooks,
	{Group: groupAdmission, Kind: "ValidatingAdmissionPolicyBinding"}: renamer.policyBinding,
	{Group: groupAdmission, Kind: "MutatingAdmissionPolicyBinding"}:   renamer.policyBinding,
	{Group: groupNetworking, Kind: "NetworkPolicy"}:                   renamer.networkPolicy,
	{Group: groupNetworking, Kind: "IngressClass"}:                    renamer.ingressClass,
	{Group: groupAPIService, Kind: "APIService"}: func(r renamer, d document) {
		r.field(child(d, "spec", "service"), "namespace")
	},
	kindCRD: func(r renamer, d document) {
		r.field(child(d, "spec", "conversion", "webhook", "clientConfig", "service"), "namespace")
	},
}

func (r renamer) subjects(d document) {
	for _, s := range items(d, "subjects") {
		r.field(s, "namespace")
		if name := text(s, "name"); name != "" {
			s["name"] = r.subjectName(text(s, "kind"), name)
		}
	}
}

// subjectName maps the user or group that stands for service accounts.
func (r renamer) subjectName(kind, name string) string {
	switch {
	case kind == "User" && strings.HasPrefix(name, "system:serviceaccount:"):
		ns, account, ok := strings.Cut(strings.TrimPrefix(name, "system:serviceaccount:"), ":")
		if ok {
			return "system:serviceaccount:" + r.to(ns) + ":" + account
		}
	case kind == "Group" && strings.HasPrefix(name, "system:serviceaccounts:"):
		return "system:serviceaccounts:" + r.to(strings.TrimPrefix(name, "system:serviceaccounts:"))
	}
	return name
}

func (r renamer) webhooks(d document) {
	for _, w := range items(d, "webhooks") {
		r.field(child(w, "clientConfig", "service"), "namespace")
		r.selector(child(w, "namespaceSelector"))
	}
}

func (r renamer) policyBinding(d document) {
	r.field(child(d, "spec", "paramRef"), "namespace")
	r.selector(child(d, "spec", "matchResources", "namespaceSelector"))
}

func (r renamer) networkPolicy(d document) {
	for _, direction := range []struct{ rules, peers string }{{"ingress", "from"}, {"egress", "to"}} {
		for _, rule := range items(d, "spec", direction.rules) {
			for _, peer := range items(rule, direction.peers) {
				r.selector(child(peer, "namespaceSelector"))
			}
		}
	}
}

func (r renamer) ingressClass(d document) {
	r.field(child(d, "spec", "parameters"), "namespace")
}

// selector maps a label selector that chooses namespaces by their names.
func (r renamer) selector(d document) {
	r.field(child(d, "matchLabels"), labelNamespaceName)
	for _, e := range items(d, "matchExpressions") {
		if text(e, "key") == labelNamespaceName {
			r.strings(e, "values")
		}
	}
}

func (r renamer) affinity(d document) {
	for _, side := range []string{"podAffinity", "podAntiAffinity"} {
		for _, t := range items(d, side, "requiredDuringSchedulingIgnoredDuringExecution") {
			r.strings(t, "namespaces")
			r.selector(child(t, "namespaceSelector"))
		}
		for _, w := range items(d, side, "preferredDuringSchedulingIgnoredDuringExecution") {
			t := child(w, "podAffinityTerm")
			r.strings(t, "namespaces")
			r.selector(child(t, "namespaceSelector"))
		}
	}
}

func (r renamer) route(d document) {
	for _, p := range items(d, "spec", "parentRefs") {
		r.field(p, "namespace")
	}
	for _, rule := range items(d, "spec", "rules") {
		for _, b := range items(rule, "backendRefs") {
			r.field(b, "namespace")
		}
	}
	for _, side := range []string{"from", "to"} { // ReferenceGrant
		for _, s := range items(d, "spec", side) {
			r.field(s, "namespace")
		}
	}
}

// podSpecOf returns the spec of the pods that an object makes, or nil.
func podSpecOf(kind schema.GroupKind, d document) document {
	switch kind {
	case kindPod:
		return child(d, "spec")
	case kindCronJob:
		return child(d, "spec", "jobTemplate", "spec", "template", "spec")
	case kindDeployment, kindReplicaSet, kindStatefulSet, kindDaemonSet, kindJob, kindController:
		return child(d, "spec", "template", "spec")
	}
	return nil
}

// podLabelsOf returns the labels of the pods that an object makes, or nil.
func podLabelsOf(kind schema.GroupKind, d document) document {
	switch kind {
	case kindPod:
		return child(d, "metadata", "labels")
	case kindCronJob:
		return child(d, "spec", "jobTemplate", "spec", "template", "metadata", "labels")
	}
	return child(d, "spec", "template", "metadata", "labels")
}
