package e2e

import (
	"strings"
	"testing"
)

// inPlace loses a namespace and brings it back, and then brings back what was
// changed since.
func inPlace(t *testing.T) {
	a := &app{}
	sum, _ := a.protected(t)
	kubectl(t, east, "delete", "namespace", a.name)
	davit(t, east, a.vault, "restore", a.name, "--yes").want(t, 0, a.name+" is restored at site east.")
	if got := a.sum(t, east, a.name); got != sum {
		t.Errorf("the data came back as %s, want %s", got, sum)
	}
	settings := func() string {
		return kubectl(t, east, "-n", a.name, "get", "configmap", "settings", "-o", "jsonpath={.data.colour}")
	}
	kubectl(t, east, "-n", a.name, "patch", "configmap", "settings", "-p", `{"data":{"colour":"red"}}`)
	davit(t, east, a.vault, "restore", a.name, "--yes").want(t, 4, "settings", "differs in data.colour")
	if settings() != "red" {
		t.Error("an object that exists was changed without --existing update")
	}
	davit(t, east, a.vault, "restore", a.name, "--yes", "--existing", "update").want(t, 0)
	if got := settings(); got != "green" {
		t.Errorf("--existing update left the setting at %q, want green", got)
	}
	if got := a.sum(t, east, a.name); got != sum {
		t.Errorf("restoring again changed the data to %s, want %s", got, sum)
	}
}

// cloned makes a copy in a namespace that holds something already. In the volume is all that is hard to copy.
func cloned(t *testing.T) {
	a := &app{}
	sum := a.deploy(t)
	tree, says := ugly(t, a.name)
	a.protect(t)
	davit(t, east, a.vault, "describe", a.weakBackup(t).ID).want(t, 0, says...)
	copied := a.name + "-copy"
	removeNamespace(t, west, copied)
	apply(t, west, "{apiVersion: v1, kind: Namespace, metadata: {name: "+copied+", labels: {davit-e2e: 'true'}}}")
	apply(t, west, "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: "+copied+"}, data: {colour: blue}}")
	a.clone(t, copied).want(t, 4, "exists already and was left alone", "data.colour")
	davit(t, west, "", "logs", "restore", a.name).want(t, 0, "Warnings (1)", copied+"/settings", "data.colour")
	if got := a.sum(t, west, copied); got != sum {
		t.Errorf("the clone's data is %s, want %s", got, sum)
	}
	sameTree(t, tree, west, copied)
	colour := func() string {
		return kubectl(t, west, "-n", copied, "get", "configmap", "settings", "-o", "jsonpath={.data.colour}")
	}
	if got := colour(); got != "blue" {
		t.Errorf("--existing skip changed what was there to %q", got)
	}
	a.clone(t, copied, "--existing", "update").want(t, 0)
	if got := colour(); got != "green" {
		t.Errorf("--existing update left %q, want green", got)
	}
	if got := kubectl(t, west, "get", "applications.davit.dev", "-A", "-o", "name"); strings.Contains(got, a.name) {
		t.Errorf("the clone is protected: %s", got)
	}
	davit(t, west, a.vault, "protect", a.name, "--namespace", copied).want(t, 3, "belongs to site east", "--take-over")
	if got := epochs(t, commonBucket(), a.name); got != 1 {
		t.Errorf("there are %d epochs after a clone, want 1", got)
	}
	davit(t, west, a.vault, "restore", a.name, "--yes").want(t, 3, "site east holds epoch 1", "--take-over", "--as-clone")
	absent(t, west, a.name)
}
