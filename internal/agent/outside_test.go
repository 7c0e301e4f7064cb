package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/probe"
)

// TestOutside: each probe of this site is asked once, within its time, and what it said is
// kept with when; those of other sites, and those that ask inside of a cluster, are not.
func TestOutside(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	of := func(name, site string, c v1alpha1.PlanCheck) v1alpha1.PlanOutside {
		c.Timeout = metav1.Duration{Duration: time.Hour}
		return v1alpha1.PlanOutside{Name: name, Probes: map[string]v1alpha1.PlanCheck{site: c}}
	}
	pay := v1alpha1.PlanCheck{Kind: "http", Target: "https://pay.example.com/", Expect: "^up"}
	p := &v1alpha1.RecoveryPlan{}
	p.Spec.Outside = []v1alpha1.PlanOutside{
		of("meta", "west", v1alpha1.PlanCheck{Kind: "http", Target: "http://meta.example.com/", Expect: "^other"}), of("pay", "west", pay), of("again", "west", pay), of("mail", "west", v1alpha1.PlanCheck{Kind: "tcp", Target: "mail.example.com:25"}),
		of("db", "west", v1alpha1.PlanCheck{Kind: "sql", Target: "postgres://db/x"}), of("far", "east", v1alpha1.PlanCheck{Kind: "tcp", Target: "east:1"}),
	}
	got := outside(t.Context(), []*v1alpha1.RecoveryPlan{p, p}, "west", func() time.Time { return at }, func(_ context.Context, c plan.Check) (string, error) {
		if c.Timeout != outsideLimit {
			t.Errorf("%s has %s to answer", c.Target, c.Timeout)
		}
		if c.Kind == plan.CheckTCP {
			return "", errors.New("connection refused")
		}
		if c.Expect == "^other" {
			return "hunter2", fmt.Errorf("ask: %w", &probe.Mismatch{Expect: c.Expect, Answer: "hunter2"})
		}
		return "up", nil
	})
	if len(got) > 0 {
		if got[0].Err != `the answer does not match "^other"` {
			t.Errorf("what another said is told: %q", got[0].Err)
		}
		got = got[1:]
	}
	if len(got) != 2 || got[0].Target != pay.Target || got[0].Expect != "^up" || got[0].Err != "" || got[0].At != at || got[1].Kind != "tcp" || got[1].Err != "connection refused" {
		t.Errorf("%+v", got)
	}
}

// TestOutsideInTime: those that take all the time say nothing of the others, which were not
// asked: a firewall that swallows thirty would be taken for one that swallows all.
func TestOutsideInTime(t *testing.T) {
	p := &v1alpha1.RecoveryPlan{}
	const dead = 3 * outsideAbreast // each takes its whole time: all of it goes by
	for i := range dead + 5 {
		c := v1alpha1.PlanCheck{Kind: "tcp", Target: fmt.Sprintf("host-%02d:1", i), Timeout: metav1.Duration{Duration: time.Hour}}
		p.Spec.Outside = append(p.Spec.Outside, v1alpha1.PlanOutside{Name: c.Target, Probes: map[string]v1alpha1.PlanCheck{"west": c}})
	}
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		got := outside(t.Context(), []*v1alpha1.RecoveryPlan{p}, "west", time.Now, func(ctx context.Context, c plan.Check) (string, error) {
			answer, takes := errors.New("timeout"), c.Timeout-time.Millisecond
			if c.Target >= fmt.Sprintf("host-%02d:1", dead) {
				answer, takes = nil, time.Second
			}
			select {
			case <-time.After(takes):
				return "", answer
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		if took := time.Since(begun); took > outsidePatience+time.Second {
			t.Errorf("it took %s", took)
		}
		if len(got) != dead {
			t.Errorf("%d of %d are told", len(got), dead+5)
		}
		for _, a := range got {
			if a.Err != "timeout" || a.At.IsZero() {
				t.Errorf("%+v", a)
			}
		}
	})
}
