// Package coverage is the use case of telling what in a cluster is protected,
// by which application, and what is not. It asks the capture engine what each
// application's capture would hold now, so that it promises nothing else.
package coverage

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/selection"
)

// Look says what a capture of an application would hold; with objects also
// which. capture.Look does, through an adapter.
type Look func(ctx context.Context, app *v1alpha1.Application, objects bool) (*capture.Held, error)

// Report is what is protected and what is not. Objects that the cluster makes
// again by itself, and those that are left out by label, are in no count.
type Report struct {
	Namespaces []Namespace `json:"namespaces"`
	// Deleting are namespaces that are being deleted: they are in no count.
	Deleting []string `json:"deleting,omitempty"`
	Volumes  []Volume `json:"volumes"`
	// Objects are those that no application holds, or more than one.
	Objects []Object `json:"objects,omitempty"`
	// Problems are why applications hold nothing, or not yet.
	Problems []Problem `json:"problems,omitempty"`
}

// Namespace counts what is in one.
type Namespace struct {
	Name               string   `json:"name"`
	Applications       []string `json:"applications"`
	Volumes            int      `json:"volumes"`
	UnprotectedVolumes int      `json:"unprotectedVolumes"`
	Objects            int      `json:"objects"`
	UnprotectedObjects int      `json:"unprotectedObjects"`
}

// Volume is one bound claim.
type Volume struct {
	Namespace    string   `json:"namespace"`
	Claim        string   `json:"claim"`
	StorageClass string   `json:"storageClass,omitempty"`
	Capacity     int64    `json:"capacity"` // bytes
	Applications []string `json:"applications"`
}

// Object is one object.
type Object struct {
	Resource     string   `json:"resource"` // resource.group
	Namespace    string   `json:"namespace"`
	Name         string   `json:"name"`
	Applications []string `json:"applications"`
}

// Problem is what is wrong with an application.
type Problem struct {
	Application string `json:"application"`
	Message     string `json:"message"`
}

// Options say what to survey.
type Options struct {
	// Objects asks for all objects, not volumes alone.
	Objects bool
	// System counts the cluster's own namespaces as well.
	System bool
}

// Survey looks at the cluster and at every application that this site may
// write. An application that cannot be looked at is a problem in the report.
func Survey(ctx context.Context, look Look, apps []v1alpha1.Application, opts Options) (*Report, error) {
	everything := &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "everything"},
		Spec:       v1alpha1.ApplicationSpec{Namespaces: []string{"*"}},
	}
	if opts.System {
		everything.Spec.Namespaces = append(everything.Spec.Namespaces, "kube-system", "kube-public")
	}
	there, err := look(ctx, everything, opts.Objects)
	if err != nil {
		return nil, fmt.Errorf("survey the cluster: %w", err)
	}
	b := newBuilder(there)
	for i := range apps {
		app := &apps[i]
		name := app.VaultName()
		if app.Status.Role == v1alpha1.RoleSuperseded || app.Status.Role == v1alpha1.RoleStandby {
			b.problem(name, fmt.Sprintf("site %s protects it", app.Status.EpochSite))
			continue
		}
		held, err := look(ctx, app, opts.Objects)
		if err != nil {
			b.problem(name, err.Error())
			continue
		}
		if app.Status.NewestInstant == nil {
			b.problem(name, "has no recovery point yet")
		}
		b.add(name, held)
	}
	return b.report(opts), nil
}

type builder struct {
	there    *capture.Held
	volumes  map[string][]string         // applications by namespace/claim
	objects  map[capture.Object][]string // applications
	spaces   map[string][]string         // applications by namespace
	problems []Problem
}

func newBuilder(there *capture.Held) *builder {
	return &builder{there: there, volumes: map[string][]string{}, objects: map[capture.Object][]string{}, spaces: map[string][]string{}}
}

func (b *builder) problem(app, message string) {
	b.problems = append(b.problems, Problem{app, message})
}

func (b *builder) add(app string, held *capture.Held) {
	for _, ns := range held.Namespaces {
		b.spaces[ns] = append(b.spaces[ns], app)
	}
	for _, c := range held.Volumes {
		b.volumes[c.Key()] = append(b.volumes[c.Key()], app)
	}
	for _, o := range held.Objects {
		b.objects[o] = append(b.objects[o], app)
	}
}

func (b *builder) report(opts Options) *Report {
	r := &Report{Namespaces: []Namespace{}, Deleting: b.there.Deleting, Volumes: []Volume{}, Problems: b.problems}
	spaces := map[string]*Namespace{}
	for _, name := range b.there.Namespaces {
		spaces[name] = &Namespace{Name: name, Applications: sorted(b.spaces[name])}
	}
	for _, c := range b.there.Volumes {
		v := Volume{Namespace: c.Namespace, Claim: c.Name, StorageClass: c.StorageClass, Capacity: c.Capacity, Applications: sorted(b.volumes[c.Key()])}
		r.Volumes = append(r.Volumes, v)
		if ns := spaces[c.Namespace]; ns != nil {
			ns.Volumes++
			if len(v.Applications) == 0 {
				ns.UnprotectedVolumes++
			}
		}
	}
	for _, o := range b.there.Objects {
		by := sorted(b.objects[o])
		if ns := spaces[o.Namespace]; ns != nil {
			ns.Objects++
			if len(by) == 0 {
				ns.UnprotectedObjects++
			}
		}
		if len(by) != 1 {
			r.Objects = append(r.Objects, Object{o.Resource, o.Namespace, o.Name, by})
		}
	}
	for _, ns := range spaces {
		if opts.System || !selection.IsSystem(ns.Name) {
			r.Namespaces = append(r.Namespaces, *ns)
		}
	}
	slices.SortFunc(r.Namespaces, func(a, b Namespace) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Volumes, func(a, b Volume) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Claim, b.Claim))
	})
	slices.SortFunc(r.Objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Name, b.Name))
	})
	return r
}

func sorted(names []string) []string {
	out := append([]string{}, names...)
	slices.Sort(out)
	return slices.Compact(out)
}

// Unprotected counts volumes and objects that no application holds.
func (r *Report) Unprotected() (volumes, objects int) {
	for _, ns := range r.Namespaces {
		volumes += ns.UnprotectedVolumes
		objects += ns.UnprotectedObjects
	}
	return volumes, objects
}

// Shared counts volumes and objects that several applications hold.
func (r *Report) Shared() (volumes, objects int) {
	for _, v := range r.Volumes {
		if len(v.Applications) > 1 {
			volumes++
		}
	}
	for _, o := range r.Objects {
		if len(o.Applications) > 1 {
			objects++
		}
	}
	return volumes, objects
}

// Overlap is claims whose data another application captures as well.
type Overlap struct {
	Application string
	Claims      []string // namespace/name, sorted
}

// String is for people. That two capture the same is allowed: somebody may want
// a part of an application more often than the whole.
func (o Overlap) String() string {
	const shown = 3
	names, more := o.Claims, ""
	if len(names) > shown {
		names, more = names[:shown], fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return fmt.Sprintf("application %s captures volumes of this one as well: %s%s: each restore brings its own back, and captures of both at the same time may hold less together: `coverage` shows who captures what",
		o.Application, strings.Join(names, ", "), more)
}

// Overlaps says which claims of an application other applications of this site
// capture too, given what its own capture would hold. Only those are looked at
// that may be in its namespaces; one that cannot be looked at is left out.
func Overlaps(ctx context.Context, look Look, app *v1alpha1.Application, held *capture.Held, others []v1alpha1.Application) []Overlap {
	mine := map[string]bool{}
	for _, c := range held.Volumes {
		mine[c.Key()] = true
	}
	var all []Overlap
	for i := range others {
		o := &others[i]
		if o.Namespace == app.Namespace && o.Name == app.Name || len(mine) == 0 || ctx.Err() != nil || !mayShare(o, held.Namespaces) {
			continue
		}
		its, err := look(ctx, o, false)
		if err != nil {
			continue
		}
		var claims []string
		for _, c := range its.Volumes {
			if mine[c.Key()] {
				claims = append(claims, c.Key())
			}
		}
		if len(claims) > 0 {
			slices.Sort(claims)
			all = append(all, Overlap{o.VaultName(), claims})
		}
	}
	return all
}

// mayShare tells whether an application could hold something of the namespaces.
func mayShare(app *v1alpha1.Application, namespaces []string) bool {
	switch app.Status.Role {
	case v1alpha1.RoleSuperseded, v1alpha1.RoleStandby:
		return false
	}
	s := &app.Spec
	if s.NamespaceSelector != nil || len(s.Namespaces) == 0 {
		return true
	}
	return slices.ContainsFunc(s.Namespaces, func(name string) bool {
		return selection.IsGlob(name) || slices.Contains(namespaces, name)
	})
}
