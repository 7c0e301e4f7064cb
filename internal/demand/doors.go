package demand

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

const (
	ingresses      = "ingresses.networking.k8s.io"
	ingressClasses = "ingressclasses.networking.k8s.io"
	gateways       = "gateways.gateway.networking.k8s.io"
	// annotationClass names the class of an Ingress that has no field for it.
	annotationClass = "kubernetes.io/ingress.class"
	// own begins Davit's labels: what it sent to no node comes back without that.
	own = "davit.dev/"
)

// isDoor tells whether a kind says by which classes clients come in.
func isDoor(kind string) bool {
	return kind == ingresses || kind == ingressClasses || kind == gateways
}

// door notes what an object of such a kind says.
func (d *Demand) door(kind string, object []byte) error {
	var o struct {
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			IngressClassName string `json:"ingressClassName"`
			GatewayClassName string `json:"gatewayClassName"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return fmt.Errorf("read %s: %w: %w", kind, vault.ErrDamaged, err)
	}
	door := preflight.Door{Namespace: o.Namespace, Name: o.Name, Class: o.Spec.IngressClassName}
	switch kind {
	case ingressClasses:
		d.IngressClasses = append(d.IngressClasses, o.Name)
		return nil
	case gateways:
		door.Gateway, door.Class = true, o.Spec.GatewayClassName
	default:
		if noted := o.Annotations[annotationClass]; door.Class == "" && noted != "" {
			door.Class, door.Noted = noted, true
		}
	}
	d.Doors = append(d.Doors, door)
	return nil
}

// where are the nodes that a pod must be placed on, by their labels.
func where(spec *corev1.PodSpec) []preflight.Term {
	var base preflight.Term
	for _, key := range slices.Sorted(maps.Keys(spec.NodeSelector)) {
		if !strings.HasPrefix(key, own) {
			base = append(base, preflight.Requirement{Key: key, Operator: string(corev1.NodeSelectorOpIn), Values: []string{spec.NodeSelector[key]}})
		}
	}
	var all []preflight.Term
	if a := spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			term := slices.Clone(base)
			for _, e := range t.MatchExpressions {
				term = append(term, preflight.Requirement{Key: e.Key, Operator: string(e.Operator), Values: e.Values})
			}
			for _, e := range t.MatchFields { // there is one: the name
				term = append(term, preflight.Requirement{Key: e.Key, Operator: string(e.Operator), Values: e.Values, Name: true})
			}
			if len(t.MatchExpressions)+len(t.MatchFields) > 0 { // an empty one takes no node
				all = append(all, term)
			}
		}
	}
	if len(all) == 0 && len(base) > 0 {
		all = append(all, base)
	}
	return all
}
