package machinery

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/standby/machines"
)

// defined is a CRD with the fields of Cluster API's that a step reads and writes.
func defined(plural, kind string) *unstructured.Unstructured {
	open := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{
			"name":        plural + "." + plan.ClusterGroup,
			"annotations": map[string]any{"api-approved.kubernetes.io": "unapproved, a stand-in"},
		},
		"spec": map[string]any{
			"group": plan.ClusterGroup, "scope": "Namespaced", "names": map[string]any{"plural": plural, "kind": kind},
			"versions": []any{map[string]any{
				"name": "v1beta1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{"spec": open, "status": open}}},
			}},
		},
	}}
}

// controllers play those of Cluster API: what is wanted is ready.
func controllers(ctx context.Context, clients *kube.Clients, namespace string) {
	for ctx.Err() == nil {
		for _, plural := range []string{"machinedeployments", "clusters"} {
			at := clients.Dynamic.Resource(schema.GroupVersionResource{Group: plan.ClusterGroup, Version: "v1beta1", Resource: plural}).Namespace(namespace)
			list, err := at.List(ctx, metav1.ListOptions{})
			if err != nil {
				continue
			}
			for _, u := range list.Items {
				n, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas")
				patch, _ := json.Marshal(map[string]any{"status": map[string]any{
					"observedGeneration": u.GetGeneration(), "readyReplicas": n, "conditions": []any{map[string]any{"type": "Ready", "status": "True"}},
				}})
				_, _ = at.Patch(ctx, u.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}, "status") // again soon
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// TestRealMachines has a real API server take what a step asks: dry runs change nothing,
// machines come and go back, objects are made and destroyed.
func TestRealMachines(t *testing.T) {
	path := os.Getenv("DAVIT_TEST_KUBECONFIG")
	if path == "" {
		t.Skip("DAVIT_TEST_KUBECONFIG names no cluster")
	}
	clients, err := kube.Kubeconfig(path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	crds := clients.Dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for plural, kind := range map[string]string{"machinedeployments": "MachineDeployment", "clusters": "Cluster"} {
		if _, err := crds.Create(ctx, defined(plural, kind), metav1.CreateOptions{}); err != nil {
			t.Fatal(err) // never take away what somebody else defined
		}
		t.Cleanup(func() {
			_ = crds.Delete(context.WithoutCancel(ctx), plural+"."+plan.ClusterGroup, metav1.DeleteOptions{})
		})
	}
	namespace := fmt.Sprintf("real-fleet-%d", os.Getpid()) // the last one may still be going
	spaces := clients.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	space := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}}}
	if _, err := spaces.Create(ctx, space, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spaces.Delete(context.WithoutCancel(ctx), namespace, metav1.DeleteOptions{}) })
	workers := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": plan.ClusterGroup + "/v1beta1", "kind": "MachineDeployment", "metadata": map[string]any{"namespace": namespace, "name": "workers"}, "spec": map[string]any{"replicas": int64(1)},
	}}
	at := clients.Dynamic.Resource(schema.GroupVersionResource{Group: plan.ClusterGroup, Version: "v1beta1", Resource: "machinedeployments"}).Namespace(namespace)
	for { // until both are served
		_, err := at.Create(ctx, workers, metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(200 * time.Millisecond):
		}
	}
	go controllers(ctx, clients, namespace)

	west := json.RawMessage(`{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"Cluster","metadata":{"namespace":"` + namespace + `","name":"west"},"spec":{"paused":false}}`)
	step := plan.Step{Name: "fleet", Kind: plan.KindInfra, Timeout: time.Minute, ClusterAPI: &plan.ClusterAPI{
		Apply: []json.RawMessage{west}, Destroy: true,
		Scale: []plan.Machines{{Object: "machinedeployments.cluster.x-k8s.io/" + namespace + "/workers", Replicas: 3}},
		Wait:  []plan.Conditions{{Object: "clusters.cluster.x-k8s.io/" + namespace + "/west"}},
	}}
	actuator := machines.Actuator{Open: func(context.Context, string) (machines.Cluster, error) { return New(clients), nil }}
	state := func() (replicas int64, clusters int) {
		live, err := at.Get(ctx, "workers", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		replicas, _, _ = unstructured.NestedInt64(live.Object, "spec", "replicas")
		list, err := clients.Dynamic.Resource(schema.GroupVersionResource{Group: plan.ClusterGroup, Version: "v1beta1", Resource: "clusters"}).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return replicas, len(list.Items)
	}
	for _, tc := range []struct {
		verb     plan.Verb
		action   failover.Action
		outcome  failover.Outcome
		note     string
		replicas int64
		clusters int
	}{
		{plan.Drill, failover.Act, failover.Done, "only rehearsed", 1, 0},
		{plan.Failover, failover.Look, failover.NotDone, "", 1, 0},
		{plan.Failover, failover.Act, failover.Done, "from 1 to 3", 3, 1},
		{plan.Failover, failover.Look, failover.Done, "", 3, 1},
		{plan.Failover, failover.Act, failover.Done, "has 3", 3, 1},
		{plan.Drill, failover.Act, failover.Done, "only rehearsed", 3, 1},
		{plan.Failover, failover.Undo, failover.Done, "back to 1", 1, 0},
		{plan.Failover, failover.Undo, failover.Done, "was not scaled", 1, 0},
	} {
		limited, cancel := context.WithTimeout(ctx, step.Timeout)
		got := actuator.Do(limited, execute.Order{Action: tc.action, Run: "r", Verb: tc.verb, Step: step})
		cancel()
		replicas, clusters := state()
		if got.Outcome != tc.outcome || !strings.Contains(got.Note, tc.note) || replicas != tc.replicas || clusters != tc.clusters {
			t.Errorf("%s, %s: %+v with %d machines and %d clusters, want %+v", tc.verb, tc.action, got, replicas, clusters, tc)
		}
	}
}
