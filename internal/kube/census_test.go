package kube_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakediscovery "k8s.io/client-go/discovery/fake"
	fakedynamic "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/preflight"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func node(name string, spec corev1.NodeSpec, images ...string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": "db"}}, Spec: spec, Status: corev1.NodeStatus{
		Allocatable: list("cpu", "4", "memory", "8Gi", "pods", "100"), Images: []corev1.ContainerImage{{Names: images}},
	}}
}

func pod(name, on, cpu string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Spec: corev1.PodSpec{
		NodeName: on, Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("cpu", cpu)}}},
	}}
}

func counted() (*kube.Clients, *fake.Clientset) {
	capacity := resource.MustParse("7Gi")
	c := fake.NewClientset(
		node("a", corev1.NodeSpec{}, "r/shop@sha256:aa"), node("b", corev1.NodeSpec{Unschedulable: true}, "r/shop@sha256:aa"),
		node("c", corev1.NodeSpec{Taints: []corev1.Taint{{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}}}),
		pod("one", "a", "500m"), pod("two", "a", "1"), pod("waiting", "", "9"),
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}, Provisioner: "p"},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "slow"}, Provisioner: "p"},
		&storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: "s", Name: "1"}, StorageClassName: "slow", Capacity: &capacity},
		&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx", Annotations: map[string]string{"ingressclass.kubernetes.io/is-default-class": "true"}}},
		&corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: list("requests.cpu", "2", "pods", "9")},
			Status: corev1.ResourceQuotaStatus{Used: list("pods", "3")},
		},
		&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "scoped"}, Spec: corev1.ResourceQuotaSpec{Scopes: []corev1.ResourceQuotaScope{"Terminating"}}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "davit-system", Name: "dns-key"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "other"}},
	)
	d := c.Discovery().(*fakediscovery.FakeDiscovery)
	d.Resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "pods"}, {Name: "pods/log"}}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{{Name: "deployments"}}},
		{GroupVersion: "apps/v1beta1", APIResources: []metav1.APIResource{{Name: "deployments"}}},
	}
	c.PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
		at := r.Spec.ResourceAttributes
		r.Status.Allowed = at.Subresource == "log" && at.Resource == "pods" || at.Resource != "deployments" || at.Verb != "create" && at.Namespace == "shop"
		return true, r, nil
	})
	return &kube.Clients{Kubernetes: c, Discovery: d}, c
}

func take(t *testing.T, c *kube.Clients) *preflight.Site {
	t.Helper()
	return census.Take(context.Background(), census.Options{
		Site: "west", Clients: c, Restorer: c, Who: "me", Now: func() time.Time { return now },
		Steps: []preflight.Right{{Verb: "get", Resource: "pods/log", Namespace: "davit-system"}, {Verb: "create", Resource: "deployments.apps", Namespace: "shop"}},
		Needs: []preflight.Need{{Namespaces: []string{"shop", "shop-db"}, Kinds: []preflight.Kind{{Resource: "deployments.apps", Version: "v1"}}}},
	})
}

func TestTake(t *testing.T) {
	c, _ := counted()
	s := take(t, c)
	if len(s.Nodes) != 3 || s.Nodes[0].Free != (preflight.Room{CPU: 2500, Memory: 8 << 30, Pods: 98}) || s.Nodes[0].Closed != "" || s.Nodes[1].Closed != "cordoned" || s.Nodes[2].Closed != "tainted gpu" {
		t.Errorf("%+v", s.Nodes)
	}
	if s.Images["r/shop@sha256:aa"] != 1 {
		t.Errorf("images on closed nodes count: %v", s.Images)
	}
	if !slices.Equal(s.IngressClasses, []preflight.IngressClass{{Name: "nginx", Default: true}}) || s.GatewayClasses != nil || !s.Labelled || s.Nodes[0].Labels["pool"] != "db" {
		t.Errorf("%+v, %v, %+v", s.IngressClasses, s.GatewayClasses, s.Nodes)
	}
	if len(s.Classes) != 2 || !s.Classes[0].Default || s.Classes[0].Room != -1 || s.Classes[1].Room != 7<<30 {
		t.Errorf("%+v", s.Classes)
	}
	if got := s.APIs["deployments.apps"]; !slices.Equal(got, []string{"v1", "v1beta1"}) || s.APIs["pods"] == nil || s.APIs["pods/log"] != nil {
		t.Errorf("%v", s.APIs)
	}
	if len(s.Quotas) != 1 || s.Quotas[0].Hard["requests.cpu"] != 2000 || s.Quotas[0].Used["pods"] != 3 {
		t.Errorf("%+v", s.Quotas)
	}
	if !slices.Equal(s.Secrets, []string{"dns-key"}) {
		t.Errorf("%v", s.Secrets)
	}
	want := []string{
		"create deployments.apps in shop", "create deployments.apps in shop-db", "get deployments.apps in shop-db", "patch deployments.apps in shop-db",
	}
	if r := s.Rights; r.Who != "me" || r.Err != "" || r.Asked != 9 || !slices.Equal(r.Denied, want) ||
		!maps.Equal(r.Steps, map[string]bool{"get pods/log in davit-system": true, "create deployments.apps in shop": false}) {
		t.Errorf("%+v", r)
	}
	if _, err := s.Encode(); err != nil {
		t.Error(err)
	}
}

// TestTakeOfAccounts: each is asked about for itself, of what the plans take that name it.
// One that nobody may act as is denied that.
func TestTakeOfAccounts(t *testing.T) {
	c, _ := counted()
	all, _ := counted()
	all.Kubernetes.(*fake.Clientset).PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
		r.Status.Allowed = true
		return true, r, nil
	})
	none, _ := counted()
	none.Kubernetes.(*fake.Clientset).PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "serviceaccounts"}, "stranger", errors.New("cannot impersonate"))
	})
	within, _ := counted() // may all, by Roles of namespaces
	within.Kubernetes.(*fake.Clientset).PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
		r.Status.Allowed = r.Spec.ResourceAttributes.Namespace != ""
		return true, r, nil
	})
	needs := []preflight.Need{{Application: "shop", Namespaces: []string{"shop-db"}, Kinds: []preflight.Kind{{Resource: "deployments.apps", Version: "v1"}}}}
	two := append(slices.Clone(needs), needs[0]) // applications of one namespace
	steps := []preflight.Right{{Verb: "create", Resource: "deployments.apps", Namespace: "shop"}}
	s := census.Take(t.Context(), census.Options{
		Site: "west", Clients: c, Restorer: c, Who: "davit-restore", Needs: needs, Steps: steps, Now: func() time.Time { return now },
		Accounts: []census.Account{{Name: "mover", Clients: all, Needs: needs, Steps: steps}, {Name: "stranger", Clients: none, Needs: needs}, {Name: "tenant", Clients: within, Needs: two}},
	})
	if len(s.Rights.Denied) == 0 || s.Rights.Steps["create deployments.apps in shop"] { // the control
		t.Errorf("%+v", s.Rights)
	}
	mover, stranger := s.RightsOf["mover"], s.RightsOf["stranger"]
	if mover.Who != "mover" || mover.Asked != 9 || len(mover.Denied) != 0 || mover.Err != "" || !mover.Steps["create deployments.apps in shop"] || !slices.Equal(mover.Applications, []string{"shop"}) {
		t.Errorf("%+v", mover)
	}
	if tenant := s.RightsOf["tenant"]; tenant.Asked == 0 || len(tenant.Denied) != 0 {
		t.Errorf("%+v", tenant)
	}
	if !slices.Equal(stranger.Denied, []string{preflight.Impersonated}) || stranger.Err != "" {
		t.Errorf("%+v", stranger)
	}
}

// TestTakeOfManyLabels: facts stay small, and say that they lack labels.
func TestTakeOfManyLabels(t *testing.T) {
	c, f := counted()
	for i := range 3 {
		n := node("many"+strconv.Itoa(i), corev1.NodeSpec{})
		n.Labels["many"] = strings.Repeat("x", 400<<10)
		if err := f.Tracker().Add(n); err != nil {
			t.Fatal(err)
		}
	}
	s := take(t, c)
	if s.Labelled || len(s.Nodes) != 6 || s.Nodes[0].Labels != nil || s.Unread["nodes"] != "" {
		t.Errorf("%v, %d nodes, %v", s.Labelled, len(s.Nodes), s.Unread)
	}
}

// What cannot be read is named, and nothing else suffers from it.
func TestUnread(t *testing.T) {
	c, f := counted()
	deny := func(_ clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("denied") }
	for _, what := range []string{"pods", "resourcequotas", "selfsubjectaccessreviews"} {
		f.PrependReactor("*", what, deny)
	}
	s := take(t, c)
	if !strings.Contains(s.Unread["nodes"], "denied") || !strings.Contains(s.Unread["quotas"], "denied") || s.Unread["storageClasses"] != "" || len(s.Classes) != 2 {
		t.Errorf("%v, %+v", s.Unread, s.Classes)
	}
	if !strings.Contains(s.Rights.Err, "denied") {
		t.Errorf("%+v", s.Rights)
	}
}

// objects are what the fake API server has of a kind.
func objects(apiVersion, kind string, meta ...map[string]any) []runtime.Object {
	var all []runtime.Object
	for _, m := range meta {
		all = append(all, &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": m}})
	}
	return all
}

// TestTakeWhatStepsRelyOn: a reconciler that is left out of the facts would be called
// missing by preflight, so too many of them are none.
func TestTakeWhatStepsRelyOn(t *testing.T) {
	const many = 5_000
	flux := func(n int) []map[string]any {
		var all []map[string]any
		for i := range n {
			all = append(all, map[string]any{"namespace": "flux", "name": "k" + strconv.Itoa(i)})
		}
		return all
	}
	name := func(name string, guarded, labelled bool) map[string]any {
		m := map[string]any{"namespace": "davit-system", "name": name}
		if guarded {
			m["annotations"] = map[string]any{"davit.dev/name-guard": "davit1 site=east run=r seq=1"}
		}
		if labelled {
			m["labels"] = map[string]any{"davit.dev/moves-name": "true"}
		}
		return m
	}
	for made, want := range map[int]int{0: 0, 1: 1, many: many, many + 1: -1} {
		c, _ := counted()
		d := c.Discovery.(*fakediscovery.FakeDiscovery)
		d.Resources = append(d.Resources,
			&metav1.APIResourceList{GroupVersion: "kustomize.toolkit.fluxcd.io/v1", APIResources: []metav1.APIResource{{Name: "kustomizations"}}},
			&metav1.APIResourceList{GroupVersion: "externaldns.k8s.io/v1alpha1", APIResources: []metav1.APIResource{{Name: "dnsendpoints"}}})
		all := append(objects("kustomize.toolkit.fluxcd.io/v1", "Kustomization", flux(made)...),
			objects("externaldns.k8s.io/v1alpha1", "DNSEndpoint", name("www", true, true), name("made", false, true), name("theirs", true, false))...)
		d.Resources = append(d.Resources, &metav1.APIResourceList{GroupVersion: "gateway.networking.k8s.io/v1", APIResources: []metav1.APIResource{{Name: "gatewayclasses"}}})
		all = append(all, objects("gateway.networking.k8s.io/v1", "GatewayClass", map[string]any{"name": "mesh"})...)
		c.Dynamic = fakedynamic.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
			{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Resource: "kustomizations"}: "KustomizationList",
			{Group: "externaldns.k8s.io", Version: "v1alpha1", Resource: "dnsendpoints"}:      "DNSEndpointList",
			{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"}:   "GatewayClassList",
		}, all...)
		s := take(t, c)
		if !slices.Equal(s.GatewayClasses, []string{"mesh"}) {
			t.Errorf("%v, %v", s.GatewayClasses, s.Unread)
		}
		if !slices.Equal(s.Names, []string{"davit-system/www"}) || s.Unread["names"] != "" {
			t.Errorf("%d: %v, %v", made, s.Names, s.Unread)
		}
		switch {
		case want < 0 && (s.Reconcilers != nil || !strings.Contains(s.Unread["reconcilers"], "too many")):
			t.Errorf("%d: %d named, %v", made, len(s.Reconcilers), s.Unread)
		case want >= 0 && (s.Reconcilers == nil || len(s.Reconcilers) != want || s.Unread["reconcilers"] != ""):
			t.Errorf("%d: %d named, %v", made, len(s.Reconcilers), s.Unread)
		case want == 1 && s.Reconcilers[0] != "kustomizations.kustomize.toolkit.fluxcd.io/flux/k0":
			t.Errorf("%v", s.Reconcilers)
		}
	}
}
