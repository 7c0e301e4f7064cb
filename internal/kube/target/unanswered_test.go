package target

import (
	"errors"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

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

// leaving is an API server that lets go of a kind: it has a list of it no more, and says so
// some looks later.
type leaving struct {
	discovery.DiscoveryInterface
	looks *int // until it says so; below zero: never
}

func (l leaving) ServerGroupsAndResources() ([]*metav1.APIGroup, []*metav1.APIResourceList, error) {
	*l.looks--
	v1 := metav1.GroupVersionForDiscovery{GroupVersion: "shop.example.com/v1", Version: "v1"}
	list := &metav1.APIResourceList{GroupVersion: v1.GroupVersion}
	if *l.looks != -1 {
		list.APIResources = []metav1.APIResource{{Name: "tills", Kind: "Till", Namespaced: true}}
	}
	return []*metav1.APIGroup{{Name: "shop.example.com", Versions: []metav1.GroupVersionForDiscovery{v1}, PreferredVersion: v1}}, []*metav1.APIResourceList{list}, nil
}

// TestListOfAKindThatGoes is told from one that the API server cannot give.
func TestListOfAKindThatGoes(t *testing.T) {
	for name, test := range map[string]struct {
		looks  int
		answer error
		went   bool
	}{
		"at once":     {1, apierrors.NewNotFound(schema.GroupResource{}, ""), true},
		"after looks": {3, apierrors.NewNotFound(schema.GroupResource{}, ""), true},
		"never":       {-2, apierrors.NewNotFound(schema.GroupResource{}, ""), false},
		"forbidden":   {1, apierrors.NewForbidden(schema.GroupResource{}, "", nil), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			objects := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{{Group: "shop.example.com", Version: "v1", Resource: "tills"}: "TillList"})
			objects.PrependReactor("list", "tills", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.answer })
			c := New(&kube.Clients{Discovery: leaving{looks: new(test.looks + 1)}, Dynamic: objects})
			served, err := c.Serves(t.Context(), schema.GroupKind{Group: "shop.example.com", Kind: "Till"})
			if err != nil {
				t.Fatal(name, err)
			}
			err = c.List(t.Context(), served[0], "shop", "", nil)
			if errors.Is(err, restore.ErrNotServed) != test.went || !errors.Is(err, test.answer) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
