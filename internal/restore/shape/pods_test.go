package shape

import "testing"

// TestMountsOfAStatefulSet: its claims end in a number; those of a set whose name begins as
// its own does are not its.
func TestMountsOfAStatefulSet(t *testing.T) {
	d := Document{"metadata": Document{"name": "db"}, "spec": Document{"volumeClaimTemplates": []any{
		Document{"metadata": Document{"name": "data"}},
	}}}
	for claim, want := range map[string]bool{"data-db-0": true, "data-db-12": true, "data-db-backup-0": false, "data-db-": false, "data-db": false} {
		if got := Mounts(KindStatefulSet, d, claim); got != want {
			t.Errorf("%s: %t", claim, got)
		}
	}
}
