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
	apps         int
	verb         plan.Verb
	lease, gated bool
	early        bool
}

// Of orders a plan of applications, each of which comes after the one before it. A fence
// with a lease makes it one that is declared automatically. Gated, it has a gate for
// clients; early, it has steps that run beside the claims.
func Of(apps []string, verb plan.Verb, fence plan.Fence, gated, early bool) []plan.Step {
	k := key{len(apps), verb, fence.Lease > 0, gated, early}
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
	if early {
		p.Steps = append(p.Steps, beside(apps)...)
	}
	if gated {
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
