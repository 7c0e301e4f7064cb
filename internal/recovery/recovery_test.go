package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakediscovery "k8s.io/client-go/discovery/fake"
	fakedynamic "k8s.io/client-go/dynamic/fake"
	fakekubernetes "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/target"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var instant = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is a vault with points of one application, and an empty target.
type world struct {
	t       *testing.T
	project *vault.Project
	dynamic *fakedynamic.FakeDynamicClient
	deps    Deps
}

func newWorld(t *testing.T) *world {
	t.Helper()
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, project: project}
	clients := w.cluster()
	w.deps = Deps{
		Project: project, VaultName: "main", Site: "west", Holder: "test", Cluster: target.New(clients),
		Now: func() time.Time { return instant.Add(time.Minute) },
	}
	return w
}

// cluster makes a target of client-go's fakes that allows everything.
func (w *world) cluster() *kube.Clients {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			w.t.Fatal(err)
		}
	}
	w.dynamic = fakedynamic.NewSimpleDynamicClient(s,
		&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "davit-system"}})
	k := fakekubernetes.NewClientset()
	k.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &authorizationv1.SelfSubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}, nil
	})
	d, ok := k.Discovery().(*fakediscovery.FakeDiscovery)
	if !ok {
		w.t.Fatal("no fake discovery")
	}
	for gv, kinds := range map[string][][3]string{
		"v1":                     {{"namespaces", "Namespace", ""}, {"configmaps", "ConfigMap", "n"}, {"pods", "Pod", "n"}, {"persistentvolumeclaims", "PersistentVolumeClaim", "n"}},
		"apps/v1":                {{"deployments", "Deployment", "n"}, {"statefulsets", "StatefulSet", "n"}, {"daemonsets", "DaemonSet", "n"}, {"replicasets", "ReplicaSet", "n"}},
		"batch/v1":               {{"jobs", "Job", "n"}, {"cronjobs", "CronJob", "n"}},
		"coordination.k8s.io/v1": {{"leases", "Lease", "n"}},
		"davit.dev/v1alpha1":     {{"applications", "Application", "n"}, {"protectionpolicies", "ProtectionPolicy", "n"}, {"nodefences", "NodeFence", "n"}},
	} {
		list := &metav1.APIResourceList{GroupVersion: gv}
		for _, r := range kinds {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: r[0], Kind: r[1], Namespaced: r[2] != ""})
		}
		d.Resources = append(d.Resources, list)
	}
	return &kube.Clients{Dynamic: w.dynamic, Kubernetes: k, Discovery: d}
}

// capture publishes a point of one ConfigMap.
func (w *world) capture(id, site string, epoch int64, at time.Time, c point.Consistency) {
	w.t.Helper()
	writer, err := w.project.NewWriter(w.t.Context(), "shop", id)
	if err != nil {
		w.t.Fatal(err)
	}
	objects := writer.Resource(point.Resource{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true, Versions: []string{"v1"}})
	object := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"conf","namespace":"shop","uid":"u1"},"data":{"from":"` + id + `"}}`
	if err := objects.Add(w.t.Context(), []byte(object)); err != nil {
		w.t.Fatal(err)
	}
	res, err := objects.Close(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	m := &point.Manifest{
		FormatVersion: 1, ID: id, Application: "shop", Project: "default", Site: site, Epoch: epoch, Instant: at, CutBy: at,
		StartedAt: at, FinishedAt: at, Consistency: c, Namespaces: []string{"shop"}, Objects: 1, Resources: []point.Resource{res},
	}
	if c == point.Fuzzy {
		m.Volumes = []point.Volume{{Namespace: "shop", Claim: "d", Consistency: c, Instant: at, Snapshot: point.Snapshot{Repository: site, ID: "s"}}}
	}
	if err := writer.Publish(w.t.Context(), m, func(context.Context) error { return nil }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) claim(site string, n int64, accepted ...string) {
	w.t.Helper()
	_, err := lease.New(w.project).Claim(w.t.Context(), "shop", n, lease.Claim{Site: site, Holder: "h", Request: site + "-r", At: instant, Accepted: accepted})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) document() {
	w.t.Helper()
	app := `{"apiVersion":"davit.dev/v1alpha1","kind":"Application","metadata":{"name":"shop","namespace":"davit-system","uid":"x","resourceVersion":"9"},"spec":{"vault":"old","policy":"p","namespaces":["shop"]},"status":{"role":"Active"}}`
	policy := `{"apiVersion":"davit.dev/v1alpha1","kind":"ProtectionPolicy","metadata":{"name":"p","namespace":"davit-system"},"spec":{"schedule":{"every":"1m"}}}`
	_, err := w.project.PutDocument(w.t.Context(), vault.Document{Application: "shop", Site: "east", Objects: []json.RawMessage{json.RawMessage(app), json.RawMessage(policy)}})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) value(namespace string) string {
	u, err := w.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(namespace).Get(w.t.Context(), "conf", metav1.GetOptions{})
	if err != nil {
		return ""
	}
	data, _ := u.Object["data"].(map[string]any)
	s, _ := data["from"].(string)
	return s
}

func (w *world) epoch() int64 {
	w.t.Helper()
	e, err := lease.New(w.project).Current(w.t.Context(), "shop")
	if err != nil {
		w.t.Fatal(err)
	}
	return e.Number
}

// A source whose clock runs ahead does not make the restore claim that nothing
// was lost; it is restored all the same.
func TestClocksOfSitesApart(t *testing.T) {
	for name, tc := range map[string]struct {
		at     time.Time
		phase  v1alpha1.RestorePhase
		warned bool
	}{
		"an hour ahead": {instant.Add(time.Hour), v1alpha1.RestoreWarned, true},
		"in time":       {instant, v1alpha1.RestoreCompleted, false},
	} {
		w := newWorld(t)
		w.claim("east", 1)
		w.capture("shop-1", "east", 1, tc.at, point.Crash)
		w.document()
		rep, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps)
		if err != nil || rep.Phase != tc.phase || w.value("shop") != "shop-1" {
			t.Fatalf("%s: %v %+v", name, err, rep)
		}
		warned := slices.ContainsFunc(rep.Result.Warnings, func(p restore.Problem) bool { return strings.Contains(p.Message, "the RPO is not known") })
		if warned != tc.warned {
			t.Errorf("%s: warnings %+v", name, rep.Result.Warnings)
		}
	}
}

func TestTakeOver(t *testing.T) {
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant.Add(-time.Minute), point.Crash)
	w.capture("shop-2", "east", 1, instant, point.Crash)
	w.document()
	opts := Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}
	rep, err := Recover(t.Context(), opts, w.deps)
	if err != nil || rep.Phase != v1alpha1.RestoreCompleted {
		t.Fatalf("%v %+v", err, rep)
	}
	if rep.Point != "shop-2" || w.value("shop") != "shop-2" || rep.RPO != time.Minute || rep.Epoch != 2 || rep.Fence != "asked" {
		t.Errorf("%+v, value %q", rep, w.value("shop"))
	}
	var names []string
	for _, s := range rep.Steps {
		names = append(names, s.Name)
	}
	order := strings.Join(names, " > ")
	for _, part := range []string{"choose point > preflight", "lease > claim epoch > namespaces", "ready > documents"} {
		if !strings.Contains(order, part) {
			t.Errorf("steps %s, want %s", order, part)
		}
	}
	app, err := w.dynamic.Resource(v1alpha1.GroupVersion.WithResource("applications")).Namespace("davit-system").Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil || app.Object["status"] != nil {
		t.Fatalf("application: %v %v", err, app)
	}
	if spec, _ := app.Object["spec"].(map[string]any); spec["vault"] != "main" {
		t.Errorf("application names vault %v", spec["vault"])
	}
	w.dynamic.PrependReactor("patch", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, app, nil })
	again, err := Recover(t.Context(), opts, w.deps)
	if err != nil || again.Epoch != 2 || w.epoch() != 2 || again.Result.Created != 0 {
		t.Errorf("again: %v %+v", err, again)
	}
	w.capture("shop-3", "east", 1, instant.Add(time.Second), point.Crash) // the fenced site goes on for a moment
	if _, err := Recover(t.Context(), Options{Application: "shop", Point: "shop-3"}, w.deps); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "quarantined") {
		t.Errorf("a point written after the take-over: %v", err)
	}
}

// TestACopyOfOneNamespaceOfSeveral: whoever wants one is told that all come, and what to give.
func TestACopyOfOneNamespaceOfSeveral(t *testing.T) {
	m := &point.Manifest{Namespaces: []string{"back", "data", "front"}}
	for want, mapping := range map[string]map[string]string{
		"also back, data: give --map-namespace back=<another> --map-namespace data=<another> too, and delete": {"front": "old-front"},
		"the original: --map-namespace back=<another> --map-namespace data=<another> --map":                   nil,
		"": {"front": "old-front", "data": "old-data", "back": "old-back"},
	} {
		err := checkClone(Options{Mode: v1alpha1.RestoreClone, NamespaceMapping: mapping}, m)
		if want == "" && err == nil {
			continue
		}
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) || want == "" {
			t.Errorf("%v: %v, want %q", mapping, err, want)
		}
	}
}

func TestRules(t *testing.T) {
	clone := map[string]string{"shop": "copy"}
	for _, c := range []struct {
		name string
		opts Options
		prep func(*world)
		want error
		says string
	}{
		{"in place where another site holds the epoch", Options{}, nil, ErrRefused, "--take-over"},
		{"clone", Options{Mode: v1alpha1.RestoreClone, NamespaceMapping: clone}, nil, nil, ""},
		{"clone without a mapping", Options{Mode: v1alpha1.RestoreClone}, nil, ErrRefused, "namespace mapping"},
		{"clone onto the original", Options{Mode: v1alpha1.RestoreClone, NamespaceMapping: map[string]string{"shop": "shop"}}, nil, ErrRefused, "must not share"},
		{"take-over with a mapping", Options{Mode: v1alpha1.RestoreTakeOver, NamespaceMapping: clone}, nil, ErrRefused, "--as-clone"},
		{"unknown point", Options{Point: "shop-9"}, nil, ErrNoPoint, "davit points"},
		{"before the first point", Options{Mode: v1alpha1.RestoreTakeOver, AsOf: instant.Add(-time.Hour)}, nil, ErrNoPoint, "oldest usable"},
		{"point and time", Options{Point: "shop-1", AsOf: instant}, nil, ErrRefused, "not both"},
		{"fuzzy by name", Options{Mode: v1alpha1.RestoreTakeOver, Point: "shop-f"}, func(w *world) {
			w.capture("shop-f", "east", 1, instant.Add(time.Second), point.Fuzzy)
		}, ErrPreflight, "--accept-fuzzy"},
		{"fuzzy is passed over", Options{Mode: v1alpha1.RestoreTakeOver}, func(w *world) {
			w.capture("shop-f", "east", 1, instant.Add(time.Second), point.Fuzzy)
		}, nil, ""},
		{"quarantined by mark", Options{Mode: v1alpha1.RestoreTakeOver, Point: "shop-1"}, func(w *world) {
			if err := w.project.Mark(w.t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkQuarantined, Site: "east"}); err != nil {
				w.t.Fatal(err)
			}
		}, ErrRefused, "quarantined"},
		{"damaged by verification", Options{Mode: v1alpha1.RestoreTakeOver, Point: "shop-1", AcceptQuarantined: true}, func(w *world) {
			if err := w.project.Mark(w.t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkQuarantined, Site: "east", Note: "damaged: pack 7"}); err != nil {
				w.t.Fatal(err)
			}
		}, ErrRefused, "damaged: pack 7: choose another"},
		{"quarantined, accepted", Options{Mode: v1alpha1.RestoreTakeOver, Point: "shop-1", AcceptQuarantined: true}, func(w *world) {
			if err := w.project.Mark(w.t.Context(), "shop", "shop-1", vault.Mark{Kind: vault.MarkQuarantined, Site: "east"}); err != nil {
				w.t.Fatal(err)
			}
		}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.claim("east", 1)
			w.capture("shop-1", "east", 1, instant, point.Crash)
			if c.prep != nil {
				c.prep(w)
			}
			c.opts.Application = "shop"
			_, err := Recover(t.Context(), c.opts, w.deps)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want == nil {
				return
			}
			if !strings.Contains(err.Error(), c.says) || !Refused(err) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if w.epoch() != 1 || w.value("shop") != "" || w.value("copy") != "" {
				t.Error("a refusal changed something")
			}
		})
	}
}

func TestCloneLeavesTheEpochAlone(t *testing.T) {
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	w.document()
	rep, err := Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreClone, NamespaceMapping: map[string]string{"shop": "copy"}}, w.deps)
	if err != nil || w.epoch() != 1 || len(rep.Documents) != 0 || w.value("copy") != "shop-1" || w.value("shop") != "" {
		t.Errorf("%v epoch %d %+v", err, w.epoch(), rep)
	}
}

func TestFailedPreflightClaimsNothing(t *testing.T) {
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	m, err := w.project.Manifest(t.Context(), "shop", "shop-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.project.Store().Delete(t.Context(), m.Resources[0].Packs[0].Key); err != nil {
		t.Fatal(err)
	}
	_, err = Recover(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps)
	if err == nil || w.epoch() != 1 {
		t.Errorf("got %v, epoch %d", err, w.epoch())
	}
}

func TestPlanChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.claim("east", 1)
	w.capture("shop-1", "east", 1, instant, point.Crash)
	rep, err := Plan(t.Context(), Options{Application: "shop", Mode: v1alpha1.RestoreTakeOver}, w.deps)
	if err != nil || w.epoch() != 1 || w.value("shop") != "" || len(rep.Plan) != 2 || rep.Plan[0].Object != "Namespace shop" || rep.Plan[1].Action != report.Create {
		t.Errorf("%v %+v", err, rep)
	}
}
