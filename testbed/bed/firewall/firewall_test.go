package firewall

import (
	"strings"
	"testing"

	"davit.dev/davit/testbed/bed/host"
)

func TestRulesetNamesEveryMember(t *testing.T) {
	rules := New("x").ruleset([]host.Subnet{{Index: 11}, {Index: 12}, {Index: 13}})
	for _, want := range []string{"table inet davit-bed-x", "10.88.11.2", "10.89.12.0/24", `oifname != "bed13"`} {
		if !strings.Contains(rules, want) {
			t.Errorf("no %s in\n%s", want, rules)
		}
	}
}

func TestElementIsSymmetric(t *testing.T) {
	set, members := element("bed1", "bed2")
	if set != "pairs" || members != `{ "bed1" . "bed2", "bed2" . "bed1" }` {
		t.Errorf("got %s %s", set, members)
	}
	for _, pair := range [][2]string{{"", "bed2"}, {"bed2", ""}} {
		if set, members := element(pair[0], pair[1]); set != "lone" || members != `{ "bed2" }` {
			t.Errorf("got %s %s", set, members)
		}
	}
}
