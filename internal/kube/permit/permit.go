// Package permit asks a cluster who somebody is and whether he may approve or
// steer the runs of a plan: rights on recoveryplans, by the plan's name.
package permit

import (
	"context"
	"fmt"
	"slices"

	authn "k8s.io/api/authentication/v1"
	authz "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// Person is who a cluster takes somebody for.
type Person struct {
	Name   string
	Groups []string
}

// Self is who the cluster takes the caller for. Clusters that do not tell have
// an unnamed person.
func Self(ctx context.Context, c client.Client) Person {
	var review authn.SelfSubjectReview
	if err := c.Create(ctx, &review); err != nil || review.Status.UserInfo.Username == "" {
		return Person{Name: "a person at the command line"}
	}
	return Person{Name: review.Status.UserInfo.Username, Groups: review.Status.UserInfo.Groups}
}

// Verb is the right that a request takes. Whom it is about decides: an answer to
// an approval step approves.
func Verb(kind failover.EventKind, step string, of []plan.Step) string {
	approval := func(s plan.Step) bool { return s.Name == step && s.Kind == plan.KindApproval }
	if kind == failover.Approve || kind == failover.Reject || kind == failover.Answer && slices.ContainsFunc(of, approval) {
		return v1alpha1.VerbApprove
	}
	return v1alpha1.VerbSteer
}

func attributes(verb, name string) *authz.ResourceAttributes {
	return &authz.ResourceAttributes{Group: v1alpha1.GroupVersion.Group, Version: v1alpha1.GroupVersion.Version, Resource: "recoveryplans", Verb: verb, Name: name}
}

// MaySelf tells whether the caller may do that with the plan's runs; why not
// says so, for people.
func MaySelf(ctx context.Context, c client.Client, who Person, verb, planName string) (whyNot string, err error) {
	review := authz.SelfSubjectAccessReview{Spec: authz.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes(verb, planName)}}
	if err := c.Create(ctx, &review); err != nil {
		return "", fmt.Errorf("ask whether you may %s runs of plan %s: %w", verb, planName, err)
	}
	return verdict(review.Status, who, verb, planName), nil
}

// May tells whether somebody may do that with the plan's runs. It takes the right
// to create subjectaccessreviews.
func May(ctx context.Context, c client.Client, who Person, verb, planName string) (whyNot string, err error) {
	review := authz.SubjectAccessReview{Spec: authz.SubjectAccessReviewSpec{User: who.Name, Groups: who.Groups, ResourceAttributes: attributes(verb, planName)}}
	if err := c.Create(ctx, &review); err != nil {
		return "", fmt.Errorf("ask whether %s may %s runs of plan %s: %w", who.Name, verb, planName, err)
	}
	return verdict(review.Status, who, verb, planName), nil
}

func verdict(s authz.SubjectAccessReviewStatus, who Person, verb, planName string) string {
	if s.Allowed {
		return ""
	}
	role := map[string]string{v1alpha1.VerbApprove: "davit-approver", v1alpha1.VerbSteer: "davit-operator"}[verb]
	return fmt.Sprintf("%s may not %s runs of plan %s here: it takes the verb %s on recoveryplans, which the ClusterRole %s has", who.Name, verb, planName, verb, role)
}

// Requests passes on what people ask, and says of what they may not ask why: the
// run refuses that, and its journal keeps it.
type Requests struct {
	execute.Requests
	Client client.Client
	Plan   string
	Steps  []plan.Step // of the run
	// Self may steer: it is whoever carries the run with his own rights. Whether he
	// may approve is asked of the cluster.
	Self string
}

// Next implements execute.Requests.
func (q Requests) Next(ctx context.Context, run string) (*execute.Request, error) {
	r, err := q.Requests.Next(ctx, run)
	if err != nil || r == nil {
		return nil, err
	}
	if r.Denied, err = q.whyNot(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

func (q Requests) whyNot(ctx context.Context, r *execute.Request) (string, error) {
	verb := Verb(r.Kind, r.Step, q.Steps)
	switch {
	case q.Self == "" || r.By != q.Self:
	case verb == v1alpha1.VerbApprove:
		return MaySelf(ctx, q.Client, Person{Name: r.By, Groups: slices.Clone(r.Groups)}, verb, q.Plan)
	default:
		return "", nil
	}
	whyNot, err := May(ctx, q.Client, Person{Name: r.By, Groups: slices.Clone(r.Groups)}, verb, q.Plan)
	if apierrors.IsForbidden(err) { // it carries the run, but may not ask for others
		return fmt.Sprintf("whoever carries the run may not look whether %s may do that: let an agent carry it, or do it yourself", r.By), nil
	}
	return whyNot, err
}
