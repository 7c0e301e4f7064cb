// Package served tells how the target serves the kinds of a recovery point: in
// which version their objects can be written, and from when on.
package served

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

const (
	establishTimeout = time.Minute
	look             = 100 * time.Millisecond
)

// First is how a kind is written where any version will do.
func First(ctx context.Context, c port.Cluster, kind schema.GroupKind) (port.Served, error) {
	all, err := c.Serves(ctx, kind)
	if err != nil {
		return port.Served{}, err
	}
	return all[0], nil
}

// Choose takes the captured version if the target serves it. Another one
// only where the object reads the same in both: versions of built-in kinds
// known to, and custom kinds whose CRD says that versions differ in name only.
func Choose(ctx context.Context, c port.Cluster, res point.Resource) (port.Served, error) {
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	all, err := c.Serves(ctx, kind)
	if err != nil {
		return port.Served{}, err
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
	if same, err := definedAlike(ctx, c, res); err != nil {
		return port.Served{}, err
	} else if same {
		for _, s := range all {
			if slices.Contains(res.Versions, s.GVK.Version) {
				return s, nil
			}
		}
	}
	return port.Served{}, &VersionError{Kind: kind, Captured: res.Version, Offered: offered}
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
func definedAlike(ctx context.Context, c port.Cluster, res point.Resource) (bool, error) {
	at, err := First(ctx, c, shape.KindCRD)
	if errors.Is(err, port.ErrNotServed) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	crd, err := c.Get(ctx, at, "", res.Resource+"."+res.Group)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	strategy := shape.Text(crd.Object, "spec", "conversion", "strategy")
	return strategy == "" || strategy == "None", nil
}

// Definitions waits for definitions of kinds to be served.
type Definitions struct {
	Cluster  port.Cluster
	Clock    port.Clock
	deadline time.Time
}

// Begin starts the time that all of them have.
func (d *Definitions) Begin() { d.deadline = d.Clock.Now().Add(establishTimeout) }

// Established waits for one definition. why is what is wrong with it when the
// time is over; err ends the restore.
func (d *Definitions) Established(ctx context.Context, name string) (why, err error) {
	at, err := First(ctx, d.Cluster, shape.KindCRD)
	if err != nil {
		return nil, err
	}
	for {
		crd, err := d.Cluster.Get(ctx, at, "", name)
		if err != nil {
			return fmt.Errorf("wait for it to be served: %w", err), nil
		}
		text := "no condition yet"
		for _, c := range shape.Items(crd.Object, "status", "conditions") {
			if shape.Text(c, "type") == "Established" && shape.Text(c, "status") == "True" {
				return nil, nil
			}
			if shape.Text(c, "status") == "False" {
				text = shape.Text(c, "reason") + ": " + shape.Text(c, "message")
			}
		}
		if !d.Clock.Now().Before(d.deadline) {
			return fmt.Errorf("not served after %s: %s", establishTimeout, text), nil
		}
		if err := d.Clock.Sleep(ctx, look); err != nil {
			return nil, err
		}
	}
}

// Await waits until discovery shows the kinds: it lags behind the Established
// condition. What is still missing in the end fails by itself, by name.
func (d *Definitions) Await(ctx context.Context, kinds []schema.GroupKind) error {
	for {
		if err := d.Cluster.Refresh(ctx); err != nil {
			return err
		}
		missing := false
		for _, kind := range kinds {
			_, err := d.Cluster.Serves(ctx, kind)
			if err != nil && !errors.Is(err, port.ErrNotServed) && !errors.Is(err, port.ErrUnanswered) { // a group that begins may not answer yet
				return err
			}
			missing = missing || err != nil
		}
		if !missing || !d.Clock.Now().Before(d.deadline) {
			return nil
		}
		if err := d.Clock.Sleep(ctx, look); err != nil {
			return err
		}
	}
}
