package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Graph is the steps of a run of one verb.
type Graph struct {
	Plan string
	Verb Verb
	// Steps are in an order in which each comes after all that it waits for.
	// Names break ties, so it is always the same. After holds every
	// dependency; Before is empty.
	Steps []Step
	// Waves are the indices of steps that may run at once: each wave waits for
	// the ones before it only.
	Waves [][]int
}

// Graph returns the steps of a run. The error is of the first problem that
// Check finds.
func (p *Plan) Graph(v Verb) (*Graph, error) {
	if problems := p.Check(); len(problems) > 0 {
		return nil, fmt.Errorf("order plan %s: %w", p.Name, problems[0])
	}
	if !slices.Contains(Verbs(), v) {
		return nil, fmt.Errorf("order plan %s: there is no verb %q", p.Name, v)
	}
	return p.build(v).graph(), nil
}

// builder gathers the steps of one verb.
type builder struct {
	p     *Plan
	verb  Verb
	index map[string]*Step
	order []string // names, sorted once all are there
}

// build adds all steps, whether or not they can be ordered.
func (p *Plan) build(v Verb) *builder {
	b := p.implicit(v)
	b.people()
	b.fold()
	slices.Sort(b.order)
	return b
}

// implicit is what Davit adds.
func (p *Plan) implicit(v Verb) *builder {
	b := &builder{p: p, verb: v, index: map[string]*Step{}}
	begin := b.outside()
	switch v {
	case Failover:
		begin = b.fenced(b.claims(begin))
	case Switchover:
		begin = b.handOver(begin)
	case Failback:
		begin = b.handOver(b.catchUp(begin))
	case Drill:
		begin = b.add(Step{Kind: KindSandbox}, begin...)
	case Restore:
		begin = b.stopInPlace(b.claims(begin))
	}
	b.start(begin)
	if v.Moves() || v == Drill { // which only rehearses it
		b.traffic()
	}
	if v == Drill {
		b.add(Step{Kind: KindCleanup}, b.all(KindReady, KindProbe)...)
	}
	return b
}

// added are the names of everything that Davit adds, in any verb.
func (p *Plan) added() map[string]bool {
	all := map[string]bool{}
	for _, v := range Verbs() {
		for name := range p.implicit(v).index {
			all[name] = true
		}
	}
	return all
}

// add takes a step in and returns its name, as what others wait for.
func (b *builder) add(s Step, after ...string) []string {
	if s.Name == "" {
		s.Name = string(s.Kind)
		if s.Application != "" {
			s.Name += "/" + s.Application
		}
	}
	if s.Timeout == 0 {
		s.Timeout = kinds[s.Kind].limit
		if own := b.p.Limits[s.Kind]; own > 0 {
			s.Timeout = own
		}
	}
	if s.Side == "" {
		s.Side = kinds[s.Kind].side
	}
	if s.OnError == "" {
		s.OnError = b.onError(s)
	}
	s.After = slices.Clone(after)
	b.index[s.Name] = &s
	b.order = append(b.order, s.Name)
	return []string{s.Name}
}

// onError is what follows an error where nobody says it. Planned moves go back
// to the source, which works; a failover has nothing to go back to.
func (b *builder) onError(s Step) OnError {
	switch {
	case s.NoWayBack:
		return Stop
	case s.Kind == KindClaim, b.verb == Switchover, b.verb == Failback:
		return Rollback
	case b.verb == Failover && s.Side == Source:
		return Continue
	}
	return Stop
}

// all are the names of the steps of some kinds, sorted.
func (b *builder) all(of ...Kind) []string {
	var found []string
	for _, name := range b.order {
		if slices.Contains(of, b.index[name].Kind) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// each adds a step of the kind for every application, and returns their names.
func (b *builder) each(k Kind, after func(app string) []string) []string {
	var added []string
	for _, app := range slices.Sorted(slices.Values(b.p.apps())) {
		added = append(added, b.add(Step{Kind: k, Application: app}, after(app)...)...)
	}
	return added
}

// outside probes what applications need and no site runs, before anything changes.
func (b *builder) outside() []string {
	var added []string
	for _, o := range b.p.Outside {
		added = append(added, b.add(Step{Kind: KindOutside, Name: string(KindOutside) + "/" + o.Name, Object: o.Name})...)
	}
	slices.Sort(added)
	return added
}

// claims takes the applications' epochs one after the other, in sorted order:
// of two runs that want the same applications, one gets the first of them, and
// the other has taken nothing that the first still needs.
func (b *builder) claims(after []string) []string {
	for _, app := range slices.Sorted(slices.Values(b.p.apps())) {
		after = b.add(Step{Kind: KindClaim, Application: app}, after...)
	}
	return after
}

// fenced makes sure that the former holders write no more.
func (b *builder) fenced(after []string) []string {
	hold := after
	if b.p.Fence.Lease > 0 {
		hold = b.add(Step{Kind: KindHold}, after...)
	}
	for _, app := range slices.Sorted(slices.Values(b.p.apps())) {
		b.add(Step{Kind: KindFence, Application: app, Timeout: b.p.Fence.Timeout, Returns: b.verb.Moves()}, after...)
	}
	return hold
}

// handOver stops the source in order, last started first, moves the last
// write, and only then takes the epochs.
func (b *builder) handOver(after []string) []string {
	later := map[string][]string{}
	for _, a := range b.p.Applications {
		for _, before := range b.p.appsBefore(a.Name) {
			later[before] = append(later[before], a.Name)
		}
	}
	b.each(KindQuiesce, func(app string) []string {
		wait := slices.Clone(after)
		for _, other := range later[app] {
			wait = append(wait, string(KindQuiesce)+"/"+other)
		}
		return wait
	})
	synced := b.each(KindSync, func(app string) []string { return []string{string(KindQuiesce) + "/" + app} })
	claimed := b.fenced(b.claims(synced))
	for _, a := range b.p.Applications {
		if a.Data == KindPromote {
			b.add(Step{Kind: KindDemote, Application: a.Name}, string(KindFence)+"/"+a.Name)
		}
	}
	return claimed
}

// catchUp keeps what only the old side has, then moves the difference.
func (b *builder) catchUp(after []string) []string {
	b.each(KindPin, func(string) []string { return after })
	return b.each(KindCatchUp, func(app string) []string { return []string{string(KindPin) + "/" + app} })
}

// stopInPlace stops what a restore is about to replace.
func (b *builder) stopInPlace(after []string) []string {
	for _, app := range slices.Sorted(slices.Values(b.p.apps())) {
		b.add(Step{Kind: KindSuspend, Name: "stop/" + app, Application: app, Side: Target, Object: app, Timeout: kinds[KindQuiesce].limit}, after...)
	}
	return b.all(KindSuspend)
}

// start brings every application up once those before it are ready.
func (b *builder) start(begin []string) {
	for _, a := range b.p.Applications {
		data := a.Data
		if data == "" {
			data = KindRestore
		}
		switch b.verb {
		case Drill:
			data = KindClone
		case Restore:
			data = KindRestore
		}
		wait := slices.Clone(begin)
		if name := string(KindDemote) + "/" + a.Name; b.index[name] != nil {
			wait = append(wait, name)
		}
		// Data may come while the fence is not there yet, objects may not.
		filled := b.add(Step{Kind: data, Application: a.Name, Name: "data/" + a.Name}, wait...)
		for _, other := range b.p.appsBefore(a.Name) {
			filled = append(filled, string(KindReady)+"/"+other)
			if b.probed(other) {
				filled = append(filled, string(KindProbe)+"/"+other)
			}
		}
		for _, k := range []Kind{KindApply, KindScale, KindReady} {
			filled = b.add(Step{Kind: k, Application: a.Name}, filled...)
		}
		if b.probed(a.Name) {
			b.add(Step{Kind: KindProbe, Application: a.Name, Checks: a.Probes}, filled...)
		}
	}
}

func (b *builder) probed(app string) bool {
	a := b.p.application(app)
	return a != nil && len(a.Probes) > 0
}

func (b *builder) traffic() {
	for _, t := range b.p.Traffic {
		wait := b.all(KindReady, KindProbe)
		if t.Application != "" {
			wait = []string{string(KindReady) + "/" + t.Application}
			if b.probed(t.Application) {
				wait = append(wait, string(KindProbe)+"/"+t.Application)
			}
		}
		b.add(Step{Kind: t.Kind, Name: "traffic/" + t.Name, Application: t.Application, Object: t.Object, Record: t.Record}, wait...)
	}
}

// appsBefore are the applications that must be ready before this one starts:
// those that it names, and those of the groups before its own. Sorted.
func (p *Plan) appsBefore(app string) []string {
	a := p.application(app)
	if a == nil {
		return nil
	}
	before := slices.Clone(a.After)
	groups := p.groupAfter(a.Group)
	for n := 0; n < len(groups); n++ { // with the groups before those, which may be empty
		for _, more := range p.groupAfter(groups[n]) {
			if !slices.Contains(groups, more) {
				groups = append(groups, more)
			}
		}
	}
	for _, other := range p.Applications {
		if slices.Contains(groups, other.Group) {
			before = append(before, other.Name)
		}
	}
	slices.Sort(before)
	return slices.Compact(before)
}

// application is the one of that name; nil when there is none.
func (p *Plan) application(name string) *Application {
	for i := range p.Applications {
		if p.Applications[i].Name == name {
			return &p.Applications[i]
		}
	}
	return nil
}

// appAfter are the applications that an application names.
func (p *Plan) appAfter(app string) []string {
	if a := p.application(app); a != nil {
		return a.After
	}
	return nil
}

// groupAfter are the groups that a group names.
func (p *Plan) groupAfter(group string) []string {
	for _, g := range p.Groups {
		if g.Name == group {
			return slices.Clone(g.After)
		}
	}
	return nil
}

// people adds the steps of the plan that take part in the verb.
func (b *builder) people() {
	for _, s := range b.p.Steps {
		if !s.in(b.verb) {
			continue
		}
		before := s.Before
		after := b.present(s.After, map[string]bool{s.Name: true})
		b.add(s, after...)
		b.index[s.Name].Before = before
	}
}

// Only is the plan with the steps of people's that take part in a verb.
func (p *Plan) Only(v Verb) *Plan {
	c := *p
	c.Steps = slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return !s.in(v) })
	return &c
}

func (s Step) in(v Verb) bool {
	if len(s.Verbs) == 0 {
		return v.Moves()
	}
	return slices.Contains(s.Verbs, v)
}

// present are those of some steps that take part. One that does not hands on
// what it waits for itself.
func (b *builder) present(refs []string, seen map[string]bool) []string {
	var found []string
	for _, ref := range refs {
		i := slices.IndexFunc(b.p.Steps, func(s Step) bool { return s.Name == ref })
		switch {
		case i >= 0 && b.p.Steps[i].in(b.verb), b.index[ref] != nil:
			found = append(found, ref)
		case i >= 0 && !seen[ref]:
			seen[ref] = true
			found = append(found, b.present(b.p.Steps[i].After, seen)...)
		}
	}
	return found
}

// fold turns Before into After, and sorts.
func (b *builder) fold() {
	for _, name := range b.order {
		s := b.index[name]
		for _, later := range s.Before {
			if other := b.index[later]; other != nil {
				other.After = append(other.After, name)
			}
		}
		s.Before = nil
	}
	if clean := b.index[string(KindCleanup)]; clean != nil { // after whatever people added
		for _, name := range b.order {
			if name != clean.Name && !slices.Contains(clean.After, name) {
				clean.After = append(clean.After, name)
			}
		}
	}
	for _, s := range b.index {
		slices.Sort(s.After)
		s.After = slices.Compact(s.After)
	}
}

// beforeClaims complains of steps that would wait for the fence while the
// claims, without which there is none, wait for them.
func (b *builder) beforeClaims(c *checker) {
	claims := b.all(KindClaim, KindHold, KindFence)
	awaited := b.behind(claims)
	for _, name := range b.order {
		s := b.index[name]
		if !s.Activates() || !b.verb.Moves() || !awaited[name] {
			continue
		}
		for _, claim := range claims {
			if path := b.path(claim, name); path != nil {
				c.say(fmt.Sprintf("step %q", name), fmt.Sprintf("in a %s it must wait for the fence, which waits for it: %s", b.verb, strings.Join(path, " → ")),
					"mark it early if it starts no writer, or let it come later")
				break
			}
		}
	}
}

// behind are the steps that some steps wait for, however far back, and themselves.
func (b *builder) behind(names []string) map[string]bool {
	seen := map[string]bool{}
	for rest := slices.Clone(names); len(rest) > 0; {
		n := rest[len(rest)-1]
		rest = rest[:len(rest)-1]
		if !seen[n] {
			seen[n] = true
			rest = append(rest, b.index[n].After...)
		}
	}
	return seen
}

// suspendedLate complains of what is suspended at the source after a claim: on a
// roll-back it would go on before the claim is given back, and start from git what
// another site may still write.
func (b *builder) suspendedLate(c *checker) {
	if !b.verb.Moves() {
		return
	}
	for _, name := range b.all(KindSuspend) {
		s := b.index[name]
		for _, claim := range b.all(KindClaim) {
			if s.Side == Source && b.path(name, claim) != nil {
				c.say(fmt.Sprintf("step %q", name), fmt.Sprintf("in a %s it suspends the source after %s", b.verb, claim), "let it come before quiesce/"+b.index[claim].Application)
				break
			}
		}
	}
}

// path is a way along After from one step to another, or nil.
func (b *builder) path(from, to string) []string {
	seen := map[string]bool{}
	var walk func(n string) []string
	walk = func(n string) []string {
		if n == to {
			return []string{n}
		}
		if seen[n] {
			return nil
		}
		seen[n] = true
		for _, next := range b.index[n].After {
			if rest := walk(next); rest != nil {
				return append([]string{n}, rest...)
			}
		}
		return nil
	}
	return walk(from)
}

// graph puts the steps into waves.
func (b *builder) graph() *Graph {
	g := &Graph{Plan: b.p.Name, Verb: b.verb}
	wave := map[string]int{}
	for len(wave) < len(b.order) {
		var now []string
		for _, name := range b.order {
			if _, placed := wave[name]; !placed && b.waitsFor(name, wave) == "" {
				now = append(now, name)
			}
		}
		var indices []int
		for _, name := range now {
			wave[name] = len(g.Waves)
			indices = append(indices, len(g.Steps))
			g.Steps = append(g.Steps, *b.index[name])
		}
		g.Waves = append(g.Waves, indices)
	}
	return g
}

// waitsFor is the first step that this one waits for and that is not placed.
func (b *builder) waitsFor(name string, placed map[string]int) string {
	for _, after := range b.index[name].After {
		if _, ok := placed[after]; !ok {
			return after
		}
	}
	return ""
}

// Aim gives a run's steps what they need of the site that the run goes to: how it
// reaches what no site runs, and what things are called there.
func (p *Plan) Aim(steps []Step, to string) {
	for i := range steps {
		s := &steps[i]
		switch s.Kind {
		case KindOutside:
			for _, o := range p.Outside {
				if o.Name == s.Object {
					s.Checks = []Check{o.Probes[to]}
				}
			}
		case KindCatchUp, KindRestore, KindClone, KindApply, KindScale:
			for _, site := range p.Sites {
				if site.Name == to {
					s.Mappings = slices.Clone(site.Mappings)
				}
			}
			if s.Kind == KindRestore {
				s.Gates = gates(steps, s.Application)
			}
		}
	}
}

// gates are those that let in clients of an application.
func gates(steps []Step, app string) []string {
	var all []string
	for _, s := range steps {
		if s.Kind == KindGate && (s.Application == app || s.Application == "") {
			all = append(all, s.Object)
		}
	}
	return all
}

// Step returns the step of a name, or nil.
func (g *Graph) Step(name string) *Step {
	for i := range g.Steps {
		if g.Steps[i].Name == name {
			return &g.Steps[i]
		}
	}
	return nil
}
