// Package restore is the engine that brings one recovery point back into a
// cluster: objects in the order of what each needs, volumes filled before
// anything can mount them, owner references rewired, and everything so that a
// restore which was killed continues when it is started again.
//
// What it guarantees:
//   - Preflight changes nothing; Run creates nothing before it holds the
//     application's lease in the target.
//   - No object is created with an owner reference to a UID that does not
//     exist in the target: the garbage collector would delete the object.
//   - No workload is created before every claim it mounts is filled, and no
//     claim is filled that something at the target could be using.
//   - A volume that this restore did not create is never written to, unless
//     its claim's policy says that it is rolled back; then nothing mounts it
//     while it is filled.
//   - Every object it creates carries the label davit.dev/restore with the
//     restore's id; claims carry davit.dev/filled-from once they are whole.
package restore

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/isolation"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
)

// Labels and annotations of restored objects.
const (
	LabelRestore         = shape.LabelRestore
	LabelManagedBy       = shape.LabelManagedBy
	AnnotationFilledFrom = shape.AnnotationFilledFrom
)

// Isolation keeps a copy to itself.
type Isolation = isolation.Marks

// Options say how to restore. Zero values are usable but for ID.
type Options struct {
	// ID names the restore and is the same when it is started again; see ID.
	ID string
	// Again, unless empty, names the order that has the restore begin anew: volumes that it rolled
	// back before it ended with failures, or died, are rolled back again.
	Again string
	// Holder says for people who restores, in the lease.
	Holder              string
	NamespaceMapping    map[string]string // captured to wanted
	StorageClassMapping map[string]string // captured to wanted
	// Transforms change objects after namespaces and storage classes are
	// mapped; nil changes nothing.
	Transforms *transform.Set
	Existing   Existing // default Skip
	// ExistingKinds are policies by kind: see policy.Matches for the patterns.
	ExistingKinds map[string]Existing
	// KeepClaims lets claims that exist, and their data, be treated as Skip
	// and Update say. Without it they are in the way, unless their kind has a
	// policy of its own: nobody may take their data for the point's.
	KeepClaims bool
	// Captured tells whether a live object would be captured as part of the
	// application, by its kind and by what it is; Exact prunes no other.
	// Nil means none.
	Captured          func(kind point.Resource, u *unstructured.Unstructured) bool
	PreserveNodePorts bool
	// IncludeKinds and ExcludeKinds are resource.group patterns, "*" allowed.
	IncludeKinds, ExcludeKinds []string
	// RestoreStatusOf are resource.group patterns whose status is restored.
	RestoreStatusOf []string
	ReadyTimeout    time.Duration // default 10m
	// LeaseNamespace holds the lease; default davit-system.
	LeaseNamespace string
	// AcceptFuzzy allows volumes that were read while being written.
	AcceptFuzzy bool
	// Activate is asked before the first object is written that could make
	// anything run, and again before the first workload. Its error stops the
	// restore. Nil allows.
	Activate func(context.Context) error
	// Still says why a restore that holds its lease may all the same change no more of what others
	// may have started meanwhile; nil: nothing does.
	Still func(context.Context) error
	// GitOps says what is done about objects that git holds; default Keep.
	GitOps gitops.Mode
	// NewNamespaces has it write only into namespaces that it made itself: one that is
	// there, or comes into being meanwhile, is somebody's.
	NewNamespaces bool
	// SkipVolumes creates claims without data.
	SkipVolumes bool
	// Isolation keeps a copy to itself; nil restores objects as they were.
	Isolation *Isolation
	// To is how far the restore goes. One that does not go to the end neither
	// prunes nor lets git go on; given again with a later stage it continues.
	To      sequence.Stage
	Workers int // objects at a time, default 64
	Fillers int // volumes at a time, default 4
}

// Engine restores one recovery point. Make one per restore with New.
type Engine struct {
	m        *point.Manifest
	source   Source
	cluster  Cluster // tries again what may succeed later
	bare     Cluster // does not
	leases   Cluster // for the lease; does not either
	volumes  Volumes
	progress Progress
	clock    Clock
	log      *slog.Logger
	opts     Options
	names    shape.Namespaces

	*state
}

// Deps are the engine's ports. Progress, Clock and Log may be nil.
type Deps struct {
	Source  Source
	Cluster Cluster
	// Leases holds the lease, unless Isolation does; nil means Cluster.
	Leases   Cluster
	Volumes  Volumes
	Progress Progress
	Clock    Clock
	Log      *slog.Logger
}

// New makes an engine for one recovery point.
func New(m *point.Manifest, opts Options, deps Deps) *Engine {
	e := &Engine{
		m: m, source: deps.Source, volumes: deps.Volumes, progress: deps.Progress,
		clock: deps.Clock, log: deps.Log, opts: opts.withDefaults(),
	}
	if e.progress == nil {
		e.progress = Silent{}
	}
	if e.clock == nil {
		e.clock = port.WallClock{}
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.bare, e.cluster = deps.Cluster, port.Retry(deps.Cluster, e.clock)
	e.leases = deps.Leases
	if e.leases == nil || e.opts.Isolation != nil {
		e.leases = e.bare
	}
	e.names = shape.Namespaces(e.opts.NamespaceMapping)
	e.state = newState()
	return e
}

func (o Options) withDefaults() Options {
	if o.Existing == "" {
		o.Existing = Skip
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = 10 * time.Minute
	}
	if o.Isolation != nil {
		o.LeaseNamespace = o.Isolation.Home
	}
	if o.LeaseNamespace == "" {
		o.LeaseNamespace = "davit-system"
	}
	if o.Workers == 0 {
		o.Workers = 64
	}
	if o.Fillers == 0 {
		o.Fillers = 4
	}
	return o
}
