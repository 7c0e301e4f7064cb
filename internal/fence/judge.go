package fence

import (
	"math"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/selection"
)

// Claim is what one application covers, as Judge needs it.
type Claim struct {
	Application string
	Rules       selection.Selection
	// Wants tells whether workloads of a kind are the application's.
	Wants func(resource, group string) bool
	// Fenced says that it may not run here. One that is not and that this site
	// may write keeps what it covers as narrowly as a fenced one.
	Fenced, Active bool
}

// Judge decides which pods of a node belong to fenced applications, by pod UID.
// Workloads that own pods are among the objects, as far as they are known. They
// are seen with those of their pods that run here: so none is covered by way
// of its pods.
func Judge(claims []Claim, objects []selection.Object, namespaces map[string]labels.Set) map[string]string {
	for i := range objects {
		if !objects[i].IsPod() {
			objects[i].Replicas = math.MaxInt
		}
	}
	stopped := map[string]string{}
	for _, c := range claims {
		if !c.Fenced {
			continue
		}
		theirs := rivals(c, claims, objects, namespaces)
		cover := c.Rules.Cover(within(c.Rules, objects, namespaces))
		for _, o := range cover.Covered() {
			if !o.IsPod() || o.Ended || !wanted(c, o, objects) {
				continue
			}
			if slices.ContainsFunc(theirs, func(other *selection.Cover) bool { return other.Has("", "Pod", o.Namespace, o.Name) }) {
				continue
			}
			stopped[o.UID] = c.Application
		}
	}
	return stopped
}

// Covering are the applications that cover a pod of the node, fenced or not.
func Covering(claims []Claim, objects []selection.Object, namespaces map[string]labels.Set) map[string]bool {
	all := map[string]bool{}
	for _, c := range claims {
		cover := c.Rules.Cover(within(c.Rules, objects, namespaces))
		all[c.Application] = slices.ContainsFunc(cover.Covered(), func(o *selection.Object) bool { return o.IsPod() })
	}
	return all
}

func within(rules selection.Selection, objects []selection.Object, namespaces map[string]labels.Set) []selection.Object {
	var in []selection.Object
	for i := range objects {
		if rules.Namespaces.Match(objects[i].Namespace, namespaces[objects[i].Namespace]) {
			in = append(in, objects[i])
		}
	}
	return in
}

// rivals are what others cover that this site may write, and that are as narrow.
func rivals(c Claim, claims []Claim, objects []selection.Object, namespaces map[string]labels.Set) []*selection.Cover {
	var all []*selection.Cover
	for _, other := range claims {
		if other.Application != c.Application && other.Active && !other.Fenced && other.Rules.Rank() >= c.Rules.Rank() {
			all = append(all, other.Rules.Cover(within(other.Rules, objects, namespaces)))
		}
	}
	return all
}

// wanted tells whether the application's filter leaves in anything that made the pod: a workload of a
// wanted kind is the application's whoever owns that in turn, such as an operator's resource.
func wanted(c Claim, pod *selection.Object, objects []selection.Object) bool {
	if c.Wants == nil {
		return true
	}
	group, kind := "", "Pod"
	for at, steps := pod, 0; ; steps++ {
		if at == nil || at.Owner == nil || steps == 8 {
			return wants(c, group, kind)
		}
		if !follows(kind, at.Owner) && wants(c, group, kind) {
			return true
		}
		group, kind = at.Owner.Group, at.Owner.Kind
		at = find(objects, at)
	}
}

// follows tells whether what is of a kind is only a part of its owner: then the owner's kind counts alone.
func follows(kind string, owner *selection.Owner) bool {
	switch owner.Group + "/" + owner.Kind {
	case "apps/Deployment", "apps/ReplicaSet", "apps/StatefulSet", "apps/DaemonSet", "batch/Job", "/ReplicationController":
		return kind == "Pod" || kind == "ReplicaSet"
	}
	return false
}

// wants asks for a kind whose resource's name can only be guessed: what the filter says of any likely
// name counts if it is not what it says of all that it does not name.
func wants(c Claim, group, kind string) bool {
	usual := c.Wants("", group)
	name := strings.ToLower(kind)
	for _, guess := range []string{name + "s", name + "es", strings.TrimSuffix(name, "y") + "ies", name} {
		if c.Wants(guess, group) != usual {
			return !usual
		}
	}
	return usual
}

func find(objects []selection.Object, of *selection.Object) *selection.Object {
	for i := range objects {
		o := &objects[i]
		if o.Group == of.Owner.Group && o.Kind == of.Owner.Kind && o.Name == of.Owner.Name && o.Namespace == of.Namespace {
			return o
		}
	}
	return nil
}
