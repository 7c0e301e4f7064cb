package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/selection"
)

// realClients opens the cluster that DAVIT_TEST_KUBECONFIG names.
func realClients(t *testing.T) *kube.Clients {
	t.Helper()
	path := os.Getenv("DAVIT_TEST_KUBECONFIG")
	if path == "" {
		t.Skip("needs a real API server: set DAVIT_TEST_KUBECONFIG")
	}
	clients, err := kube.Kubeconfig(path, "")
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// realNamespace makes a namespace that goes with the test.
func realNamespace(t *testing.T, clients *kube.Clients) string {
	t.Helper()
	api := clients.Kubernetes.CoreV1().Namespaces()
	ns, err := api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "capture-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return ns.Name
}

func TestRealCatalog(t *testing.T) {
	clients := realClients(t)
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := cluster.Catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]capture.Kind{}
	for _, k := range catalog.Kinds {
		if _, twice := byName[k.Name()]; twice {
			t.Errorf("%s is there twice", k.Name())
		}
		byName[k.Name()] = k
	}
	hpa := byName["horizontalpodautoscalers.autoscaling"]
	if hpa.Version != "v2" || !slices.Contains(hpa.Versions, "v1") || hpa.Versions[0] != "v2" {
		t.Errorf("autoscalers: %+v, want v2 preferred, v1 served", hpa)
	}
	if k := byName["configmaps"]; !k.Namespaced || k.Aggregated || !slices.Contains(k.Verbs, "list") {
		t.Errorf("configmaps: %+v", k)
	}
	version, err := cluster.Version(t.Context())
	if err != nil || version == "" {
		t.Errorf("Version = %q, %v", version, err)
	}
}

var configMaps = capture.Kind{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true}

func makeConfigMaps(t *testing.T, clients *kube.Clients, ns string, n int) {
	t.Helper()
	for i := range n {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%04d", i), Labels: map[string]string{"odd": fmt.Sprint(i%2 == 1)}}}
		if _, err := clients.Kubernetes.CoreV1().ConfigMaps(ns).Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func names(t *testing.T, cluster *Cluster, q capture.Query) ([]string, capture.Listed) {
	t.Helper()
	var all []string
	listed, err := cluster.List(t.Context(), q, func(page []unstructured.Unstructured) error {
		for _, o := range page {
			if o.GetKind() != "ConfigMap" || o.GetAPIVersion() != "v1" {
				t.Errorf("%s is a %s of %s", o.GetName(), o.GetKind(), o.GetAPIVersion())
			}
			if o.GetName() != "kube-root-ca.crt" {
				all = append(all, o.GetName())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, listed
}

func TestRealListAtOneRevision(t *testing.T) {
	t.Parallel()
	clients := realClients(t)
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	ns := realNamespace(t, clients)
	makeConfigMaps(t, clients, ns, 250)
	revision, err := cluster.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	api := clients.Kubernetes.CoreV1().ConfigMaps(ns)
	if err := api.Delete(t.Context(), "c0007", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	then, listed := names(t, cluster, capture.Query{Kind: configMaps, Namespace: ns, Revision: revision})
	if len(then) != 250 || !slices.Contains(then, "c0007") || slices.Contains(then, "late") || listed.Late || listed.Split {
		t.Errorf("at %s: %d objects, %+v: not as they were", revision, len(then), listed)
	}
	now, _ := names(t, cluster, capture.Query{Kind: configMaps, Namespace: ns})
	if len(now) != 250 || slices.Contains(now, "c0007") || !slices.Contains(now, "late") {
		t.Errorf("now: %d objects", len(now))
	}
	odd, _ := names(t, cluster, capture.Query{Kind: configMaps, Namespace: ns, Labels: "odd=true", Revision: revision})
	if len(odd) != 125 {
		t.Errorf("odd: %d objects, want 125", len(odd))
	}
	one, _ := names(t, cluster, capture.Query{Kind: configMaps, Namespace: ns, Name: "c0007", Revision: revision})
	if len(one) != 1 {
		t.Errorf("by name: %q", one)
	}
	future, listed := names(t, cluster, capture.Query{Kind: configMaps, Namespace: ns, Revision: "999999999999"})
	if len(future) != 250 || !listed.Late {
		t.Errorf("at a revision that never was: %d objects, %+v: want those of now, and Late", len(future), listed)
	}
}

func TestRealListOfUnknownKind(t *testing.T) {
	clients := realClients(t)
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	k := capture.Kind{Group: "nowhere.example.com", Version: "v1", Resource: "things", Namespaced: true}
	_, err = cluster.List(ctx, capture.Query{Kind: k, Namespace: "default"}, func([]unstructured.Unstructured) error { return nil })
	if !errors.Is(err, capture.ErrUnservable) {
		t.Errorf("err = %v, want ErrUnservable", err)
	}
}

// TestRealCaptureOfEverything lists every kind of a namespace that has many, at
// one revision, whole and by a selector.
func TestRealCaptureOfEverything(t *testing.T) {
	clients := realClients(t)
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	dns, err := labels.Parse("k8s-app=kube-dns")
	if err != nil {
		t.Fatal(err)
	}
	for _, chosen := range [][]labels.Selector{nil, {dns}} {
		spec := capture.Spec{Application: "system", ID: "system-1", Namespaces: []string{"kube-system"}, Select: selection.Selection{Any: chosen}, Mode: capture.ModeNone}
		started := time.Now()
		res, err := capture.Run(t.Context(), spec, capture.Ports{Cluster: cluster, Sink: listSink{t}}, capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		counts := map[string]int64{}
		for _, r := range res.Resources {
			counts[r.Resource] = r.Count
		}
		t.Logf("selectors %v: %d objects in %s: %v, warnings %v", chosen, res.Objects, time.Since(started), counts, res.Warnings)
		if len(res.Warnings) > 0 || counts["namespaces"] != 1 || counts["deployments"] == 0 || counts["events"]+counts["leases"] > 0 {
			t.Errorf("selectors %v: %v, warnings %v", chosen, counts, res.Warnings)
		}
	}
}
