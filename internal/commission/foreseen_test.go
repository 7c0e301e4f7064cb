package commission

import (
	"strings"
	"testing"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

// TestPlannedRunsStopForWhatTheyWouldMeet, and a failover for nothing of it.
func TestPlannedRunsStopForWhatTheyWouldMeet(t *testing.T) {
	small := preflight.Finding{Check: "capacity", Verdict: preflight.Fail, Site: "west", Reason: "500 CPU too few", Remedy: "add nodes"}
	names := preflight.Finding{Check: "dns", Verdict: preflight.Fail, Site: "west", Reason: "REFUSED"}
	quota := preflight.Finding{Check: "quotas", Verdict: preflight.Fail, Site: "west", Reason: "pods by 2"}
	tight := small
	tight.Verdict = preflight.Warn
	unseen := small
	unseen.Verdict = preflight.Unknown
	for name, c := range map[string]struct {
		verb     plan.Verb
		despite  []string
		findings []preflight.Finding
		want     string // with what it is refused; "": it is not
	}{
		"too small":                            {plan.Switchover, nil, []preflight.Finding{small}, "capacity of west: 500 CPU too few (add nodes)"},
		"a drill, too":                         {plan.Drill, nil, []preflight.Finding{small}, "--despite capacity,"},
		"quotas":                               {plan.Switchover, nil, []preflight.Finding{quota}, "quotas of west: pods by 2"},
		"clones come to no quota":              {plan.Drill, nil, []preflight.Finding{quota}, ""},
		"a failback, for two":                  {plan.Failback, nil, []preflight.Finding{small, names}, "--despite capacity,dns,"},
		"it was accepted":                      {plan.Switchover, []string{"capacity"}, []preflight.Finding{small}, ""},
		"another one was":                      {plan.Switchover, []string{"dns"}, []preflight.Finding{small}, "capacity"},
		"the site is lost":                     {plan.Failover, nil, []preflight.Finding{small, names}, ""},
		"it may be worse than it could":        {plan.Switchover, nil, []preflight.Finding{tight}, ""},
		"nobody knows":                         {plan.Switchover, nil, []preflight.Finding{unseen}, ""},
		"what is wrong with the source":        {plan.Switchover, nil, []preflight.Finding{{Check: "failure-domain", Verdict: preflight.Fail, Site: "east"}}, ""},
		"the source is said to lack something": {plan.Failback, nil, []preflight.Finding{{Check: "steps", Verdict: preflight.Fail, Site: "east", Reason: "serves no kustomizations"}}, ""},
		"the target lacks it":                  {plan.Failback, nil, []preflight.Finding{{Check: "steps", Verdict: preflight.Fail, Site: "west", Reason: "serves no kustomizations"}}, "steps of west"},
		"control: all is well":                 {plan.Switchover, nil, []preflight.Finding{{Check: "capacity", Verdict: preflight.OK}}, ""},
	} {
		err := Foreseen(&failover.Spec{Verb: c.verb, To: "west", Despite: c.despite}, c.findings)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyChecksThatStopAreAccepted(t *testing.T) {
	if got, err := Despite([]string{"dns", " capacity", "", "dns"}); err != nil || strings.Join(got, ",") != "capacity,dns" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Despite([]string{"epochs"}); Refused(err) == nil {
		t.Errorf("two sites that write were accepted: %v", err)
	}
	known := map[string]bool{}
	for _, c := range preflight.Checks() {
		known[c.ID] = true
	}
	for _, name := range stopping {
		if !known[name] {
			t.Errorf("there is no check %q", name)
		}
	}
}
