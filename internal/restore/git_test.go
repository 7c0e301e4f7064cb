package restore

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

const fluxGroup = "kustomize.toolkit.fluxcd.io"

// gitRig is the shop, of which Flux makes a ConfigMap, a Deployment and a claim
// from git, and a target where Flux is.
func gitRig(t *testing.T) *rig {
	t.Helper()
	r := newRig()
	mark := `"labels":{"` + fluxGroup + `/name":"shop","` + fluxGroup + `/namespace":"flux-system"},"uid":"`
	for kind, objects := range r.s.raw {
		for i := range objects {
			for _, uid := range []string{"u-cm", "u-pvc", "u-dep"} {
				r.s.raw[kind][i] = strings.ReplaceAll(r.s.raw[kind][i], `"namespace":"shop","uid":"`+uid+`"`, `"namespace":"shop",`+mark+uid+`"`)
			}
		}
	}
	r.c.serve(fluxGroup+"/v1", "kustomizations", "Kustomization", true)
	r.c.serve("helm.toolkit.fluxcd.io/v2", "helmreleases", "HelmRelease", true)
	r.c.serve("argoproj.io/v1alpha1", "applications", "Application", true)
	r.c.put("v1", "Namespace", "", "flux-system", nil)
	r.c.put(fluxGroup+"/v1", "Kustomization", "flux-system", "shop", shape.Document{"spec": shape.Document{"path": "./shop"}})
	return r
}

func suspended(r *rig) bool {
	return gitops.Suspended(gitops.KindKustomization, r.c.get("Kustomization", "flux-system", "shop").Object)
}

func TestGitOpsSkip(t *testing.T) {
	r := gitRig(t)
	res := run(t, r, Options{GitOps: gitops.Skip})
	if len(res.Failures) > 0 || r.c.get("ConfigMap", "shop", "conf") != nil {
		t.Errorf("what git holds was restored: %v", res.Failures)
	}
	if r.c.get("Secret", "shop", "pw") == nil || r.v.data["shop/data-db-0"] != "snap-data-db-0" {
		t.Errorf("what git does not hold is missing: data %q", r.v.data["shop/data-db-0"])
	}
	if suspended(r) {
		t.Error("skip suspended the reconciler")
	}
}

func TestGitOpsKeepWarns(t *testing.T) {
	for _, c := range []struct {
		mode gitops.Mode
		want string
	}{
		{gitops.Keep, "Kustomization." + fluxGroup + " flux-system/shop, which goes on and may undo"},
		{gitops.Skip, ""},
		{gitops.Suspend, ""},
	} {
		r := gitRig(t)
		found, err := r.engine(Options{GitOps: c.mode}).Preflight(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var text string
		for _, f := range found {
			if f.Reason == "GitOps" {
				text += f.String()
			}
		}
		if c.want == "" && text != "" || !strings.Contains(text, c.want) {
			t.Errorf("%s: %q", c.mode, text)
		}
	}
	r := gitRig(t)
	r.c.deny = func(verb string, at Served, _ string) bool { return verb == "patch" && at.GVK.Kind == "Kustomization" }
	found, err := r.engine(Options{GitOps: gitops.Suspend}).Preflight(t.Context())
	if err != nil || len(Blocking(found)) != 1 || !strings.Contains(Blocking(found)[0].String(), "may not be suspended") {
		t.Errorf("without the right to suspend: %v %v", found, err)
	}
}

// Suspended before the first object is written, and going on when all is there.
func TestGitOpsSuspend(t *testing.T) {
	r := gitRig(t)
	var early []string
	r.c.fail = func(verb string, u *unstructured.Unstructured) error {
		if verb == "create" && u.GetKind() != "Lease" && u.GetKind() != "Namespace" && !gitops.Suspended(gitops.KindKustomization, r.c.objects[key("Kustomization", "flux-system", "shop")].Object) {
			early = append(early, u.GetKind()+" "+u.GetName())
		}
		return nil
	}
	res := run(t, r, Options{GitOps: gitops.Suspend})
	if len(res.Failures) > 0 || len(early) > 0 || r.c.get("ConfigMap", "shop", "conf") == nil {
		t.Errorf("failures %v, made while git went on: %v", res.Failures, early)
	}
	if k := r.c.get("Kustomization", "flux-system", "shop"); suspended(r) || k.GetAnnotations()[gitops.Annotation] != "" {
		t.Errorf("left as %v", k.Object)
	}
	plan, err := gitRig(t).engine(Options{GitOps: gitops.Suspend}).Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(plan) == 0 || plan[0].Action != report.Suspend || !strings.Contains(plan[0].Object, "flux-system/shop") {
		t.Errorf("the dry run does not begin with what it suspends: %v", plan)
	}
}

// What people suspended stays so; what failed leaves git at rest.
func TestGitOpsStaysSuspended(t *testing.T) {
	r := gitRig(t)
	r.c.objects[key("Kustomization", "flux-system", "shop")].Object["spec"].(map[string]any)["suspend"] = true
	run(t, r, Options{GitOps: gitops.Suspend})
	if !suspended(r) {
		t.Error("a reconciler that people suspended was resumed")
	}
	r = gitRig(t)
	r.v.broken = map[string]error{"data-db-0": errKilled}
	res := run(t, r, Options{GitOps: gitops.Suspend})
	if len(res.Failures) == 0 || !suspended(r) || !strings.Contains(warnings(res), "stays suspended") {
		t.Errorf("after a failure: suspended %t, warnings:\n%s", suspended(r), warnings(res))
	}
	r.v.broken = nil
	if res := run(t, r, Options{GitOps: gitops.Suspend}); len(res.Failures) > 0 || suspended(r) {
		t.Errorf("given again: %v, suspended %t", res.Failures, suspended(r))
	}
}

// Killed before any write, with its answer given or lost, and given again: git
// goes on as before.
func TestGitOpsKilledAtEveryWrite(t *testing.T) {
	opts := Options{GitOps: gitops.Suspend}
	whole := gitRig(t)
	run(t, whole, opts)
	for _, after := range []bool{false, true} {
		for n := 1; n <= whole.c.effects; n++ {
			r := gitRig(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				r.c.killAt, r.c.after, r.c.onKill = n, after, cancel
				_, _ = r.engine(opts).Run(ctx)
				r.c.killAt = 0
				if res, err := r.engine(opts).Run(t.Context()); err != nil || len(res.Failures) > 0 {
					t.Errorf("killed at write %d (after %t): %v %v", n, after, err, res.Failures)
				}
			})
			if k := r.c.get("Kustomization", "flux-system", "shop"); suspended(r) || k.GetAnnotations()[gitops.Annotation] != "" {
				t.Errorf("killed at write %d (after %t): left as %v", n, after, k.Object)
			}
		}
	}
}

// Exact with skip does not delete what git made since.
func TestGitOpsSkipPrunesNothingOfGit(t *testing.T) {
	for _, c := range []struct {
		mode gitops.Mode
		kept bool
	}{{gitops.Skip, true}, {gitops.Keep, false}} {
		r := gitRig(t)
		run(t, r, Options{ID: "rbefore"})
		r.m.Scope = &point.Scope{Kinds: []string{"ConfigMap"}}
		u := r.c.put("v1", "ConfigMap", "shop", "newer", nil)
		u.SetLabels(map[string]string{fluxGroup + "/name": "shop", fluxGroup + "/namespace": "flux-system"})
		run(t, r, Options{
			KeepClaims: true, Existing: Exact, GitOps: c.mode, ExistingKinds: map[string]Existing{"persistentvolumeclaims": Skip},
			Captured: func(point.Resource, *unstructured.Unstructured) bool { return true },
		})
		if got := r.c.get("ConfigMap", "shop", "newer") != nil; got != c.kept {
			t.Errorf("%s: kept %t", c.mode, got)
		}
	}
}

// TestGitOpsSharedByTwoApplications: git makes objects of two applications by one
// reconciler, and both are restored at once. It goes on when the last is through, not while
// the other fills its volumes. The control: what ends last has it go on.
func TestGitOpsSharedByTwoApplications(t *testing.T) {
	r := gitRig(t)
	other, s := newsOf()
	e := New(r.m, Options{ID: testID, Holder: "test", GitOps: gitops.Suspend}, Deps{
		Source: r.s, Cluster: r.c,
		Volumes: beside{r.v, func(ctx context.Context) error {
			for range 2 { // given again, it changes nothing
				res, err := New(other, Options{ID: "rnews", Holder: "test", GitOps: gitops.Suspend}, Deps{Source: s, Cluster: r.c}).Run(ctx)
				if err != nil || len(res.Failures) > 0 || !strings.Contains(warnings(res), "rely on it: "+testID+" of shop") {
					t.Errorf("the other: %v %v\n%s", err, res.Failures, warnings(res))
				}
				if !suspended(r) {
					t.Error("git goes on while a volume is being filled")
				}
			}
			return nil
		}},
	})
	synctest.Test(t, func(t *testing.T) {
		if res, err := e.Run(t.Context()); err != nil || len(res.Failures) > 0 {
			t.Errorf("%v %v", err, res.Failures)
		}
	})
	if k := r.c.get("Kustomization", "flux-system", "shop"); suspended(r) || k.GetAnnotations()[gitops.Annotation] != "" {
		t.Errorf("left as %v", k.Object)
	}
}

// TestGitOpsOfAnEarlierRestore: another restore of the same application, or one that a
// version suspended that noted no application, has git go on in its place.
func TestGitOpsOfAnEarlierRestore(t *testing.T) {
	for _, earlier := range []bool{false, true} {
		r := gitRig(t)
		r.v.broken = map[string]error{"data-db-0": errKilled}
		run(t, r, Options{ID: "rdead", GitOps: gitops.Suspend})
		r.v.broken = nil
		k := r.c.objects[key("Kustomization", "flux-system", "shop")]
		if earlier {
			k.SetAnnotations(map[string]string{gitops.Annotation: `{"by":"rdead"}`})
		}
		r.c.objects[key("PersistentVolumeClaim", "shop", "data-db-0")].SetLabels(map[string]string{shape.LabelRestore: testID})
		if res := run(t, r, Options{GitOps: gitops.Suspend}); len(res.Failures) > 0 || suspended(r) {
			t.Errorf("of an earlier version %t: %v, suspended %t", earlier, res.Failures, suspended(r))
		}
	}
}

// TestGitOpsBroughtByOneOfTwo: as before, where one of the restores brings the reconciler
// itself, at rest, and the other ends before the first workload.
func TestGitOpsBroughtByOneOfTwo(t *testing.T) {
	r := gitRig(t)
	delete(r.c.objects, key("Kustomization", "flux-system", "shop"))
	r.m.Namespaces = append(r.m.Namespaces, "flux-system")
	r.m.Resources = append(r.m.Resources, point.Resource{Group: fluxGroup, Version: "v1", Versions: []string{"v1"}, Resource: "kustomizations", Kind: "Kustomization", Namespaced: true, Count: 1})
	r.s.raw[fluxGroup+"/Kustomization"] = []string{`{"apiVersion":"` + fluxGroup + `/v1","kind":"Kustomization","metadata":{"name":"shop","namespace":"flux-system","uid":"u-kust"},"spec":{"path":"./shop"}}`}
	other, s := newsOf()
	during := 0
	activate := func(ctx context.Context) error {
		if r.c.get("Kustomization", "flux-system", "shop") == nil || r.c.get("ConfigMap", "shop", "news") != nil {
			return nil
		}
		during++
		res, err := New(other, Options{ID: "rnews", Holder: "test", GitOps: gitops.Suspend}, Deps{Source: s, Cluster: r.c}).Run(ctx)
		if err != nil || len(res.Failures) > 0 || !suspended(r) {
			t.Errorf("the other: %v %v, suspended %t", err, res.Failures, suspended(r))
		}
		return nil
	}
	if res := run(t, r, Options{GitOps: gitops.Suspend, Activate: activate}); len(res.Failures) > 0 || during != 1 || suspended(r) {
		t.Errorf("%v, the other ran %d times, suspended %t", res.Failures, during, suspended(r))
	}
}

// TestGitOpsForgetsNoOther: of two restores that rely on a reconciler's rest, the one that writes
// it anew, as its own point has it, or suspends it once more, as somebody undid that, ends
// first. It stays suspended for the other.
func TestGitOpsForgetsNoOther(t *testing.T) {
	for name, policy := range map[string]Existing{"updated": Update, "replaced": Replace, "exact": Exact, "suspended anew": Skip} {
		r := gitRig(t)
		r.m.Namespaces = append(r.m.Namespaces, "flux-system")
		r.m.Resources = append(r.m.Resources, point.Resource{Group: fluxGroup, Version: "v1", Versions: []string{"v1"}, Resource: "kustomizations", Kind: "Kustomization", Namespaced: true, Count: 1})
		r.s.raw[fluxGroup+"/Kustomization"] = []string{`{"apiVersion":"` + fluxGroup + `/v1","kind":"Kustomization","metadata":{"name":"shop","namespace":"flux-system","uid":"u-kust"},"spec":{"path":"./other"}}`}
		k := r.c.objects[key("Kustomization", "flux-system", "shop")]
		k.SetAnnotations(map[string]string{gitops.Annotation: `{"by":"rnews","for":{"news":"rnews"}}`})
		r.c.put("coordination.k8s.io/v1", "Lease", "davit-system", "restore-news", nil).SetAnnotations(map[string]string{hold.AnnotationAttempt: "rnews-1"})
		if policy != Skip {
			k.Object["spec"].(map[string]any)["suspend"] = true
		}
		res := run(t, r, Options{GitOps: gitops.Suspend, Existing: policy, ExistingKinds: map[string]Existing{"kustomizations." + fluxGroup: policy}})
		k = r.c.get("Kustomization", "flux-system", "shop")
		if len(res.Failures) > 0 || !suspended(r) || !strings.Contains(k.GetAnnotations()[gitops.Annotation], `"for":{"news":"rnews"}`) {
			t.Errorf("%s: %v, %v", name, res.Failures, k.Object)
		}
		if path := shape.Text(k.Object, "spec", "path"); (path == "./other") != (policy != Skip) {
			t.Errorf("%s: its path is %s", name, path)
		}
	}
}

// TestGitOpsKeepHasNobodyGoOn: a restore that leaves reconcilers alone, and whose point holds one, puts that in the
// place of the live one, which rests for another restore, or for a run. It rests on, and who relies on that has it go on as
// the point has it. The controls: nobody of Davit's suspended it, or somebody took that back.
func TestGitOpsKeepHasNobodyGoOn(t *testing.T) {
	for policy, note := range map[Existing]string{Update: `{"by":"run","run":"run"}`, Replace: `{"by":"rnews","for":{"news":"rnews"}}`, Exact: `{"by":"run","run":"run","for":{"news":"rnews"}}`} {
		for _, c := range []struct {
			note           string
			suspend, rests bool
		}{{note, true, true}, {"", true, false}, {note, false, false}} {
			r := gitRig(t)
			r.m.Namespaces = append(r.m.Namespaces, "flux-system")
			r.m.Resources = append(r.m.Resources, point.Resource{Group: fluxGroup, Version: "v1", Versions: []string{"v1"}, Resource: "kustomizations", Kind: "Kustomization", Namespaced: true, Count: 1})
			r.s.raw[fluxGroup+"/Kustomization"] = []string{`{"apiVersion":"` + fluxGroup + `/v1","kind":"Kustomization","metadata":{"name":"shop","namespace":"flux-system","uid":"u-kust"},"spec":{"path":"./other"}}`}
			k := r.c.objects[key("Kustomization", "flux-system", "shop")]
			if c.note != "" {
				k.SetAnnotations(map[string]string{gitops.Annotation: c.note})
			}
			k.Object["spec"].(map[string]any)["suspend"] = c.suspend
			res := run(t, r, Options{GitOps: gitops.Keep, Existing: policy, ExistingKinds: map[string]Existing{"kustomizations." + fluxGroup: policy}})
			k = r.c.get("Kustomization", "flux-system", "shop")
			want := ""
			if c.rests {
				want = c.note
			}
			if len(res.Failures) > 0 || suspended(r) != c.rests || shape.Text(k.Object, "spec", "path") != "./other" || !sameNote(k.GetAnnotations()[gitops.Annotation], want) {
				t.Errorf("%s of %q, suspended %t: %v, %v", policy, c.note, c.suspend, res.Failures, k.Object)
			}
		}
	}
}

func sameNote(a, b string) bool {
	var is, want map[string]any
	_, _ = json.Unmarshal([]byte(a), &is), json.Unmarshal([]byte(b), &want) // nothing is nothing
	return reflect.DeepEqual(is, want)
}

// newsOf is a point of another application, of which the shop's reconciler makes an object, too.
func newsOf() (*point.Manifest, *fakeSource) {
	m, s := pointOf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"news","namespace":"shop","uid":"u-news","labels":{"` + fluxGroup + `/name":"shop","` + fluxGroup + `/namespace":"flux-system"}}}`)
	m.Application = "news"
	return m, s
}

// TestGitOpsForgetsWhatIsOver: a restore died, and the application was restored otherwise since, or
// its lease is gone. The next restore of another application, which rests on the same reconciler,
// has that go on, and says whose name it dropped. The controls: one that may be given again keeps it at
// rest, and so does a volume that it has not filled, and a caller who is not told.
func TestGitOpsForgetsWhatIsOver(t *testing.T) {
	for name, c := range map[string]struct {
		since func(r *rig)
		rests bool
	}{
		"restored otherwise": {func(r *rig) {
			r.v.broken = nil
			r.c.objects[key("PersistentVolumeClaim", "shop", "data-db-0")].SetLabels(map[string]string{shape.LabelRestore: testID})
			if res := run(t, r, Options{GitOps: gitops.Keep}); len(res.Failures) > 0 || !suspended(r) {
				t.Fatalf("%v, suspended %t", res.Failures, suspended(r))
			}
		}, false},
		"given up": {func(r *rig) {
			delete(r.c.objects, key("Lease", "davit-system", "restore-shop"))
			delete(r.c.objects, key("PersistentVolumeClaim", "shop", "data-db-0"))
		}, false},
		"may be given again": {func(*rig) {}, true},
		"is restored otherwise now": {func(r *rig) { // one that leaves git alone, and has what it rolls back marked as its own
			r.c.objects[key("PersistentVolumeClaim", "shop", "data-db-0")].SetLabels(map[string]string{shape.LabelRestore: "rother"})
			r.c.objects[key("Lease", "davit-system", "restore-shop")].SetAnnotations(map[string]string{hold.AnnotationAttempt: "rother-1"})
		}, true},
		"a volume is half filled": {func(r *rig) {
			delete(r.c.objects, key("Lease", "davit-system", "restore-shop"))
		}, true},
		"nobody may know": {func(r *rig) {
			delete(r.c.objects, key("Lease", "davit-system", "restore-shop"))
			delete(r.c.objects, key("PersistentVolumeClaim", "shop", "data-db-0"))
			r.c.onList = func(at Served) error {
				if at.GVK.Kind == "PersistentVolumeClaim" {
					return apierrors.NewForbidden(schema.GroupResource{Resource: "persistentvolumeclaims"}, "", nil)
				}
				return nil
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := gitRig(t)
			r.v.broken = map[string]error{"data-db-0": errKilled}
			run(t, r, Options{ID: "rdead", GitOps: gitops.Suspend})
			c.since(r)
			r.m, r.s = newsOf()
			res := run(t, r, Options{ID: "rnews", GitOps: gitops.Suspend})
			says := "over and left their names: rdead of shop"
			if c.rests {
				says = "rely on it: rdead of shop"
			}
			if len(res.Failures) > 0 || suspended(r) != c.rests || !strings.Contains(warnings(res), says) {
				t.Errorf("%v, suspended %t: %s", res.Failures, suspended(r), warnings(res))
			}
		})
	}
}

// TestGitOpsSaysWhatStaysSuspended: a restore that leaves reconcilers alone says which rests since a
// restore before it. The control: one that people suspended.
func TestGitOpsSaysWhatStaysSuspended(t *testing.T) {
	for note, want := range map[string]string{`{"by":"rdead","for":{"shop":"rdead"}}`: "rely on it: rdead of shop", `{"by":"rdead"}`: "restore rdead suspended it", "": ""} {
		r := gitRig(t)
		k := r.c.objects[key("Kustomization", "flux-system", "shop")]
		k.Object["spec"].(map[string]any)["suspend"] = true
		if note != "" {
			k.SetAnnotations(map[string]string{gitops.Annotation: note})
		}
		found, err := r.engine(Options{GitOps: gitops.Keep}).Preflight(t.Context())
		text := ""
		for _, f := range found {
			if f.Reason == "GitOps" {
				text += f.String()
			}
		}
		if err != nil || (text == "") != (want == "") || !strings.Contains(text, want) {
			t.Errorf("%s: %v %q", note, err, text)
		}
	}
}

// TestGitOpsRestsForARun: a run's step suspended a reconciler, or found it suspended by a restore.
// A restore has it go on no more; the run does, or a person. The control: no run has it so.
func TestGitOpsRestsForARun(t *testing.T) {
	kustomization := gitops.Reconciler{Kind: gitops.KindKustomization, Namespace: "flux-system", Name: "shop"}
	for name, c := range map[string]struct{ before, during, rests bool }{
		"no run":             {false, false, false},
		"suspended before":   {true, false, true},
		"joined by the run":  {false, true, true},
		"both at their time": {true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := gitRig(t)
			stage := gitops.Stage{Cluster: r.c, Clock: port.WallClock{}, ID: "run-1"}
			suspend := func(context.Context) error {
				_, err := stage.Suspend(t.Context(), kustomization)
				return err
			}
			if c.before {
				if err := suspend(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			opts := Options{GitOps: gitops.Suspend}
			if c.during {
				opts.Activate = suspend
			}
			res := run(t, r, opts)
			if len(res.Failures) > 0 || suspended(r) != c.rests || strings.Contains(warnings(res), "run run-1 has it so") != c.rests {
				t.Errorf("%v, suspended %t: %s", res.Failures, suspended(r), warnings(res))
			}
			why, err := stage.Release(t.Context(), kustomization)
			if k := r.c.get("Kustomization", "flux-system", "shop"); err != nil || why != "" || suspended(r) || k.GetAnnotations()[gitops.Annotation] != "" {
				t.Errorf("after its resume step: %v, %q, %v", err, why, k.Object)
			}
		})
	}
}
