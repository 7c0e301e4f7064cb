package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/plan"
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
		of("pay", "west", pay), of("again", "west", pay), of("mail", "west", v1alpha1.PlanCheck{Kind: "tcp", Target: "mail.example.com:25"}),
		of("db", "west", v1alpha1.PlanCheck{Kind: "sql", Target: "postgres://db/x"}), of("far", "east", v1alpha1.PlanCheck{Kind: "tcp", Target: "east:1"}),
	}
	got := outside(t.Context(), []*v1alpha1.RecoveryPlan{p, p}, "west", func() time.Time { return at }, func(_ context.Context, c plan.Check) (string, error) {
		if c.Timeout != outsideLimit {
			t.Errorf("%s has %s to answer", c.Target, c.Timeout)
		}
		if c.Kind == plan.CheckTCP {
			return "", errors.New("connection refused")
		}
		return "up", nil
	})
	if len(got) != 2 || got[0].Target != pay.Target || got[0].Expect != "^up" || got[0].Err != "" || got[0].At != at || got[1].Kind != "tcp" || got[1].Err != "connection refused" {
		t.Errorf("%+v", got)
	}
}
