package shape

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Owner is one owner reference as captured.
type Owner struct {
	UID        string `json:"uid"`
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Controller bool   `json:"controller"`
	Block      bool   `json:"blockOwnerDeletion"`
}

// GroupKind is the owner's kind, in whatever version.
func (o Owner) GroupKind() schema.GroupKind {
	return schema.FromAPIVersionAndKind(o.APIVersion, o.Kind).GroupKind()
}

// Head is as much of an object as every kind has.
type Head struct {
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		UID         string            `json:"uid"`
		Deletion    string            `json:"deletionTimestamp"`
		Owners      []Owner           `json:"ownerReferences"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
		Finalizers  []string          `json:"finalizers"`
	} `json:"metadata"`
	Type string `json:"type"` // of a Secret
}

// Reference is an owner reference with the owner's UID at the target.
func (o Owner) Reference(uid string) map[string]any {
	ref := map[string]any{"apiVersion": o.APIVersion, "kind": o.Kind, "name": o.Name, "uid": uid}
	if o.Controller {
		ref["controller"] = true
	}
	if o.Block {
		ref["blockOwnerDeletion"] = true
	}
	return ref
}

// MergeOwners is the live object's references and those of refs it lacks.
func MergeOwners(live *unstructured.Unstructured, refs []any) (merged []any, changed bool) {
	have := map[string]bool{}
	for _, o := range Items(live.Object, "metadata", "ownerReferences") {
		merged = append(merged, o)
		have[Text(o, "uid")] = true
	}
	for _, r := range refs {
		ref, _ := r.(map[string]any)
		if !have[Text(ref, "uid")] {
			merged, changed = append(merged, r), true
		}
	}
	return merged, changed
}

// OwnersOf are the owner references of an object, as they stand in it.
func OwnersOf(u *unstructured.Unstructured) []any {
	refs, _ := Child(u.Object, "metadata")["ownerReferences"].([]any)
	return refs
}
