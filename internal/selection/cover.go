package selection

import (
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/labels"
)

// Object is what Cover needs to know of one workload or pod.
type Object struct {
	Group, Kind, Namespace, Name string
	UID                          string // may be empty
	Labels                       map[string]string
	// Template are the labels of the pods that it makes; nil for a pod.
	Template map[string]string
	// Replicas is how many pods it should have; negative where that says
	// nothing, as for a DaemonSet. First is a StatefulSet's first ordinal.
	Replicas, First int
	// Owner is what controls it; nil without.
	Owner *Owner
	// Ended says that a pod has run to its end, or is on its way out.
	Ended bool
}

// Owner is what controls an object.
type Owner struct{ Group, Kind, Name, UID string }

// id names an object; a cluster has one of each at a time.
type id struct{ group, kind, namespace, name string }

func (o *Object) id() id { return id{o.Group, o.Kind, o.Namespace, o.Name} }

// ownerID is the id of what controls the object, and lies in its namespace.
func (o *Object) ownerID() id { return id{o.Owner.Group, o.Owner.Kind, o.Namespace, o.Owner.Name} }

// IsPod tells whether the object is a pod.
func (o *Object) IsPod() bool { return o.Group == "" && o.Kind == "Pod" }

// Title is kind namespace/name, for people.
func (o *Object) Title() string { return o.Kind + " " + o.Namespace + "/" + o.Name }

// Cover is which of some workloads and pods a selection covers.
type Cover struct {
	objects  []Object
	at       map[id]int
	children map[int][]int // by what controls them
	covered  []bool
}

// Cover decides over workloads and pods of the selection's namespaces. Covered
// are, besides what the rules match: what a covered object controls, and what
// controls nothing but covered pods, for that is how those are made, stopped
// and started. A controller that also has other pods is not covered: its
// covered pods are then of no covered workload, see Alone.
func (s Selection) Cover(objects []Object) *Cover {
	c := &Cover{objects: objects, at: map[id]int{}, children: map[int][]int{}, covered: make([]bool, len(objects))}
	for i := range objects {
		c.at[objects[i].id()] = i
	}
	for i := range objects {
		c.covered[i] = s.selects(&objects[i])
		if owner, known := c.owner(i); known {
			c.children[owner] = append(c.children[owner], i)
		}
	}
	c.descend(s)
	for i := range objects {
		if !c.covered[i] && !objects[i].IsPod() && c.onlyCovered(s, i) {
			c.covered[i] = true
		}
	}
	c.descend(s)
	return c
}

// owner returns what controls an object, if it is among the objects: one of
// the name that is not the same is not.
func (c *Cover) owner(i int) (int, bool) {
	o := &c.objects[i]
	if o.Owner == nil {
		return 0, false
	}
	at, known := c.at[o.ownerID()]
	if known && o.Owner.UID != "" && c.objects[at].UID != "" && o.Owner.UID != c.objects[at].UID {
		return 0, false
	}
	return at, known
}

// selects applies the rules that need nothing but the object itself.
func (s Selection) selects(o *Object) bool {
	switch {
	case s.Whole(), s.MatchesLabels(o.Labels), s.Names(o.Group, o.Kind, o.Namespace, o.Name):
		return true
	case o.IsPod():
		return s.MatchesPod(o.Labels)
	}
	return len(o.Template) > 0 && s.MatchesPod(o.Template)
}

// descend covers what covered objects control, however deep. Owners that are
// not among the objects, such as custom resources, count by their names.
func (c *Cover) descend(s Selection) {
	for i := range c.objects {
		var chain []int
		for at, steps := i, 0; !c.covered[at] && steps <= len(c.objects); steps++ {
			chain = append(chain, at)
			owner := c.objects[at].Owner
			if owner == nil {
				break
			}
			next, known := c.owner(at)
			if known && c.covered[next] || s.Names(owner.Group, owner.Kind, c.objects[at].Namespace, owner.Name) {
				for _, j := range chain {
					c.covered[j] = true
				}
				break
			}
			if !known {
				break
			}
			at = next
		}
	}
}

// onlyCovered tells whether a controller's pods, those that run and those that
// it wants, are all covered.
func (c *Cover) onlyCovered(s Selection, i int) bool {
	o := &c.objects[i]
	if o.Group == "apps" && o.Kind == "StatefulSet" && o.Replicas > 0 && s.namesOrdinals(o) {
		return true
	}
	pods := c.podsOf(i, 0)
	covered := 0
	for _, p := range pods {
		if !c.covered[p] {
			return false
		}
		covered++
	}
	return covered > 0 && covered >= o.Replicas
}

// namesOrdinals tells whether every pod that a StatefulSet may have is named,
// also those that are not there at present.
func (s Selection) namesOrdinals(o *Object) bool {
	for n := range o.Replicas {
		if !s.Names("", "Pod", o.Namespace, o.Name+"-"+strconv.Itoa(o.First+n)) {
			return false
		}
	}
	return true
}

// podsOf returns the running pods below an object.
func (c *Cover) podsOf(i, depth int) []int {
	const deepest = 8 // a ring of owners is somebody's mistake
	if depth > deepest {
		return nil
	}
	var pods []int
	for _, child := range c.children[i] {
		switch {
		case !c.objects[child].IsPod():
			pods = append(pods, c.podsOf(child, depth+1)...)
		case !c.objects[child].Ended:
			pods = append(pods, child)
		}
	}
	return pods
}

// Has tells whether an object is covered.
func (c *Cover) Has(group, kind, namespace, name string) bool {
	i, ok := c.at[id{group, kind, namespace, name}]
	return ok && c.covered[i]
}

// Covered returns what is covered, in the order given.
func (c *Cover) Covered() []*Object {
	var all []*Object
	for i := range c.objects {
		if c.covered[i] {
			all = append(all, &c.objects[i])
		}
	}
	return all
}

// Alone tells whether a pod is covered and no controller of it is: stopping it
// means stopping just the pod.
func (c *Cover) Alone(namespace, name string) bool {
	i, ok := c.at[id{"", "Pod", namespace, name}]
	if !ok || !c.covered[i] {
		return false
	}
	owner, known := c.owner(i)
	return !known || !c.covered[owner]
}

// Shared returns the controllers that have covered pods and others besides:
// their covered pods cannot be stopped, or made again, without them.
func (c *Cover) Shared() []*Object {
	var all []*Object
	for i := range c.objects {
		if c.covered[i] || c.objects[i].IsPod() {
			continue
		}
		if slices.ContainsFunc(c.podsOf(i, 0), func(p int) bool { return c.covered[p] }) {
			all = append(all, &c.objects[i])
		}
	}
	return all
}

// Missing returns the rules for single objects that cover none of the objects
// given, and the groups of pods that cover no pod and no template.
func (s Selection) Missing(objects []Object) (named []Name, groups []string) {
	for _, n := range s.Workloads {
		found := slices.ContainsFunc(objects, func(o Object) bool { return n.Matches(o.Group, o.Kind, o.Namespace, o.Name) })
		if !found {
			named = append(named, n)
		}
	}
	for _, selector := range s.Pods {
		one := Selection{Pods: []labels.Selector{selector}}
		if !slices.ContainsFunc(objects, func(o Object) bool { return one.selects(&o) }) {
			groups = append(groups, selector.String())
		}
	}
	return named, groups
}
