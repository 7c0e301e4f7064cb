package coverage_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/coverage"
)

func object(ns, name string) capture.Object {
	return capture.Object{Resource: "secrets", Namespace: ns, Name: name}
}

func claim(ns, name string) capture.Claim {
	return capture.Claim{Namespace: ns, Name: name, Capacity: 1}
}

func app(name string, role v1alpha1.Role) v1alpha1.Application {
	a := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}}
	a.Status.Role, a.Status.NewestInstant, a.Status.EpochSite = role, &metav1.Time{}, "west"
	return a
}

// cluster answers for three namespaces, and what each application holds there.
var cluster = map[string]*capture.Held{
	"everything": {
		Namespaces: []string{"shop", "db", "bare"}, Deleting: []string{"gone"},
		Volumes: []capture.Claim{claim("shop", "data"), claim("db", "a"), claim("db", "b")},
		Objects: []capture.Object{object("shop", "x"), object("db", "x"), object("db", "y"), object("bare", "z")},
	},
	"shop": {Namespaces: []string{"shop"}, Volumes: []capture.Claim{claim("shop", "data")}, Objects: []capture.Object{object("shop", "x")}},
	"db-a": {Namespaces: []string{"db"}, Volumes: []capture.Claim{claim("db", "a")}, Objects: []capture.Object{object("db", "x")}},
	"also": {Namespaces: []string{"db"}, Volumes: []capture.Claim{claim("db", "a")}, Objects: []capture.Object{object("db", "x")}},
}

func look(_ context.Context, a *v1alpha1.Application, _ bool) (*capture.Held, error) {
	if held := cluster[a.Name]; held != nil {
		return held, nil
	}
	return nil, errors.New("selection matches nothing")
}

func TestSurvey(t *testing.T) {
	fresh := app("also", v1alpha1.RoleActive)
	fresh.Status.NewestInstant = nil
	apps := []v1alpha1.Application{app("shop", v1alpha1.RoleActive), app("db-a", ""), fresh, app("broken", v1alpha1.RoleActive)}
	r, err := coverage.Survey(t.Context(), look, apps, coverage.Options{Objects: true})
	if err != nil {
		t.Fatal(err)
	}
	if v, o := r.Unprotected(); v != 1 || o != 2 {
		t.Errorf("unprotected %d volumes and %d objects, want 1 and 2", v, o)
	}
	if v, o := r.Shared(); v != 1 || o != 1 {
		t.Errorf("shared %d volumes and %d objects, want 1 and 1", v, o)
	}
	want := []coverage.Namespace{
		{Name: "bare", Objects: 1, UnprotectedObjects: 1},
		{Name: "db", Volumes: 2, UnprotectedVolumes: 1, Objects: 2, UnprotectedObjects: 1},
		{Name: "shop", Volumes: 1, Objects: 1},
	}
	for i, ns := range r.Namespaces {
		w := want[i]
		if ns.Name != w.Name || ns.Volumes != w.Volumes || ns.UnprotectedVolumes != w.UnprotectedVolumes || ns.Objects != w.Objects || ns.UnprotectedObjects != w.UnprotectedObjects {
			t.Errorf("namespace %+v, want %+v", ns, w)
		}
	}
	if len(r.Deleting) != 1 || r.Deleting[0] != "gone" {
		t.Errorf("being deleted are %q, want gone", r.Deleting)
	}
	if len(r.Problems) != 2 || r.Problems[0].Application != "also" || r.Problems[1].Application != "broken" {
		t.Errorf("problems %+v, want that one has no point and one holds nothing", r.Problems)
	}
	if len(r.Volumes[0].Applications) != 2 || r.Volumes[0].Claim != "a" {
		t.Errorf("the first volume is %+v, want db/a with two applications", r.Volumes[0])
	}
}

// An application that another site runs protects nothing here.
func TestSupersededCoversNothing(t *testing.T) {
	for _, role := range []v1alpha1.Role{v1alpha1.RoleSuperseded, v1alpha1.RoleStandby} {
		r, err := coverage.Survey(t.Context(), look, []v1alpha1.Application{app("shop", role)}, coverage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := r.Unprotected(); v != 3 || len(r.Problems) != 1 {
			t.Errorf("%s: %d volumes unprotected, problems %v; want 3, and one", role, v, r.Problems)
		}
	}
}

// Who captures the same volumes is told; who cannot, or is not asked to, is not.
func TestOverlaps(t *testing.T) {
	mine, also, shop, passive := app("db-a", ""), app("also", ""), app("shop", ""), app("also", v1alpha1.RoleStandby)
	for _, a := range []*v1alpha1.Application{&mine, &also, &passive} {
		a.Spec.Namespaces = []string{"db"}
	}
	shop.Spec.Namespaces = []string{"shop"}
	asked := map[string]int{}
	ask := func(ctx context.Context, a *v1alpha1.Application, objects bool) (*capture.Held, error) {
		asked[a.Name]++
		return look(ctx, a, objects)
	}
	broken := app("broken", "")
	broken.Spec.Namespaces = []string{"d*"}
	got := coverage.Overlaps(t.Context(), ask, &mine, cluster["db-a"], []v1alpha1.Application{mine, shop, broken, also, passive})
	if len(got) != 1 || got[0].Application != "also" || !strings.Contains(got[0].String(), "also captures volumes of this one as well: db/a:") {
		t.Errorf("%v", got)
	}
	if asked["shop"] != 0 || asked["db-a"] != 0 || asked["broken"] != 1 || asked["also"] != 1 {
		t.Errorf("looked at %v", asked)
	}
	if got := coverage.Overlaps(t.Context(), ask, &shop, cluster["shop"], []v1alpha1.Application{mine, also}); len(got) != 0 {
		t.Errorf("others of another namespace: %v", got)
	}
}
