package cli

import "testing"

func TestBandwidthHasALeast(t *testing.T) {
	for width, possible := range map[string]bool{"": true, "64Ki": true, "20Mi": true, "65535": false, "0": false, "-1Mi": false, "500m": false, "fast": false} {
		if err := (&vaultAdd{width: width}).check(); (err == nil) != possible {
			t.Errorf("--bandwidth %q: %v", width, err)
		}
	}
}
