package transform

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"davit.dev/davit/internal/selection"
)

// Overlay is what a site changes in whatever is restored there.
type Overlay struct {
	Name    string
	Entries map[string]string // documents with rules
}

// For returns the rules that are for the application, and its mirror.
func (o Overlay) For(application string) (rules []Rule, mirror string, err error) {
	for _, key := range slices.Sorted(maps.Keys(o.Entries)) {
		d, err := Parse([]byte(o.Entries[key]))
		if err != nil {
			return nil, "", fmt.Errorf("entry %s: %w", key, err)
		}
		if len(d.Applications) == 0 {
			return nil, "", fmt.Errorf(`entry %s: says for no application that it is meant: want "applications:" with a list, "*" for all`, key)
		}
		if !slices.ContainsFunc(d.Applications, func(p string) bool { return selection.Glob(p, application) }) {
			continue
		}
		rules = append(rules, d.Rules...)
		mirror = cmp.Or(mirror, d.MirrorImagesFrom)
	}
	return rules, mirror, nil
}
