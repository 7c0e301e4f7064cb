package restore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

const testID = "rtest"

func shop() (*point.Manifest, *fakeSource) {
	m, s := pointOf(shopObjects()...)
	volume(m, "shop", "data-db-0")
	return m, s
}

// rig is one target and what restores into it.
type rig struct {
	c *fakeCluster
	v *fakeVolumes
	m *point.Manifest
	s *fakeSource
}

func newRig() *rig {
	c := newFake()
	m, s := shop()
	return &rig{c: c, v: &fakeVolumes{c: c, data: map[string]string{}, broken: map[string]error{}}, m: m, s: s}
}

func (r *rig) engine(opts Options) *Engine {
	if opts.ID == "" {
		opts.ID = testID
	}
	if opts.Holder == "" {
		opts.Holder = "test"
	}
	return New(r.m, opts, Deps{Source: r.s, Cluster: r.c, Volumes: r.v})
}

// run restores inside a bubble of its own, where time costs nothing.
func run(t *testing.T, r *rig, opts Options) (res Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if res, err = r.engine(opts).Run(t.Context()); err != nil {
			t.Fatalf("run: %v", err)
		}
	})
	return res
}

func TestRestoreIntoEmptyCluster(t *testing.T) {
	r := newRig()
	res := run(t, r, Options{})
	if len(res.Failures) > 0 {
		t.Fatalf("failures: %v", res.Failures)
	}
	if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0].Message, "owner Node n1") {
		t.Errorf("warnings: %v", res.Warnings)
	}
	if !res.Ready || res.Volumes != 1 || res.Objects != int64(len(shopObjects())) {
		t.Errorf("result: %+v", res)
	}
	for _, gone := range []string{"Pod|shop/web-1-a", "ReplicaSet|shop/web-1", "Secret|shop/tok", "ConfigMap|shop/kube-root-ca.crt", "Endpoints|shop/db"} {
		if r.c.objects[gone] != nil {
			t.Errorf("%s was restored", gone)
		}
	}
	before := func(a, b string) {
		t.Helper()
		x, y := r.c.order(a), r.c.order(b)
		if x < 0 || y < 0 || x > y {
			t.Errorf("%q (%d) must come before %q (%d)", a, x, b, y)
		}
	}
	before("create CustomResourceDefinition /tills.shop.example.com", "create Till shop/main")
	before("create Till shop/main", "create Drawer shop/left")
	before("fill shop/data-db-0", "create StatefulSet shop/db")
	before("fill shop/data-db-0", "create Till shop/main")
	before("create RoleBinding shop/rb", "create Deployment shop/web")
	before("create Deployment shop/web", "create ResourceQuota shop/q")
	before("create Deployment shop/web", "create ValidatingWebhookConfiguration /hook")
}

// TestWhatAnExcludedKindMakesStaysOut: a ReplicaSet without its Deployment, or a pod
// without its ReplicaSet, would run what a person did not want.
func TestWhatAnExcludedKindMakesStaysOut(t *testing.T) {
	for _, kind := range []string{"", "deployments.apps", "replicasets.apps", "pods"} {
		r := newRig()
		var opts Options
		if kind != "" {
			opts.ExcludeKinds = []string{kind}
		}
		res := run(t, r, opts)
		for _, one := range []string{"ReplicaSet|shop/web-1", "Pod|shop/web-1-a"} {
			if r.c.objects[one] != nil {
				t.Errorf("without %q: %s was restored", kind, one)
			}
		}
		for of, here := range map[string]bool{"Deployment|shop/web": kind != "deployments.apps", "Pod|shop/bare": kind != "pods", "StatefulSet|shop/db": true} {
			if (r.c.objects[of] != nil) != here {
				t.Errorf("without %q: %s is there: %v", kind, of, !here)
			}
		}
		if len(res.Failures) > 0 || res.Objects != int64(len(shopObjects())) {
			t.Errorf("without %q: %+v", kind, res)
		}
	}
}

func TestOwnersAreRewired(t *testing.T) {
	r := newRig()
	run(t, r, Options{})
	till := r.c.get("Till", "shop", "main")
	for _, o := range []*unstructured.Unstructured{r.c.get("Drawer", "shop", "left"), r.c.get("Secret", "shop", "pw")} {
		refs := o.GetOwnerReferences()
		if len(refs) != 1 || refs[0].UID != till.GetUID() {
			t.Errorf("%s: owners %v, want %s", keyOf(o), refs, till.GetUID())
		}
	}
	if refs := r.c.get("Pod", "shop", "bare").GetOwnerReferences(); len(refs) != 0 {
		t.Errorf("bare pod: owners %v", refs)
	}
}

// Without rewiring, the garbage collector takes the object: the harm that the
// rule is there for.
func TestDanglingOwnerIsCollected(t *testing.T) {
	c := newFake()
	c.put("v1", "Namespace", "", "shop", nil)
	at := c.served[shape.KindSecret][0]
	_, err := c.Create(t.Context(), at, &unstructured.Unstructured{Object: shape.Document{
		"apiVersion": "v1", "kind": "Secret",
		"metadata": shape.Document{"name": "pw", "namespace": "shop", "ownerReferences": []any{shape.Document{"uid": "u-till", "kind": "Till", "name": "main"}}},
	}})
	if err != nil || c.get("Secret", "shop", "pw") != nil {
		t.Fatalf("the fake must collect: %v", err)
	}
}

// A restore that is killed before or after any of its writes and started again
// ends where an undisturbed one does.
func TestKilledAtEveryStepThenContinued(t *testing.T) {
	whole := newRig()
	run(t, whole, Options{})
	want, writes := whole.c.state(), whole.c.effects
	for _, after := range []bool{false, true} {
		for n := 1; n <= writes; n++ {
			synctest.Test(t, func(t *testing.T) {
				r := newRig()
				ctx, cancel := context.WithCancelCause(t.Context())
				r.c.killAt, r.c.after, r.c.onKill = n, after, func() { cancel(errKilled) }
				_, err := r.engine(Options{Workers: 1}).Run(ctx)
				if err == nil && n < writes-1 {
					t.Fatalf("kill at %d: the run must end with an error", n)
				}
				r.c.killAt = 0
				res, err := r.engine(Options{}).Run(t.Context())
				if err != nil || len(res.Failures) > 0 {
					t.Fatalf("kill at %d (after=%v): continue: %v %v", n, after, err, res.Failures)
				}
				if diff := cmp.Diff(want, r.c.state()); diff != "" {
					t.Fatalf("kill at %d (after=%v): another end:\n%s\n%s", n, after, diff, strings.Join(r.c.history, "\n"))
				}
				if r.v.data["shop/data-db-0"] != "snap-data-db-0" {
					t.Fatalf("kill at %d: volume holds %v", n, r.v.data)
				}
				for _, h := range r.c.history {
					if strings.HasPrefix(h, "collected") {
						t.Fatalf("kill at %d: %s", n, h)
					}
				}
			})
		}
	}
}

func TestFilledVolumeIsNotFilledAgain(t *testing.T) {
	r := newRig()
	run(t, r, Options{})
	res := run(t, r, Options{})
	if r.v.fills != 1 || res.Created != 0 || res.Volumes != 1 {
		t.Errorf("second run: %d fills, %+v", r.v.fills, res)
	}
}

func TestTwoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.c.ready = false // the first one waits for its workloads
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := r.engine(Options{Holder: "first", ReadyTimeout: time.Hour}).Run(ctx)
			done <- err
		}()
		time.Sleep(10 * time.Second) // virtual time
		_, err := r.engine(Options{Holder: "second"}).Run(t.Context())
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "first") {
			t.Errorf("second restore: %v, want ErrBusy that names the first", err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("first restore: %v", err)
		}
		r.c.ready = true
		start := time.Now()
		if _, err := r.engine(Options{Holder: "third", ReadyTimeout: time.Second}).Run(t.Context()); err != nil {
			t.Errorf("third restore: %v", err)
		}
		if time.Since(start) > hold.Duration {
			t.Errorf("a lease that was given back must not be waited for")
		}
	})
}

// A holder that died without giving the lease back is waited out, and only
// while it shows no life.
func TestLeaseOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.c.put("coordination.k8s.io/v1", "Lease", "davit-system", "restore-shop", shape.Document{"spec": shape.Document{
			"holderIdentity": "dead", "renewTime": "2999-01-01T00:00:00.000000Z", // its clock was wrong
		}})
		start := time.Now()
		if _, err := r.engine(Options{}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited < hold.Duration {
			t.Errorf("took the lease after %s", waited)
		}
	})
}

func TestLostLeaseStopsTheRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.c.ready = false
		go func() {
			time.Sleep(5 * time.Second) // virtual time
			l := r.c.get("Lease", "davit-system", "restore-shop").DeepCopy()
			shape.Child(l.Object, "spec")["holderIdentity"] = "thief"
			r.c.mu.Lock()
			defer r.c.mu.Unlock()
			r.c.store(l)
		}()
		_, err := r.engine(Options{ReadyTimeout: time.Hour}).Run(t.Context())
		if !errors.Is(err, hold.ErrLost) {
			t.Errorf("got %v", err)
		}
	})
}

func TestExisting(t *testing.T) {
	for _, c := range []struct {
		name     string
		existing Existing
		data     string
		want     string
		warned   string
	}{
		{"same", Skip, "b", "b", ""},
		{"skip", Skip, "mine", "mine", "differs in data.a"},
		{"update", Update, "mine", "b", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig()
			r.c.put("v1", "Namespace", "", "shop", shape.Document{})
			r.c.put("v1", "ConfigMap", "shop", "conf", shape.Document{"data": shape.Document{"a": c.data}})
			res := run(t, r, Options{Existing: c.existing})
			if got := shape.Text(r.c.get("ConfigMap", "shop", "conf").Object, "data", "a"); got != c.want {
				t.Errorf("data is %q, want %q", got, c.want)
			}
			var warned string
			for _, w := range res.Warnings {
				if strings.HasPrefix(w.Object, "ConfigMap") {
					warned = w.Message
				}
			}
			if (c.warned == "") != (warned == "") || !strings.Contains(warned, c.warned) {
				t.Errorf("warning %q, want %q", warned, c.warned)
			}
		})
	}
}

// What a restore made and a person changed since is not passed over in silence
// when the same point is restored again.
func TestChangedSinceItWasRestored(t *testing.T) {
	for _, c := range []struct {
		existing Existing
		want     string
		warned   bool
	}{{Skip, "mine", true}, {Update, "b", false}} {
		r := newRig()
		run(t, r, Options{})
		conf := r.c.get("ConfigMap", "shop", "conf").DeepCopy()
		shape.Child(conf.Object, "data")["a"] = "mine"
		if _, err := r.c.Update(t.Context(), Served{}, conf, ""); err != nil {
			t.Fatal(err)
		}
		res := run(t, r, Options{Existing: c.existing})
		if got := shape.Text(r.c.get("ConfigMap", "shop", "conf").Object, "data", "a"); got != c.want {
			t.Errorf("%s: data is %q, want %q", c.existing, got, c.want)
		}
		if warned := slices.ContainsFunc(res.Warnings, func(p Problem) bool { return strings.Contains(p.Message, "differs in data.a") }); warned != c.warned {
			t.Errorf("%s: warned is %v, want %v: %v", c.existing, warned, c.warned, res.Warnings)
		}
	}
}

func TestDefaultAccountOfNewNamespaceIsCompleted(t *testing.T) {
	r := newRig()
	run(t, r, Options{})
	if len(shape.Items(r.c.get("ServiceAccount", "shop", "default").Object, "imagePullSecrets")) != 1 {
		t.Error("the default account has no pull secrets")
	}
}

// TestDefaultAccountAfterACrash: the same where the restore that made the namespace was killed,
// and the point does not hold the namespace itself.
func TestDefaultAccountAfterACrash(t *testing.T) {
	opts := Options{ExcludeKinds: []string{"namespaces"}}
	whole := newRig()
	run(t, whole, opts)
	for n := 1; n <= whole.c.effects; n++ {
		r := newRig()
		killed(t, r, opts, n, true)
		if r.c.get("ServiceAccount", "shop", "default").Object["imagePullSecrets"] == nil {
			t.Errorf("killed at write %d: the account of the new namespace was left alone", n)
		}
	}
}

func TestForeignClaimIsNeverWritten(t *testing.T) {
	r := newRig()
	r.c.put("v1", "Namespace", "", "shop", shape.Document{})
	r.c.put("v1", "PersistentVolumeClaim", "shop", "data-db-0", shape.Document{"spec": shape.Document{"volumeName": "pv-9"}})
	res := run(t, r, Options{Existing: Update})
	if r.v.fills != 0 {
		t.Fatal("a volume of someone else's was written to")
	}
	if r.c.get("StatefulSet", "shop", "db") != nil {
		t.Error("a workload was started on a claim that holds other data")
	}
	wantFailure(t, res, "never overwritten")
}

// TestClaimMadeBesideUsIsNeverWritten has someone else make the claim between
// our looking for it and our creating it.
func TestClaimMadeBesideUsIsNeverWritten(t *testing.T) {
	r := newRig()
	made := false
	r.c.fail = func(verb string, obj *unstructured.Unstructured) error {
		if verb == "create" && obj.GetKind() == "PersistentVolumeClaim" && !made {
			made = true
			r.c.put("v1", "PersistentVolumeClaim", "shop", "data-db-0", shape.Document{"spec": shape.Document{"volumeName": "pv-9"}})
		}
		return nil
	}
	res := run(t, r, Options{})
	if !made || r.v.fills != 0 {
		t.Fatalf("raced %v, fills %d: a volume of someone else's was written to", made, r.v.fills)
	}
	if r.c.get("StatefulSet", "shop", "db") != nil {
		t.Error("a workload was started on a claim that holds other data")
	}
	wantFailure(t, res, "never overwritten")
}

func wantFailure(t *testing.T, res Result, part string) {
	t.Helper()
	for _, f := range res.Failures {
		if strings.Contains(f.Message, part) {
			return
		}
	}
	t.Errorf("no failure says %q: %v", part, res.Failures)
}

func TestFailedVolumeHoldsWorkloadsBack(t *testing.T) {
	r := newRig()
	r.v.broken["data-db-0"] = errors.New("no space left on the target")
	res := run(t, r, Options{})
	if r.c.get("StatefulSet", "shop", "db") != nil || r.c.get("Till", "shop", "main") != nil {
		t.Error("created beside an empty volume")
	}
	if r.c.get("Deployment", "shop", "web") == nil {
		t.Error("a workload that does not mount it must be restored")
	}
	if res.Failed < 2 {
		t.Errorf("failures: %v", res.Failures)
	}
	r.v.broken = nil
	if res := run(t, r, Options{}); len(res.Failures) > 0 || r.c.get("StatefulSet", "shop", "db") == nil {
		t.Errorf("continued: %v", res.Failures)
	}
}

// TestActivateIsAskedBeforeAnythingRuns: a refusal leaves data and no pods.
func TestActivateIsAskedBeforeAnythingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		refusal := errors.New("another site has taken over")
		_, err := r.engine(Options{Activate: func(context.Context) error { return refusal }}).Run(t.Context())
		if !errors.Is(err, refusal) || r.v.fills != 1 {
			t.Fatalf("%v after %d fills", err, r.v.fills)
		}
		for _, o := range [][2]string{{"StatefulSet", "db"}, {"Deployment", "web"}, {"Till", "main"}} {
			if r.c.get(o[0], "shop", o[1]) != nil {
				t.Errorf("%s %s was started", o[0], o[1])
			}
		}
	})
}

func TestClaimInUseIsNotFilled(t *testing.T) {
	r := newRig()
	r.c.put("v1", "Namespace", "", "shop", shape.Document{})
	sts, err := shape.Decode([]byte(shopObjects()[16]))
	if err != nil {
		t.Fatal(err)
	}
	r.c.put("apps/v1", "StatefulSet", "shop", "db", shape.Document{"spec": sts["spec"]})
	res := run(t, r, Options{})
	if r.v.fills != 0 || r.c.get("PersistentVolumeClaim", "shop", "data-db-0") != nil {
		t.Error("filled under a running workload")
	}
	wantFailure(t, res, "scale it to zero")
}

func TestFillCarriesTheWorkloadsConstraints(t *testing.T) {
	r := newRig()
	run(t, r, Options{})
	if got := shape.Text(r.v.reqs[0].PodSpec, "nodeSelector", "disk"); got != "ssd" {
		t.Errorf("node selector %q", got)
	}
	if r.v.reqs[0].Source != "shop/shop/data-db-0" {
		t.Errorf("source %q", r.v.reqs[0].Source)
	}
}

func TestNamespaceMapping(t *testing.T) {
	r := newRig()
	res := run(t, r, Options{NamespaceMapping: map[string]string{"shop": "copy"}})
	if len(res.Failures) > 0 {
		t.Fatal(res.Failures)
	}
	for k := range r.c.objects {
		if strings.Contains(k, "|shop/") || k == "Namespace|/shop" {
			t.Errorf("%s is in the captured namespace", k)
		}
	}
	if got := shape.Items(r.c.get("RoleBinding", "copy", "rb").Object, "subjects")[0]["namespace"]; got != "copy" {
		t.Errorf("subject in %v", got)
	}
	hook := shape.Items(r.c.get("ValidatingWebhookConfiguration", "", "hook").Object, "webhooks")[0]
	if shape.Text(hook, "clientConfig", "service", "namespace") != "copy" || shape.Text(hook, "clientConfig", "caBundle") != "Yg==" {
		t.Errorf("webhook %v", hook)
	}
	if r.v.data["copy/data-db-0"] == "" {
		t.Errorf("volumes %v", r.v.data)
	}
}

func TestTransientErrorsAreTriedAgain(t *testing.T) {
	r := newRig()
	tries := 0
	r.c.fail = func(_ string, u *unstructured.Unstructured) error {
		if u.GetKind() == "ConfigMap" && tries < 3 {
			tries++
			return apierrors.NewTooManyRequests("busy", 1)
		}
		return nil
	}
	if res := run(t, r, Options{}); len(res.Failures) > 0 || tries != 3 {
		t.Errorf("%d tries, failures %v", tries, res.Failures)
	}
}

func TestWebhookServedByTheApplicationIsWaitedFor(t *testing.T) {
	r := newRig()
	r.c.fail = func(_ string, u *unstructured.Unstructured) error {
		if u.GetKind() == "Till" && r.c.objects[key("Deployment", "shop", "web")] == nil {
			return apierrors.NewInternalError(errors.New(`failed calling webhook "till": connection refused`))
		}
		return nil
	}
	res := run(t, r, Options{})
	if len(res.Failures) > 0 || r.c.get("Till", "shop", "main") == nil {
		t.Fatalf("failures %v", res.Failures)
	}
	if refs := r.c.get("Secret", "shop", "pw").GetOwnerReferences(); len(refs) != 1 {
		t.Errorf("owners %v", refs)
	}
}

func TestNotReadyIsAWarningWithTheReason(t *testing.T) {
	r := newRig()
	r.c.ready = false
	r.c.put("v1", "Pod", "shop", "db-0", shape.Document{
		"metadata": shape.Document{"name": "db-0", "namespace": "shop", "labels": shape.Document{"app": "db"}},
		"status": shape.Document{"containerStatuses": []any{shape.Document{"name": "pg", "image": "reg/pg:1", "state": shape.Document{
			"waiting": shape.Document{"reason": "ImagePullBackOff", "message": "not found"},
		}}}},
	})
	res := run(t, r, Options{ReadyTimeout: time.Minute})
	if res.Ready || len(res.Failures) > 0 {
		t.Errorf("%+v", res)
	}
	var all []string
	for _, w := range res.Warnings {
		all = append(all, w.String())
	}
	if !strings.Contains(strings.Join(all, "\n"), "StatefulSet.apps shop/db: not ready after 1m0s: pod db-0 image reg/pg:1 cannot be pulled: ImagePullBackOff: not found") {
		t.Errorf("warnings:\n%s", strings.Join(all, "\n"))
	}
	if r.c.get("ValidatingWebhookConfiguration", "", "hook") == nil {
		t.Error("what comes after the wait must be restored all the same")
	}
}

func TestPlanChangesNothing(t *testing.T) {
	r := newRig()
	plan, err := r.engine(Options{}).Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.c.effects != 0 {
		t.Errorf("%d writes: %v", r.c.effects, r.c.history)
	}
	actions := map[string]Action{}
	for _, p := range plan {
		actions[p.Object] = p.Action
	}
	for object, want := range map[string]Action{
		"Till.shop.example.com shop/main": report.Create, "Pod shop/web-1-a": report.SkipIt, "Event (all)": report.SkipIt, "StatefulSet.apps shop/db": report.Create,
	} {
		if actions[object] != want {
			t.Errorf("%s: %q, want %q", object, actions[object], want)
		}
	}
}

func TestRestoreStatus(t *testing.T) {
	r := newRig()
	run(t, r, Options{RestoreStatusOf: []string{"drawers.*"}})
	if n, _ := shape.Number(r.c.get("Drawer", "shop", "left").Object, "status", "x"); n != 1 {
		t.Error("status was not restored")
	}
}
