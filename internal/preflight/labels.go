package preflight

import (
	"slices"
	"strconv"
	"strings"

	"davit.dev/davit/internal/plan"
)

// Term are requirements of a node's labels, all of which must hold.
type Term []Requirement

// Requirement is one of a label of nodes, with the operators of Kubernetes: In, NotIn,
// Exists, DoesNotExist, Gt, Lt.
type Requirement struct {
	Key, Operator string
	Values        []string
	// Name says that it is about the node's name, and not a label.
	Name bool
}

// String is how people write it.
func (r Requirement) String() string {
	switch r.Operator {
	case "Exists":
		return r.Key
	case "DoesNotExist":
		return "!" + r.Key
	case "In":
		if len(r.Values) == 1 {
			return r.Key + "=" + r.Values[0]
		}
	}
	return r.Key + " " + r.Operator + " (" + strings.Join(r.Values, ", ") + ")"
}

// String is how people write it.
func (t Term) String() string {
	var all []string
	for _, r := range t {
		all = append(all, r.String())
	}
	return strings.Join(all, " and ")
}

func (r Requirement) holds(n Node) bool {
	value, there := n.Labels[r.Key]
	if r.Name {
		value, there = n.Name, true
	}
	switch r.Operator {
	case "In":
		return there && slices.Contains(r.Values, value)
	case "NotIn":
		return !there || !slices.Contains(r.Values, value)
	case "Exists":
		return there
	case "DoesNotExist":
		return !there
	case "Gt", "Lt":
		has, err := strconv.ParseInt(value, 10, 64)
		if err != nil || !there || len(r.Values) != 1 {
			return false
		}
		than, err := strconv.ParseInt(r.Values[0], 10, 64)
		return err == nil && (r.Operator == "Gt" && has > than || r.Operator == "Lt" && has < than)
	}
	return true // of a kind that is not known here
}

// takes tells whether a node has the labels that pods ask for.
func (n Node) takes(where []Term) bool {
	return len(where) == 0 || slices.ContainsFunc(where, func(t Term) bool {
		return !slices.ContainsFunc(t, func(r Requirement) bool { return !r.holds(n) })
	})
}

// placed are terms as the plan's mappings have the target's: what restores do to pods.
func (in *Input) placed(where []Term) []Term {
	var all []plan.Mapping
	for _, s := range in.Plan.Sites {
		for _, m := range s.Mappings {
			if s.Name == in.To && m.Kind == plan.MapNodeLabel {
				all = append(all, m)
			}
		}
	}
	if len(all) == 0 {
		return where
	}
	var out []Term
	for _, t := range where {
		var there Term
		for _, r := range t {
			there = append(there, r.there(all))
		}
		out = append(out, there)
	}
	return out
}

// there is a requirement as mappings, KEY or KEY=VALUE, have it.
func (r Requirement) there(all []plan.Mapping) Requirement {
	if r.Name {
		return r
	}
	for _, m := range all {
		if m.From == r.Key && !strings.Contains(m.From, "=") {
			r.Key = m.To
			return r
		}
	}
	values, key := slices.Clone(r.Values), r.Key
	for i, v := range values {
		for _, m := range all {
			fromKey, from, valued := strings.Cut(m.From, "=")
			toKey, to, _ := strings.Cut(m.To, "=")
			if valued && fromKey == r.Key && from == v && (toKey == r.Key || len(values) == 1) {
				values[i], key = to, toKey
				break
			}
		}
	}
	r.Key, r.Values = key, values
	return r
}

// checkLabels looks whether the target has nodes with the labels by which pods choose
// them, and that the plan maps labels to: else pods wait for ever, once the application is
// claimed and its data is there.
func checkLabels(in *Input) []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	if why := s.Unread["nodes"]; why != "" {
		return []Finding{unknown(in.To, "grant the right to list nodes and pods", "its nodes could not be read: %s", why)}
	}
	var all []Finding
	count := 0
	for _, n := range in.known() {
		for _, p := range n.Pods {
			if len(p.Where) == 0 || p.EveryNode { // those of every node may be of none
				continue
			}
			count++
			if f, bad := s.judgeLabels(p, in.placed(p.Where)); bad && s.Labelled {
				all = append(all, f.of(n.Application))
			}
		}
	}
	for _, site := range in.Plan.Sites {
		for _, m := range site.Mappings {
			if site.Name != in.To || m.Kind != plan.MapNodeLabel {
				continue
			}
			count++
			if s.Labelled && !slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.has(m.To) }) {
				all = append(all, fail(in.To, "label nodes so, or name a label that they have", "the plan maps node label %s to %s, which no node has", m.From, m.To))
			}
		}
	}
	switch {
	case count > 0 && !s.Labelled:
		return []Finding{unknown(in.To, "run an agent of this version there; of sites with very many nodes see kubectl get nodes --show-labels", "its facts do not say which labels its nodes have, by which %d workloads or mappings go", count)}
	case len(all) == 0:
		return []Finding{ok(in.To, "has nodes for all %d that choose them by labels", count)}
	}
	return all
}

func (n Node) has(label string) bool {
	key, value, valued := strings.Cut(label, "=")
	is, there := n.Labels[key]
	return there && (!valued || is == value)
}

func (s *Site) judgeLabels(p Pods, where []Term) (Finding, bool) {
	var wants, closed []string
	for _, t := range where {
		wants = append(wants, t.String())
	}
	for _, n := range s.Nodes {
		switch {
		case n.takes(where) && n.Closed == "":
			return Finding{}, false
		case n.takes(where):
			closed = append(closed, n.Name+" ("+n.Closed+")")
		}
	}
	name, what := p.Namespace+"/"+p.Workload, strings.Join(wants, ", or ")
	if len(closed) > 0 {
		return warn(s.Name, "open one, or know that its pods tolerate that", "all nodes with %s, which %s needs, are closed: %s", what, name, some(closed)), true
	}
	return fail(s.Name, "label a node so there, or map the label in the plan (nodeLabel)", "no node has %s, which %s needs: its pods would wait for ever", what, name), true
}
