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

// promisedPlan writes a plan whose application runs on under its lease while the other site promises to stay
// passive. No two vantage points speak: nothing is declared.
func promisedPlan(t *testing.T, a *app) string {
	t.Helper()
	peer := func(site string) string {
		return kubectl(t, site, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-node", "-o", "jsonpath={.items[0].status.podIP}") + ":8084"
	}
	text := fmt.Sprintf(`apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: %s}
spec:
  vault: %s
  sites: [{name: east, peer: "%s"}, {name: west, peer: "%s"}]
  applications: [{name: %s}]
  declaration: {automatic: true, vantages: [west, north, witness], agree: 2, for: 1m, block: 1h}
  fence: {timeout: 5s, lease: 15s, bound: 10s, driftPPM: 1000, promises: true}
`, a.name, a.vault, peer(east), peer(west), a.name)
	file := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// promised is a vault that is silent for everybody, with PostgreSQL under load: for four leases the application goes on, as
// the peer promises to stay passive. Then the peer is silent, too, and it stops. Then the vault is silent
// for east alone, which goes on by west's promise, until west fails it over: from its hold on west promises nothing
// more, and starts only when east has said its last word.
func promised(t *testing.T) {
	s := newTill(t)
	s.open(t)
	file := promisedPlan(t, s.app)
	t.Cleanup(func() { _ = rig.Bed.HealAll(context.WithoutCancel(t.Context())) })
	davit(t, east, s.vault, "plan", "arm", file, "--yes").want(t, 0, "epoch 2, lease of 15s, kept by every node")
	eventually(t, time.Minute, "east's agent says that west may be asked", func() (bool, string) {
		got := s.status(t, east, "lease.peers")
		return got == `["west"]`, got
	})
	node := kubectl(t, east, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-node", "-o", "jsonpath={.items[0].metadata.name}")
	eventually(t, 3*time.Minute, "east's node has asked west, and west would promise", func() (bool, string) {
		got := try(t, east, "get", "--raw", "/api/v1/namespaces/"+system+"/pods/"+node+":8082/proxy/metrics")
		_, got, _ = strings.Cut(got, "davit_node_peers_silent{")
		got, _, _ = strings.Cut(got, "\n")
		return strings.HasSuffix(got, "} 0"), got
	})
	davit(t, east, "", "status").want(t, 0, "(lease 15s, or by promise of west)")

	cut := func(x, y string) {
		t.Helper()
		if err := rig.Bed.Cut(t.Context(), x, y); err != nil {
			t.Fatal(err)
		}
	}
	silent := time.Now()
	cut(east, "vault")
	cut(west, "vault")
	eventually(t, 3*time.Minute, "the vault has been silent for four leases", func() (bool, string) {
		return time.Since(silent) > time.Minute, time.Since(silent).String()
	})
	s.sells(t, east)
	if got := s.status(t, east, "lease.over"); got == "true" {
		t.Errorf("it goes on, and its lease is said to be over: %s", s.status(t, east, "lease.message"))
	}

	parted(t, west)
	eventually(t, 3*time.Minute, "the peer is silent too: east says that the lease is over", func() (bool, string) {
		got := s.status(t, east, "lease.over") + " " + s.status(t, east, "lease.message")
		return strings.HasPrefix(got, "true "), got
	})
	mine := len(s.at(east))
	healed(t)
	eventually(t, 8*time.Minute, "the vault answers, and it runs again", func() (bool, string) {
		n := len(s.at(east))
		return n > mine+10, fmt.Sprintf("%d orders, had %d", n, mine)
	})
	s.backup(t)

	silent = time.Now()
	cut(east, "vault")
	eventually(t, 3*time.Minute, "the vault has been silent for east for two leases", func() (bool, string) {
		return time.Since(silent) > 30*time.Second, time.Since(silent).String()
	})
	s.sells(t, east)
	davit(t, west, s.vault, "failover", "-f", file, "--dry-run").want(t, 0, "Fence: timed-out lease at worst")
	var r runView
	davit(t, west, s.vault, "failover", "-f", file, "--yes", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "AwaitingCommit" || r.Level != "timed-out lease" || len(r.Applications) != 1 || r.Applications[0].Epoch != 3 {
		t.Fatalf("%+v", r)
	}
	if got := kubectl(t, west, "-n", system, "get", "configmaps", "-o", "jsonpath={range .items[*]}{.metadata.name} {.data."+s.name+"};{end}"); !strings.Contains(got, " 3;") {
		t.Errorf("west holds %q", got)
	}
	s.sells(t, west)
	s.neverTwo(t)
	davit(t, west, s.vault, "runs", "commit", r.Run).want(t, 0, "Completed")
	healed(t)
	eventually(t, 3*time.Minute, "east says Superseded and runs nothing of it", func() (bool, string) {
		role, replicas := s.status(t, east, "role"), s.replicas(t, east)
		return role == "Superseded" && replicas == "0", role + ", replicas " + replicas
	})
	s.neverTwo(t)
	davit(t, west, s.vault, "plan", "disarm", file, "--yes").want(t, 0, "epoch 4, no lease")
}
