package capture

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/selection"
)

// three is a namespace with three PostgreSQLs, a ring of three pods, and one
// more namespace that looks the same.
func three() string {
	var b strings.Builder
	for _, ns := range []string{"db", "db-2"} {
		fmt.Fprintf(&b, "kind: Namespace\nmetadata: {name: %s, labels: {team: red}}\n---\n", ns)
		for _, pg := range []string{"pg-a", "pg-b", "pg-c"} {
			b.WriteString(strings.NewReplacer("NS", ns, "PG", pg).Replace(postgres))
			b.WriteString(strings.NewReplacer("NS", ns, "PG", pg, "ORD", "0").Replace(member))
		}
		b.WriteString(strings.NewReplacer("NS", ns, "PG", "ring").Replace(strings.Replace(postgres, "replicas: 1", "replicas: 3", 1)))
		for n := range 3 {
			b.WriteString(strings.NewReplacer("NS", ns, "PG", "ring", "ORD", fmt.Sprint(n)).Replace(member))
		}
	}
	b.WriteString("kind: Namespace\nmetadata: {name: empty-1}\n---\nkind: Namespace\nmetadata: {name: kube-system, labels: {team: red}}\n")
	return b.String()
}

const postgres = `kind: StatefulSet
metadata: {name: PG, namespace: NS, uid: PG-NS}
spec:
  replicas: 1
  template:
    metadata: {labels: {db: PG}}
    spec:
      serviceAccountName: PG
      containers: [{name: pg, image: postgres:17, envFrom: [{secretRef: {name: PG}}, {configMapRef: {name: PG}}]}]
  volumeClaimTemplates: [{metadata: {name: data}}]
---
kind: Secret
metadata: {name: PG, namespace: NS}
---
kind: ConfigMap
metadata: {name: PG, namespace: NS}
---
kind: ServiceAccount
metadata: {name: PG, namespace: NS}
---
kind: Service
metadata: {name: PG, namespace: NS}
spec: {selector: {db: PG}}
---
`

const member = `kind: Pod
metadata: {name: PG-ORD, namespace: NS, uid: PG-ORD-NS, labels: {db: PG, node: n-ORD}, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: PG, uid: PG-NS, controller: true}]}
spec:
  serviceAccountName: PG
  containers: [{name: pg, image: postgres:17}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data-PG-ORD}}]
---
kind: PersistentVolumeClaim
metadata: {name: data-PG-ORD, namespace: NS, uid: c-PG-ORD, labels: {member: n-ORD}}
spec: {storageClassName: fast, volumeName: pv-PG-ORD-NS}
status: {phase: Bound, capacity: {storage: 1Gi}}
---
`

func rule(t *testing.T, text string) selection.Name {
	t.Helper()
	n, err := selection.ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func matching(t *testing.T, text string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// summary is everything written of some kinds, and the volumes read.
func summary(w *world, res *Result) string {
	var all []string
	for _, kind := range []string{"statefulsets.apps", "secrets", "configmaps", "serviceaccounts", "services", "persistentvolumeclaims", "namespaces"} {
		names := slices.Sorted(slices.Values(w.written[kind]))
		all = append(all, names...)
	}
	for _, v := range res.Volumes {
		all = append(all, v.Namespace+":"+v.Claim)
	}
	return strings.Join(all, " ")
}

func TestSelectionTakesWhatItCovers(t *testing.T) {
	one := func(pg string) string {
		return strings.ReplaceAll("PG PG PG PG PG data-PG-0 db db:data-PG-0", "PG", pg)
	}
	for _, tt := range []struct {
		what       string
		namespaces []string
		rules      selection.Selection
		volumes    selection.Volumes
		want       string
	}{
		{what: "one StatefulSet of three", rules: selection.Selection{Workloads: []selection.Name{rule(t, "statefulset/pg-b")}}, want: one("pg-b")},
		{what: "one pod of three", rules: selection.Selection{Workloads: []selection.Name{rule(t, "pod/pg-a-0")}}, want: one("pg-a")},
		{
			what: "one pod of a ring, with its volume alone", rules: selection.Selection{Workloads: []selection.Name{rule(t, "pod/ring-1")}},
			want: "ring ring ring ring ring data-ring-1 db db:data-ring-1",
		},
		{
			what: "the ring without its neighbours", rules: selection.Selection{Pods: []labels.Selector{matching(t, "db=ring")}},
			want: "ring ring ring ring ring data-ring-0 data-ring-1 data-ring-2 db db:data-ring-0 db:data-ring-1 db:data-ring-2",
		},
		{
			what: "a group across namespaces", namespaces: []string{"db", "db-2"}, rules: selection.Selection{Pods: []labels.Selector{matching(t, "db=pg-c")}},
			want: "pg-c pg-c pg-c pg-c pg-c pg-c pg-c pg-c pg-c pg-c data-pg-c-0 data-pg-c-0 db db-2 db-2:data-pg-c-0 db:data-pg-c-0",
		},
		{
			what: "namespaces by pattern, one workload in one", namespaces: []string{},
			rules: selection.Selection{Namespaces: selection.Namespaces{Names: []string{"*"}}, Workloads: []selection.Name{rule(t, "db/sts/pg-a")}},
			want:  one("pg-a"),
		},
		{
			what: "namespaces by label", namespaces: []string{},
			rules: selection.Selection{Namespaces: selection.Namespaces{Labels: matching(t, "team=red"), Exclude: []string{"*-2"}}, Workloads: []selection.Name{rule(t, "sts/pg-a")}},
			want:  one("pg-a"),
		},
		{
			what: "labels, either", rules: selection.Selection{Any: []labels.Selector{matching(t, "member=n-2"), matching(t, "db=pg-a")}},
			want: "pg-a pg-a pg-a pg-a pg-a data-pg-a-0 data-ring-2 db db:data-pg-a-0 db:data-ring-2",
		},
		{
			what: "volumes out", rules: selection.Selection{Workloads: []selection.Name{rule(t, "sts/ring")}},
			volumes: selection.Volumes{Exclude: []selection.Volume{{Claims: []string{"data-ring-1"}}, {Labels: matching(t, "member=n-2")}}},
			want:    "ring ring ring ring ring data-ring-0 data-ring-1 data-ring-2 db db:data-ring-0",
		},
		{
			what: "no volume in", rules: selection.Selection{Workloads: []selection.Name{rule(t, "sts/pg-a")}},
			volumes: selection.Volumes{Include: []selection.Volume{{StorageClass: "slow"}}},
			want:    "pg-a pg-a pg-a pg-a pg-a data-pg-a-0 db",
		},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t, three())
			if tt.namespaces == nil {
				tt.namespaces = []string{"db"}
			}
			res, err := w.run(Spec{Namespaces: tt.namespaces, Select: tt.rules, Volumes: tt.volumes})
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(w, res); got != tt.want {
				t.Errorf("took %s\nwant %s", got, tt.want)
			}
			if len(w.written["pods"]) > 0 {
				t.Errorf("pods that are made again were written: %q", w.written["pods"])
			}
		})
	}
}

func TestWholeClusterLeavesTheSystemOut(t *testing.T) {
	w := newWorld(t, three())
	res, err := w.run(Spec{Namespaces: []string{}, Select: selection.Selection{Namespaces: selection.Namespaces{Names: []string{"*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"db", "db-2", "empty-1"}; !slices.Equal(res.Namespaces, want) {
		t.Errorf("namespaces %q, want %q", res.Namespaces, want)
	}
	if len(res.Volumes) != 12 || len(w.written["statefulsets.apps"]) != 8 {
		t.Errorf("%d volumes and %d StatefulSets, want 12 and 8", len(res.Volumes), len(w.written["statefulsets.apps"]))
	}
}

// TestWhatStorageDriversMakeIsTheSites: each site's driver has made its own, with its address and its certificates. The control is what
// people make for it.
func TestWhatStorageDriversMakeIsTheSites(t *testing.T) {
	for kind, want := range map[string]bool{
		"csidrivers.storage.k8s.io": false, "csinodes.storage.k8s.io": false, "snapshotmetadataservices.cbt.storage.k8s.io": false,
		"storageclasses.storage.k8s.io": true,
	} {
		resource, group, _ := strings.Cut(kind, ".")
		if got := wantWide(Kind{Resource: resource, Group: group, Verbs: []string{"get", "list", "create"}}, Filter{}); got != want {
			t.Errorf("%s comes along: %t", kind, got)
		}
	}
}

// leaving is a world in which something happens after the n-th list of all
// namespaces.
type leaving struct {
	*world
	then map[int]func()
	n    int
}

func (l *leaving) List(ctx context.Context, q Query, page func([]unstructured.Unstructured) error) (Listed, error) {
	listed, err := l.world.List(ctx, q, page)
	if q.Kind.Resource == "namespaces" && q.Name == "" {
		l.n++
		if then := l.then[l.n]; then != nil {
			then()
		}
	}
	return listed, err
}

// remove begins the deletion of a namespace, or ends it.
func (w *world) remove(name string, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.objects["namespaces"]
	i := slices.IndexFunc(list, func(o *unstructured.Unstructured) bool { return o.GetName() == name })
	if gone {
		w.objects["namespaces"] = slices.Delete(slices.Clone(list), i, i+1)
		return
	}
	o := list[i].DeepCopy()
	o.SetDeletionTimestamp(&metav1.Time{Time: w.now})
	list[i] = o
}

// TestANamespaceThatGoesIsNotMissed: who asks for all namespaces gets those that
// stay, whenever one of them goes; who names one is told.
func TestANamespaceThatGoesIsNotMissed(t *testing.T) {
	cluster := selection.Selection{Namespaces: selection.Namespaces{Names: []string{"*"}}}
	for what, gone := range map[string]bool{"being deleted": false, "gone": true} {
		for at := range 3 { // 0: before the first list; after 2 the capture has its revision
			t.Run(fmt.Sprintf("%s at %d", what, at), func(t *testing.T) {
				l := &leaving{world: newWorld(t, three()), then: map[int]func(){}}
				leave := func() { l.remove("db-2", gone) }
				if l.then[at] = leave; at == 0 {
					leave()
				}
				res, err := Run(t.Context(), Spec{Application: "all", ID: "all-1", Mode: ModeSnapshot, Select: cluster},
					Ports{Cluster: l, Volumes: l, Hooks: l, Sink: l}, Options{Now: l.clock})
				if err != nil {
					t.Fatal(err)
				}
				want, warned := []string{"db", "empty-1"}, 1
				switch {
				case at == 2: // of the revision, it was there
					want, warned = []string{"db", "db-2", "empty-1"}, 0
				case at == 0 && gone:
					warned = 0
				}
				if !slices.Equal(res.Namespaces, want) {
					t.Errorf("namespaces %q, want %q", res.Namespaces, want)
				}
				for _, v := range res.Volumes {
					if !slices.Contains(want, v.Namespace) {
						t.Errorf("volume %s/%s of a namespace that the point leaves out", v.Namespace, v.Claim)
					}
				}
				of := func(w point.Warning) bool { return w.Object != "namespaces db-2" }
				if said := slices.DeleteFunc(slices.Clone(res.Warnings), of); len(said) != warned {
					t.Errorf("warnings %v, want %d of db-2", res.Warnings, warned)
				}
				look := &leaving{world: newWorld(t, three()), then: map[int]func(){}}
				leave = func() { look.remove("db-2", gone) }
				if look.then[at] = leave; at == 0 {
					leave()
				}
				held, err := Look(t.Context(), Spec{Mode: ModeSnapshot, Select: cluster}, look, true, Options{Now: look.clock})
				if err != nil {
					t.Fatal(err)
				}
				if told := slices.Equal(held.Deleting, []string{"db-2"}); told != (at == 0 && !gone) {
					t.Errorf("a look says that %q are being deleted", held.Deleting)
				}
			})
		}
	}
	t.Run("named", func(t *testing.T) {
		w := newWorld(t, three())
		w.remove("db-2", false)
		named := selection.Selection{Namespaces: selection.Namespaces{Names: []string{"e*", "db-2"}}}
		if _, err := w.run(Spec{Namespaces: []string{"db-2"}, Select: named}); err == nil || !strings.Contains(err.Error(), "namespace db-2 is being deleted") {
			t.Errorf("a named namespace that is being deleted: %v", err)
		}
	})
	t.Run("all of a pattern", func(t *testing.T) {
		l := &leaving{world: newWorld(t, three())}
		l.then = map[int]func(){1: func() { l.remove("empty-1", false) }}
		rule := selection.Selection{Namespaces: selection.Namespaces{Names: []string{"emp*"}}}
		_, err := Run(t.Context(), Spec{Application: "e", ID: "e-1", Mode: ModeSnapshot, Select: rule},
			Ports{Cluster: l, Volumes: l, Hooks: l, Sink: l}, Options{Now: l.clock})
		if err == nil || !strings.Contains(err.Error(), "no namespace matches emp*") {
			t.Errorf("a point of a namespace that went away meanwhile: %v", err)
		}
	})
}

// A part of a StatefulSet is captured, and the point says what that means.
func TestPartOfAStatefulSetIsSaid(t *testing.T) {
	w := newWorld(t, three())
	res, err := w.run(Spec{Namespaces: []string{"db"}, Select: selection.Selection{Workloads: []selection.Name{rule(t, "pod/ring-1")}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Warnings) != 1 || res.Warnings[0].Object != "StatefulSet db/ring" {
		t.Errorf("warnings %v, want one of the ring", res.Warnings)
	}
}

func TestRulesThatMatchNothingAreErrors(t *testing.T) {
	web := `
kind: ReplicaSet
metadata: {name: web-1, namespace: db, uid: rs}
---
kind: Pod
metadata: {name: web-1-x, namespace: db, uid: p, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: rs, controller: true}]}
spec: {containers: []}
`
	for _, tt := range []struct {
		rules selection.Selection
		says  string
	}{
		{selection.Selection{Workloads: []selection.Name{rule(t, "sts/pg-a"), rule(t, "sts/gone")}}, "workload sts/gone does not exist in db"},
		{selection.Selection{Workloads: []selection.Name{rule(t, "sts/no-*")}}, "workload sts/no-* does not exist"},
		{selection.Selection{Workloads: []selection.Name{rule(t, "widget/x")}}, `no namespaced kind "widget"`},
		{selection.Selection{Workloads: []selection.Name{rule(t, "persistentvolume/x")}}, `no namespaced kind`},
		{selection.Selection{Workloads: []selection.Name{rule(t, "db-2/sts/pg-a")}}, "does not exist in db"},
		{selection.Selection{Pods: []labels.Selector{matching(t, "db=gone")}}, "no pod, and nothing that makes pods, in db has the labels db=gone"},
		{selection.Selection{Any: []labels.Selector{matching(t, "db=gone")}}, "matches no object in db"},
		{selection.Selection{Workloads: []selection.Name{rule(t, "pod/web-1-x")}}, "under ever new names"},
		{selection.Selection{Namespaces: selection.Namespaces{Names: []string{"db", "shop-*"}}}, "no namespace matches shop-*"},
		{selection.Selection{Namespaces: selection.Namespaces{Labels: matching(t, "team=blue")}}, "no namespace matches labels team=blue"},
	} {
		w := newWorld(t, three()+"---\n"+web)
		_, err := w.run(Spec{Namespaces: []string{"db"}, Select: tt.rules})
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v: %v, want %q", tt.rules, err, tt.says)
		}
		if len(w.written) > 0 {
			t.Errorf("%s: something was written: %v", tt.says, w.written)
		}
	}
}

// A hook's labels may fit a neighbour's pods: it runs in the application's.
func TestHooksRunInCoveredPodsOnly(t *testing.T) {
	w := newWorld(t, three())
	w.pods = []quiesce.Pod{{Namespace: "db", Name: "pg-a-0", Containers: []quiesce.Container{{Name: "pg"}}}, {Namespace: "db", Name: "pg-b-0", Containers: []quiesce.Container{{Name: "pg"}}}}
	res, err := w.run(Spec{
		Namespaces: []string{"db"}, Select: selection.Selection{Workloads: []selection.Name{rule(t, "sts/pg-a")}},
		Hooks: []quiesce.Hook{{Name: "sync", Pods: labels.Everything(), Before: &quiesce.Action{Command: []string{"sync"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Hooks) != 1 || res.Hooks[0].Pod != "db/pg-a-0" {
		t.Errorf("hooks ran in %v, want db/pg-a-0 alone", res.Hooks)
	}
}

func TestKindsOutAreOut(t *testing.T) {
	f, err := ParseFilter(nil, []string{"secrets", "services"})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, three())
	if _, err := w.run(Spec{Namespaces: []string{"db"}, Filter: f, Select: selection.Selection{Workloads: []selection.Name{rule(t, "sts/pg-a")}}}); err != nil {
		t.Fatal(err)
	}
	if len(w.written["secrets"]) > 0 || len(w.written["services"]) > 0 || len(w.written["configmaps"]) != 1 {
		t.Errorf("written %v", w.written)
	}
}

// TestKindsInOfANarrowedSelection: they limit what it covers and what points at that. A covered workload,
// what it names, its claims and their data come along all the same, unless they are left out.
func TestKindsInOfANarrowedSelection(t *testing.T) {
	for _, tt := range []struct{ in, out, want string }{
		{"", "", "pg-a pg-a pg-a pg-a pg-a data-pg-a-0 db:data-pg-a-0"},
		{"statefulsets.apps", "", "pg-a pg-a pg-a pg-a data-pg-a-0 db:data-pg-a-0"}, // no Service
		{"statefulsets.apps services", "", "pg-a pg-a pg-a pg-a pg-a data-pg-a-0 db:data-pg-a-0"},
		{"persistentvolumeclaims", "", "pg-a pg-a pg-a pg-a data-pg-a-0 db:data-pg-a-0"},
		{"statefulsets.apps", "secrets serviceaccounts persistentvolumeclaims", "pg-a pg-a"},
	} {
		f, err := ParseFilter(strings.Fields(tt.in), strings.Fields(tt.out))
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, three())
		res, err := w.run(Spec{Namespaces: []string{"db"}, Filter: f, Select: selection.Selection{Workloads: []selection.Name{rule(t, "sts/pg-a")}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(summary(w, res)+" ", "db ", ""); strings.TrimSpace(got) != tt.want {
			t.Errorf("in %q, out %q: %q, want %q: %v", tt.in, tt.out, got, tt.want, w.written)
		}
	}
}
