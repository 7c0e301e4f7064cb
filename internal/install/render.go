package install

import (
	"bytes"
	"fmt"
	"io/fs"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/config"
	"davit.dev/davit/internal/capture"
)

var siteResource = v1alpha1.GroupVersion.WithResource("sites")

// Render returns everything that Install applies, in that order.
func Render(opts Options) ([]unstructured.Unstructured, error) {
	if err := opts.Check(); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	out, err := toUnstructured(namespace())
	if err != nil {
		return nil, err
	}
	crds, err := definitions()
	if err != nil {
		return nil, err
	}
	alerts, err := alertRules()
	if err != nil {
		return nil, err
	}
	var typed []runtime.Object
	typed = append(typed, accounts(opts)...)
	typed = append(typed, roles()...)
	typed = append(typed, requester()...)
	typed = append(typed, scratchVolumes()...)
	typed = append(typed, nodeToken()...)
	typed = append(typed, alerts, site(opts), budget(opts), agentDeployment(opts), nodeDaemonSet(opts))
	rest, err := toUnstructured(typed...)
	if err != nil {
		return nil, err
	}
	return append(append(out, crds...), rest...), nil
}

func namespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: v1alpha1.SystemNamespace,
		Labels: map[string]string{
			PartOfLabel:                          partOf,
			"pod-security.kubernetes.io/enforce": "privileged",
			"pod-security.kubernetes.io/audit":   "privileged",
			"pod-security.kubernetes.io/warn":    "privileged",
		},
	}}
}

// definitions reads the embedded CRDs.
func definitions() ([]unstructured.Unstructured, error) {
	names, err := fs.Glob(config.Files, "crd/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list definitions: %w", err)
	}
	var out []unstructured.Unstructured
	for _, name := range names {
		data, err := config.Files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read definition: %w", err)
		}
		var obj unstructured.Unstructured
		if err := yaml.Unmarshal(bytes.TrimPrefix(data, []byte("---\n")), &obj.Object); err != nil {
			return nil, fmt.Errorf("read definition %s: %w", name, err)
		}
		setPartOf(&obj)
		out = append(out, obj)
	}
	return out, nil
}

func alertRules() (*corev1.ConfigMap, error) {
	data, err := config.Files.ReadFile("alerts.yaml")
	if err != nil {
		return nil, fmt.Errorf("read alert rules: %w", err)
	}
	return &corev1.ConfigMap{
		ObjectMeta: systemMeta(AlertsName),
		Data:       map[string]string{"alerts.yaml": string(data)},
	}, nil
}

func site(opts Options) *v1alpha1.Site {
	return &v1alpha1.Site{
		ObjectMeta: metav1.ObjectMeta{Name: opts.SiteName, Labels: map[string]string{PartOfLabel: partOf, LocalLabel: "true"}},
		Spec:       v1alpha1.SiteSpec{FailureDomain: opts.FailureDomain},
	}
}

// budget keeps an agent up while nodes are drained, when there is more than one.
func budget(opts Options) *policyv1.PodDisruptionBudget {
	spec := policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{NameLabel: AgentName}}}
	one := intstr.FromInt32(1)
	if opts.Replicas > 1 {
		spec.MinAvailable = &one
	} else {
		spec.MaxUnavailable = &one
	}
	return &policyv1.PodDisruptionBudget{ObjectMeta: systemMeta(AgentName), Spec: spec}
}

func systemMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: v1alpha1.SystemNamespace,
		Name:      name,
		Labels:    map[string]string{PartOfLabel: partOf, NameLabel: name},
	}
}

func clusterMeta(name string) metav1.ObjectMeta {
	// Another cluster has its own: no recovery point of a whole cluster brings them.
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{PartOfLabel: partOf, NameLabel: name, capture.LabelExclude: "true"}}
}

// toUnstructured gives objects their kinds and drops what only a server sets.
func toUnstructured(objects ...runtime.Object) ([]unstructured.Unstructured, error) {
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(known); err != nil {
			return nil, fmt.Errorf("register kinds: %w", err)
		}
	}
	var out []unstructured.Unstructured
	for _, o := range objects {
		gvks, _, err := known.ObjectKinds(o)
		if err != nil {
			return nil, fmt.Errorf("render: %w", err)
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return nil, fmt.Errorf("render %s: %w", gvks[0].Kind, err)
		}
		out = append(out, clean(content, gvks[0]))
	}
	return out, nil
}

func clean(content map[string]any, gvk schema.GroupVersionKind) unstructured.Unstructured {
	delete(content, "status")
	u := unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(gvk)
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(content, "spec", "template", "metadata", "creationTimestamp")
	return u
}

func setPartOf(obj *unstructured.Unstructured) {
	labels := obj.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[PartOfLabel] = partOf
	obj.SetLabels(labels)
}
