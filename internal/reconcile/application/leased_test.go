package application

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
)

// armed is a site that holds shop's epoch 1 under a lease, with two nodes.
func armed(t *testing.T, kept ...v1alpha1.KeptLease) (*site, *v1alpha1.Application) {
	t.Helper()
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	one, two := nodeOf("one"), nodeOf("two")
	objects := []client.Object{app, web("shop"), one, two}
	for i, node := range []string{"one", "two"} {
		report := saysOf(nodeOf(node), time.Now())
		if i < len(kept) {
			report.Status.Leases = []v1alpha1.KeptLease{kept[i]}
		}
		objects = append(objects, report)
	}
	s := newSite(t, "", objects...)
	s.as("e")
	claim := lease.Claim{Site: "east", Cluster: "e", Request: "armed", Terms: &lease.Terms{LeaseMillis: 15_000, BoundMillis: 10_000, DriftPPM: 1000}}
	if _, err := lease.New(s.project).Claim(t.Context(), "shop", 1, claim); err != nil {
		t.Fatal(err)
	}
	return s, app
}

// TestALeaseIsStatedOnceEveryNodeKeepsIt, and not before the cluster has its
// terms, by which nodes that come later hear of them.
func TestALeaseIsStatedOnceEveryNodeKeepsIt(t *testing.T) {
	good := v1alpha1.KeptLease{Application: "shop", Epoch: 1}
	for name, c := range map[string]struct {
		two  v1alpha1.KeptLease
		want string // in the message; empty: it is stated
	}{
		"all keep it":       {good, ""},
		"one does not":      {v1alpha1.KeptLease{}, "node two: does not keep the lease yet"},
		"of an older epoch": {v1alpha1.KeptLease{Application: "shop"}, "node two: does not keep the lease yet"},
		"one cannot":        {v1alpha1.KeptLease{Application: "shop", Epoch: 1, Problem: "too short"}, "node two: too short"},
	} {
		s, app := armed(t, good, c.two)
		got := s.reconcile(app)
		if l := got.Status.Lease; l == nil || l.Kept || l.Lease.Duration != 15*time.Second {
			t.Fatalf("%s: at first: %+v", name, l)
		}
		if _, err := lease.ReadKept(t.Context(), s.project, "shop", 1); !errors.Is(err, vault.ErrNotFound) {
			t.Fatalf("%s: stated before the cluster has the terms: %v", name, err)
		}
		got = s.reconcile(app)
		k, err := lease.ReadKept(t.Context(), s.project, "shop", 1)
		l := got.Status.Lease
		switch {
		case c.want == "" && (err != nil || !l.Kept || l.Message != "" || k.Site != "east" || k.Cluster != "e" || len(k.Nodes) != 2):
			t.Errorf("%s: %+v, %+v, %v", name, l, k, err)
		case c.want != "" && (!errors.Is(err, vault.ErrNotFound) || l.Kept || !strings.Contains(l.Message, c.want)):
			t.Errorf("%s: %+v, stated: %v", name, l, err)
		}
	}
}

// TestPeersMayBeAskedOnceTheVaultKnows: nodes hear of it when the vault has the statement, in a format that versions
// without promises do not go by; one that such a version made does not do.
func TestPeersMayBeAskedOnceTheVaultKnows(t *testing.T) {
	for older, want := range map[bool]int{false: 1, true: 0} {
		good := v1alpha1.KeptLease{Application: "shop", Epoch: 2}
		s, app := armed(t, good, good)
		claim := lease.Claim{Site: "east", Cluster: "e", Request: "promised", Terms: &lease.Terms{LeaseMillis: 15_000, BoundMillis: 10_000, Peers: []lease.Peer{{Site: "west", Address: "w:1"}}}}
		if _, err := lease.New(s.project).Claim(t.Context(), "shop", 2, claim); err != nil {
			t.Fatal(err)
		}
		if older {
			if err := lease.StateKept(t.Context(), s.project, lease.Kept{Application: "shop", Epoch: 2, Site: "east", Cluster: "e", Nodes: []string{"one", "two"}}); err != nil {
				t.Fatal(err)
			}
		}
		if l := s.reconcile(app).Status.Lease; l == nil || len(l.Peers) > 0 {
			t.Errorf("at first: %+v", l)
		}
		for range 2 { // it stays
			if l := s.reconcile(app).Status.Lease; !l.Kept || len(l.Peers) != want {
				t.Errorf("stated by an older version %v: %+v", older, l)
			}
		}
	}
}

// TestALeaseThatIsOverIsSaid: the vault is silent, and a node has stopped it.
func TestALeaseThatIsOverIsSaid(t *testing.T) {
	good := v1alpha1.KeptLease{Application: "shop", Epoch: 1}
	s, app := armed(t, good, good)
	s.reconcile(app)
	answers := s.Vaults
	s.Vaults = silence{}
	if got := s.reconcile(app); got.Status.Lease == nil || got.Status.Lease.Over {
		t.Errorf("silent for a moment: %+v", got.Status.Lease)
	}
	var report v1alpha1.NodeFence
	if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "two"}, &report); err != nil {
		t.Fatal(err)
	}
	report.Status.Applications = []v1alpha1.FencedApplication{{Application: "shop", Reason: reasonOver}}
	if err := s.Client.Update(t.Context(), &report); err != nil {
		t.Fatal(err)
	}
	got := s.reconcile(app)
	if l := got.Status.Lease; !l.Over || !strings.Contains(l.Message, "node two: stopped") {
		t.Errorf("%+v", l)
	}
	for _, c := range got.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady && (c.Reason != v1alpha1.ReasonLeaseOver || s.replicas("shop") != 2) {
			t.Errorf("%+v", c)
		}
	}
	s.Vaults = answers
	if got := s.reconcile(app); got.Status.Lease.Over {
		t.Errorf("the vault answers again: %+v", got.Status.Lease)
	}
	next := lease.Claim{Site: "east", Cluster: "e", Request: "disarmed"}
	if _, err := lease.New(s.project).Claim(t.Context(), "shop", 2, next); err != nil {
		t.Fatal(err)
	}
	if got := s.reconcile(app); got.Status.Lease != nil {
		t.Errorf("disarmed: %+v", got.Status.Lease)
	}
}
