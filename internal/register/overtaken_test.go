package register_test

import (
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/register"
)

// TestARunWhoseTargetIsLostKeepsNoOtherFromBeginning: it is carried at its target alone, so that nobody
// ends it. Once its applications were claimed by others, it moves none of them any more. The controls are runs that
// may: whose claim stands, that lack one application, and of which something was heard not long ago.
func TestARunWhoseTargetIsLostKeepsNoOtherFromBeginning(t *testing.T) {
	for name, tt := range map[string]struct {
		by, request string // who claimed since; empty: nobody
		silent      time.Duration
		left        bool // out
	}{
		"taken over by the source": {"east", "restore", time.Hour, true},
		"given back by itself":     {"east", "one" + lease.GivenBack, time.Hour, true},
		"its own claim":            {"west", "one", time.Hour, false},
		"nobody claimed":           {"", "", time.Hour, false},
		"a moment ago":             {"east", "restore", time.Minute, false},
	} {
		p, _, now := faultyProject(t)
		claim := func(n int64, site, request string) {
			t.Helper()
			if _, err := lease.New(p).Claim(t.Context(), "db", n, lease.Claim{Site: site, Request: request, At: *now}); err != nil {
				t.Fatal(err)
			}
		}
		claim(1, "east", "first")
		begun(t, p, "one")
		j, _, err := journal.Open(t.Context(), p, "one", "test2")
		if err != nil {
			t.Fatal(err)
		}
		facts := &failover.Facts{Epochs: map[string]failover.Held{"db": {Number: 1, Site: "east"}}}
		if err := j.Append(t.Context(), []failover.Entry{{Kind: failover.Took, By: "test2"}, {Kind: failover.Evaluated, Facts: facts}}); err != nil {
			t.Fatal(err)
		}
		if tt.by != "" {
			claim(2, tt.by, tt.request)
		}
		*now = now.Add(tt.silent)
		states, err := register.New(p).States(t.Context(), "shop", "")
		if err != nil || (names(states) == "") != tt.left {
			t.Errorf("%s: under way: %q, %v", name, names(states), err)
		}
	}
}
