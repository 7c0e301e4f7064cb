package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refused gives documents that nobody could carry out to a real API server, as whoever keeps them in
// git does: it refuses them in words that say why, or the agent says so in their status. The controls
// are the same documents, put right.
func refused(t *testing.T) {
	name := short(t)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "delete", "recoveryplan", "--ignore-not-found", name)
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "-n", system, "delete", "protectionpolicy", "--ignore-not-found", name)
	})
	give := func(yaml string) string {
		out, err := rig.KubectlIn(t.Context(), west, strings.NewReader(yaml), "apply", "-f", "-")
		if err != nil {
			return err.Error()
		}
		return out
	}
	policy := func(spec string) string {
		return "{apiVersion: davit.dev/v1alpha1, kind: ProtectionPolicy, metadata: {name: " + name + ", namespace: davit-system}, spec: " + spec + "}"
	}
	plan := func(groups string) string {
		return fmt.Sprintf("apiVersion: davit.dev/v1alpha1\nkind: RecoveryPlan\nmetadata: {name: %s}\nspec:\n  vault: %s\n  sites: [{name: east}, {name: west}]\n"+
			"  applications: [{name: %[1]s-db, group: back}, {name: %[1]s-web, group: front}]\n  groups: [%[3]s]\n  fence: {timeout: 30s}\n", name, common, groups)
	}
	for _, tt := range []struct{ what, yaml, says string }{
		{"an objective that the interval cannot keep", policy("{schedule: {every: 1h}, objectives: {rpo: 30m}}"), "a capture every 1h leaves up to 1h of work unprotected: that can never keep an RPO of 30m"},
		{"one that the cron expression cannot keep", policy(`{schedule: {cron: "0 3 * * *"}, objectives: {rpo: 6h}}`), "leaves up to 24h of work unprotected, or more: that can never keep an RPO of 6h"},
		{"two schedules", policy(`{schedule: {every: 1h, cron: "0 3 * * *"}}`), "give every or cron"},
		{"a field that is none", policy("{schedule: {evry: 1h}}"), `unknown field "spec.schedule.evry"`},
		{"two vantage points", strings.Replace(plan("{name: back}, {name: front, after: [back]}"), "  fence:", "  declaration: {automatic: true, vantages: [west, witness], agree: 2, for: 30s}\n  fence:", 1), "takes three vantage points or more"},
	} {
		if got := give(tt.yaml); !strings.Contains(got, tt.says) {
			t.Errorf("of %s it says %q, want %q", tt.what, got, tt.says)
		}
	}
	if got := kubectl(t, west, "-n", system, "get", "protectionpolicies", "-o", "name") + kubectl(t, west, "get", "recoveryplans", "-o", "name"); strings.Contains(got, name) {
		t.Errorf("what was refused is there: %s", got)
	}
	if got := give(policy("{schedule: {every: 30m}, objectives: {rpo: 30m}}")); !strings.Contains(got, "created") {
		t.Errorf("the control: %s", got)
	}

	valid := func(want string) {
		t.Helper()
		eventually(t, 2*time.Minute, "the plan's status says "+want, func() (bool, string) {
			got := try(t, west, "get", "recoveryplan", name, "-o", `jsonpath={.status.conditions[?(@.type=="Valid")].status} {.status.conditions[?(@.type=="Valid")].message}`)
			return strings.HasPrefix(got, want), got
		})
	}
	round := plan("{name: back, after: [front]}, {name: front, after: [back]}")
	file := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(file, []byte(round), 0o600); err != nil {
		t.Fatal(err)
	}
	davit(t, west, common, "failover", "-f", file, "--yes").want(t, 3, "back", "front")
	for _, tt := range []struct{ what, from, to, says string }{
		{"a group that is none", "group: front}]", "group: nobody}]", "nobody"},
		{"an application that is none", name + "-db, group: back}", name + "-db, group: back, after: [ghost]}", "ghost"},
		{"a site that is not its", "{name: west}", "{name: south}", "west"},
	} {
		bad := configured(t, "bad.yaml", "%s", strings.Replace(plan("{name: back}, {name: front, after: [back]}"), tt.from, tt.to, 1))
		davit(t, west, common, "failover", "-f", bad, "--yes").want(t, 3, tt.says)
	}
	apply(t, west, round)
	valid("False ")
	davit(t, west, "", "status").want(t, 0, name)
	kubectl(t, west, "delete", "recoveryplan", name)
	apply(t, west, plan("{name: back}, {name: front, after: [back]}"))
	valid("True ")
}
