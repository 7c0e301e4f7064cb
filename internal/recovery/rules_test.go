package recovery

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/transform"
)

// site is a world with overlays.
func site(t *testing.T, overlays ...transform.Overlay) *world {
	t.Helper()
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	w.document()
	w.deps.Overlays = func(context.Context) ([]transform.Overlay, error) { return overlays, nil }
	return w
}

func overlay(name, text string) transform.Overlay {
	return transform.Overlay{Name: name, Entries: map[string]string{"rules.yaml": text}}
}

const westwards = `
applications: ["sh*"]
rules: [{name: west, mergePatch: "{data: {from: west}}"}]`

// TestOverlays: what a site says is applied there to what it takes over and to
// what it restores in place, and not to copies; order is by name, and what
// comes with the order itself has the last word.
func TestOverlays(t *testing.T) {
	takeOver := Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}
	clone := Options{Application: "shop", Mode: v1alpha1.RestoreClone, NamespaceMapping: map[string]string{"shop": "copy"}}
	without := takeOver
	without.NoOverlays = true
	given := takeOver
	given.Transforms = []transform.Source{{Name: "file f", Rules: []transform.Rule{{Name: "g", MergePatch: "{data: {from: given}}"}}}}
	for _, c := range []struct {
		name      string
		opts      Options
		namespace string
		overlays  []transform.Overlay
		want      string
		applied   []string
	}{
		{"take-over", takeOver, "shop", []transform.Overlay{overlay("a", westwards)}, "west", []string{"overlay a"}},
		{"copy", clone, "copy", []transform.Overlay{overlay("a", westwards)}, "shop-1", nil},
		{"asked not to", without, "shop", []transform.Overlay{overlay("a", westwards)}, "shop-1", nil},
		{"of another application", takeOver, "shop", []transform.Overlay{overlay("a", strings.Replace(westwards, "sh*", "bank", 1))}, "shop-1", nil},
		{"in order", takeOver, "shop", []transform.Overlay{overlay("b", strings.ReplaceAll(westwards, "west", "later")), overlay("a", westwards)}, "later", []string{"overlay a", "overlay b"}},
		{"and what is given", given, "shop", []transform.Overlay{overlay("a", westwards)}, "given", []string{"overlay a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := site(t, c.overlays...)
			rep, err := Recover(t.Context(), c.opts, w.deps)
			if got := w.value(c.namespace); err != nil || got != c.want || !reflect.DeepEqual(rep.Overlays, c.applied) {
				t.Errorf("error %v, value %q, overlays %v, findings %v", err, got, rep.Overlays, rep.Findings)
			}
		})
	}
	w := site(t)
	w.claim("west", 2, "shop-1")
	w.deps.Overlays = func(context.Context) ([]transform.Overlay, error) {
		return []transform.Overlay{overlay("a", westwards)}, nil
	}
	if _, err := Recover(t.Context(), Options{Application: "shop"}, w.deps); err != nil || w.value("shop") != "west" {
		t.Errorf("in place: %v, value %q", err, w.value("shop"))
	}
}

// TestRulesRefuse: what is wrong with rules is said before anything changes.
func TestRulesRefuse(t *testing.T) {
	rule := func(r transform.Rule) Options {
		return Options{Transforms: []transform.Source{{Name: "file f", Rules: []transform.Rule{r}}}}
	}
	for _, c := range []struct {
		name     string
		opts     Options
		overlays []transform.Overlay
		want     error
		says     string
	}{
		{"overlay that does not parse", Options{}, []transform.Overlay{overlay("a", "rules: {")}, ErrRefused, "overlay a: entry rules.yaml"},
		{"overlay for nobody", Options{}, []transform.Overlay{overlay("a", "rules: [{name: a, mergePatch: '{a: 1}'}]")}, ErrRefused, "for no application"},
		{"two mirrors", Options{}, []transform.Overlay{overlay("a", "{applications: ['*'], mirrorImagesFrom: a.west}"), overlay("b", "{applications: ['*'], mirrorImagesFrom: b.west}")}, ErrRefused, "another overlay"},
		{"bad CEL", rule(transform.Rule{Name: "r", MergePatch: "{a: 1}", Match: transform.Match{Condition: "object."}}), nil, ErrRefused, `file f: rule "r": match: condition`},
		{"patch that fails", rule(transform.Rule{Name: "r", JSONPatch: "[{op: remove, path: /data/none}]"}), nil, ErrPreflight, "fails on ConfigMap shop/conf"},
		{"condition that fails", rule(transform.Rule{Name: "r", MergePatch: "{a: 1}", Match: transform.Match{Condition: "object.spec.none == 1"}}), nil, ErrPreflight, "has()"},
		{"another name", rule(transform.Rule{Name: "r", MergePatch: "{metadata: {name: x}}"}), nil, ErrPreflight, "may not change metadata.name"},
		{"ConfigMap that is not there", Options{Namespace: "davit-system", TransformsFrom: []v1alpha1.TransformSource{{ConfigMap: "gone"}}}, nil, ErrRefused, "read ConfigMap davit-system/gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := site(t, c.overlays...)
			c.opts.Application, c.opts.Mode = "shop", v1alpha1.RestoreTakeOver
			_, err := Recover(t.Context(), c.opts, w.deps)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v", err)
			}
			if w.epoch() != 1 || w.value("shop") != "" {
				t.Error("a refusal changed something")
			}
		})
	}
	w := site(t)
	w.deps.Overlays = func(context.Context) ([]transform.Overlay, error) { return nil, errors.New("forbidden") }
	if _, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "--no-overlays") {
		t.Errorf("overlays that cannot be read: %v", err)
	}
}

func TestRulesOfAConfigMapAndUnused(t *testing.T) {
	w := site(t)
	cm := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "mine", "namespace": "davit-system"},
		"data": map[string]any{
			"a.yaml": "rules: [{name: a, mergePatch: '{data: {from: named}}'}]",
			"b.yaml": "rules: [{name: none, match: {names: [other]}, mergePatch: '{a: 1}'}]",
		},
	}}
	if _, err := w.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("davit-system").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	opts := Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver, Namespace: "davit-system", TransformsFrom: []v1alpha1.TransformSource{{ConfigMap: "mine"}}}
	rep, err := Recover(t.Context(), opts, w.deps)
	if err != nil || w.value("shop") != "named" || len(rep.Rules) != 2 {
		t.Fatalf("error %v, value %q, rules %v", err, w.value("shop"), rep.Rules)
	}
	if len(rep.Findings) != 1 || rep.Findings[0].Reason != "UnusedRule" || !strings.Contains(rep.Findings[0].Message, `ConfigMap davit-system/mine b.yaml: rule "none"`) || rep.Phase != v1alpha1.RestoreWarned {
		t.Errorf("phase %s, findings %v", rep.Phase, rep.Findings)
	}
	opts.TransformsFrom[0].Key = "a.yaml"
	if rep, err := Plan(t.Context(), opts, w.deps); err != nil || len(rep.Findings) != 0 {
		t.Errorf("one entry: %v %v", err, rep.Findings)
	}
}

// TestMirror: preflight asks the mirror for the copies, by digest.
func TestMirror(t *testing.T) {
	w := site(t, overlay("a", "{applications: ['*'], mirrorImagesFrom: r.west/m}"))
	m, err := w.project.Manifest(t.Context(), "shop", "shop-1")
	if err != nil {
		t.Fatal(err)
	}
	m.Images = []point.Image{{Reference: "nginx:1", Digest: "sha256:a"}, {Reference: "gone:1", Digest: "sha256:b"}, {Reference: "quiet:1"}, {Reference: "r.west/m/own:1"}}
	r := begin(Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps)
	r.manifest = m
	r.deps.Images = func(_ context.Context, mirror string, image point.Image) (bool, error) {
		if mirror != "r.west/m" {
			t.Errorf("asked %s", mirror)
		}
		switch image.Reference {
		case "nginx:1":
			return image.Digest == "sha256:a", nil
		case "gone:1":
			return false, nil
		case "quiet:1":
			return false, errors.New("no answer")
		}
		t.Errorf("asked for %s", image.Reference)
		return false, nil
	}
	if err := r.compileRules(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := r.checkMirror(t.Context())
	if len(found) != 2 || found[0].Reason != "ImageMissing" || !strings.Contains(found[0].Message, "r.west/m/index.docker.io/library/gone:1@sha256:b") || found[1].Reason != "ImageUnknown" {
		t.Errorf("%v", found)
	}
	if to := r.mirror.Copy("nginx:1"); to != "r.west/m/index.docker.io/library/nginx:1@sha256:a" {
		t.Errorf("rewritten to %s", to)
	}
}
