package shape

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// LabelNamespaceName is what the API server sets on every Namespace.
const LabelNamespaceName = "kubernetes.io/metadata.name"

// Namespaces maps captured namespaces to wanted ones, in objects' own namespace
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
// resources, for which there is Inside: a host name like db.shop.svc stays as it was.
type Namespaces map[string]string

// To is where a namespace goes.
func (r Namespaces) To(namespace string) string {
	if wanted, ok := r[namespace]; ok {
		return wanted
	}
	return namespace
}

// field maps the namespace in one field, if there is one.
func (r Namespaces) field(d Document, key string) {
	if ns, ok := d[key].(string); ok {
		d[key] = r.To(ns)
	}
}

// strings maps every namespace in a list.
func (r Namespaces) strings(d Document, key string) {
	list, _ := d[key].([]any)
	for i, v := range list {
		if ns, ok := v.(string); ok {
			list[i] = r.To(ns)
		}
	}
}

// Rename maps everything the object says about namespaces.
func (r Namespaces) Rename(kind schema.GroupKind, d Document) {
	if len(r) == 0 {
		return
	}
	meta := Child(d, "metadata")
	if kind == KindNamespace {
		r.field(meta, "name")
		return
	}
	r.field(meta, "namespace")
	if kind.Group == GroupGateway {
		r.route(d)
	}
	if spec := PodSpecOf(kind, d); spec != nil {
		r.affinity(Child(spec, "affinity"))
	}
	if fn, ok := renamers[kind]; ok {
		fn(r, d)
	}
}

// Inside maps each field of a custom resource's spec that is called after a namespace and
// names a captured one. That may change what is no namespace of Kubernetes, so it is for
// copies: what their operators, which are outside of them, would find there otherwise is
// the original, whose queue or database they delete with the copy.
func (r Namespaces) Inside(kind schema.GroupKind, d Document) {
	if strings.Contains(kind.Group, ".") && !strings.HasSuffix(kind.Group, ".k8s.io") {
		r.inside(d["spec"])
	}
}

func (r Namespaces) inside(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			switch name := strings.ToLower(key); {
			case strings.HasSuffix(name, "namespace"):
				r.field(v, key)
			case strings.HasSuffix(name, "namespaces"):
				r.strings(v, key)
			}
			r.inside(child)
		}
	case []any:
		for _, child := range v {
			r.inside(child)
		}
	}
}

var renamers = map[schema.GroupKind]func(Namespaces, Document){
	{Group: GroupRBAC, Kind: "RoleBinding"}:                           Namespaces.subjects,
	{Group: GroupRBAC, Kind: "ClusterRoleBinding"}:                    Namespaces.subjects,
	{Group: GroupAdmission, Kind: "ValidatingWebhookConfiguration"}:   Namespaces.webhooks,
	{Group: GroupAdmission, Kind: "MutatingWebhookConfiguration"}:     Namespaces.webhooks,
	{Group: GroupAdmission, Kind: "ValidatingAdmissionPolicyBinding"}: Namespaces.policyBinding,
	{Group: GroupAdmission, Kind: "MutatingAdmissionPolicyBinding"}:   Namespaces.policyBinding,
	{Group: GroupNetworking, Kind: "NetworkPolicy"}:                   Namespaces.networkPolicy,
	{Group: GroupNetworking, Kind: "IngressClass"}:                    Namespaces.ingressClass,
	{Group: GroupAPIService, Kind: "APIService"}: func(r Namespaces, d Document) {
		r.field(Child(d, "spec", "service"), "namespace")
	},
	KindCRD: func(r Namespaces, d Document) {
		r.field(Child(d, "spec", "conversion", "webhook", "clientConfig", "service"), "namespace")
	},
}

func (r Namespaces) subjects(d Document) {
	for _, s := range Items(d, "subjects") {
		r.field(s, "namespace")
		if name := Text(s, "name"); name != "" {
			s["name"] = r.subjectName(Text(s, "kind"), name)
		}
	}
}

// subjectName maps the user or group that stands for service accounts.
func (r Namespaces) subjectName(kind, name string) string {
	switch {
	case kind == "User" && strings.HasPrefix(name, "system:serviceaccount:"):
		ns, account, ok := strings.Cut(strings.TrimPrefix(name, "system:serviceaccount:"), ":")
		if ok {
			return "system:serviceaccount:" + r.To(ns) + ":" + account
		}
	case kind == "Group" && strings.HasPrefix(name, "system:serviceaccounts:"):
		return "system:serviceaccounts:" + r.To(strings.TrimPrefix(name, "system:serviceaccounts:"))
	}
	return name
}

func (r Namespaces) webhooks(d Document) {
	for _, w := range Items(d, "webhooks") {
		r.field(Child(w, "clientConfig", "service"), "namespace")
		r.selector(Child(w, "namespaceSelector"))
	}
}

func (r Namespaces) policyBinding(d Document) {
	r.field(Child(d, "spec", "paramRef"), "namespace")
	r.selector(Child(d, "spec", "matchResources", "namespaceSelector"))
}

func (r Namespaces) networkPolicy(d Document) {
	for _, direction := range []struct{ rules, peers string }{{"ingress", "from"}, {"egress", "to"}} {
		for _, rule := range Items(d, "spec", direction.rules) {
			for _, peer := range Items(rule, direction.peers) {
				r.selector(Child(peer, "namespaceSelector"))
			}
		}
	}
}

func (r Namespaces) ingressClass(d Document) {
	r.field(Child(d, "spec", "parameters"), "namespace")
}

// selector maps a label selector that chooses namespaces by their names.
func (r Namespaces) selector(d Document) {
	r.field(Child(d, "matchLabels"), LabelNamespaceName)
	for _, e := range Items(d, "matchExpressions") {
		if Text(e, "key") == LabelNamespaceName {
			r.strings(e, "values")
		}
	}
}

func (r Namespaces) affinity(d Document) {
	for _, side := range []string{"podAffinity", "podAntiAffinity"} {
		for _, t := range Items(d, side, "requiredDuringSchedulingIgnoredDuringExecution") {
			r.strings(t, "namespaces")
			r.selector(Child(t, "namespaceSelector"))
		}
		for _, w := range Items(d, side, "preferredDuringSchedulingIgnoredDuringExecution") {
			t := Child(w, "podAffinityTerm")
			r.strings(t, "namespaces")
			r.selector(Child(t, "namespaceSelector"))
		}
	}
}

func (r Namespaces) route(d Document) {
	for _, p := range Items(d, "spec", "parentRefs") {
		r.field(p, "namespace")
	}
	for _, rule := range Items(d, "spec", "rules") {
		for _, b := range Items(rule, "backendRefs") {
			r.field(b, "namespace")
		}
	}
	for _, side := range []string{"from", "to"} { // ReferenceGrant
		for _, s := range Items(d, "spec", side) {
			r.field(s, "namespace")
		}
	}
}
