package e2e

import (
	"context"
	"fmt"
	"path/filepath"
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

// fromNothing brings what its own site, cut off, ran into a cluster that knows nothing
// of Davit: the vault's address, its credentials and the recovery key are all there is,
// and the site's own registry. First one application by a plan that the vault keeps, which is drilled there before: either
// run installs Davit; the failover is killed meanwhile, and given again. Then the rest of the cluster.
func fromNothing(t *testing.T) {
	a, sum := deployWide(t)
	b := &app{name: a.name + "-plan"}
	planned := b.deploy(t)
	b.protect(t)
	davit(t, east, b.vault, "describe", b.backup(t).ID).want(t, 0)
	kubectl(t, east, "apply", "-f", planOf(t, b, "5s"))
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), east, "delete", "recoveryplan", "--ignore-not-found", b.name)
	})
	a.protect(t, "--namespace", "*", "--exclude-namespaces", "local-path-storage,"+b.name) // each site's own storage
	davit(t, east, a.vault, "describe", a.backup(t).ID).want(t, 0)
	eventually(t, 3*time.Minute, "the vault has the plan", func() (bool, string) {
		out := davit(t, west, b.vault, "plan", "show", b.name)
		return out.code == 0 && strings.Contains(out.out, "in the vault"), out.all()
	})
	address := strings.TrimSpace(kubectl(t, west, "get", "vault", common, "-o", "jsonpath={.spec.url}"))
	uninstalled(t)
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
	removeNamespace(t, west, b.name)
	t.Cleanup(func() { unprotect(west, b.name) })
	b.drillFromNothing(t, address, mirror)
	uninstalled(t)
	b.failOverFromNothing(t, address, mirror)
	if got := b.sum(t, west, b.name); got != planned {
		t.Errorf("the data came back as %s, want %s", got, planned)
	}
	images := kubectl(t, west, "-n", system, "get", "deployments,daemonsets", "-o", "jsonpath={.items[*].spec.template.spec.containers[*].image}")
	for _, image := range strings.Fields(images) {
		if image != mirror+"/davit:bed" {
			t.Errorf("a part of Davit runs %s, not what %s has", image, mirror)
		}
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
	for _, x := range []*app{a, b} {
		eventually(t, 3*time.Minute, "east says Superseded and runs nothing of "+x.name, func() (bool, string) {
			role, replicas := x.status(t, east, "role"), x.replicas(t, east)
			return role == "Superseded" && replicas == "0", role + ", replicas " + replicas
		})
	}
}

// uninstalled takes Davit out of west, which knows nothing of it then.
func uninstalled(t *testing.T) {
	t.Helper()
	davit(t, west, "", "uninstall", "--yes").want(t, 0)
	everything := "customresourcedefinitions,clusterroles,clusterrolebindings,namespaces"
	if left := kubectl(t, west, "get", everything, "-o", "name"); strings.Contains(left, "davit.dev") || strings.Contains(left, system) {
		t.Errorf("uninstall left something of Davit in west:\n%s", left)
	}
}

// bare are the arguments of a run at west, which has no Davit and reaches no registry but its own.
func bare(verb, plan, address, mirror string, flags ...string) []string {
	kubelet := rig.Bed.Site(west).KubeletRoot()
	return append([]string{
		verb, plan, "--to", west, "--vault-url", address, "--recovery-key-file", commonKey(), "--image", "registry.example.com/not/there/davit:bed",
		"--registry", mirror, "--kubelet-root", kubelet, "--host-path-root", filepath.Join(filepath.Dir(kubelet), "local"),
	}, flags...)
}

// drillFromNothing drills at west, which has no Davit: it is put there, as nobody is asked, by a word that is given before, and
// stays. Of the clone nothing is left, and nothing of the application was touched.
func (a *app) drillFromNothing(t *testing.T, address, mirror string) {
	t.Helper()
	davit(t, west, common, bare("drill", a.name, address, mirror)...).want(t, 3, "lacks what the run needs", "--install does that first")
	davit(t, west, common, bare("drill", a.name, address, mirror, "--dry-run")...).want(t, 0, "which is not touched",
		"First: Davit is installed into this cluster, as site west, from "+mirror+"/davit:bed", "First: site west joins the vault, as "+common)
	absent(t, west, system)
	var r runView
	davit(t, west, common, bare("drill", a.name, address, mirror, "--install", "-o", "json")...).want(t, 0).read(t, &r)
	if r.State != "Completed" || len(r.Applications) != 1 {
		t.Fatalf("%+v", r)
	}
	t.Logf("RTO of the clone, the install left out: %s", r.Applications[0].RTO)
	davit(t, west, "", "runs", "report", r.Run, "--verify").want(t, 0, "Genuine", "Completed") // by the vault that west has now
	if left := kubectl(t, west, "get", "namespaces", "-l", "davit.dev/sandbox", "-o", "name"); left != "" {
		t.Errorf("the drill left %s", left)
	}
	if got := epochs(t, commonBucket(), a.name); got != 1 {
		t.Errorf("the drill raised the epoch: there are %d", got)
	}
	absent(t, west, a.name)
	eventually(t, 3*time.Minute, "the agent that has come shows that the drill is over", func() (bool, string) { // else Davit is busy, and stays
		got := try(t, west, "get", "run", r.Run, "-o", "jsonpath={.status.phase}")
		return got == "Completed", got
	})
}

// failOverFromNothing gives a failover at west, which has no Davit. What it would do first
// is said beforehand, and nothing is done without a word; killed in the middle of the install,
// it goes on when it is given again.
func (a *app) failOverFromNothing(t *testing.T, address, mirror string) {
	t.Helper()
	run := func(flags ...string) []string {
		return bare("failover", a.name, address, mirror, append([]string{"--lost", east}, flags...)...)
	}
	davit(t, west, "", "failover", a.name, "--to", west, "--yes").want(t, 3, "this cluster has no Davit", "--vault-url")
	davit(t, west, common, "failover", a.name, "--to", west, "--vault-url", address, "--recovery-key-file", commonKey(), "--yes").want(t, 3, "give --image")
	davit(t, west, common, run("--yes")...).want(t, 3, "lacks what the run needs", "--install does that first")
	davit(t, west, common, run("--dry-run")...).want(t, 0, "whatever was written after",
		"First: Davit is installed into this cluster, as site west, from "+mirror+"/davit:bed", "First: site west joins the vault, as "+common)
	if got := kubectl(t, west, "get", "namespace", system, "--ignore-not-found", "-o", "name"); got != "" {
		t.Fatal("something was installed without a word")
	}

	cmd := command(t.Context(), west, common, run("--install", "--yes")...)
	ended := make(chan outcome, 1)
	go func() { ended <- finish(t, cmd) }()
	eventually(t, 3*time.Minute, "Davit is being installed", func() (bool, string) {
		got := try(t, west, "-n", system, "get", "daemonset", "davit-node", "-o", "name")
		return strings.HasSuffix(got, "/davit-node"), got
	})
	_ = cmd.Process.Kill()
	t.Logf("killed: code %d", (<-ended).code)
	if got := epochs(t, commonBucket(), a.name); got != 1 {
		t.Fatalf("it was killed too late: there are %d epochs", got)
	}
	var r runView
	davit(t, west, common, run("--install", "--yes", "-o", "json")...).want(t, 0).read(t, &r)
	if r.State != "AwaitingCommit" || len(r.Applications) != 1 || r.Applications[0].Epoch != 2 {
		t.Fatalf("%+v", r)
	}
	t.Logf("RTO, the install left out: %s", r.Applications[0].RTO)
	davit(t, west, "", "runs", "commit", r.Run).want(t, 0, "Completed") // by the vault that west has now
}
