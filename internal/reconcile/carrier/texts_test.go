package carrier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/register"
)

// mostMessage is what the API server takes in a condition.
const mostMessage = 32768

func tooLong(o *v1alpha1.Run) string {
	for _, c := range o.Status.Conditions {
		if n := utf8.RuneCountInString(c.Message); n > mostMessage || !utf8.ValidString(c.Message) {
			return fmt.Sprintf("condition %s has %d characters", c.Type, n)
		}
	}
	data, err := json.Marshal(o)
	if err != nil || len(data) > 1<<20 {
		return fmt.Sprintf("the object has %d bytes (%v)", len(data), err)
	}
	return ""
}

// The API server would refuse the status of a run that says too much, and the object would show
// for ever what it showed before.
func TestMuchToSay(t *testing.T) {
	text := strings.Repeat("höchst unerfreulich; ", 4000)
	s := failover.NewState()
	s.Spec = failover.Spec{Run: "r1", Plan: "shop", Verb: plan.Switchover, From: "east", To: "west"}
	for i := range 1000 {
		app := fmt.Sprintf("application-%d", i)
		s.Spec.Applications = append(s.Spec.Applications, app)
		step := plan.Step{Name: "fence/" + app, Kind: plan.KindFence, Application: app}
		s.Spec.Steps = append(s.Spec.Steps, step)
		s.Steps[step.Name] = &failover.StepState{Status: failover.Broke, Note: text}
	}
	waits := make([]string, 2*maxWaits)
	for i := range waits {
		waits[i] = text
	}
	for _, phase := range []failover.Phase{failover.Failed, failover.RolledBack, failover.RollbackFailed} {
		s.Phase, s.Why = phase, text
		var o v1alpha1.Run
		Status(&o, s, waits)
		if why := tooLong(&o); why != "" || !strings.HasPrefix(o.Status.Why, "höchst") {
			t.Errorf("%s: %s", phase, why)
		}
	}
}

// Nor is a refusal lost that has much to say: the order would be weighed anew for an hour.
func TestARefusalThatHasMuchToSay(t *testing.T) {
	r := newRig(t, shop(0), restore("r1"))
	for i := range 1000 {
		r.site.problems = append(r.site.problems, fmt.Sprintf("app-%d: the target has no storage class %q", i, strings.Repeat("s", 60)))
	}
	o := r.until(t, t.Context(), "r1", ended)
	if why := tooLong(o); why != "" || !strings.Contains(o.Status.Why, "app-0") {
		t.Errorf("%s: %.100s", why, o.Status.Why)
	}
}

// An order that cannot begin says why, and no more once it has begun or is refused.
func TestAnOrderSaysWhyItWaits(t *testing.T) {
	for name, problems := range map[string][]string{"begun": nil, "refused": {"no room"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, shop(0), restore("r1"))
			r.site.problems, r.site.fails = problems, errors.New("read epoch 1 of db: it is damaged")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := r.until(t, ctx, "r1", func(o *v1alpha1.Run) bool { return len(o.Status.WaitsFor) > 0 })
			if o.Status.Phase != "" || !strings.Contains(o.Status.WaitsFor[0], "it is damaged") {
				t.Errorf("%+v", o.Status)
			}
			cancel() // it would be tried again in a while
			r.working.Wait()
			r.site.mu.Lock()
			r.site.fails = nil
			r.site.mu.Unlock()
			r.later(time.Minute)
			if o = r.until(t, t.Context(), "r1", ended); len(o.Status.WaitsFor) > 0 {
				t.Errorf("it is over, and waits: %+v", o.Status)
			}
			if err := r.c.Client.Get(t.Context(), client.ObjectKey{Name: "r1"}, o); err != nil || (o.Status.Phase == "Completed") != (problems == nil) {
				t.Errorf("%v: %+v", err, o.Status)
			}
		})
	}
}

// A run whose executor has died, and that the agent cannot carry on, says so: else it would look like
// one that is under way.
func TestARunThatIsNotCarriedSaysWhy(t *testing.T) {
	r := newRig(t, shop(0))
	spec := failover.Spec{
		Run: "r1", Plan: "shop", Verb: plan.Restore, To: "west", By: "ann", At: time.Now().UTC(), Accept: failover.TimedOut, Applications: []string{"db"},
		Steps: []plan.Step{{Name: "claim/db", Kind: plan.KindClaim, Application: "db", Side: plan.Target, Timeout: time.Minute}},
	}
	if err := register.New(r.project).Begin(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC()
	opening := []failover.Entry{{Kind: failover.Opened, At: at, Spec: &spec}, {Kind: failover.Took, At: at, By: "cli"}}
	if err := journal.Create(r.project, "r1", "cli").Append(t.Context(), opening); err != nil {
		t.Fatal(err)
	}
	can := r.c.Target
	r.c.Target = func(context.Context, string, string) (Target, error) { return nil, errors.New("no such account") }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := r.until(t, ctx, "r1", func(o *v1alpha1.Run) bool { return len(o.Status.WaitsFor) > 0 })
	if o.Status.Phase != "Evaluating" || !strings.Contains(o.Status.WaitsFor[0], "cannot carry it, and tries again: no such account") {
		t.Errorf("%+v", o.Status)
	}
	cancel()
	r.working.Wait()
	r.c.Target = can
	r.later(time.Minute)
	if o = r.until(t, t.Context(), "r1", ended); o.Status.Phase != "Completed" || len(o.Status.WaitsFor) > 0 {
		t.Errorf("%+v", o.Status)
	}
}
