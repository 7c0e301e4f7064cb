package restore

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// leaseless is a target as an account sees it that may do anything but leases.
type leaseless struct{ *fakeCluster }

var errLease = apierrors.NewForbidden(schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}, "restore-shop", errors.New("not yours"))

func (c leaseless) Get(ctx context.Context, at Served, namespace, name string) (*unstructured.Unstructured, error) {
	if at.GVR.Resource == "leases" {
		return nil, errLease
	}
	return c.fakeCluster.Get(ctx, at, namespace, name)
}

func (c leaseless) Create(ctx context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if at.GVR.Resource == "leases" {
		return nil, errLease
	}
	return c.fakeCluster.Create(ctx, at, obj)
}

func (c leaseless) May(ctx context.Context, verb string, at Served, namespace string) (bool, string, error) {
	if at.GVR.Resource == "leases" && namespace == "davit-system" {
		return false, "", nil
	}
	return c.fakeCluster.May(ctx, verb, at, namespace)
}

// TestLeaseWithOtherRights restores with an account that may not make leases:
// whole, where somebody else holds the lease for it. The control: without, the
// preflight says so, and nothing is written.
func TestLeaseWithOtherRights(t *testing.T) {
	for _, held := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig()
			deps := Deps{Source: r.s, Cluster: leaseless{r.c}, Volumes: r.v}
			if held {
				deps.Leases = r.c
			}
			e := New(r.m, Options{ID: testID, Holder: "test"}, deps)
			found, err := e.Preflight(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if bad := Blocking(found); held != (len(bad) == 0) || !held && !strings.Contains(bad[0].String(), "leases in namespace davit-system") {
				t.Errorf("held by another %v: findings %v", held, bad)
			}
			_, err = e.Run(t.Context())
			if held != (err == nil) {
				t.Errorf("held by another %v: the restore ended with %v", held, err)
			}
			if there := r.c.get("StatefulSet", "shop", "db") != nil; there != held {
				t.Errorf("held by another %v: the StatefulSet is there: %v", held, there)
			}
		})
	}
}
