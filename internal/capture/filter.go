package capture

import (
	"errors"
	"fmt"
	"strings"

	"davit.dev/davit/internal/selection"
)

// ErrFilter says that a kind filter is not written as one.
var ErrFilter = errors.New("kind filter not valid")

// Filter chooses kinds. The zero value lets every kind pass.
type Filter struct{ include, exclude []pattern }

// pattern is one resource.group, each part with "*" for any run of characters.
type pattern struct{ resource, group, text string }

// ParseFilter reads lists of kinds written resource.group: "deployments.apps",
// "*.shop.example.com", "secrets" for the core group, "*" for every kind.
// Exclusion wins over inclusion; an empty include list includes every kind.
func ParseFilter(include, exclude []string) (Filter, error) {
	var f Filter
	var errs []error
	for _, list := range []struct {
		texts []string
		into  *[]pattern
	}{{include, &f.include}, {exclude, &f.exclude}} {
		for _, text := range list.texts {
			p, err := parsePattern(text)
			errs = append(errs, err)
			*list.into = append(*list.into, p)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Filter{}, err
	}
	return f, nil
}

func parsePattern(text string) (pattern, error) {
	p := pattern{text: text}
	if text == "*" {
		p.resource, p.group = "*", "*"
		return p, nil
	}
	var dotted bool
	p.resource, p.group, dotted = strings.Cut(text, ".")
	if p.resource == "" || dotted && p.group == "" || len(text) > 317 {
		return p, fmt.Errorf("%w: %.80q: write resource.group, such as deployments.apps", ErrFilter, text)
	}
	for part := range strings.SplitSeq(p.group, ".") {
		if dotted && part == "" {
			return p, fmt.Errorf("%w: %.80q has an empty part between dots", ErrFilter, text)
		}
	}
	for i := range len(text) {
		if c := text[i]; !kindByte(c) {
			return p, fmt.Errorf("%w: %.80q holds %q: want lower-case letters, digits, '-', '.' and '*'", ErrFilter, text, c)
		}
	}
	return p, nil
}

func kindByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '*'
}

func (p pattern) matches(resource, group string) bool {
	return selection.Glob(p.resource, resource) && selection.Glob(p.group, group)
}

// Match tells whether a kind passes.
func (f Filter) Match(resource, group string) bool {
	included := len(f.include) == 0
	for _, p := range f.include {
		included = included || p.matches(resource, group)
	}
	return included && !f.excludes(resource, group)
}

// Named tells whether the include list asks for the kind by its own resource
// name. Kinds that are left out by default come along only then.
func (f Filter) Named(resource, group string) bool {
	for _, p := range f.include {
		if p.resource == resource && p.matches(resource, group) {
			return !f.excludes(resource, group)
		}
	}
	return false
}

func (f Filter) excludes(resource, group string) bool {
	for _, p := range f.exclude {
		if p.matches(resource, group) {
			return true
		}
	}
	return false
}

// unmatched returns a complaint for every pattern that matches no kind.
func (f Filter) unmatched(kinds []Kind) []string {
	var complaints []string
	for _, list := range []struct {
		field    string
		patterns []pattern
	}{{"includeKinds", f.include}, {"excludeKinds", f.exclude}} {
		for _, p := range list.patterns {
			if text := p.complaint(kinds); text != "" {
				complaints = append(complaints, list.field+": "+text)
			}
		}
	}
	return complaints
}

func (p pattern) complaint(kinds []Kind) string {
	var meant []string
	for _, k := range kinds {
		if p.matches(k.Resource, k.Group) {
			return ""
		}
		if p.group == "" && k.Resource == p.resource {
			meant = append(meant, k.Name())
		}
	}
	text := fmt.Sprintf("%q matches no kind that this cluster serves", p.text)
	if len(meant) > 0 {
		text += ": did you mean " + strings.Join(meant, " or ") + "?"
	}
	return text
}
