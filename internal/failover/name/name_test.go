package name_test

import (
	"testing"

	"davit.dev/davit/internal/failover/name"
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
		if name.SamePerson(test.a, test.b) != test.same || name.SamePerson(test.b, test.a) != test.same {
			t.Errorf("%s and %s: same is %v", test.a, test.b, !test.same)
		}
	}
	if got := name.AtConsole("anna", "nightly", "shop"); got != "anna/nightly@console/shop" || !name.OfConsole(got, "shop") || name.OfConsole(got, "wiki") || name.OfConsole("anna", "shop") || name.OfConsole("@console/shop", "shop") {
		t.Error(got)
	}
}
