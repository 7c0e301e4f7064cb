package sequence

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/order"
	"davit.dev/davit/internal/restore/relation"
	"davit.dev/davit/internal/restore/shape"
)

// builder collects the edges.
type builder struct {
	x      *index.Index
	s      *Sequence
	edges  []order.Edge
	points map[Point]order.Node
	late   map[*index.Entry]uint8 // what comes after the workloads, and why

	refs     map[relation.Ref]order.Node // of everything that anything names
	services map[[2]string]*index.Entry
	makers   map[string][]*index.Entry  // what makes pods, by namespace
	claimed  map[[2]string][]order.Node // claims by what a StatefulSet's name begins with
	rights   map[relation.Subject][]*index.Entry
	orders   map[schema.GroupKind]string // of definitions, for their objects
	converts map[schema.GroupKind]*relation.Facts
	answers  map[relation.Ref]order.Node // gates; -1 where nothing of the point serves
}

func newBuilder(x *index.Index) *builder {
	return &builder{
		x: x, s: &Sequence{kinds: x.Kinds, Members: map[order.Node][]*index.Entry{}}, points: map[Point]order.Node{}, late: map[*index.Entry]uint8{},
		refs: map[relation.Ref]order.Node{}, services: map[[2]string]*index.Entry{}, makers: map[string][]*index.Entry{},
		claimed: map[[2]string][]order.Node{}, rights: map[relation.Subject][]*index.Entry{}, orders: map[schema.GroupKind]string{},
		converts: map[schema.GroupKind]*relation.Facts{}, answers: map[relation.Ref]order.Node{},
	}
}

func (b *builder) need(from, to order.Node, why uint8) {
	b.edges = append(b.edges, order.Edge{From: from, To: to, Why: why, Strength: reasons[why].strength})
}

// hub is the node of a point.
func (b *builder) hub(p Point) order.Node {
	n, known := b.points[p]
	if !known {
		n = order.Node(len(b.s.Entries) + len(b.s.Points))
		b.points[p] = n
		b.s.Points = append(b.s.Points, p)
	}
	return n
}

func (b *builder) group(g Group, namespace string) order.Node {
	return b.hub(Point{Hub: Gathered, Group: g, Namespace: namespace})
}

// number gives every object that is restored its node, and collects who is
// found by what it is.
func (b *builder) number() {
	for _, f := range b.x.Facts {
		for _, ref := range f.Names {
			b.refs[ref] = -1
		}
	}
	for i, entries := range b.x.Entries {
		for _, en := range entries {
			if en.Skip != "" {
				continue
			}
			en.Node = order.Node(len(b.s.Entries))
			b.s.Entries = append(b.s.Entries, en)
			ref := relation.Ref{Kind: b.x.Kinds[i], Namespace: en.Namespace, Name: en.Name}
			if _, wanted := b.refs[ref]; wanted {
				b.refs[ref] = en.Node
			}
		}
	}
	b.s.Named = make([]bool, len(b.s.Entries))
}

// resolve finds who serves, grants and defines what.
func (b *builder) resolve() {
	for _, en := range b.s.Entries {
		kind, f := b.s.KindOf(en), b.x.Facts[en]
		if kind == shape.KindClaim {
			if set := b.x.SetOf(en.Namespace, en.Name); set != "" {
				key := [2]string{en.Namespace, set}
				b.claimed[key] = append(b.claimed[key], en.Node)
			}
		}
		if f == nil {
			continue
		}
		switch {
		case kind == shape.KindService:
			b.services[[2]string{en.Namespace, en.Name}] = en
		case kind == shape.KindCRD:
			defined := b.x.DefinedBy[en]
			b.orders[defined], b.converts[defined] = f.Order, f
		case f.Account != "":
			b.makers[en.Namespace] = append(b.makers[en.Namespace], en)
		}
		for _, s := range f.Subjects {
			b.rights[s] = append(b.rights[s], en)
		}
	}
	for _, en := range b.s.Entries {
		if why := b.lateness(en); why != 0 {
			b.late[en] = why
		}
	}
}

// lateness says why an object comes after the workloads, or 0.
func (b *builder) lateness(en *index.Entry) uint8 {
	kind, said := b.s.KindOf(en), ""
	if f := b.x.Facts[en]; f != nil {
		said = f.Order
	}
	switch rank := shape.RankOf(kind); {
	case said != "" && said != Sooner && said != Later, said != "" && rank != shape.RankCustom && rank != shape.RankWorkloads && kind != shape.KindCRD:
		b.s.Misplaced = append(b.s.Misplaced, en)
		return 0
	case kind == shape.KindCRD, rank != shape.RankCustom && rank != shape.RankWorkloads:
		return 0
	case said == "":
		said = b.orders[kind]
	}
	switch {
	case said == Later:
		return whyAnnotated
	case said == "" && ProfileOf(kind) != nil:
		return whyProfile
	}
	return 0
}

// place says what one object needs.
func (b *builder) place(en *index.Entry) {
	kind := b.s.KindOf(en)
	f := b.x.Facts[en]
	if f == nil {
		f = &relation.Facts{}
	}
	if en.Namespace != "" {
		b.need(en.Node, b.hub(Point{Hub: Namespace, Namespace: en.Namespace}), whyIn)
	}
	if len(b.x.Defined[kind]) > 0 {
		b.need(en.Node, b.hub(Point{Hub: Definitions}), whyDefined)
	}
	b.placeOwned(en)
	for _, ref := range f.Names {
		b.needNamed(en, ref)
	}
	switch rank := shape.RankOf(kind); rank {
	case shape.RankDefinitions:
		b.need(b.hub(Point{Hub: Definitions}), en.Node, whyPartStrictly)
	case shape.RankNamespaces:
		b.need(b.hub(Point{Hub: Namespace, Namespace: en.Name}), en.Node, whyPartStrictly)
	case shape.RankClaims:
		b.need(en.Node, b.group(Classes, ""), whyClasses)
	case shape.RankNetwork:
		if kind == (schema.GroupKind{Kind: "LimitRange"}) {
			b.need(en.Node, b.group(Volumes, en.Namespace), whyRefuses)
		}
	case shape.RankCustom:
		b.placeCustom(en)
	case shape.RankWorkloads:
		b.placeWorkload(en, f)
	case shape.RankAround:
		b.need(en.Node, b.group(Workloads, en.Namespace), whyLooksAt)
	case shape.RankServed:
		b.need(en.Node, b.group(Workloads, Everywhere), whyLooksAt)
		b.needAnswer(en, f.Backends, whyServed)
	case shape.RankLimits, shape.RankGuards:
		b.need(en.Node, b.hub(Point{Hub: Ready}), whyRefuses)
		b.needAnswer(en, f.Backends, whyServed)
	}
}

// placeOwned has owners come first, where they are of no later rank: what an
// operator would make anew if it were missing, as a password, comes before what
// has the operator look for it.
func (b *builder) placeOwned(en *index.Entry) {
	for _, o := range en.Owners {
		above := b.x.ByUID[o.UID]
		if above != nil && above != en && above.Skip == "" && shape.RankOf(b.s.KindOf(above)) <= shape.RankOf(b.s.KindOf(en)) {
			b.need(en.Node, above.Node, whyOwned)
		}
	}
}

func (b *builder) needNamed(en *index.Entry, ref relation.Ref) {
	n, known := b.refs[ref]
	if !known || n < 0 || n == en.Node {
		return
	}
	b.need(en.Node, n, whyNames)
	b.s.Named[n] = true
}

// placeCustom has custom resources wait for what their operator would look for.
func (b *builder) placeCustom(en *index.Entry) {
	in := en.Namespace
	if in == "" {
		in = Everywhere
	}
	b.need(en.Node, b.group(Namespaces, Everywhere), whyAllowed)
	b.need(en.Node, b.group(Classes, ""), whyClasses)
	for _, g := range []Group{Configuration, Volumes, Network} {
		b.need(en.Node, b.group(g, in), whyOperator)
	}
	if why := b.late[en]; why != 0 {
		b.need(en.Node, b.group(Workloads, Everywhere), why)
	}
	kind := b.s.KindOf(en)
	if f := b.converts[kind]; f != nil && f.Stored != b.x.Versions[en.Res] {
		b.needAnswer(en, f.Converts, whyConverted)
	}
}

// placeWorkload has what makes pods wait for what these need from their first
// second on.
func (b *builder) placeWorkload(en *index.Entry, f *relation.Facts) {
	b.need(en.Node, b.group(Namespaces, Everywhere), whyAllowed)
	b.need(en.Node, b.group(Classes, ""), whyClasses)
	b.need(en.Node, b.group(Network, en.Namespace), whyNetwork)
	for _, n := range b.claimed[[2]string{en.Namespace, en.Name}] {
		if b.s.KindOf(en) == shape.KindStatefulSet {
			b.need(en.Node, n, whyMounts)
		}
	}
	if why := b.late[en]; why != 0 {
		b.need(en.Node, b.group(Workloads, Everywhere), why)
		return
	}
	b.placeByRights(en, f)
	if f.Order == Sooner {
		return
	}
	if !b.placeClient(en, f) && !f.Claims {
		b.need(en.Node, b.group(Volumes, en.Namespace), whyMayBeClient)
	}
}

// placeByRights has a workload wait for the rights of its account, and for all
// that these let it see.
func (b *builder) placeByRights(en *index.Entry, f *relation.Facts) {
	for _, s := range []relation.Subject{
		{Namespace: en.Namespace, Name: f.Account},
		{Group: true, Name: "system:serviceaccounts:" + en.Namespace},
		{Group: true, Name: "system:serviceaccounts"},
		{Group: true, Name: "system:authenticated"},
	} {
		for _, binding := range b.rights[s] {
			b.need(en.Node, binding.Node, whyRights)
			b.s.Named[binding.Node] = true
			if f.Order == Sooner {
				continue
			}
			in := binding.Namespace
			if in == "" {
				in = Everywhere
			}
			for _, g := range []Group{Configuration, Volumes, Network, Customs} {
				b.need(en.Node, b.group(g, in), whySees)
			}
		}
	}
}

// placeClient has a workload start after those that make the pods of the
// Services it speaks of, and tells whether there are any.
func (b *builder) placeClient(en *index.Entry, f *relation.Facts) (known bool) {
	for _, ref := range f.SpeaksOf(en.Namespace, func(ns, name string) bool { return b.services[[2]string{ns, name}] != nil }) {
		for _, server := range b.serving(ref) {
			if server != en {
				known = true
				b.need(en.Node, server.Node, whyClient)
			}
		}
	}
	return known
}

// serving are the workloads of the point that make a Service's pods.
func (b *builder) serving(ref relation.Ref) (all []*index.Entry) {
	service := b.services[[2]string{ref.Namespace, ref.Name}]
	if service == nil {
		return nil
	}
	for _, en := range b.makers[ref.Namespace] {
		if relation.Selects(b.x.Facts[service].Selector, b.x.Facts[en].Labels) {
			all = append(all, en)
		}
	}
	return all
}

// needAnswer has an object wait until what serves it is ready.
func (b *builder) needAnswer(en *index.Entry, backends []relation.Ref, why uint8) {
	for _, ref := range backends {
		gate, known := b.answers[ref]
		if !known {
			gate = -1
			if servers := b.serving(ref); len(servers) > 0 {
				gate = b.hub(Point{Hub: Answering, Namespace: ref.Namespace, Service: ref.Name})
				b.s.Members[gate] = servers
				b.need(gate, b.services[[2]string{ref.Namespace, ref.Name}].Node, whyPartStrictly)
				for _, server := range servers {
					b.need(gate, server.Node, whyPartStrictly)
				}
			}
			b.answers[ref] = gate
		}
		if gate >= 0 {
			b.need(en.Node, gate, why)
		}
	}
}

// Problems says which annotations cannot be followed.
func (s *Sequence) Problems() (all []string) {
	for _, en := range s.Misplaced {
		all = append(all, fmt.Sprintf("%s: annotation %s is for workloads, custom resources and their definitions, and says %q or %q", s.name(en), shape.AnnotationOrder, Sooner, Later))
	}
	slices.Sort(all)
	return all
}
