// Package obstacle finds what at the target would refuse objects of a
// recovery point, before anything is changed. Where the target can be asked,
// by a dry run, it is asked: nobody knows its admission better. What a dry run
// cannot tell, as quotas that several objects use up together and webhooks
// whose server is down, is worked out from what the target holds.
package obstacle

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// standIn is a namespace that every cluster has: what would go into one that
// is not there yet is tried here, where the namespace makes no difference.
const standIn = "default"

// Object is what a restore would create.
type Object struct {
	Name string // for people
	Kind schema.GroupKind
	At   port.Served
	Obj  *unstructured.Unstructured // as it would be written
}

// Finder asks one target.
type Finder struct {
	Cluster port.Cluster
	// Exists tells whether a namespace is at the target.
	Exists func(namespace string) bool
	// Brings tells whether the restore has an object. It may be nil.
	Brings func(kind schema.GroupKind, namespace, name string) bool
}

// placeless are kinds that the target takes or refuses whatever the namespace.
var placeless = map[schema.GroupKind]bool{
	shape.KindService: true, {Group: shape.GroupRBAC, Kind: "Role"}: true,
}

// bindings give a role to somebody.
var bindings = map[schema.GroupKind]bool{
	{Group: shape.GroupRBAC, Kind: "RoleBinding"}: true, {Group: shape.GroupRBAC, Kind: "ClusterRoleBinding"}: true,
}

// Asked tells whether objects of a kind are worth a question of their own:
// those that targets refuse for what they say, and those that make pods.
func Asked(kind schema.GroupKind) bool {
	return placeless[kind] || bindings[kind] || kind == (schema.GroupKind{Group: shape.GroupRBAC, Kind: "ClusterRole"}) || makesPods(kind)
}

func makesPods(kind schema.GroupKind) bool { return shape.PodSpecOf(kind, dummy) != nil }

// dummy has a pod spec wherever a kind may have one.
var dummy = func() shape.Document {
	spec := shape.Document{"spec": shape.Document{}}
	return shape.Document{"spec": shape.Document{
		"template": spec, "jobTemplate": shape.Document{"spec": shape.Document{"template": spec}},
	}}
}()

// Object asks whether the target would take the object, and the pods that it
// makes. An error is a question that got no answer.
func (f Finder) Object(ctx context.Context, o Object) ([]report.Finding, error) {
	namespace := o.Obj.GetNamespace()
	_, err := f.Cluster.Get(ctx, o.At, namespace, o.Obj.GetName())
	switch {
	case err == nil:
		return nil, nil // it is there: the policy of its kind decides
	case apierrors.IsForbidden(err):
		return nil, nil // the check of rights says so
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("look for %s: %w", o.Name, err)
	}
	if makesPods(o.Kind) {
		return f.workload(ctx, o)
	}
	if bindings[o.Kind] {
		if known, err := f.roleKnown(ctx, o.Obj); err != nil || !known {
			return nil, err
		}
	}
	obj := o.Obj
	if o.At.Namespaced && !f.Exists(namespace) {
		if !placeless[o.Kind] {
			return nil, nil
		}
		obj = obj.DeepCopy()
		obj.SetNamespace(standIn)
	}
	if found := f.verdict(o, f.try(ctx, o, obj)); found != nil {
		return []report.Finding{*found}, nil
	}
	return nil, nil
}

// workload asks about the pods that an object makes, and about their volumes.
func (f Finder) workload(ctx context.Context, o Object) ([]report.Finding, error) {
	found, err := f.pods(ctx, o)
	if err != nil || o.Kind != shape.KindStatefulSet {
		return found, err
	}
	empty, err := f.neighbours(ctx, o)
	return append(found, empty...), err
}

// try is a dry run of the creation, with what a restore does when it is refused.
func (f Finder) try(ctx context.Context, o Object, obj *unstructured.Unstructured) error {
	obj = obj.DeepCopy()
	for {
		err := f.Cluster.Try(ctx, o.At, obj)
		if err == nil || o.Kind != shape.KindService || Yield(obj.Object, err) == "" {
			return err
		}
	}
}

// Yield changes a Service that the target refuses for what it need not have,
// and says what it gave up; "" when it can give up nothing: a node port that is
// taken, an address family that it prefers or was given and the target lacks.
func Yield(d shape.Document, err error) string {
	spec := shape.Child(d, "spec")
	switch {
	case answer.PortRefused(err) && shape.ReleasePorts(d):
		return fmt.Sprintf("its node ports cannot be had here (%v): others were assigned, so tell whoever connects to them", err)
	case answer.FamiliesRefused(err) && spec["ipFamilies"] != nil && shape.Text(spec, "ipFamilyPolicy") != dualStack:
		delete(spec, "ipFamilies")
		return fmt.Sprintf("it cannot have the address families that it had (%v): it got those that there are", err)
	}
	return ""
}

// Fixed makes answer.ErrImmutable of a refusal to change which family of addresses
// comes first in a Service that exists, where the target has that family: made anew, it
// gets it. Any other error, and none, is returned as it is; so is the refusal where the
// target does not say that it has the family, as what exists would be deleted for nothing.
func Fixed(ctx context.Context, c port.Cluster, at port.Served, obj *unstructured.Unstructured, err error) error {
	if err == nil || !answer.FamilyFixed(err) {
		return err
	}
	fresh := obj.DeepCopy()
	fresh.SetResourceVersion("")
	fresh.SetUID("")
	tried := c.Try(ctx, at, fresh) // families come before ports, quotas and the name
	if tried != nil && !apierrors.IsAlreadyExists(tried) && !answer.PortRefused(tried) && !answer.QuotaExceeded(tried) {
		return err
	}
	return fmt.Errorf("spec.ipFamilies: %w: %s", answer.ErrImmutable, answer.Brief(err).Error())
}

const dualStack = "RequireDualStack"

// roleKnown tells whether the role that a binding names is there: if not, it
// comes with the point, and the question is asked of the role itself.
func (f Finder) roleKnown(ctx context.Context, binding *unstructured.Unstructured) (bool, error) {
	kind := schema.GroupKind{Group: shape.GroupRBAC, Kind: shape.Text(binding.Object, "roleRef", "kind")}
	served, err := f.Cluster.Serves(ctx, kind)
	if err != nil {
		return false, nil //nolint:nilerr // a reference to nothing refuses itself when it is restored
	}
	namespace := ""
	if served[0].Namespaced {
		namespace = binding.GetNamespace()
	}
	_, err = f.Cluster.Get(ctx, served[0], namespace, shape.Text(binding.Object, "roleRef", "name"))
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return false, nil
	}
	return err == nil, err
}

// verdict makes of a refusal what a person should know and do. Answers that
// say nothing of the object make none.
func (f Finder) verdict(o Object, err error) *report.Finding {
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || answer.Transient(err) && !answer.WebhookFailed(err) {
		return nil
	}
	found := report.Finding{Severity: report.Error, Message: fmt.Sprintf("%s would be refused: %s", o.Name, said(err))}
	found.Reason, found.Remedy = remedy(o, err)
	if found.Reason == "" {
		return nil
	}
	return &found
}

var denied = regexp.MustCompile(`admission webhook "([^"]+)" denied`)

// remedy names a refusal, and what to do about it.
func remedy(o Object, err error) (reason, what string) {
	text := err.Error()
	exclude := "leave the kind out with --exclude-kinds " + o.At.GVR.GroupResource().String()
	switch {
	case strings.Contains(text, "violates PodSecurity"):
		return "PodSecurity", "label the namespace with a level that allows it (pod-security.kubernetes.io/enforce), restore into another one with --map-namespace, or change the pod"
	case strings.Contains(text, "not currently held"):
		return "Escalation", "restore as an account that holds these rights itself or may escalate (and bind) roles, or " + exclude
	case answer.QuotaExceeded(err), strings.Contains(text, "failed quota"):
		return "Quota", "raise the quota for the time of the restore, or restore into another namespace with --map-namespace"
	case strings.Contains(text, "per Container"), strings.Contains(text, "per Pod"), strings.Contains(text, "per PersistentVolumeClaim"):
		return "LimitRange", "change the LimitRange of the namespace, or restore into another one with --map-namespace"
	case answer.FamiliesRefused(err):
		return "DualStack", "have it ask for PreferDualStack instead, restore into a cluster with both address families, or " + exclude
	case answer.WebhookFailed(err):
		return "WebhookDown", "mend what serves the webhook or remove its configuration, or " + exclude
	case denied.MatchString(text), strings.Contains(text, "ValidatingAdmissionPolicy"):
		return "Denied", "ask whoever set this rule, or " + exclude
	}
	return "", ""
}

// said is the refusal without what the API server puts before it.
func said(err error) string {
	text := err.Error()
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		text = status.Status().Message
	}
	if _, rest, ok := strings.Cut(text, " is forbidden: "); ok {
		text = rest
	}
	const most = 600
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ReplaceAll(text, "\n", " ")
}
