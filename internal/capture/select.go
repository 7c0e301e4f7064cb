package capture

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	// LabelExclude with the value "true" leaves an object out, and a claim's
	// data with it.
	LabelExclude = "davit.dev/exclude"

	labelManagedBy   = "davit.dev/managed-by"
	davitGroup       = "davit.dev"
	leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"
)

// skippedKinds are left out unless an include filter names them: what the
// cluster makes and remakes by itself, and views of what is elsewhere.
var skippedKinds = []pattern{
	{resource: "events"},
	{resource: "events", group: "events.k8s.io"},
	{resource: "leases", group: "coordination.k8s.io"},
	{resource: "leasecandidates", group: "coordination.k8s.io"},
	{resource: "componentstatuses"},
	{resource: "bindings"},
	{resource: "controllerrevisions", group: "apps"},
	{resource: "csistoragecapacities", group: "storage.k8s.io"},
	{resource: "podmetrics", group: "*"},
	{resource: "packagemanifests", group: "*"},
	{resource: "*", group: "metrics.k8s.io"},
	{resource: "*", group: "custom.metrics.k8s.io"},
	{resource: "*", group: "external.metrics.k8s.io"},
	{resource: "*", group: "authorization.k8s.io"},
	{resource: "*", group: "authentication.k8s.io"},
	{resource: "*", group: "authorization.openshift.io"}, // a view of rbac.authorization.k8s.io
	{resource: "*", group: "subresources.*"},
}

// wantKind tells whether objects of a namespaced kind are captured. Kinds
// that cannot be got, listed and created are views, not things.
func wantKind(k Kind, f Filter) bool {
	if !k.Namespaced || !f.Match(k.Resource, k.Group) {
		return false
	}
	for _, verb := range []string{"get", "list", "create"} {
		if !slices.Contains(k.Verbs, verb) {
			return false
		}
	}
	if f.Named(k.Resource, k.Group) {
		return true
	}
	if k.Group == davitGroup {
		return false
	}
	return !slices.ContainsFunc(skippedKinds, func(p pattern) bool { return p.matches(k.Resource, k.Group) })
}

// verdict is what the selection rules say of one object.
type verdict struct {
	keep bool
	// warn is why a person should know that it is left out.
	warn string
}

var kept, dropped = verdict{keep: true}, verdict{}

// judge applies the rules that need nothing but the object itself.
func judge(k Kind, o *unstructured.Unstructured) verdict {
	objLabels := o.GetLabels()
	if objLabels[labelManagedBy] != "" || objLabels[LabelExclude] == "true" {
		return dropped
	}
	if o.GetDeletionTimestamp() != nil {
		return verdict{warn: "is being deleted: left out"}
	}
	rule, ok := rules[k.Name()]
	if ok && rule(o) || isAPIServers(k, o) {
		return dropped
	}
	return kept
}

// isAPIServers finds the Service of the API server itself and its addresses:
// those of another cluster would cut all that runs off from it.
func isAPIServers(k Kind, o *unstructured.Unstructured) bool {
	switch k.Name() {
	case "services", "endpoints", "endpointslices.discovery.k8s.io":
		return o.GetNamespace() == "default" && o.GetName() == "kubernetes"
	}
	return false
}

// rules tell, by kind, which objects are left out because the cluster makes
// them again, or must not have them again.
var rules = map[string]func(*unstructured.Unstructured) bool{
	"pods":                            isControlled,
	"replicasets.apps":                controlledBy("Deployment"),
	"jobs.batch":                      isFinishedJob,
	"secrets":                         isTokenSecret,
	"serviceaccounts":                 isPlainDefaultAccount,
	"configmaps":                      isClusterConfigMap,
	"endpoints":                       isManagedEndpoints,
	"endpointslices.discovery.k8s.io": isManagedSlice,
	"persistentvolumeclaims":          controlledBy("Pod"), // ephemeral volumes
}

func controller(o *unstructured.Unstructured) *metav1.OwnerReference {
	return metav1.GetControllerOf(o)
}

func isControlled(o *unstructured.Unstructured) bool {
	if _, static := o.GetAnnotations()["kubernetes.io/config.mirror"]; static {
		return true
	}
	return controller(o) != nil || isFinishedPod(o)
}

// isFinishedPod finds pods that have run to their end and start no more.
func isFinishedPod(o *unstructured.Unstructured) bool {
	phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
	return phase == "Succeeded" || phase == "Failed"
}

func controlledBy(kind string) func(*unstructured.Unstructured) bool {
	return func(o *unstructured.Unstructured) bool {
		owner := controller(o)
		return owner != nil && owner.Kind == kind
	}
}

func isFinishedJob(o *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		if (condition["type"] == "Complete" || condition["type"] == "Failed") && condition["status"] == "True" {
			return true
		}
	}
	return false
}

// isTokenSecret finds the tokens that clusters made by themselves for each account, before
// version 1.24. What asks for a token was made by somebody, and a pod may mount it: the
// token in it is made anew.
func isTokenSecret(o *unstructured.Unstructured) bool {
	if kind, _, _ := unstructured.NestedString(o.Object, "type"); kind != "kubernetes.io/service-account-token" {
		return false
	}
	const mostBase, random = 58, 5 // of generated names
	account := o.GetAnnotations()["kubernetes.io/service-account.name"]
	base := account + "-token-"
	base = base[:min(len(base), mostBase)]
	return account == "" || strings.HasPrefix(o.GetName(), base) && len(o.GetName()) == len(base)+random
}

// isPlainDefaultAccount finds the account that comes with every namespace, if
// nobody changed it. Secrets in it are tokens the cluster made.
func isPlainDefaultAccount(o *unstructured.Unstructured) bool {
	if o.GetName() != "default" || len(o.GetLabels()) > 0 || len(o.GetAnnotations()) > 0 {
		return false
	}
	pulls, _, _ := unstructured.NestedSlice(o.Object, "imagePullSecrets")
	_, automount, _ := unstructured.NestedBool(o.Object, "automountServiceAccountToken")
	return len(pulls) == 0 && !automount
}

func isClusterConfigMap(o *unstructured.Unstructured) bool {
	if _, leads := o.GetAnnotations()[leaderAnnotation]; leads {
		return true
	}
	name := o.GetName()
	return name == "kube-root-ca.crt" || name == "openshift-service-ca.crt"
}

// isManagedEndpoints finds Endpoints that a controller writes. Those of a
// Service without a selector are a person's, and stay.
func isManagedEndpoints(o *unstructured.Unstructured) bool {
	annotations := o.GetAnnotations()
	_, leads := annotations[leaderAnnotation]
	_, triggered := annotations["endpoints.kubernetes.io/last-change-trigger-time"]
	return leads || triggered || o.GetLabels()["endpoints.kubernetes.io/managed-by"] != ""
}

func isManagedSlice(o *unstructured.Unstructured) bool {
	return strings.HasSuffix(o.GetLabels()["endpointslice.kubernetes.io/managed-by"], ".k8s.io")
}

// strip takes away what is never part of a recovery point.
func strip(o *unstructured.Unstructured) { o.SetManagedFields(nil) }

// title names an object for people: kind.group namespace/name.
func title(k Kind, o *unstructured.Unstructured) string {
	return titleOf(k, o.GetNamespace(), o.GetName())
}

func titleOf(k Kind, namespace, name string) string {
	if namespace != "" {
		name = namespace + "/" + name
	}
	return k.Name() + " " + name
}
