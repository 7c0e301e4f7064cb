package orders_test

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/orders"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

func project(t *testing.T) *vault.Project {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func order(site string) execute.Order {
	return execute.Order{
		Action: failover.Act, Run: "move", Plan: "shop", Verb: plan.Switchover, Site: site, From: site, To: "west",
		Step:  plan.Step{Name: "quiesce/shop", Kind: plan.KindQuiesce, Application: "shop", Timeout: time.Minute},
		Token: failover.Token{Run: "move", Sequence: 7, Epochs: map[string]int64{"shop": 3}},
	}
}

func keys(t *testing.T, p *vault.Project) []string {
	t.Helper()
	var all []string
	for _, prefix := range []string{"orders/", "answers/"} {
		err := p.Store().List(t.Context(), p.Root()+prefix, func(o vault.ObjectInfo) error {
			all = append(all, strings.TrimPrefix(o.Key, p.Root()))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// sent waits until an order lies in the vault.
func sent(t *testing.T, p *vault.Project) {
	t.Helper()
	for len(keys(t, p)) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("no order came")
		}
		runtime.Gosched()
	}
}

func TestAnOrderIsAnsweredOnce(t *testing.T) {
	p := project(t)
	var got execute.Order
	var times atomic.Int32
	r := &orders.Receiver{Project: p, Site: "east", Actuator: execute.Func(func(_ context.Context, o execute.Order) execute.Answer {
		times.Add(1)
		got = o
		return execute.Answer{Outcome: failover.Done, Note: "rests", Proof: &failover.Proof{Application: "shop", Site: "east", Epoch: 3, How: "stopped"}}
	})}
	other := &orders.Receiver{Project: p, Site: "north", Actuator: execute.Func(func(context.Context, execute.Order) execute.Answer {
		t.Error("carried out at another site")
		return execute.Done("")
	})}
	done := make(chan execute.Answer)
	go func() { done <- orders.Sender{Project: p}.Do(t.Context(), order("east")) }()
	sent(t, p)
	for _, site := range []*orders.Receiver{other, r, r} {
		if _, err := site.Poll(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		site.Wait()
	}
	answer := <-done
	if answer.Outcome != failover.Done || answer.Proof == nil || answer.Proof.Epoch != 3 || times.Load() != 1 {
		t.Errorf("answer %+v after %d times", answer, times.Load())
	}
	if got.Token.Sequence != 7 || got.Token.Epochs["shop"] != 3 || got.Step.Name != "quiesce/shop" || got.Step.Timeout != time.Minute {
		t.Errorf("the order arrived as %+v", got)
	}
	if left := keys(t, p); len(left) != 0 {
		t.Errorf("left in the vault: %v", left)
	}
}

func TestSilence(t *testing.T) {
	p := project(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	answer := orders.Sender{Project: p}.Do(ctx, order("east"))
	if answer.Outcome != failover.NoAnswer || !strings.Contains(answer.Note, "site east did not answer") {
		t.Errorf("answer %+v", answer)
	}
	// A site that comes back finds nothing to do.
	if left := keys(t, p); len(left) != 0 {
		t.Errorf("left in the vault: %v", left)
	}
}

// A step of people's that names no application is about all of the run.
func TestAnOrderAboutAllOfTheRun(t *testing.T) {
	p := project(t)
	o := order("east")
	o.Step.Application = ""
	done := make(chan execute.Answer)
	go func() { done <- orders.Sender{Project: p}.Do(t.Context(), o) }()
	sent(t, p)
	r := &orders.Receiver{Project: p, Site: "east", Actuator: execute.Func(func(context.Context, execute.Order) execute.Answer { return execute.Done("suspended") })}
	if _, err := r.Poll(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	r.Wait()
	if answer := <-done; answer.Note != "suspended" {
		t.Errorf("%+v", answer)
	}
}

// TestAWithdrawnOrderIsWorkedOnNoMore: who rolls a run back waits for no order that is under way at a site,
// and what takes the step back begins there only when that has ended. The control is one that is still wanted.
func TestAWithdrawnOrderIsWorkedOnNoMore(t *testing.T) {
	p := project(t)
	wanted, forget := context.WithCancel(t.Context())
	works, release := make(chan context.Context, 1), make(chan struct{})
	r := &orders.Receiver{Project: p, Site: "east", Actuator: execute.Func(func(ctx context.Context, _ execute.Order) execute.Answer {
		works <- ctx
		select {
		case <-ctx.Done():
		case <-release:
		}
		return execute.Unknown("it still runs")
	})}
	done := make(chan execute.Answer)
	go func() { done <- orders.Sender{Project: p}.Do(wanted, order("east")) }()
	sent(t, p)
	poll := func() {
		t.Helper()
		if _, err := r.Poll(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	poll()
	work := <-works
	if poll(); work.Err() != nil {
		t.Errorf("the work on an order that is wanted was ended: %v", context.Cause(work))
	}
	forget()
	<-done
	if poll(); work.Err() == nil {
		t.Error("the work goes on")
		close(release)
	}
	r.Wait()
	if left := keys(t, p); len(left) != 0 {
		t.Errorf("left in the vault: %v", left)
	}
}

// An order that got into the vault without an answer is withdrawn as well: whoever sent it goes
// on as if nobody had it.
func TestAnOrderWithoutAnAnswerOfTheVaultIsWithdrawn(t *testing.T) {
	p := project(t)
	deaf := p.Over(func(s vault.Store) vault.Store { return fault.New(s, 1, fault.Faults{Lose: 1}) })
	if a := (orders.Sender{Project: deaf}).Do(t.Context(), order("east")); a.Outcome != failover.NoAnswer {
		t.Fatalf("it answers %+v", a)
	}
	if left := keys(t, p); len(left) != 0 {
		t.Errorf("left in the vault, for the site to carry out: %v", left)
	}
}

// An agent that dies at its work leaves the order to the next one.
func TestAnAgentThatDiesLeavesTheOrder(t *testing.T) {
	p := project(t)
	done := make(chan execute.Answer)
	go func() { done <- orders.Sender{Project: p}.Do(t.Context(), order("east")) }()
	sent(t, p)
	dying, kill := context.WithCancel(t.Context())
	first := &orders.Receiver{Project: p, Site: "east", Actuator: execute.Func(func(ctx context.Context, _ execute.Order) execute.Answer {
		<-ctx.Done()
		return execute.Refuse("the process ends")
	})}
	if _, err := first.Poll(dying, time.Minute); err != nil {
		t.Fatal(err)
	}
	kill()
	first.Wait()
	second := &orders.Receiver{Project: p, Site: "east", Actuator: execute.Func(func(context.Context, execute.Order) execute.Answer {
		return execute.Done("the second did it")
	})}
	if n, err := second.Poll(t.Context(), time.Minute); err != nil || n != 1 {
		t.Fatalf("%d orders, %v", n, err)
	}
	second.Wait()
	if answer := <-done; answer.Note != "the second did it" {
		t.Errorf("answer %+v", answer)
	}
}

func TestOneOrderIsCarriedOutOnceAtATime(t *testing.T) {
	p := project(t)
	done := make(chan execute.Answer)
	go func() { done <- orders.Sender{Project: p}.Do(t.Context(), order("east")) }()
	sent(t, p)
	var at atomic.Int32
	release := make(chan struct{})
	r := &orders.Receiver{Project: p, Site: "east", Actuator: execute.Func(func(context.Context, execute.Order) execute.Answer {
		at.Add(1)
		<-release
		return execute.Done("")
	})}
	for range 3 {
		if _, err := r.Poll(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	r.Wait()
	if answer := <-done; answer.Outcome != failover.Done || at.Load() != 1 {
		t.Errorf("%+v, carried out %d times", answer, at.Load())
	}
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"newer":         `{"formatVersion": 2, "order": {"action": "act", "run": "move", "site": "east"}}`,
		"no json":       `{`,
		"other action":  `{"formatVersion": 1, "order": {"action": "explode", "run": "move", "site": "east"}}`,
		"another site":  `{"formatVersion": 1, "within": 60000000000, "order": {"action": "act", "run": "move", "step": {"application": "shop"}, "site": "west"}}`,
		"a path":        `{"formatVersion": 1, "within": 60000000000, "order": {"action": "act", "run": "../x", "step": {"application": "shop"}, "site": "east"}}`,
		"another's run": `{"formatVersion": 1, "within": 60000000000, "order": {"action": "act", "run": "other", "step": {"application": "shop"}, "site": "east"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := project(t)
			if err := p.WriteSealedOnce(t.Context(), p.Root()+"orders/east/move.1", []byte(content)); err != nil {
				t.Fatal(err)
			}
			r := &orders.Receiver{Project: p, Site: "east", Actuator: execute.Func(func(context.Context, execute.Order) execute.Answer {
				t.Error("carried out")
				return execute.Done("")
			})}
			if _, err := r.Poll(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			r.Wait()
			data, err := p.ReadSealed(t.Context(), p.Root()+"answers/east/move.1")
			if err != nil || !strings.Contains(string(data), string(failover.Refused)) {
				t.Errorf("answered %s, %v", data, err)
			}
		})
	}
}

// An executor that died with its order in the vault: whoever comes back after its
// time does nothing for it.
func TestAnOrderThatNobodyWaitsForIsForgotten(t *testing.T) {
	for name, test := range map[string]struct {
		later time.Duration
		want  int32
	}{"in time": {30 * time.Second, 1}, "days later": {48 * time.Hour, 0}} {
		t.Run(name, func(t *testing.T) {
			clock := time.Now()
			key, err := vault.NewIdentity()
			if err != nil {
				t.Fatal(err)
			}
			p, err := vault.CreateProject(t.Context(), mem.New(func() time.Time { return clock }), "default", key.Recipient())
			if err != nil {
				t.Fatal(err)
			}
			text := `{"formatVersion": 1, "within": 60000000000, "order": {"action": "act", "run": "move", "step": {"application": "shop"}, "site": "east"}}`
			if err := p.WriteSealedOnce(t.Context(), p.Root()+"orders/east/move.1", []byte(text)); err != nil {
				t.Fatal(err)
			}
			clock = clock.Add(test.later)
			var times atomic.Int32
			r := &orders.Receiver{Project: p, Site: "east", Actuator: execute.Func(func(context.Context, execute.Order) execute.Answer {
				times.Add(1)
				return execute.Done("")
			})}
			if _, err := r.Poll(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			r.Wait()
			for _, left := range keys(t, p) {
				if strings.HasPrefix(left, "orders/") {
					t.Errorf("left: %s", left)
				}
			}
			if times.Load() != test.want {
				t.Errorf("carried out %d times", times.Load())
			}
		})
	}
}

func TestAnswersThatNobodyReadsGo(t *testing.T) {
	clock := time.Now()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(func() time.Time { return clock }), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	r := &orders.Receiver{Project: p, Site: "east"}
	if err := p.WriteSealedOnce(t.Context(), p.Root()+"answers/east/move.1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for hours, want := range map[time.Duration]int{0: 1, 25: 0} {
		clock = clock.Add(hours * time.Hour)
		if err := r.Sweep(t.Context()); err != nil || hours == 25 && len(keys(t, p)) != want {
			t.Errorf("after %d hours: %v, %v", hours, keys(t, p), err)
		}
	}
}
