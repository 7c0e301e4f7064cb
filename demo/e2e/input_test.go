package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// class makes another StorageClass of the bed's driver.
func class(t *testing.T, site, name string) {
	t.Helper()
	apply(t, site, "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: "+name+
		"}, provisioner: reflink.csi.davit.dev, volumeBindingMode: WaitForFirstConsumer}")
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), site, "delete", "storageclass", name, "--ignore-not-found")
	})
}

// missingClass restores claims of a class that the target lacks.
func missingClass(t *testing.T) {
	class(t, east, "special")
	a := &app{class: "special"}
	sum := a.deploy(t)
	a.protect(t, "--exclude-kinds", "storageclasses.storage.k8s.io") // else the point brings it along
	a.backup(t)
	copied := a.name + "-copy"
	a.clone(t, copied).want(t, 3, "the target has no storage class special", "--map-storage-class special=reflink")
	absent(t, west, copied)

	a.clone(t, copied, "--map-storage-class", "special=reflink").want(t, 0)
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
}

const definition = `
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.%[1]s.example.com, labels: {davit-e2e: "true"}}
spec:
  group: %[1]s.example.com
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget}
  versions:
  - {name: %[2]s, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

// missingKinds restores custom resources whose definition the target lacks, or
// has in another version.
func missingKinds(t *testing.T) {
	a := &app{name: "e2e-kinds"}
	group := "e2ekinds"
	render := func(version string) string {
		return strings.NewReplacer("%[1]s", group, "%[2]s", version).Replace(definition)
	}
	for _, site := range []string{east, west} {
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.Background(), site, "delete", "crd", "gadgets."+group+".example.com", "--ignore-not-found", "--wait=false")
		})
	}
	a.deploy(t)
	apply(t, east, render("v1"))
	kubectl(t, east, "wait", "--for=condition=Established", "--timeout=3m", "crd", "gadgets."+group+".example.com")
	apply(t, east, "{apiVersion: "+group+".example.com/v1, kind: Gadget, metadata: {name: one, namespace: "+a.name+"}, spec: {x: 1}}")
	a.protect(t)
	a.backup(t)
	copied := a.name + "-copy"
	a.clone(t, copied, "--exclude-kinds", "customresourcedefinitions.apiextensions.k8s.io").
		want(t, 3, "does not serve Gadget."+group+".example.com", "--exclude-kinds gadgets."+group+".example.com")
	absent(t, west, copied)
	apply(t, west, render("v2"))
	kubectl(t, west, "wait", "--for=condition=Established", "--timeout=3m", "crd", "gadgets."+group+".example.com")
	a.clone(t, copied).want(t, 3, "Gadget."+group+".example.com", "v1", "v2", "--exclude-kinds gadgets."+group+".example.com")
	absent(t, west, copied)
	a.clone(t, copied, "--exclude-kinds", "gadgets."+group+".example.com,customresourcedefinitions.apiextensions.k8s.io").want(t, 0)
}

// badImage restores a workload whose image the target cannot pull.
func badImage(t *testing.T) {
	a := &app{}
	a.more = `
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: ` + short(t) + `}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "registry.bed/nobody/has:1"}]}
`
	a.protected(t)
	var r report
	got := a.clone(t, a.name+"-copy", "--ready-timeout", "20s", "-o", "json").want(t, 4)
	got.read(t, &r)
	if r.Phase != "CompletedWithWarnings" {
		t.Errorf("the restore ended as %q, want CompletedWithWarnings", r.Phase)
	}
	got.want(t, 4, "web", "image registry.bed/nobody/has:1 cannot be pulled")
	a.sum(t, west, a.name+"-copy") // the rest runs
}

// fullDisk restores into volumes that hold less than what was captured: XFS
// needs more room for itself than ext4.
func fullDisk(t *testing.T) {
	a := &app{size: 276 << 10, disk: "320Mi"}
	a.protected(t)
	copied := a.name + "-copy"
	a.clone(t, copied, "--map-storage-class", "reflink=reflink-xfs").want(t, 1, copied+"/data-db-0", "no space left", "restore again")
	if got := kubectl(t, west, "-n", copied, "get", "statefulset", "-o", "name"); got != "" {
		t.Errorf("%s was made although its claim is not filled", got)
	}
	noHelpers(t, west, a.name, copied)
}

// quota restores into a namespace that allows no claims.
func quota(t *testing.T) {
	a := &app{}
	a.protected(t)
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	apply(t, west, "{apiVersion: v1, kind: Namespace, metadata: {name: "+copied+", labels: {davit-e2e: 'true'}}}")
	apply(t, west, "{apiVersion: v1, kind: ResourceQuota, metadata: {name: tight, namespace: "+copied+"}, spec: {hard: {persistentvolumeclaims: '0'}}}")
	eventually(t, 3*time.Minute, "the quota holds", func() (bool, string) {
		got := try(t, west, "-n", copied, "get", "resourcequota", "tight", "-o", "jsonpath={.status.hard}")
		return strings.Contains(got, "persistentvolumeclaims"), got
	})
	a.clone(t, copied).want(t, 3, "exceeded quota: tight", "persistentvolumeclaims: 1 needed, 0 of 0 left", "raise it for the time of the restore")
	if got := kubectl(t, west, "-n", copied, "get", "pvc,statefulset", "-o", "name"); got != "" {
		t.Errorf("%s was made, although the quota allows no claim", got)
	}
	kubectl(t, west, "-n", copied, "delete", "resourcequota", "tight")
	a.clone(t, copied).want(t, 0)
	a.sum(t, west, copied)
}

// inTheWay restores where something else lives.
func inTheWay(t *testing.T) {
	a := &app{}
	a.protected(t)
	other := &app{name: a.name + "-other"}
	removeNamespace(t, west, other.name)
	theirs := strings.NewReplacer("%[1]s", other.name, "%[2]d", "64", "%[3]s", "reflink", "%[4]s", "64Mi", "%[5]d", "0", "%[6]s", "").Replace(manifest)
	apply(t, west, theirs)
	sum := other.sum(t, west, other.name)
	a.clone(t, other.name).want(t, 3, other.name+"/data-db-0", "never overwritten", "delete the claim")
	if got := other.sum(t, west, other.name); got != sum {
		t.Errorf("somebody else's data was changed to %s, was %s", got, sum)
	}
	labels := kubectl(t, west, "-n", other.name, "get", "statefulset,configmap,pvc", "-o", "jsonpath={.items[*].metadata.labels}")
	if strings.Contains(labels, "davit.dev") {
		t.Errorf("somebody else's objects were touched: %s", labels)
	}
}

// wrongKeys opens the vault with what does not fit, and by an address where
// nothing answers.
func wrongKeys(t *testing.T) {
	a := &app{}
	a.protected(t)
	address, err := newBucket(commonBucket(), "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign.key")
	davit(t, west, "", "vault", "add", "foreign", bucket(t, "foreign-"+run, ""), "--recovery-key-file", foreign).want(t, 0)
	kubectl(t, west, "delete", "vault", "foreign")

	davit(t, west, "", "vault", "add", "second", address, "--join", "--recovery-key-file", foreign).want(t, 3, "key", "hint:", "recovery key")
	davit(t, west, "", "points", a.name, "--vault-url", address, "--recovery-key-file", foreign).want(t, 3, "key", "hint:")
	davit(t, west, "", "points", a.name, "--vault-url", address, "--recovery-key-file", commonKey()).want(t, 0, a.name)

	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("not the secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	add := []string{"vault", "add", "second", address, "--join", "--recovery-key-file", commonKey()}
	davit(t, west, "", append(add, "--secret-key-file", secret)...).want(t, 5, "secret key is wrong", "hint:")
	davit(t, west, "", append(add, "--region", "eu-nowhere-1")...).want(t, 5, "region eu-nowhere-1 is wrong", "set region=")

	// A listener that was closed: its port refuses.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	davit(t, west, "", append(add, "--endpoint", "http://"+dead)...).want(t, 5, dead, "connection refused", "hint:", "address")
	if got := kubectl(t, west, "get", "vaults", "-o", "name"); strings.Contains(got, "second") {
		t.Errorf("a vault that was refused was added: %s", got)
	}
	if got := kubectl(t, west, "-n", system, "get", "secrets", "-o", "name"); strings.Contains(got, "vault-second") {
		t.Errorf("the Secret of a vault that was refused was written: %s", got)
	}
}

// unboundClaim restores into a class that nothing provisions: the command that
// is given up, and the Restore object that gives up by itself, both say why.
func unboundClaim(t *testing.T) {
	a := &app{}
	a.protected(t)
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	const nobody = "nobody-provisions"
	apply(t, west, "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: "+nobody+"}, provisioner: nobody.example.com, volumeBindingMode: Immediate}")
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), west, "delete", "storageclass", nobody, "--ignore-not-found")
	})
	why := []string{copied + "/data-db-0", "claim is not bound (storage class " + nobody + ")", "nobody.example.com", "unbound immediate PersistentVolumeClaims"}
	a.clone(t, copied, "--map-storage-class", "reflink="+nobody, "--timeout", "20s").want(t, 1, append(why, "gave up after 20s")...)
	noHelpers(t, west, a.name, copied)
	a.clone(t, copied, "--map-storage-class", "reflink="+nobody, "--timeout", "20s", "--background").want(t, 1, why...)
	got := kubectl(t, west, "-n", system, "get", "restores", "-o", `jsonpath={range .items[?(@.spec.application=="`+a.name+`")]}{.status.phase}: {.status.warningList} {.status.conditions}{end}`)
	for _, text := range append(why, "Failed:") {
		if !strings.Contains(got, text) {
			t.Errorf("the Restore's status does not say %q: %s", text, got)
		}
	}
	noHelpers(t, west, a.name, copied)
}
