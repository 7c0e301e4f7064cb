package recovery

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/promise/hold"
	"davit.dev/davit/internal/vault"
)

// claimBy is claim by one of several clusters of a name.
func (w *world) claimBy(site, cluster string, n int64, accepted ...string) {
	w.t.Helper()
	c := lease.Claim{Site: site, Cluster: cluster, Holder: "h", Request: site + cluster, At: instant, Accepted: accepted}
	if _, err := lease.New(w.project).Claim(w.t.Context(), "shop", n, c); err != nil {
		w.t.Fatal(err)
	}
}

// TestANameIsNotTheCluster: the cluster that held the epoch is lost, and
// another one was installed under its name.
func TestANameIsNotTheCluster(t *testing.T) {
	for _, c := range []struct {
		name, holder, self string
		inPlace            error // what an in-place restore is answered
	}{
		{"the cluster that claimed", "first", "first", nil},
		{"another cluster of the name", "first", "second", ErrRefused},
		{"a claim of a version that knew no clusters", "", "second", nil}, // counts by its name: the harm without an id
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.deps.ClusterID = c.self
			w.claimBy("west", c.holder, 1)
			w.capture("shop-1", "west", 1, instant, point.Crash)
			_, err := Recover(t.Context(), Options{Application: "shop"}, w.deps)
			if !errors.Is(err, c.inPlace) {
				t.Fatalf("in place: %v, want %v", err, c.inPlace)
			}
			if c.inPlace == nil {
				return
			}
			if !strings.Contains(err.Error(), "another cluster (first) under this site's name west") || w.value("shop") != "" {
				t.Errorf("in place: %v", err)
			}
			rep, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps)
			if err != nil || rep.Epoch != 2 || rep.Fence != "asked" {
				t.Errorf("take-over: %v %+v", err, rep)
			}
		})
	}
}

// TestATakeOverHoldsFirst: where a claim ever named peers, this site promises them nothing from before its own claim.
func TestATakeOverHoldsFirst(t *testing.T) {
	for _, peers := range [][]lease.Peer{nil, {{Site: "west", Address: "w:1"}}} {
		w := newWorld(t)
		c := lease.Claim{Site: "east", Cluster: "e", Request: "r", At: instant, Terms: &lease.Terms{LeaseMillis: 1, Peers: peers}}
		if _, err := lease.New(w.project).Claim(t.Context(), "shop", 1, c); err != nil {
			t.Fatal(err)
		}
		w.capture("shop-1", "east", 1, instant, point.Crash)
		if rep, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps); err != nil || rep.Epoch != 2 {
			t.Fatalf("%+v, %v", rep, err)
		}
		held, err := hold.Held(t.Context(), w.deps.Cluster, w.project.KeyID(), map[string]int64{"shop": 2})
		if err != nil || held != (peers != nil) {
			t.Errorf("%v: held %v, %v", peers, held, err)
		}
	}
}

// TestTwoClustersOfANameDoNotBothWin: both take over from the same point, so
// both make the same request.
func TestTwoClustersOfANameDoNotBothWin(t *testing.T) {
	for _, c := range []struct {
		name, first, second string
		epoch               int64 // after both
	}{
		{"each with its id", "first", "second", 3}, // the second fences the first, knowingly
		{"without ids", "", "", 2},                 // the harm: both believe that they hold epoch 2
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.claim("east", 1)
			w.capture("shop-1", "east", 1, instant, point.Crash)
			for _, id := range []string{c.first, c.second} {
				w.deps.ClusterID = id
				if _, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps); err != nil {
					t.Fatal(err)
				}
			}
			if w.epoch() != c.epoch {
				t.Errorf("epoch %d, want %d", w.epoch(), c.epoch)
			}
		})
	}
}

// TestNoTakeOverUnderAnothersName: the name's bearer is another cluster.
func TestNoTakeOverUnderAnothersName(t *testing.T) {
	w := newWorld(t)
	w.deps.ClusterID = "second"
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	w.application("davit-system", "shop")
	if err := lease.Beat(t.Context(), w.project, vault.SiteStatus{Site: "west", Cluster: "first"}); err != nil {
		t.Fatal(err)
	}
	takeOver := Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}
	_, err := Recover(t.Context(), takeOver, w.deps)
	if !errors.Is(err, lease.ErrNameTaken) || !Refused(err) || w.epoch() != 1 || w.restoring() != "" {
		t.Fatalf("%v, epoch %d, mark %q", err, w.epoch(), w.restoring())
	}
	w.deps.ClusterID = "first"
	if _, err := Recover(t.Context(), takeOver, w.deps); err != nil || w.epoch() != 2 {
		t.Errorf("the bearer of the name: %v, epoch %d", err, w.epoch())
	}
}

// TestAHalfApplicationIsFencedAndNotCaptured: objects of a take-over fail.
func TestAHalfApplicationIsFencedAndNotCaptured(t *testing.T) {
	prepare := func(t *testing.T) *world {
		w := newWorld(t)
		w.claim("east", 1)
		w.capture("shop-1", "east", 1, instant, point.Crash)
		w.document()
		w.onObject(func() error {
			return apierrors.NewForbidden(corev1.Resource("configmaps"), "conf", errors.New("refused once"))
		})
		return w
	}
	opts := Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}
	w := prepare(t)
	rep, err := Recover(t.Context(), opts, w.deps)
	if err != nil || rep.Phase != v1alpha1.RestoreFailed || len(rep.Documents) != 2 {
		t.Fatalf("%v %+v", err, rep)
	}
	if w.restoring() != rep.RestoreID {
		t.Errorf("mark %q: a half application could become the newest point", w.restoring())
	}
	w = prepare(t) // without it, nothing here knows that it is to stop
	r := begin(opts, w.deps)
	r.brought = true
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = w.dynamic.Resource(applications).Namespace("davit-system").Get(t.Context(), "shop", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("Application: %v; then the test proves nothing", err)
	}
}

// TestDocumentsComeBeforeWhatMayRun, and once more if they could not be made.
func TestDocumentsComeBeforeWhatMayRun(t *testing.T) {
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	w.document()
	var ticks atomic.Int64
	w.deps.Now = func() time.Time { return instant.Add(time.Duration(ticks.Add(1)) * time.Second) }
	rep, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps)
	if err != nil || rep.Phase != v1alpha1.RestoreCompleted || w.restoring() != "" {
		t.Fatalf("%v %+v, mark %q", err, rep, w.restoring())
	}
	var names []string
	for _, s := range rep.Steps {
		names = append(names, s.Name)
	}
	order := strings.Join(names, " > ")
	documents, custom := strings.Index(order, StepDocuments), strings.Index(order, "workloads")
	if documents < 0 || custom >= 0 && custom < documents || !strings.Contains(order, "lease > claim epoch") || strings.Index(order, "ready") < documents {
		t.Errorf("steps %s", order)
	}
}

// TestAnOvertakenOrderIsRefused: the agent died before it claimed, and comes
// back after others took the application over and back.
func TestAnOvertakenOrderIsRefused(t *testing.T) {
	seen := int64(1)
	for _, c := range []struct {
		name string
		mode v1alpha1.RestoreMode
		seen *int64
		want error
	}{
		{"take-over", v1alpha1.RestoreTakeOver, &seen, ErrOvertaken},
		{"in place", v1alpha1.RestoreInPlace, &seen, ErrOvertaken},
		{"take-over that does not know what it saw", v1alpha1.RestoreTakeOver, nil, nil}, // the harm
		{"in place that does not know", v1alpha1.RestoreInPlace, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.claim("west", 1)
			w.capture("shop-1", "west", 1, instant, point.Crash)
			w.claimBy("east", "", 2, "shop-1")
			holder := "east"
			if c.mode == v1alpha1.RestoreInPlace {
				holder = "west"
			}
			w.claimBy(holder, "again", 3, "shop-1")
			w.deps.ClusterID = "again"
			_, err := Recover(t.Context(), Options{Application: "shop", Mode: c.mode, Attempt: "uid-1", SeenEpoch: c.seen}, w.deps)
			if !errors.Is(err, c.want) || c.want != nil && (!Refused(err) || w.epoch() != 3 || w.value("shop") != "") {
				t.Errorf("%v, epoch %d, value %q", err, w.epoch(), w.value("shop"))
			}
		})
	}
	t.Run("its own claim is no other's", func(t *testing.T) {
		w := newWorld(t)
		w.claim("east", 1)
		w.capture("shop-1", "east", 1, instant, point.Crash)
		order := Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver, Attempt: "uid-1", SeenEpoch: &seen}
		for range 2 {
			if _, err := Recover(t.Context(), order, w.deps); err != nil || w.epoch() != 2 {
				t.Fatalf("%v, epoch %d", err, w.epoch())
			}
		}
	})
}
