// Package traffic decides how clients are led from one site to another: what
// an order does to a name in the DNS, given what its servers say, and whether a
// site may say "active". It is pure; package rfc2136 below it speaks to servers.
package traffic

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
)

// Move is what an order wants of a name in the DNS.
type Move struct {
	Name  string // www.example.com
	Zone  string
	TTL   time.Duration
	To    []string // where it shall lead: addresses, or one name
	Known []string // where it leads at any site of the plan
	Site  string
	Token failover.Token
}

// Seen is what a server says of a name.
type Seen struct {
	Values []string // sorted
	TTL    time.Duration
	Guard  *Guard   // nil: there is none
	Text   []string // the guard as it stands, string by string
	// Apart says that the server changes the guard first, and then where the name leads: a change
	// that broke off in between left the one as it was to be, and the other as it was.
	Apart bool
}

// Verdict is what follows from what a server says.
type Verdict string

// The verdicts.
const (
	Stands     Verdict = "stands"     // it leads where it shall, under the order's epochs
	Moves      Verdict = "moves"      // it can be moved
	Superseded Verdict = "superseded" // a newer epoch has moved it
	Late       Verdict = "late"       // a newer order of the run was there before
	Sealed     Verdict = "sealed"     // it is not moved, and nothing up to the look's own number moves it any more
	Foreign    Verdict = "foreign"    // it leads to where the plan knows nothing of, and nobody moved it there
)

// Judge says what an order to move finds, and why.
func (m Move) Judge(s Seen) (Verdict, string) {
	if app, epoch := s.Guard.newer(m.Token.Epochs); app != "" {
		if s.Guard.Site == "" { // taken back, or taken away at a superseded site
			return Superseded, fmt.Sprintf("%s was moved under epoch %d of %s", m.Name, epoch, app)
		}
		return Superseded, fmt.Sprintf("%s leads to site %s under epoch %d of %s", m.Name, s.Guard.Site, epoch, app)
	}
	if s.Guard == nil {
		if len(s.Values) > 0 && !slices.ContainsFunc(s.Values, func(v string) bool { return slices.Contains(m.Known, v) }) {
			return Foreign, fmt.Sprintf("%s leads to %s, which no site of the plan has: correct the plan's record, or remove the one in the zone", m.Name, strings.Join(s.Values, ", "))
		}
		return Moves, ""
	}
	if s.Guard.Site == m.Site && slices.Equal(s.Values, Sort(m.To)) && s.Guard.shows(m.Token.Epochs) {
		return Stands, ""
	}
	if s.Guard.Run == m.Token.Run && s.Guard.Sequence >= m.Token.Sequence && !m.half(s) {
		return Late, fmt.Sprintf("a newer order of the run has seen %s", m.Name)
	}
	return Moves, ""
}

// Look says what a look finds, which has the number of the order that it looks for. That
// order's guard without its values, or a look's, keeps the order from moving the name.
func (m Move) Look(s Seen) (Verdict, string) {
	v, note := m.Judge(s)
	if v == Late && s.Guard.Sequence == m.Token.Sequence {
		return Sealed, ""
	}
	return v, note
}

// Return says what an order to take the move back finds. No other order of the step has its
// number.
func (m Move) Return(s Seen) (Verdict, string) {
	g := s.Guard
	own := g != nil && g.Run == m.Token.Run
	switch {
	case !own || g.Sequence != m.Token.Sequence:
	case s.Apart && !slices.Equal(s.Values, g.Was):
		return Moves, "" // only the guard was taken back
	default:
		return Stands, ""
	}
	v, note := m.Judge(s)
	switch {
	case v == Stands && own && g.Sequence > m.Token.Sequence:
		return Late, fmt.Sprintf("a newer order of the run has seen %s", m.Name)
	case v == Stands, v == Foreign: // of what is not the run's, the guard keeps it so
		return Moves, ""
	}
	return v, note
}

// half tells whether the order, and no look since, has written the guard and not yet where
// the name leads.
func (m Move) half(s Seen) bool {
	return s.Apart && s.Guard.Run == m.Token.Run && s.Guard.Sequence == m.Token.Sequence && s.Guard.Site == m.Site
}

// After is the guard once the name is moved.
func (m Move) After(s Seen) Guard {
	g := m.next(s)
	g.Site, g.Was = m.Site, s.Values
	if s.Guard != nil && s.Guard.Run == m.Token.Run { // it was moved, or looked at, by this run before
		g.Was = s.Guard.Was
	}
	return g
}

// Sealed is the guard once a look has found the name not moved: nothing else
// about it changes.
func (m Move) Sealed(s Seen) Guard {
	g := m.next(s)
	if s.Guard != nil && (!s.Apart || s.Guard.Site != m.Site) { // else the order would go on where it broke off
		g.Site = s.Guard.Site
	}
	g.Was = s.Values
	if s.Guard != nil && s.Guard.Run == m.Token.Run {
		g.Was = s.Guard.Was
	}
	return g
}

// Back is where the name leads once the run's move is taken back, and the
// guard then. What another run did meanwhile stays.
func (m Move) Back(s Seen) ([]string, Guard) {
	g := m.next(s)
	if s.Guard == nil || s.Guard.Run != m.Token.Run {
		if s.Guard != nil {
			g.Site = s.Guard.Site
		}
		g.Was = s.Values
		return s.Values, g
	}
	g.Was = s.Guard.Was
	return s.Guard.Was, g
}

// next is the guard with the order's number and the newest epochs of both.
func (m Move) next(s Seen) Guard {
	g := Guard{Run: m.Token.Run, Sequence: m.Token.Sequence, Epochs: map[string]int64{}}
	if s.Guard != nil {
		for app, n := range s.Guard.Epochs {
			g.Epochs[app] = n
		}
	}
	for app, n := range m.Token.Epochs {
		if n = max(g.Epochs[app], n); n > 0 { // none yet: nothing to say
			g.Epochs[app] = n
		}
	}
	return g
}

// GuardName is the name of the guard beside a name.
func GuardName(name string) string {
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		return "_davit-any." + rest
	}
	return "_davit." + name
}

// Sort returns values as Seen has them.
func Sort(values []string) []string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		out = append(out, strings.TrimSuffix(v, "."))
	}
	slices.Sort(out)
	return out
}
