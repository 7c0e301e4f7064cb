package e2e

import (
	"context"
	"strings"
	"testing"
	"time"
)

// fromNothing takes an application over in a cluster that knows nothing of
// Davit, while its own site is cut off: the vault's address, its credentials
// and the recovery key are all there is, and the site's own registry.
func fromNothing(t *testing.T) {
	a := &app{}
	sum, _ := a.protected(t)
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

	if err := rig.Bed.HealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Minute, "east says Superseded and runs nothing of it", func() (bool, string) {
		role, replicas := a.status(t, east, "role"), a.replicas(t, east)
		return role == "Superseded" && replicas == "0", role + ", replicas " + replicas
	})
}
