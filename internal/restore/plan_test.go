package restore

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// dryFake is a fake whose dry runs answer as its writes would.
type dryFake struct{ *fakeCluster }

func (d dryFake) DryRun() port.Cluster {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newFake()
	for k, u := range d.objects {
		c.objects[k] = u.DeepCopy()
	}
	c.version, c.fail, c.ready = d.version, d.fail, d.ready
	return c
}

// did reads from the history what became of each object.
func did(history []string) map[string]Action {
	all := map[string]Action{}
	for _, line := range history {
		words := strings.Fields(line)
		if words[1] == "Lease" {
			continue
		}
		object := strings.Join(words[1:min(len(words), 3)], " ")
		switch words[0] {
		case "create":
			if all[object] == report.Prune {
				all[object] = report.Replaced
			} else {
				all[object] = report.Create
			}
		case "apply", "update":
			all[object] = report.Updated
		case "delete":
			all[object] = report.Prune
		case "fill":
			if claim := "PersistentVolumeClaim " + words[1]; all[claim] == "" { // one that is made is filled as well
				all[claim] = report.RollBack
			}
		}
	}
	return all
}

// planned is the same of a plan: what would be written.
func planned(plan []Planned) map[string]Action {
	all := map[string]Action{}
	for _, p := range plan {
		kind, name, _ := strings.Cut(p.Object, " ")
		kind, _, _ = strings.Cut(kind, ".")
		if !strings.Contains(name, "/") {
			name = "/" + name
		}
		switch p.Action {
		case report.Create, report.Updated, report.Replaced, report.Prune, report.RollBack:
			all[kind+" "+name] = p.Action
		}
	}
	return all
}

// TestThePlanIsTheRestore: whatever there is and whatever is asked, a plan
// names what the restore then does, object by object, and writes nothing.
func TestThePlanIsTheRestore(t *testing.T) {
	captured := func(_ point.Resource, u *unstructured.Unstructured) bool { return u.GetName() == "stray" }
	changed := func(t *testing.T) *rig {
		r := lived(t)
		r.m.Scope = &point.Scope{Kinds: []string{"ConfigMap", "Secret", "PersistentVolumeClaim", "Deployment.apps"}}
		shape.Child(r.c.get("ConfigMap", "shop", "conf").Object, "data")["a"] = "other"
		shape.Child(r.c.get("Secret", "shop", "pw").Object, "data")["p"] = "aHVudGVyMg=="
		shape.Child(r.c.get("Deployment", "shop", "web").Object, "spec")["replicas"] = int64(7)
		delete(r.c.objects, key("Service", "shop", "db"))
		r.c.put("v1", "ConfigMap", "shop", "stray", nil)
		r.c.put("v1", "Pod", "shop", "db-0", shape.Document{
			"spec": shape.Document{"volumes": []any{shape.Document{"persistentVolumeClaim": shape.Document{"claimName": "data-db-0"}}}},
		}).SetUID("pod")
		return r
	}
	immutable := func(verb string, u *unstructured.Unstructured) error {
		if verb != "create" && u.GetKind() == "Deployment" {
			return apierrors.NewInvalid(schema.GroupKind{Group: "apps", Kind: "Deployment"}, u.GetName(), field.ErrorList{field.Invalid(field.NewPath("spec"), nil, "field is immutable")})
		}
		return nil
	}
	for _, c := range []struct {
		name string
		rig  func(*testing.T) *rig
		opts Options
		fail func(string, *unstructured.Unstructured) error
		want map[string]Action // some of it
	}{
		{"into nothing", func(*testing.T) *rig { return newRig() }, Options{}, nil, map[string]Action{"Till /main": "", "Deployment shop/web": report.Create}},
		{"skip", changed, Options{KeepClaims: true}, nil, map[string]Action{"Service shop/db": report.Create, "ConfigMap shop/conf": ""}},
		{"update", changed, Options{KeepClaims: true, Existing: Update}, nil, map[string]Action{"ConfigMap shop/conf": report.Updated, "Secret shop/pw": report.Updated}},
		{"update of what cannot change", changed, Options{KeepClaims: true, Existing: Update}, immutable, map[string]Action{"Deployment shop/web": ""}},
		{"replace but claims", changed, Options{KeepClaims: true, Existing: Replace, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Skip}}, nil, map[string]Action{"Deployment shop/web": report.Replaced}},
		{"exact but claims", changed, Options{KeepClaims: true, Existing: Exact, Captured: captured, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Skip}}, immutable, map[string]Action{"Deployment shop/web": report.Replaced, "ConfigMap shop/stray": report.Prune, "ConfigMap shop/conf": report.Updated}},
		{"roll back", changed, Options{KeepClaims: true, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Replace}}, nil, map[string]Action{"PersistentVolumeClaim shop/data-db-0": report.RollBack, "ConfigMap shop/conf": ""}},
		{"copy", changed, Options{NamespaceMapping: map[string]string{"shop": "copy"}}, nil, map[string]Action{"Deployment copy/web": report.Create, "Namespace /copy": report.Create}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.rig(t)
			if c.name != "into nothing" {
				delete(r.c.objects, key("Pod", "shop", "db-0"))
			}
			r.c.fail = c.fail
			c.opts.ID, c.opts.Holder = testID, "test"
			plan, err := New(r.m, c.opts, Deps{Source: r.s, Cluster: dryFake{r.c}, Volumes: r.v}).Plan(t.Context())
			if err != nil || len(r.c.history) > 0 || r.v.fills > 0 {
				t.Fatalf("plan: %v, wrote %v, filled %d", err, r.c.history, r.v.fills)
			}
			res := run(t, r, c.opts)
			got, done := planned(plan), did(r.c.history)
			for object := range done { // the API server makes it with the namespace
				if strings.HasPrefix(object, "ServiceAccount ") && strings.HasSuffix(object, "/default") {
					delete(done, object)
					delete(got, object)
				}
			}
			delete(got, "ServiceAccount shop/default")
			delete(got, "ServiceAccount copy/default")
			if diff := cmp.Diff(done, got); diff != "" {
				t.Errorf("the restore (-) is not the plan (+):\n%s", diff)
			}
			for object, action := range c.want {
				if got[object] != action {
					t.Errorf("%s: %q, want %q", object, got[object], action)
				}
			}
			var conflicts []string
			for _, p := range plan {
				if p.Action == report.Conflict {
					conflicts = append(conflicts, p.Object)
				}
			}
			var failed []string
			for _, f := range res.Failures {
				failed = append(failed, f.Object)
			}
			if !cmp.Equal(slices.Sorted(slices.Values(conflicts)), slices.Sorted(slices.Values(failed))) {
				t.Errorf("conflicts %v, failures %v", conflicts, failed)
			}
		})
	}
}

// A roll-back stops what uses the volume. In a plan nothing stops, and the
// pods that would end are not waited for; what a person started is in the way.
func TestPlanOfARollBack(t *testing.T) {
	r := lived(t)
	mounts := shape.Document{"volumes": []any{shape.Document{"persistentVolumeClaim": shape.Document{"claimName": "data-db-0"}}}}
	pod := r.c.put("v1", "Pod", "shop", "db-0", shape.Document{"spec": mounts})
	pod.Object["metadata"].(map[string]any)["ownerReferences"] = []any{shape.Document{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "x", "controller": true}}
	opts := Options{KeepClaims: true, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Replace}}
	actions := func() (Planned, Planned) {
		plan, err := r.engine(opts).Plan(t.Context())
		if err != nil || r.c.effects > 0 {
			t.Fatalf("%v, %d writes", err, r.c.effects)
		}
		at := map[string]Planned{}
		for _, p := range plan {
			at[p.Object] = p
		}
		return at["PersistentVolumeClaim shop/data-db-0"], at["StatefulSet.apps shop/db"]
	}
	if claim, set := actions(); claim.Action != report.RollBack || set.Action != report.Unchanged || set.Diff != "" {
		t.Errorf("claim %+v, StatefulSet %+v", claim, set)
	}
	r.c.put("v1", "Pod", "shop", "psql", shape.Document{"spec": mounts})
	if claim, _ := actions(); claim.Action != report.Conflict || !strings.Contains(claim.Reason, "psql") {
		t.Errorf("claim %+v", claim)
	}
}

// TestDiff: what an update makes of an object is what the target says, and no
// Secret is shown.
func TestDiff(t *testing.T) {
	r := lived(t)
	shape.Child(r.c.get("ConfigMap", "shop", "conf").Object, "data")["a"] = "mine"
	secret := r.c.get("Secret", "shop", "pw")
	secret.Object["data"] = shape.Document{"p": "aHVudGVyMg==", "extra": "c2Vzc2lvbg=="}
	secret.SetAnnotations(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "aHVudGVyMg=="})
	opts := Options{KeepClaims: true, Existing: Exact, Captured: func(point.Resource, *unstructured.Unstructured) bool { return false }, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Skip}, ID: testID, Holder: "test"}
	plan, err := New(r.m, opts, Deps{Source: r.s, Cluster: dryFake{r.c}, Volumes: r.v}).Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	diffs := map[string]string{}
	for _, p := range plan {
		if p.Diff != "" {
			diffs[p.Object] = p.Diff
		}
	}
	if keys := slices.Sorted(maps.Keys(diffs)); !cmp.Equal(keys, []string{"ConfigMap shop/conf", "Secret shop/pw"}) {
		t.Fatalf("differ: %v", diffs)
	}
	if d := diffs["ConfigMap shop/conf"]; !strings.Contains(d, "-  a: mine\n+  a: b\n") || !strings.Contains(d, "--- here\n+++ restored\n") {
		t.Errorf("%s", d)
	}
	d := diffs["Secret shop/pw"]
	if !strings.Contains(d, "+  p: (hidden, differs)") || !strings.Contains(d, "-  extra: (hidden)") {
		t.Errorf("%s", d)
	}
	for _, secret := range []string{"aHVudGVyMg", "eA==", "c2Vzc2lvbg", "hunter"} {
		if strings.Contains(d, secret) {
			t.Errorf("shows %s:\n%s", secret, d)
		}
	}
}

// What takes no part in dry runs is no conflict: the plan says what would be
// tried.
func TestPlanBesideAWebhookWithoutDryRuns(t *testing.T) {
	for _, policy := range []Existing{Update, Exact} {
		r := lived(t)
		shape.Child(r.c.get("ConfigMap", "shop", "conf").Object, "data")["a"] = "mine"
		r.c.fail = func(string, *unstructured.Unstructured) error {
			return apierrors.NewBadRequest("admission webhook \"h.example\" does not support dry run")
		}
		opts := Options{KeepClaims: true, ExistingKinds: map[string]Existing{"configmaps": policy}, Captured: func(point.Resource, *unstructured.Unstructured) bool { return false }, ID: testID, Holder: "test"}
		r.m.Scope = &point.Scope{Kinds: []string{"ConfigMap"}}
		plan, err := New(r.m, opts, Deps{Source: r.s, Cluster: dryFake{r.c}, Volumes: r.v}).Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(plan, func(p Planned) bool { return p.Object == "ConfigMap shop/conf" })
		if p := plan[i]; p.Action != report.Updated || !strings.Contains(p.Diff, "+  a: b") {
			t.Errorf("%s: %+v", policy, p)
		}
		r.c.fail = func(string, *unstructured.Unstructured) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "conf", nil)
		}
		if plan, err = New(r.m, opts, Deps{Source: r.s, Cluster: dryFake{r.c}, Volumes: r.v}).Plan(t.Context()); err != nil || plan[i].Action != report.Conflict {
			t.Errorf("%s: the control: %v %+v", policy, err, plan[i])
		}
	}
}
