package restore

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// document is an API object as JSON has it. Accessors below take whatever is
// there: outside data may have any shape and never makes them panic.
type document = map[string]any

// child returns the map under the keys, or nil.
func child(d document, keys ...string) document {
	for _, k := range keys {
		next, ok := d[k].(map[string]any)
		if !ok {
			return nil
		}
		d = next
	}
	return d
}

// items returns the maps in the list under the keys.
func items(d document, keys ...string) []document {
	if len(keys) == 0 {
		return nil
	}
	list, _ := child(d, keys[:len(keys)-1]...)[keys[len(keys)-1]].([]any)
	var all []document
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}

// text returns the string under the keys, or nothing.
func text(d document, keys ...string) string {
	if len(keys) == 0 {
		return ""
	}
	s, _ := child(d, keys[:len(keys)-1]...)[keys[len(keys)-1]].(string)
	return s
}

// number returns the whole number under the keys.
func number(d document, keys ...string) (int64, bool) {
	if len(keys) == 0 {
		return 0, false
	}
	switch n := child(d, keys[:len(keys)-1]...)[keys[len(keys)-1]].(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), true
	}
	return 0, false
}

// drop removes fields from the map under the keys.
func drop(d document, keys []string, fields ...string) {
	m := child(d, keys...)
	for _, f := range fields {
		delete(m, f)
	}
}

// dropEmpty removes a map or list that has nothing in it any more.
func dropEmpty(d document, field string) {
	switch v := d[field].(type) {
	case map[string]any:
		if len(v) == 0 {
			delete(d, field)
		}
	case []any:
		if len(v) == 0 {
			delete(d, field)
		}
	}
}

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

// stripOptions are what stripping depends on.
type stripOptions struct {
	nodePorts bool // kept
	classes   map[string]string
}

// strip removes what the target must assign itself. It keeps name, namespace,
// labels, annotations but those that controllers own, and the spec. Owner
// references are removed here and set again by the owner's new UID. The status
// is removed; whoever restores it takes it before.
func strip(kind schema.GroupKind, d document, opts stripOptions) {
	drop(d, []string{"metadata"}, assigned...)
	drop(d, []string{"metadata"}, "ownerReferences")
	if text(d, "metadata", "name") != "" {
		drop(d, []string{"metadata"}, "generateName")
	}
	delete(d, "status")
	stripFinalizers(d)
	drop(d, []string{"metadata", "annotations"}, AnnotationFilledFrom)
	drop(d, []string{"metadata", "labels"}, LabelRestore)
	if fn, ok := strippers[kind]; ok {
		fn(d, opts)
	}
	meta := child(d, "metadata")
	for _, f := range []string{"annotations", "labels", "finalizers"} {
		dropEmpty(meta, f)
	}
}

func stripFinalizers(d document) {
	meta := child(d, "metadata")
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

var strippers = map[schema.GroupKind]func(document, stripOptions){
	kindNamespace:   stripNamespace,
	kindService:     stripService,
	kindClaim:       stripClaim,
	kindPod:         func(d document, _ stripOptions) { stripPod(child(d, "spec")) },
	kindJob:         stripJob,
	kindDeployment:  stripDeployment,
	kindReplicaSet:  stripDeployment,
	kindAccount:     stripAccount,
	kindStatefulSet: stripStatefulSet,
}

func stripNamespace(d document, _ stripOptions) {
	drop(d, []string{"spec"}, "finalizers")
	dropEmpty(d, "spec")
	drop(d, []string{"metadata", "labels"}, "kubernetes.io/metadata.name")
}

func stripService(d document, opts stripOptions) {
	spec := child(d, "spec")
	if text(spec, "clusterIP") != "None" {
		drop(spec, nil, "clusterIP", "clusterIPs")
	}
	if opts.nodePorts {
		return
	}
	drop(spec, nil, "healthCheckNodePort")
	for _, port := range items(spec, "ports") {
		delete(port, "nodePort")
	}
}

func stripClaim(d document, opts stripOptions) {
	drop(d, []string{"metadata", "annotations"},
		"pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller",
		"volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner",
		"volume.kubernetes.io/selected-node", "volume.kubernetes.io/storage-resizer")
	stripClaimSpec(child(d, "spec"), opts.classes)
	drop(d, []string{"spec"}, "volumeName", "dataSource", "dataSourceRef")
	if note := child(d, "metadata", "annotations"); note != nil {
		const key = "volume.beta.kubernetes.io/storage-class" // the old way of naming a class
		if to, ok := opts.classes[text(note, key)]; ok && note[key] != nil {
			note[key] = to
		}
	}
}

// stripClaimSpec maps the storage class of a claim or a claim template.
func stripClaimSpec(spec document, classes map[string]string) {
	if to, ok := classes[text(spec, "storageClassName")]; ok && spec != nil {
		spec["storageClassName"] = to
	}
}

func stripStatefulSet(d document, opts stripOptions) {
	for _, t := range items(d, "spec", "volumeClaimTemplates") {
		stripClaimSpec(child(t, "spec"), opts.classes)
		drop(t, nil, "status")
		drop(t, []string{"metadata"}, assigned...)
	}
}

// stripPod removes what admission and the scheduler put into a pod.
func stripPod(spec document) {
	if spec == nil {
		return
	}
	drop(spec, nil, "nodeName", "priority", "preemptionPolicy", "ephemeralContainers")
	tokens := map[string]bool{}
	volumes, _ := spec["volumes"].([]any)
	kept := make([]any, 0, len(volumes))
	for _, v := range volumes {
		m, _ := v.(map[string]any)
		if name := text(m, "name"); strings.HasPrefix(name, "kube-api-access-") && m["projected"] != nil {
			tokens[name] = true
			continue
		}
		kept = append(kept, v)
	}
	if len(tokens) == 0 {
		return
	}
	spec["volumes"] = kept
	dropEmpty(spec, "volumes")
	for _, list := range []string{"containers", "initContainers"} {
		for _, c := range items(spec, list) {
			stripTokenMounts(c, tokens)
		}
	}
}

func stripTokenMounts(container document, tokens map[string]bool) {
	mounts, _ := container["volumeMounts"].([]any)
	kept := make([]any, 0, len(mounts))
	for _, v := range mounts {
		if m, _ := v.(map[string]any); !tokens[text(m, "name")] {
			kept = append(kept, v)
		}
	}
	if mounts != nil {
		container["volumeMounts"] = kept
		dropEmpty(container, "volumeMounts")
	}
}

// jobLabels are generated from the Job's UID or repeat its name.
var jobLabels = []string{
	"controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name",
}

func stripJob(d document, _ stripOptions) {
	if manual, _ := child(d, "spec")["manualSelector"].(bool); manual {
		return
	}
	drop(d, []string{"spec"}, "selector")
	drop(d, []string{"spec", "template", "metadata", "labels"}, jobLabels...)
	drop(d, []string{"metadata", "labels"}, jobLabels[0], jobLabels[1])
	drop(d, []string{"metadata", "annotations"}, "batch.kubernetes.io/job-tracking")
	if template := child(d, "spec", "template", "metadata"); template != nil {
		dropEmpty(template, "labels")
	}
}

func stripDeployment(d document, _ stripOptions) {
	drop(d, []string{"metadata", "annotations"},
		"deployment.kubernetes.io/revision", "deployment.kubernetes.io/revision-history",
		"deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas")
}

// stripAccount forgets token Secrets: they are made anew, and those of the
// source open nothing here.
func stripAccount(d document, _ stripOptions) {
	delete(d, "secrets")
}
