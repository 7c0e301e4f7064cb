package scenario

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Objects maps "resource.group name" to an object with everything removed that
// a cluster must assign. It is made without any of Davit's code, so that it
// can judge it.
type Objects map[string]map[string]any

// runtimeKinds are made again by controllers, or live only while something runs.
var runtimeKinds = map[string]bool{
	"pods": true, "replicasets.apps": true, "controllerrevisions.apps": true, "endpoints": true,
	"endpointslices.discovery.k8s.io": true, "events": true, "events.events.k8s.io": true, "jobs.batch": true,
	"leases.coordination.k8s.io": true, "volumesnapshots.snapshot.storage.k8s.io": true,
	"pods.metrics.k8s.io": true, "csistoragecapacities.storage.k8s.io": true,
}

// Collect reads every object of a namespace, and the cluster-scoped ones whose
// names begin with the prefix.
func Collect(ctx context.Context, config *rest.Config, namespace, clusterPrefix string) (Objects, error) {
	config = rest.CopyConfig(config)
	config.WarningHandler = rest.NoWarnings{} // deprecated kinds are read like any other
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make discovery client: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	lists, err := disco.ServerPreferredResources()
	if err != nil {
		return nil, fmt.Errorf("discover kinds: %w", err)
	}
	out := Objects{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("read group version: %w", err)
		}
		for _, r := range list.APIResources {
			gvr := gv.WithResource(r.Name)
			if gv.Group == "davit.dev" || runtimeKinds[gvr.GroupResource().String()] || !slices.Contains(r.Verbs, "list") {
				continue
			}
			if err := out.add(ctx, client, gvr, r.Namespaced, namespace, clusterPrefix); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (o Objects) add(ctx context.Context, client dynamic.Interface, gvr schema.GroupVersionResource, namespaced bool, namespace, prefix string) error {
	var from dynamic.ResourceInterface = client.Resource(gvr)
	if namespaced {
		from = client.Resource(gvr).Namespace(namespace)
	}
	list, err := from.List(ctx, metav1.ListOptions{})
	if apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", gvr.Resource, err)
	}
	for i := range list.Items {
		item := &list.Items[i]
		wanted := namespaced || strings.HasPrefix(item.GetName(), prefix) || strings.HasSuffix(item.GetName(), prefix+".example.com")
		if !wanted || generated(gvr, item) {
			continue
		}
		o[gvr.GroupResource().String()+" "+item.GetName()] = normalise(item)
	}
	return nil
}

// generated says that Kubernetes makes the object by itself in every namespace.
func generated(gvr schema.GroupVersionResource, item *unstructured.Unstructured) bool {
	switch gvr.Resource {
	case "configmaps":
		return item.GetName() == "kube-root-ca.crt"
	case "serviceaccounts":
		return item.GetName() == "default"
	}
	return false
}

// normalise removes what differs from cluster to cluster.
func normalise(item *unstructured.Unstructured) map[string]any {
	o := item.DeepCopy()
	owners := o.GetOwnerReferences()
	for i := range owners {
		owners[i].UID = "" // the name and kind must agree, the UID cannot
	}
	o.SetOwnerReferences(owners)
	for _, f := range [][]string{
		{"metadata", "uid"},
		{"metadata", "resourceVersion"},
		{"metadata", "generation"},
		{"metadata", "creationTimestamp"},
		{"metadata", "managedFields"},
		{"status"},
	} {
		unstructured.RemoveNestedField(o.Object, f...)
	}
	o.SetLabels(without(o.GetLabels(), "davit.dev/"))
	o.SetAnnotations(without(o.GetAnnotations(), "davit.dev/", "pv.kubernetes.io/", "volume.kubernetes.io/",
		"volume.beta.kubernetes.io/", "deployment.kubernetes.io/revision", "autoscaling.alpha.kubernetes.io/"))
	switch o.GetKind() {
	case "Service":
		clusterIP, _, _ := unstructured.NestedString(o.Object, "spec", "clusterIP")
		if clusterIP != "None" {
			unstructured.RemoveNestedField(o.Object, "spec", "clusterIP")
			unstructured.RemoveNestedField(o.Object, "spec", "clusterIPs")
		}
	case "PersistentVolumeClaim":
		unstructured.RemoveNestedField(o.Object, "spec", "volumeName")
		o.SetFinalizers(nil)
	case "Namespace":
		unstructured.RemoveNestedField(o.Object, "spec")
	}
	return o.Object
}

func without(m map[string]string, prefixes ...string) map[string]string {
	for k := range m {
		for _, p := range prefixes {
			if strings.HasPrefix(k, p) {
				delete(m, k)
			}
		}
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// Differences says, for people, how b differs from a.
func (o Objects) Differences(b Objects) []string {
	var out []string
	for name, want := range o {
		got, ok := b[name]
		switch {
		case !ok:
			out = append(out, name+" is missing")
		case !reflect.DeepEqual(want, got):
			out = append(out, fmt.Sprintf("%s differs at %s", name, strings.Join(paths("", want, got), ", ")))
		}
	}
	for name := range b {
		if _, ok := o[name]; !ok {
			out = append(out, name+" was not there before")
		}
	}
	slices.Sort(out)
	return out
}

// paths lists where two values differ.
func paths(at string, a, b any) []string {
	ma, oka := a.(map[string]any)
	mb, okb := b.(map[string]any)
	if !oka || !okb {
		if reflect.DeepEqual(a, b) {
			return nil
		}
		return []string{fmt.Sprintf("%s (%v, now %v)", at, a, b)}
	}
	var out []string
	for k := range ma {
		out = append(out, paths(at+"."+k, ma[k], mb[k])...)
	}
	for k := range mb {
		if _, ok := ma[k]; !ok {
			out = append(out, fmt.Sprintf("%s.%s (new: %v)", at, k, mb[k]))
		}
	}
	slices.Sort(out)
	return out
}
