package failover

import (
	"strings"
	"testing"

	"davit.dev/davit/internal/plan"
)

// Whoever asked at a console approves under no other name of his, and counts once.
func TestApprovalsAcrossNames(t *testing.T) {
	r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.By, s.Approvals = "ann@console/shop", 2 }).run(AwaitingApproval)
	for _, c := range []struct{ by, want string }{
		{"ann@example.com", "whoever asked for the run cannot approve it: ann@example.com is taken for ann@console/shop"},
		{"ann/nightly@console/shop", "whoever asked"},
		{"bob", ""},
		{"bob@console/shop", "bob@console/shop has approved it already: bob@console/shop is taken for bob"},
	} {
		if why := r.as(Approve, "", c.by); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", c.by, why, c.want)
		}
	}
	if s := r.m.State(); s.Phase != AwaitingApproval {
		t.Fatalf("%s: one person counted twice", s.Phase)
	}
	if why := r.as(Approve, "", "cas@console/shop"); why != "" {
		t.Error(why)
	}
	if s := r.m.State(); s.Phase != AwaitingApproval || !strings.Contains(s.Lacks(), "1 of those who may approve") || !strings.Contains(s.Lacks(), "with kubeconfigs it takes one more") {
		t.Fatalf("%s: cas at the console may be bob of the cluster: %q", s.Phase, s.Lacks())
	}
	if why := r.as(Approve, "", "dan@console/shop"); why != "" {
		t.Error(why)
	}
	r.pass(AwaitingCommit)
}

// A robot approves only where the plan names it.
func TestRobotsApprove(t *testing.T) {
	const robot = "dan/ci@console/shop"
	for _, users := range [][]string{nil, {robot}} {
		r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) {
			s.By, s.Approvals, s.Demands = "ann@console/shop", 1, []plan.Approval{{Count: 1, Roles: []string{"recoverer@console/shop"}, Users: users}}
		}).run(AwaitingApproval)
		why := r.as(Approve, "", robot, "recoverer@console/shop")
		if (why == "") != (users != nil) || users == nil && !strings.Contains(why, "none of those who may approve") {
			t.Errorf("users %v: %q", users, why)
		}
	}
}
