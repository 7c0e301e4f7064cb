package standby

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/vault"
)

// TestWhoStoodStillTurnsNoGate: a process stands still when it has read which run has the gate
// open, and another carries its run on, or rolls it back, and another run begins. The
// controls are those of which nothing happens meanwhile.
func TestWhoStoodStillTurnsNoGate(t *testing.T) {
	type deed struct {
		action failover.Action
		run    string
		n      int64
	}
	for name, c := range map[string]struct {
		before, late deed // late stands still
		meanwhile    []deed
		open         string // in the end
		outcome      failover.Outcome
	}{
		"opens, alone": {late: deed{failover.Act, "one", 5}, open: "one", outcome: failover.Done},
		"opens what was taken back": {
			late: deed{failover.Act, "one", 5}, meanwhile: []deed{{failover.Undo, "one", 8}}, outcome: failover.NoAnswer,
		},
		"opens what another run has": {
			late: deed{failover.Act, "one", 5}, meanwhile: []deed{{failover.Undo, "one", 8}, {failover.Act, "two", 3}}, open: "two", outcome: failover.NoAnswer,
		},
		"closes, alone": {before: deed{failover.Act, "one", 4}, late: deed{failover.Undo, "one", 5}, outcome: failover.Done},
		"closes what another run has": {
			before: deed{failover.Act, "one", 4}, late: deed{failover.Undo, "one", 5}, meanwhile: []deed{{failover.Act, "two", 3}}, open: "two", outcome: failover.Done,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, fenced("true"))
			m.objects[keyOf(kindApplication, "davit-system", "shop")].SetResourceVersion("1")
			s, _ := returning(t, m)
			successor, _ := returning(t, m)
			do := func(s *Site, d deed) execute.Answer {
				return (&execute.Aged{Inner: execute.Func(s.gate), Marks: s.marks}).Do(t.Context(), gated(d.action, d.run, d.n))
			}
			if c.before.run != "" {
				do(s, c.before)
			}
			c0 := dozing{memory: m}
			s.o.Recovery.Cluster = &c0
			c0.doze = func() {
				c0.doze = nil
				for _, d := range c.meanwhile {
					if got := do(successor, d); got.Outcome != failover.Done {
						t.Errorf("%+v: %+v", d, got)
					}
				}
			}
			got := do(s, c.late)
			open := m.objects[keyOf(kindApplication, "davit-system", "shop")].GetAnnotations()[v1alpha1.AnnotationGate+"www"]
			if got.Outcome != c.outcome || open != c.open {
				t.Errorf("%+v, open by %q; want %s, open by %q", got, open, c.outcome, c.open)
			}
		})
	}
}

// TestWhoStoodStillCallsNobody: a process stands still when its order was noted and before its call is sent,
// and another looks what came of it, calls itself, or somebody claims the application. The control is that of
// which nothing happens meanwhile. Whoever is called hears whose order it is.
func TestWhoStoodStillCallsNobody(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, order func(*Site, failover.Action, int64) execute.Answer, successor *Site, p *vault.Project)
		outcome   failover.Outcome
		note      string
		told      []string // of the calls that arrived
	}{
		"alone": {outcome: failover.Done, told: []string{"one 5 shop=2"}},
		"looked at": {
			meanwhile: func(t *testing.T, order func(*Site, failover.Action, int64) execute.Answer, successor *Site, _ *vault.Project) {
				if got := order(successor, failover.Look, 5); got.Outcome != failover.NoAnswer {
					t.Errorf("look: %+v", got)
				}
			},
			outcome: failover.NoAnswer, note: "order 5 is old: nothing was sent",
		},
		"called by another": {
			meanwhile: func(t *testing.T, order func(*Site, failover.Action, int64) execute.Answer, successor *Site, _ *vault.Project) {
				if got := order(successor, failover.Act, 7); got.Outcome != failover.Done {
					t.Errorf("act: %+v", got)
				}
			},
			outcome: failover.NoAnswer, note: "order 5 is old: nothing was sent", told: []string{"one 7 shop=2"},
		},
		"claimed": {
			meanwhile: func(t *testing.T, _ func(*Site, failover.Action, int64) execute.Answer, _ *Site, p *vault.Project) {
				if _, err := lease.New(p).Claim(t.Context(), "shop", 3, lease.Claim{Site: "west", Cluster: "w", Request: "two", At: time.Now()}); err != nil {
					t.Error(err)
				}
			},
			outcome: failover.Superseded, note: "epoch 3 of shop is known here",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				told = append(told, strings.Join([]string{r.Header.Get("Davit-Run"), r.Header.Get("Davit-Order"), r.Header.Get("Davit-Epochs")}, " "))
			}))
			defer server.Close()
			m := newMemory(t, pool)
			s, p := returning(t, m)
			successor := New(s.o)
			order := func(s *Site, a failover.Action, n int64) execute.Answer {
				o := gated(a, "one", n)
				o.Step = plan.Step{Name: "switch", Kind: plan.KindHTTP, Application: "shop", Timeout: time.Minute, Call: &plan.Call{
					Method: http.MethodPost, URL: server.URL, Expect: http.StatusOK, Headers: []plan.Header{{Name: "Authorization", From: &plan.SecretKey{Secret: "pool", Key: "token"}}},
				}}
				return s.Kinds()[plan.KindHTTP].Do(t.Context(), o)
			}
			asleep := dozing{memory: m}
			asleep.doze = func() {
				asleep.doze = nil
				if c.meanwhile != nil {
					c.meanwhile(t, order, successor, p)
				}
			}
			s.o.Recovery.Cluster = &asleep
			got := order(s, failover.Act, 5)
			if got.Outcome != c.outcome || !strings.Contains(got.Note, c.note) || !slices.Equal(told, c.told) {
				t.Errorf("%+v; told %q", got, told)
			}
		})
	}
}

// TestNodesKnowWhatGoesBack before it does: the epoch is on the Application when the step that
// started it, or that brought what may start by itself, is taken back. Data does not start.
func TestNodesKnowWhatGoesBack(t *testing.T) {
	for kind, want := range map[plan.Kind]string{plan.KindScale: "2", plan.KindApply: "2", plan.KindRestore: ""} {
		m := newMemory(t, fenced("true"))
		s, _ := returning(t, m)
		o := gated(failover.Undo, "one", 5)
		o.Step = plan.Step{Name: string(kind) + "/shop", Kind: kind, Application: "shop", Timeout: time.Minute}
		if got := s.restore(t.Context(), o); got.Outcome != failover.Done {
			t.Errorf("%s: %+v", kind, got)
		}
		if got := m.objects[keyOf(kindApplication, "davit-system", "shop")].GetAnnotations()[fence.AnnotationReturned]; got != want {
			t.Errorf("%s: given back: %q, want %q", kind, got, want)
		}
		o.From = "east" // in place
		m = newMemory(t, fenced("true"))
		s, _ = returning(t, m)
		if got := s.restore(t.Context(), o); got.Outcome != failover.Done || m.objects[keyOf(kindApplication, "davit-system", "shop")].GetAnnotations()[fence.AnnotationReturned] != "" {
			t.Errorf("%s of the site that has it: %+v", kind, got)
		}
	}
}

// TestAHoldIsLookedAt: whoever held a run and stood still finds that another has it. The control is
// one that nobody took.
func TestAHoldIsLookedAt(t *testing.T) {
	m := newMemory(t)
	s, _ := returning(t, m)
	held, release, err := s.Hold(t.Context(), "r", "one")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := hold.Still(held); err != nil {
		t.Errorf("nobody took it: %v", err)
	}
	if err := hold.Still(t.Context()); err != nil {
		t.Errorf("nothing is held: %v", err)
	}
	m.mu.Lock()
	lease := m.objects[keyOf(shape.KindLease, "davit-system", "run-r")]
	err = unstructured.SetNestedField(lease.Object, "two", "spec", "holderIdentity")
	m.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := hold.Still(held); !errors.Is(err, hold.ErrLost) {
		t.Errorf("another has it: %v", err)
	}
}
