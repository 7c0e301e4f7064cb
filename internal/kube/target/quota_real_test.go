package target

import (
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore"
)

// A restore over objects that exist leaves no quota counting them twice, as
// creating them would: that is only taken off minutes later, and until then
// nothing can be made in their place.
func TestRestoreChargesNoQuotaForWhatExists(t *testing.T) {
	t.Parallel()
	c := New(realClients(t))
	suffix := fmt.Sprint(time.Now().UnixNano() % 1e6)
	ns := "f-quota-" + suffix
	nsAt, secretAt, quotaAt := served(t, c, kindNamespace), served(t, c, kindSecret), served(t, c, schema.GroupKind{Kind: "ResourceQuota"})
	create(t, c, "{apiVersion: v1, kind: Namespace, metadata: {name: "+ns+"}}")
	t.Cleanup(func() { remove(t, c, nsAt, ns, "f-lease-"+suffix) })
	create(t, c, "{apiVersion: v1, kind: ResourceQuota, metadata: {name: q, namespace: "+ns+"}, spec: {hard: {count/secrets: '9'}}}")
	used := func() string {
		u, err := c.Get(t.Context(), quotaAt, ns, "q")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(field(u, "status", "used", "count/secrets"))
	}
	counts := func(want string) {
		t.Helper()
		eventually(t, "the quota counts "+want, func() (bool, error) { return used() == want, fmt.Errorf("it counts %s", used()) })
	}
	counts("0")
	const secret = "{apiVersion: v1, kind: Secret, metadata: {name: %s, namespace: %s}, stringData: {a: b}}"
	for _, name := range []string{"one", "two"} {
		create(t, c, fmt.Sprintf(secret, name, ns))
	}
	counts("2")
	m, src := take(t, c, ns, []schema.GroupKind{kindSecret}, map[schema.GroupKind]string{kindNamespace: ns})
	e := restore.New(m, restore.Options{ID: "rquota" + suffix, Holder: t.Name(), LeaseNamespace: "f-lease-" + suffix}, restore.Deps{Source: src, Cluster: c})
	if res, err := e.Run(t.Context()); err != nil || len(res.Failures) > 0 || res.Skipped < 2 {
		t.Fatalf("%v %+v", err, res)
	}
	if got := used(); got != "2" {
		t.Errorf("the quota counts %s after the restore, want 2", got)
	}
	// The harm: whoever creates it all the same is refused, and it is counted.
	one, err := c.Get(t.Context(), secretAt, ns, "one")
	if err != nil {
		t.Fatal(err)
	}
	again := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": one.GetName(), "namespace": ns}}}
	if _, err := c.Create(t.Context(), secretAt, again); !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if got := used(); got != "3" {
		t.Errorf("the quota counts %s after a create that was refused, want 3: then the test above proves nothing", got)
	}
}
