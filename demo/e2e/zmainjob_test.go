package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"davit.dev/davit/demo/scenario"
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
	if err := r.Move(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Timeline.Print()
	if err := r.Figures(t.Context(), os.Stderr); err != nil {
		t.Error(err)
	}
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
