// Package externaldns reads and writes the DNSEndpoints of a cluster.
package externaldns

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/traffic/endpoints"
	"davit.dev/davit/internal/traffic/names"
)

// Resource is what external-dns reads.
var Resource = schema.GroupVersionResource{Group: "externaldns.k8s.io", Version: "v1alpha1", Resource: "dnsendpoints"}

const (
	kind    = "DNSEndpoint"
	manager = "davit"
)

// Objects are those of one cluster.
type Objects struct{ Client dynamic.Interface }

var _ endpoints.Objects = Objects{}

// Get implements endpoints.Objects.
func (o Objects) Get(ctx context.Context, namespace, name string) (*endpoints.Object, error) {
	u, err := o.Client.Resource(Resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, o.served(ctx, namespace)
	}
	if err != nil {
		return nil, meaning(err, "get")
	}
	return decode(u)
}

// served tells apart an object that is not there from a kind that is not.
func (o Objects) served(ctx context.Context, namespace string) error {
	_, err := o.Client.Resource(Resource).Namespace(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if apierrors.IsNotFound(err) {
		return endpoints.ErrAbsent
	}
	return meaning(err, "list")
}

// List implements endpoints.Objects.
func (o Objects) List(ctx context.Context) ([]*endpoints.Object, error) {
	list, err := o.Client.Resource(Resource).List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.LabelMoves + "=true"})
	if apierrors.IsNotFound(err) {
		return nil, endpoints.ErrAbsent
	}
	if err != nil {
		return nil, meaning(err, "list")
	}
	var all []*endpoints.Object
	for i := range list.Items {
		one, err := decode(&list.Items[i])
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// Put implements endpoints.Objects. What it does not know of the object stays.
func (o Objects) Put(ctx context.Context, as *endpoints.Object, dry bool) error {
	var dryRun []string
	if dry {
		dryRun = []string{metav1.DryRunAll}
	}
	at := o.Client.Resource(Resource).Namespace(as.Namespace)
	if as.Version == "" {
		u := &unstructured.Unstructured{}
		u.SetAPIVersion(Resource.GroupVersion().String())
		u.SetKind(kind)
		u.SetNamespace(as.Namespace)
		u.SetName(as.Name)
		encode(as, u)
		_, err := at.Create(ctx, u, metav1.CreateOptions{DryRun: dryRun, FieldManager: manager})
		return meaning(err, "create")
	}
	u, err := at.Get(ctx, as.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return names.ErrChanged
	}
	if err != nil {
		return meaning(err, "get")
	}
	u.SetResourceVersion(as.Version) // the server compares it
	encode(as, u)
	_, err = at.Update(ctx, u, metav1.UpdateOptions{DryRun: dryRun, FieldManager: manager})
	return meaning(err, "update")
}

// encode writes into an object what Davit says of it.
func encode(as *endpoints.Object, u *unstructured.Unstructured) {
	labels, annotations := u.GetLabels(), u.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[v1alpha1.LabelMoves], labels[capture.LabelExclude] = "true", "true" // no point has it: another site has its own
	annotations[v1alpha1.AnnotationNameGuard] = as.Guard
	u.SetLabels(labels)
	u.SetAnnotations(annotations)
	all := make([]any, 0, len(as.Endpoints))
	for _, e := range as.Endpoints {
		targets := make([]any, 0, len(e.Targets))
		for _, t := range e.Targets {
			targets = append(targets, t)
		}
		all = append(all, map[string]any{"dnsName": e.Name, "recordType": e.Kind, "recordTTL": e.TTL, "targets": targets})
	}
	u.Object["spec"] = map[string]any{"endpoints": all} // it has nothing else
}

// read is a DNSEndpoint as far as Davit understands it.
type read struct {
	shape.Head
	Spec struct {
		Endpoints []struct {
			DNSName          string         `json:"dnsName"`
			RecordType       string         `json:"recordType"`
			RecordTTL        int64          `json:"recordTTL"`
			Targets          []string       `json:"targets"`
			SetIdentifier    string         `json:"setIdentifier"`
			ProviderSpecific []any          `json:"providerSpecific"`
			Labels           map[string]any `json:"labels"`
		} `json:"endpoints"`
	} `json:"spec"`
}

func decode(u *unstructured.Unstructured) (*endpoints.Object, error) {
	text, err := u.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("read DNSEndpoint: %w", err)
	}
	var r read
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read DNSEndpoint: %w", err)
	}
	o := &endpoints.Object{
		Namespace: u.GetNamespace(), Name: u.GetName(), Version: u.GetResourceVersion(),
		Guard: u.GetAnnotations()[v1alpha1.AnnotationNameGuard], Keeper: keeper(u, r.Head),
	}
	for _, e := range r.Spec.Endpoints {
		one := endpoints.Endpoint{Name: e.DNSName, Kind: e.RecordType, TTL: e.RecordTTL, Targets: e.Targets}
		switch {
		case e.SetIdentifier != "":
			one.Odd = "a setIdentifier"
		case len(e.ProviderSpecific) > 0:
			one.Odd = "providerSpecific"
		case len(e.Labels) > 0:
			one.Odd = "labels"
		case !slices.Contains([]string{"A", "AAAA", "CNAME"}, e.RecordType):
			one.Odd = fmt.Sprintf("recordType %q", e.RecordType)
		}
		o.Endpoints = append(o.Endpoints, one)
	}
	return o, nil
}

// keeper names whoever else would put the object back: what makes it from git, a
// controller that owns it, or somebody who applies it from elsewhere. What people
// wrote by kubectl stays written until they write again.
func keeper(u *unstructured.Unstructured, head shape.Head) string {
	if r, is := gitops.Of(u.GroupVersionKind().GroupKind(), head, func(string) bool { return false }); is {
		return r.String()
	}
	for _, owner := range u.GetOwnerReferences() {
		return owner.Kind + " " + owner.Name
	}
	for _, m := range u.GetManagedFields() {
		ours := m.Manager == manager || strings.HasPrefix(m.Manager, "kubectl")
		if !ours && m.FieldsV1 != nil && strings.Contains(string(m.FieldsV1.Raw), `"f:endpoints"`) {
			return "field manager " + m.Manager
		}
	}
	return ""
}

// meaning tells what will never be done from what may have been.
func meaning(err error, verb string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return names.ErrChanged
	case apierrors.IsNotFound(err) && verb == "create":
		return &names.RefusedError{What: "cannot be made: " + err.Error(), Do: "make its namespace at every site, and look whether external-dns and its CRD are installed"}
	case apierrors.IsForbidden(err):
		return &names.RefusedError{What: "is refused: " + err.Error(), Do: "let whoever carries the run " + verb + " dnsendpoints.externaldns.k8s.io"}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return &names.RefusedError{What: "is refused: " + err.Error(), Do: "use a CRD that this version of davit knows, v1alpha1"}
	}
	return fmt.Errorf("%s it: %w", verb, err)
}
