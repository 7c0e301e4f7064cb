package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// denials are who was refused for want of a right, as the journal has it.
func denials(r *rig) []string {
	var all []string
	for _, entries := range r.records {
		for _, e := range entries {
			if e.Kind == Denied {
				all = append(all, e.By+" "+e.Step)
			}
		}
	}
	return all
}

func (r *rig) as(kind EventKind, step, by string, groups ...string) string {
	r.t.Helper()
	return r.says(kind, func(e *Event) { e.Step, e.By, e.Groups, e.Outcome = step, by, groups, Done })
}

// TestApprovalsByRole: only those count whom the plan names, each once, and never
// whoever asked; and the journal keeps who was refused.
func TestApprovalsByRole(t *testing.T) {
	r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) {
		s.Approvals = 2
		s.Demands = []plan.Approval{{Count: 2, Roles: []string{"dba"}, Users: []string{"cas"}}, {Count: 1, Roles: []string{"net"}}}
	}).run(AwaitingApproval)
	for _, c := range []struct {
		by     string
		groups []string
		want   string
	}{
		{"ann", []string{"dba"}, "whoever asked for the run cannot approve it"},
		{"eve", []string{"people"}, "eve is none of those who may approve the run: it takes group dba, user cas and group net"},
		{"dba", nil, "dba is none of those"}, // a name is no group
		{"bob", []string{"people", "dba"}, ""},
		{"bob", []string{"dba"}, "bob has approved it already"},
		{"eve", []string{"people"}, "eve is none of those"},
		{"cas", nil, ""},
	} {
		if why := r.as(Approve, "", c.by, c.groups...); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s of %v: %q, want %q", c.by, c.groups, why, c.want)
		}
	}
	if s := r.m.State(); s.Phase != AwaitingApproval || s.Lacks() != "1 of group net" {
		t.Fatalf("%s, lacks %q", s.Phase, s.Lacks())
	}
	if got := denials(r); !slices.Equal(got, []string{"ann ", "eve ", "dba "}) {
		t.Errorf("the journal keeps %v", got)
	}
	if why := r.as(Approve, "", "dan", "net"); why != "" {
		t.Error(why)
	}
	r.pass(AwaitingCommit)
	for _, a := range r.m.State().Agreed[""] {
		if slices.Contains(a.Groups, "people") {
			t.Errorf("the journal keeps groups that the plan does not name: %+v", a)
		}
	}
}

// TestApprovalStep takes two people whom the plan names, and cannot be skipped.
func TestApprovalStep(t *testing.T) {
	r := newRig(t, plan.Failover, func(p *plan.Plan, _ *Spec) {
		p.Steps = []plan.Step{{
			Name: "go", Kind: plan.KindApproval, Prompt: "open the shop?", Timeout: time.Hour, After: []string{"ready/shop"},
			Approvers: &plan.Approval{Count: 2, Roles: []string{"owners"}},
		}}
	}).run(Paused)
	if waits := strings.Join(r.m.Waits(), " "); !strings.Contains(waits, "open the shop? (it takes 2 of group owners)") {
		t.Errorf("waits %s", waits)
	}
	for _, c := range []struct{ by, group, want string }{
		{"eve", "people", "eve is none of those who may approve go"},
		{"ann", "owners", "whoever asked"},
		{"bob", "owners", ""},
		{"bob", "owners", "already"},
	} {
		if why := r.as(Answer, "go", c.by, c.group); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", c.by, why, c.want)
		}
	}
	if got := denials(r); !slices.Equal(got, []string{"eve go", "ann go"}) {
		t.Errorf("the journal keeps %v", got)
	}
	r.pass(Paused)
	if s := r.m.State(); s.Steps["go"].ended() || !strings.Contains(s.Pause.Why, "1 of group owners") {
		t.Fatalf("one of two was enough: %+v, %+v", s.Steps["go"], s.Pause)
	}
	// Who takes the run over has the first one's word.
	r.m = TakeOver("e2", r.m.State())
	r.run(Paused)
	no := func(e *Event) { e.Step, e.By, e.Groups, e.Outcome = "go", "cas", []string{"owners"}, Refused }
	if why := r.says(Answer, no); why != "" {
		t.Fatal(why)
	}
	r.pass(Paused)
	if why := r.as(Skip, "go", "ops"); !strings.Contains(why, "cannot be skipped") {
		t.Errorf("skip: %q", why)
	}
	if why := r.as(Retry, "go", "ops"); why != "" {
		t.Fatal(why)
	}
	r.pass(Paused)
	for _, by := range []string{"bob", "cas"} { // anew
		if why := r.as(Answer, "go", by, "owners"); why != "" {
			t.Fatal(why)
		}
	}
	r.pass(AwaitingCommit)
}

// TestDenied: what somebody has no right to, as the cluster says, changes nothing but
// that the journal keeps it, once.
func TestDenied(t *testing.T) {
	r := newRig(t, plan.Failover, nil).run(AwaitingCommit)
	for range 3 {
		why := r.says(Commit, func(e *Event) { e.By, e.Step, e.Denied = "eve", "no such step", "eve may not steer" })
		if why != "commit: eve may not steer" {
			t.Errorf("%q", why)
		}
	}
	if got := denials(r); r.m.Phase() != AwaitingCommit || !slices.Equal(got, []string{"eve "}) {
		t.Errorf("%s, the journal keeps %v", r.m.Phase(), got)
	}
}
