package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/testbed/imagetar"
)

// network is a Terraform configuration whose state is in the vault's S3 server, and whose
// one resource is made once somebody lets it.
const network = `terraform {
  backend "s3" {
    bucket                      = %q
    region                      = %q
    endpoints                   = { s3 = %q }
    use_path_style              = true
    use_lockfile                = true
    skip_credentials_validation = true
    skip_metadata_api_check     = true
    skip_region_validation      = true
    skip_requesting_account_id  = true
  }
}
variable "until" {}
resource "terraform_data" "network" {
  provisioner "local-exec" {
    command = "until [ -e /tmp/${var.until} ]; do sleep 0.2; done"
  }
}
`

// machineDeployments is as much of Cluster API's kind as a step asks of it.
const machineDeployments = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: machinedeployments.cluster.x-k8s.io
  annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes-sigs/cluster-api"}
spec:
  group: cluster.x-k8s.io
  scope: Namespaced
  names: {plural: machinedeployments, singular: machinedeployment, kind: MachineDeployment, listKind: MachineDeploymentList}
  versions:
  - name: v1beta1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

// surroundings are what infrastructure steps run with.
type surroundings struct {
	image  string // with terraform, where this machine has it; else empty
	bucket string // of the states
	secret string
}

// newSurroundings brings terraform to west. A machine without it has the steps run
// commands: the Job is the same, and nothing of terraform is shown.
func newSurroundings(t *testing.T, name string) *surroundings {
	t.Helper()
	s := &surroundings{bucket: name + "-states-" + run, secret: name + "-cloud"}
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Log("this machine has no terraform: the steps run commands instead")
		return s
	}
	bucket(t, s.bucket, "")
	s.image = "davit.test/terraform:1"
	tar := filepath.Join(t.TempDir(), "terraform.tar")
	image := imagetar.Image{Ref: s.image, Entries: []imagetar.Entry{
		{Path: "tmp", Dir: true, Mode: 0o1777}, {Path: "bin", Dir: true}, {Path: "bin/busybox", File: "/bin/busybox"}, {Path: "bin/terraform", File: program},
	}}
	for _, applet := range strings.Fields("sh sed grep tee mkfifo head tail tr cp rm mkdir sleep cat") {
		image.Entries = append(image.Entries, imagetar.Entry{Path: "bin/" + applet, Link: "busybox"})
	}
	if err := imagetar.Write(tar, image); err != nil {
		t.Fatal(err)
	}
	if err := rig.Bed.Site(west).LoadImage(t.Context(), tar); err != nil {
		t.Fatal(err)
	}
	s3 := rig.Bed.S3()
	config := filepath.Join(t.TempDir(), "main.tf")
	if err := os.WriteFile(config, fmt.Appendf(nil, network, s.bucket, s3.Region, s3.Endpoint), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, west, "-n", system, "create", "configmap", s.secret, "--from-file=main.tf="+config)
	kubectl(t, west, "-n", system, "create", "secret", "generic", s.secret, "--from-literal=AWS_ACCESS_KEY_ID="+s3.AccessKey, "--from-literal=AWS_SECRET_ACCESS_KEY="+s3.SecretKey)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "-n", system, "delete", "configmap/"+s.secret, "secret/"+s.secret)
	})
	return s
}

// form is what a step says of what it runs, until somebody makes the file in its pod.
func (s *surroundings) form(name, until string) string {
	if s.image == "" {
		return "command: {image: 'davit.test/bedtool:1', args: [-c, 'trap \"echo asked to end; exit 1\" TERM; until [ -e /tmp/" + until + " ]; do sleep 0.2; done']}"
	}
	return fmt.Sprintf("terraform: {image: %q, configMap: %s, secrets: [%[2]s], backend: {key: west/%s}, variables: {until: %s}, env: {CHECKPOINT_DISABLE: '1'}, lockTimeout: 5s}",
		s.image, s.secret, name, until)
}

// jobsOf are the names of the Jobs that a run has made for a step.
func jobsOf(t *testing.T, run, step string) []string {
	t.Helper()
	all := kubectl(t, west, "-n", system, "get", "jobs", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.annotations.davit\.dev/run} {.metadata.annotations.davit\.dev/step}{"\n"}{end}`)
	var names []string
	for line := range strings.Lines(all) {
		if words := strings.Fields(line); len(words) == 3 && words[1] == run && words[2] == step {
			names = append(names, words[0])
		}
	}
	return names
}

// madeAround has a failover make what an application needs around it: a Job of a
// terraform step, whose command is killed half-way and whose Job is waited for by who goes
// on, and machines. A step that never ends is ended by the site, and lets go of its lock. What a
// roll-back leaves of it is settled.
func madeAround(t *testing.T) {
	a := &app{}
	a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	s := newSurroundings(t, a.name)
	apply(t, west, machineDeployments)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "delete", "crd", "machinedeployments.cluster.x-k8s.io")
	})
	kubectl(t, west, "wait", "--for=condition=Established", "crd/machinedeployments.cluster.x-k8s.io", "--timeout=60s")
	const workers = "machinedeployments.cluster.x-k8s.io/default/workers"
	apply(t, west, "{apiVersion: cluster.x-k8s.io/v1beta1, kind: MachineDeployment, metadata: {name: workers, namespace: default}, spec: {replicas: 1}}")
	file := planOf(t, a, "60s",
		"{name: network, kind: infrastructure, "+s.form("network", "made")+", early: true, timeout: 5m, before: [data/"+a.name+"]}",
		"{name: machines, kind: infrastructure, clusterAPI: {scale: [{object: "+workers+", replicas: 3}], wait: [{object: "+workers+"}]}, early: true, timeout: 5m, before: [data/"+a.name+"]}",
		"{name: late, kind: infrastructure, "+s.form("late", "never")+", timeout: 40s, onError: stop, after: [ready/"+a.name+"]}")

	cmd := command(t.Context(), west, a.vault, "failover", "-f", file, "--yes")
	ended := make(chan outcome, 1)
	go func() { ended <- finish(t, cmd) }()
	var job, id string
	t.Cleanup(func() {
		if t.Failed() && id != "" {
			shown := command(context.WithoutCancel(t.Context()), west, a.vault, "runs", "show", id)
			t.Log(finish(t, shown).all())
		}
	})
	eventually(t, 3*time.Minute, "the network is being made", func() (bool, string) {
		select {
		case out := <-ended:
			t.Fatalf("the failover has ended: code %d\n%s", out.code, out.all())
		default:
		}
		if id == "" {
			id = runOf(t, a.vault, a.name)
		}
		jobs := jobsOf(t, id, "network")
		if id == "" || len(jobs) != 1 {
			return false, fmt.Sprint(id, jobs)
		}
		job = jobs[0]
		if s.image == "" {
			got := try(t, west, "-n", system, "get", "job", job, "-o", "jsonpath={.status.ready}")
			return got == "1", got
		}
		got := try(t, west, "-n", system, "logs", "job/"+job)
		return strings.Contains(got, "Provisioning with 'local-exec'"), got
	})
	_ = cmd.Process.Kill()
	t.Logf("killed: code %d", (<-ended).code)
	if s.image != "" && !s.locked("network") {
		t.Error("the state is not locked while terraform applies")
	}
	var r runView
	eventually(t, 3*time.Minute, "west's agent carries the run", func() (bool, string) {
		davit(t, west, a.vault, "runs", "show", id, "-o", "json").want(t, 0).read(t, &r)
		return strings.HasPrefix(r.Executor, "agent "), r.Executor
	})
	eventually(t, 3*time.Minute, "machines were asked for", func() (bool, string) {
		got := try(t, west, "get", "machinedeployments", "workers", "-o", "jsonpath={.spec.replicas}")
		return got == "3", got
	})
	kubectl(t, west, "patch", "machinedeployments", "workers", "--subresource=status", "--type=merge", "-p",
		`{"status":{"readyReplicas":3,"conditions":[{"type":"Ready","status":"True"}]}}`)
	kubectl(t, west, "-n", system, "exec", "job/"+job, "--", "sh", "-c", "true > /tmp/made")
	eventually(t, 4*time.Minute, "all is made, and the run has come to the step that never ends, which the site has ended", func() (bool, string) {
		davit(t, west, a.vault, "runs", "show", id, "-o", "json").want(t, 0).read(t, &r)
		return r.State == "Paused", r.State
	})
	if s.image != "" {
		davit(t, west, a.vault, "runs", "show", id).want(t, 0, "Job "+job+": applied: 1 added")
	}
	if jobs := jobsOf(t, id, "network"); len(jobs) != 1 {
		t.Errorf("the network was made by %v: the Job that was there was not waited for", jobs)
	}
	shown := davit(t, west, a.vault, "runs", "show", id).want(t, 0, "late", "runs skip "+id).all()
	if left := try(t, west, "-n", system, "get", "pods", "-l", "job-name="+jobsOf(t, id, "late")[0], "-o", `jsonpath={.items[?(@.status.phase=="Running")].metadata.name}`); left != "" {
		t.Errorf("pods of the step that the site has ended still run: %s", left)
	}
	want := "asked to end"
	if s.image != "" {
		want = "the step's time was over"
		for _, key := range []string{"network", "late"} {
			if s.locked(key) {
				t.Errorf("the state of %s is still locked", key)
			}
		}
		state, err := os.ReadFile(filepath.Join(rig.Bed.S3().DataDir, s.bucket, "west", "network"))
		if err != nil || !strings.Contains(string(state), `"terraform_data"`) {
			t.Errorf("the state of the network: %v\n%s", err, state)
		}
	}
	if !strings.Contains(shown, want) {
		t.Errorf("what the ended Job said last is not told: no %q", want)
	}
	davit(t, west, a.vault, "runs", "show", id, "--logs", "late").want(t, 0, want)
	davit(t, west, a.vault, "runs", "skip", id, "late").want(t, 0)
	eventually(t, 3*time.Minute, "the run goes on without the step", func() (bool, string) {
		davit(t, west, a.vault, "runs", "show", id, "-o", "json").want(t, 0).read(t, &r)
		return r.State == "AwaitingCommit", r.State
	})
	leavesMachines(t, a, id)
}

// leavesMachines has east take the application back while the run waits for its commit: the roll-back
// leaves the machines at west to people, and the status of both sites says so, until somebody settles
// it at one of them. Nothing else comes of that.
func leavesMachines(t *testing.T, a *app, id string) {
	t.Helper()
	davit(t, west, a.vault, "runs", "settle", id, "--reason", "x").want(t, 3, "it is not over")
	if got := davit(t, east, a.vault, "restore", a.name, "--take-over", "--existing-kind", "persistentvolumeclaims=skip", "--yes"); got.code != 0 && got.code != 4 {
		t.Fatalf("%d %s", got.code, got.all())
	}
	davit(t, west, a.vault, "runs", "rollback", id, "--lose", west).want(t, 4, "RolledBack", "take back by hand what machines did")
	counted := func(want bool) {
		t.Helper()
		for _, site := range []string{west, east} {
			eventually(t, 3*time.Minute, fmt.Sprintf("the status of %s counts what the run left: %t", site, want), func() (bool, string) {
				got := davit(t, site, "", "status").all()
				return strings.Contains(got, "davit runs settle "+id) == want, got
			})
		}
	}
	counted(true)
	davit(t, west, a.vault, "runs", "settle", id, "network", "--reason", "x").want(t, 3, "only machines did")
	davit(t, west, a.vault, "runs", "settle", id, "machines", "--reason", "kept for the next time").want(t, 0, "kept for the next time")
	counted(false)
	davit(t, east, a.vault, "runs", "show", id).want(t, 0, "RolledBack", "kept for the next time", "Carried by", "agent ")
	if got := kubectl(t, west, "get", "machinedeployments", "workers", "-o", "jsonpath={.spec.replicas}"); got != "3" {
		t.Errorf("there are %s machines: to settle what was left is not to take it back", got)
	}
	davit(t, west, a.vault, "runs", "rollback", id, "--lose", west).want(t, 3, "is over")
}

// locked tells whether somebody holds a state.
func (s *surroundings) locked(key string) bool {
	_, err := os.Stat(filepath.Join(rig.Bed.S3().DataDir, s.bucket, "west", key+".tflock"))
	return err == nil
}
