package e2e

import (
	"os"
	"testing"

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
