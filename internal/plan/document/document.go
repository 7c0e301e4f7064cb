// Package document reads recovery plans as people write them, the kind
// RecoveryPlan, into what the core works with.
package document

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/manuscript"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/schedule"
)

// Parse reads a plan from YAML or JSON. A field that the kind does not have, or
// that is there twice, is an error. What the plan says is not checked: see
// plan.Plan.Check.
func Parse(data []byte) (*plan.Plan, error) {
	var p v1alpha1.RecoveryPlan
	if err := manuscript.Read(data, &p, strict); err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	if p.APIVersion != v1alpha1.GroupVersion.String() || p.Kind != "RecoveryPlan" {
		return nil, fmt.Errorf("read plan: it is a %q of %q, not a RecoveryPlan of %s", p.Kind, p.APIVersion, v1alpha1.GroupVersion)
	}
	if p.Name == "" {
		return nil, errors.New("read plan: metadata.name is missing")
	}
	out := Convert(&p)
	if _, err := Timetable(out.Drills); err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	return out, nil
}

// strict is a manuscript.Reader that minds the case of fields, as API servers do.
func strict(data []byte, into any) error {
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return err
	}
	faults, err := json.UnmarshalStrict(text, into, json.DisallowUnknownFields)
	return errors.Join(append(faults, err)...)
}

// Timetable is when drills are due; nil for none.
func Timetable(d *plan.Drills) (*schedule.Table, error) {
	if d == nil {
		return nil, nil //nolint:nilnil // never
	}
	table, err := schedule.Parse(d.Every, d.Cron, d.Zone)
	if err != nil {
		return nil, fmt.Errorf("drills: schedule: %w", err)
	}
	return table, nil
}

// AnnotationPull on a RecoveryPlan, with "true", has the agents of the sites that may take over
// pull the images that its runs need to their nodes, ahead of time.
const AnnotationPull = "davit.dev/pull-images"

// Convert makes the core's plan of a RecoveryPlan.
func Convert(p *v1alpha1.RecoveryPlan) *plan.Plan {
	s := &p.Spec
	out := &plan.Plan{
		Name:       p.Name,
		Account:    s.ServiceAccountName,
		Pull:       p.Annotations[AnnotationPull] == "true",
		Sites:      each(s.Sites, site),
		Groups:     each(s.Groups, func(g v1alpha1.PlanGroup) plan.Group { return plan.Group(g) }),
		Objectives: plan.Objectives{RPO: s.Objectives.RPO.Duration, RTO: s.Objectives.RTO.Duration},
		Declaration: plan.Declaration{
			Automatic: s.Declaration.Automatic, Vantages: s.Declaration.Vantages, Agree: s.Declaration.Agree,
			For: s.Declaration.For.Duration, Block: s.Declaration.Block.Duration, Probes: probes(s.Declaration.Probes),
		},
		Fence:  plan.Fence{Timeout: s.Fence.Timeout.Duration, Lease: s.Fence.Lease.Duration, Bound: s.Fence.Bound.Duration, Drift: s.Fence.DriftPPM, Promises: s.Fence.Promises, Peers: peers(s.Sites)},
		Commit: plan.Commit{Window: s.Commit.Window.Duration, Then: s.Commit.Then},
		Steps:  each(s.Steps, step),
		Limits: limits(s.Limits),
		Drills: drills(s.Drills),
	}
	out.Applications = each(s.Applications, func(a v1alpha1.PlanApplication) plan.Application {
		return plan.Application{Name: a.Name, Group: a.Group, After: a.After, Needs: a.Needs, Data: plan.Kind(a.Data), Probes: each(a.Probes, check)}
	})
	out.Outside = each(s.Outside, func(o v1alpha1.PlanOutside) plan.Outside {
		return plan.Outside{Name: o.Name, Probes: probes(o.Probes)}
	})
	out.Traffic = each(s.Traffic, func(t v1alpha1.PlanTraffic) plan.Traffic {
		return plan.Traffic{Name: t.Name, Kind: plan.Kind(t.Kind), Application: t.Application, Object: t.Object, Record: record(t.Record)}
	})
	out.Approvals = each(s.Approvals, func(a v1alpha1.PlanApproval) plan.Approval {
		return plan.Approval{Verbs: each(a.Verbs, verb), Count: a.Count, Roles: a.Roles, Users: a.Users}
	})
	return out
}

func drills(d *v1alpha1.PlanDrills) *plan.Drills {
	if d == nil {
		return nil
	}
	out := &plan.Drills{Cron: d.Schedule.Cron, Zone: d.Schedule.TimeZone, Sites: d.Sites, Suspend: d.Suspend}
	if d.Schedule.Every != nil {
		out.Every = d.Schedule.Every.Duration
	}
	return out
}

// each converts a list; an empty one stays nil.
func each[A, B any](all []A, convert func(A) B) []B {
	var out []B
	for _, a := range all {
		out = append(out, convert(a))
	}
	return out
}

func verb(v v1alpha1.PlanVerb) plan.Verb { return plan.Verb(v) }

func limits(all map[string]metav1.Duration) map[plan.Kind]time.Duration {
	if len(all) == 0 {
		return nil
	}
	out := map[plan.Kind]time.Duration{}
	for kind, limit := range all {
		out[plan.Kind(kind)] = limit.Duration
	}
	return out
}

func site(s v1alpha1.PlanSite) plan.Site {
	return plan.Site{Name: s.Name, Mappings: each(s.Mappings, func(m v1alpha1.PlanMapping) plan.Mapping {
		return plan.Mapping{Kind: plan.MappingKind(m.Kind), From: m.From, To: m.To}
	})}
}

// peers are where the sites are asked that say so.
func peers(all []v1alpha1.PlanSite) map[string]string {
	var out map[string]string
	for _, s := range all {
		if s.Peer != "" {
			if out == nil {
				out = map[string]string{}
			}
			out[s.Name] = s.Peer
		}
	}
	return out
}

func probes(all map[string]v1alpha1.PlanCheck) map[string]plan.Check {
	out := map[string]plan.Check{}
	for site, c := range all {
		out[site] = check(c)
	}
	return out
}

func check(c v1alpha1.PlanCheck) plan.Check {
	return plan.Check{Kind: plan.CheckKind(c.Kind), Target: c.Target, Expect: c.Expect, Timeout: c.Timeout.Duration, Query: c.Query, Command: c.Command, Container: c.Container}
}

func command(c *v1alpha1.PlanCommand) *plan.Command {
	if c == nil {
		return nil
	}
	return &plan.Command{Image: c.Image, Args: c.Args, Env: c.Env, Secrets: c.Secrets}
}

// destroy is the word of those who want what was made destroyed by a roll-back.
const destroy = "destroy"

func terraform(t *v1alpha1.PlanTerraform) *plan.Terraform {
	if t == nil {
		return nil
	}
	return &plan.Terraform{
		Image: t.Image, Program: t.Program, ConfigMap: t.ConfigMap, Secret: t.Secret, Directory: t.Directory, Module: t.Module,
		Backend: t.Backend, Workspace: t.Workspace, Variables: t.Variables, Env: t.Env, Secrets: t.Secrets,
		LockTimeout: t.LockTimeout.Duration, Destroy: t.Undo == destroy,
	}
}

func clusterAPI(a *v1alpha1.PlanClusterAPI) *plan.ClusterAPI {
	if a == nil {
		return nil
	}
	return &plan.ClusterAPI{
		Kubeconfig: a.Kubeconfig, Destroy: a.Undo == destroy,
		Apply: each(a.Apply, func(o v1alpha1.PlanObject) stdjson.RawMessage { return o.Raw }),
		Scale: each(a.Scale, func(m v1alpha1.PlanMachines) plan.Machines {
			return plan.Machines{Object: m.Object, Replicas: int64(m.Replicas)}
		}),
		Wait: each(a.Wait, func(w v1alpha1.PlanConditions) plan.Conditions { return plan.Conditions(w) }),
	}
}

func record(r *v1alpha1.PlanRecord) *plan.Record {
	if r == nil {
		return nil
	}
	return &plan.Record{
		Zone: r.Zone, TTL: r.TTL.Duration, To: r.To, Secret: r.Secret, Provider: plan.Provider(r.Provider), Endpoint: r.Endpoint,
		Servers: each(r.Servers, func(s v1alpha1.PlanNameServer) plan.NameServer { return plan.NameServer(s) }),
	}
}

func step(s v1alpha1.PlanStep) plan.Step {
	out := plan.Step{
		Name: s.Name, Kind: plan.Kind(s.Kind), Application: s.Application, Side: plan.Side(s.Side), Verbs: each(s.Verbs, verb),
		After: s.After, Before: s.Before, Timeout: s.Timeout.Duration, OnError: plan.OnError(s.OnError), NoWayBack: s.NoWayBack, Early: s.Early,
		Command: command(s.Command), Prompt: s.Prompt, Checks: each(s.Checks, check), Undo: command(s.Undo), Object: s.Object, Record: record(s.Record),
	}
	out.Terraform, out.ClusterAPI = terraform(s.Terraform), clusterAPI(s.ClusterAPI)
	if a := s.Approvers; a != nil {
		out.Approvers = &plan.Approval{Count: a.Count, Roles: a.Roles, Users: a.Users}
	}
	out.Call = call(s.Call)
	return out
}

func call(c *v1alpha1.PlanCall) *plan.Call {
	if c == nil {
		return nil
	}
	from := func(k *v1alpha1.PlanSecretKey) *plan.SecretKey { return (*plan.SecretKey)(k) }
	return &plan.Call{
		Method: c.Method, URL: c.URL, URLFrom: from(c.URLFrom), Expect: c.Expect, Body: c.Body, BodyFrom: from(c.BodyFrom),
		Headers: each(c.Headers, func(h v1alpha1.PlanHeader) plan.Header {
			return plan.Header{Name: h.Name, Value: h.Value, From: from(h.From)}
		}),
	}
}
