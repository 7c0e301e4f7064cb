package restore

import (
	"fmt"
	"strings"
	"testing"

	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
)

func rules(t *testing.T, rules ...transform.Rule) *transform.Set {
	t.Helper()
	s, err := transform.Compile(nil, transform.Source{Name: "test", Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTransforms: rules see objects in their namespace at the target, stripped,
// and what they set of the cluster's own does not get through.
func TestTransforms(t *testing.T) {
	r := newRig()
	set := rules(t,
		transform.Rule{Name: "web", Match: transform.Match{Kinds: []string{"deployments.apps"}, Namespaces: []string{"copy"}, Condition: "!has(object.status) && object.spec.replicas == 2"}, JSONPatch: "[{op: replace, path: /spec/replicas, value: 1}]"},
		transform.Rule{Name: "class", StorageClasses: map[string]string{"fast": "slow"}},
		transform.Rule{Name: "forged", Match: transform.Match{Kinds: []string{"ConfigMap"}}, MergePatch: "{metadata: {uid: forged, ownerReferences: [{uid: gone, name: n, kind: K, apiVersion: v1}]}}"},
		transform.Rule{Name: "node", Match: transform.Match{Kinds: []string{"StatefulSet"}}, MergePatch: "{spec: {template: {spec: {nodeSelector: {disk: hdd}}}}}"},
	)
	opts := Options{NamespaceMapping: map[string]string{"shop": "copy"}, Transforms: set}
	r.c.put("storage.k8s.io/v1", "StorageClass", "", "slow", shape.Document{"provisioner": "csi.example.com"})
	found, err := r.engine(opts).Preflight(t.Context())
	if err != nil || len(Blocking(found)) > 0 {
		t.Fatalf("%v %v", err, found)
	}
	res := run(t, r, opts)
	if res.Failed > 0 {
		t.Fatalf("%+v", res.Failures)
	}
	if n, _ := shape.Number(r.c.get("Deployment", "copy", "web").Object, "spec", "replicas"); n != 1 {
		t.Errorf("replicas %d", n)
	}
	if got := shape.Text(r.c.get("PersistentVolumeClaim", "copy", "data-db-0").Object, "spec", "storageClassName"); got != "slow" {
		t.Errorf("storage class %s", got)
	}
	if cm := r.c.get("ConfigMap", "copy", "conf"); cm == nil || cm.GetUID() == "forged" || len(cm.GetOwnerReferences()) > 0 {
		t.Errorf("ConfigMap %v", cm)
	}
	if len(r.v.reqs) != 1 || shape.Text(r.v.reqs[0].PodSpec, "nodeSelector", "disk") != "hdd" {
		t.Errorf("the volume was filled for another pod: %v", r.v.reqs)
	}
	again := run(t, r, opts)
	if again.Created+again.Updated > 0 || len(again.Failures) > 0 {
		t.Errorf("again: %+v", again)
	}
}

func TestTransformsInPreflight(t *testing.T) {
	objects := []string{`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","uid":"u-ns"}}`}
	for i := range 20 {
		objects = append(objects, fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s%02d","namespace":"shop"},"data":{"password":"aHVudGVyMg=="}}`, i))
	}
	r := newRig()
	r.m, r.s = pointOf(objects...)
	for _, c := range []struct {
		name   string
		rules  []transform.Rule
		reason string
		says   string
	}{
		{"fails", []transform.Rule{{Name: "a", Match: transform.Match{Kinds: []string{"secrets"}}, JSONPatch: "[{op: test, path: /data/password, value: other}]"}, {Name: "b", MergePatch: "{a: 1}", Match: transform.Match{Names: []string{"none"}}}}, "TransformFails", `rule "a": fails on Secret shop/s00 (and on 19 more objects)`},
		{"unused", []transform.Rule{{Name: "a", Match: transform.Match{Names: []string{"none"}}, MergePatch: "{a: 1}"}}, "UnusedRule", `rule "a": matched no object`},
		{"no image", []transform.Rule{{Name: "a", Images: []transform.Mapping{{From: "docker.io", To: "r.west"}}}}, "UnusedRule", "nothing in those"},
		{"class", []transform.Rule{{Name: "ok", MergePatch: "{a: 1}"}}, "", ""},
	} {
		found, err := r.engine(Options{Transforms: rules(t, c.rules...)}).Preflight(t.Context())
		var mine []Finding
		for _, f := range found {
			if f.Check == "transforms" {
				mine = append(mine, f)
			}
		}
		if err != nil || len(mine) > 1 || (len(mine) == 1) != (c.reason != "") {
			t.Fatalf("%s: %v %v", c.name, err, mine)
		}
		if len(mine) == 1 && (mine[0].Reason != c.reason || !strings.Contains(mine[0].Message, c.says) || strings.Contains(mine[0].Message, "aHVudGVyMg")) {
			t.Errorf("%s: %+v", c.name, mine[0])
		}
	}
	if len(r.c.history) > 0 {
		t.Errorf("preflight wrote %v", r.c.history)
	}
}

// A storage class that a rule brings in is looked for before anything changes.
func TestTransformedClassIsChecked(t *testing.T) {
	r := newRig()
	found, err := r.engine(Options{Transforms: rules(t, transform.Rule{Name: "class", StorageClasses: map[string]string{"fast": "none"}})}).Preflight(t.Context())
	if err != nil || len(Blocking(found)) != 1 || !strings.Contains(Blocking(found)[0].Message, "no storage class none") {
		t.Errorf("%v %v", err, found)
	}
}
