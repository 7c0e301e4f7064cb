// Package barrier decides how the file systems of one application are held
// still together while its volumes are cut, and what may be claimed of the
// cuts afterwards. It is pure: standard library only, time is an argument,
// events go in and effects come out. The decision record is
// docs/decisions/0007-freeze-barrier.md.
//
// There are two machines. A Coordinator, one per capture, tells nodes to arm,
// freeze and thaw, and starts the cuts in between. A Holder, one per node and
// capture, keeps one node's file systems frozen and thaws them by itself when
// the time is up or anything looks wrong.
//
// # The proof
//
// No two clocks are compared. The coordinator starts the cuts only after every
// node has reported that all its file systems are frozen, and orders the thaw
// only after every cut is done. A node says that it held only if it thawed
// because it was ordered to, and if the kernel confirmed for every file system
// that it was still frozen then. So every cut lies, by causality alone, inside
// the time in which all file systems stood still, and all of them show the
// same instant. If any link of that chain is missing the outcome says so.
package barrier

import (
	"fmt"
	"slices"
	"time"
)

// Plan is what a Coordinator works on.
type Plan struct {
	// Nodes that hold file systems of the application.
	Nodes []string
	// Window bounds how long a node keeps its file systems frozen.
	Window time.Duration
	// ArmLimit bounds the wait until all nodes are armed.
	ArmLimit time.Duration
	// Slack is what messages may take on top of a window before a silent node
	// is given up.
	Slack time.Duration
	// Required says that nothing is cut unless all is frozen.
	Required bool
}

// Kind says what an event of a Coordinator is.
type Kind int

// The events of a Coordinator.
const (
	Start     Kind = iota // begin
	Armed                 // Node is ready to freeze
	Frozen                // Node has frozen all its file systems
	Ended                 // Node has nothing frozen any more; Held, Why and Took say how it went
	Lost                  // Node cannot be asked any more; Why says it
	CutsDone              // every cut is done
	CutFailed             // a cut failed, or was called off; Why says it
	Cancelled             // whoever asked for the cuts gave up
	Tick                  // time has passed
)

// Event is something a Coordinator is told.
type Event struct {
	Kind Kind
	Node string
	Held bool
	Why  string
	Took time.Duration
}

// Action says what an effect asks for.
type Action int

// The effects of a Coordinator.
const (
	Arm    Action = iota // tell Node to get ready
	Freeze               // tell Node to freeze
	Thaw                 // tell Node to thaw
	Cut                  // start all cuts
	Finish               // nothing more will come: see Outcome
)

// Effect is something the Coordinator wants done.
type Effect struct {
	Action Action
	Node   string
}

// Outcome is what may be claimed when a Coordinator has finished.
type Outcome struct {
	// Held says that every file system of every node stood still from before
	// the first cut until after the last.
	Held bool
	// Why says why not.
	Why string
	// Cut says that the cuts were started, held or not.
	Cut bool
	// Frozen is the longest that a node kept anything frozen, by its own clock.
	Frozen time.Duration
}

// phase is where a Coordinator is.
type phase int

const (
	idle phase = iota
	arming
	freezing
	cutting // also without a barrier, after it broke
	thawing // cuts are done, waiting for the nodes
	finished
)

// member is what a Coordinator knows of a node.
type member struct {
	armed, frozen, ended, held bool
}

// Coordinator is the machine of a capture. The zero value is of no use.
type Coordinator struct {
	plan    Plan
	phase   phase
	members map[string]*member
	// deadline is when the present phase is given up; zero means never.
	deadline time.Time
	froze    bool // the order to freeze went out
	thawed   bool // the order to thaw went out
	cuts     bool // started
	outcome  Outcome
}

// NewCoordinator makes one that has not begun.
func NewCoordinator(plan Plan) *Coordinator {
	c := &Coordinator{plan: plan, members: map[string]*member{}}
	for _, n := range plan.Nodes {
		c.members[n] = &member{}
	}
	return c
}

// Deadline is when the Coordinator wants a Tick; zero means that it waits for
// events alone.
func (c *Coordinator) Deadline() time.Time { return c.deadline }

// Outcome is what may be claimed. It is final after Finish.
func (c *Coordinator) Outcome() Outcome {
	out := c.outcome
	if c.phase != finished {
		out.Held = false
	}
	return out
}

// Step takes an event and returns what to do, in order.
func (c *Coordinator) Step(now time.Time, e Event) []Effect {
	if c.phase == finished {
		return nil
	}
	switch e.Kind {
	case Start:
		return c.start(now)
	case Armed, Frozen, Ended, Lost:
		return c.fromNode(now, e)
	case CutsDone:
		return c.cutsDone(now)
	case CutFailed:
		c.broke("a cut failed: " + e.Why)
		return c.cutsDone(now)
	case Cancelled:
		c.broke("the capture was called off")
		if c.phase < cutting {
			c.plan.Required = true // nothing is cut any more
		}
		return c.giveUp(now)
	case Tick:
		return c.tick(now)
	}
	return nil
}

func (c *Coordinator) start(now time.Time) []Effect {
	if c.phase != idle {
		return nil
	}
	if len(c.members) == 0 { // no file system is in use: nothing can write
		c.phase, c.cuts, c.outcome.Cut = cutting, true, true
		return []Effect{{Action: Cut}}
	}
	c.phase, c.deadline = arming, now.Add(c.plan.ArmLimit)
	return c.each(Arm)
}

// each is one effect for every node that is still in it.
func (c *Coordinator) each(a Action) []Effect {
	var all []Effect
	for _, n := range c.plan.Nodes {
		if !c.members[n].ended {
			all = append(all, Effect{a, n})
		}
	}
	return all
}

// fromNode takes note of what a node says. Reports are of states, and may come
// again: only the first of each kind counts.
func (c *Coordinator) fromNode(now time.Time, e Event) []Effect {
	m := c.members[e.Node]
	if m == nil || m.ended {
		return nil
	}
	switch e.Kind {
	case Armed:
		m.armed = true
	case Frozen:
		m.armed, m.frozen = true, true
	case Ended, Lost:
		m.ended, m.held = true, e.Kind == Ended && e.Held && m.frozen
		c.outcome.Frozen = max(c.outcome.Frozen, e.Took)
		if !m.held {
			c.broke(fmt.Sprintf("node %s: %s", e.Node, e.Why))
		} else if !c.thawed {
			c.broke(fmt.Sprintf("node %s thawed without being told to", e.Node))
		}
	}
	return c.proceed(now)
}

// proceed goes on to the next phase when this one's condition holds.
func (c *Coordinator) proceed(now time.Time) []Effect {
	if c.outcome.Why != "" && !c.thawed {
		return c.giveUp(now)
	}
	switch {
	case c.phase == arming && c.all(func(m *member) bool { return m.armed }):
		c.phase, c.froze, c.deadline = freezing, true, now.Add(c.plan.Window+c.plan.Slack)
		return c.each(Freeze)
	case c.phase == freezing && c.all(func(m *member) bool { return m.frozen }):
		// The deadline stays: it counts from the order to freeze.
		c.phase, c.cuts, c.outcome.Cut = cutting, true, true
		return []Effect{{Action: Cut}}
	case c.phase == thawing && c.all(func(m *member) bool { return m.ended }):
		return c.finish()
	}
	return nil
}

func (c *Coordinator) all(is func(*member) bool) bool {
	return !slices.ContainsFunc(c.plan.Nodes, func(n string) bool { return !is(c.members[n]) })
}

// broke notes the first reason why nothing may be claimed.
func (c *Coordinator) broke(why string) {
	if c.outcome.Why == "" {
		c.outcome.Why = why
	}
}

// giveUp lets go of all nodes. Cuts that have begun go on, each for itself;
// those that have not begin now, unless all had to be frozen.
func (c *Coordinator) giveUp(now time.Time) []Effect {
	effects := c.letGo(now)
	switch {
	case c.cuts && c.phase == cutting:
		c.deadline = time.Time{} // whoever cuts bounds the cuts
		return effects
	case c.phase == thawing:
		return append(effects, c.proceedThawing()...)
	case c.plan.Required:
		c.phase = thawing
		return append(effects, c.proceedThawing()...)
	}
	c.phase, c.cuts, c.outcome.Cut, c.deadline = cutting, true, true, time.Time{}
	return append(effects, Effect{Action: Cut})
}

// letGo orders the thaw, once.
func (c *Coordinator) letGo(now time.Time) []Effect {
	if c.thawed {
		return nil
	}
	c.thawed, c.deadline = true, now.Add(c.plan.Window+c.plan.Slack)
	return c.each(Thaw)
}

// cutsDone orders the thaw, or finishes when that has been done.
func (c *Coordinator) cutsDone(now time.Time) []Effect {
	if c.phase != cutting {
		return nil
	}
	c.phase = thawing
	effects := c.letGo(now)
	if c.deadline.IsZero() {
		c.deadline = now.Add(c.plan.Window + c.plan.Slack)
	}
	return append(effects, c.proceedThawing()...)
}

// proceedThawing finishes when no node can have anything frozen any more. One
// that was never ordered to freeze need not be waited for.
func (c *Coordinator) proceedThawing() []Effect {
	if !c.froze || c.all(func(m *member) bool { return m.ended }) {
		return c.finish()
	}
	return nil
}

func (c *Coordinator) finish() []Effect {
	c.phase, c.deadline = finished, time.Time{}
	c.outcome.Held = c.outcome.Cut && c.outcome.Why == "" && c.all(func(m *member) bool { return m.held })
	return []Effect{{Action: Finish}}
}

func (c *Coordinator) tick(now time.Time) []Effect {
	if c.deadline.IsZero() || now.Before(c.deadline) {
		return nil
	}
	switch c.phase {
	case arming:
		c.broke("not every node got ready within " + c.plan.ArmLimit.String() + ": " + c.missing(func(m *member) bool { return m.armed }))
		return c.giveUp(now)
	case freezing:
		c.broke("not every node froze within " + c.plan.Window.String() + ": " + c.missing(func(m *member) bool { return m.frozen }))
		return c.giveUp(now)
	case cutting:
		c.broke("the cuts took longer than the window of " + c.plan.Window.String())
		return c.giveUp(now)
	case thawing:
		c.broke("no word whether it held from " + c.missing(func(m *member) bool { return m.ended }))
		return c.finish()
	}
	return nil
}

// missing names the nodes of which something is not true.
func (c *Coordinator) missing(is func(*member) bool) string {
	text := ""
	for _, n := range c.plan.Nodes {
		if !is(c.members[n]) {
			if text != "" {
				text += ", "
			}
			text += n
		}
	}
	return text
}
