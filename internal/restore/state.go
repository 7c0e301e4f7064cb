package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/rehearse"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// state is what a running restore remembers, shared by its workers.
type state struct {
	rec report.Recorder
	x   *index.Index
	// notes are what a rehearsal decided; nil in a restore.
	notes *rehearse.Notes

	attempt string // which one this is: see hold.AnnotationAttempt

	mu     sync.Mutex
	at     map[int]Served      // how each resource of the manifest is written
	uids   map[string]string   // captured UID to the UID at the target
	wants  map[string][]wanted // by captured owner UID: who waits for it
	unmade map[string]bool     // captured UIDs of objects that failed
	// emptyClaims are claims at the target, namespace/name, that are not
	// whole: nothing that mounts them is created.
	emptyClaims map[string]bool
	ours        map[string]bool       // namespaces that this restore made
	later       map[*index.Entry]bool // refused by a webhook that may come up
	there       map[place]bool        // whether the last object of this kind here existed already
	stopped     map[string]bool       // workloads at rest, as people name them
	started     []*unstructured.Unstructured
	latecomers  []string // what was waited for when the time was over
	done        int64
	filled      map[string][2]int64 // bytes done and in all, by claim
}

// place is where objects of one kind go.
type place struct {
	kind      schema.GroupKind
	namespace string
}

// wanted is an object whose owner was not there when it was created.
type wanted struct {
	at              Served
	namespace, name string
	ref             shape.Owner
}

func newState() *state {
	return &state{
		at: map[int]Served{}, uids: map[string]string{}, wants: map[string][]wanted{}, unmade: map[string]bool{},
		emptyClaims: map[string]bool{}, ours: map[string]bool{}, later: map[*index.Entry]bool{}, there: map[place]bool{}, filled: map[string][2]int64{}, stopped: map[string]bool{},
	}
}

func (s *state) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *state) isOurs(namespace string) (yes bool) {
	s.locked(func() { yes = s.ours[namespace] })
	return yes
}

// served is how a kind is written where any version will do.
func (e *Engine) served(ctx context.Context, kind schema.GroupKind) (Served, error) {
	all, err := e.cluster.Serves(ctx, kind)
	if err != nil {
		return Served{}, err
	}
	return all[0], nil
}

// resolve finds how the target takes a kind of the point.
func (e *Engine) resolve(ctx context.Context, i int) (Served, error) {
	var at Served
	var known bool
	e.locked(func() { at, known = e.at[i] })
	if known {
		return at, nil
	}
	res := e.m.Resources[i]
	at, err := e.choose(ctx, res)
	if err == nil {
		e.locked(func() { e.at[i] = at })
	}
	return at, err
}

// choose takes the captured version if the target serves it. Another one
// only where the object reads the same in both: versions of built-in kinds
// known to, and custom kinds whose CRD says that versions differ in name only.
func (e *Engine) choose(ctx context.Context, res point.Resource) (Served, error) {
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	all, err := e.cluster.Serves(ctx, kind)
	if err != nil {
		return Served{}, err
	}
	var offered []string
	for _, s := range all {
		if s.GVK.Version == res.Version {
			return s, nil
		}
		offered = append(offered, s.GVK.Version)
	}
	for _, s := range all {
		if slices.Contains(shape.SameShape[kind], s.GVK.Version) && slices.Contains(shape.SameShape[kind], res.Version) {
			return s, nil
		}
	}
	if same, err := e.definedAlike(ctx, res); err != nil {
		return Served{}, err
	} else if same {
		for _, s := range all {
			if slices.Contains(res.Versions, s.GVK.Version) {
				return s, nil
			}
		}
	}
	return Served{}, &VersionError{Kind: kind, Captured: res.Version, Offered: offered}
}

// VersionError says that the target serves a kind, but in no version in which
// the point's objects can be written.
type VersionError struct {
	Kind     schema.GroupKind
	Captured string
	Offered  []string
}

// Error implements error.
func (v *VersionError) Error() string {
	return fmt.Sprintf("%s was captured as %s, the target serves only %s, and the objects may differ between them",
		v.Kind, v.Captured, strings.Join(v.Offered, ", "))
}

// definedAlike tells whether the target's CRD of the kind converts between
// versions by changing nothing but the version's name.
func (e *Engine) definedAlike(ctx context.Context, res point.Resource) (bool, error) {
	at, err := e.served(ctx, shape.KindCRD)
	if errors.Is(err, ErrNotServed) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	crd, err := e.cluster.Get(ctx, at, "", res.Resource+"."+res.Group)
	if err != nil {
		return false, ignoreNotFound(err)
	}
	strategy := shape.Text(crd.Object, "spec", "conversion", "strategy")
	return strategy == "" || strategy == "None", nil
}
