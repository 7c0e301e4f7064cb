package restore

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/rehearse"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/standstill"
	"davit.dev/davit/internal/restore/window"
)

// state is what a running restore remembers, shared by its workers.
type state struct {
	rec report.Recorder
	x   *index.Index
	git *gitops.Census
	// order is what waits for what, and levels how far down each stands in it.
	order  *sequence.Sequence
	levels []int32
	// windows look at many objects at once.
	windows *window.Windows
	present *window.Presence
	// notes are what a rehearsal decided; nil in a restore.
	notes *rehearse.Notes

	// empty are claims that are not whole: nothing that mounts them is created.
	empty *standstill.Empty

	attempt string // which one this is: see hold.AnnotationAttempt

	mu         sync.Mutex
	at         map[int]Served        // how each resource of the manifest is written
	uids       map[string]string     // captured UID to the UID at the target
	wants      map[string][]wanted   // by captured owner UID: who waits for it
	unmade     map[string]bool       // captured UIDs of objects that failed
	ours       map[string]bool       // namespaces that this restore made
	later      map[*index.Entry]bool // refused by a webhook that may come up
	stopped    map[string]bool       // workloads at rest, as people name them
	started    []*unstructured.Unstructured
	latecomers []string // what was waited for when the time was over
	done       int64

	activating sync.Mutex
	asked      map[shape.Rank]time.Time // when Activate was, and allowed it
	filled     map[string][2]int64      // bytes done and in all, by claim
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
		empty: standstill.NewEmpty(), ours: map[string]bool{}, later: map[*index.Entry]bool{}, filled: map[string][2]int64{}, stopped: map[string]bool{},
		asked: map[shape.Rank]time.Time{},
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
	return served.First(ctx, e.cluster, kind)
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
	at, err := served.Choose(ctx, e.cluster, res)
	if err == nil {
		e.locked(func() { e.at[i] = at })
	}
	return at, err
}
