package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/point"
)

// FreezeMode says whether file systems are held still while they are cut.
type FreezeMode string

// The freeze modes, as in the API.
const (
	FreezeAuto     FreezeMode = "Auto"
	FreezeRequired FreezeMode = "Required"
	FreezeNever    FreezeMode = "Never"
)

// DefaultFreezeWindow bounds how long file systems are held still.
const DefaultFreezeWindow = 10 * time.Second

// ErrNotTogether says that volumes that had to be cut at one instant were not.
var ErrNotTogether = errors.New("the volumes were not cut at one instant")

// FreezeRequest is what Freezer holds still.
type FreezeRequest struct {
	// Application and Point say for what: points of several applications may have one name.
	Application, Point string
	Plans              []VolumePlan
	// Window bounds how long anything is held still.
	Window time.Duration
	// Required says that nothing is cut unless all is held.
	Required bool
}

// Freezer holds the file systems of volumes still while they are cut. See
// internal/barrier for what it proves.
type Freezer interface {
	// Together calls cut, unless the request requires what cannot be had, and
	// says whether every file system stood still from before cut began until
	// after it returned. The error is cut's own, or the context's. Whatever
	// happens nothing stays frozen beyond the window.
	Together(ctx context.Context, req FreezeRequest, cut func(context.Context) error) (point.Freeze, error)
}

// cutTogether cuts every volume, and all of them at one instant where that is
// asked for and possible.
func (r *run) cutTogether(ctx context.Context) error {
	var all, cuts []VolumePlan
	why := ""
	for key, p := range r.plans {
		all = append(all, p)
		if p.Method == MethodSnapshot {
			cuts = append(cuts, p)
		} else {
			why = "volume " + key + " is read while it is in use"
		}
	}
	if len(all) < 2 {
		r.flush(ctx, cuts)
		return r.cut(ctx, all) // one volume is one instant
	}
	required := r.spec.Freeze == FreezeRequired
	switch {
	case r.spec.Freeze == FreezeNever:
		r.res.Freeze = &point.Freeze{Reason: "switched off by the application's volumes.freeze"}
		r.flush(ctx, cuts)
		return r.cut(ctx, all)
	case r.ports.Freezer == nil:
		why = "nothing here can freeze file systems"
	}
	if why != "" && required {
		return fmt.Errorf("%w, as volumes.freeze requires: %s", ErrNotTogether, why)
	}
	if why != "" {
		r.res.Freeze = &point.Freeze{Reason: why}
		r.flush(ctx, cuts)
		return r.cutAll(ctx, DefaultFreezeWindow/2)
	}
	return r.cutFrozen(ctx, cuts, required)
}

func (r *run) cutFrozen(ctx context.Context, cuts []VolumePlan, required bool) error {
	window := r.spec.FreezeWindow
	if window <= 0 {
		window = DefaultFreezeWindow
	}
	slices.SortFunc(cuts, func(a, b VolumePlan) int { return strings.Compare(a.Claim.Key(), b.Claim.Key()) })
	r.step("holding the file systems still")
	req := FreezeRequest{Application: r.spec.Application, Point: r.spec.ID, Plans: cuts, Window: window, Required: required}
	got, err := r.ports.Freezer.Together(ctx, req, func(ctx context.Context) error { return r.cutAll(ctx, window/2) })
	got.Window, got.Volumes = window, len(cuts)
	r.res.Freeze = &got
	switch {
	case err != nil:
		return err
	case got.Held:
		on := "1 node"
		if got.Nodes != 1 {
			on = fmt.Sprintf("%d nodes", got.Nodes)
		}
		r.note("info", "", fmt.Sprintf("%d volumes on %s were cut at one instant; the longest freeze took %s", got.Volumes, on, got.Frozen.Round(time.Millisecond)))
		return nil
	case required:
		return fmt.Errorf("%w, as volumes.freeze requires: %s", ErrNotTogether, got.Reason)
	}
	r.warn("", "each volume was cut at an instant of its own: "+got.Reason)
	return nil
}
