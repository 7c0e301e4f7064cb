package restore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/restore/shape"
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

// Whatever the objects: ranks are kept, every owner that is in the point is
// referenced by its new UID, and nothing dangles.
func TestOrderAndOwnersOfRandomObjects(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		objects := randomObjects(rt)
		m, s := pointOf(objects...)
		c := newFake()
		r := &rig{c: c, m: m, s: s, v: &fakeVolumes{c: c, data: map[string]string{}}}
		synctest.Test(t, func(t *testing.T) {
			res, err := r.engine(Options{}).Run(t.Context())
			if err != nil || len(res.Failures) > 0 {
				t.Fatalf("%v %v", err, res.Failures)
			}
		})
		last := shape.Rank(0)
		for _, h := range c.history {
			verb, what, _ := strings.Cut(h, " ")
			kind, _, _ := strings.Cut(what, " ")
			if verb == "collected" {
				rt.Fatalf("garbage: %s", h)
			}
			if verb != "create" || kind == "Lease" {
				continue
			}
			now := shape.RankCustom
			for gk, r := range shape.Ranks {
				if gk.Kind == kind {
					now = r
				}
			}
			if now < last {
				rt.Fatalf("%s after rank %s:\n%s", h, last, strings.Join(c.history, "\n"))
			}
			last = now
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
