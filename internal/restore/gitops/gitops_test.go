package gitops

import (
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/shape"
)

func head(name string, labels, annotations map[string]string) (h shape.Head) {
	h.Metadata.Namespace, h.Metadata.Name, h.Metadata.Labels, h.Metadata.Annotations = "shop", name, labels, annotations
	return h
}

func TestOf(t *testing.T) {
	deployment := schema.GroupKind{Group: "apps", Kind: "Deployment"}
	for _, c := range []struct {
		name string
		h    shape.Head
		want string
	}{
		{"nothing", head("web", nil, nil), ""},
		{"Flux", head("web", map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}, nil), "Kustomization.kustomize.toolkit.fluxcd.io flux-system/apps"},
		{"Helm by Flux", head("web", map[string]string{"helm.toolkit.fluxcd.io/name": "web", "helm.toolkit.fluxcd.io/namespace": "shop"}, nil), "HelmRelease.helm.toolkit.fluxcd.io shop/web"},
		{"half a mark", head("web", map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}, nil), ""},
		{"taken out of Flux", head("web", map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}, map[string]string{"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}), ""},
		{"Argo CD", head("web", nil, map[string]string{trackingID: "shop:apps/Deployment:shop/web"}), "Application.argoproj.io shop"},
		{"Argo CD in any namespace", head("web", nil, map[string]string{trackingID: "team_shop:apps/Deployment:shop/web"}), "Application.argoproj.io team/shop"},
		{"an annotation that was copied", head("web", nil, map[string]string{trackingID: "shop:apps/Deployment:shop/other"}), ""},
		{"rubbish", head("web", nil, map[string]string{trackingID: "shop"}), ""},
		{"Argo CD by label", head("web", map[string]string{argoInstance: "shop"}, nil), "Application.argoproj.io shop"},
		{"a label that charts set too", head("web", map[string]string{anyInstance: "known"}, nil), "Application.argoproj.io known"},
		{"and nobody knows", head("web", map[string]string{anyInstance: "other"}, nil), ""},
	} {
		r, ok := Of(deployment, c.h, func(name string) bool { return name == "known" })
		if got := r.String(); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%s: %q %t, want %q", c.name, got, ok, c.want)
		}
	}
}

// Suspended and undone, every reconciler is what it was.
func TestRestAndUndone(t *testing.T) {
	automated := map[string]any{"prune": true, "selfHeal": true}
	for kind, spec := range map[schema.GroupKind]shape.Document{
		KindKustomization: {"path": "./shop"},
		KindHelmRelease:   {"chart": "shop"},
		KindApplication:   {"syncPolicy": shape.Document{"automated": automated}},
	} {
		d := func() shape.Document {
			s := shape.Document{}
			shape.Merge(s, spec)
			return shape.Document{"metadata": shape.Document{"name": "a"}, "spec": s}
		}
		got := d()
		for range 2 {
			if err := (Stage{ID: "r1"}).Rest(kind, got); err != nil || !Suspended(kind, got) {
				t.Errorf("%s: %v %v", kind, err, got)
			}
		}
		Undone(kind, got)
		if !reflect.DeepEqual(got, d()) {
			t.Errorf("%s: %v, was %v", kind, got, d())
		}
	}
	half := shape.Document{"metadata": shape.Document{"name": "a"}, "spec": shape.Document{"syncPolicy": shape.Document{"automated": automated}}}
	if err := (Stage{ID: "r1"}).Rest(KindApplication, half); err != nil {
		t.Fatal(err)
	}
	delete(shape.Child(half, "metadata", "annotations"), skipReconcile) // somebody undid half of it
	if err := (Stage{ID: "r1"}).Rest(KindApplication, half); err != nil {
		t.Fatal(err)
	}
	Undone(KindApplication, half)
	if !reflect.DeepEqual(shape.Child(half, "spec", "syncPolicy", "automated"), automated) {
		t.Errorf("its sync policy is lost: %v", half)
	}
}

// FuzzOf feeds marks that anybody may have written.
func FuzzOf(f *testing.F) {
	f.Add("shop:apps/Deployment:shop/web", "web")
	f.Add("_:", "")
	f.Fuzz(func(_ *testing.T, id, label string) {
		h := head("web", map[string]string{argoInstance: label, anyInstance: label}, map[string]string{trackingID: id})
		Of(schema.GroupKind{Kind: "Secret"}, h, func(string) bool { return true })
		d := shape.Document{"metadata": shape.Document{"annotations": shape.Document{Annotation: id}}}
		Undone(KindApplication, d)
		_ = Stage{ID: label}.Rest(KindApplication, d)
	})
}
