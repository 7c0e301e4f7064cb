package recovery

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
)

var applications = v1alpha1.GroupVersion.WithResource("applications")

// application makes the Application at the target.
func (w *world) application(namespace, name string) {
	w.t.Helper()
	app := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"vault": "main"}}}
	app.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Application"))
	app.SetNamespace(namespace)
	app.SetName(name)
	if _, err := w.dynamic.Resource(applications).Namespace(namespace).Create(w.t.Context(), app, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// restoring is the Application's annotation. It asks the fake's tracker, for
// reactors run under the client's lock.
func (w *world) restoring() string {
	w.t.Helper()
	object, err := w.dynamic.Tracker().Get(applications, "davit-system", "shop")
	if err != nil {
		w.t.Fatal(err)
	}
	app, err := meta.Accessor(object)
	if err != nil {
		w.t.Fatal(err)
	}
	return app.GetAnnotations()[v1alpha1.AnnotationRestoring]
}

// onObject runs do once, before the first object of the point is created, and
// fails the creation with do's error.
func (w *world) onObject(do func() error) {
	done := false
	w.dynamic.PrependReactor("create", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		if done {
			return false, nil, nil
		}
		done = true
		err := do()
		return err != nil, nil, err
	})
}

// TestNothingIsCapturedBeforeARestoreEndedWell: the agent of the target sees
// the mark before there is anything to capture, and until all is there.
func TestNothingIsCapturedBeforeARestoreEndedWell(t *testing.T) {
	for _, mode := range []v1alpha1.RestoreMode{v1alpha1.RestoreInPlace, v1alpha1.RestoreTakeOver} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.claim("west", 1)
			w.capture("shop-1", "west", 1, instant, point.Crash)
			w.application("davit-system", "shop")
			seen := ""
			w.onObject(func() error {
				seen = w.restoring()
				return apierrors.NewForbidden(corev1.Resource("configmaps"), "conf", errors.New("refused once"))
			})
			opts := Options{Application: "shop", Mode: mode}
			rep, err := Recover(t.Context(), opts, w.deps)
			if err != nil || rep.Result.Failed != 1 || seen != rep.RestoreID || w.restoring() != rep.RestoreID {
				t.Fatalf("%v: %d failed, mark %q while it ran and %q after it failed", err, rep.Result.Failed, seen, w.restoring())
			}
			if rep, err = Recover(t.Context(), opts, w.deps); err != nil || rep.Result.Failed != 0 || w.restoring() != "" {
				t.Errorf("%v: mark %q after all was restored", err, w.restoring())
			}
		})
	}
}

func TestCloneLeavesTheApplicationUnmarked(t *testing.T) {
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	w.application("davit-system", "shop")
	seen := ""
	w.onObject(func() error { seen = w.restoring(); return nil })
	_, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreClone, NamespaceMapping: map[string]string{"shop": "copy"}}, w.deps)
	if err != nil || seen != "" {
		t.Errorf("%v: a clone holds the original's captures back: %q", err, seen)
	}
}

// TestWhoStoodStillTakesNoMarkOff: another process has ended the restore, the site went on, and a run
// holds the application at rest, or another restore has begun. The control is a restore that nobody ended.
func TestWhoStoodStillTakesNoMarkOff(t *testing.T) {
	for mark, left := range map[string]bool{"": true, "another": true, "own": false} {
		w := newWorld(t)
		w.claim("west", 1)
		w.capture("shop-1", "west", 1, instant, point.Crash)
		w.application("davit-system", "shop")
		r := begin(Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps)
		if err := r.prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		if mark == "own" {
			mark = r.report.RestoreID
		}
		apps := w.dynamic.Resource(applications).Namespace("davit-system")
		app, err := apps.Get(t.Context(), "shop", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		app.SetAnnotations(map[string]string{v1alpha1.AnnotationHeldBy: "back-7", v1alpha1.AnnotationRestoring: mark})
		if _, err := apps.Update(t.Context(), app, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.letCapture(t.Context())
		if app, err = apps.Get(t.Context(), "shop", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		if held := app.GetAnnotations()[v1alpha1.AnnotationHeldBy] != ""; held != left || len(r.extra) > 0 {
			t.Errorf("marked by %q: held is %v, want %v; %v", mark, held, left, r.extra)
		}
	}
}

// TestWhatARunHoldsIsNotRestored: a run that is about to take the application elsewhere has captured its last
// write; what a restore started here would be left behind. A take-over is from the run: it cannot claim any more. Restores
// are let be that an earlier process began, and those beside runs that are over, are of an epoch that was given up since, or
// that no journal tells of.
func TestWhatARunHoldsIsNotRestored(t *testing.T) {
	for name, tt := range map[string]struct {
		phase   failover.EntryKind // how the run went on; empty: no journal tells of it
		epoch   int64              // under which it found the application
		begun   bool
		refused bool
	}{
		"under way":              {phase: failover.Evaluated, epoch: 1, refused: true},
		"begun before":           {phase: failover.Evaluated, epoch: 1, begun: true},
		"over":                   {phase: failover.Canceling, epoch: 1},
		"of an epoch given up":   {phase: failover.Evaluated, epoch: 0},
		"no journal tells of it": {},
	} {
		for _, mode := range []v1alpha1.RestoreMode{v1alpha1.RestoreInPlace, v1alpha1.RestoreTakeOver} {
			w := newWorld(t)
			w.claim("west", 1)
			w.capture("shop-1", "west", 1, instant, point.Crash)
			w.application("davit-system", "shop")
			if tt.phase != "" {
				w.run("away-7", tt.phase, tt.epoch)
			}
			opts := Options{Application: "shop", Mode: mode}
			marks := map[string]string{v1alpha1.AnnotationHeldBy: "away-7"}
			if tt.begun {
				marks[v1alpha1.AnnotationRestoring] = shape.ID("shop-1", string(mode), nil)
			}
			w.annotate(marks)
			_, err := Recover(t.Context(), opts, w.deps)
			refused := tt.refused && mode == v1alpha1.RestoreInPlace
			if errors.Is(err, ErrRefused) != refused || err != nil && !refused {
				t.Errorf("%s, %s: %v", name, mode, err)
			}
			left := w.annotations()
			if held := left[v1alpha1.AnnotationHeldBy] != ""; held != (refused || tt.begun) {
				t.Errorf("%s, %s: held is %v", name, mode, held)
			}
			want := int64(1)
			if tt.refused && !refused { // the run finds its number taken
				want = 2
			}
			if w.epoch() != want {
				t.Errorf("%s, %s: epoch %d, want %d", name, mode, w.epoch(), want)
			}
			if brought := w.value("shop") != ""; brought == refused || left[v1alpha1.AnnotationRestoring] != "" {
				t.Errorf("%s, %s: restored is %v; %v", name, mode, brought, left)
			}
		}
	}
}

// TestATakeOverThatDiesHasTakenTheApplication: given again it goes on as one that was begun before, which
// leaves a run alone that waits for it. So it must have claimed before it is marked as begun.
func TestATakeOverThatDiesHasTakenTheApplication(t *testing.T) {
	w := newWorld(t)
	w.claim("west", 1)
	w.capture("shop-1", "west", 1, instant, point.Crash)
	w.application("davit-system", "shop")
	w.run("away-7", failover.Evaluated, 1)
	w.annotate(map[string]string{v1alpha1.AnnotationHeldBy: "away-7"})
	ctx, die := context.WithCancel(t.Context())
	w.deps.Progress = until{step: StepClaim, end: die}
	opts := Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}
	if _, err := Recover(ctx, opts, w.deps); err == nil {
		t.Fatal("it did not die")
	}
	if w.annotations()[v1alpha1.AnnotationRestoring] == "" {
		t.Fatal("it died before it was begun")
	}
	w.deps.Progress = nil
	if _, err := Recover(t.Context(), opts, w.deps); err != nil {
		t.Fatal(err)
	}
	if left := w.annotations(); w.epoch() != 2 || len(left) != 0 {
		t.Errorf("epoch %d, marks %v: the run can still claim it", w.epoch(), left)
	}
}

// until ends a recovery when it begins a step.
type until struct {
	restore.Silent
	step string
	end  func()
}

func (u until) StepStarted(step string) {
	if step == u.step {
		u.end()
	}
}

// run is a run in the vault that takes shop away from west, and found it under an epoch.
func (w *world) run(name string, last failover.EntryKind, epoch int64) {
	w.t.Helper()
	spec := failover.Spec{
		Run: name, Verb: plan.Switchover, From: "west", To: "east", By: "ann", Accept: failover.TimedOut, Applications: []string{"shop"},
		Steps: []plan.Step{{Name: "claim/shop", Kind: plan.KindClaim, Application: "shop", Timeout: time.Minute}},
	}
	entries := []failover.Entry{
		{Kind: failover.Opened, Spec: &spec},
		{Kind: failover.Took, By: "agent"},
		{Kind: failover.Evaluated, Facts: &failover.Facts{Epochs: map[string]failover.Held{"shop": {Number: epoch, Site: "west"}}}},
	}
	if last != failover.Evaluated {
		entries = append(entries, failover.Entry{Kind: last, By: "ann"})
	}
	if err := journal.Create(w.project, name, "agent").Append(w.t.Context(), entries); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) annotate(marks map[string]string) {
	w.t.Helper()
	apps := w.dynamic.Resource(applications).Namespace("davit-system")
	app, err := apps.Get(w.t.Context(), "shop", metav1.GetOptions{})
	if err == nil {
		app.SetAnnotations(marks)
		_, err = apps.Update(w.t.Context(), app, metav1.UpdateOptions{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) annotations() map[string]string {
	w.t.Helper()
	app, err := w.dynamic.Resource(applications).Namespace("davit-system").Get(w.t.Context(), "shop", metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return app.GetAnnotations()
}

// TestAnEpochThatWasGivenBackIsUsedUp: a roll-back that was broken off has told the nodes that the
// epoch goes back, and it did not. A person who brings the application up here takes the next one; the run itself does not.
func TestAnEpochThatWasGivenBackIsUsedUp(t *testing.T) {
	for name, c := range map[string]struct {
		returned, attempt string
		want              int64
	}{
		"a person's": {"2", "by hand", 3}, "the run's own": {"2", "run-1", 2}, "an older one": {"1", "by hand", 2}, "none": {"", "by hand", 2},
	} {
		w := newWorld(t)
		w.claim("east", 1)
		w.capture("shop-1", "east", 1, instant, point.Crash)
		if _, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver, Attempt: "run-1"}, w.deps); err != nil || w.epoch() != 2 {
			t.Fatal(err, w.epoch())
		}
		w.application("davit-system", "shop")
		if c.returned != "" {
			apps := w.dynamic.Resource(applications).Namespace("davit-system")
			app, err := apps.Get(t.Context(), "shop", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			app.SetAnnotations(map[string]string{fence.AnnotationReturned: c.returned})
			if _, err := apps.Update(t.Context(), app, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver, Attempt: c.attempt}, w.deps); err != nil || w.epoch() != c.want {
			t.Errorf("%s: %v, epoch %d, want %d", name, err, w.epoch(), c.want)
		}
	}
}

// TestSupersededMidwayStartsNothing: another site takes over while the objects
// come; nothing of the application may run here then.
func TestSupersededMidwayStartsNothing(t *testing.T) {
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	w.onObject(func() error { w.claim("north", 3, "shop-1"); return nil })
	rep, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps)
	if !errors.Is(err, lease.ErrSuperseded) || rep.Epoch != 2 || len(rep.Documents) != 0 {
		t.Errorf("%v %+v", err, rep)
	}
}

// TestSupersededOrderIsNotCarriedOutAgain: an agent that died in a take-over
// comes back after the other site has taken the application back.
func TestSupersededOrderIsNotCarriedOutAgain(t *testing.T) {
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	order := Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver, Attempt: "uid-1"}
	for range 2 { // carried out, and carried on
		if _, err := Recover(t.Context(), order, w.deps); err != nil || w.epoch() != 2 {
			t.Fatalf("%v, epoch %d", err, w.epoch())
		}
	}
	w.claim("east", 3, "shop-1")
	if _, err := Recover(t.Context(), order, w.deps); !errors.Is(err, ErrRefused) || w.epoch() != 3 {
		t.Errorf("%v, epoch %d: the old order took the application from the site that runs it", err, w.epoch())
	}
	w.capture("shop-2", "east", 3, instant.Add(time.Second), point.Crash)
	order.Attempt = "uid-2"
	if _, err := Recover(t.Context(), order, w.deps); err != nil || w.epoch() != 4 {
		t.Errorf("a new order: %v, epoch %d", err, w.epoch())
	}
}
