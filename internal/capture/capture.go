// Package capture is the engine that pins one application at one instant: it
// decides which objects belong to it, cuts its volumes, and streams both into
// a recovery point. Everything it touches it reaches through the ports below;
// it publishes nothing.
//
// # The instant
//
// The engine runs the before-hooks, notes the time (the point's instant) and
// the cluster's resource version, cuts every volume at once, notes the time
// again, and runs the after-hooks (see package quiesce). Only then are objects listed and volumes
// read, so a hook's window is as short as the cuts. Objects are listed at
// exactly the resource version noted before the first cut: all kinds at one
// revision of the cluster, however long the listing takes. Where a server
// cannot do that (aggregated APIs, or a revision compacted meanwhile) the kind
// is listed as it is now, and the point's warnings say so.
//
// # Consistency
//
// No volume, or exactly one that was cut, is point.Crash. So are several that
// the Freezer proved to have stood still from before the first cut until after
// the last; without that proof they are point.PerVolume, and the point says
// why. A live read makes the point point.Fuzzy. What would be point.Crash is
// point.Application when package quiesce proved that every hook that holds the
// application at rest did so throughout.
//
// # Failures
//
// A point holds everything or is not made. A persisted kind that cannot be
// listed, a claim that cannot be cut or read whole, and a failed hook whose
// onError is Fail are errors. Warnings are: an API group whose discovery fails
// (an aggregated API that is down, whose kinds nobody can name), an aggregated
// API that answers discovery but not the list, objects on their way out, and
// hooks that may fail.
package capture

import (
	"context"
	"log/slog"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/selection"
)

// Mode chooses how volume data is captured.
type Mode string

// The modes, as in the API.
const (
	ModeSnapshot       Mode = "Snapshot"
	ModeSnapshotOrLive Mode = "SnapshotOrLive"
	ModeNone           Mode = "None"
)

// Methods of capture, as the manifest names them.
const (
	MethodSnapshot = "csi-snapshot"
	MethodGroup    = "csi-group-snapshot"
	MethodLive     = "live-read"
)

// Spec is what to capture.
type Spec struct {
	// Application is the vault-wide name.
	Application string
	// ID is the recovery point's.
	ID string
	// Namespaces to capture; at least one, unless Select finds them by pattern
	// or label. Run adds those.
	Namespaces []string
	// Select narrows the capture to what it covers, and what that needs.
	Select selection.Selection
	// Volumes chooses the volumes whose data is captured.
	Volumes selection.Volumes
	// Filter narrows it by kind.
	Filter Filter
	// Mode and SnapshotClass say how volume data is captured, GroupSnapshotClass with which class volumes
	// are cut by one act, see Grouper, and ChangedBlocks whether drivers are asked what was changed.
	Mode               Mode
	ChangedBlocks      bool
	SnapshotClass      string
	GroupSnapshotClass string
	// Freeze says whether all volumes are held still together while they are
	// cut, for at most FreezeWindow; 0 means DefaultFreezeWindow.
	Freeze       FreezeMode
	FreezeWindow time.Duration
	Hooks        []quiesce.Hook
	// Profile chooses a hook for pods that have none; nil: none.
	Profile func(quiesce.Pod) (*quiesce.Hook, string, error)
	// Previous are the newest snapshots of the same claims, by
	// namespace/claim, for the reader to compare with.
	Previous map[string]point.Snapshot
}

// Ports are the engine's ways out.
type Ports struct {
	Cluster Cluster
	Volumes Volumes        // may be nil with ModeNone
	Hooks   quiesce.Runner // may be nil without hooks
	Ledger  quiesce.Ledger // may be nil: then nobody undoes what a capture that died has done
	Freezer Freezer        // may be nil: then volumes are cut one by one
	Sink    Sink
}

// Options say how the engine works. The zero value is usable.
type Options struct {
	// Workers bounds the kinds listed at a time; default 8.
	Workers int
	// VolumeWorkers bounds the volumes read at a time; default 4. Cuts are
	// never bounded: they should be at one instant.
	VolumeWorkers int
	// Now tells the time. Nil means time.Now.
	Now func() time.Time
	// Logger gets progress at debug. Nil means none.
	Logger *slog.Logger
	// Progress is told, in words, what is being done now. It may be called
	// from several goroutines.
	Progress func(step string)
}

// LogLine is one line of the capture's log, for people.
type LogLine struct {
	At      time.Time
	Level   string // "info", "warning" or "error"
	Object  string
	Message string
}

// Result is what was captured: all that the manifest needs to say of it.
type Result struct {
	Instant, CutBy time.Time
	Namespaces     []string // captured, sorted
	Consistency    point.Consistency
	Freeze         *point.Freeze // nil where it was not tried
	Revision       string        // resource version the objects were listed at
	Scope          point.Scope
	Resources      []point.Resource
	Volumes        []point.Volume
	Images         []point.Image
	Hooks          []point.Hook
	Quiesce        *point.Quiesce // nil where nothing was to be held
	Warnings       []point.Warning
	Log            []LogLine
	Objects, Bytes int64 // of objects and volumes together
}

// Run captures. On an error nothing it made is left in the cluster, as far as
// the cluster can be reached; what went to the sink, and the snapshots of volumes, are the
// caller's to take back. The result is returned with an error too, for these and its log.
func Run(ctx context.Context, spec Spec, ports Ports, opts Options) (*Result, error) {
	r := newRun(spec, ports, opts.withDefaults())
	err := r.capture(ctx)
	return r.finish(err)
}
