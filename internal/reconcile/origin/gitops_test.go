package origin_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/reconcile/origin"
)

const (
	inFlux = plan.Kustomizations + "/flux-system/shop"
	inTeam = plan.HelmReleases + "/team/shop"
)

// git is a source at which something makes objects from git, and what it was told.
type git struct {
	*cluster
	told      []string
	suspended bool
}

func withGit(t *testing.T, status v1alpha1.ApplicationStatus) *git {
	t.Helper()
	g := &git{cluster: source(t, status)}
	g.site = origin.New(origin.Options{
		Client: g.Client, Site: "east", Marks: &execute.Memory{}, Vault: "main", LookEvery: time.Millisecond,
		Reconcilers: execute.Func(func(_ context.Context, o execute.Order) execute.Answer {
			if o.Action == failover.Look {
				if g.suspended == (o.Step.Kind == plan.KindSuspend) {
					return execute.Done("")
				}
				return execute.NotDone("")
			}
			g.told = append(g.told, string(o.Action)+" "+string(o.Step.Kind)+" "+o.Step.Object)
			g.suspended = (o.Step.Kind == plan.KindSuspend) == (o.Action == failover.Act)
			return execute.Done("")
		}),
	})
	return g
}

// give gives an order about an object, for applications at their epochs. It ends
// early when what it waits for does not come.
func (g *git) give(kind plan.Kind, action failover.Action, object string, epochs map[string]int64) execute.Answer {
	o := g.order(kind, action, 1)
	o.Step = plan.Step{Name: "off", Kind: kind, Object: object, Side: plan.Source}
	o.Token.Epochs = epochs
	ctx, cancel := context.WithTimeout(g.t.Context(), 30*time.Millisecond)
	defer cancel()
	return g.site.Do(ctx, o)
}

func at(epoch int64) map[string]int64 { return map[string]int64{"shop": epoch} }

func TestGitOpsAtTheSource(t *testing.T) {
	g := withGit(t, active())
	g.want("look", g.give(plan.KindSuspend, failover.Look, inFlux, at(1)), failover.NotDone, "")
	g.want("suspend", g.give(plan.KindSuspend, failover.Act, inFlux, at(1)), failover.Done, "")
	g.want("look", g.give(plan.KindSuspend, failover.Look, inFlux, at(1)), failover.Done, "")
	g.want("undo", g.give(plan.KindSuspend, failover.Undo, inFlux, at(1)), failover.Done, "")
	g.want("resume", g.give(plan.KindResume, failover.Act, inFlux, at(1)), failover.Done, "")
	if want := []string{"act suspend " + inFlux, "undo suspend " + inFlux, "act resume " + inFlux}; !slices.Equal(g.told, want) {
		t.Errorf("told %q", g.told)
	}
}

// TestGitOpsAndEpochs: what starts nothing is done whatever epoch is known, what may
// start something is not.
func TestGitOpsAndEpochs(t *testing.T) {
	g := withGit(t, v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, Epoch: 2})
	g.want("suspend, ordered before the claim", g.give(plan.KindSuspend, failover.Act, inFlux, at(1)), failover.Done, "")
	g.want("resume", g.give(plan.KindResume, failover.Act, inFlux, at(1)), failover.Superseded, "epoch 2")
	g.want("undo, the claim was not seen to be given back", g.give(plan.KindSuspend, failover.Undo, inFlux, at(3)), failover.NoAnswer, "stays suspended")
	g.want("undo, somebody claimed since", g.give(plan.KindSuspend, failover.Undo, inFlux, at(1)), failover.Superseded, "epoch 2 of shop")
	if !g.suspended {
		t.Error("what starts the application from git goes on at a superseded site")
	}
	g.becomes(func(s *v1alpha1.ApplicationStatus) { s.Role, s.Epoch = v1alpha1.RoleActive, 3 })
	g.want("undo", g.give(plan.KindSuspend, failover.Undo, inFlux, at(3)), failover.Done, "")
	if g.suspended {
		t.Error("it stays suspended")
	}
}

// TestGitOpsAndAnotherRunsHold: a run that comes back late lets git go on at the source while another
// one has captured the last write there and not claimed yet.
func TestGitOpsAndAnotherRunsHold(t *testing.T) {
	for holder, want := range map[string]failover.Outcome{"next": failover.Superseded, "move": failover.Done, "move,next": failover.Superseded, "": failover.Done} {
		g := withGit(t, active())
		app := g.app()
		app.Annotations = map[string]string{v1alpha1.AnnotationHeldBy: holder}
		if err := g.Update(t.Context(), app); err != nil {
			t.Fatal(err)
		}
		g.want("suspend", g.give(plan.KindSuspend, failover.Act, inFlux, at(1)), failover.Done, "")
		note := ""
		if want == failover.Superseded {
			note = "run next holds shop"
		}
		g.want("undo, held by "+holder, g.give(plan.KindSuspend, failover.Undo, inFlux, at(1)), want, note)
		if g.suspended != (want == failover.Superseded) {
			t.Errorf("held by %q: suspended is %v", holder, g.suspended)
		}
	}
}

// An order of before the newest one is not carried out any more.
func TestGitOpsThatAged(t *testing.T) {
	g := withGit(t, active())
	late := g.order(plan.KindSuspend, failover.Act, 1)
	late.Step = plan.Step{Name: "off", Kind: plan.KindSuspend, Object: inFlux}
	g.want("suspend", g.give(plan.KindSuspend, failover.Act, inFlux, at(1)), failover.Done, "")
	g.want("undo", g.give(plan.KindSuspend, failover.Undo, inFlux, at(1)), failover.Done, "")
	g.want("late", g.site.Do(t.Context(), late), failover.NoAnswer, "old")
	if g.suspended {
		t.Error("a late order suspended it again")
	}
}

func TestGitOpsOfOthersIsRefused(t *testing.T) {
	g := withGit(t, active())
	team := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "shop"}, Spec: v1alpha1.ApplicationSpec{Vault: "main"}}
	if err := g.Create(t.Context(), team); err != nil {
		t.Fatal(err)
	}
	theirs := map[string]int64{"team.shop": 1}
	for name, c := range map[string]struct {
		object string
		epochs map[string]int64
		why    string
	}{
		"of another namespace":        {inFlux, theirs, "one of theirs"},
		"of no namespace":             {plan.ArgoCD + "/shop", theirs, "one of theirs"},
		"an application of elsewhere": {inFlux, map[string]int64{"shop": 1, "other": 1}, "no application other"},
		"nothing of the kind":         {"deployments.apps/shop/web", at(1), "nothing that makes objects from git"},
		"no application":              {inFlux, nil, "names no epoch"},
		"one without epoch":           {inFlux, map[string]int64{"shop": 1, "team.shop": 0}, "names no epoch"},
	} {
		for _, kind := range []plan.Kind{plan.KindSuspend, plan.KindResume} {
			g.want(name, g.give(kind, failover.Act, c.object, c.epochs), failover.Refused, c.why)
		}
	}
	if len(g.told) > 0 {
		t.Errorf("told %q", g.told)
	}
	g.want("the team's own", g.give(plan.KindSuspend, failover.Act, inTeam, theirs), failover.Done, "")
	g.site = origin.New(origin.Options{Client: g.Client, Site: "east", Marks: &execute.Memory{}, Vault: "theirs"})
	got := g.give(plan.KindSuspend, failover.Act, inTeam, theirs)
	if got.Outcome != failover.Refused || !strings.Contains(got.Note, "one version of davit") {
		t.Errorf("%+v", got)
	}
}
