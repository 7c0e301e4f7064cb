package source

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// TestADriversErrorIsWaitedForNoLongerThanItMayHeal: an application stands still
// meanwhile.
func TestADriversErrorIsWaitedForNoLongerThanItMayHeal(t *testing.T) {
	for name, tt := range map[string]struct {
		heals time.Duration // 0: never
		most  time.Duration
	}{
		"it stays": {0, errorPatience + relook},
		"it heals": {8 * time.Second, 8*time.Second + relook},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kinds := map[schema.GroupVersionResource]string{snapshots: "VolumeSnapshotList", contents: "VolumeSnapshotContentList"}
				client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds)
				began := time.Now()
				client.PrependReactor("get", "volumesnapshots", func(a k8stesting.Action) (bool, runtime.Object, error) {
					o := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"error": map[string]any{"message": "no room left"}}}}
					if tt.heals > 0 && time.Since(began) >= tt.heals {
						o.Object["status"] = map[string]any{"creationTime": "2026-01-02T03:04:05Z"}
					}
					o.SetName(a.(k8stesting.GetAction).GetName())
					return true, o, nil
				})
				clients := &kube.Clients{Dynamic: client, Kubernetes: fake.NewClientset()}
				v := NewVolumes(clients, clients, nil, VolumeOptions{Vault: "v", Site: "east"})
				_, err := v.Cut(t.Context(), capture.VolumePlan{Method: capture.MethodSnapshot, Claim: capture.Claim{Namespace: "shop", Name: "data"}, Driver: "d"})
				if tt.heals > 0 && err != nil {
					t.Errorf("an error that healed ended the cut: %v", err)
				}
				if tt.heals == 0 && (!errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "no room left")) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took > tt.most { // the bubble's clock
					t.Errorf("it took %s, want %s at most", took, tt.most)
				}
			})
		})
	}
}
