package protection

import (
	"context"
	"errors"
	"slices"
	"testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/point"
)

// keeping is a cluster whose volumes' cuts are kept.
type keeping struct {
	*tiny
	let []string
}

func (k *keeping) Read(ctx context.Context, cut capture.Cut, previous *point.Snapshot, progress func(capture.VolumeProgress)) (capture.VolumeRead, error) {
	got, err := k.tiny.Read(ctx, cut, previous, progress)
	if cut.Plan.Options.ChangedBlocks {
		got.Snapshot.Blocks = &point.Blocks{Base: true}
	}
	return got, err
}

func (k *keeping) LetGo(_ context.Context, application, id string, others bool) error {
	k.let = append(k.let, application+" "+map[bool]string{true: "all but ", false: ""}[others]+id)
	return errors.New("it will be swept later")
}

// TestWhatWasKeptGoesWhenThePointIsThere, and what a capture kept whose point is not; once more
// after the option was taken back.
func TestWhatWasKeptGoesWhenThePointIsThere(t *testing.T) {
	r := newRig(t)
	r.claim()
	k := &keeping{tiny: r.cluster}
	r.east.opts.Volumes = k
	app := application()
	app.Spec.Policy, app.Spec.Volumes.ChangedBlocks = "hourly", v1alpha1.ChangedBlocksAuto
	var want []string
	take := func(whole, kept bool) {
		t.Helper()
		id, err := r.east.NewPointID("shop")
		if err != nil {
			t.Fatal(err)
		}
		r.cluster.errs = map[bool]int64{false: 1}[whole]
		if _, err := r.east.Capture(t.Context(), CaptureRequest{Application: app, PointID: id, Held: 1}); (err == nil) != whole {
			t.Fatal(err)
		}
		if kept {
			want = append(want, "shop "+map[bool]string{true: "all but "}[whole]+id)
		}
	}
	take(true, true)
	take(false, true)
	app.Spec.Volumes.ChangedBlocks = v1alpha1.ChangedBlocksNever
	take(true, true)
	take(true, false) // nothing is left to let go of
	if !slices.Equal(k.let, want) {
		t.Errorf("let go of %v, want %v", k.let, want)
	}
}
