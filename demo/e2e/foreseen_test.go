package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// giant asks for more than any node has. It waits for ever, and is captured.
const giant = `
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: giant, namespace: %[1]s}
spec:
  replicas: 1
  selector: {matchLabels: {app: giant}}
  template:
    metadata: {labels: {app: giant}}
    spec:
      containers:
        - {name: giant, image: registry.invalid/giant:1, resources: {requests: {cpu: "500"}}}
`

// sitesView is what tests read of `plan validate --sites -o json`.
type sitesView struct {
	From, To, Worst string
	Findings        []struct{ Check, Verdict, Site, Application, Reason, Remedy string }
}

func (v sitesView) verdict(check, site string) (verdict, reason string) {
	for _, f := range v.Findings {
		if f.Check == check && (f.Site == site || site == "") {
			return f.Verdict, f.Reason
		}
	}
	return "", ""
}

// foreseen: whether a failover would work is known beforehand, from the vault
// alone, from the target, and in the plan's status: the target is too small, and
// it is said by how much. Without the giant it is large enough.
func foreseen(t *testing.T) {
	a := &app{name: short(t)}
	a.more = fmt.Sprintf(giant, a.name)
	a.protected(t)
	file := planOf(t, a, "5s")
	address, err := newBucket(commonBucket(), "")
	if err != nil {
		t.Fatal(err)
	}
	vaultAlone := []string{
		"plan", "validate", file, "--sites", "--to", west, "--registries=false", "-o", "json",
		"--vault-url", address, "--recovery-key-file", commonKey(), "--kubeconfig", "/nowhere",
	}
	var v sitesView
	eventually(t, 3*time.Minute, "both sites have published facts", func() (bool, string) {
		v = sitesView{}
		davit(t, west, "", vaultAlone...).read(t, &v)
		e, whyEast := v.verdict("facts", east)
		w, whyWest := v.verdict("facts", west)
		return e == "ok" && w == "ok", whyEast + "; " + whyWest
	})
	davit(t, west, "", vaultAlone...).want(t, 3)
	if verdict, reason := v.verdict("capacity", west); verdict != "fail" || !strings.Contains(reason, " CPU too few: 500") || v.From != east {
		t.Errorf("from %s: %s %s", v.From, verdict, reason)
	}
	if verdict, reason := v.verdict("kinds", ""); verdict != "ok" {
		t.Errorf("kinds: %s %s", verdict, reason)
	}
	davit(t, west, a.vault, "plan", "validate", file, "--sites", "--registries=false").want(t, 3, "CPU too few", "Last drill: never.", "do: add nodes")
	davit(t, west, a.vault, "plan", "runbook", file, "--sites", "--registries=false").want(t, 0, "# Runbook: failover of "+a.name+" to site west", "CPU too few")
	davit(t, west, a.vault, "failover", "-f", file, "--dry-run").want(t, 0, "Time to recover: no history", "CPU too few")
	for _, verb := range []string{"switchover", "drill"} { // which have a site that works: they do not begin
		davit(t, west, a.vault, verb, "-f", file, "--dry-run").want(t, 3, "CPU too few", "--despite capacity")
	}
	davit(t, west, a.vault, "switchover", "-f", file, "--yes").want(t, 3, "nothing was changed", "CPU too few")
	davit(t, west, a.vault, "drill", "-f", file).want(t, 3, "nothing was changed", "CPU too few")
	davit(t, west, a.vault, "switchover", "-f", file, "--dry-run", "--despite", "capacity").want(t, 0, "CPU too few")
	davit(t, west, a.vault, "readiness", a.name, "-f", file, "--registries=false", "-o", "wide").want(t, 0, "no drill and no run came here yet", "CPU too few", "etcd no")

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, west, strings.Replace(string(text), "\nspec:\n", "\nspec:\n  vault: "+a.vault+"\n", 1)) // the bed's sites have several
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "delete", "recoveryplan", a.name, "--ignore-not-found")
	})
	eventually(t, 3*time.Minute, "the plan's status says so too", func() (bool, string) {
		got := try(t, west, "get", "recoveryplan", a.name, "-o", `jsonpath={.status.preflight.findings[?(@.check=="capacity")].message}`)
		return strings.Contains(got, "CPU too few"), got
	})
	davit(t, west, "", "status").want(t, 0, a.name, "CPU too few")
	kubectl(t, west, "delete", "recoveryplan", a.name)

	kubectl(t, east, "-n", a.name, "delete", "deployment", "giant") // the control: nothing else was too large
	a.backup(t)
	v = sitesView{}
	eventually(t, 3*time.Minute, "there is room without it", func() (bool, string) {
		v = sitesView{}
		davit(t, west, "", vaultAlone...).read(t, &v)
		verdict, reason := v.verdict("capacity", west)
		return verdict == "ok", reason
	})
}
