// Package recovery is the use case behind `davit restore` and the Restore
// object: choose the recovery point, apply the rules of quarantine and epochs,
// claim the epoch for a take-over, run the restore engine, and bring the
// application's own documents along so that protection goes on. It measures
// RPO and RTO. Nothing in it asks the site that was lost.
package recovery

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/transform"
	"davit.dev/davit/internal/vault"
)

// Errors that callers may decide on with errors.Is.
var (
	// ErrRefused says that a rule forbids what was asked; nothing was changed.
	ErrRefused = errors.New("refused")
	// ErrPreflight says that a check failed; nothing was changed. The report
	// holds the findings.
	ErrPreflight = errors.New("preflight failed")
	// ErrNoPoint says that there is no recovery point to restore.
	ErrNoPoint = errors.New("no recovery point")
	// ErrOvertaken says that the application's epoch changed since the restore
	// was ordered. It comes with ErrRefused.
	ErrOvertaken = errors.New("overtaken since it was ordered")
	// ErrBusy says that another restore of the application runs at the target.
	ErrBusy = restore.ErrBusy
)

// DefaultTimeout bounds a whole restore whose order says nothing. One that it
// ends is given again and goes on.
const DefaultTimeout = 24 * time.Hour

// Options mirror v1alpha1.RestoreSpec, and what only a person at the CLI may say.
type Options struct {
	Application string    // its name in the vault
	Point       string    // a name; excludes AsOf
	AsOf        time.Time // the newest point not after it; zero for the newest
	// Mode is InPlace when empty.
	Mode                v1alpha1.RestoreMode
	NamespaceMapping    map[string]string
	StorageClassMapping map[string]string
	Existing            v1alpha1.ExistingPolicy
	ExistingKinds       map[string]v1alpha1.ExistingPolicy
	// Transforms are the rules that were given, in their order; they come after
	// the overlays and TransformsFrom, which are ConfigMaps of Namespace.
	Transforms     []transform.Source
	TransformsFrom []v1alpha1.TransformSource
	Namespace      string
	NoOverlays     bool
	// MirrorImagesFrom has images taken from this mirror; without one, an
	// overlay may say so.
	MirrorImagesFrom string
	NodePorts        v1alpha1.NodePortPolicy
	// GitOps is about objects that Flux or Argo CD make from git.
	GitOps          v1alpha1.GitOpsPolicy
	IncludeKinds    []string
	ExcludeKinds    []string
	RestoreStatusOf []string
	AcceptFuzzy     bool
	// Again has it begin anew where it did not end whole before: what it rolled back then is rolled back again.
	Again bool
	// Attempt names an order that is carried out once, by a machine that may
	// come back to it late: when the epoch that it claimed was superseded, it
	// is not claimed again. Empty means that a person asks, each time anew.
	Attempt string
	// SeenEpoch is the application's newest epoch when the order was given, or
	// first taken up; nil when that is now. One that another has raised since
	// is not fought over: ErrOvertaken. A clone does not care.
	SeenEpoch *int64
	// Holds tells whether a run that held the application at rest here holds it still, in earnest:
	// it is let alone when all is restored. Nil, where no run orders it: the journals tell, and
	// what a run holds is not restored.
	Holds func(ctx context.Context, run string) (bool, error)
	// AcceptQuarantined allows a quarantined point that Point names.
	AcceptQuarantined bool
	// Force allows a point that verification found damaged, if Point names it.
	Force bool
	// Team says that the order is one namespace's own, given by who is no
	// administrator: cluster-scoped objects are left alone.
	Team bool
	// NewNamespaces has a clone write only into namespaces that it made itself.
	NewNamespaces bool
	// Order has Plan say in what order, and why.
	Order bool
	// Diff has Plan say what it would change in each object.
	Diff         bool
	ReadyTimeout time.Duration // 0 for the default
	Workers      int           // 0 for the default
	// To is how far it goes, for whoever brings an application up in parts: given
	// again with a later stage the recovery continues. Zero is to the end.
	To sequence.Stage
	// Ahead brings data to a site that runs nothing of the application, before
	// anything is claimed: a later take-over has the less to bring. It goes no
	// further than data, and nothing may run.
	Ahead bool
	// Isolation keeps a clone to itself. Nil makes it like the original.
	Isolation *Isolation
}

// Isolation keeps a clone to itself.
type Isolation struct {
	restore.Isolation
	// Close is called before anything may run; its error stops the restore.
	Close func(context.Context) error
}

// FromSpec takes the options out of a Restore's spec.
func FromSpec(spec v1alpha1.RestoreSpec) Options {
	o := Options{
		Application: spec.Application, Point: spec.Point, Mode: spec.Mode,
		NamespaceMapping: spec.NamespaceMapping, StorageClassMapping: spec.StorageClassMapping,
		Existing: spec.Existing, ExistingKinds: spec.ExistingKinds, NodePorts: spec.NodePorts, GitOps: spec.GitOps,
		IncludeKinds: spec.IncludeKinds, ExcludeKinds: spec.ExcludeKinds,
		RestoreStatusOf: spec.RestoreStatusOf, AcceptFuzzy: spec.AcceptFuzzy, Again: spec.Again, SeenEpoch: spec.Epoch,
	}
	o.TransformsFrom, o.NoOverlays, o.MirrorImagesFrom = spec.TransformsFrom, spec.NoOverlays, spec.MirrorImagesFrom
	if len(spec.Transforms) > 0 {
		o.Transforms = []transform.Source{{Name: "spec.transforms", Rules: rulesOf(spec.Transforms)}}
	}
	if spec.AsOf != nil {
		o.AsOf = spec.AsOf.Time
	}
	if spec.ReadyTimeout != nil {
		o.ReadyTimeout = spec.ReadyTimeout.Duration
	}
	return o
}

// Deps are what a recovery works with. Cluster and Volumes act at the target
// with the rights of whoever asked; target.New and target.NewVolumes make them.
type Deps struct {
	Project *vault.Project
	// VaultName is the Vault object's name at the target, written into the
	// Application that a take-over creates.
	VaultName string
	Site      string // this site
	// ClusterID is the cluster that bears the site's name; see lease.Identity.
	ClusterID string
	Holder    string // who asks, for the lease and the epoch
	Cluster   restore.Cluster
	// Own is the cluster with Davit's own rights, for what is its own business:
	// the lease, and the mark on the Application. Nil means Cluster.
	Own restore.Cluster
	// Volumes may be nil when the point has no volumes.
	Volumes restore.Volumes
	// Coming says that Davit is put into the cluster before anything is brought there.
	Coming   bool
	Progress restore.Progress
	// Overlays reads the site's overlays, whoever restores; nil: it has none.
	Overlays func(context.Context) ([]transform.Overlay, error)
	// Images asks a mirror whether it has the copy of an image; nil does not ask.
	Images func(ctx context.Context, mirror string, image point.Image) (bool, error)
	// Now tells the time; nil means time.Now. Clock, when set, replaces it and
	// sleeps as well.
	Now   func() time.Time
	Clock restore.Clock
	Log   *slog.Logger
}

// Report is what a recovery did, or would do. It is what the CLI prints.
type Report struct {
	Application string                `json:"application"`
	Mode        v1alpha1.RestoreMode  `json:"mode"`
	RestoreID   string                `json:"restoreID,omitempty"`
	Phase       v1alpha1.RestorePhase `json:"phase"`
	Site        string                `json:"site"`
	Point       string                `json:"point,omitempty"`
	Instant     time.Time             `json:"instant,omitzero"`
	Consistency point.Consistency     `json:"consistency,omitempty"`
	SourceSite  string                `json:"sourceSite,omitempty"`
	Epoch       int64                 `json:"epoch,omitempty"`
	// EpochSite held the epoch when the recovery began.
	PreviousEpoch int64     `json:"previousEpoch,omitempty"`
	EpochSite     string    `json:"epochSite,omitempty"`
	StartedAt     time.Time `json:"startedAt"`
	FinishedAt    time.Time `json:"finishedAt,omitzero"`
	// RPO is the start of the recovery minus the point's instant. RTO is from
	// the start until all workloads were ready; 0 while they are not.
	RPO time.Duration `json:"rpo"`
	RTO time.Duration `json:"rto,omitempty"`
	// Fence says what keeps the other site from writing on: "asked" when it
	// stops as soon as it reads the vault, "" when there is none to stop.
	Fence string `json:"fence,omitempty"`
	// Overlays are those of the site that were applied, and Rules where the
	// other rules came from, both in order.
	Overlays []string `json:"overlays,omitempty"`
	Rules    []string `json:"rules,omitempty"`
	// Mirror is where images are taken from.
	Mirror   string            `json:"mirrorImagesFrom,omitempty"`
	Findings []restore.Finding `json:"findings,omitempty"`
	// Steps are the recovery's steps in order, the engine's included.
	Steps []restore.Step `json:"steps"`
	// Result is the engine's; zero before it ran.
	Result restore.Result `json:"result"`
	// Plan is set by Plan alone.
	Plan []restore.Planned `json:"plan,omitempty"`
	// Order is too, if it was asked for.
	Order *sequence.Drawing `json:"order,omitempty"`
	// Documents are the API objects made so that protection goes on.
	Documents []string `json:"documents,omitempty"`
	// Error is what stopped the recovery.
	Error string `json:"error,omitempty"`
}

// Blocked tells whether a check found what the recovery is refused for.
func (r *Report) Blocked() bool { return len(restore.Blocking(r.Findings)) > 0 }

// The names of the steps, in the order in which they run.
const (
	StepChoose    = "choose point"
	StepPreflight = "preflight"
	StepClaim     = "claim epoch"
	StepDocuments = "documents"
)
