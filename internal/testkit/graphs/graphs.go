// Package graphs orders the small plans that the simulator's runs go by.
package graphs

import (
	"sync"
	"time"

	"davit.dev/davit/internal/plan"
)

// made are kept: schedules differ in few ways.
var made sync.Map

type key struct {
	apps  int
	verb  plan.Verb
	lease bool
	has   Has
}

// Has is what plans have beside applications: a gate for clients, steps that run beside the claims, a call of
// what is outside of all sites, and steps that ask people.
type Has struct{ Gate, Early, Call, Asks bool }

// Of orders a plan of applications, each of which comes after the one before it. A fence
// with a lease makes it one that is declared automatically.
func Of(apps []string, verb plan.Verb, fence plan.Fence, has Has) []plan.Step {
	k := key{len(apps), verb, fence.Lease > 0, has}
	if steps, ok := made.Load(k); ok {
		return steps.([]plan.Step)
	}
	p := &plan.Plan{
		Name: "p", Sites: []plan.Site{{Name: "east"}, {Name: "west"}},
		Fence:  fence,
		Limits: map[plan.Kind]time.Duration{plan.KindRestore: time.Minute, plan.KindSync: time.Minute, plan.KindReady: time.Minute, plan.KindCatchUp: time.Minute, plan.KindCleanup: time.Minute},
		Steps: []plan.Step{
			{Name: "once", Kind: plan.KindCommand, Command: &plan.Command{Image: "x"}, Application: "a", Timeout: 30 * time.Second, After: []string{"apply/a"}, Before: []string{"scale/a"}, Verbs: []plan.Verb{plan.Failover, plan.Switchover}},
		},
	}
	for i, app := range apps {
		p.Applications = append(p.Applications, plan.Application{Name: app})
		if i > 0 {
			p.Applications[i].After = []string{apps[i-1]}
		}
	}
	moves, does := []plan.Verb{plan.Failover, plan.Switchover, plan.Failback}, &plan.Command{Image: "x"}
	if has.Early {
		p.Steps = append(p.Steps, beside(apps)...)
	}
	if has.Call {
		p.Steps = append(p.Steps, plan.Step{Name: "pool", Kind: plan.KindHTTP, Call: &plan.Call{Method: "POST", URL: "https://lb.example.com/", Expect: 200}, Application: "a", Undo: does, Timeout: 30 * time.Second, After: []string{"ready/a"}, Verbs: moves})
	}
	if has.Asks {
		p.Steps = append(p.Steps,
			plan.Step{Name: "allowed", Kind: plan.KindApproval, Prompt: "go on?", Approvers: &plan.Approval{Count: 2}, Application: "a", After: []string{"data/a"}, Before: []string{"scale/a"}, Timeout: time.Hour, Verbs: moves},
			plan.Step{Name: "by-hand", Kind: plan.KindManual, Prompt: "turn the key", Application: "a", After: []string{"scale/a"}, Before: []string{"ready/a"}, Timeout: time.Hour, Verbs: moves})
	}
	if has.Gate {
		p.Traffic = []plan.Traffic{
			{Name: "all", Kind: plan.KindGate, Object: "gate"},
			{Name: "name", Kind: plan.KindDNS, Object: "www.example.com", Record: &plan.Record{Zone: "example.com", Secret: "key", Servers: []plan.NameServer{{Address: "192.0.2.53"}}, To: map[string][]string{"east": {"192.0.2.1"}, "west": {"192.0.2.2"}}}},
		}
	}
	if k.lease {
		p.Declaration = plan.Declaration{Automatic: true, Vantages: []string{"x", "y", "z"}, Agree: 2, For: time.Minute, Block: time.Hour}
	}
	g, err := p.Graph(verb)
	if err != nil {
		panic(err) // the plan above is right
	}
	made.Store(k, g.Steps)
	return g.Steps
}

// beside are steps that run beside claims: what all applications need at the target, what
// one of them needs, made once another is claimed, and what keeps git still at the source.
func beside(apps []string) []plan.Step {
	does, last := &plan.Command{Image: "x"}, apps[len(apps)-1]
	moves := []plan.Verb{plan.Failover, plan.Switchover, plan.Failback}
	return []plan.Step{
		{Name: "network", Kind: plan.KindInfra, Early: true, Command: does, Undo: does, Timeout: time.Minute, Before: []string{"data/" + last}, Verbs: moves},
		{Name: "warm", Kind: plan.KindCommand, Early: true, Application: last, Command: does, Undo: does, Timeout: time.Minute, After: []string{"claim/" + apps[0]}, Before: []string{"scale/" + last}, Verbs: moves},
		{Name: "git", Kind: plan.KindSuspend, Side: plan.Source, Application: apps[0], Object: "kustomizations.kustomize.toolkit.fluxcd.io/flux-system/a", Timeout: time.Minute, Before: []string{"quiesce/" + apps[0]}, Verbs: []plan.Verb{plan.Switchover, plan.Failback}},
	}
}
