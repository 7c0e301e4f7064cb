// Package turns runs code in coroutines, of which one goes on at a time: whoever
// resumes one waits until that yields, or is done.
package turns

import "iter"

// Pool has coroutines that are used again: what they run calls deeply, and a new one would have its stack grown
// again each time. It is for one goroutine at a time.
type Pool struct{ idle []*Coroutine }

// Coroutine runs one body after the other.
type Coroutine struct {
	body  func() // what to run next
	yield func(struct{}) bool
	next  func() (struct{}, bool)
	stop  func()
}

// killed unwinds a body that is not to go on.
type killed struct{}

// Start has a coroutine run a body, when it is resumed first.
func (p *Pool) Start(body func()) *Coroutine {
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		c.body = body
		return c
	}
	c := &Coroutine{body: body}
	c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
		c.yield = yield
		for c.body != nil {
			c.run()
			p.idle = append(p.idle, c)
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return c
}

// End ends the coroutines that run nothing.
func (p *Pool) End() {
	for _, c := range p.idle {
		c.stop()
	}
}

// run runs the body to its end, or until it is killed.
func (c *Coroutine) run() {
	body := c.body
	c.body = nil
	defer func() {
		if r := recover(); r != nil {
			if _, is := r.(killed); !is {
				panic(r)
			}
		}
	}()
	body()
}

// Resume lets the body go on until it yields or is done.
func (c *Coroutine) Resume() { c.next() }

// Yield stands still, in the body, until somebody resumes it.
func (c *Coroutine) Yield() { c.yield(struct{}{}) }

// Kill ends the body, in which it is called, where it stands.
func (*Coroutine) Kill() { panic(killed{}) }
