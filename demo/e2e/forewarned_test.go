package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// missed is a workload of an image that its registry does not have, and an object of a kind that the target
// serves in another version.
const missed = `
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "%[2]s/nobody/has:1"}]}
`

// finds checks that one of the findings of a check is such a one.
func (v sitesView) finds(t *testing.T, check, verdict string, parts ...string) {
	t.Helper()
	var all []string
	for _, f := range v.Findings {
		text := f.Reason + "; do: " + f.Remedy
		found := f.Check == check && f.Verdict == verdict
		for _, part := range parts {
			found = found && strings.Contains(text, part)
		}
		if found {
			return
		}
		if f.Check == check {
			all = append(all, f.Verdict+": "+text)
		}
	}
	t.Errorf("%s does not find %s %q, but:\n%s", check, verdict, parts, strings.Join(all, "\n"))
}

// forewarned: what a target lacks is said long before, all of it at once, with what to do: storage class, mapped one, kind
// in its version, image, quota, the DNS key's right, a TTL, clocks, and the rights of whoever asks. Nothing of that is
// found once it was put right.
func forewarned(t *testing.T) {
	w := newWire(t)
	name := short(t)
	a := &app{name: name, vault: name, class: name}
	addVault(t, a.vault, bucket(t, a.vault+"-"+run, w.Endpoint), []string{east, west})
	class(t, east, a.class)
	registry := rig.Bed.Site(west).Registry()
	a.more = fmt.Sprintf(missed, name, registry)
	group := strings.ReplaceAll(name, "-", "")
	gadgets := func(site, version string) {
		t.Helper()
		apply(t, site, strings.NewReplacer("%[1]s", group, "%[2]s", version).Replace(definition))
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.Background(), site, "delete", "crd", "gadgets."+group+".example.com", "--ignore-not-found", "--wait=false")
		})
		kubectl(t, site, "wait", "--for=condition=Established", "--timeout=3m", "crd", "gadgets."+group+".example.com")
	}
	a.deploy(t)
	gadgets(east, "v1")
	gadgets(west, "v2")
	apply(t, east, "{apiVersion: "+group+".example.com/v1, kind: Gadget, metadata: {name: one, namespace: "+name+"}, spec: {x: 1}}")
	a.protect(t, "--exclude-kinds", "storageclasses.storage.k8s.io,customresourcedefinitions.apiextensions.k8s.io")
	a.backup(t)
	removeNamespace(t, west, name)
	apply(t, west, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+", labels: {davit-e2e: 'true'}}}")
	apply(t, west, "{apiVersion: v1, kind: ResourceQuota, metadata: {name: tight, namespace: "+name+"}, spec: {hard: {persistentvolumeclaims: '0', requests.storage: 1Mi}}}")

	f := newNames(t, "5397")
	good := f.plan(t, planOf(t, a, "5s"))
	kubectl(t, west, "-n", system, "create", "secret", "generic", name+"-other", "--from-literal=name=davit", "--from-literal=algorithm=hmac-sha256", "--from-literal=secret=bm90IHRoZSBrZXkgb2YgdGhlIHRlc3RzIGF0IGFsbCE=")
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), west, "-n", system, "delete", "secret", name+"-other", "--ignore-not-found")
	})
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	bad := configured(t, "bad.yaml", "%s", strings.NewReplacer("{name: west}", "{name: west, mappings: [{kind: storageClass, from: reflink, to: gone}]}",
		"zone: shop.test", "zone: shop.test\n        ttl: 1h", "secret: "+f.secret, "secret: "+name+"-other").Replace(string(text)))
	look := func(file string) (v sitesView) {
		t.Helper()
		davit(t, west, a.vault, "plan", "validate", file, "--sites", "--to", west, "--insecure-registry", registry, "-o", "json").read(t, &v)
		return v
	}
	w.skew(10 * time.Minute)
	v := look(bad)
	w.skew(0)
	v.finds(t, "storage-classes", "fail", "there is no storage class "+a.class+", which "+name+"/data-db-0 need", "map it in the plan")
	v.finds(t, "storage-classes", "fail", "maps storage class reflink to gone, which is not there")
	v.finds(t, "kinds", "fail", "serves gadgets."+group+".example.com as v2, and the point has it as v1")
	v.finds(t, "images", "fail", "no node has "+registry+"/nobody/has:1, and no registry", "davit images mirror")
	v.finds(t, "quotas", "fail", "quota "+name+"/tight is too small", "persistentvolumeclaims by 1", "requests.storage by 63 MiB", "raise the quota")
	v.finds(t, "dns", "fail", "www: "+f.host)
	v.finds(t, "ttl", "warn", wwwName+" gets a TTL of 1h", "write ttl: 1m in the plan")
	v.finds(t, "clock", "fail", "this machine's clock is -", "from the vault's", "mend time synchronisation")
	var s sitesView
	finish(t, a.person(t, "stranger", "")("plan", "validate", good, "--sites", "--to", west, "--registries=false", "-o", "json")).read(t, &s)
	s.finds(t, "rights", "fail", "stranger")

	class(t, west, a.class)
	kubectl(t, west, "delete", "crd", "gadgets."+group+".example.com")
	gadgets(west, "v1")
	kubectl(t, west, "-n", name, "delete", "resourcequota", "tight")
	kubectl(t, east, "-n", name, "delete", "deployment", "web")
	a.weakBackup(t)
	v = look(good)
	for _, check := range []string{"storage-classes", "kinds", "images", "quotas", "dns", "ttl", "clock", "rights"} {
		if verdict, reason := v.verdict(check, ""); verdict != "ok" {
			got, why := v.verdict(check, west)
			if got != "ok" {
				t.Errorf("%s, which was put right: %s %s; at west %s %s", check, verdict, reason, got, why)
			}
		}
	}
}
