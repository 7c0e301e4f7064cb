package kube_test

import (
	"context"
	"strings"
	"testing"
	"time"

	authn "k8s.io/api/authentication/v1"
	authz "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/kube/permit"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// judging lets ops steer plan shop, and team approvers approve it. blind may not
// be asked about others.
func judging(blind bool) client.Client {
	return fake.NewClientBuilder().WithScheme(process.Scheme()).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(_ context.Context, _ client.WithWatch, o client.Object, _ ...client.CreateOption) error {
			switch review := o.(type) {
			case *authn.SelfSubjectReview:
				review.Status.UserInfo = authn.UserInfo{Username: "ann", Groups: []string{"people"}}
			case *authz.SelfSubjectAccessReview:
				review.Status.Allowed = review.Spec.ResourceAttributes.Verb == "steer"
			case *authz.SubjectAccessReview:
				if blind {
					return apierrors.NewForbidden(schema.GroupResource{Resource: "subjectaccessreviews"}, "", nil)
				}
				a := review.Spec.ResourceAttributes
				right := a.Group == "davit.dev" && a.Resource == "recoveryplans" && a.Name == "shop"
				ops := review.Spec.User == "ops" && a.Verb == "steer"
				approver := len(review.Spec.Groups) == 1 && review.Spec.Groups[0] == "approvers" && a.Verb == "approve"
				review.Status.Allowed = right && (ops || approver)
			}
			return nil
		},
	}).Build()
}

func TestSelf(t *testing.T) {
	c := judging(false)
	who := permit.Self(t.Context(), c)
	if who.Name != "ann" || len(who.Groups) != 1 {
		t.Errorf("%+v", who)
	}
	if whyNot, err := permit.MaySelf(t.Context(), c, who, permit.Verb(failover.Pausing, "", nil), "shop"); err != nil || whyNot != "" {
		t.Errorf("%q, %v", whyNot, err)
	}
	whyNot, err := permit.MaySelf(t.Context(), c, who, permit.Verb(failover.Reject, "", nil), "shop")
	if err != nil || !strings.Contains(whyNot, "ann may not approve runs of plan shop") || !strings.Contains(whyNot, "davit-approver") {
		t.Errorf("%q, %v", whyNot, err)
	}
}

func box(t *testing.T) mailbox.Box {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return mailbox.New(p)
}

// TestRequests: each comes with why its person may not ask that, which the run
// refuses and keeps. An answer to an approval step approves.
func TestRequests(t *testing.T) {
	b := box(t)
	for _, r := range []struct {
		execute.Request
		lacks string
	}{
		{execute.Request{Kind: failover.Commit, By: "eve"}, "steer"},
		{execute.Request{Kind: failover.Approve, By: "ops"}, "approve"},
		{execute.Request{Kind: failover.Approve, By: "ben", Groups: []string{"approvers"}}, ""},
		{execute.Request{Kind: failover.Commit, By: "ben", Groups: []string{"approvers"}}, "steer"},
		{execute.Request{Kind: failover.Commit, By: "ops"}, ""},
		{execute.Request{Kind: failover.Answer, Step: "go", By: "ops"}, "approve"},
		{execute.Request{Kind: failover.Answer, Step: "go", By: "ben", Groups: []string{"approvers"}}, ""},
		{execute.Request{Kind: failover.Answer, Step: "key", By: "ops"}, ""},
		{execute.Request{Kind: failover.Commit, By: "ann"}, ""}, // who carries it
		{execute.Request{Kind: failover.Answer, Step: "go", By: "ann"}, "approve"},
	} {
		n, err := b.Put(t.Context(), "r1", r.Request)
		if err != nil {
			t.Fatal(err)
		}
		q := permit.Requests{Requests: b, Client: judging(false), Plan: "shop", Self: "ann", Steps: []plan.Step{{Name: "go", Kind: plan.KindApproval}, {Name: "key", Kind: plan.KindManual}}}
		got, err := q.Next(t.Context(), "r1")
		if err != nil || got == nil || got.Number != n {
			t.Fatalf("%+v, %v, want request %d", got, err, n)
		}
		if (r.lacks != "") != strings.Contains(got.Denied, "may not "+r.lacks) || r.lacks == "" && got.Denied != "" {
			t.Errorf("%+v is denied as %q, want %q", r.Request, got.Denied, r.lacks)
		}
		if err := q.Reply(t.Context(), "r1", n, got.Denied); err != nil {
			t.Fatal(err)
		}
	}
}

// Rights on one plan are none on another, and the check is what refuses: without it
// the request passes.
func TestTheCheckRefuses(t *testing.T) {
	b := box(t)
	if _, err := b.Put(t.Context(), "r1", execute.Request{Kind: failover.Commit, By: "ops"}); err != nil {
		t.Fatal(err)
	}
	if r, err := b.Next(t.Context(), "r1"); err != nil || r == nil || r.Denied != "" {
		t.Fatalf("unchecked: %+v, %v", r, err)
	}
	if r, err := (permit.Requests{Requests: b, Client: judging(false), Plan: "cash"}).Next(t.Context(), "r1"); err != nil || r.Denied == "" {
		t.Errorf("checked: %+v, %v", r, err)
	}
}

// Whoever carries a run with rights that do not allow to ask about others serves
// himself alone.
func TestBlind(t *testing.T) {
	for by, want := range map[string]string{"ops": "may not look whether ops may", "ann": ""} {
		b := box(t)
		if _, err := b.Put(t.Context(), "r1", execute.Request{Kind: failover.Commit, By: by}); err != nil {
			t.Fatal(err)
		}
		r, err := (permit.Requests{Requests: b, Client: judging(true), Plan: "shop", Self: "ann"}).Next(t.Context(), "r1")
		if err != nil || r == nil || (r.Denied == "") != (want == "") || !strings.Contains(r.Denied, want) {
			t.Errorf("%s: %+v, %v", by, r, err)
		}
	}
}
