package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"davit.dev/davit/demo/stage"
)

// pushTool brings the image of the tests' pods into a registry of the bed.
func pushTool(t *testing.T, reference string) {
	t.Helper()
	tars, err := filepath.Glob(filepath.Join(stage.CacheDir(), "images", "bed-bedtool-1-*.tar"))
	if err != nil || len(tars) == 0 {
		t.Fatalf("find the image of bedtool: %v", err)
	}
	image, err := tarball.ImageFromPath(tars[len(tars)-1], nil)
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, image, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// file writes one for a test.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const reached = `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: %[1]s}
spec:
  rules: [{host: shop.east.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: db, port: {number: 80}}}}]}}]
  tls: [{hosts: [shop.east.example.com], secretName: tls}]
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: %[1]s}
stringData: {password: correct-horse}
`

const west1 = `
rules:
- name: registry
  images: [{from: davit.test, to: %s/copies}]
- name: hosts
  hosts: [{from: .east.example.com, to: .west.example.com}]
- name: colour
  match: {kinds: [configmaps], condition: "has(object.data) && 'colour' in object.data && object.data['colour'] == 'green'"}
  jsonPatch: |
    - {op: replace, path: /data/colour, value: blue}
`

// transformed makes a copy with other images, hosts and settings, and asks
// beforehand what would be done, and then what it would take to have it so again.
func transformed(t *testing.T) {
	a := &app{name: short(t)}
	a.more = fmt.Sprintf(reached, a.name)
	sum, _ := a.protected(t)
	registry, copied := rig.Bed.Site(west).Registry(), a.name+"-copy"
	pushTool(t, registry+"/copies/bedtool:1")
	rules := file(t, fmt.Sprintf(west1, registry))

	bad := file(t, "rules: [{name: wrong, match: {kinds: [configmaps]}, jsonPatch: '[{op: remove, path: /data/none}]'}]")
	a.clone(t, copied, "--transform", bad).want(t, 3, `rule "wrong"`, "operation 1 (remove /data/none)", "nothing was changed")
	a.clone(t, copied, "--transform", rules, "--dry-run").want(t, 0, "create StatefulSet.apps "+copied+"/db", "create Namespace "+copied, "file "+rules)
	absent(t, west, copied)

	a.clone(t, copied, "--transform", rules).want(t, 0)
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the copy's data is %s, want %s", got, sum)
	}
	get := func(site, namespace, what, path string) string {
		return kubectl(t, site, "-n", namespace, "get", what, "-o", "jsonpath={"+path+"}")
	}
	for _, c := range []struct{ what, path, want string }{
		{"pod/db-0", ".spec.initContainers[0].image", registry + "/copies/bedtool:1"},
		{"ingress/web", ".spec.rules[0].host", "shop.west.example.com"},
		{"ingress/web", ".spec.tls[0].hosts[0]", "shop.west.example.com"},
		{"configmap/settings", ".data.colour", "blue"},
	} {
		if got := get(west, copied, c.what, c.path); got != c.want {
			t.Errorf("%s of %s is %q, want %q", c.path, c.what, got, c.want)
		}
	}

	kubectl(t, west, "-n", copied, "patch", "configmap", "settings", "-p", `{"data":{"colour":"red"}}`)
	kubectl(t, west, "-n", copied, "patch", "secret", "password", "-p", `{"stringData":{"password":"battery-staple"}}`)
	dry := a.clone(t, copied, "--transform", rules, "--existing", "update", "--dry-run", "--diff")
	dry.want(t, 0, "- colour: red + colour: blue", "+ password: (hidden, differs)", "continue Ingress.networking.k8s.io "+copied+"/web", "update Secret "+copied+"/password")
	for _, secret := range []string{"correct-horse", "battery-staple", "Y29ycmVjd", "YmF0dGVye"} {
		if strings.Contains(dry.all(), secret) {
			t.Errorf("the diff shows the Secret:\n%s", dry.all())
		}
	}
	if got := get(west, copied, "configmap/settings", ".data.colour"); got != "red" {
		t.Errorf("the dry run changed the colour to %s", got)
	}
	var plan struct {
		Plan []struct{ Object, Action, Diff string } `json:"plan"`
	}
	a.clone(t, copied, "--transform", rules, "--existing", "update", "--dry-run", "--diff", "-o", "json").want(t, 0).read(t, &plan)
	for _, p := range plan.Plan {
		if changed := p.Object == "ConfigMap "+copied+"/settings" || p.Object == "Secret "+copied+"/password"; changed != (p.Action == "update") || changed != (p.Diff != "") {
			t.Errorf("planned %+v", p)
		}
	}
	a.clone(t, copied, "--transform", rules, "--existing", "update").want(t, 0)
	if got := get(west, copied, "configmap/settings", ".data.colour"); got != "blue" {
		t.Errorf("after the update the colour is %s, want blue", got)
	}
}

// mirrored copies the images of an application from its site's registry to the
// other's, and has a copy take them from there, which is asked before.
func mirrored(t *testing.T) {
	own, registry := rig.Bed.Site(east).Registry(), rig.Bed.Site(west).Registry()
	a := &app{name: short(t), image: own + "/tools/bedtool:1"}
	pushTool(t, a.image)
	sum, _ := a.protected(t)
	base, copied := registry+"/"+a.name, a.name+"-copy"
	from := []string{"--mirror-images-from", base, "--insecure-registry", registry}
	a.clone(t, copied, append(from, "--dry-run")...).want(t, 4, "the mirror does not have "+base+"/", "davit images mirror "+a.name+" --to "+base)
	mirror := []string{"images", "mirror", a.name, "--to", base, "--insecure-registry", own, "--insecure-registry", registry}
	davit(t, east, a.vault, append(mirror, "--dry-run")...).want(t, 0)
	a.clone(t, copied, append(from, "--dry-run")...).want(t, 4, "the mirror does not have "+base+"/")
	davit(t, east, a.vault, mirror...).want(t, 0)
	davit(t, east, a.vault, mirror...).want(t, 0) // what is there is not sent again
	pulledAhead(t, a, base)
	a.clone(t, copied, from...).want(t, 0, "mirror "+base)
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the copy's data is %s, want %s", got, sum)
	}
	image := kubectl(t, west, "-n", copied, "get", "pod", "db-0", "-o", "jsonpath={.spec.containers[0].image}")
	ran := kubectl(t, west, "-n", copied, "get", "pod", "db-0", "-o", "jsonpath={.status.containerStatuses[0].imageID}")
	was := kubectl(t, east, "-n", a.name, "get", "pod", "db-0", "-o", "jsonpath={.status.containerStatuses[0].imageID}")
	if _, digest, ok := strings.Cut(was, "@"); !strings.HasPrefix(image, base+"/") || !ok || !strings.HasSuffix(ran, digest) {
		t.Errorf("the pod's image is %s and ran as %s; at east it was %s", image, ran, was)
	}
}

// pulledAhead has west's node pull the image of a plan that says so, under the name that the plan
// gives it there, before anything runs there.
func pulledAhead(t *testing.T, a *app, base string) {
	t.Helper()
	file := planOf(t, a, "5s")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	own, _, _ := strings.Cut(a.image, "/")
	plan := strings.NewReplacer("metadata: {name: "+a.name+"}", "metadata: {name: "+a.name+", annotations: {davit.dev/pull-images: 'true'}}",
		"{name: west}", "{name: west, mappings: [{kind: image, from: '"+own+"', to: '"+base+"/"+strings.ReplaceAll(own, ":", "-")+"'}]}").Replace(string(text))
	pull := []string{"images", "pull", a.name, "--mirror", base}
	davit(t, west, a.vault, append(pull, "--dry-run")...).want(t, 4, "0 of 1", "it is not there")
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "delete", "recoveryplan", "--ignore-not-found", a.name)
	})
	apply(t, west, plan)
	eventually(t, 3*time.Minute, "west's node has the plan's image, as its agent had it pulled", func() (bool, string) {
		got := davit(t, west, a.vault, "images", "pull", "--plan", a.name, "--dry-run")
		return got.code == 0 && strings.Contains(got.out, "1 of 1"), got.all()
	})
	davit(t, west, a.vault, pull...).want(t, 0, "1 of 1")
}

// overlaid restores in place where the site says what is different there: by
// the person's own hand, and by the agent's.
func overlaid(t *testing.T) {
	a := &app{}
	_, _ = a.protected(t)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), east, "-n", system, "delete", "configmap", a.name, "--ignore-not-found")
	})
	apply(t, east, fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata: {name: %[1]s, namespace: davit-system, labels: {davit.dev/overlay: "true"}}
data:
  rules.yaml: |
    applications: [%[1]s]
    rules: [{name: purple, match: {names: [settings]}, mergePatch: "{data: {colour: purple}}"}]
`, a.name))
	colour := func() string {
		return kubectl(t, east, "-n", a.name, "get", "configmap", "settings", "-o", "jsonpath={.data.colour}")
	}
	update := []string{"restore", a.name, "--yes", "--existing", "update"}
	davit(t, east, a.vault, append(update, "--dry-run", "--diff")...).want(t, 4, "overlays overlay "+a.name, "- colour: green + colour: purple")
	davit(t, east, a.vault, append(update, "--dry-run", "--no-overlays")...).want(t, 4, "unchanged ConfigMap "+a.name+"/settings")
	davit(t, east, a.vault, append(update, "--background")...).want(t, 4, "overlay "+a.name)
	if got := colour(); got != "purple" {
		t.Errorf("the agent's restore left the colour at %s, want purple", got)
	}
	davit(t, east, a.vault, append(update, "--no-overlays")...).want(t, 4)
	if got := colour(); got != "green" {
		t.Errorf("without overlays the colour is %s, want green", got)
	}
}
