package running

import (
	"errors"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

func heldApp(name, vaultName, by string) *v1alpha1.Application {
	return &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Namespace: "davit-system", Name: name, Annotations: map[string]string{v1alpha1.AnnotationHeldBy: by}},
		Spec:       v1alpha1.ApplicationSpec{Vault: vaultName},
	}
}

// A run that was lost with its vault lets go what it held, and nothing else: not what
// other runs hold, nor what other vaults protect. One that somebody carries, or may
// carry, and one of which nobody knows lets nothing go.
func TestAbandon(t *testing.T) {
	ctx := t.Context()
	identity, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	store := fault.New(mem.New(time.Now), 1, fault.Faults{})
	p, err := vault.CreateProject(ctx, store, "default", identity.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	r := register.New(p)
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(
		heldApp("shop", "main", "lost"), heldApp("wiki", "main", "carried,lost"), heldApp("mail", "other", "lost"), heldApp("blog", "main", "noted"),
	).Build()
	holders := func(name string) []string {
		t.Helper()
		var a v1alpha1.Application
		if err := c.Get(ctx, client.ObjectKey{Namespace: "davit-system", Name: name}, &a); err != nil {
			t.Fatal(err)
		}
		return a.HeldBy()
	}
	try := func(run string, confirm error) (Given, error) {
		return abandon(ctx, c, r, "main", func() error { return confirm }, register.Abandoned{Run: run, Site: "east", By: "ann", Reason: "the vault is lost", At: time.Now()})
	}
	spec := failover.Spec{
		Run: "carried", Plan: "wiki", Verb: plan.Switchover, From: "east", To: "west", By: "ann", At: time.Now(), Accept: failover.TimedOut,
		Applications: []string{"wiki"}, Steps: []plan.Step{{Name: "claim/wiki", Kind: plan.KindClaim, Application: "wiki", Timeout: time.Minute}},
	}
	j := journal.Create(p, "carried", "test")
	if err := j.Append(ctx, []failover.Entry{{Kind: failover.Opened, At: time.Now(), Spec: &spec, By: "ann"}, {Kind: failover.Took, At: time.Now(), By: "test"}}); err != nil {
		t.Fatal(err)
	}
	spec.Run = "noted"
	if err := r.Begin(ctx, spec); err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{"carried", "noted"} {
		if _, err := try(run, nil); !errors.Is(err, register.ErrCarried) {
			t.Errorf("%s: %v", run, err)
		}
	}
	if _, err := try("nobody", nil); err == nil {
		t.Error("a run that holds nothing is given up")
	}
	no := errors.New("no")
	if _, err := try("lost", no); !errors.Is(err, no) {
		t.Errorf("not confirmed: %v", err)
	}
	store.Set(fault.Faults{Refuse: 1})
	if _, err := try("lost", nil); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("a silent vault: %v", err)
	}
	store.Set(fault.Faults{})
	if got := holders("shop"); !slices.Equal(got, []string{"lost"}) {
		t.Errorf("what was refused let go: %v", got)
	}
	g, err := try("lost", nil)
	if err != nil || len(g.LetGo) != 2 {
		t.Fatalf("%+v, %v", g, err)
	}
	for name, want := range map[string][]string{"shop": nil, "wiki": {"carried"}, "mail": {"lost"}, "blog": {"noted"}} {
		if got := holders(name); !slices.Equal(got, want) {
			t.Errorf("%s is held by %v, want %v", name, got, want)
		}
	}
}
