package agent

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientset "k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/profile"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/reconcile/measure"
)

func hooked(namespace, name string, spec v1alpha1.ApplicationSpec, after ...string) *v1alpha1.Application {
	spec.Hooks = []v1alpha1.Hook{{Name: "q", PodSelector: &metav1.LabelSelector{}, Before: []string{"pause"}, After: after}}
	return &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

// TestPermits: a record of what is owed runs nothing that the application's
// hooks do not, and nothing where the application is not.
func TestPermits(t *testing.T) {
	labelled := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}
	c := &collector{reader: fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "green", Labels: map[string]string{"app": "shop"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "red"}},
		hooked(v1alpha1.SystemNamespace, "shop", v1alpha1.ApplicationSpec{Namespaces: []string{"shop", "shop-db"}}, "resume", "now"),
		hooked(v1alpha1.SystemNamespace, "wide", v1alpha1.ApplicationSpec{Namespaces: []string{"blue-*"}, NamespaceSelector: labelled}, "resume", "now"),
		hooked("tenant", "shop", v1alpha1.ApplicationSpec{}, "resume", "now"),
		hooked("tenant", "greedy", v1alpha1.ApplicationSpec{Namespaces: []string{"kube-system"}}, "resume", "now"),
	).Build()}
	var unlock []string
	for _, h := range profile.Hooks() {
		if h.Name == "profile mongodb" {
			unlock = h.After.Command
		}
	}
	resume := []string{"resume", "now"}
	for _, tt := range []struct {
		application, namespace string
		command                []string
		refused                string // "": permitted
	}{
		{"shop", "shop", resume, ""},
		{"shop", "shop-db", resume, ""},
		{"shop", "shop", unlock, ""},
		{"shop", "shop", []string{"pause"}, "is not what a hook of shop does now"},
		{"shop", "shop", []string{"resume", "later"}, "is not what a hook of shop does now"},
		{"shop", "shop", nil, "is not what a hook of shop does now"},
		{"shop", "kube-system", resume, "namespace kube-system is not the application's"},
		{"shop", "kube-system", unlock, "namespace kube-system is not the application's"},
		{"shop", "", resume, "is not the application's"},
		{"wide", "green", resume, ""},
		{"wide", "blue-1", resume, ""},
		{"wide", "red", resume, "namespace red is not the application's"},
		{"wide", "kube-system", resume, "namespace kube-system is not the application's"},
		{"tenant.shop", "tenant", resume, ""},
		{"tenant.shop", "shop", resume, "namespace shop is not the application's"},
		{"tenant.greedy", "kube-system", resume, "is not its own"},
		{"gone", "shop", resume, "there is no such Application"},
	} {
		o := quiesce.Owed{Hook: "q", Target: quiesce.Target{Namespace: tt.namespace, Pod: "db-0", UID: "u"}, Action: quiesce.Action{Command: tt.command}}
		err := c.permits(t.Context(), tt.application)(t.Context(), o)
		if (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%s in %s, %.20q: %v", tt.application, tt.namespace, tt.command, err)
		}
	}
}

// onePod is a cluster of one pod; it notes what runs there.
type onePod struct {
	quiesce.Runner
	ran int
}

func (r *onePod) Pods(context.Context, []string) ([]quiesce.Pod, error) {
	return []quiesce.Pod{{Namespace: "shop", Name: "db-0", UID: "u"}}, nil
}

func (r *onePod) Run(context.Context, quiesce.Target, quiesce.Action) (string, error) {
	r.ran++
	return "", nil
}

// owedNow is what the metric says.
func owedNow(t *testing.T) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(measure.HooksOwed)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%v, %v", families, err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

// TestAChangedHookIsSaid: what is left to a person is counted and said, but
// not every five seconds anew; with the hook as it was, it is undone.
func TestAChangedHookIsSaid(t *testing.T) {
	app := hooked(v1alpha1.SystemNamespace, "shop", v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}}, "new")
	api := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(app).Build()
	configs := clientset.NewClientset()
	debt := quiesce.Debt{Application: "shop", Owed: []quiesce.Owed{{
		Hook: "q", Target: quiesce.Target{Namespace: "shop", Pod: "db-0", UID: "u"}, Action: quiesce.Action{Command: []string{"old"}},
	}}}
	if err := quiescer.NewLedger(configs).Owe(t.Context(), debt); err != nil { // by an agent that died
		t.Fatal(err)
	}
	var log bytes.Buffer
	runner := &onePod{}
	c := &collector{ledger: quiescer.NewLedger(configs), runner: runner, reader: api, log: slog.New(slog.NewTextHandler(&log, nil))}
	c.collect(t.Context())
	c.collect(t.Context())
	if got := owedNow(t); got != 1 || runner.ran != 0 {
		t.Errorf("%v owed, %d ran", got, runner.ran)
	}
	if n := strings.Count(log.String(), "is not what a hook of shop does now"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
	app.Spec.Hooks[0].After = []string{"old"}
	if err := api.Update(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	c.collect(t.Context())
	if got := owedNow(t); got != 0 || runner.ran != 1 {
		t.Errorf("%v owed, %d ran", got, runner.ran)
	}
}
