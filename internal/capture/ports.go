package capture

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/point"
)

// Errors of ports that the engine decides on.
var (
	// ErrUnavailable says that an aggregated API gave no answer.
	ErrUnavailable = errors.New("API unavailable")
	// ErrUnservable says that the kind cannot be listed at all (none any more, or by no allowed method).
	ErrUnservable = errors.New("kind cannot be listed")
	// ErrCut says that a volume could not be cut.
	ErrCut = errors.New("cut volume")
)

// Kind is one kind of objects that the cluster serves.
type Kind struct {
	Group, Version, Kind, Resource string // Resource is the plural
	Namespaced                     bool
	// Versions are all versions served, preferred first.
	Versions []string
	// Verbs the server offers on it.
	Verbs []string
	// Aggregated kinds are served by another server than the cluster's own:
	// their resource versions are of another world.
	Aggregated bool
}

// Name is resource.group, and the resource alone for the core group.
func (k Kind) Name() string {
	if k.Group == "" {
		return k.Resource
	}
	return k.Resource + "." + k.Group
}

// Catalog is what the cluster serves.
type Catalog struct {
	Kinds []Kind
	// Broken are groups, or group versions, whose discovery failed, and why.
	Broken map[string]error
}

// Query asks for objects of one kind.
type Query struct {
	Kind      Kind
	Namespace string // empty: all, or a cluster-scoped kind
	Labels    string // label selector, empty: all
	Name      string // only the object of this name, if any
	// Revision is the exact resource version to list at; empty means now.
	Revision string
}

// Listed says how a list went.
type Listed struct {
	// Revision is the resource version listed at.
	Revision string
	// Split says that the list had to go on at a later revision midway.
	Split bool
	// Late says that the revision asked for was gone and the list is of now.
	Late bool
}

// Cluster reads objects.
type Cluster interface {
	// Catalog discovers the kinds. It fails only when nothing was learned.
	Catalog(ctx context.Context) (Catalog, error)
	// Revision returns the cluster's present resource version.
	Revision(ctx context.Context) (string, error)
	// List calls page with the objects, some at a time, in the order of their
	// names. The objects are page's to change and keep. A missing kind is
	// ErrUnservable, an aggregated API that does not answer ErrUnavailable.
	List(ctx context.Context, q Query, page func([]unstructured.Unstructured) error) (Listed, error)
	// Version is the cluster's version.
	Version(ctx context.Context) (string, error)
}

// Claim is one PersistentVolumeClaim whose data is captured.
type Claim struct {
	Namespace, Name string
	UID             string
	StorageClass    string
	Volume          string // the PersistentVolume bound to it
	Capacity        int64  // bytes
	Phase           string // as in its status
	BlockMode       bool
}

// Key is namespace/name.
func (c Claim) Key() string { return c.Namespace + "/" + c.Name }

// VolumeOptions are those of Spec that Volumes needs.
type VolumeOptions struct {
	Application, Point, SnapshotClass string
	Mode                              Mode
	ChangedBlocks                     bool
}

// VolumePlan says how one claim will be captured.
type VolumePlan struct {
	Claim  Claim
	Driver string // CSI driver, if any
	// Handle is the driver's name of the volume.
	Handle string
	// Node is the one from which alone the volume can be reached; empty where
	// there are several, or that is not known.
	Node   string
	Method string // MethodSnapshot or MethodLive; of a cut also MethodGroup
	// Class is the VolumeSnapshotClass, for MethodSnapshot.
	Class string
	// Group is the class of the group snapshot that the volume was, or was to
	// be, cut with; empty: none.
	Group   string
	Options VolumeOptions
	// Keep has Release keep the cut, for the next capture's reader to compare with.
	Keep bool
}

// Cut is a volume pinned at an instant, for the adapter that made it.
type Cut struct {
	Plan VolumePlan
	// Handle is the adapter's own name for it, empty for MethodLive.
	Handle string
	// At is just before the cut was asked for.
	At time.Time
	// Settled is an instant such that all that was written to the volume before it is in
	// the cut; see settled.go. Zero for MethodLive.
	Settled time.Time
}

// VolumeProgress is how far a read has come.
type VolumeProgress struct{ BytesDone, BytesTotal, FilesDone int64 }

// VolumeRead is what reading a volume gave.
type VolumeRead struct {
	Snapshot point.Snapshot
	Warnings []string
}

// Volumes cuts and reads volumes.
type Volumes interface {
	// Plan decides how the claim can be captured, or fails and says what to
	// do. It changes nothing.
	Plan(ctx context.Context, c Claim, opts VolumeOptions) (VolumePlan, error)
	// Cut pins the volume and returns as soon as the cut is done, whether or
	// not it can be read yet. A live read has nothing to pin.
	Cut(ctx context.Context, plan VolumePlan) (Cut, error)
	// Read stores the cut's data and returns its snapshot.
	Read(ctx context.Context, cut Cut, previous *point.Snapshot, progress func(VolumeProgress)) (VolumeRead, error)
	// Release removes whatever Cut and Read made for the plan, also when they
	// failed half-way. Nothing to remove is no error.
	Release(ctx context.Context, plan VolumePlan) error
}

// Sink takes the objects.
type Sink interface {
	// Resource starts the objects of one kind. Several kinds are written at
	// once, each by one goroutine.
	Resource(res point.Resource) ObjectWriter
}

// ObjectWriter takes the objects of one kind.
type ObjectWriter interface {
	// Add appends one object, as JSON. The slice is the writer's only until
	// Add returns.
	Add(ctx context.Context, object []byte) error
	// Close returns the resource with its packs.
	Close(ctx context.Context) (point.Resource, error)
}
