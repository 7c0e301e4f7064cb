package larder

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
)

// Wanted are an application's images.
type Wanted struct {
	Application string
	Images      []preflight.Image
}

// Names are what pods at this site will call the images: the site's overlays say which mirror
// they come from, and what is renamed, and then the plan's mappings; mirror wins over the
// overlays' where it is given. What runs is what ran: names have digests, where they are known.
// An overlay's rules that are for some objects only are followed where they are for every Pod.
func Names(ctx context.Context, c client.Client, wanted []Wanted, mirror string, mappings []plan.Mapping) ([]string, error) {
	var list corev1.ConfigMapList
	if err := c.List(ctx, &list, client.InNamespace(v1alpha1.SystemNamespace), client.HasLabels{v1alpha1.LabelOverlay}); err != nil {
		return nil, fmt.Errorf("read the overlays of this site: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.ConfigMap) int { return cmp.Compare(a.Name, b.Name) })
	last := transform.Rule{Name: "mappings"}
	for _, m := range mappings {
		if m.Kind == plan.MapImage {
			last.Images = append(last.Images, transform.Mapping{From: m.From, To: m.To})
		}
	}
	var all []string
	for _, w := range wanted {
		from := mirror
		var sources []transform.Source
		for _, o := range list.Items {
			rules, at, err := transform.Overlay{Name: o.Name, Entries: o.Data}.For(w.Application)
			if err != nil {
				return nil, fmt.Errorf("overlay %s: %w", o.Name, err)
			}
			from = cmp.Or(from, at)
			sources = append(sources, transform.Source{Name: "overlay " + o.Name, Rules: rules})
		}
		if len(last.Images) > 0 {
			sources = append(sources, transform.Source{Name: "plan", Rules: []transform.Rule{last}})
		}
		named, err := renamed(w.Images, from, sources)
		if err != nil {
			return nil, err
		}
		all = append(all, named...)
	}
	return sorted(all), nil
}

func sorted(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

func renamed(images []preflight.Image, from string, sources []transform.Source) ([]string, error) {
	var mirror *transform.Mirror
	if from != "" {
		mirror = &transform.Mirror{Base: from, Digests: map[string]string{}}
		for _, i := range images {
			mirror.Digests[transform.ParseReference(i.Reference).String()] = i.Digest
		}
	}
	set, err := transform.Compile(mirror, sources...)
	if err != nil {
		return nil, fmt.Errorf("read the rules of this site: %w", err)
	}
	var containers []any
	for i, image := range images {
		containers = append(containers, map[string]any{"name": container(i), "image": image.Reference})
	}
	pod := shape.Document{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "images", "namespace": v1alpha1.SystemNamespace}, "spec": map[string]any{"containers": containers}}
	if err := set.Apply(transform.Object{Kind: schema.GroupKind{Kind: "Pod"}, Resource: "pods", Document: pod}, nil); err != nil {
		return nil, fmt.Errorf("rename images: %w", err)
	}
	var all []string
	for i, c := range shape.Items(pod, "spec", "containers") {
		name := shape.Text(c, "image")
		if images[i].Digest != "" && !strings.Contains(name, "@") {
			name += "@" + images[i].Digest
		}
		all = append(all, name)
	}
	return all, nil
}
