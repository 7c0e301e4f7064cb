package scenario

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func service(clusterIP, uid string, port int64) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": "web", "uid": uid, "labels": map[string]any{"davit.dev/restore": uid}},
		"spec":     map[string]any{"clusterIP": clusterIP, "clusterIPs": []any{clusterIP}, "port": port},
	}}
}

// The judge must see what differs, and only that.
func TestDifferences(t *testing.T) {
	a := Objects{"services web": normalise(service("10.0.0.1", "a", 80))}
	if diff := a.Differences(Objects{"services web": normalise(service("10.0.0.2", "b", 80))}); len(diff) != 0 {
		t.Errorf("what a cluster assigns was reported: %v", diff)
	}
	for name, b := range map[string]Objects{
		"changed": {"services web": normalise(service("10.0.0.1", "a", 81))},
		"missing": {},
		"extra":   {"services web": normalise(service("10.0.0.1", "a", 80)), "services new": nil},
	} {
		if diff := a.Differences(b); len(diff) != 1 {
			t.Errorf("%s: got %v, want one difference", name, diff)
		}
	}
}
