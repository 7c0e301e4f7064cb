package kube_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
)

// TestNoBandwidthStandsStill: an object of before the definition refused it.
func TestNoBandwidthStandsStill(t *testing.T) {
	for text, want := range map[string]int64{"0": vaults.MinBandwidth, "-5": vaults.MinBandwidth, "500m": vaults.MinBandwidth, "64Ki": vaults.MinBandwidth, "20Mi": 20 << 20} {
		v := &v1alpha1.Vault{Spec: v1alpha1.VaultSpec{Bandwidth: ptr.To(resource.MustParse(text))}}
		if got := vaults.Rates(v); got.UploadPerSecond != want || got.DownloadPerSecond != want {
			t.Errorf("%s: %+v, want %d", text, got, want)
		}
	}
	if got := vaults.Rates(&v1alpha1.Vault{}); got.UploadPerSecond != 0 {
		t.Errorf("no bound is %+v", got)
	}
}
