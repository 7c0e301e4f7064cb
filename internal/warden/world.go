package warden

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/selection"
)

// World is what a node knows of its cluster besides applications, as it was
// last seen.
type World struct {
	// Namespaces are labels by namespace.
	Namespaces map[string]labels.Set `json:"namespaces,omitempty"`
	// Pods are those of this node by UID, Owners the workloads that made them.
	Pods   map[string]selection.Object `json:"pods,omitempty"`
	Owners []selection.Object          `json:"owners,omitempty"`
	// Sandboxes are groups of namespaces whose pods speak to each other only.
	Sandboxes []Sandbox `json:"sandboxes,omitempty"`
}

// Sandbox is a copy of applications that must reach nothing else.
type Sandbox struct {
	Name       string           `json:"name"`
	Namespaces []string         `json:"namespaces"`
	Peers      []netip.Addr     `json:"peers,omitempty"`
	Servers    []netip.AddrPort `json:"servers,omitempty"`
}

// scene is a record, decoded.
type scene struct {
	record *fence.Record
	world  World
	claims []fence.Claim
	// unread are applications whose rules cannot be read.
	unread map[string]error
	// whole says that the record tells of all that is in the cluster. One that
	// was begun anew does not before the cluster was seen.
	whole bool
}

func decode(r *fence.Record) (*scene, error) {
	s := &scene{record: r, unread: map[string]error{}, whole: r.Cluster != ""}
	if len(r.World) > 0 {
		if err := json.Unmarshal(r.World, &s.world); err != nil {
			s.whole = false
			return s, fmt.Errorf("%w: %w", fence.ErrDamaged, err)
		}
	}
	for i := range r.Applications {
		a := &r.Applications[i]
		c, err := claimOf(a)
		if err != nil {
			s.unread[a.Name] = err
			s.whole = s.whole && a.Newest > 0 && a.Floor() == 0 && a.Terms == nil // else any pod may be one of its
			continue
		}
		s.claims = append(s.claims, c)
	}
	return s, nil
}

// fencing are the claims, with those marked that may not run here.
func (s *scene) fencing(fenced map[string]fence.Reason) []fence.Claim {
	claims := slices.Clone(s.claims)
	for i := range claims {
		_, claims[i].Fenced = fenced[claims[i].Application]
	}
	return claims
}

// doubted are the pods that would be fenced if every application was whose
// epoch is not known yet, as after a record that could not be read.
func (s *scene) doubted(claims []fence.Claim, objects []selection.Object) map[string]string {
	unknown := false
	claims = slices.Clone(claims)
	for i := range claims {
		if a := s.record.Find(claims[i].Application); a.Newest == 0 {
			claims[i].Fenced, unknown = true, true
		}
	}
	if !unknown {
		return nil
	}
	return fence.Judge(claims, objects, s.world.Namespaces)
}

func claimOf(a *fence.Application) (fence.Claim, error) {
	var app v1alpha1.Application
	if err := json.Unmarshal(a.Document, &app); err != nil {
		return fence.Claim{}, fmt.Errorf("read what application %s covers: %w", a.Name, err)
	}
	rules, err := protection.Selection(protection.OwnNamespaces(&app))
	if err != nil {
		return fence.Claim{}, err
	}
	return fence.Claim{
		Application: a.Name, Rules: rules, Wants: protection.WantedKinds(&app), Active: a.Held > 0 && a.Held == a.Newest,
	}, nil
}

// objects are the pods that the runtime has, with what made them. Those of
// Davit's own, the cluster's static ones, and those that are left out by label
// are nobody's.
func (s *scene) objects(all []containers.Sandbox) []selection.Object {
	var out []selection.Object
	have := map[string]bool{}
	for _, owner := range s.world.Owners {
		have[title(owner)] = true
		out = append(out, owner)
	}
	for _, p := range all {
		if leftOut(p) {
			continue
		}
		pod, known := s.world.Pods[p.UID]
		if !known {
			pod = selection.Object{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID, Labels: p.Labels, Replicas: -1}
			for _, owner := range fence.Owners(&pod) {
				if !have[title(owner)] {
					have[title(owner)] = true
					out = append(out, owner)
				}
			}
		}
		out = append(out, pod)
	}
	return out
}

func title(o selection.Object) string { return o.Group + "/" + o.Title() }

func leftOut(p containers.Sandbox) bool {
	source := p.Annotations[config]
	return p.Labels[v1alpha1.LabelManagedBy] == "davit" || p.Labels[labelExclude] == "true" || source != "" && source != "api"
}

const labelExclude = "davit.dev/exclude"

// sandbox returns the sandbox that a namespace is of; nil if it is of none.
func (s *scene) sandbox(namespace string) *Sandbox {
	for i := range s.world.Sandboxes {
		for _, ns := range s.world.Sandboxes[i].Namespaces {
			if ns == namespace {
				return &s.world.Sandboxes[i]
			}
		}
	}
	return nil
}

// Present are the applications that have pods on this node.
func Present(r *fence.Record, all []containers.Sandbox) map[string]bool {
	s, err := decode(r)
	if err != nil {
		return nil
	}
	return fence.Covering(s.claims, s.objects(all), s.world.Namespaces)
}
