package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"davit.dev/davit/demo/scenario"
	"davit.dev/davit/testbed/shop/deploy"
)

// TestMainJob plays the main job as the demo does: it kills and revives east. Then
// the shop, which takes orders all the time, is drilled, failed back and switched
// over, and west dies. It comes last in this package, and wants the sites for itself.
func TestMainJob(t *testing.T) {
	for _, site := range []string{east, west} {
		if err := forget(t.Context(), site); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { done(t) })
	r := &scenario.Run{Stage: rig, Timeline: &scenario.Timeline{Out: os.Stderr}, Vault: "main-" + run}
	if err := r.Play(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Report(os.Stderr)
	f := shopEntrance(t)
	if err := r.Move(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.judged(t, west)
	r.Timeline.Print()
	if err := r.Figures(t.Context(), os.Stderr); err != nil {
		t.Error(err)
	}
}

// shopEntrance puts a load balancer, and a client who asks for the shop's page without end,
// before both sites, of which west runs the shop.
func shopEntrance(t *testing.T) *entrance {
	t.Helper()
	letIn(t)
	f := &entrance{asks: "shop?service=shop/web", host: hostAddress(), clients: deploy.Params{}.Defaults().NodePort}
	f.haproxy(t)
	f.visit(t)
	eventually(t, 3*time.Minute, "clients are sent to west, and east is known to be passive", func() (bool, string) {
		return f.steady(west), f.lately()
	})
	f.mark = f.balance.Mark()
	return f
}

// done ends the ledger, which outlives whoever started it, and takes the shop from both sites:
// it would place orders and be captured for as long as the bed is there. What failed is left.
func done(t *testing.T) {
	if err := rig.StopLedger(); err != nil {
		t.Errorf("stop the ledger: %v", err)
	}
	if t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, site := range []string{east, west} {
		if err := forget(ctx, site); err != nil {
			t.Logf("%s keeps what was protected: %v", site, err)
		}
		if _, err := rig.Kubectl(ctx, site, "delete", "namespace", "shop", "--ignore-not-found", "--wait=false"); err != nil {
			t.Logf("%s keeps the shop: %v", site, err)
		}
	}
}
