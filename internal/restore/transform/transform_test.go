package transform

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"

	"davit.dev/davit/internal/restore/shape"
)

const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop","labels":{"app":"web","tier":"front"}},
"spec":{"replicas":3,"template":{"spec":{"initContainers":[{"name":"init","image":"busybox"}],
"containers":[{"name":"c","image":"registry.east:5000/shop/web:1.2@sha256:aa"},{"name":"side","image":"nginx:1"}],
"volumes":[{"name":"model","image":{"reference":"registry.east:5000/models/a:1"}}]}}}}`

func object(t testing.TB, raw string) Object {
	t.Helper()
	d, err := shape.Decode([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	gv, err := schema.ParseGroupVersion(shape.Text(d, "apiVersion"))
	if err != nil {
		t.Fatal(err)
	}
	kind := schema.GroupKind{Group: gv.Group, Kind: shape.Text(d, "kind")}
	return Object{Kind: kind, Resource: strings.ToLower(kind.Kind) + "s", Document: d}
}

func must(t testing.TB, text string) *Set {
	t.Helper()
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(nil, Source{Name: "test", Rules: d.Rules})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// changed is the object after one rule, and whether that had matched.
func changed(t testing.TB, raw, rule string) (Object, bool, error) {
	t.Helper()
	o := object(t, raw)
	hit := false
	err := must(t, "rules:\n- name: r\n  "+strings.ReplaceAll(strings.TrimSpace(rule), "\n", "\n  ")).Apply(o, func(int) { hit = true })
	return o, hit, err
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name, match string
		want        bool
	}{
		{"everything", `{}`, true},
		{"resource and group", `{kinds: [deployments.apps]}`, true},
		{"pattern", `{kinds: ["*.apps"]}`, true},
		{"any", `{kinds: ["*"]}`, true},
		{"kind", `{kinds: [Deployment]}`, true},
		{"kind and group", `{kinds: [deployment.apps]}`, true},
		{"another kind", `{kinds: [secrets]}`, false},
		{"namespace", `{namespaces: [other, "sh*"]}`, true},
		{"another namespace", `{namespaces: [shop2]}`, false},
		{"name", `{names: ["*eb"]}`, true},
		{"another name", `{names: [webs]}`, false},
		{"labels", `{labelSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: In, values: [front]}]}}`, true},
		{"other labels", `{labelSelector: {matchLabels: {app: db}}}`, false},
		{"condition", `{condition: "object.spec.replicas > 2 && object.metadata.labels['app'] == 'web'"}`, true},
		{"condition that does not hold", `{condition: "object.spec.replicas < 2"}`, false},
		{"guarded", `{condition: "has(object.spec.paused) && object.spec.paused"}`, false},
		{"comprehension", `{condition: "object.spec.template.spec.containers.exists(c, c.image.startsWith('registry.east'))"}`, true},
		{"one of them does not", `{kinds: [deployments.apps], names: [db]}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, hit, err := changed(t, deployment, "match: "+c.match+"\nmergePatch: '{spec: {replicas: 9}}'")
			n, _ := shape.Number(o.Document, "spec", "replicas")
			if err != nil || hit != c.want || (n == 9) != c.want {
				t.Errorf("matched %v, replicas %d, error %v; want %v", hit, n, err, c.want)
			}
		})
	}
}

func TestRefusedWhenCompiled(t *testing.T) {
	for _, c := range []struct{ name, rule, says string }{
		{"nothing to do", `match: {}`, "does nothing"},
		{"empty kind", `match: {kinds: [""]}`, "is empty"},
		{"bad selector", `match: {labelSelector: {matchExpressions: [{key: a, operator: Like}]}}`, "labelSelector"},
		{"CEL that does not parse", `match: {condition: "object.spec ="}`, "condition"},
		{"unknown variable", `match: {condition: "oldObject.spec.x == 1"}`, "undeclared reference"},
		{"not a truth", `match: {condition: "'a'"}`, "must be true or false"},
		{"wrong types", `match: {condition: "'a' + 1 == 2"}`, "no matching overload"},
		{"patch that is none", `jsonPatch: "{}"`, "list of operations"},
		{"unknown operation", `jsonPatch: "[{op: put, path: /a, value: 1}]"`, "is no operation"},
		{"no value", `jsonPatch: "[{op: add, path: /a}]"`, "has no value"},
		{"no from", `jsonPatch: "[{op: move, path: /a}]"`, "has no from"},
		{"relative path", `jsonPatch: "[{op: remove, path: a}]"`, "slash"},
		{"the whole", `jsonPatch: "[{op: replace, path: '', value: {}}]"`, "whole object"},
		{"merge of a list", `mergePatch: "[1]"`, "want an object"},
		{"image without host", `images: [{from: nginx, to: registry.west/nginx}]`, "registry's host"},
		{"image with tag", `images: [{from: "docker.io/library/nginx:1", to: registry.west/nginx}]`, "tag"},
		{"host with scheme", `hosts: [{from: "https://a.example", to: b.example}]`, "without scheme"},
		{"suffix to name", `hosts: [{from: .east.example, to: west.example}]`, "suffix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Parse([]byte("rules:\n- name: r\n  " + c.rule))
			if err != nil {
				t.Fatal(err)
			}
			s, err := Compile(nil, Source{Name: "file f", Rules: d.Rules})
			if err == nil || s != nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), `file f: rule "r"`) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"", "rules: []", "rule: [{name: a}]", "rules: [{nme: a}]", "rules: [{name: a, match: {kind: x}}]", "- a", "rules: {", strings.Repeat(" ", maxDocument+1)} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%.20q was taken", text)
		}
	}
}

func TestFailsOnAnObject(t *testing.T) {
	const secret = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"pw","namespace":"shop"},"data":{"k":"aHVudGVyMg=="}}`
	for _, c := range []struct{ name, raw, rule, says string }{
		{"no such path", deployment, `jsonPatch: "[{op: test, path: /spec/replicas, value: 3}, {op: replace, path: /spec/none/x, value: 1}]"`, "operation 2 (replace /spec/none/x): the object has no such field"},
		{"test", deployment, `jsonPatch: "[{op: test, path: /spec/replicas, value: 7}]"`, "operation 1 (test /spec/replicas): the object has another value"},
		{"no such key", deployment, "match: {condition: object.spec.none == 1}\nmergePatch: '{spec: {a: 1}}'", "has()"},
		{"name", deployment, `mergePatch: "{metadata: {name: other}}"`, "may not change metadata.name"},
		{"no metadata", deployment, `mergePatch: "{metadata: null}"`, "may not change metadata.name"},
		{"namespace", deployment, `jsonPatch: "[{op: replace, path: /metadata/namespace, value: other}]"`, "namespace mapping"},
		{"kind", deployment, `mergePatch: "{kind: DaemonSet}"`, "may not change kind"},
		{"version", deployment, `mergePatch: "{apiVersion: apps/v1beta1}"`, "may not change apiVersion"},
		{"Davit's label", deployment, `mergePatch: '{metadata: {labels: {davit.dev/restore: x}}}'`, "Davit's own marks"},
		{"Davit's annotation", deployment, `mergePatch: '{metadata: {annotations: {davit.dev/filled-from: x}}}'`, "Davit's own marks"},
		{"Secret's condition", secret, "match: {condition: \"object.data[object.data.k] == ''\"}\nmergePatch: '{a: 1}'", "this Secret"},
		{"Secret's patch", secret, `jsonPatch: "[{op: test, path: /data/k, value: x}]"`, "another value"},
		{"too costly", deployment, "match: {condition: \"[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, object.spec.replicas > a - b - c - d - e - f))))))\"}\nmergePatch: '{a: 1}'", "cost limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := changed(t, c.raw, c.rule)
			var rule *Error
			if !errors.As(err, &rule) || rule.Rule != `test: rule "r"` || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v", err)
			}
			if strings.Contains(err.Error(), "aHVudGVyMg") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("tells the Secret: %v", err)
			}
		})
	}
}

func TestPatches(t *testing.T) {
	o, _, err := changed(t, deployment, `
jsonPatch: |
  - {op: add, path: /spec/template/spec/nodeSelector, value: {disk: ssd}}
  - {op: remove, path: /spec/template/spec/volumes}
  - {op: copy, from: /spec/replicas, path: /spec/revisionHistoryLimit}
  - {op: add, path: /spec/template/spec/containers/-, value: {name: log, image: log}}
mergePatch: |
  metadata: {labels: {tier: null, site: west}}
  spec: {minReadySeconds: 12345678901234567}`)
	if err != nil {
		t.Fatal(err)
	}
	labels := shape.Child(o.Document, "metadata", "labels")
	if !cmp.Equal(labels, shape.Document{"app": "web", "site": "west"}) {
		t.Errorf("labels %v", labels)
	}
	spec := shape.Child(o.Document, "spec")
	if n, _ := shape.Number(spec, "minReadySeconds"); n != 12345678901234567 {
		t.Errorf("a number lost digits: %v", spec["minReadySeconds"])
	}
	pod := shape.Child(spec, "template", "spec")
	if len(shape.Items(pod, "containers")) != 3 || pod["volumes"] != nil || shape.Text(pod, "nodeSelector", "disk") != "ssd" || spec["revisionHistoryLimit"] != int64(3) {
		t.Errorf("spec %v", spec)
	}
}

// Objects must not share what a merge patch adds.
func TestMergeIsNotShared(t *testing.T) {
	s := must(t, "rules: [{name: r, mergePatch: '{spec: {list: [{a: 1}]}}'}]")
	a, b := object(t, deployment), object(t, deployment)
	if err := errors.Join(s.Apply(a, nil), s.Apply(b, nil)); err != nil {
		t.Fatal(err)
	}
	shape.Items(a.Document, "spec", "list")[0]["a"] = int64(2)
	if got := shape.Items(b.Document, "spec", "list")[0]["a"]; got != int64(1) {
		t.Errorf("the other object has %v", got)
	}
}

func TestOrder(t *testing.T) {
	s, err := Compile(&Mirror{Base: "registry.west/m"},
		Source{Name: "overlay o", Rules: []Rule{{Name: "a", MergePatch: "{spec: {replicas: 1, a: 1}}"}}},
		Source{Name: "file f", Rules: []Rule{{Name: "b", Match: Match{Condition: "object.spec.a == 1"}, MergePatch: "{spec: {replicas: 2}}"}}})
	if err != nil {
		t.Fatal(err)
	}
	o := object(t, deployment)
	var order []int
	if err := s.Apply(o, func(i int) { order = append(order, i) }); err != nil {
		t.Fatal(err)
	}
	if n, _ := shape.Number(o.Document, "spec", "replicas"); n != 2 || !cmp.Equal(order, []int{0, 1}) || s.Title(1) != `file f: rule "b"` {
		t.Errorf("replicas %d, order %v, title %s", n, order, s.Title(1))
	}
	if got := imagesOf(o)[0]; got != "registry.west/m/registry.east-5000/shop/web:1.2@sha256:aa" {
		t.Errorf("image %s", got)
	}
}

// imagesOf lists containers, init containers and volumes.
func imagesOf(o Object) []string {
	var all []string
	pod := shape.Child(o.Document, "spec", "template", "spec")
	for _, list := range []string{"containers", "initContainers"} {
		for _, c := range shape.Items(pod, list) {
			all = append(all, shape.Text(c, "image"))
		}
	}
	for _, v := range shape.Items(pod, "volumes") {
		all = append(all, shape.Text(v, "image", "reference"))
	}
	return all
}

func TestImages(t *testing.T) {
	o, hit, err := changed(t, deployment, `
images:
- {from: "registry.east:5000", to: registry.west/east}
- {from: "registry.east:5000/models", to: registry.west/models}
- {from: docker.io/library/busybox, to: registry.west/tools/busybox}`)
	want := []string{"registry.west/east/shop/web:1.2@sha256:aa", "nginx:1", "registry.west/tools/busybox", "registry.west/models/a:1"}
	if got := imagesOf(o); err != nil || !hit || !cmp.Equal(got, want) {
		t.Errorf("error %v, matched %v: %s", err, hit, cmp.Diff(want, got))
	}
	const rollout = `{"apiVersion":"example.com/v1","kind":"Database","metadata":{"name":"d","namespace":"shop"},
"spec":{"members":[{"pod":{"spec":{"ephemeralContainers":[{"name":"e","image":"quay.io/a/b"}]}}}],"containers":[{"image":"quay.io/no/name"},7],"image":"quay.io/a/b"}}`
	o, _, err = changed(t, rollout, `images: [{from: quay.io, to: "registry.west:443"}]`)
	raw, _ := json.Marshal(o.Document)
	if err != nil || strings.Count(string(raw), "registry.west:443/a/b") != 1 || !strings.Contains(string(raw), "quay.io/no/name") {
		t.Errorf("error %v: %s", err, raw)
	}
	for _, c := range []struct{ from, to, image, want string }{
		{"docker.io", "r.west", "nginx", "r.west/library/nginx"},
		{"docker.io", "r.west", "index.docker.io/a/b:1", "r.west/a/b:1"},
		{"docker.io", "r.west", "localhost/a", "localhost/a"},
		{"quay.io/a", "r.west", "quay.io/ab/c", "quay.io/ab/c"},
		{"quay.io/a", "r.west/", "quay.io/a", "r.west"},
		{"docker.io", "docker.io/mirror", "a/b", "docker.io/mirror/a/b"},
		{"docker.io", "docker.io/mirror", "docker.io/mirror/a/b", "docker.io/mirror/a/b"},
		{"quay.io", "r.west", "quay.io:5000/a", "quay.io:5000/a"},
	} {
		if got, _ := mapImage([]Mapping{{c.from, strings.TrimSuffix(c.to, "/")}}, c.image); got != c.want {
			t.Errorf("%s to %s: %s became %s, want %s", c.from, c.to, c.image, got, c.want)
		}
	}
}

func TestMirror(t *testing.T) {
	m := &Mirror{Base: "registry.west:5000/m/", Digests: map[string]string{"docker.io/library/nginx:1": "sha256:bb", "quay.io/a/b:2@sha256:cc": "sha256:cc"}}
	if err := m.check(); err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]string{
		"nginx:1":                          "registry.west:5000/m/index.docker.io/library/nginx:1@sha256:bb",
		"quay.io/a/b:2@sha256:cc":          "registry.west:5000/m/quay.io/a/b:2@sha256:cc",
		"registry.east:5000/x":             "registry.west:5000/m/registry.east-5000/x",
		"registry.west:5000/m/quay.io/a/b": "registry.west:5000/m/quay.io/a/b",
	} {
		if got := m.Copy(image); got != want || m.Copy(got) != got {
			t.Errorf("%s became %s, and that %s; want %s", image, got, m.Copy(got), want)
		}
	}
	if _, err := Compile(&Mirror{Base: "west"}); err == nil {
		t.Error("a mirror without a host was taken")
	}
}

func TestHosts(t *testing.T) {
	const rule = `hosts: [{from: .east.example.com, to: .west.example.com}, {from: shop.example.com, to: shop.dr.example.com}, {from: .a.east.example.com, to: .b.example.com}]`
	for _, c := range []struct{ name, raw, want string }{
		{
			"Ingress", `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"i","namespace":"shop"},"spec":{"rules":[{"host":"shop.example.com"},{"host":"*.east.example.com"},{"host":"x.a.east.example.com"},{}],"tls":[{"hosts":["api.east.example.com","other.org"]}]}}`,
			`{"rules":[{"host":"shop.dr.example.com"},{"host":"*.west.example.com"},{"host":"x.b.example.com"},{}],"tls":[{"hosts":["api.west.example.com","other.org"]}]}`,
		},
		{
			"HTTPRoute", `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"i","namespace":"shop"},"spec":{"hostnames":["a.east.example.com"],"rules":[{"filters":[{"requestRedirect":{"hostname":"shop.example.com"}}]}]}}`,
			`{"hostnames":["a.west.example.com"],"rules":[{"filters":[{"requestRedirect":{"hostname":"shop.dr.example.com"}}]}]}`,
		},
		{"TLSRoute", `{"apiVersion":"gateway.networking.k8s.io/v1alpha2","kind":"TLSRoute","metadata":{"name":"i","namespace":"shop"},"spec":{"hostnames":["a.east.example.com"]}}`, `{"hostnames":["a.west.example.com"]}`},
		{"Gateway", `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"i","namespace":"shop"},"spec":{"listeners":[{"hostname":"*.east.example.com"},{"name":"any"}]}}`, `{"listeners":[{"hostname":"*.west.example.com"},{"name":"any"}]}`},
	} {
		o, hit, err := changed(t, c.raw, rule)
		got, _ := json.Marshal(o.Document["spec"])
		if err != nil || !hit || string(got) != c.want {
			t.Errorf("%s: matched %v, error %v: %s", c.name, hit, err, got)
		}
	}
	if _, hit, _ := changed(t, deployment, rule); hit {
		t.Error("a Deployment has no host names")
	}
}

func TestClasses(t *testing.T) {
	const rule = `storageClasses: {fast: standard, "": big}`
	const claim = `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"c","namespace":"shop"},"spec":{"storageClassName":"fast"}}`
	o, hit, err := changed(t, claim, rule)
	if err != nil || !hit || shape.Text(o.Document, "spec", "storageClassName") != "standard" {
		t.Errorf("%v %v %v", hit, err, o.Document)
	}
	const set = `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"c","namespace":"shop"},"spec":{"volumeClaimTemplates":[{"spec":{"storageClassName":"fast"}},{"spec":{}},{"spec":{"storageClassName":"own"}}]}}`
	o, _, _ = changed(t, set, rule)
	var got []string
	for _, c := range shape.Items(o.Document, "spec", "volumeClaimTemplates") {
		got = append(got, shape.Text(c, "spec", "storageClassName"))
	}
	if !cmp.Equal(got, []string{"standard", "big", "own"}) {
		t.Errorf("%v", got)
	}
}

// TestTransformThenStrip: what a rule sets of the cluster's own goes again, and
// what comes out is stripped already, and the same rules change it no further.
func TestTransformThenStrip(t *testing.T) {
	kinds := []schema.GroupKind{shape.KindDeployment, shape.KindService, shape.KindClaim, shape.KindPod, shape.KindJob, shape.KindNamespace, shape.KindStatefulSet, {Group: "x.example", Kind: "Y"}}
	text := rapid.SampledFrom([]string{"a", "nginx", "docker.io/x", "r.west/x", "10.0.0.1", "a.east.example.com", "None"})
	number := rapid.Int64Range(0, 3)
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		d := shape.Document{"apiVersion": kind.Group + "/v1", "kind": kind.Kind, "metadata": shape.Document{
			"name": "n", "namespace": "shop", "uid": text.Draw(t, "uid"), "generateName": "n-", "labels": shape.Document{"controller-uid": "u", "a": text.Draw(t, "label")},
		}, "spec": shape.Document{
			"clusterIP": text.Draw(t, "ip"), "nodeName": text.Draw(t, "node"), "volumeName": "pv", "replicas": number.Draw(t, "n"),
			"ports":      []any{shape.Document{"port": int64(1), "nodePort": number.Draw(t, "port")}},
			"containers": []any{shape.Document{"name": "c", "image": text.Draw(t, "image")}},
		}, "status": shape.Document{"x": "y"}}
		patch, err := json.Marshal(shape.Document{
			"metadata": shape.Document{"uid": "forged", "resourceVersion": "7", "ownerReferences": []any{shape.Document{"uid": "gone"}}, "labels": shape.Document{"a": text.Draw(t, "new")}},
			"spec":     shape.Document{"clusterIP": text.Draw(t, "ip2"), "nodeName": "n2", "volumeName": "pv2", "replicas": number.Draw(t, "n2")},
			"status":   shape.Document{"x": "forged"},
		})
		if err != nil {
			t.Fatal(err)
		}
		set, err := Compile(nil, Source{Name: "s", Rules: []Rule{
			{Name: "merge", MergePatch: string(patch)},
			{Name: "map", Images: []Mapping{{"docker.io", "r.west"}}, Hosts: []Mapping{{".east.example.com", ".west.example.com"}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		opts := shape.Options{NodePorts: rapid.Bool().Draw(t, "keep ports")}
		once := func(d shape.Document) shape.Document {
			d = runtime.DeepCopyJSON(d)
			shape.Strip(kind, d, opts)
			if err := set.Apply(Object{Kind: kind, Resource: "ys", Document: d}, nil); err != nil {
				t.Fatal(err)
			}
			shape.Strip(kind, d, opts)
			return d
		}
		first := once(d)
		again := runtime.DeepCopyJSON(first)
		shape.Strip(kind, again, opts)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatalf("stripped again it differs:\n%s", diff)
		}
		if diff := cmp.Diff(first, once(first)); diff != "" {
			t.Fatalf("transformed again it differs:\n%s", diff)
		}
		meta := shape.Child(first, "metadata")
		if meta["uid"] != nil || meta["ownerReferences"] != nil || first["status"] != nil {
			t.Fatalf("a rule forged %v", first)
		}
	})
}

// FuzzRules: whatever people write is refused, or does what it may to an
// object, which keeps its identity.
func FuzzRules(f *testing.F) {
	f.Add("rules: [{name: a, mergePatch: '{spec: {a: 1}}'}]")
	f.Add("rules: [{name: a, jsonPatch: '[{op: add, path: /spec/x/-, value: [1]}, {op: move, from: /spec, path: /metadata/a}]'}]")
	f.Add("rules: [{name: a, jsonPatch: '[{op: copy, from: \"\", path: /spec/x}]', match: {condition: 'object.spec.replicas > 1', names: ['*']}}]")
	f.Add("rules: [{name: a, images: [{from: docker.io, to: 'r.west:5/x'}], hosts: [{from: .a, to: .b}], storageClasses: {a: b}}]")
	f.Add("mirrorImagesFrom: r.west")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse([]byte(text))
		if err != nil {
			return
		}
		var mirror *Mirror
		if d.MirrorImagesFrom != "" {
			mirror = &Mirror{Base: d.MirrorImagesFrom}
		}
		s, err := Compile(mirror, Source{Name: "fuzz", Rules: d.Rules})
		if err != nil {
			return
		}
		for _, raw := range []string{deployment, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"a":"b"},"spec":[1,{"containers":[null,{"image":1}]}]}`} {
			o := object(t, raw)
			if err := s.Apply(o, func(i int) { _ = s.Title(i) }); err != nil {
				continue
			}
			if was := object(t, raw); shape.Text(o.Document, "metadata", "name") != shape.Text(was.Document, "metadata", "name") || shape.Text(o.Document, "kind") != was.Kind.Kind {
				t.Fatalf("became %v", o.Document)
			}
		}
	})
}

func FuzzParseReference(f *testing.F) {
	for _, image := range []string{"nginx", "a/b:1@sha256:x", "localhost:5000/a", "index.docker.io/x", ":", "@", "/", "a.b//c:d/e"} {
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, image string) {
		m := Mirror{Base: "r.west/m"}
		if to := m.Copy(image); m.Copy(to) != to {
			t.Errorf("%q becomes %q and then %q", image, to, m.Copy(to))
		}
	})
}

func TestWhatIsCalledOtherwiseAtTheTarget(t *testing.T) {
	const ingress = `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"web","annotations":{"kubernetes.io/ingress.class":"nginx"}},"spec":{"ingressClassName":"nginx"}}`
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"db"},"spec":{"nodeSelector":{"disk":"nvme","zone":"a"},"affinity":{
		"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"disk","operator":"In","values":["nvme","hdd"]},{"key":"rack","operator":"Exists"}]}]},
			"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"preference":{"matchExpressions":[{"key":"zone","operator":"In","values":["a"]}]}}]},
		"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"rack"}]}},
		"topologySpreadConstraints":[{"topologyKey":"rack"}]}}`
	for _, c := range []struct {
		name, object, rule, want string
		hit                      bool
	}{
		{"class", ingress, "ingressClasses: {nginx: traefik}", `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"annotations":{"kubernetes.io/ingress.class":"traefik"},"name":"web"},"spec":{"ingressClassName":"traefik"}}`, true},
		{"another class", ingress, "ingressClasses: {haproxy: traefik}", "", false},
		{"done already", ingress, "ingressClasses: {haproxy: nginx}", "", true},
		{"no Ingress", pod, "ingressClasses: {nginx: traefik}", "", false},
		{"value", pod, "nodeLabels: [{from: disk=nvme, to: disk=ssd}]", strings.NewReplacer(`"disk":"nvme"`, `"disk":"ssd"`, `["nvme","hdd"]`, `["ssd","hdd"]`).Replace(pod), true},
		{"key and value", pod, "nodeLabels: [{from: zone=a, to: place=west}]", strings.NewReplacer(`"zone":"a"`, `"place":"west"`, `{"key":"zone","operator":"In","values":["a"]}`, `{"key":"place","operator":"In","values":["west"]}`).Replace(pod), true},
		{"one value of several", pod, "nodeLabels: [{from: disk=hdd, to: store=slow}]", "", false},
		{"key", pod, "nodeLabels: [{from: rack, to: row}]", strings.NewReplacer(`"key":"rack"`, `"key":"row"`, `"topologyKey":"rack"`, `"topologyKey":"row"`).Replace(pod), true},
		{"swapped", pod, "nodeLabels: [{from: disk, to: zone}, {from: zone, to: disk}]", strings.NewReplacer(`{"disk":"nvme","zone":"a"}`, `{"disk":"a","zone":"nvme"}`, `"key":"disk"`, `"key":"zone"`, `"key":"zone"`, `"key":"disk"`).Replace(pod), true},
		{"no pod", ingress, "nodeLabels: [{from: rack, to: row}]", "", false},
	} {
		o, hit, err := changed(t, c.object, c.rule)
		want := c.want
		if want == "" {
			want = c.object
		}
		if diff := cmp.Diff(object(t, want).Document, o.Document); err != nil || hit != c.hit || diff != "" {
			t.Errorf("%s: matched %t, %v\n%s", c.name, hit, err, diff)
		}
	}
	for _, bad := range []string{"nodeLabels: [{from: a, to: b=c}]", "nodeLabels: [{from: '', to: b}]", "nodeLabels: [{from: 'a=', to: b=c}]"} {
		d, err := Parse([]byte("rules:\n- name: r\n  " + bad))
		if err == nil {
			_, err = Compile(nil, Source{Name: "test", Rules: d.Rules})
		}
		if err == nil {
			t.Errorf("%s: compiled", bad)
		}
	}
}
