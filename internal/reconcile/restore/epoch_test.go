package restore

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/recovery"
	engine "davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// deaf is a cluster in whose preflight the agent dies, the first time.
type deaf struct {
	engine.Cluster
	die func()
}

func (d deaf) Refresh(context.Context) error {
	d.die()
	return errors.New("no answer")
}

func (d deaf) Serves(context.Context, schema.GroupKind) ([]engine.Served, error) {
	d.die()
	return nil, errors.New("no answer")
}

// office has a vault with one point of shop, captured at east under epoch 1.
type office struct {
	t       *testing.T
	project *vault.Project
	client  client.Client
	die     func()
}

func (o *office) Recovery(context.Context, string, string, string) (recovery.Deps, error) {
	return recovery.Deps{Project: o.project, VaultName: "main", Site: "west", ClusterID: "w", Cluster: deaf{die: o.die}}, nil
}

func newOffice(t *testing.T, spec v1alpha1.RestoreSpec) *office {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	spec.Vault, spec.Application, spec.ServiceAccountName = "main", "shop", "someone"
	rs := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "r1", UID: "uid-1"}, Spec: spec}
	o := &office{t: t, project: project, die: func() {}}
	o.client = fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(rs).WithStatusSubresource(rs).Build()
	o.claim("east", 1)
	w, err := project.NewWriter(t.Context(), "shop", "shop-1")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	m := &point.Manifest{Site: "east", Epoch: 1, Instant: now, CutBy: now, Consistency: point.Crash, Namespaces: []string{"shop"}}
	if err := w.Publish(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) claim(site string, n int64) {
	o.t.Helper()
	c := lease.Claim{Site: site, Cluster: site[:1], Request: site + "-by-hand", Accepted: []string{"shop-1"}}
	if _, err := lease.New(o.project).Claim(o.t.Context(), "shop", n, c); err != nil {
		o.t.Fatal(err)
	}
}

// agent takes the order up once and returns it.
func (o *office) agent(ctx context.Context) v1alpha1.RestoreStatus {
	o.t.Helper()
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "r1"}
	r := &Reconciler{Client: o.client, Reader: o.client, Access: o, Events: record.NewFakeRecorder(10), Now: time.Now}
	if _, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: key}); err != nil {
		o.t.Fatal(err)
	}
	var got v1alpha1.Restore
	if err := o.client.Get(context.WithoutCancel(ctx), key, &got); err != nil {
		o.t.Fatal(err)
	}
	return got.Status
}

func (o *office) agentThatDies() v1alpha1.RestoreStatus {
	ctx, cancel := context.WithCancel(o.t.Context())
	o.die = cancel
	defer func() { o.die = func() {} }()
	return o.agent(ctx)
}

// TestAnOrderOvertakenIsNotCarriedOut: the agent dies before it claims the
// epoch; the order is found again after the application has moved on.
func TestAnOrderOvertakenIsNotCarriedOut(t *testing.T) {
	takeOver := v1alpha1.RestoreSpec{Mode: v1alpha1.RestoreTakeOver}
	o := newOffice(t, takeOver)
	st := o.agentThatDies()
	if st.Phase != v1alpha1.RestoreRunning || st.ObservedEpoch == nil || *st.ObservedEpoch != 1 || st.StartedAt == nil {
		t.Fatalf("after the agent died: %+v", st)
	}
	o.claim("north", 2)
	o.claim("east", 3)
	st = o.agent(t.Context())
	ready := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady)
	if st.Phase != v1alpha1.RestoreFailed || ready.Reason != v1alpha1.ReasonOvertaken || !strings.Contains(ready.Message, "order anew") {
		t.Errorf("%s %+v", st.Phase, ready)
	}

	calm := newOffice(t, takeOver) // the control: nobody was there meanwhile
	calm.agentThatDies()
	if c := meta.FindStatusCondition(calm.agent(t.Context()).Conditions, v1alpha1.ConditionReady); c.Reason != v1alpha1.ReasonRestoreFailed || !strings.Contains(c.Message, "no answer") {
		t.Errorf("not carried on: %+v", c)
	}
}

// TestAnOrderSaysWhatItSaw: no agent was there when it was given.
func TestAnOrderSaysWhatItSaw(t *testing.T) {
	seen := int64(1)
	for _, c := range []struct {
		name   string
		epoch  *int64
		reason string
	}{
		{"with the epoch", &seen, v1alpha1.ReasonOvertaken},
		{"without", nil, v1alpha1.ReasonRestoreFailed}, // the harm: it goes on until the cluster does not answer
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOffice(t, v1alpha1.RestoreSpec{Mode: v1alpha1.RestoreTakeOver, Epoch: c.epoch})
			o.claim("north", 2)
			st := o.agent(t.Context())
			if ready := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady); ready.Reason != c.reason {
				t.Errorf("%+v", ready)
			}
		})
	}
}
