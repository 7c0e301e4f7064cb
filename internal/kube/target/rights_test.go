package target

import (
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/restore"
)

// TestRightsAskedForOnce: what the account has is not asked for again for a
// while; what it lacks is, every time.
func TestRightsAskedForOnce(t *testing.T) {
	api, asked, granted := fake.NewSimpleClientset(), 0, true
	api.PrependReactor("create", "selfsubjectaccessreviews", func(action k8stesting.Action) (bool, runtime.Object, error) {
		asked++
		review := action.(k8stesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
		review.Status.Allowed = granted && review.Spec.ResourceAttributes.Verb != "delete"
		return true, review, nil
	})
	c := New(&kube.Clients{Kubernetes: api})
	now := time.Unix(0, 0)
	c.rights.now = func() time.Time { return now }
	secrets := restore.Served{GVR: schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, Namespaced: true}
	for _, step := range []struct {
		what, verb, namespace string
		later                 time.Duration
		revoked               bool
		want                  bool
		asked                 int
	}{
		{"the first time", "create", "", 0, false, true, 1},
		{"again", "create", "", remembered - 1, false, true, 1},
		{"somewhere else", "create", "shop", 0, false, true, 2},
		{"another verb, which it lacks", "delete", "", 0, false, false, 3},
		{"that again", "delete", "", 0, false, false, 4},
		{"when it is old, and was revoked", "create", "", 1, true, false, 5},
		{"and granted", "create", "", 0, false, true, 6},
	} {
		now, granted = now.Add(step.later), !step.revoked
		got, _, err := c.May(t.Context(), step.verb, secrets, step.namespace)
		if err != nil || got != step.want || asked != step.asked {
			t.Errorf("%s: %t, %v, after %d questions; want %t after %d", step.what, got, err, asked, step.want, step.asked)
		}
	}
}
