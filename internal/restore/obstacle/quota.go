package obstacle

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

var kindQuota = schema.GroupKind{Kind: "ResourceQuota"}

// Need is what a restore creates in one namespace, as quotas count it:
// "pods", "secrets", "count/deployments.apps", "requests.storage".
type Need map[string]resource.Quantity

// Add adds an amount.
func (n Need) Add(what string, amount resource.Quantity) {
	sum := n[what]
	sum.Add(amount)
	n[what] = sum
}

// counted are the kinds that quotas count by a name of their own.
var counted = map[string]bool{
	"pods": true, "services": true, "secrets": true, "configmaps": true, "persistentvolumeclaims": true,
	"resourcequotas": true, "replicationcontrollers": true,
}

// Count adds objects of a kind.
func (n Need) Count(gr schema.GroupResource, objects int64) {
	amount := *resource.NewQuantity(objects, resource.DecimalSI)
	n.Add("count/"+gr.String(), amount)
	if gr.Group == "" && counted[gr.Resource] {
		n.Add(gr.Resource, amount)
	}
}

// Sized tells whether quotas count what objects of a kind ask for, besides
// their number.
func Sized(kind schema.GroupKind) bool { return kind == shape.KindClaim || makesPods(kind) }

// Size adds what an object asks for.
func (n Need) Size(o Object) {
	if o.Kind == shape.KindClaim {
		n.claim(o.Obj.Object)
		return
	}
	n.pods(o)
}

func (n Need) claim(d shape.Document) {
	asked, err := resource.ParseQuantity(shape.Text(d, "spec", "resources", "requests", "storage"))
	if err != nil {
		return
	}
	n.Add("requests.storage", asked)
	if class := shape.Text(d, "spec", "storageClassName"); class != "" {
		n.Add(class+".storageclass.storage.k8s.io/requests.storage", asked)
		n.Add(class+".storageclass.storage.k8s.io/persistentvolumeclaims", *resource.NewQuantity(1, resource.DecimalSI))
	}
}

// pods adds the pods of a workload. How many a DaemonSet, a Job or a CronJob
// has depends on the target and the hour: one is counted.
func (n Need) pods(o Object) {
	replicas, set := shape.Number(o.Obj.Object, "spec", "replicas")
	switch {
	case !shape.Active(o.Kind, o.Obj):
		return
	case !set || replicas < 1:
		replicas = 1
	}
	if o.Kind != shape.KindPod {
		n.Count(schema.GroupResource{Resource: "pods"}, replicas)
	}
	for _, c := range shape.Items(shape.PodSpecOf(o.Kind, o.Obj.Object), "containers") {
		for _, side := range []string{"requests", "limits"} {
			for what := range shape.Child(c, "resources", side) {
				q, err := resource.ParseQuantity(fmt.Sprint(shape.Child(c, "resources", side)[what]))
				if err != nil {
					continue
				}
				q.Mul(replicas)
				n.Add(side+"."+what, q)
				if side == "requests" && (what == "cpu" || what == "memory") {
					n.Add(what, q) // the old name
				}
			}
		}
	}
}

// Quotas are those of one namespace.
type Quotas struct {
	namespace string
	all       []*unstructured.Unstructured
}

// Quotas reads the quotas of a namespace. Those with a scope count only some
// of what is in it, and are left to the target.
func (f Finder) Quotas(ctx context.Context, namespace string) (Quotas, error) {
	q := Quotas{namespace: namespace}
	err := f.list(ctx, kindQuota, namespace, "", func(u *unstructured.Unstructured) error {
		if spec := shape.Child(u.Object, "spec"); spec["scopes"] == nil && spec["scopeSelector"] == nil {
			q.all = append(q.all, u)
		}
		return nil
	})
	return q, err
}

// Empty tells that there is nothing to work out.
func (q Quotas) Empty() bool { return len(q.all) == 0 }

// Names tells whether any quota counts something.
func (q Quotas) Names(what string) bool {
	return slices.ContainsFunc(q.all, func(u *unstructured.Unstructured) bool {
		_, counts := shape.Child(u.Object, "spec", "hard")[what]
		return counts
	})
}

// Check says which of the quotas leave less than is needed.
func (q Quotas) Check(need Need) (found []report.Finding) {
	for _, u := range q.all {
		short := lacking(u.Object, need)
		if len(short) == 0 {
			continue
		}
		severity := report.Warning // pods wait until there is room
		if slices.ContainsFunc(short, func(s string) bool { return !ofPods(s) }) {
			severity = report.Error
		}
		found = append(found, report.Finding{
			Severity: severity, Reason: "Quota",
			Message: fmt.Sprintf("exceeded quota: %s of namespace %s leaves too little for what is restored: %s", u.GetName(), q.namespace, strings.Join(short, "; ")),
			Remedy:  "raise it for the time of the restore, or restore into another namespace with --map-namespace",
		})
	}
	return found
}

// ofPods tells whether a shortage is one of pods, which controllers try to make
// again and again.
func ofPods(short string) bool {
	what, _, _ := strings.Cut(short, ": ")
	return what == "pods" || what == "count/pods" || what == "cpu" || what == "memory" ||
		strings.HasPrefix(what, "limits.") || strings.HasPrefix(what, "requests.") && what != "requests.storage"
}

func lacking(quota shape.Document, need Need) (short []string) {
	for what, hard := range shape.Child(quota, "spec", "hard") {
		wanted, counts := need[what]
		limit, err := resource.ParseQuantity(fmt.Sprint(hard))
		if !counts || err != nil {
			continue
		}
		used, err := resource.ParseQuantity(shape.Text(quota, "status", "used", what))
		if err != nil {
			used = resource.Quantity{}
		}
		left := limit.DeepCopy()
		left.Sub(used)
		if wanted.Cmp(left) > 0 {
			short = append(short, fmt.Sprintf("%s: %s needed, %s of %s left", what, wanted.String(), left.String(), limit.String()))
		}
	}
	slices.Sort(short)
	return short
}
