package transform

import (
	"errors"
	"fmt"
	"strings"

	"davit.dev/davit/internal/restore/shape"
)

// Reference is an image's name in its parts, with nothing left out:
// "nginx:1" is docker.io, library/nginx and ":1".
type Reference struct {
	Registry, Path string
	Suffix         string // ":tag", "@digest" or both
}

// ParseReference reads an image's name as container runtimes do. It judges
// nothing: what it does not understand it gives back as it was.
func ParseReference(image string) Reference {
	name, suffix := image, ""
	if i := strings.IndexByte(name, '@'); i >= 0 {
		name, suffix = name[:i], name[i:]
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, suffix = name[:i], name[i:]+suffix
	}
	host, path, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, path = "docker.io", name
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return Reference{host, path, suffix}
}

// Name is the whole name without tag and digest.
func (r Reference) Name() string { return r.Registry + "/" + r.Path }

// String is the whole name.
func (r Reference) String() string { return r.Name() + r.Suffix }

func compileImages(rule Rule) (action, error) {
	if len(rule.Images) == 0 {
		return nil, nil
	}
	if len(rule.Images) > maxMappings {
		return nil, fmt.Errorf("images: %d mappings are more than %d", len(rule.Images), maxMappings)
	}
	maps := make([]Mapping, 0, len(rule.Images))
	for _, m := range rule.Images {
		m.From, m.To = strings.TrimSuffix(m.From, "/"), strings.TrimSuffix(m.To, "/")
		if err := checkPrefix(m.From); err != nil {
			return nil, fmt.Errorf("images: from %q: %w", m.From, err)
		}
		if err := checkPrefix(m.To); err != nil {
			return nil, fmt.Errorf("images: to %q: %w", m.To, err)
		}
		maps = append(maps, m)
	}
	return func(o Object) (bool, error) {
		relevant := false
		eachImage(o.Document, func(image string) string {
			to, mapped := mapImage(maps, image)
			relevant = relevant || mapped
			return to
		})
		return relevant, nil
	}, nil
}

// checkPrefix refuses what cannot be the beginning of an image's whole name.
func checkPrefix(prefix string) error {
	host, path, _ := strings.Cut(prefix, "/")
	switch {
	case prefix == "":
		return errors.New("is empty: write the registry, such as docker.io")
	case strings.ContainsAny(prefix, "@ \t\n*"):
		return errors.New("want host[:port][/path]")
	case strings.Contains(path, ":"):
		return errors.New("has a tag: want host[:port][/path], tags and digests stay as they are")
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return errors.New("does not begin with a registry's host: images without one are of docker.io (docker.io/library/nginx)")
	}
	return nil
}

// mapImage replaces the longest prefix. mapped is also true when the image is
// where a mapping would bring it.
func mapImage(maps []Mapping, image string) (to string, mapped bool) {
	ref := ParseReference(image)
	best := -1
	for i, m := range maps {
		if under(ref.Name(), m.From) && (best < 0 || len(m.From) > len(maps[best].From)) {
			best = i
		}
		mapped = mapped || under(ref.Name(), m.To)
	}
	if best < 0 || under(ref.Name(), maps[best].To) {
		return image, mapped
	}
	return maps[best].To + strings.TrimPrefix(ref.Name(), maps[best].From) + ref.Suffix, true
}

// under tells whether a name is the prefix, or lies below it.
func under(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// containerLists are the fields under which pods, their templates and custom
// resources that embed one keep containers.
var containerLists = map[string]bool{"containers": true, "initContainers": true, "ephemeralContainers": true}

// eachImage replaces every container's image, wherever in the object the pod
// or the template is, and those that are mounted as volumes.
func eachImage(v any, replace func(string) string) {
	switch x := v.(type) {
	case map[string]any:
		for k, child := range x {
			list, ok := child.([]any)
			switch {
			case ok && containerLists[k]:
				eachContainer(list, replace)
			case ok && k == "volumes":
				eachImageVolume(list, replace)
			}
			eachImage(child, replace)
		}
	case []any:
		for _, child := range x {
			eachImage(child, replace)
		}
	}
}

func eachContainer(list []any, replace func(string) string) {
	for _, c := range list {
		m, ok := c.(map[string]any)
		if image := shape.Text(m, "image"); ok && image != "" && shape.Text(m, "name") != "" {
			m["image"] = replace(image)
		}
	}
}

func eachImageVolume(list []any, replace func(string) string) {
	for _, c := range list {
		m, _ := c.(map[string]any)
		if image := shape.Child(m, "image"); shape.Text(image, "reference") != "" {
			image["reference"] = replace(shape.Text(image, "reference"))
		}
	}
}

// Mirror has every image taken from the copy that `images mirror` made of it.
type Mirror struct {
	Base string // host[:port][/path]
	// Digests are those of the recovery point, by the image's whole name: what
	// runs is what ran, whatever a tag means by now.
	Digests map[string]string
}

func (m *Mirror) check() error {
	m.Base = strings.TrimSuffix(m.Base, "/")
	if err := checkPrefix(m.Base); err != nil {
		return fmt.Errorf("mirror %q: %w", m.Base, err)
	}
	return nil
}

// Copy is what the copy of an image is called. One that is there already stays
// as it is.
func (m *Mirror) Copy(image string) string {
	ref := ParseReference(image)
	if under(ref.Name(), m.Base) {
		return image
	}
	registry := ref.Registry
	if registry == "docker.io" {
		registry = "index.docker.io" // as the mirror has it
	}
	to := m.Base + "/" + strings.ReplaceAll(registry, ":", "-") + "/" + ref.Path + ref.Suffix
	if digest := m.Digests[ref.String()]; digest != "" && !strings.Contains(ref.Suffix, "@") {
		to += "@" + digest
	}
	return to
}

func (m *Mirror) rewrite(d shape.Document) { eachImage(d, m.Copy) }
