package plan

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Problem is one thing that is wrong with a plan.
type Problem struct {
	Where string // the part of the plan: `step "warm-up"`
	What  string // what is wrong
	Do    string // what to do about it
}

// Error implements error.
func (p Problem) Error() string { return p.Where + ": " + p.What + ": " + p.Do }

// Check returns everything that is wrong with the plan, in the order of its
// parts. A plan without problems has a Graph for every verb.
func (p *Plan) Check() []Problem {
	c := &checker{p: p}
	c.names()
	named := len(c.problems) == 0
	for _, check := range []func(){
		c.sites, c.applications, c.groups, c.outside, c.traffic, c.steps, c.approvals,
		c.objectives, c.declaration, c.fence, c.commit, c.limits, c.drills,
	} {
		check()
	}
	if named { // else what comes after what is anybody's guess
		c.order()
	}
	return c.problems
}

// LeastDrillInterval is how close drills on a schedule may follow each other.
const LeastDrillInterval = 10 * time.Minute

func (c *checker) drills() {
	d := c.p.Drills
	if d == nil {
		return
	}
	switch {
	case d.Every != 0 && d.Cron != "":
		c.say("drills", "they have an interval and a cron expression", "leave one of schedule.every and schedule.cron out")
	case d.Every == 0 && d.Cron == "":
		c.say("drills", "they have no schedule", "give schedule.every or schedule.cron")
	case d.Cron == "" && d.Every < LeastDrillInterval:
		c.say("drills", fmt.Sprintf("they are %s apart", span(d.Every)), fmt.Sprintf("give schedule.every %s or more", span(LeastDrillInterval)))
	}
	for _, name := range d.Sites {
		if !slices.ContainsFunc(c.p.Sites, func(s Site) bool { return s.Name == name }) {
			c.say("drills", fmt.Sprintf("the site %q is none of the plan's", name), "name it under sites, or not here")
		}
	}
}

// checker gathers problems. Each of its methods checks one part.
type checker struct {
	p        *Plan
	problems []Problem
}

func (c *checker) say(where, what, do string) {
	c.problems = append(c.problems, Problem{where, what, do})
}

// name checks a name, and that no other of its kind has it.
func (c *checker) name(kind, name string, seen map[string]bool) {
	where := fmt.Sprintf("%s %q", kind, name)
	switch {
	case !validName(name):
		c.say(where, "the name is not valid", "use lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit")
	case seen[name]:
		c.say(where, "the name is given twice", "rename one of them")
	}
	seen[name] = true
}

// validName tells whether a name is a DNS-1123 subdomain, as the vault wants it.
func validName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || part[0] == '-' || part[len(part)-1] == '-' || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

func (c *checker) names() {
	c.name("plan", c.p.Name, map[string]bool{})
	parts := []struct {
		kind string
		of   []string
	}{
		{"site", names(c.p.Sites, func(s Site) string { return s.Name })},
		{"application", c.p.apps()},
		{"group", names(c.p.Groups, func(g Group) string { return g.Name })},
		{"step", names(c.p.Steps, func(s Step) string { return s.Name })},
		{"outside dependency", names(c.p.Outside, func(o Outside) string { return o.Name })},
		{"traffic", names(c.p.Traffic, func(t Traffic) string { return t.Name })},
	}
	for _, part := range parts {
		seen := map[string]bool{}
		for _, n := range part.of {
			c.name(part.kind, n, seen)
		}
	}
}

func names[T any](all []T, name func(T) string) []string {
	var out []string
	for _, x := range all {
		out = append(out, name(x))
	}
	return out
}

func (p *Plan) apps() []string {
	return names(p.Applications, func(a Application) string { return a.Name })
}

// known checks that something refers to one that exists.
func (c *checker) known(where, kind, name string, all []string) {
	if !slices.Contains(all, name) {
		c.say(where, fmt.Sprintf("there is no %s %q", kind, name), "name one of the plan's: "+list(all))
	}
}

func list(all []string) string {
	if len(all) == 0 {
		return "it has none yet"
	}
	sorted := slices.Sorted(slices.Values(all))
	return strings.Join(sorted, ", ")
}

func (c *checker) sites() {
	if len(c.p.Sites) < 2 {
		c.say("sites", fmt.Sprintf("there are %d", len(c.p.Sites)), "name two or more: a plan moves applications between sites")
	}
	kinds := []MappingKind{MapStorageClass, MapImage, MapIngressClass, MapHost, MapNodeLabel}
	for _, s := range c.p.Sites {
		seen := map[Mapping]bool{}
		for _, m := range s.Mappings {
			where := fmt.Sprintf("site %q, mapping of %s %q", s.Name, m.Kind, m.From)
			key := Mapping{Kind: m.Kind, From: m.From}
			switch {
			case m.Kind == MapNamespace:
				c.say(where, "an application that moves keeps its namespaces: its protection, its fence and the way back go by them, and so do names that its own configuration holds",
					"remove it; a copy in other namespaces is made by davit restore --as-clone --map-namespace")
			case !slices.Contains(kinds, m.Kind):
				c.say(where, "the kind is not known", fmt.Sprintf("use one of %v", kinds))
			case m.From == "" || m.To == "":
				c.say(where, "from or to is empty", "say both")
			case m.Kind == MapNodeLabel && strings.Contains(m.From, "=") != strings.Contains(m.To, "="):
				c.say(where, "one of from and to has a value and the other has none", "write both as KEY, or both as KEY=VALUE")
			case seen[key]:
				c.say(where, "it is mapped twice", "remove one of them")
			}
			seen[key] = true
		}
	}
}

func (c *checker) applications() {
	if len(c.p.Applications) == 0 {
		c.say("applications", "there are none", "name at least one")
	}
	groups := names(c.p.Groups, func(g Group) string { return g.Name })
	outside := names(c.p.Outside, func(o Outside) string { return o.Name })
	for _, a := range c.p.Applications {
		where := fmt.Sprintf("application %q", a.Name)
		if a.Group != "" {
			c.known(where, "group", a.Group, groups)
		}
		for _, after := range a.After {
			c.known(where+", after", "application", after, c.p.apps())
		}
		for _, need := range a.Needs {
			c.known(where+", needs", "outside dependency", need, outside)
		}
		if a.Data != "" && a.Data != KindRestore && a.Data != KindPromote {
			c.say(where, fmt.Sprintf("its data cannot come by %q", a.Data), "use restore or promote")
		}
		for i, check := range a.Probes {
			c.check(fmt.Sprintf("%s, probe %d", where, i+1), check)
		}
	}
}

func (c *checker) groups() {
	all := names(c.p.Groups, func(g Group) string { return g.Name })
	for _, g := range c.p.Groups {
		for _, after := range g.After {
			c.known(fmt.Sprintf("group %q, after", g.Name), "group", after, all)
		}
	}
}

func (c *checker) check(where string, k Check) {
	if !slices.Contains([]CheckKind{CheckTCP, CheckHTTP, CheckSQL, CheckCommand}, k.Kind) {
		c.say(where, fmt.Sprintf("the kind %q is not known", k.Kind), "use tcp, http, sql or command")
	}
	if k.Target == "" {
		c.say(where, "it has no target", "say what to ask")
	}
	if k.Timeout <= 0 {
		c.say(where, "it has no timeout", "give one, such as 10s")
	}
	c.asks(where, k)
}

// asks checks what sql and command ask, and that no other does.
func (c *checker) asks(where string, k Check) {
	switch {
	case k.Kind == CheckSQL && k.Target != "":
		u, err := url.Parse(k.Target)
		switch {
		case err != nil || !slices.Contains([]string{"postgres", "postgresql", "mysql", "mariadb"}, u.Scheme) || !strings.Contains(u.Hostname(), "."):
			c.say(where, fmt.Sprintf("%q does not say which database", k.Target), "write postgres://SERVICE.NAMESPACE/DATABASE, or mysql://…")
		case u.User != nil && passworded(u.User):
			c.say(where, "its target holds a password", "leave it out: the client asks in the database's own container")
		}
	case k.Kind == CheckCommand && len(k.Command) == 0:
		c.say(where, "it has no command", "give one, as a list; the target says where: SERVICE.NAMESPACE or NAMESPACE/LABEL=VALUE")
	case k.Kind == CheckCommand && !strings.ContainsAny(k.Target, "./"):
		c.say(where, fmt.Sprintf("%q does not say where the command runs", k.Target), "write SERVICE.NAMESPACE or NAMESPACE/LABEL=VALUE")
	}
	if k.Query != "" && k.Kind != CheckSQL || len(k.Command) > 0 && k.Kind != CheckCommand ||
		k.Container != "" && k.Kind != CheckSQL && k.Kind != CheckCommand {
		c.say(where, fmt.Sprintf("a %s check has no query, command or container", k.Kind), "remove it")
	}
	if _, err := regexp.Compile(k.Expect); err != nil {
		c.say(where, "expect is no regular expression", err.Error())
	}
}

func passworded(u *url.Userinfo) bool {
	_, is := u.Password()
	return is
}

func (c *checker) outside() {
	sites := names(c.p.Sites, func(s Site) string { return s.Name })
	for _, o := range c.p.Outside {
		where := fmt.Sprintf("outside dependency %q", o.Name)
		for _, site := range sorted(o.Probes) {
			c.known(where, "site", site, sites)
			c.check(fmt.Sprintf("%s at site %s", where, site), o.Probes[site])
		}
		for _, site := range sites {
			if _, ok := o.Probes[site]; !ok {
				c.say(where, "it has no probe for site "+site, "say how that site reaches it")
			}
		}
	}
}

func (c *checker) traffic() {
	for _, t := range c.p.Traffic {
		where := fmt.Sprintf("traffic %q", t.Name)
		if t.Kind != KindDNS && t.Kind != KindGate {
			c.say(where, fmt.Sprintf("the kind %q is not known", t.Kind), "use dns or gate")
		}
		if t.Application != "" {
			c.known(where, "application", t.Application, c.p.apps())
		}
		if t.Object == "" {
			c.say(where, "it has no object", "name the record or the gate")
			continue
		}
		c.record(where, t.Kind, t.Object, t.Record)
	}
	c.oneMover()
}

// oneMover complains of names that two parts of the plan would move.
func (c *checker) oneMover() {
	by := map[string]string{}
	move := func(where string, k Kind, object string) {
		name := strings.TrimSuffix(object, ".")
		if k != KindDNS || name == "" {
			return
		}
		if other := by[name]; other != "" {
			c.say(where, fmt.Sprintf("%s is moved by %s too", name, other), "remove one of them")
		}
		by[name] = where
	}
	for _, t := range c.p.Traffic {
		move(fmt.Sprintf("traffic %q", t.Name), t.Kind, t.Object)
	}
	for _, s := range c.p.Steps {
		move(fmt.Sprintf("step %q", s.Name), s.Kind, s.Object)
	}
}

func (c *checker) steps() {
	added := c.p.added()
	for _, s := range c.p.Steps {
		where := fmt.Sprintf("step %q", s.Name)
		k, ok := kinds[s.Kind]
		if !ok || !k.written {
			c.say(where, fmt.Sprintf("the kind %q cannot be added", s.Kind), "use one of "+writable())
			continue
		}
		c.stepShape(where, s, k)
		c.stepNeeds(where, s)
		refs := slices.Concat(s.After, s.Before)
		if len(refs) == 0 {
			c.say(where, "it says neither after nor before what it comes", "name a step, such as ready/"+first(c.p.apps()))
		}
		for _, ref := range refs {
			if !added[ref] && !slices.ContainsFunc(c.p.Steps, func(o Step) bool { return o.Name == ref }) {
				c.say(where, fmt.Sprintf("there is no step %q", ref), "name a step of the plan, or one that Davit adds, such as ready/"+first(c.p.apps()))
			}
		}
		for _, v := range s.Verbs {
			c.verb(where, v)
		}
	}
}

func (c *checker) verb(where string, v Verb) {
	if !slices.Contains(Verbs(), v) {
		c.say(where, fmt.Sprintf("there is no verb %q", v), fmt.Sprintf("use some of %v", Verbs()))
	}
}

func first(all []string) string {
	if len(all) == 0 {
		return "<application>"
	}
	return slices.Min(all)
}

func writable() string {
	var all []string
	for k, t := range kinds {
		if t.written {
			all = append(all, string(k))
		}
	}
	return list(all)
}

func (c *checker) stepShape(where string, s Step, k traits) {
	if s.Timeout <= 0 {
		c.say(where, "it has no timeout", "give one: a step without could wait for ever")
	}
	if s.Application != "" {
		c.known(where, "application", s.Application, c.p.apps())
	}
	switch s.OnError {
	case "", Stop, Continue, Rollback:
	default:
		c.say(where, fmt.Sprintf("on error it cannot %q", s.OnError), "use stop, continue or rollback")
	}
	switch {
	case s.Side != "" && s.Side != Source && s.Side != Target:
		c.say(where, fmt.Sprintf("there is no side %q", s.Side), "use source or target")
	case s.Side == Source && (s.Kind == KindCommand || s.Kind == KindHTTP) && s.OnError == Continue:
		// Plans of before may have one: it is refused there, and the run goes on. A plan that
		// worked must not be refused on the day it is needed.
	case s.Side == Source && (s.Kind == KindCommand || s.Kind == KindHTTP):
		c.say(where, fmt.Sprintf("no site carries out a %s step for another: such an order comes through the vault, and whoever has the project's key could run anything at the source", s.Kind),
			"remove its side, and say early, so that it comes before the claims from the target; or let a person do it at the source, by a manual step")
	case s.Side != "" && s.Side != k.side && !k.either:
		c.say(where, fmt.Sprintf("a %s step acts at the %s only", s.Kind, k.side), "remove its side")
	}
	if s.Early && (s.Kind == KindDNS || s.Kind == KindGate) {
		c.say(where, "traffic cannot move before the source is fenced", "remove early")
	}
	if s.NoWayBack && s.OnError == Rollback {
		c.say(where, "it has no way back, and rolls back on an error", "use stop or continue")
	}
}

// stepNeeds checks what a kind needs, and that nothing else is said.
func (c *checker) stepNeeds(where string, s Step) {
	needs := []struct {
		kinds []Kind
		given bool
		what  string
	}{
		{[]Kind{KindCommand}, s.Command != nil && s.Command.Image != "", "command with an image"},
		{[]Kind{KindHTTP}, s.Call != nil && s.Call.Method != "" && (s.Call.URL != "" || s.Call.URLFrom != nil) && s.Call.Expect != 0, "call with a method, a URL and the status to expect"},
		{[]Kind{KindManual, KindApproval}, s.Prompt != "", "prompt"},
		{[]Kind{KindProbe}, len(s.Checks) > 0, "check"},
		{[]Kind{KindDNS, KindGate, KindSuspend, KindResume}, s.Object != "", "object"},
	}
	for _, n := range needs {
		if slices.Contains(n.kinds, s.Kind) && !n.given {
			c.say(where, "it has no "+n.what, "give one")
		}
	}
	for i, check := range s.Checks {
		c.check(fmt.Sprintf("%s, check %d", where, i+1), check)
	}
	if s.Object != "" {
		c.record(where, s.Kind, s.Object, s.Record)
	}
	c.reconciler(where, s)
	if s.Approvers != nil {
		if s.Kind != KindApproval {
			c.say(where, "its approvers are never asked", "make it a step of the kind approval, or remove them")
		}
		c.approvers(where, *s.Approvers)
	}
	c.infrastructure(where, s)
	c.call(where, s.Call)
	commands := s.Kind == KindCommand || s.Kind == KindHTTP || s.Kind == KindInfra && s.Command != nil
	if s.Undo != nil && (s.Undo.Image == "" || !commands) {
		c.say(where, "its undo cannot be used", "give undo an image, and only to steps that run a command or make a call")
	}
}

func (c *checker) approvals() {
	for i, a := range c.p.Approvals {
		where := fmt.Sprintf("approval %d", i+1)
		if a.Count < 1 {
			c.say(where, fmt.Sprintf("%d people must agree", a.Count), "say one or more, or remove it")
		}
		c.approvers(where, a)
		for _, v := range a.Verbs {
			c.verb(where, v)
		}
	}
	if c.p.Declaration.Automatic && slices.ContainsFunc(c.p.Approvals, func(a Approval) bool { return a.asks(Failover) }) {
		c.say("approvals", "an automatic failover would wait for people", "name the verbs, without failover, or declare by hand")
	}
}

// approvers checks that those who may agree are enough.
func (c *checker) approvers(where string, a Approval) {
	if slices.Contains(a.Roles, "") || slices.Contains(a.Users, "") {
		c.say(where, "one of its roles or users has no name", "name it, or remove it")
	}
	users := slices.Compact(slices.Sorted(slices.Values(a.Users)))
	if len(a.Roles) == 0 && len(users) > 0 && max(a.Count, 1) > len(users) {
		c.say(where, fmt.Sprintf("%d people must agree, and it names %d", a.Count, len(users)), "name more, or ask for fewer; whoever asks for the run does not count")
	}
}

func (a Approval) asks(v Verb) bool {
	if len(a.Verbs) == 0 {
		return v != Drill
	}
	return slices.Contains(a.Verbs, v)
}

func (c *checker) objectives() {
	if c.p.Objectives.RPO < 0 || c.p.Objectives.RTO < 0 {
		c.say("objectives", "one of them is negative", "say how much work may be lost, and how long recovery may take")
	}
}

func (c *checker) declaration() {
	d := c.p.Declaration
	sites := names(c.p.Sites, func(s Site) string { return s.Name })
	for _, site := range sorted(d.Probes) {
		where := "declaration, probe of site " + site
		c.known(where, "site", site, sites)
		c.check(where, d.Probes[site])
		if k := d.Probes[site].Kind; k == CheckSQL || k == CheckCommand {
			c.say(where, fmt.Sprintf("a vantage point cannot ask by %s", k), "use http or tcp, with an address that all vantage points reach")
		}
	}
	if !d.Automatic {
		return
	}
	seen := map[string]bool{}
	for _, v := range d.Vantages {
		c.name("vantage point", v, seen)
	}
	switch {
	case len(seen) < 3:
		c.say("declaration", fmt.Sprintf("it is automatic with %d vantage points", len(seen)), "name three: two cannot tell who of them is cut off")
	case d.Agree < 2 || d.Agree*2 <= len(seen) || d.Agree > len(seen):
		c.say("declaration", fmt.Sprintf("%d of %d vantage points decide", d.Agree, len(seen)), "let more than half of them agree")
	}
	switch {
	case d.For <= 0 || d.Block <= 0:
		c.say("declaration", "it is automatic without for or block", "say how long they must agree (30s) and how long nothing is declared after a run (1h)")
	case d.For <= Fresh:
		c.say("declaration", fmt.Sprintf("for is %s, and what a vantage point says counts for %s", d.For, Fresh), "let them agree for longer, such as 30s: else the last words of dead ones would do")
	}
}

func (c *checker) fence() {
	f := c.p.Fence
	if f.Timeout <= 0 {
		c.say("fence", "it has no timeout", "say how long a source that does not answer is asked, such as 30s")
	}
	switch {
	case c.p.Declaration.Automatic && (f.Lease <= 0 || f.Bound <= 0):
		c.say("fence", "automatic declaration without lease or bound", "give both: nothing else stops a source that cannot be reached")
	case !c.p.Declaration.Automatic && f.Lease != 0:
		c.say("fence", "a lease without automatic declaration", "remove it: where people declare, silence of the vault stops nobody")
	case f.Lease < 0 || f.Bound < 0 || f.Drift < 0 || f.Drift > 100_000:
		c.say("fence", "lease, bound or drift is out of bounds", "use positive times, and a drift of at most 100000 parts in a million")
	case f.Lease > 24*time.Hour || f.Bound > 24*time.Hour:
		c.say("fence", "lease or bound is longer than a day", "use seconds to minutes: it is what a failover waits")
	}
	if f.Promises && f.Lease <= 0 {
		c.say("fence", "promises without a lease", "remove them, or give a lease: without one silence of the vault stops nobody")
	}
	for _, s := range c.p.Sites {
		switch at, given := f.Peers[s.Name]; {
		case !given && f.Promises:
			c.say(fmt.Sprintf("site %q", s.Name), "it has no peer address, and the fence wants promises", "say under peer where the others ask it, host:port")
		case given && !peerAddress(at):
			c.say(fmt.Sprintf("site %q", s.Name), fmt.Sprintf("%q is not where a peer can be asked", at), "write host:port")
		}
	}
}

func peerAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && port != "" && serverAddress(s)
}

func (c *checker) commit() {
	m := c.p.Commit
	if m.Then != "" && m.Then != ThenCommit && m.Then != ThenRollback {
		c.say("commit", fmt.Sprintf("it cannot %q then", m.Then), "use commit, rollback, or nothing to wait for a person")
	}
	if m.Window < 0 || (m.Then == ThenRollback && m.Window == 0) {
		c.say("commit", "the window is too short", "say how long a run stays revocable")
	}
}

func (c *checker) limits() {
	for _, k := range sorted(c.p.Limits) {
		if t, ok := kinds[k]; !ok || t.limit == 0 {
			c.say("limits", fmt.Sprintf("Davit adds no %q step", k), "give the step itself a timeout")
		} else if c.p.Limits[k] <= 0 {
			c.say("limits", fmt.Sprintf("the one of %s steps is not positive", k), "remove it or give one")
		}
	}
}

// order finds cycles, also beside other problems, and steps that would wait for a fence
// that waits for them.
func (c *checker) order() {
	others := len(c.problems) > 0
	groups, before := names(c.p.Groups, func(g Group) string { return g.Name }), c.p.appsBefore
	cyclic := c.circular("groups", groups, c.p.groupAfter, "remove one of these dependencies")
	if cyclic {
		before = c.p.appAfter // their groups would make cycles of all
	}
	if c.circular("applications", c.p.apps(), before, "remove one of these dependencies, or of their groups") || cyclic {
		return
	}
	for _, v := range Verbs() {
		g := c.p.build(v)
		after := func(name string) []string {
			if s := g.index[name]; s != nil {
				return s.After
			}
			return nil // there is no such step, which was said
		}
		if c.circular("steps of a "+string(v), g.order, after, "remove one of these from after or before") {
			return
		}
		if !others {
			g.beforeClaims(c)
			g.suspendedLate(c)
		}
	}
}

// circular complains of a cycle, and tells whether there is one.
func (c *checker) circular(where string, all []string, after func(string) []string, do string) bool {
	path := cycle(all, after)
	if path != nil {
		c.say(where, "they wait for each other: "+strings.Join(path, " → "), do)
	}
	return path != nil
}

// cycle returns the first cycle among names, as a path that ends where it
// begins, or nil.
func cycle(all []string, after func(string) []string) []string {
	const open, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(n string) []string
	visit = func(n string) []string {
		switch state[n] {
		case done:
			return nil
		case open:
			return append(slices.Clone(path[slices.Index(path, n):]), n)
		}
		state[n] = open
		path = append(path, n)
		for _, next := range after(n) {
			if found := visit(next); found != nil {
				return found
			}
		}
		path = path[:len(path)-1]
		state[n] = done
		return nil
	}
	for _, n := range all {
		if found := visit(n); found != nil {
			return found
		}
	}
	return nil
}

func sorted[K ~string, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
