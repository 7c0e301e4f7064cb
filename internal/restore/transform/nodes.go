package transform

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"davit.dev/davit/internal/restore/shape"
)

// annotationIngressClass names the class of an Ingress that has no field for it.
const annotationIngressClass = "kubernetes.io/ingress.class"

func compileIngressClasses(rule Rule) (action, error) {
	if len(rule.IngressClasses) == 0 {
		return nil, nil
	}
	classes := maps.Clone(rule.IngressClasses)
	return func(o Object) (bool, error) {
		if o.Kind.Kind != "Ingress" || o.Kind.Group != shape.GroupNetworking && o.Kind.Group != "extensions" {
			return false, nil
		}
		named := mapValue(shape.Child(o.Document, "spec"), "ingressClassName", classes)
		noted := mapValue(shape.Child(o.Document, "metadata", "annotations"), annotationIngressClass, classes)
		return named || noted, nil
	}, nil
}

// mapValue replaces a field's value. It is also true when the value is what the
// mapping would make.
func mapValue(d shape.Document, field string, names map[string]string) bool {
	was := shape.Text(d, field)
	if to, mapped := names[was]; mapped && was != "" {
		d[field] = to
		return true
	}
	for _, to := range names {
		if was != "" && was == to {
			return true
		}
	}
	return false
}

// nodeLabel is a label of nodes: a key, or a key with one value.
type nodeLabel struct {
	key, value string
	valued     bool
}

func parseNodeLabel(s string) nodeLabel {
	key, value, valued := strings.Cut(s, "=")
	return nodeLabel{key, value, valued}
}

type nodeMapping struct{ from, to nodeLabel }

func compileNodeLabels(rule Rule) (action, error) {
	if len(rule.NodeLabels) == 0 {
		return nil, nil
	}
	if len(rule.NodeLabels) > maxMappings {
		return nil, fmt.Errorf("nodeLabels: %d mappings are more than %d", len(rule.NodeLabels), maxMappings)
	}
	all := make([]nodeMapping, 0, len(rule.NodeLabels))
	for _, m := range rule.NodeLabels {
		n := nodeMapping{parseNodeLabel(m.From), parseNodeLabel(m.To)}
		var err error
		switch {
		case n.from.key == "" || n.to.key == "" || n.from.valued && n.from.value == "":
			err = errors.New("one of them is empty")
		case n.from.valued != n.to.valued:
			err = errors.New("write both as KEY, or both as KEY=VALUE")
		}
		if err != nil {
			return nil, fmt.Errorf("nodeLabels: from %q to %q: %w", m.From, m.To, err)
		}
		all = append(all, n)
	}
	return func(o Object) (bool, error) {
		pod := shape.PodSpecOf(o.Kind, o.Document)
		if pod == nil {
			return false, nil
		}
		return mapNodeLabels(pod, all), nil
	}, nil
}

// mapNodeLabels changes by which labels of nodes a pod is placed.
func mapNodeLabels(pod shape.Document, all []nodeMapping) (relevant bool) {
	relevant = mapSelector(shape.Child(pod, "nodeSelector"), all)
	node := shape.Child(pod, "affinity", "nodeAffinity")
	terms := shape.Items(node, "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	for _, preferred := range shape.Items(node, "preferredDuringSchedulingIgnoredDuringExecution") {
		terms = append(terms, shape.Child(preferred, "preference"))
	}
	for _, term := range terms {
		for _, e := range shape.Items(term, "matchExpressions") {
			relevant = mapExpression(e, all) || relevant
		}
	}
	for _, spread := range spreads(pod) {
		relevant = mapKey(spread, "topologyKey", all) || relevant
	}
	return relevant
}

// spreads are what places a pod by the nodes of others: each has a topologyKey.
func spreads(pod shape.Document) []shape.Document {
	all := shape.Items(pod, "topologySpreadConstraints")
	for _, kind := range []string{"podAffinity", "podAntiAffinity"} {
		others := shape.Child(pod, "affinity", kind)
		all = append(all, shape.Items(others, "requiredDuringSchedulingIgnoredDuringExecution")...)
		for _, preferred := range shape.Items(others, "preferredDuringSchedulingIgnoredDuringExecution") {
			all = append(all, shape.Child(preferred, "podAffinityTerm"))
		}
	}
	return all
}

func mapSelector(selector shape.Document, all []nodeMapping) bool {
	become := shape.Document{}
	for _, m := range all {
		value, there := selector[m.from.key]
		if !there || m.from.valued && value != m.from.value {
			continue
		}
		delete(selector, m.from.key)
		if m.to.valued {
			value = m.to.value
		}
		become[m.to.key] = value
	}
	maps.Copy(selector, become)
	return len(become) > 0
}

// mapExpression maps an expression's key, or the values of one that lists them.
func mapExpression(e shape.Document, all []nodeMapping) (relevant bool) {
	if mapKey(e, "key", all) {
		return true
	}
	values, _ := e["values"].([]any)
	key := shape.Text(e, "key")
	for i, v := range values {
		for _, m := range all {
			// Of a list, values alone can change: its other values have the same key.
			if m.from.valued && m.from.key == key && m.from.value == v && (m.to.key == key || len(values) == 1) {
				values[i], e["key"], relevant = m.to.value, m.to.key, true
				break
			}
		}
	}
	return relevant
}

func mapKey(d shape.Document, field string, all []nodeMapping) bool {
	for _, m := range all {
		if !m.from.valued && d != nil && shape.Text(d, field) == m.from.key {
			d[field] = m.to.key
			return true
		}
	}
	return false
}
