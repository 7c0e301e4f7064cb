package obstacle

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// pods asks whether the namespace would take the pods that an object makes:
// admission looks at pods alone, so that a Deployment is taken whose pods are
// refused for ever. A namespace that is not there yet refuses nothing: its
// limits come with the point and held at the source.
func (f Finder) pods(ctx context.Context, o Object) ([]report.Finding, error) {
	namespace := o.Obj.GetNamespace()
	if !f.Exists(namespace) || o.Kind != shape.KindPod && !shape.Active(o.Kind, o.Obj) {
		return nil, nil
	}
	served, err := f.Cluster.Serves(ctx, shape.KindPod)
	if err != nil {
		return nil, err
	}
	pod := Object{Name: o.Name, Kind: shape.KindPod, At: served[0], Obj: podOf(o)}
	may, _, err := f.Cluster.May(ctx, "create", pod.At, namespace)
	if err != nil || !may {
		return nil, err
	}
	refusal := f.try(ctx, pod, pod.Obj) // once: a moment later a quota may have room
	found := f.verdict(pod, refusal)
	if found == nil {
		return nil, nil
	}
	if o.Kind != shape.KindPod {
		found.Severity = report.Warning // the rest of the application can be had
		found.Message = fmt.Sprintf("pods of %s would be refused: %s", o.Name, said(refusal))
	}
	return []report.Finding{*found}, nil
}

// podOf is a pod as the object makes them, without what the target looks up
// and the restore brings along or the namespace gives.
func podOf(o Object) *unstructured.Unstructured {
	d := o.Obj.DeepCopy().Object
	spec := shape.PodSpecOf(o.Kind, d)
	shape.Drop(spec, nil, "serviceAccountName", "serviceAccount", "priorityClassName", "priority", "runtimeClassName", "overhead", "nodeName", "imagePullSecrets")
	volumes, _ := spec["volumes"].([]any)
	for _, t := range shape.Items(d, "spec", "volumeClaimTemplates") {
		volumes = append(volumes, shape.Document{
			"name":                  shape.Text(t, "metadata", "name"),
			"persistentVolumeClaim": shape.Document{"claimName": "any"},
		})
	}
	if len(volumes) > 0 {
		spec["volumes"] = volumes
	}
	meta := shape.Document{"name": "davit-would-this-be-taken", "namespace": o.Obj.GetNamespace()}
	if labels := shape.PodLabelsOf(o.Kind, d); labels != nil {
		meta["labels"] = labels
	}
	return &unstructured.Unstructured{Object: shape.Document{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}}
}
