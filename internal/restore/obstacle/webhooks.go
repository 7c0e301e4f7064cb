package obstacle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// Guards are the kinds of webhook configurations.
var Guards = []schema.GroupKind{
	{Group: shape.GroupAdmission, Kind: "MutatingWebhookConfiguration"},
	{Group: shape.GroupAdmission, Kind: "ValidatingWebhookConfiguration"},
}

// Webhook is one that refuses what it is not asked about.
type Webhook struct {
	Config             string // kind and name of its configuration
	Name               string
	Namespace, Service string // what serves it
	hook               shape.Document
}

// Target is a kind that is restored, and the namespaces that it goes to.
type Target struct {
	At         port.Served
	Namespaces []string // none for what is in no namespace
}

// Webhooks says which webhooks would refuse what is restored because nobody
// answers for them. What the restore brings serves its own.
func (f Finder) Webhooks(ctx context.Context, targets []Target, labelsOf map[string]map[string]string, brings func(namespace, service string) bool) ([]report.Finding, error) {
	dead, err := f.DeadWebhooks(ctx)
	if err != nil {
		return nil, err
	}
	var found []report.Finding
	for _, w := range dead {
		if brings(w.Namespace, w.Service) {
			continue
		}
		var kinds []string
		certain := false
		for _, t := range targets {
			places := t.Namespaces
			if len(places) == 0 {
				places = []string{""}
			}
			for _, namespace := range places {
				set := maps.Clone(labelsOf[namespace])
				if set == nil {
					set = map[string]string{}
				}
				set[shape.LabelNamespaceName] = namespace
				if wants, may := w.Wants(t.At.GVR, namespace, set); wants {
					kinds, certain = append(kinds, t.At.GVR.GroupResource().String()), certain || !may
				}
			}
		}
		if len(kinds) > 0 {
			found = append(found, w.Finding(kinds, certain))
		}
	}
	return found, nil
}

// DeadWebhooks are the target's webhooks with failurePolicy Fail whose Service
// has no endpoint that is ready. Those served at an address outside the
// cluster cannot be told.
func (f Finder) DeadWebhooks(ctx context.Context) ([]Webhook, error) {
	var dead []Webhook
	for _, kind := range Guards {
		err := f.list(ctx, kind, "", "", func(u *unstructured.Unstructured) error {
			for _, hook := range shape.Items(u.Object, "webhooks") {
				w := Webhook{
					Config: kind.String() + " " + u.GetName(), Name: shape.Text(hook, "name"), hook: hook,
					Namespace: shape.Text(hook, "clientConfig", "service", "namespace"), Service: shape.Text(hook, "clientConfig", "service", "name"),
				}
				if policy := shape.Text(hook, "failurePolicy"); w.Service != "" && (policy == "" || policy == "Fail") {
					dead = append(dead, w)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var ask error
	dead = slices.DeleteFunc(dead, func(w Webhook) bool {
		alive, err := f.served(ctx, w)
		ask = errors.Join(ask, err)
		return alive
	})
	return dead, ask
}

// list lists, where the target serves the kind and the account may.
func (f Finder) list(ctx context.Context, kind schema.GroupKind, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	served, err := f.Cluster.Serves(ctx, kind)
	if errors.Is(err, port.ErrNotServed) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.Cluster.List(ctx, served[0], namespace, selector, fn)
	if apierrors.IsForbidden(err) {
		return nil
	}
	return err
}

// served tells whether anything answers for the webhook, as far as it can be known.
func (f Finder) served(ctx context.Context, w Webhook) (alive bool, err error) {
	kind := schema.GroupKind{Group: shape.GroupDiscovery, Kind: "EndpointSlice"}
	served, err := f.Cluster.Serves(ctx, kind)
	if err != nil {
		return true, nil //nolint:nilerr // not to be known
	}
	may, _, err := f.Cluster.May(ctx, "list", served[0], w.Namespace)
	if err != nil || !may {
		return true, err
	}
	err = f.list(ctx, kind, w.Namespace, "kubernetes.io/service-name="+w.Service, func(u *unstructured.Unstructured) error {
		for _, e := range shape.Items(u.Object, "endpoints") {
			ready, known := shape.Child(e, "conditions")["ready"].(bool)
			alive = alive || ready || !known
		}
		return nil
	})
	return alive, err
}

// Wants tells whether the webhook is asked about the creation of objects of a
// kind in a namespace with these labels. May means that something besides
// decides, which only the target can work out.
func (w Webhook) Wants(gvr schema.GroupVersionResource, namespace string, labelsOf map[string]string) (wants, may bool) {
	if !slices.ContainsFunc(shape.Items(w.hook, "rules"), func(rule shape.Document) bool {
		return has(rule["operations"], "CREATE") && has(rule["apiGroups"], gvr.Group) && has(rule["resources"], gvr.Resource) &&
			(has(rule["apiVersions"], gvr.Version) || shape.Text(w.hook, "matchPolicy") != "Exact")
	}) {
		return false, false
	}
	selector := shape.Child(w.hook, "namespaceSelector")
	if namespace != "" && len(selector) > 0 && !matches(selector, labelsOf) {
		return false, false
	}
	return true, len(shape.Child(w.hook, "objectSelector")) > 0 || w.hook["matchConditions"] != nil
}

func has(list any, want string) bool {
	all, _ := list.([]any)
	return slices.ContainsFunc(all, func(v any) bool { return v == want || v == "*" || v == "*/*" })
}

func matches(raw shape.Document, set map[string]string) bool {
	var selector metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &selector); err != nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(&selector)
	return err != nil || s.Matches(labels.Set(set))
}

// Finding says what a dead webhook will refuse.
func (w Webhook) Finding(kinds []string, certain bool) report.Finding {
	slices.Sort(kinds)
	found := report.Finding{
		Severity: report.Error, Reason: "WebhookDown",
		Message: fmt.Sprintf("webhook %s of %s would refuse all %s: its server, Service %s/%s, has no ready endpoint, and its failurePolicy is Fail",
			w.Name, w.Config, shape.Names(slices.Compact(kinds), 6), w.Namespace, w.Service),
		Remedy: "bring Service " + w.Namespace + "/" + w.Service + " back first (restore the application it is in), or delete the configuration; it can be made again afterwards",
	}
	if !certain {
		found.Severity = report.Warning
		found.Message = strings.Replace(found.Message, "would refuse all", "may refuse some", 1)
	}
	return found
}
