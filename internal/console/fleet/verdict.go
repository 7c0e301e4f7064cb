package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

// silentAfter is how long a site that lives is without a sign at the most.
const silentAfter = lease.SilentAfter

// State is how well an application is protected now.
type State string

// The states, the worst first.
const (
	Unknown     State = "Unknown"     // it could not be read, or has not been yet
	Unprotected State = "Unprotected" // no recovery point may be offered
	Lagging     State = "Lagging"     // the newest is older than it may be
	Suspended   State = "Suspended"   // its policy is, and the newest is not too old yet
	Protected   State = "Protected"
)

var states = []State{Unknown, Unprotected, Lagging, Suspended, Protected}

// State tells how well the application is protected now.
func (a *Application) State(now time.Time) State {
	lost, any := a.Lost(now)
	switch {
	case a.Fault != "" || a.Unread:
		return Unknown
	case !any:
		return Unprotected
	case a.limit() > 0 && lost > a.limit():
		return Lagging
	case a.Suspended:
		return Suspended
	}
	return Protected
}

// Task is something that a person has to look at, and what to do.
type Task struct {
	About string // "application", "site", "run" or "plan"
	Name  string
	What  string
	Do    string
	rank  int
}

// mostNamed is how many of the applications of a site a task names.
const mostNamed = 8

// Tasks are what a person has to look at, the most urgent first.
func (s *Snapshot) Tasks(now time.Time) []Task {
	var all []Task
	for _, r := range s.Runs {
		all = append(all, r.tasks()...)
	}
	silent := map[string]bool{}
	for _, site := range s.Sites {
		silent[site.Name] = site.Silent(now)
		all = append(all, site.tasks(now)...)
	}
	for i := range s.Applications {
		all = append(all, s.Applications[i].tasks(now, silent)...)
	}
	all = append(all, undeclared(s.Ahead)...)
	slices.SortStableFunc(all, Urgency)
	return all
}

// Urgency has what is more urgent come first, also of several projects.
func Urgency(a, b Task) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Name, b.Name))
}

// undeclared are plans that should be declared automatically, and would not be: nothing else
// shows that before a site is lost.
func undeclared(v *ahead.View) (all []Task) {
	if v == nil {
		return nil
	}
	for _, p := range v.Plans {
		for _, f := range p.Findings {
			if f.Check == "declaration" && (f.Verdict == preflight.Warn || f.Verdict == preflight.Fail) {
				all = append(all, Task{About: "plan", Name: p.Name, What: "it is to be declared automatically, and " + f.Reason, Do: f.Remedy, rank: 2})
			}
		}
	}
	return all
}

// ofDrills is how urgent it is that a drill waits: it moves nothing and protects nothing, and
// holds its copies for as long. What lags is looked at before.
const ofDrills = 5

func (r Run) tasks() []Task {
	t := Task{About: "run", Name: r.Run}
	switch {
	case r.Fault != "":
		t.rank, t.What, t.Do = 1, "its journal cannot be read: "+r.Fault, "davit runs show "+r.Run+" tells more"
	case r.Over:
		return nil
	case r.State == failover.SplitBrain:
		t.rank, t.What, t.Do = 0, "two sites may be writing: "+r.Why, "stop one of them, then davit runs resume "+r.Run
	case r.Pause != "":
		t.rank, t.What, t.Do = 1, "it waits for you: "+r.Pause, "davit runs show "+r.Run+" says what it can do next"
		if next := r.Next(); len(next) > 0 {
			t.Do = next[0].Command + ": " + next[0].What
		}
	case r.State == failover.AwaitingApproval:
		t.rank, t.What, t.Do = 2, "it waits for approval", "davit runs approve "+r.Run
	case r.State == failover.AwaitingCommit:
		t.rank, t.What, t.Do = 3, "it can still be rolled back", "davit runs commit "+r.Run+", or davit runs rollback "+r.Run
	default:
		return nil
	}
	if r.Verb == plan.Drill && t.rank > 0 {
		t.rank = ofDrills
	}
	return []Task{t}
}

func (s Site) tasks(now time.Time) []Task {
	if !s.Silent(now) || len(s.Holds) == 0 {
		return nil
	}
	holds := strings.Join(s.Holds[:min(len(s.Holds), mostNamed)], ", ")
	if more := len(s.Holds) - mostNamed; more > 0 {
		holds += fmt.Sprintf(" and %d more", more)
	}
	what := fmt.Sprintf("no sign of life for %s; it holds %s", short(now.Sub(s.Seen)), holds)
	return []Task{{
		About: "site", Name: s.Name, What: what, rank: 2,
		Do: "if the site is lost: davit failover PLAN at the site that takes over. If it runs, look at its agent: davit status",
	}}
}

func (a *Application) tasks(now time.Time, silent map[string]bool) []Task {
	if a.Unread && a.Fault == "" && a.Stale == "" { // that it comes to that is nobody's task
		return nil
	}
	t := Task{About: "application", Name: a.Name}
	lost, _ := a.Lost(now)
	switch a.State(now) {
	case Unknown:
		t.rank, t.What, t.Do = 3, "it cannot be read: "+cmp.Or(a.Fault, a.Stale), "davit verify "+a.Name
	case Unprotected:
		t.rank, t.What, t.Do = 3, "no recovery point may be offered: all would be lost", "at its site: davit status, then davit backup "+a.Name
	case Lagging:
		t.rank = 4
		t.What = fmt.Sprintf("its newest recovery point is %s old; %s is the most it may be", short(lost), short(a.limit()))
		t.Do = "at site " + cmp.Or(a.Site, "of the application") + ": davit status says why it is not captured"
		if silent[a.Site] {
			t.Do = "its site is silent: see there"
		}
	case Suspended:
		t.rank, t.What, t.Do = 6, "its policy is suspended: nothing new is captured", "davit resume "+a.Name+" when that is over"
	default:
		if a.Proven().IsZero() {
			t.rank, t.What, t.Do = 7, "no recovery point was ever verified", "davit verify "+a.Name+", or give its policy a schedule for that"
			break
		}
		return nil
	}
	return []Task{t}
}

// Count is how many applications are in each state.
func (s *Snapshot) Count(now time.Time) map[State]int {
	n := map[State]int{}
	for i := range s.Applications {
		n[s.Applications[i].State(now)]++
	}
	return n
}

// Worst sorts applications for people: what needs a look comes first.
func (s *Snapshot) Worst(now time.Time) []Application {
	all := slices.Clone(s.Applications)
	slices.SortStableFunc(all, func(a, b Application) int {
		return cmp.Or(cmp.Compare(slices.Index(states, a.State(now)), slices.Index(states, b.State(now))), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// Application finds one by its name.
func (s *Snapshot) Application(name string) (*Application, bool) {
	for i := range s.Applications {
		if s.Applications[i].Name == name {
			return &s.Applications[i], true
		}
	}
	return nil, false
}

// LastDrill is the newest drill that is over of any plan of an application. One that was
// canceled or rejected shows nothing.
func (s *Snapshot) LastDrill(app string) (last ahead.Drill, any bool) {
	for _, name := range s.Ahead.Of(app) {
		p, _ := s.Ahead.Plan(name)
		for _, d := range p.Drills {
			if r, ok := s.Run(d.Run); ok && r.State == failover.Canceled {
				continue
			}
			if !any || d.At.After(last.At) {
				last, any = d, true
			}
		}
	}
	return last, any
}

// Run finds one by its name.
func (s *Snapshot) Run(name string) (*Run, bool) {
	for i := range s.Runs {
		if s.Runs[i].Run == name {
			return &s.Runs[i], true
		}
	}
	return nil, false
}

// States are all states, the worst first.
func States() []State { return slices.Clone(states) }

// short writes a length of time without the zeros at its end.
func short(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
