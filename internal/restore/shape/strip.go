package shape

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// assigned are metadata fields that only the API server writes.
var assigned = []string{
	"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
	"deletionGracePeriodSeconds", "managedFields", "selfLink",
}

// controllersFinalizers are put on by controllers of Kubernetes itself, which
// do so again. Every other finalizer is kept as captured: the operator that
// put it there relies on it, and comes along or is there. An object that was
// being deleted when it was captured is not restored at all, so a kept
// finalizer never makes a restored object undeletable by itself.
var controllersFinalizers = map[string]bool{
	"kubernetes.io/pvc-protection":                            true,
	"kubernetes.io/pv-protection":                             true,
	"service.kubernetes.io/load-balancer-cleanup":             true,
	"batch.kubernetes.io/job-tracking":                        true,
	"foregroundDeletion":                                      true,
	"orphan":                                                  true,
	"customresourcecleanup.apiextensions.k8s.io":              true,
	"snapshot.storage.kubernetes.io/pvc-as-source-protection": true,
}

// Options are what stripping depends on.
type Options struct {
	NodePorts bool              // are kept
	Classes   map[string]string // storage classes, captured to wanted
}

// labelSnapshotNode names the node whose snapshotter is to take up a snapshot, or a class of
// group snapshots, where a driver has one on each node (external-snapshotter's
// --node-deployment). Elsewhere no such node is.
const labelSnapshotNode = "snapshot.storage.kubernetes.io/managed-by"

// Strip removes what the target must assign itself. It keeps name, namespace,
// labels, annotations but those that controllers own, and the spec. Owner
// references are removed here and set again by the owner's new UID. The status
// is removed; whoever restores it takes it before.
func Strip(kind schema.GroupKind, d Document, opts Options) {
	Drop(d, []string{"metadata"}, assigned...)
	Drop(d, []string{"metadata"}, "ownerReferences")
	if Text(d, "metadata", "name") != "" {
		Drop(d, []string{"metadata"}, "generateName")
	}
	delete(d, "status")
	stripFinalizers(d)
	Drop(d, []string{"metadata", "annotations"}, AnnotationFilledFrom, AnnotationFilledFor)
	Drop(d, []string{"metadata", "labels"}, LabelRestore, labelSnapshotNode)
	revive(d)
	if fn, ok := strippers[kind]; ok {
		fn(d, opts)
	}
	meta := Child(d, "metadata")
	for _, f := range []string{"annotations", "labels", "finalizers"} {
		DropEmpty(meta, f)
	}
}

func stripFinalizers(d Document) {
	meta := Child(d, "metadata")
	list, ok := meta["finalizers"].([]any)
	if !ok {
		return
	}
	kept := make([]any, 0, len(list))
	for _, f := range list {
		if name, _ := f.(string); !controllersFinalizers[name] {
			kept = append(kept, f)
		}
	}
	meta["finalizers"] = kept
}

var strippers = map[schema.GroupKind]func(Document, Options){
	KindNamespace:   stripNamespace,
	KindService:     stripService,
	KindClaim:       stripClaim,
	KindPod:         func(d Document, _ Options) { stripPod(Child(d, "spec")) },
	KindJob:         stripJob,
	KindDeployment:  stripDeployment,
	KindReplicaSet:  stripDeployment,
	KindAccount:     stripAccount,
	KindSecret:      stripSecret,
	KindStatefulSet: stripStatefulSet,
}

func stripNamespace(d Document, _ Options) {
	Drop(d, []string{"spec"}, "finalizers")
	DropEmpty(d, "spec")
	Drop(d, []string{"metadata", "labels"}, "kubernetes.io/metadata.name")
}

func stripService(d Document, opts Options) {
	spec := Child(d, "spec")
	if Text(spec, "clusterIP") != "None" {
		Drop(spec, nil, "clusterIP", "clusterIPs")
	}
	if !opts.NodePorts {
		ReleasePorts(d)
	}
}

// Recast tells whether one of two Services is headless and the other is not,
// which no API server changes in place, and some answer by breaking off.
func Recast(a, b Document) bool {
	headless := func(d Document) bool { return Text(d, "spec", "clusterIP") == "None" }
	named := func(d Document) bool { return Text(d, "spec", "type") == "ExternalName" }
	return headless(a) != headless(b) && !named(a) && !named(b)
}

// ReleasePorts takes the node ports out of a Service, for the cluster to
// assign, and tells whether it had any.
func ReleasePorts(d Document) (had bool) {
	spec := Child(d, "spec")
	had = spec["healthCheckNodePort"] != nil
	Drop(spec, nil, "healthCheckNodePort")
	for _, port := range Items(spec, "ports") {
		had = had || port["nodePort"] != nil
		delete(port, "nodePort")
	}
	return had
}

func stripClaim(d Document, opts Options) {
	Drop(d, []string{"metadata", "annotations"},
		"pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller",
		"volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner",
		"volume.kubernetes.io/selected-node", "volume.kubernetes.io/storage-resizer")
	MapClasses(KindClaim, d, opts.Classes)
	Drop(d, []string{"spec"}, "volumeName", "dataSource", "dataSourceRef")
}

// MapClasses maps the storage class of a claim, or those of a StatefulSet's
// claim templates, and tells whether there is one that the mapping names, or
// would have made.
func MapClasses(kind schema.GroupKind, d Document, classes map[string]string) (named bool) {
	switch kind {
	case KindClaim:
		const old = "volume.beta.kubernetes.io/storage-class" // the old way of naming a class
		named = mapClass(Child(d, "metadata", "annotations"), old, classes)
		return mapClass(Child(d, "spec"), "storageClassName", classes) || named
	case KindStatefulSet:
		for _, t := range Items(d, "spec", "volumeClaimTemplates") {
			named = mapClass(Child(t, "spec"), "storageClassName", classes) || named
		}
	}
	return named
}

func mapClass(d Document, field string, classes map[string]string) bool {
	class, ok := d[field].(string)
	if !ok && field != "storageClassName" || d == nil {
		return false
	}
	if to, mapped := classes[class]; mapped {
		d[field] = to
		return true
	}
	for _, to := range classes {
		if ok && to == class {
			return true
		}
	}
	return false
}

func stripStatefulSet(d Document, opts Options) {
	MapClasses(KindStatefulSet, d, opts.Classes)
	for _, t := range Items(d, "spec", "volumeClaimTemplates") {
		Drop(t, nil, "status")
		Drop(t, []string{"metadata"}, assigned...)
	}
}

// stripPod removes what admission and the scheduler put into a pod.
func stripPod(spec Document) {
	if spec == nil {
		return
	}
	Drop(spec, nil, "nodeName", "priority", "preemptionPolicy", "ephemeralContainers")
	tokens := map[string]bool{}
	volumes, _ := spec["volumes"].([]any)
	kept := make([]any, 0, len(volumes))
	for _, v := range volumes {
		m, _ := v.(map[string]any)
		if name := Text(m, "name"); strings.HasPrefix(name, "kube-api-access-") && m["projected"] != nil {
			tokens[name] = true
			continue
		}
		kept = append(kept, v)
	}
	if len(tokens) == 0 {
		return
	}
	spec["volumes"] = kept
	DropEmpty(spec, "volumes")
	for _, list := range []string{"containers", "initContainers"} {
		for _, c := range Items(spec, list) {
			stripTokenMounts(c, tokens)
		}
	}
}

func stripTokenMounts(container Document, tokens map[string]bool) {
	mounts, _ := container["volumeMounts"].([]any)
	kept := make([]any, 0, len(mounts))
	for _, v := range mounts {
		if m, _ := v.(map[string]any); !tokens[Text(m, "name")] {
			kept = append(kept, v)
		}
	}
	if mounts != nil {
		container["volumeMounts"] = kept
		DropEmpty(container, "volumeMounts")
	}
}

// jobLabels are generated from the Job's UID or repeat its name.
var jobLabels = []string{
	"controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name",
}

func stripJob(d Document, _ Options) {
	if manual, _ := Child(d, "spec")["manualSelector"].(bool); manual {
		return
	}
	Drop(d, []string{"spec"}, "selector")
	Drop(d, []string{"spec", "template", "metadata", "labels"}, jobLabels...)
	Drop(d, []string{"metadata", "labels"}, jobLabels[0], jobLabels[1])
	Drop(d, []string{"metadata", "annotations"}, "batch.kubernetes.io/job-tracking")
	if template := Child(d, "spec", "template", "metadata"); template != nil {
		DropEmpty(template, "labels")
	}
}

func stripDeployment(d Document, _ Options) {
	Drop(d, []string{"metadata", "annotations"},
		"deployment.kubernetes.io/revision", "deployment.kubernetes.io/revision-history",
		"deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas")
}

// stripSecret leaves of one that asks for a token what asks for it.
func stripSecret(d Document, _ Options) {
	if Text(d, "type") != TokenSecret {
		return
	}
	delete(d, "data")
	Drop(d, []string{"metadata", "annotations"}, "kubernetes.io/service-account.uid")
	Drop(d, []string{"metadata", "labels"}, "kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since")
}

// stripAccount forgets token Secrets: they are made anew, and those of the
// source open nothing here.
func stripAccount(d Document, _ Options) {
	delete(d, "secrets")
}
