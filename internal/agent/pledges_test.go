package agent

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/promise"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// TestPledges: a peer is asked, for each application that this site holds, what its nodes would ask it, and what it
// answers is kept with when. Of what another site holds nobody is asked here.
func TestPledges(t *testing.T) {
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	west := promise.Server{
		Holds: func(context.Context, string) (map[string]string, error) { return map[string]string{}, nil },
		Known: func(app string) (newest, held int64) {
			if app == "till" { // it knows of a newer claim
				return 7, 0
			}
			return 1, 0
		},
		Cluster: func() string { return "w" }, Now: time.Now,
	}
	west.Learn(promise.From(p, "west", "v"))
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- west.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	for app, site := range map[string]string{"shop": "east", "till": "east", "far": "west"} {
		terms := &lease.Terms{LeaseMillis: 15000, BoundMillis: 10000, DriftPPM: 1000, Peers: []lease.Peer{{Site: "west", Cluster: "w", Address: l.Addr().String()}}}
		if _, err := lease.New(p).Claim(t.Context(), app, 1, lease.Claim{Site: site, Cluster: site[:1], Request: "r", Terms: terms, At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	of := &v1alpha1.RecoveryPlan{}
	of.Spec.Sites = []v1alpha1.PlanSite{{Name: "east", Peer: "127.0.0.1:1"}, {Name: "west", Peer: l.Addr().String()}}
	for _, app := range []string{"shop", "till", "far"} {
		of.Spec.Applications = append(of.Spec.Applications, v1alpha1.PlanApplication{Name: app})
	}
	of.Spec.Fence = v1alpha1.PlanFence{Lease: metav1.Duration{Duration: 15 * time.Second}, Promises: true}
	plain := of.DeepCopy()
	plain.Spec.Fence.Promises = false
	if got := pledges(t.Context(), []*v1alpha1.RecoveryPlan{plain}, &vaults.Opened{Project: p, VaultID: "v"}, "east", time.Now); len(got) != 0 {
		t.Errorf("a plan that wants none: %+v", got)
	}
	got := pledges(t.Context(), []*v1alpha1.RecoveryPlan{of, of}, &vaults.Opened{Project: p, VaultID: "v"}, "east", time.Now)
	if len(got) != 2 || got[0].Application != "shop" || got[0].Err != "" || got[0].At.IsZero() || got[1].Application != "till" || !strings.Contains(got[1].Err, "epoch 7 is known here") {
		t.Errorf("%+v", got)
	}
}

// TestASilentPeerLeavesNoOtherUnasked: it has many applications, and the time for all questions would be over before
// the others' turn, each round. What it does answer, such as a refusal, is asked of each.
func TestASilentPeerLeavesNoOtherUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []preflight.Pledge
		for i := range 100 {
			all = append(all, preflight.Pledge{Application: fmt.Sprint(i), Peer: preflight.Peer{Site: "deaf"}}, preflight.Pledge{Application: fmt.Sprint(i), Peer: preflight.Peer{Site: "west"}})
		}
		got := answers(t.Context(), all, time.Now, func(ctx context.Context, a preflight.Pledge) error {
			if a.Site == "deaf" {
				<-ctx.Done()
				return ctx.Err()
			}
			return fmt.Errorf("%s is held here", a.Application)
		})
		if len(got) != 200 {
			t.Errorf("%d of 200 were asked", len(got))
		}
		for _, a := range got {
			if want := map[bool]string{true: context.DeadlineExceeded.Error(), false: a.Application + " is held here"}[a.Site == "deaf"]; a.Err != want || a.At.IsZero() {
				t.Errorf("%s of %s: %q", a.Application, a.Site, a.Err)
			}
		}
	})
}
