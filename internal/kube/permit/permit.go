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

// Verb is the right that a request takes.
func Verb(kind failover.EventKind) string {
	if kind == failover.Approve || kind == failover.Reject {
		return v1alpha1.VerbApprove
	}
	return v1alpha1.VerbSteer
}

func attributes(verb, plan string) *authz.ResourceAttributes {
	return &authz.ResourceAttributes{Group: v1alpha1.GroupVersion.Group, Version: v1alpha1.GroupVersion.Version, Resource: "recoveryplans", Verb: verb, Name: plan}
}

// MaySelf tells whether the caller may do that with the plan's runs; why not
// says so, for people.
func MaySelf(ctx context.Context, c client.Client, who Person, verb, plan string) (whyNot string, err error) {
	review := authz.SelfSubjectAccessReview{Spec: authz.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes(verb, plan)}}
	if err := c.Create(ctx, &review); err != nil {
		return "", fmt.Errorf("ask whether you may %s runs of plan %s: %w", verb, plan, err)
	}
	return verdict(review.Status, who, verb, plan), nil
}

// May tells whether somebody may do that with the plan's runs. It takes the right
// to create subjectaccessreviews.
func May(ctx context.Context, c client.Client, who Person, verb, plan string) (whyNot string, err error) {
	review := authz.SubjectAccessReview{Spec: authz.SubjectAccessReviewSpec{User: who.Name, Groups: who.Groups, ResourceAttributes: attributes(verb, plan)}}
	if err := c.Create(ctx, &review); err != nil {
		return "", fmt.Errorf("ask whether %s may %s runs of plan %s: %w", who.Name, verb, plan, err)
	}
	return verdict(review.Status, who, verb, plan), nil
}

func verdict(s authz.SubjectAccessReviewStatus, who Person, verb, plan string) string {
	if s.Allowed {
		return ""
	}
	role := map[string]string{v1alpha1.VerbApprove: "davit-approver", v1alpha1.VerbSteer: "davit-operator"}[verb]
	return fmt.Sprintf("%s may not %s runs of plan %s here: it takes the verb %s on recoveryplans, which the ClusterRole %s has", who.Name, verb, plan, verb, role)
}

// Requests passes on what people may ask, and refuses the rest.
type Requests struct {
	execute.Requests
	Client client.Client
	Plan   string
	// Self may ask anything: it is whoever carries the run with his own rights.
	Self string
}

// Next implements execute.Requests.
func (q Requests) Next(ctx context.Context, run string) (*execute.Request, error) {
	for {
		r, err := q.Requests.Next(ctx, run)
		if err != nil || r == nil {
			return nil, err
		}
		whyNot, err := q.whyNot(ctx, r)
		if err != nil {
			return nil, err
		}
		if whyNot == "" {
			return r, nil
		}
		if err := q.Reply(ctx, run, r.Number, whyNot); err != nil {
			return nil, err
		}
	}
}

func (q Requests) whyNot(ctx context.Context, r *execute.Request) (string, error) {
	if q.Self != "" && r.By == q.Self {
		return "", nil
	}
	whyNot, err := May(ctx, q.Client, Person{Name: r.By, Groups: slices.Clone(r.Groups)}, Verb(r.Kind), q.Plan)
	if apierrors.IsForbidden(err) { // it carries the run, but may not ask for others
		return fmt.Sprintf("whoever carries the run may not look whether %s may do that: let an agent carry it, or do it yourself", r.By), nil
	}
	return whyNot, err
}
