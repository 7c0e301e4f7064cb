package recovery_test

import (
	"errors"
	"testing"
	"time"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// TestASiteArmsWhatItHolds: by a claim of the next epoch, once, and only there.
func TestASiteArmsWhatItHolds(t *testing.T) {
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(nil), "default", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	terms := &lease.Terms{LeaseMillis: 15000, BoundMillis: 10000}
	east := recovery.Claiming{Project: p, Application: "shop", Self: lease.Identity{Site: "east", Cluster: "e"}, Holder: "ann", Request: "r1", Reason: lease.ArmedReason + "shop", Terms: terms, At: time.Now()}
	if _, _, err := recovery.Arm(t.Context(), east); !errors.Is(err, recovery.ErrElsewhere) {
		t.Fatalf("nobody holds it: %v", err)
	}
	if _, err := lease.New(p).Claim(t.Context(), "shop", 1, lease.Claim{Site: "east", Cluster: "e", Request: "first"}); err != nil {
		t.Fatal(err)
	}
	arm := func(c recovery.Claiming, request string, number int64, changes bool) {
		t.Helper()
		c.Request = lease.ArmedRequest + request
		epoch, changed, err := recovery.Arm(t.Context(), c)
		if err != nil || epoch.Number != number || changed != changes {
			t.Fatalf("%s: epoch %d, changed %v, %v", request, epoch.Number, changed, err)
		}
	}
	arm(east, "arm", 2, true)
	arm(east, "again", 2, false)
	longer := east
	longer.Terms = &lease.Terms{LeaseMillis: 30000, BoundMillis: 10000}
	arm(longer, "other terms", 3, true)
	none := east
	none.Terms = nil
	arm(none, "disarm", 4, true)
	arm(none, "disarm again", 4, false)
	// A run brought it here under the same terms: a person arms it anew.
	if _, err := lease.New(p).Claim(t.Context(), "shop", 5, lease.Claim{Site: "east", Cluster: "e", Request: "run-1", Reason: "failover of plan shop", Terms: terms}); err != nil {
		t.Fatal(err)
	}
	arm(east, "after a run", 6, true)
	arm(east, "again after a run", 6, false)
	west := east
	west.Self = lease.Identity{Site: "west", Cluster: "w"}
	if _, _, err := recovery.Arm(t.Context(), west); !errors.Is(err, recovery.ErrElsewhere) {
		t.Fatalf("another site arms it: %v", err)
	}
}
