// Package profile holds what Davit knows of databases: which container is one,
// and how it is brought to rest around a cut. The knowledge is data, in
// profiles.yaml; this package reads it and chooses.
package profile

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/selection"
)

// Annotation of a pod names its profile, or says None.
const (
	Annotation = "davit.dev/profile"
	None       = "none"
)

//go:embed profiles.yaml
var embedded []byte

// Profile is what is known of one database.
type Profile struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Images and NotImages are patterns of the last part of an image's name.
	Images    []string `json:"images"`
	NotImages []string `json:"notImages,omitempty"`
	// Proven says what showed that it works; without, it is chosen only by
	// annotation.
	Proven string `json:"proven,omitempty"`
	// Why says what is done, or why nothing is.
	Why     string           `json:"why"`
	Before  []string         `json:"before,omitempty"`
	Hold    *Hold            `json:"hold,omitempty"`
	After   []string         `json:"after,omitempty"`
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// Hold is as in the Application's hooks.
type Hold struct {
	Command []string         `json:"command"`
	Marker  string           `json:"marker,omitempty"`
	Ask     string           `json:"ask,omitempty"`
	Limit   *metav1.Duration `json:"limit,omitempty"`
}

// Parse reads a list of profiles.
func Parse(text []byte) ([]Profile, error) {
	var all []Profile
	if err := yaml.UnmarshalStrict(text, &all); err != nil {
		return nil, fmt.Errorf("read profiles: %w", err)
	}
	names := map[string]bool{None: true}
	for _, p := range all {
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("read profiles: %q: %w", p.Name, err)
		}
		if names[p.Name] {
			return nil, fmt.Errorf("read profiles: %q is there twice, or a word of its own", p.Name)
		}
		names[p.Name] = true
	}
	return all, nil
}

func (p *Profile) check() error {
	switch {
	case p.Name == "" || p.Title == "" || p.Why == "":
		return errors.New("name, title or why is missing")
	case len(p.Images) == 0:
		return errors.New("it is of no image")
	case p.Hold != nil && len(p.Hold.Command) == 0:
		return errors.New("hold has no command")
	case p.Timeout != nil && p.Timeout.Duration <= 0:
		return errors.New("timeout is not positive")
	case p.Hold != nil && p.Hold.Limit != nil && (p.Hold.Limit.Duration <= 0 || p.Hold.Limit.Duration > quiesce.MaxLimit):
		return fmt.Errorf("limit is not between 0 and %s", quiesce.MaxLimit)
	}
	return nil
}

// All are the profiles that come with Davit.
func All() []Profile { return slices.Clone(builtIn()) }

var builtIn = sync.OnceValue(func() []Profile {
	all, err := Parse(embedded)
	if err != nil {
		panic(err) // a test reads it, too
	}
	return all
})

// Acts tells whether the profile does anything.
func (p *Profile) Acts() bool { return len(p.Before) > 0 || p.Hold != nil || len(p.After) > 0 }

// Fits tells whether an image is of this database.
func (p *Profile) Fits(image string) bool {
	name := baseName(image)
	fits := func(pattern string) bool { return selection.Glob(pattern, name) }
	return slices.ContainsFunc(p.Images, fits) && !slices.ContainsFunc(p.NotImages, fits)
}

// baseName is the last part of an image's name, without tag and digest.
func baseName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	image = image[strings.LastIndex(image, "/")+1:]
	image, _, _ = strings.Cut(image, ":")
	return image
}

// Hook is what the profile does, as a hook. It may fail: a database that
// cannot be brought to rest weakens the point, and does not stop the capture.
func (p *Profile) Hook() quiesce.Hook {
	h := quiesce.Hook{Name: "profile " + p.Name, Continue: true}
	if len(p.Before) > 0 {
		h.Before = &quiesce.Action{Command: p.Before}
	}
	if len(p.After) > 0 {
		h.After = &quiesce.Action{Command: p.After}
	}
	if p.Timeout != nil {
		h.Timeout = p.Timeout.Duration
	}
	if p.Hold != nil {
		hold := quiesce.Hold{Command: p.Hold.Command, Marker: p.Hold.Marker, Ask: p.Hold.Ask}
		if p.Hold.Limit != nil {
			hold.Limit = p.Hold.Limit.Duration
		}
		hold = hold.WithDefaults()
		h.Hold = &hold
	}
	return h
}

// Hooks are what the profiles that come with Davit do.
func Hooks() []quiesce.Hook {
	var all []quiesce.Hook
	for i := range builtIn() {
		all = append(all, builtIn()[i].Hook())
	}
	return all
}

// Choose finds the profile of a pod, and the container that it is for: the one
// that the pod's annotation names, else the proven one that fits an image. Nil
// is none. The error is for people: there is no such profile.
func Choose(all []Profile, pod quiesce.Pod) (p *Profile, container string, err error) {
	named := pod.Annotations[Annotation]
	if named == None || len(pod.Containers) == 0 {
		return nil, "", nil
	}
	for i := range all {
		p := &all[i]
		if named == "" && p.Proven == "" || named != "" && named != p.Name {
			continue
		}
		for _, c := range pod.Containers {
			if p.Fits(c.Image) {
				return p, c.Name, nil
			}
		}
		if named != "" {
			container, err := pod.Container("")
			return p, container, err
		}
	}
	if named != "" {
		return nil, "", fmt.Errorf("annotation %s says %q, which is no profile: see davit profiles", Annotation, named)
	}
	return nil, "", nil
}

// Chooser is Choose for package quiesce, over the profiles that come with
// Davit. Those that do nothing are none.
func Chooser() func(quiesce.Pod) (*quiesce.Hook, string, error) {
	hooks := map[string]*quiesce.Hook{}
	var mu sync.Mutex
	return func(pod quiesce.Pod) (*quiesce.Hook, string, error) {
		p, container, err := Choose(builtIn(), pod)
		if err != nil || p == nil || !p.Acts() {
			return nil, "", err
		}
		mu.Lock()
		defer mu.Unlock()
		if hooks[p.Name] == nil {
			h := p.Hook()
			hooks[p.Name] = &h
		}
		return hooks[p.Name], container, nil
	}
}
