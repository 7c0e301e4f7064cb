package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
)

// rulesOf takes the rules out of a Restore's spec.
func rulesOf(rules []v1alpha1.TransformRule) []transform.Rule {
	mappings := func(list []v1alpha1.NameMapping) []transform.Mapping {
		var all []transform.Mapping
		for _, m := range list {
			all = append(all, transform.Mapping{From: m.From, To: m.To})
		}
		return all
	}
	all := make([]transform.Rule, 0, len(rules))
	for _, r := range rules {
		all = append(all, transform.Rule{
			Name: r.Name, JSONPatch: r.JSONPatch, MergePatch: r.MergePatch, StorageClasses: r.StorageClasses,
			IngressClasses: r.IngressClasses, NodeLabels: mappings(r.NodeLabels),
			Images: mappings(r.Images), Hosts: mappings(r.Hosts),
			Match: transform.Match{
				Kinds: r.Match.Kinds, Namespaces: r.Match.Namespaces, Names: r.Match.Names,
				LabelSelector: r.Match.LabelSelector, Condition: r.Match.Condition,
			},
		})
	}
	return all
}

// compileRules gathers all rules and checks them: overlays in the order of
// their names, ConfigMaps that were named, and what was given with the order.
func (r *recovery) compileRules(ctx context.Context) error {
	overlays, mirror, err := r.overlays(ctx)
	if err != nil {
		return err
	}
	named, namedMirror, err := r.named(ctx)
	if err != nil {
		return err
	}
	for _, s := range overlays {
		r.report.Overlays = append(r.report.Overlays, s.Name)
	}
	rest := slices.Concat(named, r.opts.Transforms)
	for _, s := range rest {
		r.report.Rules = append(r.report.Rules, s.Name)
	}
	if r.report.Mirror = cmp.Or(r.opts.MirrorImagesFrom, namedMirror, mirror); r.report.Mirror != "" {
		r.mirror = &transform.Mirror{Base: r.report.Mirror, Digests: map[string]string{}}
		for _, image := range r.manifest.Images {
			r.mirror.Digests[transform.ParseReference(image.Reference).String()] = image.Digest
		}
	}
	r.rules, err = transform.Compile(r.mirror, slices.Concat(overlays, rest)...)
	if err != nil {
		return fmt.Errorf("%w, nothing was changed: %w", ErrRefused, err)
	}
	return nil
}

// overlays are those of this site that are for the application. A copy gets
// none: it does not take the application's place.
func (r *recovery) overlays(ctx context.Context) (sources []transform.Source, mirror string, err error) {
	if r.opts.NoOverlays || r.opts.Mode == v1alpha1.RestoreClone || r.deps.Overlays == nil {
		return nil, "", nil
	}
	const remedy = "mend that, or leave out all of them with --no-overlays (noOverlays)"
	all, err := r.deps.Overlays(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("%w, nothing was changed: read the overlays of this site: %w: %s", ErrRefused, err, remedy)
	}
	slices.SortFunc(all, func(a, b transform.Overlay) int { return cmp.Compare(a.Name, b.Name) })
	for _, o := range all {
		title := "overlay " + o.Name
		rules, at, err := o.For(r.opts.Application)
		if err != nil {
			return nil, "", fmt.Errorf("%w, nothing was changed: %s: %w: %s", ErrRefused, title, err, remedy)
		}
		if at != "" && mirror != "" && at != mirror {
			return nil, "", fmt.Errorf("%w, nothing was changed: %s takes images from %s and another overlay from %s: %s", ErrRefused, title, at, mirror, remedy)
		}
		mirror = cmp.Or(at, mirror)
		if len(rules) > 0 || at != "" {
			sources = append(sources, transform.Source{Name: title, Rules: rules})
		}
	}
	return sources, mirror, nil
}

// named reads the ConfigMaps that the order names, with the rights of whoever
// restores.
func (r *recovery) named(ctx context.Context) (sources []transform.Source, mirror string, err error) {
	for _, from := range r.opts.TransformsFrom {
		title := "ConfigMap " + r.opts.Namespace + "/" + from.ConfigMap
		entries, err := r.entries(ctx, from)
		if err != nil {
			return nil, "", fmt.Errorf("%w, nothing was changed: read %s: %w", ErrRefused, title, err)
		}
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			d, err := transform.Parse([]byte(entries[key]))
			if err == nil && len(d.Applications) > 0 {
				err = errors.New(`has "applications:", which only overlays have`)
			}
			if err != nil {
				return nil, "", fmt.Errorf("%w, nothing was changed: %s: entry %s: %w", ErrRefused, title, key, err)
			}
			sources = append(sources, transform.Source{Name: title + " " + key, Rules: d.Rules})
			mirror = cmp.Or(d.MirrorImagesFrom, mirror)
		}
	}
	return sources, mirror, nil
}

func (r *recovery) entries(ctx context.Context, from v1alpha1.TransformSource) (map[string]string, error) {
	served, err := r.deps.Cluster.Serves(ctx, shape.KindConfigMap)
	if err != nil {
		return nil, err
	}
	live, err := r.deps.Cluster.Get(ctx, served[0], r.opts.Namespace, from.ConfigMap)
	if err != nil {
		return nil, err
	}
	entries := map[string]string{}
	for key, v := range shape.Child(live.Object, "data") {
		if text, ok := v.(string); ok && (from.Key == "" || from.Key == key) {
			entries[key] = text
		}
	}
	if len(entries) == 0 {
		return nil, errors.New("it has no such entry")
	}
	return entries, nil
}

// errImageAbsent says that a mirror answered and has no such image.
var errImageAbsent = errors.New("no such image in the mirror")

// checkMirror asks the mirror for every image of the point. What is missing
// there keeps pods from starting and can be brought later: it is a warning.
func (r *recovery) checkMirror(ctx context.Context) []restore.Finding {
	if r.mirror == nil || r.deps.Images == nil {
		return nil
	}
	answers := make([]error, len(r.manifest.Images))
	var g errgroup.Group
	g.SetLimit(8)
	for i, image := range r.manifest.Images {
		g.Go(func() error {
			if r.mirror.Copy(image.Reference) == image.Reference {
				return nil
			}
			there, err := r.deps.Images(ctx, r.report.Mirror, image)
			if err == nil && !there {
				err = errImageAbsent
			}
			answers[i] = err
			return nil
		})
	}
	_ = g.Wait() // the answers hold what went wrong
	var found []restore.Finding
	for i, err := range answers {
		f := restore.Finding{Check: "images", Severity: report.Warning, Reason: "ImageUnknown", Remedy: "davit images " + r.opts.Application + " --mirror " + r.report.Mirror + " asks again"}
		switch copied := r.mirror.Copy(r.manifest.Images[i].Reference); {
		case err == nil:
			continue
		case errors.Is(err, errImageAbsent):
			f.Reason, f.Remedy = "ImageMissing", "davit images mirror "+r.opts.Application+" --to "+r.report.Mirror+" copies it; pods that want it wait until then"
			f.Message = fmt.Sprintf("the mirror does not have %s", copied)
		default:
			f.Message = fmt.Sprintf("the mirror did not say whether it has %s: %v", copied, err)
		}
		found = append(found, f)
	}
	return found
}
