package order

import (
	"fmt"
	"os"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/restore/transform"
)

// completeTransforms reads the files with rules, and checks them: a mistake in
// them needs neither vault nor cluster to be found.
func (o *Restore) completeTransforms() error {
	const remedy = "docs/restore.md shows what rules look like"
	for _, file := range o.transforms {
		text, err := os.ReadFile(file)
		if err != nil {
			return exit.Usage("", "--transform: %v", err)
		}
		d, err := transform.Parse(text)
		if err != nil {
			return exit.Usage(remedy, "--transform %s: %v", file, err)
		}
		if len(d.Applications) > 0 {
			return exit.Usage("take that out, or make the file an overlay of a site: ConfigMap in "+v1alpha1.SystemNamespace+" with the label "+v1alpha1.LabelOverlay,
				"--transform %s has applications, which only overlays have", file)
		}
		if o.Options.MirrorImagesFrom == "" {
			o.Options.MirrorImagesFrom = d.MirrorImagesFrom
		}
		if len(d.Rules) > 0 {
			o.Options.Transforms = append(o.Options.Transforms, transform.Source{Name: "file " + file, Rules: d.Rules})
		}
	}
	var mirror *transform.Mirror
	if o.Options.MirrorImagesFrom != "" {
		mirror = &transform.Mirror{Base: o.Options.MirrorImagesFrom}
	}
	if _, err := transform.Compile(mirror, o.Options.Transforms...); err != nil {
		return exit.Usage(remedy, "%v", err)
	}
	return nil
}

// rules are those of all files, as a Restore has them.
func rules(sources []transform.Source) []v1alpha1.TransformRule {
	mappings := func(list []transform.Mapping) []v1alpha1.NameMapping {
		var all []v1alpha1.NameMapping
		for _, m := range list {
			all = append(all, v1alpha1.NameMapping{From: m.From, To: m.To})
		}
		return all
	}
	var all []v1alpha1.TransformRule
	for _, s := range sources {
		for i, r := range s.Rules {
			if r.Name == "" {
				r.Name = fmt.Sprintf("%s %d", s.Name, i+1)
			}
			all = append(all, v1alpha1.TransformRule{
				Name: r.Name, JSONPatch: r.JSONPatch, MergePatch: r.MergePatch, StorageClasses: r.StorageClasses,
				Images: mappings(r.Images), Hosts: mappings(r.Hosts),
				Match: v1alpha1.TransformMatch{
					Kinds: r.Match.Kinds, Namespaces: r.Match.Namespaces, Names: r.Match.Names,
					LabelSelector: r.Match.LabelSelector, Condition: r.Match.Condition,
				},
			})
		}
	}
	return all
}
