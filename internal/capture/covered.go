package capture

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/selection"
)

// workloads are the kinds over which selection.Cover decides.
var workloads = map[string]bool{
	"pods": true, "replicationcontrollers": true, "deployments.apps": true, "statefulsets.apps": true,
	"daemonsets.apps": true, "replicasets.apps": true, "jobs.batch": true, "cronjobs.batch": true,
}

func isWorkload(k Kind) bool { return workloads[k.Name()] }

// findNamespaces adds the namespaces that patterns and labels choose, but for
// those that are being deleted.
func (r *run) findNamespaces(ctx context.Context) error {
	if r.spec.Select.Namespaces.Static() {
		return nil
	}
	all, err := r.chosen(ctx, "")
	if err != nil {
		return err
	}
	for name := range all {
		r.spec.Namespaces = append(r.spec.Namespaces, name)
	}
	slices.Sort(r.spec.Namespaces)
	r.spec.Namespaces = slices.Compact(r.spec.Namespaces)
	return nil
}

// chosen lists, as of a revision, the namespaces that the rule chooses, with
// their labels. Those that no name but a pattern or a label chose are passed over
// when they are being deleted: nobody asked for just them, and what they held is
// not wanted any more. A pattern that chooses none is an error: what it stood for
// is gone, or misspelt.
func (r *run) chosen(ctx context.Context, revision string) (map[string]map[string]string, error) {
	rule, all := r.spec.Select.Namespaces, map[string]map[string]string{}
	literal := rule.Literal()
	err := r.list(ctx, Query{Kind: kindNamespace, Revision: revision}, func(o *unstructured.Unstructured) error {
		switch name := o.GetName(); {
		case !rule.Match(name, o.GetLabels()):
		case o.GetDeletionTimestamp() != nil && !slices.Contains(literal, name):
			r.passOver(name, "is being deleted: left out")
		default:
			all[name] = o.GetLabels()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if unmet := rule.Unmet(all); len(unmet) > 0 {
		return nil, fmt.Errorf("no namespace matches %s: correct the Application's namespaces", strings.Join(unmet, ", "))
	}
	return all, nil
}

// passOver says, once, why a chosen namespace is left out.
func (r *run) passOver(name, why string) {
	if !r.going[name] {
		r.warn("namespaces "+name, why)
	}
	r.going[name] = true
}

// keepNamespaces leaves out what of the namespaces that patterns and labels chose
// has begun to go away since: the point would hold what its deletion has left of it.
func (r *run) keepNamespaces(ctx context.Context) error {
	if r.spec.Select.Namespaces.Static() {
		return nil
	}
	all, err := r.chosen(ctx, r.res.Revision)
	if err != nil {
		return err
	}
	literal := r.spec.Select.Namespaces.Literal()
	r.spec.Namespaces = slices.DeleteFunc(slices.Clone(r.spec.Namespaces), func(name string) bool {
		if _, there := all[name]; there || slices.Contains(literal, name) {
			return false
		}
		r.passOver(name, "was deleted while the capture began: left out")
		return true
	})
	return nil
}

// cover decides, as of a revision, which workloads and pods are the
// application's. Rules that find nothing are errors: the point would lack what
// somebody counts on.
func (r *run) cover(ctx context.Context, revision string) error {
	if r.spec.Select.Whole() {
		return nil
	}
	var objects []selection.Object
	for _, k := range r.catalog.Kinds {
		named := slices.ContainsFunc(r.spec.Select.Workloads, func(n selection.Name) bool { return n.Is(k.Group, k.Kind) })
		if !isWorkload(k) && (!named || !wantKind(k, r.spec.Filter)) {
			continue
		}
		for _, ns := range r.spec.Namespaces {
			err := r.list(ctx, Query{Kind: k, Namespace: ns, Revision: revision}, func(o *unstructured.Unstructured) error {
				if judged := judge(k, o); judged.keep || isWorkload(k) && !isLeftOut(o) {
					objects = append(objects, objectOf(k, o))
				}
				return nil
			})
			if err = r.tolerate(k, err); err != nil {
				return err
			}
		}
	}
	if err := r.checkRules(objects); err != nil {
		return err
	}
	r.covered = r.spec.Select.Cover(objects)
	if revision == "" {
		for _, o := range r.covered.Shared() {
			r.warn(o.Title(), "makes pods that are not the application's besides those that are: it comes along whole, the volumes of the others do not, and a superseded site can stop only the application's pods, not keep it from making them again")
		}
	}
	return nil
}

// isLeftOut tells whether a workload is none of the application's whatever the
// selection says.
func isLeftOut(o *unstructured.Unstructured) bool {
	set := o.GetLabels()
	return set[labelManagedBy] != "" || set[LabelExclude] == "true"
}

// checkRules finds rules that cover nothing, and names of pods that will be
// replaced by others of other names.
func (r *run) checkRules(objects []selection.Object) error {
	in := strings.Join(r.spec.Namespaces, ", ")
	named, groups := r.spec.Select.Missing(objects)
	if len(named) > 0 { // one is enough to say
		n := named[0]
		if !slices.ContainsFunc(r.catalog.Kinds, func(k Kind) bool { return k.Namespaced && n.Is(k.Group, k.Kind) }) {
			return fmt.Errorf("selection matches nothing: workload %s: this cluster serves no namespaced kind %q", n, n.Kind)
		}
		return fmt.Errorf("selection matches nothing: workload %s does not exist in %s, or is left out by label or kind: correct the Application's workloads", n, in)
	}
	for _, group := range groups {
		return fmt.Errorf("selection matches nothing: no pod, and nothing that makes pods, in %s has the labels %s: correct the Application's podSelectors", in, group)
	}
	for i := range objects {
		o := &objects[i]
		if !o.IsPod() || o.Owner == nil || !replaced[o.Owner.Kind] {
			continue
		}
		for _, n := range r.spec.Select.Workloads {
			if n.IsPod() && !selection.IsGlob(n.Name) && n.Matches("", "Pod", o.Namespace, o.Name) {
				return fmt.Errorf("workload %s is one of the pods that %s %s makes under ever new names: name what makes it, such as deployment/web, or use podSelectors", n, o.Owner.Kind, o.Owner.Name)
			}
		}
	}
	return nil
}

// replaced are the controllers whose pods have random names.
var replaced = map[string]bool{"ReplicaSet": true, "DaemonSet": true, "Job": true, "ReplicationController": true}

// objectOf takes what Cover needs out of an object.
func objectOf(k Kind, o *unstructured.Unstructured) selection.Object {
	out := selection.Object{
		Group: k.Group, Kind: k.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID()),
		Labels: o.GetLabels(), Replicas: -1, Ended: isFinishedPod(o) || o.GetDeletionTimestamp() != nil,
	}
	switch k.Name() {
	case "deployments.apps", "statefulsets.apps", "replicasets.apps", "replicationcontrollers":
		out.Replicas = int(number(o, 1, "spec", "replicas"))
		out.First = int(number(o, 0, "spec", "ordinals", "start"))
		fallthrough
	case "daemonsets.apps", "jobs.batch":
		out.Template, _, _ = unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
	case "cronjobs.batch":
		out.Template, _, _ = unstructured.NestedStringMap(o.Object, "spec", "jobTemplate", "spec", "template", "metadata", "labels")
	}
	if owner := controller(o); owner != nil {
		gv, _ := schema.ParseGroupVersion(owner.APIVersion) // one that cannot be read names no group
		out.Owner = &selection.Owner{Group: gv.Group, Kind: owner.Kind, Name: owner.Name, UID: string(owner.UID)}
	}
	return out
}

// number returns an integer inside nested maps, however JSON decoded it.
func number(o *unstructured.Unstructured, otherwise int64, path ...string) int64 {
	value, ok, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	if !ok {
		return otherwise
	}
	switch n := value.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return otherwise
}

// selects tells whether the selection covers an object, apart from what others
// need of it.
func (r *run) selects(k Kind, o *unstructured.Unstructured) bool {
	return r.spec.Select.Whole() || r.spec.Select.MatchesLabels(o.GetLabels()) ||
		r.spec.Select.Names(k.Group, k.Kind, o.GetNamespace(), o.GetName()) ||
		r.covered.Has(k.Group, k.Kind, o.GetNamespace(), o.GetName())
}

// ownPod tells whether a pod is the application's.
func (r *run) ownPod(namespace, name string) bool {
	return r.spec.Select.Whole() || r.covered.Has("", "Pod", namespace, name)
}

// queries returns the lists that hold everything of a kind in a namespace that
// the selection may cover.
func (r *run) queries(k Kind, namespace string) []Query {
	s := r.spec.Select
	all := []Query{{Kind: k, Namespace: namespace}}
	if s.Whole() || isWorkload(k) {
		return all
	}
	var queries []Query
	for _, n := range s.Workloads {
		switch {
		case !n.Is(k.Group, k.Kind) || !n.In(namespace):
		case selection.IsGlob(n.Name):
			return all
		default:
			queries = append(queries, Query{Kind: k, Namespace: namespace, Name: n.Name})
		}
	}
	for _, selector := range s.Any {
		queries = append(queries, Query{Kind: k, Namespace: namespace, Labels: selector.String()})
	}
	return queries
}

// used are the namespaces of the point: those that the application names, and
// of those that patterns and labels chose for a part of what is in them, the
// ones that hold such a part.
func (r *run) used() []string {
	all := slices.Clone(r.spec.Namespaces)
	if r.spec.Select.Whole() || r.spec.Select.Namespaces.Static() {
		return all
	}
	r.needs.mu.Lock()
	defer r.needs.mu.Unlock()
	literal := r.spec.Select.Namespaces.Literal()
	return slices.DeleteFunc(all, func(ns string) bool { return !r.needs.namespaces[ns] && !slices.Contains(literal, ns) })
}

// leave notes that a rule leaves a claim's data out.
func (r *run) leave(key string) {
	if !r.left[key] {
		r.note("info", "persistentvolumeclaims "+key, "its data is left out by the application's volume rules")
	}
	r.left[key] = true
}

// pointing writes what points at the covered pods rather than being named by
// them: Services, disruption budgets and network policies that select them,
// and what scales their controllers.
func (r *run) pointing(ctx context.Context) error {
	at := r.aims()
	for name, points := range map[string]func(*unstructured.Unstructured) bool{
		"services": func(o *unstructured.Unstructured) bool {
			selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector")
			return len(selector) > 0 && at.match(o.GetNamespace(), labels.SelectorFromSet(selector))
		},
		"poddisruptionbudgets.policy":          func(o *unstructured.Unstructured) bool { return at.selected(o, "selector") },
		"networkpolicies.networking.k8s.io":    func(o *unstructured.Unstructured) bool { return at.selected(o, "podSelector") },
		"horizontalpodautoscalers.autoscaling": r.scales,
	} {
		k, ok := r.find(name)
		if !ok || !wantKind(k, r.spec.Filter) {
			continue
		}
		w := r.writers.of(k)
		for _, ns := range r.spec.Namespaces {
			err := r.list(ctx, Query{Kind: k, Namespace: ns, Revision: r.res.Revision}, func(o *unstructured.Unstructured) error {
				if !points(o) {
					return nil
				}
				return r.take(ctx, w, o)
			})
			if err = r.tolerate(k, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// aims are the labels of the covered pods, and of those that will be made, by
// namespace.
type aims map[string][]map[string]string

func (r *run) aims() aims {
	at := aims{}
	for _, o := range r.covered.Covered() {
		set := o.Template
		if o.IsPod() {
			set = o.Labels
		}
		if len(set) > 0 {
			at[o.Namespace] = append(at[o.Namespace], set)
		}
	}
	return at
}

func (at aims) match(namespace string, selector labels.Selector) bool {
	return slices.ContainsFunc(at[namespace], func(set map[string]string) bool { return selector.Matches(labels.Set(set)) })
}

// selected reads a label selector below an object's spec. An empty one is of
// the namespace, not of some of its pods.
func (at aims) selected(o *unstructured.Unstructured, field string) bool {
	value, _, _ := unstructured.NestedMap(o.Object, "spec", field)
	var selector metav1.LabelSelector
	if runtime.DefaultUnstructuredConverter.FromUnstructured(value, &selector) != nil {
		return false
	}
	s, err := metav1.LabelSelectorAsSelector(&selector)
	return err == nil && !s.Empty() && at.match(o.GetNamespace(), s)
}

// scales tells whether an autoscaler scales a covered controller.
func (r *run) scales(o *unstructured.Unstructured) bool {
	target, _, _ := unstructured.NestedMap(o.Object, "spec", "scaleTargetRef")
	gv, err := schema.ParseGroupVersion(text(target, "apiVersion"))
	return err == nil && r.covered.Has(gv.Group, text(target, "kind"), o.GetNamespace(), text(target, "name"))
}
