package mover

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

// TestNamesOfHoldersDoNotMeet: they are of 128 bits, so that nobody finds two claims of one
// name, and fit a pod's name.
func TestNamesOfHoldersDoNotMeet(t *testing.T) {
	req := request()
	name := req.holderName()
	if len(name) != len(holderPrefix)+32 || len(validation.IsDNS1123Label(name)) > 0 {
		t.Errorf("%s", name)
	}
	for _, other := range []Request{{Owner: req.Owner, Namespace: req.Namespace, Claim: req.Claim + "x"}, {Owner: req.Owner + "\x00" + req.Namespace, Claim: req.Claim}} {
		if other.holderName() == name {
			t.Errorf("%+v has the same name", other)
		}
	}
}
