package application

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
)

func postgres(name string, replicas int32) []client.Object {
	all := []client.Object{&appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: appsv1.StatefulSetSpec{Replicas: &replicas, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"db": name}},
		}},
	}}
	for n := range replicas {
		p := &corev1.Pod{ObjectMeta: made(metav1.ObjectMeta{Namespace: "shop", Name: name + "-" + string('0'+n), Labels: map[string]string{"db": name}}, "apps/v1", "StatefulSet", name)}
		all = append(all, p)
	}
	return all
}

func system(name string, spec v1alpha1.ApplicationSpec) *v1alpha1.Application {
	if spec.Namespaces == nil {
		spec.Namespaces = []string{"shop"}
	}
	return &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}, Spec: spec}
}

func writable(app *v1alpha1.Application) v1alpha1.Application {
	app.Status.Role = v1alpha1.RoleActive
	return *app
}

// stopped is what a fence stops in the namespace shop, and what it spares.
func stopped(t *testing.T, app *v1alpha1.Application, others ...v1alpha1.Application) (names, spared string) {
	t.Helper()
	objects := slices.Concat(postgres("pg-a", 1), postgres("pg-b", 1), postgres("pg-c", 1), postgres("ring", 3), []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "red"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}},
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "dns"}},
		&appsv1.ReplicaSet{ObjectMeta: made(metav1.ObjectMeta{Namespace: "other", Name: "canary"}, "rollouts.example.com/v1", "Rollout", "canary"), Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](1)}},
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "logs", Labels: map[string]string{"davit.dev/exclude": "true"}}},
	})
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).Build()
	f := fencer{client: c, reader: c, now: time.Now}
	done, err := f.fence(context.Background(), app, others)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, what := range done.stopped {
		_, name, _ := strings.Cut(what, "/")
		name, _, _ = strings.Cut(name, " ")
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, " "), strings.Join(done.spared, "; ")
}

func TestFenceFollowsTheSelection(t *testing.T) {
	ring := []metav1.LabelSelector{{MatchLabels: map[string]string{"db": "ring"}}}
	for name, test := range map[string]struct {
		spec v1alpha1.ApplicationSpec
		want string
	}{
		"one of three":          {v1alpha1.ApplicationSpec{Workloads: []string{"statefulset/pg-b"}}, "pg-b"},
		"its only pod":          {v1alpha1.ApplicationSpec{Workloads: []string{"pod/pg-b-0"}}, "pg-b"},
		"a group of pods":       {v1alpha1.ApplicationSpec{PodSelectors: ring}, "ring"},
		"one pod of a ring":     {v1alpha1.ApplicationSpec{Workloads: []string{"pod/ring-1"}}, "ring-1"},
		"either":                {v1alpha1.ApplicationSpec{PodSelectors: ring, Workloads: []string{"sts/pg-*"}}, "pg-a pg-b pg-c ring"},
		"the namespace":         {v1alpha1.ApplicationSpec{}, "pg-a pg-b pg-c ring"},
		"every namespace":       {v1alpha1.ApplicationSpec{Namespaces: []string{"*"}}, "canary pg-a pg-b pg-c ring"},
		"by label":              {v1alpha1.ApplicationSpec{Namespaces: []string{}, NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}}}, "pg-a pg-b pg-c ring"},
		"except":                {v1alpha1.ApplicationSpec{Namespaces: []string{"*"}, ExcludeNamespaces: []string{"sh*"}}, "canary"},
		"kinds, not volumes":    {v1alpha1.ApplicationSpec{IncludeKinds: []string{"configmaps"}}, ""},
		"kinds out, volumes in": {v1alpha1.ApplicationSpec{ExcludeKinds: []string{"statefulsets.apps"}}, "pg-a pg-b pg-c ring"},
	} {
		if got, _ := stopped(t, system("shop", test.spec)); got != test.want {
			t.Errorf("%s: stopped %q, want %q", name, got, test.want)
		}
	}
}

// TestNamespacedFenceStaysInside: whoever may write Applications in a namespace
// cannot stop anything elsewhere.
func TestNamespacedFenceStaysInside(t *testing.T) {
	for _, spec := range []v1alpha1.ApplicationSpec{
		{Namespaces: []string{"*"}},
		{Namespaces: []string{"shop"}},
		{NamespaceSelector: &metav1.LabelSelector{}},
		{Workloads: []string{"shop/sts/pg-a"}},
		{Workloads: []string{"*/sts/*"}, Namespaces: []string{"shop"}},
	} {
		app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "x"}, Spec: spec}
		if got, _ := stopped(t, app); got != "" {
			t.Errorf("%+v stopped %q", spec, got)
		}
	}
}

func TestFenceSparesWhatAnotherApplicationRuns(t *testing.T) {
	pgB := v1alpha1.ApplicationSpec{Workloads: []string{"sts/pg-b"}}
	whole := v1alpha1.ApplicationSpec{}
	for name, test := range map[string]struct {
		fenced v1alpha1.ApplicationSpec
		other  v1alpha1.Application
		want   string
		spared bool
	}{
		"one that nobody else has":    {whole, writable(system("else", v1alpha1.ApplicationSpec{Namespaces: []string{"other"}})), "pg-a pg-b pg-c ring", false},
		"a narrower one keeps its":    {whole, writable(system("pg-b", pgB)), "pg-a pg-c ring", true},
		"one as narrow keeps its":     {pgB, writable(system("pg-b", pgB)), "", true},
		"a broader one does not":      {pgB, writable(system("all", whole)), "pg-b", false},
		"a superseded one does not":   {whole, *system("pg-b", pgB), "pg-a pg-b pg-c ring", false},
		"the application is no rival": {pgB, writable(system("shop", pgB)), "pg-b", false},
	} {
		got, spared := stopped(t, system("shop", test.fenced), test.other)
		if got != test.want || (spared != "") != test.spared {
			t.Errorf("%s: stopped %q, spared %q; want %q", name, got, spared, test.want)
		}
	}
}
