package lease_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func sign(cluster string) vault.SiteStatus {
	return vault.SiteStatus{Site: "east", Cluster: cluster, AgentVersion: "test"}
}

func TestMadeIsByClusterNotByName(t *testing.T) {
	self := lease.Identity{Site: "east", Cluster: "b"}
	for _, c := range []struct {
		claim lease.Claim
		made  bool
		says  string
	}{
		{lease.Claim{Site: "east", Cluster: "b"}, true, "site east"},
		{lease.Claim{Site: "east", Cluster: "a"}, false, "another cluster (a) under this site's name east"},
		{lease.Claim{Site: "east"}, true, "site east"}, // of a version that knew no clusters
		{lease.Claim{Site: "west", Cluster: "b"}, false, "site west"},
		{lease.Claim{}, false, "site "},
	} {
		if got := self.Made(c.claim); got != c.made {
			t.Errorf("Made(%+v) = %v", c.claim, got)
		}
		if got := self.Name(c.claim); got != c.says {
			t.Errorf("Name(%+v) = %q", c.claim, got)
		}
	}
	if (lease.Identity{Site: "east"}).Made(lease.Claim{Site: "east", Cluster: "a"}) {
		t.Error("one that does not know its cluster holds a cluster's epoch")
	}
}

// TestSameRequestOfTwoClusters: the first claim of any application makes the
// same request at each cluster of a name.
func TestSameRequestOfTwoClusters(t *testing.T) {
	e := lease.New(ledger(t, mem.New(nil)))
	c := claim("east", "first-east")
	c.Cluster = "a"
	if _, err := e.Claim(t.Context(), "shop", 1, c); err != nil {
		t.Fatal(err)
	}
	if again, err := e.Claim(t.Context(), "shop", 1, c); err != nil || again.Claim.Cluster != "a" {
		t.Errorf("the same cluster again = %+v, %v", again, err)
	}
	c.Cluster = "b"
	if _, err := e.Claim(t.Context(), "shop", 1, c); !errors.Is(err, lease.ErrLost) {
		t.Errorf("another cluster of the name = %v, want ErrLost", err)
	}
}

func TestTheFirstBearerKeepsTheName(t *testing.T) {
	p := ledger(t, mem.New(nil))
	if err := lease.Beat(t.Context(), p, sign("")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // takes a nameless sign on, and beats on
		if err := lease.Beat(t.Context(), p, sign("a")); err != nil {
			t.Fatal(err)
		}
	}
	err := lease.Beat(t.Context(), p, sign("b"))
	var taken *lease.NameTakenError
	if !errors.Is(err, lease.ErrNameTaken) || !errors.As(err, &taken) || taken.Sign.Cluster != "a" || !strings.Contains(err.Error(), "--replace-lost-site") {
		t.Fatalf("Beat of another cluster = %v", err)
	}
	if err := lease.CheckName(t.Context(), p, lease.Identity{Site: "east", Cluster: "b"}); !errors.Is(err, lease.ErrNameTaken) {
		t.Errorf("CheckName of another cluster = %v", err)
	}
	for _, id := range []lease.Identity{{Site: "east", Cluster: "a"}, {Site: "west", Cluster: "b"}} {
		if err := lease.CheckName(t.Context(), p, id); err != nil {
			t.Errorf("CheckName of %+v = %v", id, err)
		}
	}
	if s, err := p.Site(t.Context(), "east"); err != nil || s.Cluster != "a" {
		t.Errorf("the name is %+v's, %v", s, err)
	}
}

// TestALostClustersNamePasses to another, and its epochs do not.
func TestALostClustersNamePasses(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := ledger(t, mem.New(func() time.Time { return now }))
	if err := lease.Beat(t.Context(), p, sign("a")); err != nil {
		t.Fatal(err)
	}
	held := claim("east", "r")
	held.Cluster = "a"
	if _, err := lease.New(p).Claim(t.Context(), "shop", 1, held); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lease.SilentAfter - time.Second)
	if err := lease.Replace(t.Context(), p, sign("b")); !errors.Is(err, lease.ErrNameTaken) {
		t.Fatalf("Replace of a cluster that may live = %v", err)
	}
	now = now.Add(2 * time.Second)
	if err := lease.Replace(t.Context(), p, sign("b")); err != nil {
		t.Fatalf("Replace of a silent cluster = %v", err)
	}
	if err := lease.Beat(t.Context(), p, sign("b")); err != nil {
		t.Fatal(err)
	}
	s, err := p.Site(t.Context(), "east")
	if err != nil || s.Cluster != "b" || s.Replaces != "a" {
		t.Errorf("sign = %+v, %v", s, err)
	}
	current, err := lease.New(p).Current(t.Context(), "shop")
	if err != nil || (lease.Identity{Site: "east", Cluster: "b"}).Made(current.Claim) {
		t.Errorf("the epoch passed with the name: %+v, %v", current, err)
	}
	if err := lease.Beat(t.Context(), p, sign("a")); !errors.Is(err, lease.ErrNameTaken) {
		t.Errorf("the lost cluster, back again = %v", err)
	}
}

// TestNamelessEpochsKeepTheName: an epoch that counts by its name alone would
// pass to the new cluster without a take-over.
func TestNamelessEpochsKeepTheName(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := ledger(t, mem.New(func() time.Time { return now }))
	if _, err := p.PutDocument(t.Context(), vault.Document{Application: "shop", Site: "east"}); err != nil {
		t.Fatal(err)
	}
	if _, err := lease.New(p).Claim(t.Context(), "shop", 1, claim("east", "r")); err != nil {
		t.Fatal(err)
	}
	if err := lease.Beat(t.Context(), p, sign("a")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	err := lease.Replace(t.Context(), p, sign("b"))
	if !errors.Is(err, lease.ErrNameTaken) || !strings.Contains(err.Error(), "shop") {
		t.Errorf("Replace = %v", err)
	}
	next := claim("west", "r2")
	next.Cluster = "w"
	if _, err := lease.New(p).Claim(t.Context(), "shop", 2, next); err != nil {
		t.Fatal(err)
	}
	if err := lease.Replace(t.Context(), p, sign("b")); err != nil {
		t.Errorf("Replace once another site holds it = %v", err)
	}
}
