package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/vault"
)

// bringDocuments makes the Application and its policy at the target, from the
// newest revision that the vault holds, so that the agent here fences it when
// it must, and goes on protecting it once it is whole: until then the
// Application says that it is being restored. Documents that are there already
// get the captured spec.
func (r *recovery) bringDocuments(ctx context.Context) error {
	doc, err := r.deps.Project.GetDocument(ctx, r.opts.Application)
	if errors.Is(err, vault.ErrNotFound) {
		r.warn("", "the vault holds no policy of %s, so it is not protected here: run davit protect", r.opts.Application)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read documents of %s: %w", r.opts.Application, err)
	}
	r.report.Documents = nil // of an earlier try
	// The policy comes first: the Application names it.
	for _, kind := range []string{"ProtectionPolicy", "Application"} {
		for _, raw := range doc.Objects {
			if err := r.bringDocument(ctx, kind, raw); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *recovery) bringDocument(ctx context.Context, kind string, raw json.RawMessage) error {
	obj := &unstructured.Unstructured{}
	if err := obj.UnmarshalJSON(raw); err != nil {
		return fmt.Errorf("read documents of %s: %w", r.opts.Application, err)
	}
	if obj.GetKind() != kind || obj.GroupVersionKind().Group != v1alpha1.GroupVersion.Group {
		return nil
	}
	name := kind + " " + obj.GetNamespace() + "/" + obj.GetName()
	served, err := r.deps.Cluster.Serves(ctx, schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: kind})
	if errors.Is(err, restore.ErrNotServed) {
		r.warn(name, "Davit is not installed at the target, so the application is not protected here: run davit install, then davit protect")
		return nil
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	clean, err := r.document(obj)
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	_, err = r.deps.Cluster.Create(ctx, served[0], clean)
	if apierrors.IsAlreadyExists(err) {
		err = r.apply(ctx, served[0], clean)
	}
	if err != nil {
		if apierrors.IsForbidden(err) {
			r.warn(name, "the caller may not make it, so the application is not protected here: %v", err)
			return nil
		}
		return fmt.Errorf("make %s: %w", name, err)
	}
	r.report.Documents = append(r.report.Documents, name)
	return nil
}

// apply gives a document that is here the captured spec, if nobody changed it since it was read
// and the restore is under way still: it says again that the application is being restored.
func (r *recovery) apply(ctx context.Context, at restore.Served, clean *unstructured.Unstructured) error {
	var err error
	for range answer.Attempts {
		var live *unstructured.Unstructured
		if live, err = r.deps.Cluster.Get(ctx, at, clean.GetNamespace(), clean.GetName()); err != nil {
			return err
		}
		if err := hold.Still(ctx); err != nil {
			return err
		}
		clean.SetResourceVersion(live.GetResourceVersion())
		if _, err = r.deps.Cluster.Apply(ctx, at, clean); !apierrors.IsConflict(err) {
			return err
		}
	}
	return err
}

// document is the object as it is to be here.
func (r *recovery) document(obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	clean := bareDocument(obj)
	if obj.GetKind() != "Application" {
		return clean, nil
	}
	annotations := clean.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[v1alpha1.AnnotationRestoring] = r.report.RestoreID
	clean.SetAnnotations(annotations)
	if r.deps.VaultName == "" {
		return clean, nil
	}
	return clean, unstructured.SetNestedField(clean.Object, r.deps.VaultName, "spec", "vault")
}

// bareDocument is the object with nothing of the cluster it was in.
func bareDocument(obj *unstructured.Unstructured) *unstructured.Unstructured {
	clean := &unstructured.Unstructured{Object: map[string]any{}}
	clean.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(obj.GetKind()))
	clean.SetNamespace(obj.GetNamespace())
	clean.SetName(obj.GetName())
	clean.SetLabels(obj.GetLabels())
	annotations := obj.GetAnnotations()
	delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
	delete(annotations, v1alpha1.AnnotationRestoring)
	delete(annotations, v1alpha1.AnnotationHeldBy)
	fence.Unmark(annotations)
	for key := range annotations { // gates are opened here, one by one
		if strings.HasPrefix(key, v1alpha1.AnnotationGate) {
			delete(annotations, key)
		}
	}
	clean.SetAnnotations(annotations)
	if spec, ok := obj.Object["spec"]; ok {
		clean.Object["spec"] = spec
	}
	return clean
}
