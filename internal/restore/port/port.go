// Package port declares what the restore engine needs of the world: the target
// cluster, the recovery point, whoever fills volumes, a clock, and somebody who
// wants to hear how far it is. Adapters are in internal/kube and elsewhere.
package port

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
)

// ErrNotServed says that the target serves no such kind.
var ErrNotServed = errors.New("kind not served by the target")

// ErrUnanswered says that the target did not tell whether it serves the kind:
// what stands for its group does not answer. It may well be served.
var ErrUnanswered = errors.New("target did not say whether it serves the kind")

// Source reads one recovery point.
type Source interface {
	// ReadResource calls fn with every object of one kind, as JSON. The slice
	// is fn's only until it returns.
	ReadResource(ctx context.Context, res point.Resource, fn func(object []byte) error) error
	// CheckObjects reads nothing but asks whether every pack is there; the
	// error names what is missing.
	CheckObjects(ctx context.Context, m *point.Manifest) error
	// CheckVolume asks whether the data of one volume is there.
	CheckVolume(ctx context.Context, v point.Volume) error
}

// Served is one way in which the target serves a kind.
type Served struct {
	GVK        schema.GroupVersionKind
	GVR        schema.GroupVersionResource
	Namespaced bool
}

// Cluster is the target. Errors about single objects are those of
// k8s.io/apimachinery/pkg/api/errors, so that IsNotFound and its like work.
// It is used by many goroutines at once.
type Cluster interface {
	// Serves returns every version of the kind that the target serves,
	// preferred first, or ErrNotServed, or ErrUnanswered.
	Serves(ctx context.Context, kind schema.GroupKind) ([]Served, error)
	// Refresh forgets what Serves knew.
	Refresh(ctx context.Context) error
	Get(ctx context.Context, at Served, namespace, name string) (*unstructured.Unstructured, error)
	Create(ctx context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error)
	// Update replaces the object, or its subresource when that is not empty.
	Update(ctx context.Context, at Served, obj *unstructured.Unstructured, subresource string) (*unstructured.Unstructured, error)
	// Apply is a forced server-side apply as field manager "davit".
	Apply(ctx context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error)
	// Patch is a JSON merge patch.
	Patch(ctx context.Context, at Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error)
	// Delete removes the object that has this UID, at once or as soon as its
	// finalizers let it. Orphan leaves alone what it owns.
	Delete(ctx context.Context, at Served, obj *unstructured.Unstructured, orphan bool) error
	// Try creates without creating: it returns what the target would answer.
	Try(ctx context.Context, at Served, obj *unstructured.Unstructured) error
	// List calls fn with every object of one namespace (all if empty) whose
	// labels match the selector (any if empty), page by page. ErrNotServed: the
	// kind went since the target was asked what it serves.
	List(ctx context.Context, at Served, namespace, selector string, fn func(*unstructured.Unstructured) error) error
	// May asks whether the caller may do verb on the kind in the namespace
	// (everywhere if empty); reason says why not, when the target says it.
	May(ctx context.Context, verb string, at Served, namespace string) (allowed bool, reason string, err error)
}

// FillRequest asks for the data of one claim.
type FillRequest struct {
	Namespace, Claim string         // at the target
	Volume           point.Volume   // as captured
	Source           string         // application/namespace/claim as captured
	PodSpec          map[string]any // of the workload that will mount the claim; nil if none is known
	PodLabels        map[string]any // that pod's labels
	Owner            string         // the restore's id: the same after a crash
	Progress         func(done, total int64)
	Fetched          func(bytes int64) // told how much came out of the vault; the rest was there
}

// Volumes fills claims.
type Volumes interface {
	// Ready says why no claim can be filled at this target, or nil.
	Ready(ctx context.Context) error
	// Fill makes a bound claim that holds the volume's data, or says why it
	// cannot be bound or filled. Called again after a crash it continues.
	Fill(ctx context.Context, req FillRequest) (warnings []string, err error)
}

// Progress hears what a restore does. Calls come from several goroutines.
type Progress interface {
	// StepStarted and StepFinished frame one step. err is nil when it went well.
	StepStarted(step string)
	StepFinished(step string, err error)
	// Objects says how many of the objects to restore are done.
	Objects(done, total int64)
	// Bytes says how much volume data is written; total may grow.
	Bytes(done, total int64)
	// Note is one line for people about what happens or what is waited for.
	Note(text string)
}

// Silent is a Progress that says nothing.
type Silent struct{}

// StepStarted implements Progress.
func (Silent) StepStarted(string) {}

// StepFinished implements Progress.
func (Silent) StepFinished(string, error) {}

// Objects implements Progress.
func (Silent) Objects(int64, int64) {}

// Bytes implements Progress.
func (Silent) Bytes(int64, int64) {}

// Note implements Progress.
func (Silent) Note(string) {}

// Clock is the time as the engine sees it, a port so that tests need not wait.
type Clock interface {
	Now() time.Time
	// Sleep returns the context's error when that ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// WallClock is the machine's.
type WallClock struct{}

// Now implements Clock.
func (WallClock) Now() time.Time { return time.Now() }

// Sleep implements Clock.
func (WallClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
