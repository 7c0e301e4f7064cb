package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
)

// within is how long a run may take to do what it was asked.
const within = time.Minute

type surveyor struct{}

func (surveyor) Evaluate(context.Context, failover.Spec) (*failover.Facts, error) {
	return &failover.Facts{}, nil
}

func (surveyor) Verify(context.Context, *failover.State) (failover.Outcome, string, string) {
	return failover.Done, "", ""
}

// carried begins a drill that anna asked for at the console, which two others must
// approve, and has an executor carry it until the test ends.
func (w *world) carried(name string) (ended <-chan failover.Phase) {
	w.t.Helper()
	p, err := vault.OpenProject(w.t.Context(), w.vaults["mem:acme"], "acme", w.keys["acme"])
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := failover.New("exec", failover.Spec{
		Run: name, Plan: "shop", Verb: plan.Drill, To: "west", By: "anna@console/acme", At: w.now, Accept: failover.TimedOut, Applications: []string{"shop"}, Approvals: 2,
		Steps: []plan.Step{
			{Name: "sandbox", Kind: plan.KindSandbox, Timeout: time.Minute},
			{Name: "call", Kind: plan.KindManual, Prompt: "Call the staff", Timeout: time.Hour, After: []string{"sandbox"}},
			{Name: "cleanup", Kind: plan.KindCleanup, Timeout: time.Minute, After: []string{"call"}},
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	var mu sync.Mutex
	done := map[string]bool{}
	act := execute.Func(func(_ context.Context, o execute.Order) execute.Answer {
		mu.Lock()
		defer mu.Unlock()
		if o.Action == failover.Look && !done[o.Step.Name] {
			return execute.NotDone("")
		}
		done[o.Step.Name] = true
		return execute.Done("")
	})
	ctx, cancel := context.WithCancel(context.Background())
	over, gone := make(chan failover.Phase, 1), make(chan struct{})
	go func() {
		defer close(gone)
		s, err := execute.New(execute.Options{Run: name, Machine: m, Journal: journal.Create(p, name, "exec"), Actuator: act, Survey: surveyor{}, Requests: mailbox.New(p)}).Run(ctx)
		if err == nil {
			over <- s.Phase
		}
	}()
	w.t.Cleanup(func() { cancel(); <-gone })
	return over
}

// wants asks something of a run by the API.
func (w *world) wants(token, run, id, more string, code int, says string) (a steer.Asked) {
	w.t.Helper()
	got, text := w.call(token, "POST", "/projects/acme/runs/"+run+"/requests", fmt.Sprintf(`{"id":%q,%s}`, id, more))
	if got != code || !strings.Contains(text, says) {
		w.t.Fatalf("%s: %d %s, want %d and %q", more, got, text, code, says)
	}
	if code == http.StatusCreated {
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			w.t.Fatal(err)
		}
		consoletest.Until(w.t, "answered", func() (bool, string) {
			got, text := w.call(token, "GET", fmt.Sprintf("/projects/acme/runs/%s/requests/%d", run, a.Number), "")
			if got != http.StatusOK || json.Unmarshal([]byte(text), &a) != nil {
				w.t.Fatal(got, text)
			}
			return a.Answered, text
		})
	}
	return a
}

// stands waits until a run takes a kind of request from whoever has the token.
func (w *world) stands(token, run string, kind failover.EventKind) api.RunStanding {
	w.t.Helper()
	var s api.RunStanding
	consoletest.Until(w.t, "taking "+string(kind), func() (bool, string) {
		s = api.RunStanding{}
		code, text := w.call(token, "GET", "/projects/acme/runs/"+run, "")
		if code != http.StatusNotFound && (code != http.StatusOK || json.Unmarshal([]byte(text), &s) != nil) {
			w.t.Fatal(code, text)
		}
		return slices.ContainsFunc(s.Offers, func(o failover.Offer) bool { return o.Kind == kind }), text
	})
	return s
}

// Two people approve at the console what a third asked for there; viewers and
// operators do not, nor who asked, nor his robot. Whoever may protect steers a drill.
func TestSteer(t *testing.T) {
	w := newWorld(t)
	over := w.carried("drill-shop-9")
	anna, bob, vera := w.login("anna"), w.login("bob"), w.login("vera")
	const run, approve = "drill-shop-9", `"kind":"approve"`
	role := func(name, role string) {
		if code, text := w.call(anna, "PUT", "/projects/acme/members/"+name, `{"role":"`+role+`"}`); code != http.StatusOK {
			t.Fatal(code, text)
		}
	}
	w.stands(anna, run, failover.Approve)
	w.wants(bob, run, "a", approve, http.StatusNotFound, "") // of another project
	w.wants(vera, run, "a", approve, http.StatusForbidden, "the role viewer has not")
	w.wants(vera, run, "a", `"kind":"pause"`, http.StatusForbidden, "the role viewer has not")
	role("bob", "operator")
	w.wants(bob, run, "a", approve, http.StatusForbidden, "the role operator has not")
	w.wants(w.robot(anna, "acme", `"read","protect"`), run, "a", `"kind":"pause"`, http.StatusForbidden, "has not the scope recover")
	if a := w.wants(w.robot(anna, "acme", `"read","recover"`), run, "a", approve, http.StatusCreated, ""); !strings.Contains(a.Refused, "whoever asked") {
		t.Errorf("her robot: %+v", a)
	}
	if a := w.wants(anna, run, "a", approve, http.StatusCreated, ""); !strings.Contains(a.Refused, "whoever asked for the run cannot approve it") {
		t.Errorf("who asked: %+v", a)
	}
	w.wants(bob, run, "", `"kind":"pause"`, http.StatusUnprocessableEntity, "id is 1 to 64")
	w.wants(bob, run, "b", `"kind":"commit"`, http.StatusUnprocessableEntity, "does not take")
	role("bob", "recoverer")
	first := w.wants(bob, run, "c", approve, http.StatusCreated, "")
	if again := w.wants(bob, run, "c", approve, http.StatusCreated, ""); first.Refused != "" || again != first {
		t.Errorf("the same again: %+v, then %+v", first, again)
	}
	if a := w.wants(bob, run, "d", approve, http.StatusCreated, ""); !strings.Contains(a.Refused, "has approved it already") {
		t.Errorf("he counts once: %+v", a)
	}
	role("vera", "recoverer")
	if a := w.wants(vera, run, "a", approve, http.StatusCreated, ""); a.Refused != "" || a.By != "vera@console/acme" {
		t.Errorf("%+v", a)
	}
	role("bob", "operator")
	w.stands(bob, run, failover.Answer)
	if a := w.wants(bob, run, "e", `"kind":"answer","step":"call","note":"they know"`, http.StatusCreated, ""); a.Refused != "" {
		t.Errorf("%+v", a)
	}
	select {
	case phase := <-over:
		if phase != failover.Completed {
			t.Errorf("the run is %s", phase)
		}
	case <-time.After(within):
		t.Fatal("the run does not end")
	}
	w.wants(bob, run, "f", `"kind":"pause"`, http.StatusUnprocessableEntity, "the run is over: Completed")
	w.wants(bob, run, "../x", `"kind":"pause"`, http.StatusUnprocessableEntity, "id is 1")
	_, text := w.call(anna, "GET", "/projects/acme/audit", "")
	if strings.Count(text, `"action":"run.approve"`) != 5 || !strings.Contains(text, `"action":"run.answer","object":"drill-shop-9","detail":"call they know"`) {
		t.Errorf("the audit log has %s", text)
	}
}
