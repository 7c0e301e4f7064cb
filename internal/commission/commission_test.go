package commission_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

func shop() *plan.Plan {
	return &plan.Plan{
		Name: "shop", Sites: []plan.Site{{Name: "east"}, {Name: "west", Mappings: []plan.Mapping{{Kind: plan.MapHost, From: "a", To: "b"}}}}, Applications: []plan.Application{{Name: "web"}, {Name: "db"}},
		Fence: plan.Fence{Timeout: time.Second}, Approvals: []plan.Approval{{Count: 2, Verbs: []plan.Verb{plan.Switchover}}},
	}
}

func ask(verb plan.Verb) commission.Ask {
	return commission.Ask{Verb: verb, To: "west", By: "ann", At: time.Date(2026, 11, 27, 4, 5, 6, 0, time.UTC)}
}

func TestSpec(t *testing.T) {
	s, err := commission.Spec(shop(), ask(plan.Switchover))
	if err != nil {
		t.Fatal(err)
	}
	if s.Run != "shop-switchover-20261127-040506" || s.Approvals != 2 || strings.Join(s.Applications, " ") != "db web" || s.Accept != failover.TimedOut {
		t.Errorf("%+v", s)
	}
	if i := slices.IndexFunc(s.Steps, func(s plan.Step) bool { return s.Kind == plan.KindRestore }); i < 0 || len(s.Steps[i].Mappings) != 1 {
		t.Errorf("the restore does not know what things are called in west: %+v", s.Steps)
	}
	if s, err = commission.Spec(shop(), ask(plan.Failover)); err != nil || s.Approvals != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	for want, change := range map[string]func(*plan.Plan, *commission.Ask){
		"does not name this site": func(_ *plan.Plan, a *commission.Ask) { a.To = "north" },
		"not of plan shop":        func(_ *plan.Plan, a *commission.Ask) { a.Points = map[string]failover.Point{"cash": {ID: "x"}} },
		"timeout":                 func(p *plan.Plan, _ *commission.Ask) { p.Fence.Timeout = 0 },
	} {
		p, a := shop(), ask(plan.Failover)
		change(p, &a)
		_, err := commission.Spec(p, a)
		if commission.Refused(err) == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestFrom(t *testing.T) {
	s, err := commission.Spec(shop(), ask(plan.Failover))
	if err != nil {
		t.Fatal(err)
	}
	facts := func(web, db string) *failover.Facts {
		return &failover.Facts{
			Epochs:  map[string]failover.Held{"web": {Number: 1, Site: web}, "db": {Number: 1, Site: db}},
			Holders: map[string][]string{"web": {web}, "db": {db}},
		}
	}
	if from, err := commission.From(shop(), s, facts("east", "east")); err != nil || from != "east" {
		t.Errorf("%q, %v", from, err)
	}
	for _, bad := range []*failover.Facts{facts("west", "west"), facts("east", "north"), {}} {
		if _, err := commission.From(shop(), s, bad); commission.Refused(err) == nil {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	s.Lost = []string{"estate"}
	if _, err := commission.From(shop(), s, facts("east", "east")); commission.Refused(err) == nil {
		t.Errorf("a site that holds nothing is lost: %v", err)
	}
}

// TestLostBesideTheSource: a planned move has a source that lives; another site that held the applications
// before may be lost.
func TestLostBesideTheSource(t *testing.T) {
	facts := &failover.Facts{
		Epochs:  map[string]failover.Held{"web": {Number: 3, Site: "east"}, "db": {Number: 2, Site: "east"}},
		Holders: map[string][]string{"web": {"east", "north"}, "db": {"east"}},
	}
	for _, verb := range []plan.Verb{plan.Switchover, plan.Failover} {
		s, err := commission.Spec(shop(), ask(verb))
		if err != nil {
			t.Fatal(err)
		}
		for lost, want := range map[string]bool{"north": true, "east": verb == plan.Failover, "south": false} {
			s.Lost = []string{lost}
			if _, err := commission.From(shop(), s, facts); (err == nil) != want || err != nil && commission.Refused(err) == nil {
				t.Errorf("%s, lost %s: %v", verb, lost, err)
			}
		}
	}
}

// What excludes what: a run that moves an application waits for no drill.
func TestConflict(t *testing.T) {
	under := func(verb plan.Verb, phase failover.Phase, apps ...string) *failover.State {
		s := failover.NewState()
		s.Spec = failover.Spec{Run: "other", Plan: "shop", Verb: verb, To: "west", Applications: apps}
		s.Phase = phase
		return s
	}
	for name, test := range map[string]struct {
		verb  plan.Verb
		other *failover.State
		free  bool
	}{
		"a second failover":            {plan.Failover, under(plan.Failover, failover.Running, "db"), false},
		"one that awaits its commit":   {plan.Switchover, under(plan.Failover, failover.AwaitingCommit, "db"), false},
		"one that is over":             {plan.Switchover, under(plan.Failover, failover.Completed, "db"), true},
		"other applications":           {plan.Failover, under(plan.Failover, failover.Running, "cash"), true},
		"a drill during a failover":    {plan.Drill, under(plan.Failover, failover.Running, "db"), false},
		"a failover during a drill":    {plan.Failover, under(plan.Drill, failover.Running, "db"), true},
		"a drill of a plan in a drill": {plan.Drill, under(plan.Drill, failover.Running, "db"), false},
	} {
		s := &failover.Spec{Run: "mine", Plan: "shop", Verb: test.verb, To: "west", Applications: []string{"db", "web"}}
		err := commission.Conflict(s, []*failover.State{test.other})
		if (err == nil) != test.free || err != nil && !strings.Contains(err.Error(), "run other") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A run of which no journal can be read is in the way of its own plan alone.
func TestConflictWithAnUnknownRun(t *testing.T) {
	for name, test := range map[string]struct {
		verb  plan.Verb
		other failover.Spec
		free  bool
	}{
		"its note says shop":       {plan.Failover, failover.Spec{Run: "other", Plan: "shop", Verb: plan.Failover}, false},
		"its note says cash":       {plan.Failover, failover.Spec{Run: "shop-other", Plan: "cash", Verb: plan.Failover}, true},
		"it is a drill":            {plan.Failover, failover.Spec{Run: "other", Plan: "shop", Verb: plan.Drill, To: "west"}, true},
		"a drill beside a drill":   {plan.Drill, failover.Spec{Run: "other", Plan: "shop", Verb: plan.Drill, To: "west"}, false},
		"no note, and named so":    {plan.Failover, failover.Spec{Run: "shop-failover-1"}, false},
		"no note, and other names": {plan.Failover, failover.Spec{Run: "shopping-failover-1"}, true},
	} {
		other := failover.NewState()
		other.Spec, other.Phase, other.Why = test.other, failover.OutcomeUnknown, "record 1: damaged"
		err := commission.Conflict(&failover.Spec{Run: "mine", Plan: "shop", Verb: test.verb, To: "west", Applications: []string{"db"}}, []*failover.State{other})
		if (err == nil) != test.free || err != nil && (!strings.Contains(err.Error(), "record 1: damaged") || !strings.Contains(err.Error(), "running/"+test.other.Run)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNext(t *testing.T) {
	s := failover.NewState()
	s.Spec = failover.Spec{Run: "r", By: "ann", Applications: []string{"db"}}
	s.Facts.Holders = map[string][]string{"db": {"east"}}
	for want, change := range map[string]func(){
		"runs show r":         func() { s.Phase = failover.Running },
		"other than ann":      func() { s.Phase = failover.AwaitingApproval },
		"runs commit r":       func() { s.Phase = failover.AwaitingCommit },
		"runs consent r east": func() { s.Phase, s.Pause = failover.Running, &failover.Pause{Kind: failover.ForInput} },
		"runs answer r STEP":  func() { s.Consents["east"] = "ann"; s.Pause = &failover.Pause{Kind: failover.ForInput} },
		"runs resume r":       func() { s.Pause = &failover.Pause{Kind: failover.ByOperator} },
		"runs retry r":        func() { s.Pause = &failover.Pause{Kind: failover.ByFailure} },
	} {
		s.Pause, s.Consents = nil, map[string]string{}
		change()
		if got := commission.Next(s); !strings.Contains(got, want) {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

// TestNextOfANameThatCannotBeLedBack: it is named, with where people lead it, as long as a roll-back is stuck at it.
func TestNextOfANameThatCannotBeLedBack(t *testing.T) {
	s := failover.NewState()
	s.Spec = failover.Spec{Run: "r", Verb: plan.Switchover, From: "east", To: "west", Applications: []string{"db"}, Steps: []plan.Step{{
		Name: "traffic/www", Kind: plan.KindDNS, Object: "www.example.com", Record: &plan.Record{To: map[string][]string{"east": {"192.0.2.1"}}},
	}}}
	st := &failover.StepState{Status: failover.Succeeded, Meant: true, Undoing: true}
	s.Steps, s.Phase, s.Why = map[string]*failover.StepState{"traffic/www": st}, failover.RollbackFailed, "traffic/www: ns1 refuses the key"
	for _, stuck := range []bool{true, false} {
		st.Undid = !stuck
		got := commission.Next(s)
		if strings.Contains(got, "`runs skip r traffic/www`") != stuck || strings.Contains(got, "lead www.example.com to site east (192.0.2.1) by hand") != stuck || !strings.Contains(got, "`runs retry r`") || !strings.Contains(got, "`runs cancel r`") {
			t.Errorf("%q", got)
		}
	}
}
