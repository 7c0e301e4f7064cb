// Package commission makes the order of a run out of a plan and of what somebody
// asks: the same for the command line and for an agent. It is pure.
package commission

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// Ask is what somebody wants done with a plan.
type Ask struct {
	Run    string // its name; empty: Name makes one
	Verb   plan.Verb
	To     string // the target: the site that this is
	By     string
	Reason string
	At     time.Time
	Lost   []string
	LostAt time.Time
	// Accept is the weakest fence that needs nobody's word; zero: a lease that
	// timed out.
	Accept failover.Level
	// Despite names the checks of the preflight that may fail.
	Despite []string
	Points  map[string]failover.Point
}

// Refusal is why something that was asked for cannot be. Nothing was changed.
type Refusal struct {
	Why string
	Do  string // what to do about it
}

// Error implements error.
func (r *Refusal) Error() string {
	if r.Do == "" {
		return r.Why
	}
	return r.Why + ": " + r.Do
}

// Refuse makes a Refusal.
func Refuse(do, format string, args ...any) error {
	return &Refusal{Why: fmt.Sprintf(format, args...), Do: do}
}

// Refused returns the refusal that an error is, or nil.
func Refused(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// Name is what a run is called that nobody gave a name.
func Name(plan string, verb plan.Verb, at time.Time) string {
	return fmt.Sprintf("%s-%s-%s", plan, verb, at.UTC().Format("20060102-150405"))
}

// Spec is the run, but for where the applications are now: see From.
func Spec(p *plan.Plan, a Ask) (*failover.Spec, error) {
	if err := fits(p, a); err != nil {
		return nil, err
	}
	despite, err := Despite(a.Despite)
	if err != nil {
		return nil, err
	}
	g, err := p.Graph(a.Verb)
	if err != nil {
		return nil, err
	}
	s := &failover.Spec{
		Run: cmp.Or(a.Run, Name(p.Name, a.Verb, a.At)), Plan: p.Name, Verb: a.Verb, To: a.To, By: a.By, Reason: a.Reason, At: a.At.UTC(),
		Accept: cmp.Or(a.Accept, failover.TimedOut), Lost: a.Lost, LostAt: a.LostAt, Despite: despite, Points: a.Points,
		Steps: g.Steps, Fence: p.Fence, Commit: p.Commit, Objectives: p.Objectives,
	}
	for _, app := range p.Applications {
		s.Applications = append(s.Applications, app.Name)
	}
	slices.Sort(s.Applications)
	for _, approval := range p.Approvals {
		if a.Verb != plan.Drill && len(approval.Verbs) == 0 || slices.Contains(approval.Verbs, a.Verb) {
			s.Approvals = max(s.Approvals, approval.Count)
			s.Demands = append(s.Demands, plan.Approval{Count: approval.Count, Roles: approval.Roles, Users: approval.Users})
		}
	}
	p.Aim(s.Steps, s.To)
	return s, nil
}

// fits says why the plan cannot be asked for that.
func fits(p *plan.Plan, a Ask) error {
	if problems := p.Check(); len(problems) > 0 {
		return Refuse("`plan validate` says all that is wrong", "%s: %v", p.Name, problems[0])
	}
	known := func(site string) bool {
		return slices.ContainsFunc(p.Sites, func(s plan.Site) bool { return s.Name == site })
	}
	if !known(a.To) {
		names := make([]string, 0, len(p.Sites))
		for _, s := range p.Sites {
			names = append(names, s.Name)
		}
		return Refuse("go to one of its sites ("+strings.Join(names, ", ")+"), or add it to them", "plan %s does not name this site, %s", p.Name, a.To)
	}
	for app := range a.Points {
		if !slices.ContainsFunc(p.Applications, func(x plan.Application) bool { return x.Name == app }) {
			return Refuse("`plan show` lists the plan's", "a point is chosen for %s, which is not of plan %s", app, p.Name)
		}
	}
	return nil
}

// From is the site that holds the plan's applications, of a run that brings
// them to another one. It also refuses lost sites that hold nothing of them.
func From(p *plan.Plan, s *failover.Spec, facts *failover.Facts) (string, error) {
	site := ""
	for _, a := range p.Applications {
		held, ok := facts.Epochs[a.Name]
		switch {
		case !ok:
			return "", Refuse("`points "+a.Name+"` shows what the vault holds", "no site ever held %s", a.Name)
		case s.Verb.Moves() && held.Site == s.To:
			return "", Refuse("`status` shows it", "%s is at site %s already, by epoch %d", a.Name, s.To, held.Number)
		case site != "" && site != held.Site:
			return "", Refuse("make a plan for each site's applications", "%s is at site %s and others at %s", a.Name, held.Site, site)
		}
		site = held.Site
	}
	for _, lost := range s.Lost {
		if lost == site && s.Verb.Moves() && s.Verb != plan.Failover {
			return "", Refuse("give `failover`, if it is lost", "--lost %s: a %s goes from that site, which takes part in it", lost, s.Verb)
		}
		if !slices.ContainsFunc(p.Applications, func(a plan.Application) bool { return slices.Contains(facts.Holders[a.Name], lost) }) {
			return "", Refuse("site "+site+" holds it now; `runs show` of earlier runs names other holders", "--lost %s: that site holds nothing that the run takes over", lost)
		}
	}
	return site, nil
}

// Undivided refuses to begin anything while two sites run an application: it might
// bring up the one whose writes nobody wants, and would hide that there are two.
func Undivided(facts *failover.Facts) error {
	if facts.Split == "" {
		return nil
	}
	return Refuse("stop it where it has no epoch, the agent there says in `describe` what keeps it; or, once you made sure that one of the sites has stopped, fail over with --lost SITE",
		"nothing was changed, two sites run one application: %s", facts.Split)
}
