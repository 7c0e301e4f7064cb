package standby

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// disputed is a vault in which east held shop by epoch 1, and west has held it by
// epoch 2 for as long as held.
type disputed struct {
	t       *testing.T
	project *vault.Project
	now     time.Time
}

func dispute(t *testing.T, held time.Duration) *disputed {
	d := &disputed{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if d.project, err = vault.CreateProject(t.Context(), mem.New(func() time.Time { return d.now }), "default", id.Recipient()); err != nil {
		t.Fatal(err)
	}
	d.claim(1, "east")
	d.claim(2, "west")
	d.now = d.now.Add(held)
	return d
}

func (d *disputed) claim(n int64, site string) {
	d.t.Helper()
	c := lease.Claim{Site: site, Cluster: site[:1], Request: fmt.Sprintf("r%d", n), At: d.now}
	if _, err := lease.New(d.project).Claim(d.t.Context(), "shop", n, c); err != nil {
		d.t.Fatal(err)
	}
}

// says publishes what a site says of shop.
func (d *disputed) says(site, role string, epoch int64) {
	d.t.Helper()
	facts := &preflight.Site{Name: site, At: d.now, Roles: map[string]string{"shop": role}, Epochs: map[string]int64{"shop": epoch}}
	if err := bulletin.Publish(d.t.Context(), d.project, facts); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disputed) at(site string, m *memory) *Site {
	deps := recovery.Deps{Project: d.project, VaultName: "main", Site: site, ClusterID: site[:1], Now: func() time.Time { return d.now }}
	if m != nil {
		deps.Cluster = m
	}
	s := New(Options{Recovery: deps})
	s.check = func(context.Context, recovery.Options, recovery.Deps) (recovery.Report, error) {
		return recovery.Report{}, nil
	}
	return s
}

func (d *disputed) evaluate(s *Site, spec failover.Spec) *failover.Facts {
	d.t.Helper()
	spec.Applications = []string{"shop"}
	facts, err := s.Evaluate(d.t.Context(), spec)
	if err != nil {
		d.t.Fatal(err)
	}
	return facts
}

// TestARunSeesThatTwoSitesRunOneApplication, by what the one that holds no epoch
// publishes well after it was superseded; and begins nothing. What a lost site
// published while it held the application, which every failover finds, is no such
// thing.
func TestARunSeesThatTwoSitesRunOneApplication(t *testing.T) {
	away := failover.Spec{Verb: plan.Failover, From: "west", To: "north"}
	trusting := away
	trusting.Lost = []string{"west"}
	sure := away
	sure.Lost = []string{"east"}
	for name, c := range map[string]struct {
		held, since time.Duration // west has held it for held; east published it since
		role        string
		spec        failover.Spec
		split       bool
	}{
		"the superseded one says that it runs it":                 {10 * time.Minute, time.Minute, "Active", away, true},
		"planned moves, too":                                      {10 * time.Minute, time.Minute, "Active", failover.Spec{Verb: plan.Switchover, From: "west", To: "north"}, true},
		"it knows that it may not":                                {10 * time.Minute, time.Minute, "Superseded", away, false},
		"it said so before it was superseded, and was lost":       {10 * time.Minute, 11 * time.Minute, "Active", away, false},
		"it may not have read it yet":                             {10 * time.Minute, 8 * time.Minute, "Active", away, false},
		"it said so long ago, and is silent":                      {10 * time.Hour, preflight.Fresh + time.Minute, "Active", away, false},
		"somebody made sure that the holder has stopped":          {10 * time.Minute, time.Minute, "Active", trusting, false},
		"somebody made sure that the superseded one has":          {10 * time.Minute, time.Minute, "Active", sure, false},
		"a drill is beside all of them":                           {10 * time.Minute, time.Minute, "Active", failover.Spec{Verb: plan.Drill, To: "north"}, false},
		"negative control: the holder says that it runs it alone": {10 * time.Minute, -1, "", away, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := dispute(t, c.held)
			then := d.now
			d.says("west", "Active", 2)
			if c.since >= 0 {
				d.now = then.Add(-c.since)
				d.says("east", c.role, 1)
				d.now = then
			}
			facts := d.evaluate(d.at("north", nil), c.spec)
			if split := strings.Contains(facts.Split, "site west holds shop by epoch 2, and site east, which has heard of epoch 1"); split != c.split {
				t.Errorf("split: %q", facts.Split)
			}
		})
	}
}

// TestTheTargetsOwnClusterKnowsBetter than what it published.
func TestTheTargetsOwnClusterKnowsBetter(t *testing.T) {
	for role, split := range map[string]bool{"Superseded": false, "Active": true} {
		d := dispute(t, time.Hour)
		d.says("east", "Active", 1)
		m := newMemory(t, strings.Replace(fenced("true"), `"role":"Superseded"`, `"role":"`+role+`"`, 1))
		facts := d.evaluate(d.at("east", m), failover.Spec{Verb: plan.Failback, From: "west", To: "east"})
		if (facts.Split != "") != split {
			t.Errorf("%s here: %q", role, facts.Split)
		}
	}
}

// TestARunEndsWithOneSiteActive: when all is done it looks once more for another one,
// and for somebody who serves.
func TestARunEndsWithOneSiteActive(t *testing.T) {
	gate := plan.Step{Name: "lb", Kind: plan.KindGate, Object: "lb"}
	open := strings.Replace(fenced("true"), `"name":"shop"`, `"name":"shop","annotations":{"gate.davit.dev/lb":"%RUN%"}`, 1)
	lit, dark := []Entrance{{Node: "w2", Active: true}}, []Entrance{{Node: "w1", Why: "passive: it is fenced"}}
	for name, c := range map[string]struct {
		east     string // what it says
		gate     string // by which run it is open
		consents map[string]string
		nodes    []Entrance
		outcome  failover.Outcome
		split    bool
		note     string
	}{
		"one is active":                     {"Superseded", "over", nil, lit, failover.Done, false, ""},
		"the other one is, too":             {"Active", "over", nil, lit, failover.Done, true, ""},
		"the other one has surely stopped":  {"Active", "over", map[string]string{"east": "ann"}, lit, failover.Done, false, ""},
		"none is: somebody closed the gate": {"Superseded", "", nil, lit, failover.NotDone, false, "gate lb is not open on shop any more"},
		"a node lets nobody in":             {"Superseded", "over", nil, append(dark, lit...), failover.Done, false, ""},
		"no node lets anybody in":           {"Superseded", "over", nil, dark, failover.NotDone, false, "gate lb is open, but no load balancer finds shop here: node w1 says passive: it is fenced"},
		"no node can be asked":              {"Superseded", "over", nil, nil, failover.Done, false, "whether a load balancer finds shop here is not known: no node of this site answered"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dispute(t, 10*time.Minute)
			d.says("east", c.east, 1)
			m := newMemory(t, strings.Replace(open, "%RUN%", c.gate, 1))
			state := &failover.State{
				Spec:  failover.Spec{Run: "over", Verb: plan.Failover, From: "east", To: "west", Applications: []string{"shop"}, Steps: []plan.Step{gate}},
				Steps: map[string]*failover.StepState{"lb": {Status: failover.Succeeded}}, Consents: c.consents,
			}
			site := d.at("west", m)
			var paths []string
			site.o.Entrances = func(_ context.Context, path string) ([]Entrance, error) {
				paths = append(paths, path)
				return c.nodes, nil
			}
			site.patience = time.Millisecond
			outcome, note, split := site.Verify(t.Context(), state)
			if outcome != c.outcome || (split != "") != c.split || !strings.Contains(note, c.note) || c.note == "" && note != "" {
				t.Errorf("%v %q, split %q", outcome, note, split)
			}
			if c.gate != "" && (len(paths) == 0 || paths[0] != "/active/shop?gate=lb") {
				t.Errorf("asked for %q", paths)
			}
		})
	}
}

// TestASiteThatNobodyCanReadIsNamed: what it knows was not looked at. That keeps no run
// from beginning, nor from ending: it may be the very site that is lost.
func TestASiteThatNobodyCanReadIsNamed(t *testing.T) {
	for _, damaged := range []bool{true, false} {
		d := dispute(t, 10*time.Minute)
		d.says("east", "Superseded", 2)
		if damaged {
			north, err := (&preflight.Site{Name: "north", At: d.now}).Encode()
			if err != nil {
				t.Fatal(err)
			}
			if err := d.project.WriteSealed(t.Context(), d.project.Root()+"facts/east", north); err != nil {
				t.Fatal(err)
			}
		}
		facts := d.evaluate(d.at("north", nil), failover.Spec{Verb: plan.Failover, From: "west", To: "north"})
		state := &failover.State{Spec: failover.Spec{Run: "over", Verb: plan.Failover, To: "west", Applications: []string{"shop"}}, Steps: map[string]*failover.StepState{}}
		outcome, note, split := d.at("west", newMemory(t, fenced("true"))).Verify(t.Context(), state)
		if outcome != failover.Done || split != "" || facts.Split != "" || len(facts.Problems) > 0 {
			t.Errorf("damaged %t: %v %q, split %q, %+v", damaged, outcome, note, split, facts)
		}
		for _, said := range []string{facts.Unheard, note} {
			if strings.Contains(said, "what site east said of itself cannot be read") != damaged || !damaged && said != "" {
				t.Errorf("damaged %t: %q", damaged, said)
			}
		}
	}
}

// TestForgottenEpochsAreNotClaimedAnew: the vault's newest epochs are gone, and
// somebody still knows of them. Without the deletion nothing is refused.
func TestForgottenEpochsAreNotClaimedAnew(t *testing.T) {
	node := `{"apiVersion":"davit.dev/v1alpha1","kind":"NodeFence","metadata":{"name":"n1"},"status":{"applications":[{"application":"shop","reason":"superseded","epoch":2}]}}`
	knows := strings.Replace(fenced("true"), `"role":"Superseded"`, `"role":"Superseded","epoch":2`, 1)
	for name, c := range map[string]struct {
		published bool
		here      []string
		who       string
	}{
		"a site has published it, long ago":                    {true, nil, "site west has heard of 2"},
		"this cluster knows":                                   {false, []string{knows}, "this site, east, has heard of 2"},
		"a node here does":                                     {false, []string{fenced("true"), node}, "node n1 of this site, east, has heard of 2"},
		"of an application of another vault nodes say nothing": {false, []string{node}, ""},
		"nobody knows":                                         {false, []string{fenced("true")}, ""},
	} {
		for _, deleted := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, deleted %t", name, deleted), func(t *testing.T) {
				d := dispute(t, time.Hour)
				if c.published {
					d.says("west", "Active", 2)
				}
				d.now = d.now.Add(24 * time.Hour)
				spec := failover.Spec{Verb: plan.Failover, From: "west", To: "east"}
				if deleted {
					spec.From = "east"
					if err := d.project.Store().Delete(t.Context(), fmt.Sprintf("%sepochs/shop/%020d", d.project.Root(), 2)); err != nil {
						t.Fatal(err)
					}
				}
				problems := strings.Join(d.evaluate(d.at("east", newMemory(t, c.here...)), spec).Problems, "; ")
				if refused := strings.Contains(problems, "the vault's newest epoch is 1"); refused != (deleted && c.who != "") || refused && !strings.Contains(problems, c.who) {
					t.Errorf("%q", problems)
				}
			})
		}
	}
}

// unseen is a cluster where nobody may look at Applications.
type unseen struct{ *memory }

func (u unseen) Get(ctx context.Context, at restore.Served, namespace, name string) (*unstructured.Unstructured, error) {
	if at.GVK.Kind == "Application" {
		return nil, apierrors.NewForbidden(at.GVR.GroupResource(), name, errors.New("no"))
	}
	return u.memory.Get(ctx, at, namespace, name)
}

// TestWhoMayNotLookStillBegins: a run would wait for ever for a right that it does not
// need. What other sites published is heard all the same.
func TestWhoMayNotLookStillBegins(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		d := dispute(t, time.Hour)
		s := d.at("north", nil)
		s.o.Recovery.Cluster = unseen{newMemory(t)}
		if forgotten {
			d.says("east", "Superseded", 3)
		}
		problems := strings.Join(d.evaluate(s, failover.Spec{Verb: plan.Failover, From: "west", To: "north"}).Problems, "; ")
		if strings.Contains(problems, "site east has heard of 3") != forgotten {
			t.Errorf("forgotten %t: %q", forgotten, problems)
		}
	}
}

// TestNodesHearOfAGateALittleLater: a run waits for them, as load balancers do.
func TestNodesHearOfAGateALittleLater(t *testing.T) {
	site, asked := &Site{patience: time.Hour}, 0
	site.o.Entrances = func(context.Context, string) ([]Entrance, error) {
		asked++
		switch asked {
		case 1:
			return nil, errors.New("no answer")
		case 2:
			return []Entrance{{Node: "w1", Why: "passive: gate lb is not open here"}}, nil
		}
		return []Entrance{{Node: "w1", Active: true}}, nil
	}
	state := &failover.State{
		Spec:  failover.Spec{Steps: []plan.Step{{Name: "lb", Kind: plan.KindGate, Object: "lb", Application: "shop"}}},
		Steps: map[string]*failover.StepState{"lb": {Status: failover.Succeeded}},
	}
	if why, unknown := site.dark(t.Context(), state); why != "" || unknown != "" || asked != 3 {
		t.Errorf("%q, %q, asked %d times", why, unknown, asked)
	}
}

// TestWhoMayNotAskNodesDoesNotWait: a right does not come with time.
func TestWhoMayNotAskNodesDoesNotWait(t *testing.T) {
	site, asked := &Site{patience: time.Hour}, 0
	site.o.Entrances = func(context.Context, string) ([]Entrance, error) {
		asked++
		return nil, errors.Join(fmt.Errorf("ask node w1: %w", apierrors.NewForbidden(schema.GroupResource{Resource: "pods/proxy"}, "w1", nil)))
	}
	state := &failover.State{
		Spec:  failover.Spec{Steps: []plan.Step{{Name: "lb", Kind: plan.KindGate, Object: "lb", Application: "shop"}}},
		Steps: map[string]*failover.StepState{"lb": {Status: failover.Succeeded}},
	}
	if why, unknown := site.dark(t.Context(), state); why != "" || !strings.Contains(unknown, "forbidden") || asked != 1 {
		t.Errorf("%q, %q, asked %d times", why, unknown, asked)
	}
}
