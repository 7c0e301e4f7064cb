package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"davit.dev/davit/internal/capture"
)

// Cut implements capture.Volumes: it makes a VolumeSnapshot and waits until
// the driver has cut, not until the snapshot can be read.
func (v *Volumes) Cut(ctx context.Context, plan capture.VolumePlan) (capture.Cut, error) {
	cut := capture.Cut{Plan: plan}
	if plan.Method == capture.MethodLive {
		return cut, nil
	}
	ctx, cancel := context.WithTimeout(ctx, v.opts.CutTimeout)
	defer cancel()
	ctx, stop := v.atHome(ctx, plan.Claim)
	defer stop()
	cut.Handle = name(plan)
	api := v.app.Dynamic.Resource(snapshots).Namespace(plan.Claim.Namespace)
	o := document("VolumeSnapshot", plan.Claim.Namespace, cut.Handle, plan.Options.Point, map[string]any{
		"volumeSnapshotClassName": plan.Class,
		"source":                  map[string]any{"persistentVolumeClaimName": plan.Claim.Name},
	})
	// One that is there already proves nothing of when it was cut: that is an error.
	made, err := api.Create(ctx, o, metav1.CreateOptions{})
	if err != nil {
		return cut, fmt.Errorf("create VolumeSnapshot: %w", err)
	}
	if err := because(ctx, v.awaitCut(ctx, made)); err != nil {
		return cut, fmt.Errorf("wait for VolumeSnapshot %s/%s of driver %s: %w", plan.Claim.Namespace, cut.Handle, plan.Driver, err)
	}
	return cut, nil
}

// awaitCut waits until the driver has cut. A driver answers a request for a
// snapshot only when that is so (CSI, CreateSnapshot), and the sidecar writes
// the time of the cut when it has the answer: into the content first. The
// snapshot controller copies it into the snapshot when its turn comes, which
// may be a second later, in which an application stands still. So both are
// watched.
func (v *Volumes) awaitCut(ctx context.Context, snap *unstructured.Unstructured) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, 2)
	go func() {
		api := v.app.Dynamic.Resource(snapshots).Namespace(snap.GetNamespace())
		ends <- v.awaitSnapshot(ctx, api, snap.GetName())
	}()
	go func() { ends <- v.awaitContent(ctx, snap) }()
	err := <-ends
	if errors.Is(err, errNoContent) {
		err = <-ends
	}
	return err
}

// awaitSnapshot waits for a snapshot to have been cut. Its sidecar tries again
// after an error, and an application stands still for that: one that stays is
// the answer.
func (v *Volumes) awaitSnapshot(ctx context.Context, api dynamic.ResourceInterface, name string) error {
	var since time.Time
	o, err := awaitObject(ctx, api, name, func(o *unstructured.Unstructured) bool {
		switch {
		case wasCut(o):
			return true
		case errorOf(o) == "":
			since = time.Time{}
		case since.IsZero():
			since = v.opts.Now()
		}
		return !since.IsZero() && v.opts.Now().Sub(since) >= errorPatience
	})
	if err == nil && !wasCut(o) {
		return fmt.Errorf("%w: the driver still says after %s: %s", ErrNotReady, errorPatience, errorOf(o))
	}
	return err
}

// errorPatience is how long an error of the driver may stay.
const errorPatience = 15 * time.Second

// errNoContent says that the content of a snapshot is not where it is expected:
// then the snapshot alone tells.
var errNoContent = errors.New("content not seen")

// awaitContent waits for the content of a snapshot to have been cut. Its name
// is a convention of the snapshot controller; that it is the snapshot's own is
// checked.
func (v *Volumes) awaitContent(ctx context.Context, snap *unstructured.Unstructured) error {
	api := v.app.Dynamic.Resource(contents)
	content := "snapcontent-" + string(snap.GetUID())
	for ctx.Err() == nil {
		o, err := api.Get(ctx, content, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			change(ctx, api, content, &unstructured.Unstructured{})
			continue
		case err != nil:
			return errNoContent
		}
		if uid, _, _ := unstructured.NestedString(o.Object, "spec", "volumeSnapshotRef", "uid"); uid != string(snap.GetUID()) {
			return errNoContent
		}
		if wasCut(o) {
			return nil
		}
		change(ctx, api, content, o)
	}
	return errNoContent
}

// wasCut says whether a snapshot, or a content, has the time of its cut.
func wasCut(o *unstructured.Unstructured) bool {
	if at, found, _ := unstructured.NestedString(o.Object, "status", "creationTime"); found && at != "" {
		return true
	}
	at, _, _ := unstructured.NestedInt64(o.Object, "status", "creationTime")
	return at > 0
}
