package restoring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	fakediscovery "k8s.io/client-go/discovery/fake"
	fakedynamic "k8s.io/client-go/dynamic/fake"
	fakekubernetes "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/target"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

const planted = "planted-secret-value"

var instant = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// site is one with a vault in which east holds shop's epoch 1.
type site struct {
	t       *testing.T
	project *vault.Project
	clients *kube.Clients
	asked   []string
}

func (s *site) Recovery(_ context.Context, in, namespace, account string) (recovery.Deps, error) {
	s.asked = append(s.asked, in+" as "+namespace+"/"+account)
	return recovery.Deps{Project: s.project, VaultName: in, Site: "east", ClusterID: "e", Cluster: target.New(s.clients)}, nil
}

func newSite(t *testing.T) *site {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), mem.New(time.Now), "acme", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, project: project}
	s.claim("east", "e", 1)
	s.publish("shop-1", 1)
	s.cluster()
	return s
}

func (s *site) claim(of, cluster string, n int64) {
	s.t.Helper()
	c := lease.Claim{Site: of, Cluster: cluster, Request: of + "-by-hand"}
	if n > 1 {
		c.Accepted = []string{"shop-1"}
	}
	if _, err := lease.New(s.project).Claim(s.t.Context(), "shop", n, c); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) publish(id string, epoch int64) {
	s.t.Helper()
	w, err := s.project.NewWriter(s.t.Context(), "shop", id)
	if err != nil {
		s.t.Fatal(err)
	}
	m := &point.Manifest{Site: "east", Epoch: epoch, Instant: instant, CutBy: instant, FinishedAt: instant, Consistency: point.Crash, Namespaces: []string{"shop"}}
	for kind, object := range map[string]string{
		"ConfigMap": `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"conf","namespace":"shop","uid":"u1"},"data":{"colour":"green"}}`,
		"Secret":    `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"pw","namespace":"shop","uid":"u2"},"data":{"word":"` + planted + `"}}`,
	} {
		r := w.Resource(point.Resource{Version: "v1", Kind: kind, Resource: strings.ToLower(kind) + "s", Namespaced: true, Versions: []string{"v1"}})
		if err := r.Add(s.t.Context(), []byte(object)); err != nil {
			s.t.Fatal(err)
		}
		done, err := r.Close(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		m.Resources = append(m.Resources, done)
	}
	if err := w.Publish(s.t.Context(), m, nil); err != nil {
		s.t.Fatal(err)
	}
}

// cluster is one in which conf and pw differ from the point.
func (s *site) cluster() {
	s.t.Helper()
	object := func(kind, namespace, name string, data map[string]any) runtime.Object {
		u := map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": name, "namespace": namespace, "uid": "live-" + name}, "data": data}
		return &unstructured.Unstructured{Object: u}
	}
	d := fakedynamic.NewSimpleDynamicClient(process.Scheme(),
		&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "davit-system"}},
		&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		object("ConfigMap", "shop", "conf", map[string]any{"colour": "red"}), object("Secret", "shop", "pw", map[string]any{"word": planted + "-old"}))
	k := fakekubernetes.NewClientset()
	k.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &authorizationv1.SelfSubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}, nil
	})
	found, ok := k.Discovery().(*fakediscovery.FakeDiscovery)
	if !ok {
		s.t.Fatal("no fake discovery")
	}
	for gv, kinds := range map[string]string{
		"v1": "namespaces:Namespace configmaps:ConfigMap secrets:Secret pods:Pod persistentvolumeclaims:PersistentVolumeClaim", "coordination.k8s.io/v1": "leases:Lease",
		"apps/v1": "deployments:Deployment statefulsets:StatefulSet daemonsets:DaemonSet replicasets:ReplicaSet", "batch/v1": "jobs:Job cronjobs:CronJob",
	} {
		list := &metav1.APIResourceList{GroupVersion: gv}
		for _, one := range strings.Fields(kinds) {
			plural, kind, _ := strings.Cut(one, ":")
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: plural, Kind: kind, Namespaced: kind != "Namespace"})
		}
		found.Resources = append(found.Resources, list)
	}
	s.clients = &kube.Clients{Dynamic: d, Kubernetes: k, Discovery: found}
}

func (s *site) restorer(objects ...client.Object) *Restorer {
	for name, project := range map[string]string{"main": "acme", "theirs": "other"} {
		objects = append(objects, &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VaultSpec{Project: project}})
	}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithStatusSubresource(&v1alpha1.Restore{}).WithObjects(objects...).Build()
	return &Restorer{Client: c, Reader: c, Access: s, Site: "east", Project: "acme", Turns: NewTurns(), Now: time.Now, LookEvery: time.Millisecond}
}

func order(change func(*uplink.Restore)) uplink.Restore {
	o := uplink.Restore{ID: "a", Name: "shop-restore-1", Application: "shop", Point: "shop-1", Existing: "update", Seen: 1, By: "anna@console/acme", Reason: "it is red", DryRun: true}
	if change != nil {
		change(&o)
	}
	return o
}

func copied(o *uplink.Restore) {
	o.Clone, o.Existing, o.Namespaces = true, "", map[string]string{"shop": "shop-copy"}
}

func namespace(name, restore string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{shape.LabelRestore: restore}}}
}

// A dry run says what would change in each object, and nothing of a Secret's values;
// it has the rights of the account of restores, and changes nothing.
func TestPreview(t *testing.T) {
	s := newSite(t)
	r := s.restorer()
	var said []uplink.Restored
	replace := func(o *uplink.Restore) { o.Existing = "replace" } // the fake knows no server-side apply
	if err := r.Restore(t.Context(), order(replace), dial.Refusal{}, func(x uplink.Restored) { said = append(said, x) }); err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || said[0].State != uplink.Planned {
		t.Fatalf("%+v", said)
	}
	var p uplink.Preview
	if err := json.Unmarshal(said[0].Result, &p); err != nil {
		t.Fatal(err)
	}
	if p.Counts["replace"] != 2 || p.Point != "shop-1" || p.Holder != "east" || p.Account != "davit-restore" || len(p.Objects) == 0 {
		t.Errorf("%+v", p)
	}
	for _, o := range p.Objects {
		if o.Action == "replace" && o.Diff == "" {
			t.Errorf("no difference of %s", o.Object)
		}
	}
	if text := string(said[0].Result); !strings.Contains(text, "colour: green") || strings.Contains(text, planted) {
		t.Error(text)
	}
	if fmt.Sprint(s.asked) != "[main as davit-system/davit-restore]" {
		t.Error(s.asked)
	}
	for _, a := range s.clients.Dynamic.(*fakedynamic.FakeDynamicClient).Actions() {
		if a.GetVerb() != "get" && a.GetVerb() != "list" {
			t.Errorf("it did %s %s", a.GetVerb(), a.GetResource().Resource)
		}
	}
}

// What the site does not do makes no Restore and shows nothing, and is said.
func TestRefusals(t *testing.T) {
	s := newSite(t)
	s.publish("shop-2", 1)
	s.claim("west", "w", 2) // accepts shop-1 alone: shop-2 is quarantined
	running := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "other"}, Spec: v1alpha1.RestoreSpec{Application: "shop"}}
	over := running.DeepCopy()
	over.Status.Phase = v1alpha1.RestoreFailed
	own := shape.ID("shop-1", "Clone", map[string]string{"shop": "shop-copy"})
	second := &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "second"}, Spec: v1alpha1.VaultSpec{Project: "acme"}}
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, Spec: v1alpha1.ApplicationSpec{Vault: "second"}}
	for name, test := range map[string]struct {
		objects []client.Object
		change  func(*uplink.Restore)
		dry     bool
		refuse  dial.Refusal
		why     string // empty: it is begun
	}{
		"nothing wrong":              {change: copied},
		"in place":                   {},
		"not allowed, or too late":   {refuse: dial.Refusal{Why: "too late"}, why: "too late"},
		"no name":                    {change: func(o *uplink.Restore) { o.Name = "../x" }, why: "no name"},
		"no such policy":             {change: func(o *uplink.Restore) { o.Existing = "burn" }, why: "cannot be treated"},
		"a copy in its place":        {change: func(o *uplink.Restore) { o.Clone = true }, why: "other namespaces"},
		"in place elsewhere":         {change: func(o *uplink.Restore) { o.Namespaces = map[string]string{"shop": "x"} }, why: "other namespaces"},
		"a copy over others":         {change: func(o *uplink.Restore) { copied(o); o.Existing = "replace" }, why: "overwrites nothing"},
		"a person of the cluster":    {change: func(o *uplink.Restore) { o.By = "ann" }, why: "nobody of the console"},
		"another project's person":   {change: func(o *uplink.Restore) { o.By = "ann@console/other" }, why: "nobody of the console"},
		"a namespace that is there":  {objects: []client.Object{namespace("shop-copy", "")}, change: copied, why: "is there already"},
		"one of another restore":     {objects: []client.Object{namespace("shop-copy", "rother")}, change: copied, why: "is there already"},
		"one that it made before":    {objects: []client.Object{namespace("shop-copy", own)}, change: copied},
		"another restore":            {objects: []client.Object{running}, why: "restore other of shop is under way"},
		"another that is over":       {objects: []client.Object{over}},
		"another, and a dry run":     {objects: []client.Object{running}, change: copied, dry: true},
		"vaults, and none says":      {objects: []client.Object{second}, why: "several vaults"},
		"vaults, and one says":       {objects: []client.Object{second, app}},
		"dry: held elsewhere":        {dry: true, change: func(o *uplink.Restore) { o.Seen = 2 }, why: "site west holds epoch 2"},
		"dry: overtaken":             {dry: true, why: "overtaken"},
		"dry: no such point":         {dry: true, change: func(o *uplink.Restore) { copied(o); o.Point = "shop-9" }, why: "no point shop-9"},
		"dry: a quarantined point":   {dry: true, change: func(o *uplink.Restore) { copied(o); o.Point = "shop-2" }, why: "quarantined"},
		"dry: not all are mapped":    {dry: true, change: func(o *uplink.Restore) { copied(o); o.Namespaces = map[string]string{"web": "x"} }, why: "--map-namespace shop=<another>"},
		"dry: not allowed, too late": {dry: true, refuse: dial.Refusal{Why: "too late"}, why: "too late"},
		"dry: a copy is possible":    {dry: true, change: copied},
	} {
		t.Run(name, func(t *testing.T) {
			r, o := s.restorer(test.objects...), order(func(o *uplink.Restore) { o.DryRun = false })
			if test.change != nil {
				test.change(&o)
			}
			o.DryRun = test.dry
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var said uplink.Restored
			err := r.Restore(ctx, o, test.refuse, func(x uplink.Restored) {
				said = x
				cancel() // one that was begun is followed until then
			})
			begun := said.State == uplink.Running || said.State == uplink.Planned
			if begun != (test.why == "") || !strings.Contains(said.Why, test.why) || err != nil && !begun {
				t.Errorf("%+v, %v", said, err)
			}
			var all v1alpha1.RestoreList
			if err := r.Client.List(t.Context(), &all); err != nil {
				t.Fatal(err)
			}
			if made := len(all.Items) > len(withRestores(test.objects)); made != (begun && !test.dry) {
				t.Errorf("made: %v", made)
			}
		})
	}
}

func withRestores(objects []client.Object) (all []client.Object) {
	for _, o := range objects {
		if _, ok := o.(*v1alpha1.Restore); ok {
			all = append(all, o)
		}
	}
	return all
}

// A request makes one Restore, in the asker's name and without more than was asked,
// and is told how that stands, however late it comes again.
func TestFollowed(t *testing.T) {
	r := newSite(t).restorer()
	o := order(func(o *uplink.Restore) { o.DryRun, o.Existing = false, "exact" })
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: o.Name}
	set := func(change func(*v1alpha1.RestoreStatus)) {
		var rs v1alpha1.Restore
		if err := r.Client.Get(t.Context(), key, &rs); err != nil {
			t.Fatal(err)
		}
		change(&rs.Status)
		if err := r.Client.Status().Update(t.Context(), &rs); err != nil {
			t.Fatal(err)
		}
	}
	var states []string
	follow := func(refuse dial.Refusal) (last uplink.Restored) {
		t.Helper()
		err := r.Restore(t.Context(), o, refuse, func(x uplink.Restored) {
			last = x
			states = append(states, x.State)
			if x.State == uplink.Running && strings.Contains(string(x.Result), `"step":"objects"`) {
				set(func(st *v1alpha1.RestoreStatus) {
					st.Phase, st.Step, st.Restored, st.Warnings, st.WarningList = v1alpha1.RestoreWarned, "", 7, 30, []string{"slow"}
					st.RTO = &metav1.Duration{Duration: 90 * time.Second}
				})
			} else if x.State == uplink.Running {
				set(func(st *v1alpha1.RestoreStatus) { st.Phase, st.Step = v1alpha1.RestoreRunning, "objects" })
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return last
	}
	last := follow(dial.Refusal{})
	var out uplink.Outcome
	if err := json.Unmarshal(last.Result, &out); err != nil || fmt.Sprint(states) != "[running running warned]" || out.Restored != 7 || out.RTO != 90_000 || out.More != 29 {
		t.Errorf("%v, %+v, %v", states, out, err)
	}
	var rs v1alpha1.Restore
	if err := r.Client.Get(t.Context(), key, &rs); err != nil {
		t.Fatal(err)
	}
	if s := rs.Spec; s.Vault != "main" || s.Mode != v1alpha1.RestoreInPlace || s.Existing != v1alpha1.ExistingExact || s.ServiceAccountName != "davit-restore" || *s.Epoch != 1 || s.Point != "shop-1" || rs.Annotations[RequestedBy] != o.By {
		t.Errorf("%+v, %v", s, rs.Annotations)
	}
	if again := follow(dial.Refusal{Why: "too late"}); again.State != uplink.Warned {
		t.Errorf("%+v", again)
	}
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Message: "refused: overtaken"}
	set(func(st *v1alpha1.RestoreStatus) {
		*st = v1alpha1.RestoreStatus{Phase: v1alpha1.RestoreFailed, Conditions: []metav1.Condition{ready}}
	})
	// What was begun by an agent that died, and refused to the next one, has changed something.
	if again := follow(dial.Refusal{}); again.State != uplink.Failed || again.Why != "refused: overtaken" {
		t.Errorf("%+v", again)
	}
	set(func(st *v1alpha1.RestoreStatus) {
		st.Conditions = []metav1.Condition{ready, {Type: v1alpha1.ConditionUntouched, Status: metav1.ConditionTrue}}
	})
	if again := follow(dial.Refusal{}); again.State != uplink.Refused || again.Why != "refused: overtaken" {
		t.Errorf("%+v", again)
	}
	o.ID = "b"
	if other := follow(dial.Refusal{}); other.State != uplink.Refused || !strings.Contains(other.Why, "which this request did not make") {
		t.Errorf("%+v", other)
	}
}

// hanging is an API server that answers no list until the caller's time is over.
type hanging struct {
	client.Client
	hang bool
}

func (h *hanging) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if h.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.Client.List(ctx, list, opts...)
}

// What hangs on its way to the beginning is given up, and asked for again: then it
// may be too late.
func TestHangingBeginning(t *testing.T) {
	r := newSite(t).restorer()
	api := &hanging{Client: r.Client, hang: true}
	r.Client, r.Reader, r.BeginLimit = api, api, time.Millisecond
	o := order(func(o *uplink.Restore) { o.DryRun = false })
	nothing := func(x uplink.Restored) { t.Errorf("said %+v", x) }
	if err := r.Restore(t.Context(), o, dial.Refusal{}, nothing); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	api.hang, r.BeginLimit = false, time.Hour
	var said uplink.Restored
	if err := r.Restore(t.Context(), o, dial.Refusal{Why: "too late"}, func(x uplink.Restored) { said = x }); err != nil || said.State != uplink.Refused {
		t.Errorf("%+v, %v", said, err)
	}
}

// Checks that say much leave room for what else is said: what is larger than a console
// takes would end the stream, again and again.
func TestManyChecks(t *testing.T) {
	var r recovery.Report
	for range 200 {
		r.Findings = append(r.Findings, report.Finding{Severity: report.Warning, Message: strings.Repeat("<", 5000), Remedy: strings.Repeat("x", 5000)})
	}
	for i := range 4000 {
		r.Plan = append(r.Plan, report.Planned{Object: fmt.Sprintf("ConfigMap shop/%04d", i), Action: report.Updated, Diff: strings.Repeat("- line\n", 100)})
	}
	if p := bound(show(r)); size(p) > uplink.MaxResult || len(p.Checks) < 2 || !strings.Contains(p.Checks[len(p.Checks)-1].Message, "there is more") {
		t.Errorf("%d bytes, %d checks", size(p), len(p.Checks))
	}
}

// What has no room is left out, least what is lost and changed, and counted.
func TestBound(t *testing.T) {
	var p uplink.Preview
	for i := range 4000 {
		p.Objects = append(p.Objects, uplink.Planning{Object: fmt.Sprintf("ConfigMap shop/%04d", i), Action: "unchanged", Reason: strings.Repeat("x", 40)})
	}
	for i := range 40 {
		p.Objects = append(p.Objects, uplink.Planning{Object: fmt.Sprintf("Deployment shop/%04d", i), Action: "prune", Diff: strings.Repeat("- line\n", 5000)})
	}
	got := bound(p)
	if size(got) > uplink.MaxResult || got.Objects[0].Action != "prune" || len(got.Objects)+got.Left != 4040 || got.Cut < 40 {
		t.Errorf("%d bytes, %d objects, %d left, %d cut", size(got), len(got.Objects), got.Left, got.Cut)
	}
	if d := got.Objects[0].Diff; len(d) > maxDiff+20 || !strings.HasSuffix(d, "(and more)\n") {
		t.Errorf("%d bytes", len(d))
	}
	small := uplink.Preview{Objects: []uplink.Planning{{Object: "a", Action: "update", Diff: "- x\n"}}}
	if got := bound(small); got.Left != 0 || got.Cut != 0 || got.Objects[0].Diff == "" {
		t.Errorf("%+v", got)
	}
}

// What has not begun is taken back, and never made again; what has begun goes on; and
// what somebody deleted is not made again, by whichever word that is known.
func TestTakenBack(t *testing.T) {
	r := newSite(t).restorer()
	ask := func(change func(*uplink.Restore)) (said uplink.Restored) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err := r.Restore(ctx, order(func(o *uplink.Restore) {
			o.DryRun = false
			copied(o)
			change(o)
		}), dial.Refusal{}, func(x uplink.Restored) {
			said = x
			cancel() // one that goes on is followed until then
		})
		if err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		return said
	}
	made := func(name string) (*v1alpha1.Restore, bool) {
		t.Helper()
		var rs v1alpha1.Restore
		err := r.Client.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: name}, &rs)
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		return &rs, err == nil
	}
	named := func(id string, change func(*uplink.Restore)) func(*uplink.Restore) {
		return func(o *uplink.Restore) {
			o.ID, o.Name = id, "shop-"+id
			if change != nil {
				change(o)
			}
		}
	}
	back := func(o *uplink.Restore) { o.Cancel = true }

	if said := ask(named("a", nil)); said.State != uplink.Running { // the control: it is made
		t.Fatalf("%+v", said)
	}
	if rs, _ := made("shop-a"); rs.Annotations["davit.dev/begin-by"] == "" {
		t.Errorf("%v: it may wait for ever", rs.Annotations)
	}
	if said := ask(named("a", back)); said.State != uplink.Canceled {
		t.Errorf("%+v", said)
	}
	if said := ask(named("a", nil)); said.State != uplink.Canceled {
		t.Errorf("what was taken back is asked for again: %+v", said)
	}
	if _, there := made("shop-a"); there {
		t.Error("it is there, although it was taken back")
	}
	if said := ask(named("b", back)); said.State != uplink.Canceled { // it never came to be
		t.Errorf("%+v", said)
	}
	ask(named("c", nil))
	rs, _ := made("shop-c")
	rs.Status.Phase, rs.Status.StartedAt = v1alpha1.RestoreRunning, &metav1.Time{Time: instant}
	if err := r.Client.Status().Update(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	if said := ask(named("c", back)); said.State != uplink.Running {
		t.Errorf("what has begun is taken back: %+v", said)
	}
	if rs, there := made("shop-c"); !there {
		t.Error("what has begun was deleted")
	} else if err := r.Client.Delete(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	if said := ask(named("c", nil)); said.State != uplink.Failed || !strings.Contains(said.Why, "removed") {
		t.Errorf("made again: %+v", said)
	}
	if said := ask(named("d", func(o *uplink.Restore) { o.Begun = true })); said.State != uplink.Failed { // another agent made it
		t.Errorf("made again: %+v", said)
	}
}
