package protection

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/point"
)

// keeping is a cluster whose volumes' cuts are kept.
type keeping struct {
	*tiny
	let      []string
	previous *point.Snapshot // of the newest read
	lie      string          // what is found by each read
	broken   error           // what it ends with
	full     error           // what a cut ends with
	compared time.Time       // as a node says it
}

func (k *keeping) Read(ctx context.Context, cut capture.Cut, previous *point.Snapshot, progress func(capture.VolumeProgress)) (capture.VolumeRead, error) {
	got, err := k.tiny.Read(ctx, cut, previous, progress)
	if cut.Plan.Options.ChangedBlocks {
		got.Snapshot.Blocks = &point.Blocks{Base: true, Compared: k.compared}
	}
	if k.previous = previous; k.lie != "" {
		got.Snapshot.Blocks = &point.Blocks{Distrusted: k.lie}
	}
	if k.broken != nil {
		return capture.VolumeRead{Snapshot: point.Snapshot{Blocks: got.Snapshot.Blocks}}, k.broken
	}
	return got, err
}

func (k *keeping) Cut(ctx context.Context, plan capture.VolumePlan) (capture.Cut, error) {
	if k.full != nil {
		return capture.Cut{}, k.full
	}
	return k.tiny.Cut(ctx, plan)
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
	on := true
	var want []string
	take := func(whole, kept bool) {
		t.Helper()
		id, err := r.east.NewPointID("shop")
		if err != nil {
			t.Fatal(err)
		}
		r.cluster.errs = map[bool]int64{false: 1}[whole]
		if _, err := r.east.Capture(t.Context(), CaptureRequest{Application: app, PointID: id, Held: 1, ChangedBlocks: on}); (err == nil) != whole {
			t.Fatal(err)
		}
		if kept {
			want = append(want, "shop "+map[bool]string{true: "all but "}[whole]+id)
		}
	}
	take(true, true)
	take(false, true)
	on = false
	take(true, true)
	take(true, false) // nothing is left to let go of
	if !slices.Equal(k.let, want) {
		t.Errorf("let go of %v, want %v", k.let, want)
	}
}

// newKeeping is a rig whose application asks drivers, and what captures it.
func newKeeping(t *testing.T) (*rig, *keeping, func(distrusted map[string]string) error) {
	r := newRig(t)
	r.claim()
	k := &keeping{tiny: r.cluster}
	r.east.opts.Volumes = k
	return r, k, func(distrusted map[string]string) error {
		_, err := r.east.Capture(t.Context(), CaptureRequest{Application: application(), Held: 1, ChangedBlocks: true, Distrusted: distrusted})
		return err
	}
}

// TestALieOutlivesTheCaptureThatFails, whatever it failed of: the next one of the same process goes by it,
// and one of another process that is told.
func TestALieOutlivesTheCaptureThatFails(t *testing.T) {
	for name, fail := range map[string]func(*rig, *keeping){
		"a file cannot be read": func(r *rig, _ *keeping) { r.cluster.errs = 1 },
		"nothing is stored":     func(_ *rig, k *keeping) { k.broken = errors.New("no answer") },
	} {
		t.Run(name, func(t *testing.T) {
			r, k, take := newKeeping(t)
			if err := take(nil); err != nil {
				t.Fatal(err)
			}
			k.lie = "db, the MiB at 5"
			fail(r, k)
			var lied *LiedError
			if err := take(nil); !errors.As(err, &lied) || lied.Volumes["shop/data"] != k.lie {
				t.Fatalf("the capture says %v, of %+v", err, lied)
			}
			if len(r.repo.deleted) > 0 && r.repo.deleted[0] == "" {
				t.Error("what was not stored was deleted")
			}
			r.cluster.errs, k.broken, k.lie = 0, nil, ""
			if err := take(nil); err != nil || k.previous == nil || k.previous.Blocks.Distrusted != "db, the MiB at 5" {
				t.Errorf("the next capture goes by %+v, %v", k.previous, err)
			}
			r.east = r.site("east") // another process
			r.east.opts.Volumes = k
			if err := take(map[string]string{"shop/data": "what was found"}); err != nil || k.previous == nil || k.previous.Blocks.Distrusted != "what was found" {
				t.Errorf("one that is told goes by %+v, %v", k.previous, err)
			}
		})
	}
}

// TestALieOutlivesThePointThatLacksItsVolume, or the vault that has it: the Application still says so. The control: a volume
// of which nothing was found is captured as before.
func TestALieOutlivesThePointThatLacksItsVolume(t *testing.T) {
	r, k, take := newKeeping(t)
	found := map[string]string{"shop/data": "what was found"}
	if err := take(map[string]string{"shop/other": "what was found"}); err != nil || k.previous != nil {
		t.Fatalf("the first of another volume goes by %+v, %v", k.previous, err)
	}
	for what, known := range map[string]map[string]point.Snapshot{
		"no point":                    nil,
		"points without it":           {"shop/other": {ID: "s"}},
		"a point without the option":  {"shop/data": {ID: "s"}},
		"one that says so by itself":  {"shop/data": {ID: "s", Blocks: &point.Blocks{Distrusted: "what was found"}}},
		"one that takes its word yet": {"shop/data": {ID: "s", Blocks: &point.Blocks{Base: true}}},
	} {
		r.east.newest["shop"] = known
		if err := take(found); err != nil || k.previous == nil || k.previous.Blocks == nil || k.previous.Blocks.Distrusted != "what was found" || k.previous.ID != known["shop/data"].ID {
			t.Errorf("%s: it goes by %+v, %v", what, k.previous, err)
		}
	}
}

// TestWhatIsKeptMakesRoomForACut: beside it a quota may have no room for another. Nothing is kept for a day then.
func TestWhatIsKeptMakesRoomForACut(t *testing.T) {
	r, k, take := newKeeping(t)
	if err := take(nil); err != nil {
		t.Fatal(err)
	}
	k.let, k.full = nil, errors.New("exceeded quota")
	if err := take(nil); !errors.Is(err, capture.ErrCut) || !slices.Equal(k.let, []string{"shop all but "}) {
		t.Errorf("let go of %v: %v", k.let, err)
	}
	k.full = nil
	if err := take(nil); err != nil || !r.east.crowded("shop") {
		t.Errorf("the next capture: %v", err)
	}
	if _, kept := r.east.newest["shop"]["shop/data"]; !kept || r.east.newest["shop"]["shop/data"].Blocks != nil {
		t.Error("its cut is kept")
	}
	r.now = r.now.Add(crowdedFor)
	if err := take(nil); err != nil || r.east.newest["shop"]["shop/data"].Blocks == nil {
		t.Errorf("a day later it is not tried again: %v", err)
	}
	k.let, k.full = nil, errors.New("no answer")
	stopped, stop := context.WithCancel(t.Context())
	stop()
	r.east.letGo(stopped, capture.Spec{Application: "shop", ID: "p", ChangedBlocks: true, Previous: r.east.newest["shop"]}, capture.ErrCut)
	if r.east.crowded("shop") || !slices.Equal(k.let, []string{"shop p"}) {
		t.Errorf("a capture that was stopped let go of %v", k.let)
	}
}

// TestWhoKeepsCuts: who asks for it and is captured often enough.
func TestWhoKeepsCuts(t *testing.T) {
	every := func(d time.Duration) v1alpha1.ProtectionPolicySpec {
		return v1alpha1.ProtectionPolicySpec{Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: d}}}
	}
	suspended := every(time.Hour)
	suspended.Suspend = true
	for name, c := range map[string]struct {
		mode   v1alpha1.ChangedBlocksMode
		policy v1alpha1.ProtectionPolicySpec
		keeps  bool
	}{
		"each hour":  {v1alpha1.ChangedBlocksAuto, every(time.Hour), true},
		"not asked":  {v1alpha1.ChangedBlocksNever, every(time.Hour), false},
		"unset":      {"", every(time.Hour), false},
		"suspended":  {v1alpha1.ChangedBlocksAuto, suspended, false},
		"each month": {v1alpha1.ChangedBlocksAuto, every(30 * 24 * time.Hour), false},
		"no table":   {v1alpha1.ChangedBlocksAuto, v1alpha1.ProtectionPolicySpec{}, false},
		"each week":  {v1alpha1.ChangedBlocksAuto, v1alpha1.ProtectionPolicySpec{Schedule: v1alpha1.Schedule{Cron: "0 3 * * 0"}}, true},
		"the first":  {v1alpha1.ChangedBlocksAuto, v1alpha1.ProtectionPolicySpec{Schedule: v1alpha1.Schedule{Cron: "0 3 1 * *"}}, false},
	} {
		app := application()
		app.Spec.Policy, app.Spec.Volumes.ChangedBlocks = "p", c.mode
		if got := KeepsCuts(&app, &v1alpha1.ProtectionPolicy{Spec: c.policy}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)); got != c.keeps {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestOnlyAPersonTrustsAStorageAgain: not a policy that keeps nothing for a while.
func TestOnlyAPersonTrustsAStorageAgain(t *testing.T) {
	r, k, take := newKeeping(t)
	k.lie = "db"
	if err := take(nil); err != nil {
		t.Fatal(err)
	}
	k.lie = ""
	for _, mode := range []v1alpha1.ChangedBlocksMode{v1alpha1.ChangedBlocksAuto, v1alpha1.ChangedBlocksNever} {
		app := application()
		app.Spec.Volumes.ChangedBlocks = mode
		m, err := r.east.Capture(t.Context(), CaptureRequest{Application: app, Held: 1})
		if err != nil {
			t.Fatal(err)
		}
		if b := m.Volumes[0].Snapshot.Blocks; (b != nil) != (mode == v1alpha1.ChangedBlocksAuto) || b != nil && (b.Distrusted != "db" || b.Base) {
			t.Errorf("%s: %+v", mode, b)
		}
	}
}
