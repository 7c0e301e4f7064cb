package restore

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/shape"
)

// beside fills volumes as usual, after what is done meanwhile.
type beside struct {
	Volumes
	meanwhile func(ctx context.Context) error
}

func (b beside) Fill(ctx context.Context, req FillRequest) ([]string, error) {
	if err := b.meanwhile(ctx); err != nil {
		return nil, err
	}
	return b.Volumes.Fill(ctx, req)
}

var rollsBack = Options{KeepClaims: true, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Replace}}

// halfFilled is the shop whose volume a restore was filling when it died.
func halfFilled(t *testing.T) *rig {
	t.Helper()
	r := lived(t)
	died := errors.New("died")
	e := New(r.m, Options{ID: testID, Holder: "test", KeepClaims: true, ExistingKinds: rollsBack.ExistingKinds}, Deps{
		Source: r.s, Cluster: r.c, Volumes: beside{r.v, func(context.Context) error { return died }},
	})
	synctest.Test(t, func(t *testing.T) {
		res, err := e.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantFailure(t, res, "died")
	})
	r.v.data["shop/data-db-0"] = "half"
	if n := replicas(t, r, "StatefulSet", "db"); n != 0 {
		t.Fatalf("%d replicas beside a volume that is half filled", n)
	}
	return r
}

// TestNothingStartsOnAHalfFilledVolume: whatever else is restored after a restore died
// in the middle, nothing runs on what it had filled in part, be it that the other leaves
// volumes out. Given again, it fills the volume and all runs.
func TestNothingStartsOnAHalfFilledVolume(t *testing.T) {
	for name, opts := range map[string]Options{
		"without volumes":            {KeepClaims: true, ExcludeKinds: []string{"persistentvolumeclaims"}},
		"one kind":                   {KeepClaims: true, IncludeKinds: []string{"configmaps"}},
		"another restore":            {ID: "rother", KeepClaims: true, ExcludeKinds: []string{"persistentvolumeclaims"}},
		"workloads are made so":      {KeepClaims: true, Existing: Update, ExcludeKinds: []string{"persistentvolumeclaims"}},
		"workloads are made anew so": {KeepClaims: true, Existing: Replace, ExcludeKinds: []string{"persistentvolumeclaims"}},
		"and are gone":               {KeepClaims: true, ExcludeKinds: []string{"persistentvolumeclaims"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := halfFilled(t)
			if opts.Existing != "" { // the workload was changed, too
				r.c.objects[key("StatefulSet", "shop", "db")].SetLabels(map[string]string{"changed": "since"})
			}
			if name == "and are gone" {
				delete(r.c.objects, key("StatefulSet", "shop", "db"))
			}
			res := run(t, r, opts)
			if db := r.c.get("StatefulSet", "shop", "db"); db != nil && replicas(t, r, "StatefulSet", "db") != 0 {
				t.Errorf("it runs on a volume that is half filled: %s\n%v", warnings(res), r.c.history)
			}
			if !strings.Contains(warnings(res), "data-db-0") && len(res.Failures) == 0 {
				t.Errorf("nothing is said of it: %s", warnings(res))
			}
			if res := run(t, r, rollsBack); len(res.Failures) > 0 || replicas(t, r, "StatefulSet", "db") != 1 || r.v.data["shop/data-db-0"] != "snap-data-db-0" {
				t.Errorf("given again: %v, data %q", res.Failures, r.v.data["shop/data-db-0"])
			}
		})
	}
}

// TestRestoreBesideOneThatFills: a restore of another application in the same namespace
// ends while a volume is being filled, and starts nothing on it. What the first one had
// not stopped it does start: the negative control.
func TestRestoreBesideOneThatFills(t *testing.T) {
	r := lived(t)
	web := r.c.objects[key("Deployment", "shop", "web")]
	web.SetAnnotations(map[string]string{shape.AnnotationBefore: `{"replicas":2}`})
	shape.Child(web.Object, "spec")["replicas"] = int64(0)
	other, s := pointOf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"news","namespace":"shop","uid":"u-news"}}`)
	other.Application = "news"
	var during int64
	e := New(r.m, Options{ID: testID, Holder: "test", KeepClaims: true, ExistingKinds: rollsBack.ExistingKinds}, Deps{
		Source: r.s, Cluster: r.c,
		Volumes: beside{r.v, func(ctx context.Context) error {
			_, err := New(other, Options{ID: "rnews", Holder: "test", KeepClaims: true}, Deps{Source: s, Cluster: r.c}).Run(ctx)
			during = replicas(t, r, "Deployment", "web")
			return err
		}},
	})
	synctest.Test(t, func(t *testing.T) {
		if res, err := e.Run(t.Context()); err != nil || len(res.Failures) > 0 {
			t.Errorf("%v: %v", err, res.Failures)
		}
	})
	if during != 2 {
		t.Errorf("what was at rest, and mounts nothing, has %d replicas", during)
	}
	if n := replicas(t, r, "StatefulSet", "db"); n != 1 {
		t.Errorf("%d replicas in the end", n)
	}
}

// TestClaimThatIsDeletedWhileItIsFilled: the data went into a claim that goes, or went. What
// is in its place, as a StatefulSet makes, is empty: nothing calls that whole, or runs on it.
func TestClaimThatIsDeletedWhileItIsFilled(t *testing.T) {
	for name, happen := range map[string]func(r *rig, claim *unstructured.Unstructured){
		"nothing": func(*rig, *unstructured.Unstructured) {},
		"goes": func(_ *rig, claim *unstructured.Unstructured) {
			claim.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1, 0)})
		},
		"another": func(r *rig, claim *unstructured.Unstructured) {
			anew := claim.DeepCopy()
			anew.SetUID("another")
			anew.SetLabels(nil)
			r.c.store(anew)
		},
	} {
		for _, opts := range []Options{{}, rollsBack} {
			r := newRig()
			if opts.ExistingKinds != nil {
				r = lived(t)
			}
			r.v.during = func() { happen(r, r.c.objects[key("PersistentVolumeClaim", "shop", "data-db-0")]) }
			res := run(t, r, opts)
			if failed := len(res.Failures) > 0; failed != (name != "nothing") {
				t.Errorf("%s: failures %v", name, res.Failures)
			}
			db := r.c.get("StatefulSet", "shop", "db")
			if runs := db != nil && replicas(t, r, "StatefulSet", "db") > 0; runs != (name == "nothing") {
				t.Errorf("%s: it runs: %t", name, runs)
			}
		}
	}
}

// TestRollBackInANamespaceThatTheRestoreMade: given again to roll a volume back, a restore starts
// what it stopped, also in a namespace that it made itself the first time.
func TestRollBackInANamespaceThatTheRestoreMade(t *testing.T) {
	for name, without := range map[string][]string{"of the point": nil, "for what is in it": {"namespaces"}} {
		r := newRig()
		synctest.Test(t, func(t *testing.T) {
			for range 2 {
				time.Sleep(time.Second) // virtual time
				opts := Options{ID: testID, Holder: "test", KeepClaims: true, ExistingKinds: rollsBack.ExistingKinds, ExcludeKinds: without}
				r.v.data["shop/data-db-0"] = "written since"
				res, err := New(r.m, opts, Deps{Source: r.s, Cluster: r.c, Volumes: r.v}).Run(t.Context())
				if err != nil || len(res.Failures) > 0 || r.v.data["shop/data-db-0"] != "snap-data-db-0" {
					t.Fatalf("%s: %v, %v, data %q", name, err, res.Failures, r.v.data["shop/data-db-0"])
				}
				if n := replicas(t, r, "StatefulSet", "db"); n != 1 {
					t.Errorf("namespace %s: %d replicas", name, n)
				}
			}
		})
	}
}

// TestWhatOthersHaveFilledByNow: a volume that another restore was filling when this one
// began, and filled before this one came to its workloads, holds none of them back.
func TestWhatOthersHaveFilledByNow(t *testing.T) {
	for _, through := range []bool{false, true} {
		r := halfFilled(t)
		delete(r.c.objects, key("StatefulSet", "shop", "db"))
		claim := r.c.objects[key("PersistentVolumeClaim", "shop", "data-db-0")]
		activate := func(context.Context) error {
			if through {
				claim.SetAnnotations(map[string]string{shape.AnnotationFilledFrom: "another"})
			}
			return nil
		}
		res := run(t, r, Options{ID: "rother", KeepClaims: true, ExcludeKinds: []string{"persistentvolumeclaims"}, Activate: activate})
		if made := r.c.get("StatefulSet", "shop", "db") != nil; made != through || (len(res.Failures) > 0) == through {
			t.Errorf("through %t: made %t, %v", through, made, res.Failures)
		}
	}
}

// TestHalfFilledBeyondTheReplicas: a claim of a StatefulSet that has fewer replicas now, which a restore
// was filling when it died, holds the set back: it may have more at any time. What is said names that
// restore, and what to do; with the claim gone the set is made.
func TestHalfFilledBeyondTheReplicas(t *testing.T) {
	r := newRig()
	r.c.put("v1", "Namespace", "", "shop", nil)
	r.c.put("v1", "PersistentVolumeClaim", "shop", "data-db-2", nil).SetLabels(map[string]string{shape.LabelRestore: "rdead"})
	wantFailure(t, run(t, r, Options{}), "or would with more replicas, claim data-db-2, which restore rdead has not filled: restore again when that is through; if it died, give it again, or delete the claim")
	delete(r.c.objects, key("PersistentVolumeClaim", "shop", "data-db-2"))
	if res := run(t, r, Options{}); len(res.Failures) > 0 || r.c.get("StatefulSet", "shop", "db") == nil {
		t.Error(res.Failures)
	}
}

// startsBefore is a target at which another restore, which saw no mark yet, starts the set again
// right before the claim is marked.
type startsBefore struct {
	*fakeCluster
	did *bool
}

func (c startsBefore) Patch(ctx context.Context, at Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	if at.GVK.Kind == "PersistentVolumeClaim" && !*c.did {
		*c.did = true
		c.mu.Lock()
		db := c.objects[key("StatefulSet", "shop", "db")].DeepCopy()
		shape.Child(db.Object, "spec")["replicas"] = int64(1)
		db.SetAnnotations(nil)
		c.store(db)
		c.mu.Unlock()
	}
	return c.fakeCluster.Patch(ctx, at, namespace, name, patch)
}

// TestRollBackLooksAgainOnceItsMarkIsSeen: what others started in between is stopped before the
// volume is filled, and runs in the end.
func TestRollBackLooksAgainOnceItsMarkIsSeen(t *testing.T) {
	r := lived(t)
	var during int64
	did := false
	e := New(r.m, Options{ID: testID, Holder: "test", KeepClaims: true, ExistingKinds: rollsBack.ExistingKinds}, Deps{
		Source: r.s, Cluster: startsBefore{r.c, &did},
		Volumes: beside{r.v, func(context.Context) error { during = replicas(t, r, "StatefulSet", "db"); return nil }},
	})
	synctest.Test(t, func(t *testing.T) {
		if res, err := e.Run(t.Context()); err != nil || len(res.Failures) > 0 {
			t.Errorf("%v: %v", err, res.Failures)
		}
	})
	if n := replicas(t, r, "StatefulSet", "db"); !did || during != 0 || n != 1 {
		t.Errorf("%d replicas while it is filled, %d in the end", during, n)
	}
}
