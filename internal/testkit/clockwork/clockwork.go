// Package clockwork is virtual time: what is to happen in its order, and clocks that are
// not quite true.
package clockwork

import "time"

// Entry is something that happens.
type Entry struct {
	At time.Duration // in true time
	N  int           // keeps the order of what happens at once
	Do func()
}

func (e Entry) before(other Entry) bool {
	return e.At < other.At || e.At == other.At && e.N < other.N
}

// Agenda is a heap of four branches: what comes next is first. It is where the
// simulator spends its time, so entries are neither boxed nor swapped.
type Agenda []Entry

const branches = 4

// Push adds an entry.
func (a *Agenda) Push(e Entry) {
	*a = append(*a, e)
	all := *a
	i := len(all) - 1
	for i > 0 {
		parent := (i - 1) / branches
		if !e.before(all[parent]) {
			break
		}
		all[i] = all[parent]
		i = parent
	}
	all[i] = e
}

// Pop takes out what comes next. There must be something.
func (a *Agenda) Pop() Entry {
	all := *a
	first, last := all[0], all[len(all)-1]
	all[len(all)-1] = Entry{}
	all = all[:len(all)-1]
	*a = all
	for i := 0; len(all) > 0; {
		least, child := i, i*branches+1
		for c := child; c < min(child+branches, len(all)); c++ {
			if least == i && all[c].before(last) || least != i && all[c].before(all[least]) {
				least = c
			}
		}
		if least == i {
			all[i] = last
			break
		}
		all[i] = all[least]
		i = least
	}
	return first
}

// Clock is a process's own: it runs a little fast or slow, and what it shows
// to people jumps.
type Clock struct {
	Rate   float64       // its seconds per true one
	Offset time.Duration // what it shows to leases at the beginning
	Wall   time.Duration // what it shows to people is off by that
}

// Mono is what the clock shows to leases at a true time.
func (c Clock) Mono(now time.Duration) time.Duration {
	return c.Offset + time.Duration(float64(now)*c.Rate)
}

// After is when the clock will show a time, in true time.
func (c Clock) After(mono time.Duration) time.Duration {
	return time.Duration(float64(mono-c.Offset)/c.Rate) + 1
}
