package target

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/restore"
)

// halfDeaf is an API server one of whose aggregated groups does not answer.
type halfDeaf struct{ discovery.DiscoveryInterface }

func (halfDeaf) ServerGroupsAndResources() ([]*metav1.APIGroup, []*metav1.APIResourceList, error) {
	v1 := metav1.GroupVersionForDiscovery{GroupVersion: "v1", Version: "v1"}
	return []*metav1.APIGroup{{Versions: []metav1.GroupVersionForDiscovery{v1}, PreferredVersion: v1}},
		[]*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "configmaps", Kind: "ConfigMap", Namespaced: true}}}},
		&discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{{Group: "pg.example.com", Version: "v1"}: errors.New("503")}}
}

// TestUnknownIsNotAbsent: an owner whose group does not answer may well be
// there, and what is not served can be left out.
func TestUnknownIsNotAbsent(t *testing.T) {
	c := New(&kube.Clients{Discovery: halfDeaf{}})
	for _, test := range []struct {
		kind schema.GroupKind
		want error
	}{
		{schema.GroupKind{Kind: "ConfigMap"}, nil},
		{schema.GroupKind{Group: "pg.example.com", Kind: "Cluster"}, restore.ErrUnanswered},
		{schema.GroupKind{Group: "shop.example.com", Kind: "Till"}, restore.ErrNotServed},
	} {
		_, err := c.Serves(t.Context(), test.kind)
		if !errors.Is(err, test.want) || errors.Is(err, restore.ErrUnanswered) && errors.Is(err, restore.ErrNotServed) {
			t.Errorf("%s: %v, want %v", test.kind, err, test.want)
		}
	}
}
