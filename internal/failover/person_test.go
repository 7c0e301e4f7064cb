package failover

import (
	"strings"
	"testing"

	"davit.dev/davit/internal/plan"
)

// One person under the names of a console and of a cluster is one; two people of
// one cluster are two, however alike they are called.
func TestSamePerson(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"anna", "anna", true},
		{"anna@console/shop", "anna", true},
		{"anna@console/shop", "anna@example.com", true},
		{"anna@console/shop", "oidc:Anna@example.com", true},
		{"anna@console/shop", "https://sso.example.com#anna", true},
		{"anna@console/shop", "anna@sso@console/shop", true},
		{"anna/nightly@console/shop", "anna@console/shop", true},
		{"anna/nightly@console/shop", "anna", true},
		{"anna@console/shop", "ben@console/shop", false},
		{"anna@console/shop", "ben", false},
		{"anna@console/shop", "kubernetes-admin", false},
		{"anna@console/shop", "system:serviceaccount:shop:anna", false},
		{"nightly@console/shop", "anna/nightly@console/shop", false},
		{"anna@a.example", "anna@b.example", false}, // of one cluster: its names are exact
		{"anna", "oidc:anna", false},
	} {
		if SamePerson(test.a, test.b) != test.same || SamePerson(test.b, test.a) != test.same {
			t.Errorf("%s and %s: same is %v", test.a, test.b, !test.same)
		}
	}
	if name := AtConsole("anna", "nightly", "shop"); name != "anna/nightly@console/shop" || !OfConsole(name, "shop") || OfConsole(name, "wiki") || OfConsole("anna", "shop") || OfConsole("@console/shop", "shop") {
		t.Error(name)
	}
}

// Whoever asked at a console approves under no other name of his, and counts once.
func TestApprovalsAcrossNames(t *testing.T) {
	r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.By, s.Approvals = "ann@console/shop", 2 }).run(AwaitingApproval)
	for _, c := range []struct{ by, want string }{
		{"ann@example.com", "whoever asked for the run cannot approve it: ann@example.com is taken for ann@console/shop"},
		{"ann/nightly@console/shop", "whoever asked"},
		{"bob", ""},
		{"bob@console/shop", "bob@console/shop has approved it already: bob@console/shop is taken for bob"},
	} {
		if why := r.as(Approve, "", c.by); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", c.by, why, c.want)
		}
	}
	if s := r.m.State(); s.Phase != AwaitingApproval {
		t.Fatalf("%s: one person counted twice", s.Phase)
	}
	if why := r.as(Approve, "", "cas@console/shop"); why != "" {
		t.Error(why)
	}
	r.pass(AwaitingCommit)
}
