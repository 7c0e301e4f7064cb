package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func project(t *testing.T) *vault.Project {
	t.Helper()
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(time.Now), "acme", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNames(t *testing.T) {
	long := strings.Repeat("n", 60)
	a, b := Copy("r", long), Copy("r", long+"x")
	for _, name := range []string{Home("r"), Copy("r", "shop"), a, b} {
		if vault.CheckName(name) != nil || len(name) > 63 || !strings.HasPrefix(name, Home("r")) {
			t.Errorf("namespace %q", name)
		}
	}
	if a == b || Copy("r", "shop") == Copy("s", "shop") || len(Name("r")) > 63 {
		t.Errorf("%q, %q and others are alike", a, b)
	}
}

// TestADrillTouchesNoSource: no claim, no fence, nothing of the source; and
// what it has of the live site's kinds is told that it is a drill.
func TestADrillTouchesNoSource(t *testing.T) {
	var asked []plan.Kind
	live := execute.Kinds{}
	for _, k := range []plan.Kind{
		plan.KindClaim, plan.KindHold, plan.KindFence, plan.KindQuiesce, plan.KindSync, plan.KindDemote, plan.KindPromote, plan.KindRestore, plan.KindPin,
		plan.KindCatchUp, plan.KindSuspend, plan.KindResume, plan.KindInfra, plan.KindDNS, plan.KindGate, plan.KindCommand, plan.KindHTTP, plan.KindOutside,
	} {
		live[k] = execute.Func(func(_ context.Context, o execute.Order) execute.Answer {
			if c := o.Step.Command; c != nil && c.Env["DAVIT_DRILL"] != "true" || o.Step.Call != nil && (o.Step.Call.Told["Davit-Drill"] != "true" || len(o.Step.Call.Headers) != 1) {
				t.Errorf("%s does not know that it is a drill", k)
			}
			asked = append(asked, k)
			return execute.Done("")
		})
	}
	s := New(Options{Recovery: recovery.Deps{Project: project(t)}, Marks: &execute.Memory{}})
	kinds := s.Kinds(live)
	for k := range live {
		o := execute.Order{Action: failover.Act, Run: "r", Verb: plan.Drill, Sandbox: "r", Step: plan.Step{Name: string(k), Kind: k}, Token: failover.Token{Sequence: 1}}
		if k == plan.KindCommand || k == plan.KindInfra {
			o.Step.Command = &plan.Command{Image: "x"}
		}
		if k == plan.KindHTTP {
			o.Step.Call = &plan.Call{Headers: []plan.Header{{Name: "Accept", Value: "text/plain"}}}
		}
		answer := kinds.Do(t.Context(), o)
		if refused := answer.Outcome == failover.Refused; !refused && !slices.Contains([]plan.Kind{plan.KindCommand, plan.KindHTTP, plan.KindInfra, plan.KindOutside, plan.KindDNS, plan.KindGate}, k) {
			t.Errorf("a drill does %s: %+v", k, answer)
		}
	}
	slices.Sort(asked)
	if !slices.Equal(asked, []plan.Kind{plan.KindCommand, plan.KindHTTP, plan.KindInfra, plan.KindOutside}) {
		t.Errorf("of the live site's actuators the drill used %v", asked)
	}
}

func TestTrafficIsRehearsed(t *testing.T) {
	var answer error
	s := New(Options{Rehearse: func(context.Context, plan.Step, string) (string, error) { return "ns1 would take it", answer }})
	do := func(a failover.Action) execute.Answer {
		return s.Kinds(nil).Do(t.Context(), execute.Order{Action: a, Sandbox: "r", Step: plan.Step{Kind: plan.KindDNS}})
	}
	if got := do(failover.Act); got.Outcome != failover.Done || !strings.Contains(got.Note, "only rehearsed: ns1") {
		t.Errorf("%+v", got)
	}
	answer = errors.New("the key may not")
	if got := do(failover.Act); got.Outcome != failover.Refused || got.Note != "the key may not" {
		t.Errorf("%+v", got)
	}
}

// bare is a cluster that does not know what nodes say of their fences.
type bare struct{ Cluster }

func (bare) Open(context.Context) (string, error) {
	return "", errors.New("the server could not find the requested resource")
}

// TestADrillBringsDavit: nodes that get Davit first are asked whether they isolate when they have it.
func TestADrillBringsDavit(t *testing.T) {
	for _, coming := range []bool{true, false} {
		s := New(Options{Recovery: recovery.Deps{Project: project(t), Coming: coming}, Cluster: bare{}})
		problems, err := s.Problems(t.Context(), failover.Spec{Run: "r", Plan: "shop", Verb: plan.Drill, To: "west"}, &failover.Facts{})
		if (err == nil) != coming || len(problems) > 0 {
			t.Errorf("Davit is put there first: %t, and the drill finds %v, %v", coming, problems, err)
		}
	}
}

// open is a cluster with a node that says nothing yet of sandboxes.
type open struct{ Cluster }

func (open) Open(context.Context) (string, error) { return "node w says nothing yet", nil }

// TestWhatSettlesByItself: where Davit was just put there, the nodes alone are waited for; what a
// person has to solve is said at once.
func TestWhatSettlesByItself(t *testing.T) {
	s := New(Options{Recovery: recovery.Deps{Project: project(t)}, Cluster: open{}})
	problems, err := s.Problems(t.Context(), failover.Spec{Run: "r", Plan: "shop", Verb: plan.Drill, To: "west"}, &failover.Facts{})
	if err != nil || !Settles(problems) {
		t.Errorf("the nodes alone: %q, %v", problems, err)
	}
	if Settles(append(problems, "shop runs at site west")) || Settles(nil) {
		t.Error("what is not the nodes' is waited for")
	}
}

// none are wishes that nobody has.
type none struct{ replied []int64 }

func (*none) Next(context.Context, string) (*execute.Request, error) { return nil, nil } //nolint:nilnil // nobody wants anything

func (n *none) Reply(_ context.Context, _ string, number int64, _ string) error {
	n.replied = append(n.replied, number)
	return nil
}

// TestADrillMakesWay when another run raises an epoch, once, and not before.
func TestADrillMakesWay(t *testing.T) {
	p := project(t)
	claim := func(n int64, site string) {
		t.Helper()
		if _, err := lease.New(p).Claim(t.Context(), "shop", n, lease.Claim{Site: site, At: at, Holder: "ann", Request: site}); err != nil {
			t.Fatal(err)
		}
	}
	claim(1, "east")
	people := &none{}
	y := &Yield{Requests: people, Project: p, Apps: []string{"shop"}}
	for range 2 {
		if r, err := y.Next(t.Context(), "r"); r != nil || err != nil {
			t.Fatalf("%v: it makes way for nobody: %+v", err, r)
		}
	}
	claim(2, "west")
	r, err := y.Next(t.Context(), "r")
	if err != nil || r == nil || r.Kind != failover.Cancel || !strings.Contains(r.By, "west claimed epoch 2 of shop") {
		t.Fatalf("%v %+v", err, r)
	}
	if err := y.Reply(t.Context(), "r", 7, ""); err != nil || y.Answered() {
		t.Errorf("%v: somebody else was answered, and the drill is said to have heard", err)
	}
	people.replied = nil
	if err := y.Reply(t.Context(), "r", r.Number, ""); err != nil || len(people.replied) > 0 || !y.Answered() {
		t.Errorf("%v: nobody waits for the reply, and %v got one", err, people.replied)
	}
	if r, err := y.Next(t.Context(), "r"); r != nil || err != nil {
		t.Errorf("%v: it was asked twice: %+v", err, r)
	}
	stop := make(chan struct{})
	y = &Yield{Requests: people, Project: p, Apps: []string{"shop"}, Stop: stop, Epochs: map[string]int64{"shop": 2}}
	if r, _ := y.Next(t.Context(), "r"); r != nil {
		t.Errorf("before it is told to stop: %+v", r)
	}
	close(stop)
	if r, _ := y.Next(t.Context(), "r"); r == nil || r.Kind != failover.Cancel {
		t.Errorf("told to stop: %+v", r)
	}
}

// TestWhoYieldsAsksForFew: a drill of many applications asks for some each time, once it knows with which
// epochs it began, and hears of each all the same.
func TestWhoYieldsAsksForFew(t *testing.T) {
	p := project(t)
	claim := func(app string, n int64) {
		t.Helper()
		if _, err := lease.New(p).Claim(t.Context(), app, n, lease.Claim{Site: "east", At: at, Holder: "ann", Request: "r"}); err != nil {
			t.Fatal(err)
		}
	}
	var apps []string
	for i := range 23 {
		apps = append(apps, fmt.Sprintf("app-%02d", i))
		claim(apps[i], 1)
	}
	y := &Yield{Requests: &none{}, Project: p, Apps: apps}
	if r, err := y.Next(t.Context(), "r"); r != nil || err != nil || len(y.Epochs) != len(apps) {
		t.Fatalf("%v %+v: knows %d epochs of the beginning", err, r, len(y.Epochs))
	}
	for range 3 { // wherever it is
		before := y.turn
		if r, err := y.Next(t.Context(), "r"); r != nil || err != nil || y.turn-before != atOnce {
			t.Errorf("%v %+v: asked for %d", err, r, y.turn-before)
		}
	}
	for _, app := range []string{apps[0], apps[11], apps[22]} {
		claim(app, 2)
		var r *execute.Request
		for times := 0; r == nil && times <= len(apps)/atOnce; times++ {
			var err error
			if r, err = y.Next(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}
		}
		if r == nil || !strings.Contains(r.By, "epoch 2 of "+app) {
			t.Errorf("%s: %+v", app, r)
		}
		y.asked, y.Epochs[app] = false, 2
	}
}

// TestBusy: a drill does not begin beside what moves its applications.
func TestBusy(t *testing.T) {
	p := project(t)
	begin := func(run string, v plan.Verb, app string) *journal.Journal {
		t.Helper()
		spec := &failover.Spec{
			Run: run, Plan: "shop", Verb: v, From: "east", To: "west", By: "ann", At: at, Accept: failover.TimedOut, Applications: []string{app},
			Steps: []plan.Step{{Name: "claim/" + app, Kind: plan.KindClaim, Application: app, Timeout: time.Minute}},
		}
		if err := register.New(p).Begin(t.Context(), *spec); err != nil {
			t.Fatal(err)
		}
		j := journal.Create(p, run, "one")
		if err := j.Append(t.Context(), []failover.Entry{{Kind: failover.Opened, At: at, By: "ann", Spec: spec}, {Kind: failover.Took, At: at, By: "one"}}); err != nil {
			t.Fatal(err)
		}
		return j
	}
	if err := register.New(p).Begin(t.Context(), failover.Spec{Run: "noted", Plan: "shop", Verb: plan.Failover, To: "west"}); err != nil {
		t.Fatal(err)
	}
	spec := failover.Spec{Run: "mine", Plan: "shop", Verb: plan.Drill, To: "west", Applications: []string{"shop"}}
	begin("other", plan.Failover, "bank")
	over := begin("over", plan.Failover, "shop")
	if err := over.Append(t.Context(), []failover.Entry{{Kind: failover.Evaluated, At: at, Facts: &failover.Facts{Problems: []string{"no"}}}}); err != nil {
		t.Fatal(err)
	}
	if got, err := Busy(t.Context(), p, spec); err != nil || len(got) > 0 {
		t.Fatalf("%v %v", err, got)
	}
	begin("move", plan.Switchover, "shop")
	begin("drill", plan.Drill, "shop")
	got, err := Busy(t.Context(), p, spec)
	if err != nil || len(got) != 2 || !strings.Contains(got[0], "drill drill is under way") || !strings.Contains(got[1], "run move (switchover) is under way") {
		t.Errorf("%v %v", err, got)
	}
	for _, key := range []string{"running/shop-9", "runs/shop-9/00000000000000000001", "running/bank-9", "runs/bank-9/00000000000000000001"} {
		if err := p.Store().Put(t.Context(), p.Root()+key, strings.NewReader("?"), 1); err != nil {
			t.Fatal(err)
		}
	}
	got, err = Busy(t.Context(), p, spec)
	if err != nil || len(got) != 3 || !strings.Contains(got[2], "run shop-9 is noted as under way") {
		t.Errorf("beside runs that nobody can read, one of them the plan's: %v %v", got, err)
	}
}

// closed is a cluster that answers nothing.
type closed struct{ Cluster }

// TestAProbeSaysWhatItDidNotAsk: the answer of the act is what the report shows,
// so a look must not pass for it.
func TestAProbeSaysWhatItDidNotAsk(t *testing.T) {
	s := New(Options{Recovery: recovery.Deps{Project: project(t)}, Cluster: closed{}, Marks: &execute.Memory{}})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	do := func(a failover.Action) execute.Answer {
		return s.Kinds(nil).Do(ctx, execute.Order{Action: a, Run: "r", Sandbox: "r", Step: plan.Step{
			Name: "inside", Kind: plan.KindProbe, Checks: []plan.Check{{Kind: plan.CheckTCP, Target: "example.com:80", Timeout: time.Minute}},
		}})
	}
	if got := do(failover.Look); got.Outcome != failover.NotDone {
		t.Errorf("look: %+v", got)
	}
	if got := do(failover.Act); got.Outcome != failover.Done || !strings.Contains(got.Note, "not asked: it leads out") {
		t.Errorf("act: %+v", got)
	}
}
