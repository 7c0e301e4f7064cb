package restore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// lived is the shop as it runs before a restore in place: restored once, whole,
// and used since.
func lived(t *testing.T) *rig {
	t.Helper()
	r := newRig()
	run(t, r, Options{ID: "rbefore"})
	for _, u := range r.c.objects {
		labels := u.GetLabels()
		delete(labels, shape.LabelRestore)
		u.SetLabels(labels)
	}
	claim := r.c.objects[key("PersistentVolumeClaim", "shop", "data-db-0")]
	claim.SetAnnotations(nil)
	claim.Object["status"] = shape.Document{"phase": "Bound", "capacity": shape.Document{"storage": "1Gi"}}
	r.v.data["shop/data-db-0"] = "written since"
	r.v.fills = 0
	r.c.history, r.c.effects = nil, 0
	return r
}

func warnings(res Result) string {
	var all []string
	for _, w := range res.Warnings {
		all = append(all, w.String())
	}
	return strings.Join(all, "\n")
}

func replicas(t *testing.T, r *rig, kind, name string) int64 {
	t.Helper()
	n, _ := shape.Number(r.c.get(kind, "shop", name).Object, "spec", "replicas")
	return n
}

func TestOneLostObjectComesBackBesideAnIntactClaim(t *testing.T) {
	r := lived(t)
	delete(r.c.objects, key("ConfigMap", "shop", "conf"))
	opts := Options{KeepClaims: true}
	found, err := r.engine(opts).Preflight(t.Context())
	if err != nil || len(Blocking(found)) > 0 {
		t.Fatalf("preflight: %v %v", found, err)
	}
	res := run(t, r, opts)
	if len(res.Failures) > 0 || r.c.get("ConfigMap", "shop", "conf") == nil || res.Created != 1 {
		t.Errorf("failures %v, %d created", res.Failures, res.Created)
	}
	if r.v.data["shop/data-db-0"] != "written since" || r.v.fills > 0 {
		t.Errorf("the claim's data became %q", r.v.data["shop/data-db-0"])
	}
	if !strings.Contains(warnings(res), "shop/data-db-0: exists already: it and its data were left alone") {
		t.Errorf("warnings:\n%s", warnings(res))
	}
	if replicas(t, r, "StatefulSet", "db") != 1 {
		t.Error("the workload of a claim that is left alone was stopped")
	}
}

// Where the data could be taken for the point's, an existing claim is in the
// way as before, unless its kind has a policy.
func TestClaimInTheWay(t *testing.T) {
	r := lived(t)
	found, err := r.engine(Options{}).Preflight(t.Context())
	if err != nil || len(Blocking(found)) != 1 || !strings.Contains(found[len(found)-1].String()+Blocking(found)[0].String(), "never overwritten unasked") {
		t.Errorf("preflight: %v %v", found, err)
	}
	found, err = r.engine(Options{ExistingKinds: map[string]Existing{"PersistentVolumeClaim": Skip}}).Preflight(t.Context())
	if err != nil || len(Blocking(found)) > 0 {
		t.Errorf("preflight with a policy: %v %v", found, err)
	}
}

// A claim that a restore was filling when it died is not intact.
func TestHalfFilledClaimIsNotKept(t *testing.T) {
	r := lived(t)
	claim := r.c.objects[key("PersistentVolumeClaim", "shop", "data-db-0")]
	claim.SetLabels(map[string]string{shape.LabelRestore: "rdead"})
	found, err := r.engine(Options{KeepClaims: true}).Preflight(t.Context())
	if err != nil || len(Blocking(found)) != 1 || !strings.Contains(Blocking(found)[0].String(), "rdead was filling it") {
		t.Errorf("preflight: %v %v", found, err)
	}
}

// A claim that is there, and of which the point has no data, does not start empty.
func TestClaimWithoutDataInThePoint(t *testing.T) {
	for _, there := range []bool{true, false} {
		r := lived(t)
		r.m.Volumes = nil
		if !there {
			delete(r.c.objects, key("PersistentVolumeClaim", "shop", "data-db-0"))
		}
		for range 2 { // given again, it says the same
			res := run(t, r, Options{KeepClaims: true})
			if len(res.Failures) > 0 || strings.Contains(warnings(res), "it starts empty") == there || !strings.Contains(warnings(res), "holds no data for it") {
				t.Errorf("there %t: %v\n%s", there, res.Failures, warnings(res))
			}
		}
	}
}

func TestRollBack(t *testing.T) {
	r := lived(t)
	r.c.objects[key("StatefulSet", "shop", "db")].Object["spec"].(map[string]any)["replicas"] = int64(3)
	res := run(t, r, Options{KeepClaims: true, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Replace}})
	if len(res.Failures) > 0 {
		t.Fatal(res.Failures)
	}
	if got := r.v.data["shop/data-db-0"]; got != "snap-data-db-0" {
		t.Errorf("data %q", got)
	}
	db := r.c.get("StatefulSet", "shop", "db")
	if replicas(t, r, "StatefulSet", "db") != 3 || db.GetAnnotations()[shape.AnnotationBefore] != "" {
		t.Errorf("the workload is left as %v", db.Object)
	}
	stop, fill, start := slices.Index(r.c.history, "patch StatefulSet shop/db"), r.c.order("fill shop/data-db-0"), -1
	for i, what := range r.c.history {
		if what == "patch StatefulSet shop/db" {
			start = i
		}
	}
	if stop < 0 || stop > fill || start < fill {
		t.Errorf("stopped at %d, filled at %d, started at %d: %v", stop, fill, start, r.c.history)
	}
	if !strings.Contains(warnings(res), "differs in spec.replicas") || strings.Contains(warnings(res), shape.AnnotationBefore) {
		t.Errorf("the difference is not told as it was before the workload was stopped:\n%s", warnings(res))
	}
}

// The same order, given again after it ended whole, rolls back again: what was
// written in between must not be taken for the point's.
func TestRollBackAgain(t *testing.T) {
	r := lived(t)
	opts := Options{KeepClaims: true, Existing: Replace}
	synctest.Test(t, func(t *testing.T) {
		for range 2 {
			time.Sleep(time.Second) // virtual time
			r.v.data["shop/data-db-0"] = "written since"
			r.v.fills = 0
			if res, err := r.engine(opts).Run(t.Context()); err != nil || len(res.Failures) > 0 {
				t.Fatal(err, res.Failures)
			}
			if r.v.fills != 1 || r.v.data["shop/data-db-0"] != "snap-data-db-0" {
				t.Fatalf("%d fills, data %q", r.v.fills, r.v.data["shop/data-db-0"])
			}
		}
	})
}

// Killed before any write, with its answer given or lost, and given again: the
// data is the point's and the workload runs as before.
func TestRollBackKilledAtEveryWrite(t *testing.T) {
	opts := Options{KeepClaims: true, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Replace}}
	whole := lived(t)
	run(t, whole, opts)
	for _, after := range []bool{false, true} {
		for n := 1; n <= whole.c.effects; n++ {
			r := lived(t)
			killed(t, r, opts, n, after)
			if r.v.data["shop/data-db-0"] != "snap-data-db-0" {
				t.Errorf("killed at write %d (after %t): data %q", n, after, r.v.data["shop/data-db-0"])
			}
			db := r.c.get("StatefulSet", "shop", "db")
			if replicas(t, r, "StatefulSet", "db") != 1 || db.GetAnnotations()[shape.AnnotationBefore] != "" {
				t.Errorf("killed at write %d (after %t): workload left as %v", n, after, db.Object["spec"])
			}
		}
	}
}

// killed runs until the n-th write, dies, and runs again.
func killed(t *testing.T, r *rig, opts Options, n int, after bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r.c.killAt, r.c.after, r.c.onKill = n, after, cancel
		_, _ = r.engine(opts).Run(ctx)
		r.c.killAt = 0
		if res, err := r.engine(opts).Run(t.Context()); err != nil || len(res.Failures) > 0 {
			t.Errorf("killed at write %d (after %t): %v %v", n, after, err, res.Failures)
		}
	})
}

// What starts while the volume is being filled makes the data worth nothing.
func TestUserThatComesBackWhileFilling(t *testing.T) {
	r := lived(t)
	r.v.during = func() {
		db := r.c.objects[key("StatefulSet", "shop", "db")]
		db.Object["spec"].(map[string]any)["replicas"] = int64(1)
	}
	res := run(t, r, Options{KeepClaims: true, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Replace}})
	wantFailure(t, res, "its data may be mixed")
	if from := r.c.get("PersistentVolumeClaim", "shop", "data-db-0").GetAnnotations()[shape.AnnotationFilledFrom]; from != "" {
		t.Error("the claim is marked as whole")
	}
}

// A StatefulSet that deletes the claims of pods it scales away keeps them.
func TestRollBackKeepsClaimsOfScaledPods(t *testing.T) {
	r := lived(t)
	spec := r.c.objects[key("StatefulSet", "shop", "db")].Object["spec"].(map[string]any)
	spec["persistentVolumeClaimRetentionPolicy"] = shape.Document{"whenScaled": "Delete"}
	var whileStopped string
	r.v.during = func() {
		whileStopped = shape.Text(r.c.objects[key("StatefulSet", "shop", "db")].Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled")
	}
	run(t, r, Options{KeepClaims: true, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Replace}})
	now := shape.Text(r.c.get("StatefulSet", "shop", "db").Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled")
	if whileStopped != "Retain" || now != "Delete" {
		t.Errorf("while stopped %q, afterwards %q", whileStopped, now)
	}
}

// The claims of pods that the point has not are not deleted by scaling them away.
func TestFewerReplicasKeepClaims(t *testing.T) {
	for _, policy := range []Existing{Update, Replace, Exact} {
		for _, test := range []struct {
			replicas, pods int64
			want           string
		}{
			{1, 1, "Delete"},
			{3, 3, "Retain"},
			{1, 3, "Retain"}, // scaled down a moment ago: pods still end
		} {
			replicas, want := test.replicas, test.want
			r := lived(t)
			shape.Merge(r.c.objects[key("StatefulSet", "shop", "db")].Object, shape.Document{
				"metadata": shape.Document{"labels": shape.Document{"changed": "since"}},
				"spec":     shape.Document{"replicas": replicas, "persistentVolumeClaimRetentionPolicy": shape.Document{"whenScaled": "Delete"}},
				"status":   shape.Document{"replicas": test.pods},
			})
			r.s.raw["apps/StatefulSet"][0] = strings.Replace(r.s.raw["apps/StatefulSet"][0], `"replicas":1`, `"replicas":1,"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete"}`, 1)
			res := run(t, r, Options{KeepClaims: true, ExistingKinds: map[string]Existing{"statefulsets.apps": policy}})
			now := shape.Text(r.c.get("StatefulSet", "shop", "db").Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled")
			if now != want || strings.Contains(warnings(res), "keeps the claims") != (want == "Retain") || len(res.Failures) > 0 {
				t.Errorf("%s of %d replicas and %d pods: whenScaled is %q: %s %v", policy, replicas, test.pods, now, warnings(res), res.Failures)
			}
		}
	}
}

// Pods of a StatefulSet whose volumes the point lacks stand still with the one
// that is restored, which is said.
func TestRollBackTellsOfPodsBeside(t *testing.T) {
	for replicas, says := range map[int64]string{1: "", 3: "db-1, db-2 as well while claim data-db-0 is filled"} {
		r := lived(t)
		r.c.objects[key("StatefulSet", "shop", "db")].Object["spec"].(map[string]any)["replicas"] = replicas
		res := run(t, r, Options{KeepClaims: true, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Replace}})
		var got string
		for _, w := range res.Warnings {
			if strings.Contains(w.Message, "stands still with") {
				got += w.Object + " " + w.Message
			}
		}
		if (got == "") != (says == "") || !strings.Contains(got, says) {
			t.Errorf("with %d replicas: %q, want it to say %q", replicas, got, says)
		}
	}
}

func TestPolicies(t *testing.T) {
	immutable := func(verb string, u *unstructured.Unstructured) error {
		if u.GetKind() == "ConfigMap" && (verb == "apply" || verb == "update") {
			return apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, "conf", field.ErrorList{field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set")})
		}
		return nil
	}
	for _, c := range []struct {
		name  string
		opts  Options
		fail  func(string, *unstructured.Unstructured) error
		data  string // afterwards
		wrote string // to the ConfigMap
		says  string // in a failure
	}{
		{name: "skip", opts: Options{Existing: Skip}, data: "mine"},
		{name: "update", opts: Options{Existing: Update}, data: "b", wrote: "apply"},
		{name: "update of what cannot change", opts: Options{Existing: Update}, fail: immutable, data: "mine", says: "--existing-kind configmaps=replace"},
		{name: "replace", opts: Options{Existing: Replace}, data: "b", wrote: "delete create"},
		{name: "exact", opts: Options{Existing: Exact}, data: "b", wrote: "update"},
		{name: "exact of what cannot change", opts: Options{Existing: Exact}, fail: immutable, data: "b", wrote: "delete create"},
		{name: "by kind", opts: Options{Existing: Skip, ExistingKinds: map[string]Existing{"ConfigMap": Update}}, data: "b", wrote: "apply"},
		{name: "by pattern", opts: Options{Existing: Update, ExistingKinds: map[string]Existing{"config*": Skip}}, data: "mine"},
		{name: "the name wins over the pattern", opts: Options{ExistingKinds: map[string]Existing{"*": Skip, "configmaps": Update}}, data: "b", wrote: "apply"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := lived(t)
			c.opts.KeepClaims, c.opts.Captured = true, func(point.Resource, *unstructured.Unstructured) bool { return true }
			r.m.Scope = &point.Scope{Kinds: []string{"ConfigMap"}}
			r.c.objects[key("ConfigMap", "shop", "conf")].Object["data"] = shape.Document{"a": "mine"}
			r.c.fail = c.fail
			res := run(t, r, c.opts)
			if got := shape.Text(r.c.get("ConfigMap", "shop", "conf").Object, "data", "a"); got != c.data {
				t.Errorf("data %q, want %q", got, c.data)
			}
			var wrote []string
			for _, what := range r.c.history {
				if verb, ok := strings.CutSuffix(strings.TrimSpace(what), " ConfigMap shop/conf"); ok {
					wrote = append(wrote, verb)
				}
			}
			if c.says == "" && strings.Join(wrote, " ") != c.wrote {
				t.Errorf("wrote %v, want %q", wrote, c.wrote)
			}
			if c.says != "" {
				wantFailure(t, res, c.says)
			} else if len(res.Failures) > 0 {
				t.Errorf("failures %v", res.Failures)
			}
		})
	}
}

// A replacement that is refused leaves what was there.
func TestRefusedReplacementIsPutBack(t *testing.T) {
	r := lived(t)
	r.c.objects[key("ConfigMap", "shop", "conf")].Object["data"] = shape.Document{"a": "mine"}
	r.c.fail = func(verb string, u *unstructured.Unstructured) error {
		if verb == "create" && u.GetName() == "conf" && shape.Text(u.Object, "data", "a") == "b" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "conf", nil)
		}
		return nil
	}
	res := run(t, r, Options{KeepClaims: true, ExistingKinds: map[string]Existing{"configmaps": Replace}})
	wantFailure(t, res, "what was there was put back")
	if got := shape.Text(r.c.get("ConfigMap", "shop", "conf").Object, "data", "a"); got != "mine" {
		t.Errorf("data %q", got)
	}
}

// TestReplacementWhoseAnswerIsLost: what was made anew is there, though nobody heard so.
func TestReplacementWhoseAnswerIsLost(t *testing.T) {
	r := lived(t)
	r.c.objects[key("ConfigMap", "shop", "conf")].Object["data"] = shape.Document{"a": "mine"}
	synctest.Test(t, func(t *testing.T) {
		e := r.lossy(Options{KeepClaims: true, ExistingKinds: map[string]Existing{"configmaps": Replace}}, once("create", "ConfigMap"))
		res, err := e.Run(t.Context())
		if err != nil || len(res.Failures) > 0 || res.Replaced != 1 {
			t.Errorf("%d replaced, %v: %v", res.Replaced, err, res.Failures)
		}
	})
	if got := shape.Text(r.c.get("ConfigMap", "shop", "conf").Object, "data", "a"); got != "b" {
		t.Errorf("data %q", got)
	}
}

// A quota counts what was just deleted for longer, up to the five minutes after
// which its controller counts everything anew: the object that takes its place
// is refused until then, and must not be lost for that.
func TestReplacementUnderATightQuota(t *testing.T) {
	r := lived(t)
	r.c.objects[key("ConfigMap", "shop", "conf")].Object["data"] = shape.Document{"a": "mine"}
	refused := 0
	var since time.Time
	r.c.fail = func(verb string, u *unstructured.Unstructured) error {
		if verb == "create" && u.GetName() == "conf" && (since.IsZero() || time.Since(since) < 5*time.Minute+30*time.Second) {
			if refused++; since.IsZero() {
				since = time.Now() // in the bubble
			}
			return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "conf", errors.New("exceeded quota: tight"))
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		res, err := r.engine(Options{KeepClaims: true, ExistingKinds: map[string]Existing{"configmaps": Replace}}).Run(t.Context())
		if err != nil || len(res.Failures) > 0 || res.Replaced != 1 {
			t.Errorf("%v: %v", err, res.Failures)
		}
	})
	if got := shape.Text(r.c.get("ConfigMap", "shop", "conf").Object, "data", "a"); got != "b" || refused < 3 || refused > 100 {
		t.Errorf("data %q after %d refusals", got, refused)
	}
}

// Namespaces and definitions are never deleted, whatever the policy: all that
// is in them would go. Nor are custom resources, unless their kind is named.
func TestReplaceSparesWhatHoldsOthers(t *testing.T) {
	r := lived(t)
	r.c.objects[key("Namespace", "", "shop")].SetAnnotations(map[string]string{"x": "y"})
	r.c.objects[key("CustomResourceDefinition", "", "tills.shop.example.com")].SetAnnotations(map[string]string{"x": "y"})
	r.c.objects[key("Till", "shop", "main")].SetAnnotations(map[string]string{"x": "y"})
	run(t, r, Options{KeepClaims: true, Existing: Replace, ExistingKinds: map[string]Existing{"namespaces": Replace, "customresourcedefinitions*": Replace}})
	for _, what := range r.c.history {
		if strings.HasPrefix(what, "delete Namespace") || strings.HasPrefix(what, "delete Custom") || strings.HasPrefix(what, "delete Till") {
			t.Error(what)
		}
	}
	if !slices.Contains(r.c.history, "update Till shop/main ") {
		t.Errorf("the custom resource was not overwritten: %v", r.c.history)
	}
}

func TestExactPrunesOnlyItsOwn(t *testing.T) {
	scope := &point.Scope{Kinds: []string{"ConfigMap", "PersistentVolumeClaim", "Secret"}}
	captured := func(_ point.Resource, u *unstructured.Unstructured) bool {
		return u.GetLabels()["davit.dev/exclude"] != "true"
	}
	strayed := func(t *testing.T) *rig {
		r := lived(t)
		r.m.Scope = scope
		put := func(kind, namespace, name string, meta shape.Document) {
			u := r.c.put("v1", kind, namespace, name, nil)
			shape.Merge(u.Object, shape.Document{"metadata": meta})
		}
		put("ConfigMap", "shop", "stray", nil)
		put("ConfigMap", "bank", "other", nil) // another application's namespace
		put("ConfigMap", "shop", "kube-root-ca.crt", nil)
		put("ConfigMap", "shop", "excluded", shape.Document{"labels": shape.Document{"davit.dev/exclude": "true"}})
		put("ConfigMap", "shop", "owned", shape.Document{"ownerReferences": []any{shape.Document{"uid": "u", "kind": "Till", "name": "main"}}})
		put("ConfigMap", "shop", "helper", shape.Document{"labels": shape.Document{shape.LabelManagedBy: "davit"}})
		put("Service", "shop", "unseen", nil) // of a kind that was not looked at
		put("PersistentVolumeClaim", "shop", "extra", nil)
		return r
	}
	opts := Options{KeepClaims: true, Existing: Exact, Captured: captured, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Skip}}

	r := strayed(t)
	plan, err := r.engine(opts).Plan(t.Context())
	if err != nil || r.c.effects > 0 {
		t.Fatalf("plan: %v, %d writes", err, r.c.effects)
	}
	var planned []string
	for _, p := range plan {
		if p.Action == report.Prune {
			planned = append(planned, p.Object)
		}
	}
	if got := strings.Join(planned, ","); got != "ConfigMap shop/stray" {
		t.Errorf("the plan prunes %s", got)
	}
	res := run(t, r, opts)
	if len(res.Failures) > 0 || res.Pruned != 1 || r.c.get("ConfigMap", "shop", "stray") != nil {
		t.Errorf("%d pruned, failures %v", res.Pruned, res.Failures)
	}
	for _, kept := range []string{"ConfigMap|bank/other", "ConfigMap|shop/kube-root-ca.crt", "ConfigMap|shop/excluded", "ConfigMap|shop/owned", "ConfigMap|shop/helper", "Service|shop/unseen", "PersistentVolumeClaim|shop/extra"} {
		if r.c.objects[kept] == nil {
			t.Errorf("%s was deleted", kept)
		}
	}

	r = strayed(t) // claims go only when their kind is named
	opts.ExistingKinds = nil
	if res := run(t, r, opts); r.c.get("PersistentVolumeClaim", "shop", "extra") == nil || !strings.Contains(warnings(res), "left alone because it holds data") {
		t.Errorf("the stray claim: %s", warnings(res))
	}
	opts.ExistingKinds = map[string]Existing{"persistentvolumeclaims": Exact}
	if run(t, r, opts); r.c.get("PersistentVolumeClaim", "shop", "extra") != nil {
		t.Error("the stray claim was kept although its kind is named")
	}

	r = strayed(t) // nothing is pruned beside a failure
	r.c.fail = func(verb string, u *unstructured.Unstructured) error {
		if verb == "create" && u.GetName() == "conf" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "conf", nil)
		}
		return nil
	}
	delete(r.c.objects, key("ConfigMap", "shop", "conf"))
	if res := run(t, r, opts); r.c.get("ConfigMap", "shop", "stray") == nil || !strings.Contains(warnings(res), "nothing was pruned") {
		t.Errorf("pruned beside failures %v: %s", res.Failures, warnings(res))
	}
}

// TestAKindThatGoesKeepsNothingFromBeingPruned: somebody removes a CRD of the cluster between the
// question what it serves and the list, and no object of that kind is left to look for. Where the point
// holds some, what was restored of it is gone, too, and the restore is not whole.
func TestAKindThatGoesKeepsNothingFromBeingPruned(t *testing.T) {
	for _, test := range []struct {
		goes         string // the point holds Secrets
		answer, want error
	}{
		{"Counter", errors.Join(ErrNotServed), nil},
		{"Counter", errKilled, errKilled},
		{"Secret", errors.Join(ErrNotServed), ErrNotServed},
	} {
		r := lived(t)
		r.c.serve("shop.example.com/v1", "counters", "Counter", true)
		r.m.Scope = &point.Scope{Kinds: []string{"ConfigMap", "Secret", "Counter.shop.example.com"}}
		r.c.put("v1", "ConfigMap", "shop", "stray", nil)
		r.c.onList = func(at Served) error {
			if at.GVK.Kind == test.goes {
				return test.answer
			}
			return nil
		}
		all := func(point.Resource, *unstructured.Unstructured) bool { return true }
		_, err := r.engine(Options{KeepClaims: true, Existing: Exact, Captured: all}).Run(t.Context())
		if !errors.Is(err, test.want) || (r.c.get("ConfigMap", "shop", "stray") == nil) != (test.want == nil) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// TestExactSparesWhatDataGoesWith, as it does data itself, unless the kind was named.
func TestExactSparesWhatDataGoesWith(t *testing.T) {
	all := func(point.Resource, *unstructured.Unstructured) bool { return true }
	deleting := shape.Document{"spec": shape.Document{"replicas": int64(2), "persistentVolumeClaimRetentionPolicy": shape.Document{"whenDeleted": "Delete", "whenScaled": "Delete"}}}
	fenced := shape.Document{
		"metadata": shape.Document{"namespace": "shop", "name": "stray", "annotations": shape.Document{"davit.dev/replicas-before-fence": "2", "davit.dev/claims-when-scaled-before-fence": "Delete"}},
		"spec":     shape.Document{"replicas": int64(0), "persistentVolumeClaimRetentionPolicy": shape.Document{"whenDeleted": "Delete", "whenScaled": "Retain"}},
	}
	for name, c := range map[string]struct {
		apiVersion, kind, named string
		body                    shape.Document
		kept                    bool
	}{
		"custom resource":                   {"shop.example.com/v1", "Till", "tills.shop.example.com", nil, true},
		"StatefulSet that takes its claims": {"apps/v1", "StatefulSet", "statefulsets.apps", deleting, true},
		"the same, at rest by a fence":      {"apps/v1", "StatefulSet", "statefulsets.apps", fenced, true},
		"StatefulSet that leaves them":      {"apps/v1", "StatefulSet", "statefulsets.apps", shape.Document{"spec": shape.Document{}}, false},
		"Deployment, which has none":        {"apps/v1", "Deployment", "deployments.apps", shape.Document{"spec": shape.Document{}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			gone := func(named map[string]Existing) (bool, string) {
				r := lived(t)
				r.m.Scope = &point.Scope{Kinds: []string{schema.FromAPIVersionAndKind(c.apiVersion, c.kind).GroupKind().String()}}
				r.c.put(c.apiVersion, c.kind, "shop", "stray", c.body)
				res := run(t, r, Options{KeepClaims: true, Existing: Exact, Captured: all, ExistingKinds: named})
				left := r.c.get(c.kind, "shop", "stray")
				if left != nil && c.kind == "StatefulSet" {
					n, set := shape.Number(left.Object, "spec", "replicas")
					if policy := shape.Child(left.Object, "spec", "persistentVolumeClaimRetentionPolicy"); !set || n != 0 || policy["whenScaled"] != "Retain" || policy["whenDeleted"] != "Delete" || len(left.GetAnnotations()) > 0 {
						t.Errorf("what is left may run beside what the point has: %v", left.Object)
					}
				}
				return left == nil, warnings(res)
			}
			if gone, told := gone(nil); gone == c.kept || strings.Contains(told, "--existing-kind "+c.named+"=exact") != c.kept {
				t.Errorf("not named, gone: %t: %s", gone, told)
			}
			if gone, told := gone(map[string]Existing{c.named: Exact}); !gone {
				t.Errorf("kept although its kind is named: %s", told)
			}
		})
	}
}

func TestExactNeedsToKnowTheScope(t *testing.T) {
	for name, scope := range map[string]*point.Scope{"none": nil, "narrowed": {Kinds: []string{"ConfigMap"}, Narrowed: true}} {
		r := lived(t)
		r.m.Scope = scope
		r.c.put("v1", "ConfigMap", "shop", "stray", nil)
		opts := Options{KeepClaims: true, ExistingKinds: map[string]Existing{"configmaps": Exact}, Captured: func(point.Resource, *unstructured.Unstructured) bool { return true }}
		found, err := r.engine(opts).Preflight(t.Context())
		if err != nil || len(Blocking(found)) != 1 || Blocking(found)[0].Reason != "NoScope" {
			t.Errorf("%s: %v %v", name, found, err)
		}
		if run(t, r, opts); r.c.get("ConfigMap", "shop", "stray") == nil {
			t.Errorf("%s: pruned all the same", name)
		}
	}
}

// TestWhatAFenceStoppedRunsAgain: a workload that is as it was captured, but for
// being stopped, is no workload that is there already.
func TestWhatAFenceStoppedRunsAgain(t *testing.T) {
	for policy, want := range map[Existing]int64{Exact: 1, Replace: 1, Update: 1, Skip: 0} {
		r := lived(t)
		db := r.c.objects[key("StatefulSet", "shop", "db")]
		shape.Merge(db.Object, shape.Document{
			"metadata": shape.Document{"annotations": shape.Document{"davit.dev/replicas-before-fence": "1"}}, "spec": shape.Document{"replicas": int64(0)},
		})
		res := run(t, r, Options{Existing: policy, KeepClaims: true})
		if got := replicas(t, r, "StatefulSet", "db"); len(res.Failures) > 0 || got != want {
			t.Errorf("%s: %d replicas, want %d: %v", policy, got, want, res.Failures)
		}
		if policy == Skip && !strings.Contains(warnings(res), "differs in whether it runs") {
			t.Errorf("nobody says that it does not run:\n%s", warnings(res))
		}
	}
}

// TestRollBackGivenAgainAfterAFailure: a restore rolled a volume back and ended with an object that
// could not be restored; the application has written since. Given again, it leaves that alone, and says so,
// as the dry run does; given to begin again it rolls back, once for one order, however often that is taken up.
func TestRollBackGivenAgainAfterAFailure(t *testing.T) {
	for _, again := range []string{"", "order-1"} {
		r := lived(t)
		delete(r.c.objects, key("ConfigMap", "shop", "conf"))
		r.c.fail = func(verb string, u *unstructured.Unstructured) error {
			if verb == "create" && u.GetKind() == "ConfigMap" {
				return errors.New("refused")
			}
			return nil
		}
		first := run(t, r, rollsBack)
		wantFailure(t, first, "refused")
		if r.v.data["shop/data-db-0"] != "snap-data-db-0" || replicas(t, r, "StatefulSet", "db") != 1 || strings.Contains(warnings(first), "written to it since") {
			t.Fatalf("data %q: %s", r.v.data["shop/data-db-0"], warnings(first))
		}
		r.v.data["shop/data-db-0"] = "written since"
		opts, action, want := rollsBack, report.Continue, "written since"
		if opts.Again = again; again != "" {
			action, want = report.RollBack, "snap-data-db-0"
		}
		plan, err := r.engine(opts).Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		claim := slices.IndexFunc(plan, func(p Planned) bool { return p.Object == "PersistentVolumeClaim shop/data-db-0" })
		if claim < 0 || plan[claim].Action != action || strings.Contains(plan[claim].Reason, "written to it since") != (again == "") {
			t.Errorf("again %q: the dry run says %v", again, plan)
		}
		for n := range 2 { // the second time as when its agent died
			res := run(t, r, opts)
			told := strings.Contains(warnings(res), "StatefulSet.apps shop/db uses it and may have written to it since")
			if got := r.v.data["shop/data-db-0"]; got != want || told != (again == "" || n > 0) {
				t.Errorf("again %q, try %d: data %q, %s", again, n, got, warnings(res))
			}
			if n == 0 {
				r.v.data["shop/data-db-0"] = "written since"
			}
			want = "written since"
		}
	}
}
