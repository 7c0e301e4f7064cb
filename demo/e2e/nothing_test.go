package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// wide are objects outside of all namespaces, which nothing in one names: they
// come along with a whole cluster alone.
const wide = `
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: regions.%[1]s.example.com}
spec:
  group: %[1]s.example.com
  scope: Cluster
  names: {kind: Region, plural: regions}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: %[1]s}
value: 7
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: Group, name: %[1]s, apiGroup: rbac.authorization.k8s.io}]
`

// deployWide brings an application and the objects outside of namespaces to
// east, which has nothing else of these tests then.
func deployWide(t *testing.T) (a *app, sum string) {
	t.Helper()
	name := short(t)
	a = &app{name: name, more: fmt.Sprintf(wide, name)}
	t.Cleanup(func() {
		for _, site := range []string{east, west} {
			for _, o := range []string{"crd/regions." + name + ".example.com", "priorityclass/" + name, "clusterrolebinding/" + name} {
				_, _ = rig.Kubectl(context.Background(), site, "delete", o, "--ignore-not-found", "--wait=false")
			}
		}
	})
	kubectl(t, east, "delete", "namespaces", "-l", "davit-e2e", "--ignore-not-found", "--timeout=4m")
	sum = a.deploy(t)
	region := "{apiVersion: " + name + ".example.com/v1, kind: Region, metadata: {name: north}, spec: {of: " + name + "}}"
	eventually(t, 3*time.Minute, "the new kind is served", func() (bool, string) {
		_, err := rig.KubectlIn(t.Context(), east, strings.NewReader(region), "apply", "--server-side", "-f", "-")
		return err == nil, fmt.Sprint(err)
	})
	return a, sum
}

// fromNothing takes a whole cluster over in a cluster that knows nothing of
// Davit, while its own site is cut off: the vault's address, its credentials
// and the recovery key are all there is, and the site's own registry.
func fromNothing(t *testing.T) {
	a, sum := deployWide(t)
	a.protect(t, "--namespace", "*", "--exclude-namespaces", "local-path-storage") // each site's own storage
	davit(t, east, a.vault, "describe", a.backup(t).ID).want(t, 0)
	davit(t, west, "", "uninstall", "--yes").want(t, 0)
	everything := "customresourcedefinitions,clusterroles,clusterrolebindings,namespaces"
	if left := kubectl(t, west, "get", everything, "-o", "name"); strings.Contains(left, "davit.dev") || strings.Contains(left, system) {
		t.Errorf("uninstall left something of Davit in west:\n%s", left)
	}
	for _, other := range []string{"vault", west} {
		if err := rig.Bed.Cut(t.Context(), east, other); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = rig.Bed.HealAll(context.WithoutCancel(t.Context())) })

	mirror, err := rig.Push(t.Context(), west, "air/gapped")
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.Equip(t.Context(), west, "--image", "registry.example.com/not/there/davit:bed", "--registry", mirror); err != nil {
		t.Fatal(err)
	}
	images := kubectl(t, west, "-n", system, "get", "deployments,daemonsets", "-o", "jsonpath={.items[*].spec.template.spec.containers[*].image}")
	for _, image := range strings.Fields(images) {
		if image != mirror+"/davit:bed" {
			t.Errorf("a part of Davit runs %s, not what %s has", image, mirror)
		}
	}
	if err := addCommon(t.Context(), west, "--join"); err != nil {
		t.Fatal(err)
	}
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	davit(t, west, "", "restore", a.name, "--take-over", "--yes").want(t, 0, a.name+" is restored at site west.")
	if got := a.sum(t, west, a.name); got != sum {
		t.Errorf("the data came back as %s, want %s", got, sum)
	}
	if got := kubectl(t, west, "get", "region."+a.name+".example.com", "north", "-o", "jsonpath={.spec.of}"); got != a.name {
		t.Errorf("the cluster's own resource came back as %q", got)
	}
	if got := kubectl(t, west, "get", "priorityclass", a.name, "-o", "jsonpath={.value}"); got != "7" {
		t.Errorf("the priority class came back with %q", got)
	}
	if got := kubectl(t, west, "auth", "can-i", "list", "pods", "--as", "ann", "--as-group", a.name); strings.TrimSpace(got) != "yes" {
		t.Errorf("the rights of a group of people did not come along: %s", got)
	}

	if err := rig.Bed.HealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Minute, "east says Superseded and runs nothing of it", func() (bool, string) {
		role, replicas := a.status(t, east, "role"), a.replicas(t, east)
		return role == "Superseded" && replicas == "0", role + ", replicas " + replicas
	})
}
