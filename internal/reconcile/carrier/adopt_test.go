package carrier

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
)

// archive is a store that does not give away what ended long ago: it refuses, or takes its time, once.
type archive struct {
	vault.Store
	slow *atomic.Bool
}

func (a archive) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if !strings.Contains(key, "/ended/old") {
		return a.Store.Get(ctx, key, offset, length)
	}
	if a.slow.Swap(false) {
		<-ctx.Done()
	}
	return nil, fmt.Errorf("read %s: %w", key, vault.ErrDenied)
}

// TestNoRunWaitsForThoseThatEndedLongAgo: whoever has just begun to lead reads the summaries of all runs
// that ever ended, to find those without a note. What is ordered, or under way, does not wait for that, nor
// for one that the store does not give away; and such a one keeps none of the others from being found.
func TestNoRunWaitsForThoseThatEndedLongAgo(t *testing.T) {
	for _, slow := range []bool{false, true} {
		r := newRig(t, shop(0))
		old := failover.NewState()
		old.Spec.Run, old.Phase = "old", failover.Completed
		if err := register.New(r.project).End(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		r.plant(t, "runs/old/00000000000000000001")
		spec := failover.Spec{
			Run: "under-way", Plan: "shop", Verb: plan.Restore, To: "north", By: "ann", Accept: failover.TimedOut, Applications: []string{"web"},
			Steps: []plan.Step{{Name: "claim/web", Kind: plan.KindClaim, Application: "web", Timeout: time.Minute}},
		}
		entries := []failover.Entry{{Kind: failover.Opened, Spec: &spec}, {Kind: failover.Took, By: "cli"}}
		if err := journal.Create(r.project, "under-way", "cli").Append(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
		var once atomic.Bool
		once.Store(slow)
		p := r.project.Over(func(s vault.Store) vault.Store { return archive{s, &once} })
		r.c.Project = func(context.Context, string) (*vault.Project, error) { return p, nil }
		ctx, stop := context.WithCancel(t.Context())
		for end := time.Now().Add(time.Minute); once.Load(); pause(ctx, 10*time.Millisecond) { // until somebody reads it
			if err := r.look(ctx); err != nil || time.Now().After(end) {
				t.Fatal("nobody looks for runs without a note", err)
			}
		}
		if err := r.c.Client.Create(ctx, restore("r1")); err != nil {
			t.Fatal(err)
		}
		if o := r.until(t, ctx, "r1", ended); o.Status.Phase != "Completed" {
			t.Errorf("slow is %v: %+v", slow, o.Status)
		}
		for end := time.Now().Add(time.Minute); !slow; {
			running, err := register.New(r.project).Running(t.Context())
			if err != nil || time.Now().After(end) {
				t.Fatalf("noted as under way: %v, %v", running, err)
			}
			if slices.Contains(running, "under-way") {
				break
			}
			pause(ctx, 10*time.Millisecond)
		}
		stop()
	}
}
