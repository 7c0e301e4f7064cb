package restore

import (
	"errors"
	"strings"
	"testing"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

func TestPreflightOfAGoodTargetFindsNothing(t *testing.T) {
	r := newRig()
	found, err := r.engine(Options{}).Preflight(t.Context())
	if err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}
	if r.c.effects != 0 {
		t.Errorf("preflight wrote: %v", r.c.history)
	}
}

func TestPreflight(t *testing.T) {
	shopNamespace := func(r *rig) { r.c.put("v1", "Namespace", "", "shop", shape.Document{}) }
	for _, c := range []struct {
		name     string
		opts     Options
		spoil    func(*rig)
		reason   string
		severity report.Severity
		says     string // in message and remedy together
	}{
		{"right denied everywhere", Options{}, func(r *rig) {
			r.c.deny = func(verb string, at Served, _ string) bool { return verb == "create" && at.GVR.Resource == "secrets" }
		}, "Denied", report.Error, "no right to create secrets in namespace shop"},
		{"cluster-wide right denied", Options{}, func(r *rig) {
			r.c.deny = func(_ string, at Served, _ string) bool { return at.GVR.Resource == "customresourcedefinitions" }
		}, "Denied", report.Error, "cluster-wide"},
		{"no right to the lease", Options{}, func(r *rig) {
			r.c.deny = func(verb string, at Served, namespace string) bool {
				return verb == "update" && at.GVR.Resource == "leases" && namespace == "davit-system"
			}
		}, "Denied", report.Error, "update leases in namespace davit-system"},
		{"namespace in use", Options{}, func(r *rig) {
			shopNamespace(r)
			r.c.put("apps/v1", "Deployment", "shop", "other", nil)
		}, "NamespaceInUse", report.Warning, "Deployment.apps other"},
		{"namespace terminating", Options{}, func(r *rig) {
			r.c.put("v1", "Namespace", "", "shop", shape.Document{"status": shape.Document{"phase": "Terminating"}})
		}, "Terminating", report.Error, "being deleted"},
		{"missing storage class", Options{}, func(r *rig) {
			delete(r.c.objects, key("StorageClass", "", "fast"))
			r.c.put("storage.k8s.io/v1", "StorageClass", "", "slow", shape.Document{"provisioner": "x"})
		}, "MissingClass", report.Error, "--map-storage-class fast=slow"},
		{
			"mapped to a class that is not there",
			Options{StorageClassMapping: map[string]string{"fast": "none"}},
			nil,
			"MissingClass", report.Error, "no storage class none",
		},
		{
			"useless class mapping",
			Options{StorageClassMapping: map[string]string{"gold": "fast"}},
			nil,
			"UnusedMapping", report.Warning, "gold",
		},
		{"missing kind", Options{}, func(r *rig) {
			r.m.Resources = append(r.m.Resources, point.Resource{Group: "x.example.com", Version: "v1", Kind: "Thing", Resource: "things", Count: 1})
			r.s.raw["x.example.com/Thing"] = []string{`{"metadata":{"name":"t","namespace":"shop"}}`}
		}, "MissingKind", report.Error, "Thing.x.example.com"},
		{"missing version", Options{}, func(r *rig) {
			for i := range r.m.Resources {
				if r.m.Resources[i].Kind == "Deployment" {
					r.m.Resources[i].Version = "v9"
				}
			}
		}, "MissingVersion", report.Error, "captured as v9, the target serves only v1"},
		{"no node process", Options{}, func(r *rig) { r.v.unable = errors.New("no davit node process") }, "NoNodeProcess", report.Error, "1 volumes"},
		{"objects missing in the vault", Options{}, func(r *rig) { r.s.missing = errors.New("pack 7") }, "MissingData", report.Error, "pack 7"},
		{"volume missing in the vault", Options{}, func(r *rig) { r.s.noData = errors.New("blob") }, "MissingData", report.Error, "data-db-0"},
		{"fuzzy", Options{}, func(r *rig) { r.m.Consistency = point.Fuzzy }, "Fuzzy", report.Error, "--accept-fuzzy"},
		{"fuzzy accepted", Options{AcceptFuzzy: true}, func(r *rig) { r.m.Consistency = point.Fuzzy }, "Fuzzy", report.Warning, "repair"},
		{"mapping of nothing", Options{NamespaceMapping: map[string]string{"sop": "x"}}, nil, "UnknownNamespace", report.Error, "map one of shop"},
		{"mapping to no name", Options{NamespaceMapping: map[string]string{"shop": "A_"}}, nil, "BadNamespace", report.Error, "A_"},
		{"two into one", Options{NamespaceMapping: map[string]string{"shop": "bank"}}, func(r *rig) {
			r.m.Namespaces = []string{"bank", "shop"}
		}, "MappedTogether", report.Error, "bank"},
		{"claim of someone else", Options{}, func(r *rig) {
			shopNamespace(r)
			r.c.put("v1", "PersistentVolumeClaim", "shop", "data-db-0", nil)
		}, "ClaimExists", report.Error, "never overwritten"},
		{"claim in use", Options{}, func(r *rig) {
			shopNamespace(r)
			sts := mustDecode(t, shopObjects()[16])
			r.c.put("apps/v1", "StatefulSet", "shop", "db", shape.Document{"spec": sts["spec"]})
		}, "ClaimInUse", report.Error, "scale it to zero"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig()
			if c.spoil != nil {
				c.spoil(r)
			}
			found, err := r.engine(c.opts).Preflight(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if r.c.effects != 0 {
				t.Errorf("preflight wrote: %v", r.c.history)
			}
			for _, f := range found {
				if f.Reason == c.reason && f.Severity == c.severity && strings.Contains(f.String(), c.says) && f.Check != "" {
					return
				}
			}
			t.Errorf("want %s %s %q, got %+v", c.severity, c.reason, c.says, found)
		})
	}
}

func TestVersionsOfTheSameShapeAreInterchanged(t *testing.T) {
	r := newRig()
	for i := range r.m.Resources {
		if r.m.Resources[i].Kind == "PodDisruptionBudget" {
			r.m.Resources[i].Version = "v1beta1"
		}
	}
	if res := run(t, r, Options{}); len(res.Failures) > 0 {
		t.Fatal(res.Failures)
	}
	if got := r.c.get("PodDisruptionBudget", "shop", "p").GetAPIVersion(); got != "policy/v1" {
		t.Errorf("written as %s", got)
	}
}

func TestIDDependsOnTheRequestAlone(t *testing.T) {
	a := shape.ID("p", "TakeOver", nil)
	for _, other := range []string{shape.ID("q", "TakeOver", nil), shape.ID("p", "InPlace", nil), shape.ID("p", "TakeOver", map[string]string{"a": "b"})} {
		if a == other {
			t.Errorf("%s names two requests", a)
		}
	}
	if a != shape.ID("p", "TakeOver", map[string]string{}) || len(a) > 20 {
		t.Errorf("id %s", a)
	}
}

func TestLabelsAgreeWithTheAPI(t *testing.T) {
	if shape.LabelRestore != apiLabelRestore || shape.LabelManagedBy != apiLabelManagedBy {
		t.Error("labels differ from those of api/v1alpha1")
	}
}
