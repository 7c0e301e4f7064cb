package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/order"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
)

// randomObjects draws objects of many kinds with owners among each other.
func randomObjects(t *rapid.T) []string {
	kinds := []string{
		"v1/Secret", "v1/ConfigMap", "v1/ServiceAccount", "v1/Service", "v1/Pod", "apps/v1/Deployment", "apps/v1/StatefulSet",
		"shop.example.com/v1/Till", "shop.example.com/v1/Drawer", "batch/v1/CronJob", "rbac.authorization.k8s.io/v1/Role",
		"rbac.authorization.k8s.io/v1/RoleBinding", "v1/ResourceQuota",
	}
	objects := []string{shopObjects()[12], shopObjects()[13], `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"ns","uid":"u-ns"}}`}
	n := rapid.IntRange(1, 25).Draw(t, "objects")
	chosen := make([]string, n)
	for i := range n {
		chosen[i] = rapid.SampledFrom(kinds).Draw(t, "kind")
	}
	for i, k := range chosen {
		gv, kind := k[:strings.LastIndex(k, "/")], k[strings.LastIndex(k, "/")+1:]
		var owners []string
		for range rapid.IntRange(0, 2).Draw(t, "owners") {
			o := rapid.IntRange(0, n).Draw(t, "owner") // n is in no point; cycles happen
			ok := "shop.example.com/v1/Till"
			if o < n {
				ok = chosen[o]
			}
			owners = append(owners, fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"name":"o%d","uid":"u%d"}`,
				ok[:strings.LastIndex(ok, "/")], ok[strings.LastIndex(ok, "/")+1:], o, o))
		}
		objects = append(objects, fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":"o%d","namespace":"ns","uid":"u%d","ownerReferences":[%s]},"spec":{"replicas":1}}`,
			gv, kind, i, i, strings.Join(owners, ",")))
	}
	return objects
}

// waitsFor are the objects that must be there before one, directly or through
// what is no object.
func waitsFor(e *Engine, n order.Node) (all []*index.Entry) {
	for _, need := range e.order.Graph.Needs(n) {
		if _, hub := e.order.PointOf(need.To); hub {
			all = append(all, waitsFor(e, need.To)...)
		} else {
			all = append(all, e.order.Entries[need.To])
		}
	}
	return all
}

// Whatever the objects: each comes after all that it needs, every owner that is in the point is
// referenced by its new UID, and nothing dangles.
func TestOrderAndOwnersOfRandomObjects(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		objects := randomObjects(rt)
		m, s := pointOf(objects...)
		c := newFake()
		r := &rig{c: c, m: m, s: s, v: &fakeVolumes{c: c, data: map[string]string{}}}
		e := r.engine(Options{Workers: rapid.SampledFrom([]int{1, 3, 32}).Draw(rt, "workers")})
		synctest.Test(t, func(t *testing.T) {
			res, err := e.Run(t.Context())
			if err != nil || len(res.Failures) > 0 {
				t.Fatalf("%v %v", err, res.Failures)
			}
		})
		created := func(en *index.Entry) int {
			return c.order("create " + e.x.Kinds[en.Res].Kind + " " + en.Namespace + "/" + en.Name)
		}
		for _, en := range e.order.Entries {
			if created(en) < 0 {
				rt.Fatalf("%s is lost:\n%s", e.nameOf(en), strings.Join(c.history, "\n"))
			}
			for _, first := range waitsFor(e, en.Node) {
				if created(first) > created(en) {
					rt.Fatalf("%s before %s, which it needs:\n%s", e.nameOf(en), e.nameOf(first), strings.Join(c.history, "\n"))
				}
			}
		}
		for _, h := range c.history {
			if strings.HasPrefix(h, "collected") {
				rt.Fatalf("garbage: %s", h)
			}
		}
		for _, o := range objects[3:] {
			d := mustDecode(t, o)
			live := c.get(shape.Text(d, "kind"), "ns", shape.Text(d, "metadata", "name"))
			want := map[string]bool{}
			for _, ref := range shape.Items(d, "metadata", "ownerReferences") {
				if owner := c.get(shape.Text(ref, "kind"), "ns", shape.Text(ref, "name")); owner != nil {
					want[string(owner.GetUID())] = true
				}
			}
			var have []string
			for _, ref := range live.GetOwnerReferences() {
				have = append(have, string(ref.UID))
			}
			if len(have) != len(want) || slices.ContainsFunc(have, func(u string) bool { return !want[u] }) {
				rt.Fatalf("%s: owners %v, want %v", keyOf(live), have, want)
			}
		}
	})
}

// slowVolumes fill a claim only when a workload that does not mount it runs.
type slowVolumes struct {
	*fakeVolumes
	until, never string // what has to be there, and what must not
}

func (v slowVolumes) Fill(ctx context.Context, r FillRequest) ([]string, error) {
	there := func(what string) bool {
		kind, name, _ := strings.Cut(what, " ")
		return v.c.get(kind, "shop", name) != nil
	}
	for n := 0; !there(v.until); n++ {
		if time.Sleep(time.Second); n > 600 { // virtual time
			return nil, fmt.Errorf("HARM: %s waits for a volume that is not its own", v.until)
		}
	}
	time.Sleep(time.Hour) // virtual time
	if there(v.never) {
		return nil, fmt.Errorf("HARM: %s is there before its volume is filled", v.never)
	}
	return v.fakeVolumes.Fill(ctx, r)
}

// A workload begins when its own volume is filled, not when all are; and whether
// it may run is asked anew when it begins an hour after the first.
func TestWorkloadsDoNotWaitForOthersVolumes(t *testing.T) {
	claim := func(name string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":%q,"namespace":"shop","uid":"u-%s"},"spec":{"storageClassName":"fast","resources":{"requests":{"storage":"1Gi"}}}}`, name, name)
	}
	mounting := func(name, claim string) string {
		return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":%q,"namespace":"shop","uid":"u-%s"},"spec":{"replicas":1,"template":{"spec":{"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":%q}}],"containers":[{"name":"c"}]}}}}`, name, name, claim)
	}
	r := newRig()
	r.m, r.s = pointOf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","uid":"u-ns"}}`,
		claim("large"), claim("small"), mounting("slow", "large"), mounting("quick", "small"))
	volume(r.m, "shop", "large")
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		e := New(r.m, Options{ID: testID, Holder: "test", Activate: func(context.Context) error { asked++; return nil }}, Deps{Source: r.s, Cluster: r.c, Volumes: slowVolumes{r.v, "Deployment quick", "Deployment slow"}})
		res, err := e.Run(t.Context())
		if err != nil || len(res.Failures) > 0 || r.c.get("Deployment", "shop", "slow") == nil || asked != 3 { // and when all is there
			t.Errorf("asked %d times: %v %v", asked, err, res.Failures)
		}
	})
}

// A rule that has a workload mount a claim has it wait for that one too.
func TestMountByTransformIsWaitedFor(t *testing.T) {
	set := rules(t, transform.Rule{
		Name: "mount", Match: transform.Match{Kinds: []string{"deployments.apps"}},
		MergePatch: `{"spec":{"template":{"spec":{"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"data-db-0"}}]}}}}`,
	})
	r := newRig()
	res := run(t, r, Options{Transforms: set})
	if fill, web := r.c.order("fill shop/data-db-0"), r.c.order("create Deployment shop/web"); fill < 0 || web < fill || len(res.Failures) > 0 {
		t.Errorf("filled at %d, created at %d: %v", fill, web, res.Failures)
	}
}

// Stage by stage: data first, then objects, then what runs; in the end all is
// as if it had been done at once.
func TestStages(t *testing.T) {
	whole := newRig()
	run(t, whole, Options{})
	r := newRig()
	for _, c := range []struct {
		to            sequence.Stage
		there, absent []string
	}{
		{sequence.Data, []string{"PersistentVolumeClaim data-db-0"}, []string{"ConfigMap conf", "Till main", "StatefulSet db", "Deployment web"}},
		{sequence.Objects, []string{"ConfigMap conf", "Till main", "Secret pw"}, []string{"StatefulSet db", "Deployment web", "ResourceQuota q"}},
		{sequence.Whole, []string{"StatefulSet db", "Deployment web", "ResourceQuota q"}, nil},
	} {
		if res := run(t, r, Options{To: c.to}); len(res.Failures) > 0 {
			t.Fatalf("%d: %v", c.to, res.Failures)
		}
		for want, objects := range map[bool][]string{true: c.there, false: c.absent} {
			for _, what := range objects {
				kind, name, _ := strings.Cut(what, " ")
				if there := r.c.get(kind, "shop", name) != nil; there != want {
					t.Errorf("stage %d: %s is there: %t", c.to, what, there)
				}
			}
		}
	}
	if diff := cmp.Diff(whole.c.state(), r.c.state()); diff != "" || r.v.fills != 1 {
		t.Errorf("%d fills, another end:\n%s", r.v.fills, diff)
	}
}
