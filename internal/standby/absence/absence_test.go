package absence_test

import (
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/standby/absence"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAPlannedMoveIsRefusedForWhoIsGone before it stops anything, unless a lease, a word or an order says that this
// one has stopped.
func TestAPlannedMoveIsRefusedForWhoIsGone(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	store := mem.New(func() time.Time { return now })
	key, err := vault.NewRecoveryKey()
	check(t, err)
	_, err = vault.Init(t.Context(), store)
	check(t, err)
	_, err = vault.CreateProject(t.Context(), store, "default", key.Recipient())
	check(t, err)
	p, err := vault.OpenProject(t.Context(), store, "default", key)
	check(t, err)
	beat := func(sites ...string) {
		for _, site := range sites {
			check(t, lease.Beat(t.Context(), p, vault.SiteStatus{Site: site, Cluster: site, Time: now}))
		}
	}
	beat("east", "north", "west")
	now = now.Add(lease.SilentAfter)
	beat("north")
	check(t, p.WriteSealed(t.Context(), p.Root()+"sites/broken", []byte("{")))

	for name, c := range map[string]struct {
		verb    plan.Verb
		holders []string
		lost    []string
		terms   map[string]plan.Fence
		words   map[string]map[string]string
		want    string        // of each problem; "": there is none
		lease   time.Duration // of the plan
	}{
		"east is silent":           {plan.Switchover, []string{"east", "west"}, nil, nil, nil, "site east held shop before, has given no sign of life for 5m0s", time.Second},
		"to come back, too":        {plan.Failback, []string{"east", "west"}, nil, nil, nil, "--lost east", time.Second},
		"never heard":              {plan.Switchover, []string{"south", "west"}, nil, nil, nil, "site south held shop before, has never given", time.Second},
		"north lives":              {plan.Switchover, []string{"north", "west"}, nil, nil, nil, "", time.Second},
		"a person says so":         {plan.Switchover, []string{"east", "west"}, []string{"east"}, nil, nil, "", time.Second},
		"of another":               {plan.Switchover, []string{"east", "west"}, []string{"north"}, nil, nil, "site east", time.Second},
		"its lease will be over":   {plan.Switchover, []string{"east", "west"}, nil, map[string]plan.Fence{"east": {Lease: time.Second}}, nil, "", time.Second},
		"no lease to wait for":     {plan.Switchover, []string{"east", "west"}, nil, map[string]plan.Fence{"east": {Lease: time.Second}}, nil, "the plan has no lease any more", 0},
		"damaged":                  {plan.Switchover, []string{"broken", "west"}, nil, nil, nil, "its last sign of life cannot be read", time.Second},
		"a word for good":          {plan.Switchover, []string{"east", "west"}, nil, nil, map[string]map[string]string{"shop": {"east": "ann"}}, "", time.Second},
		"the source alone":         {plan.Switchover, []string{"west"}, nil, nil, nil, "", time.Second}, // which is silent, too
		"nobody has its own words": {plan.Switchover, []string{failover.Nobody, "west"}, nil, nil, nil, "", time.Second},
		"the site is lost":         {plan.Failover, []string{"east", "west"}, nil, nil, nil, "", time.Second},
		"a drill":                  {plan.Drill, []string{"east", "west"}, nil, nil, nil, "", time.Second},
	} {
		facts := &failover.Facts{
			Epochs: map[string]failover.Held{"shop": {Number: 3, Site: "west"}}, Holders: map[string][]string{"shop": c.holders},
			Terms: c.terms, Words: c.words,
		}
		got, err := absence.Problems(t.Context(), p, failover.Spec{Verb: c.verb, Applications: []string{"shop"}, Lost: c.lost, Fence: plan.Fence{Lease: c.lease}}, facts)
		check(t, err)
		if (len(got) == 0) != (c.want == "") || !strings.Contains(strings.Join(got, " "), c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
