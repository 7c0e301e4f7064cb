// Package readiness computes how ready an application is to be lost: a level
// from 0 to 3 over five columns, each backed by evidence with a date. Evidence
// ages; what changed since it was last proven needs verification. Pure.
package readiness

import (
	"fmt"
	"time"
)

// Level is how ready. None is below 0: not even that is there.
type Level int

// The levels, as docs/readiness.md has them.
const (
	None Level = iota - 1
	Documented
	Manual
	Scripted
	Automatic
)

// String is as people write it.
func (l Level) String() string {
	if l < 0 {
		return "none"
	}
	return fmt.Sprint(int(l))
}

// MarshalText implements encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// How long evidence holds.
const (
	FreshRun   = 90 * 24 * time.Hour // a run or drill
	FreshProof = 30 * 24 * time.Hour // a point read back, a copy brought up
	FreshSite  = 24 * time.Hour      // what a site says of itself
)

// Column is what one column is worth.
type Column struct {
	Name     string    `json:"name"`
	Level    Level     `json:"level"`
	Evidence string    `json:"evidence"`
	At       time.Time `json:"at,omitzero"`       // of the evidence
	Missing  string    `json:"missing,omitempty"` // for the next level
}

// Row is an application at a site.
type Row struct {
	Application string   `json:"application"`
	Site        string   `json:"site"` // where it would go
	Level       Level    `json:"level"`
	Columns     []Column `json:"columns"`
	// Verify says what changed since the last drill or run; empty: nothing is
	// known to have.
	Verify string `json:"verify,omitempty"`
	// Missing is what keeps the row from the next level, by column.
	Missing []string `json:"missing,omitempty"`
}

// Evidence is all that is known of an application and a site that it would go to.
type Evidence struct {
	Application, Site string
	Now               time.Time

	// Backups.
	Every    time.Duration // how often the policy captures; 0: not by itself
	Cron     bool          // by cron, with no known interval
	RPO      time.Duration
	Point    time.Time // instant of the newest; zero: none
	ReadBack time.Time // when a point was last read back whole, or brought up
	Together bool      // vault and source are lost together
	Apart    bool      // it is known that they are not

	// Procedures.
	Plan      string // that moves the application here; "": none
	PlanFault string // what is wrong with it
	Tasks     int    // steps that a person does
	Run       *Run   // the newest move or drill to this site that went well
	Drills    bool   // drills are on a schedule

	// Infrastructure.
	Standby  time.Time // when the site last said that it is there
	Failures []string  // what preflight found wrong there
	Unproven []string  // what preflight could not tell

	// Apps.
	Booted    time.Time // when a copy last came up and answered
	Unbooted  bool      // the newest copy did not
	Automatic bool      // a declaration without people

	// DNS.
	Names      int       // records that the plan moves
	Gates      int       // gates that it opens
	Rehearsed  time.Time // when the zone's servers said that they would
	NameFailed string    // what they said instead

	// Changed is when, and what, last changed of application, plan or davit.
	Changed time.Time
	What    string
}

// Run is a run that went well.
type Run struct {
	Name, Verb string
	At         time.Time
	Probed     bool // its probes asked something, and it answered
	Moved      bool // it moved names
}

// Judge computes the row of one application and site.
func Judge(e Evidence) Row {
	r := Row{Application: e.Application, Site: e.Site, Level: Automatic}
	for _, column := range []func(Evidence) Column{backups, procedures, infrastructure, apps, dns} {
		c := column(e)
		r.Columns = append(r.Columns, c)
		r.Level = min(r.Level, c.Level)
	}
	for _, c := range r.Columns {
		if c.Level == r.Level && c.Missing != "" {
			r.Missing = append(r.Missing, c.Name+": "+c.Missing)
		}
	}
	r.Verify = e.stale()
	return r
}

// stale says why what was proven no longer counts for what is there.
func (e Evidence) stale() string {
	switch {
	case e.Run == nil:
		return "no drill and no run came here yet"
	case e.Changed.After(e.Run.At):
		return fmt.Sprintf("%s since %s %s", e.What, e.Run.Verb, e.Run.Name)
	case e.Now.Sub(e.Run.At) > FreshRun:
		return fmt.Sprintf("%s %s is more than %d days ago", e.Run.Verb, e.Run.Name, int(FreshRun.Hours())/24)
	}
	return ""
}

// proven tells whether a run proves what is there now.
func (e Evidence) proven() bool { return e.stale() == "" }

// fresh tells whether evidence holds still.
func (e Evidence) fresh(at time.Time, holds time.Duration) bool {
	return !at.IsZero() && e.Now.Sub(at) <= holds
}

func backups(e Evidence) Column {
	c := Column{Name: "backups", Level: None, At: e.Point}
	interval := e.Every
	if e.Cron {
		interval = max(e.RPO, 24*time.Hour)
	}
	late := e.Now.Sub(e.Point) > max(3*interval, e.RPO, time.Minute)
	switch {
	case e.Point.IsZero():
		c.Evidence, c.Missing = "no recovery point", "take one: davit backup "+e.Application
	case e.Every == 0 && !e.Cron:
		c.Level, c.Evidence, c.Missing = Documented, "a recovery point, on demand", "give its policy a schedule"
	case late || e.RPO > 0 && e.Now.Sub(e.Point) > e.RPO:
		c.Level, c.Evidence, c.Missing = Documented, "recovery points are late", "find out what keeps captures: davit describe "+e.Application
	case e.Together:
		c.Level, c.Evidence, c.Missing = Documented, "in a vault that is lost with the source", "move the vault to another failure domain"
	case !e.fresh(e.ReadBack, FreshProof):
		c.Level, c.Evidence, c.Missing = Manual, "recurring, and not read back for 30 days", "read points back: verify or restoreTest in its policy"
	case !e.Apart:
		c.Level, c.Evidence, c.At, c.Missing = Manual, "recurring and read back", e.ReadBack, "say the failure domains of site and vault"
	default:
		c.Level, c.Evidence, c.At = Scripted, "recurring, read back, in another failure domain", e.ReadBack
		c.Missing = "its volumes are restored, not replicated: this davit replicates none"
	}
	return c
}

func procedures(e Evidence) Column {
	c := Column{Name: "procedures", Level: None}
	switch {
	case e.Plan == "":
		c.Evidence, c.Missing = "no plan", "write a plan (docs/plans.md) and give it with -f"
		return c
	case e.PlanFault != "":
		c.Evidence, c.Missing = "plan "+e.Plan+" is not valid", e.PlanFault
		return c
	case e.Run == nil:
		c.Evidence, c.Missing = "plan "+e.Plan+", never carried out to here", "try it: a drill or a switchover"
		return c
	}
	c.At, c.Evidence = e.Run.At, fmt.Sprintf("plan %s, %s %s", e.Plan, e.Run.Verb, e.Run.Name)
	switch {
	case !e.proven():
		c.Level, c.Missing = Documented, "verify it again: "+e.stale()
	case e.Tasks > 0:
		c.Level, c.Missing = Manual, fmt.Sprintf("%d steps are done by people", e.Tasks)
	case !e.Drills:
		c.Level, c.Missing = Scripted, "drill on a schedule"
	case !e.Automatic:
		c.Level, c.Missing = Scripted, "a person declares the disaster"
	default:
		c.Level = Automatic
	}
	return c
}

func infrastructure(e Evidence) Column {
	c := Column{Name: "infrastructure", Level: None, At: e.Standby}
	switch {
	case e.Standby.IsZero():
		c.Evidence, c.Missing = "site "+e.Site+" never said anything", "install Davit there, with this vault"
	case !e.fresh(e.Standby, FreshSite):
		c.Level, c.Evidence, c.Missing = Documented, "site "+e.Site+" is silent", "see why its agent publishes nothing"
	case len(e.Failures) > 0:
		c.Level, c.Evidence, c.Missing = Documented, "site "+e.Site+" stands by, and lacks something", e.Failures[0]
	case len(e.Unproven) > 0:
		c.Level, c.Evidence, c.Missing = Manual, "site "+e.Site+" stands by", e.Unproven[0]
	case e.Run == nil || !e.proven():
		c.Level, c.Evidence, c.Missing = Scripted, "site "+e.Site+" stands by and has all that it needs", "prove it: "+e.stale()
	default:
		c.Level, c.At, c.Evidence = Automatic, e.Run.At, fmt.Sprintf("%s %s came up there", e.Run.Verb, e.Run.Name)
	}
	return c
}

func apps(e Evidence) Column {
	c := Column{Name: "apps", Level: None}
	switch {
	case e.Run != nil && e.proven() && e.Run.Probed:
		c.Level, c.At, c.Evidence = Automatic, e.Run.At, fmt.Sprintf("%s %s, and its probes were answered", e.Run.Verb, e.Run.Name)
	case e.Unbooted:
		c.Level, c.At, c.Evidence, c.Missing = Documented, e.Booted, "the newest copy did not work", "davit describe "+e.Application+" says what failed"
	case e.Run != nil && e.proven():
		c.Level, c.At, c.Evidence, c.Missing = Scripted, e.Run.At, fmt.Sprintf("%s %s came up", e.Run.Verb, e.Run.Name), "give it probes in the plan"
	case e.fresh(e.Booted, FreshProof) && e.Plan != "":
		c.Level, c.At, c.Evidence, c.Missing = Scripted, e.Booted, "a copy came up and answered", "prove it there: "+e.stale()
	case e.fresh(e.Booted, FreshProof):
		c.Level, c.At, c.Evidence, c.Missing = Manual, e.Booted, "a copy came up and answered", "put it into a plan"
	case !e.Point.IsZero():
		c.Level, c.At, c.Evidence, c.Missing = Documented, e.Point, "captured, and not brought up for 30 days", "davit restore-test "+e.Application
	default:
		c.Evidence, c.Missing = "not captured", "davit protect"
	}
	return c
}

func dns(e Evidence) Column {
	c := Column{Name: "DNS", Level: None}
	switch {
	case e.Plan == "":
		c.Evidence, c.Missing = "no plan says how clients find it", "put traffic into a plan"
	case e.Names+e.Gates == 0:
		c.Level, c.Evidence, c.Missing = Documented, "the plan moves no name", "put traffic into plan "+e.Plan+" (docs/traffic.md)"
	case e.NameFailed != "":
		c.Level, c.Evidence, c.Missing = Documented, "the zone's servers would refuse", e.NameFailed
	case e.Run != nil && e.proven() && e.Run.Moved:
		c.Level, c.At, c.Evidence = Automatic, e.Run.At, fmt.Sprintf("%s %s moved it", e.Run.Verb, e.Run.Name)
	case !e.fresh(e.Rehearsed, FreshRun):
		c.Level, c.Evidence, c.Missing = Manual, "the plan moves it, and no server was asked", "run this with the kubeconfig of site "+e.Site+", which has the key"
	default:
		c.Level, c.At, c.Evidence, c.Missing = Scripted, e.Rehearsed, "the zone's servers would take its updates", "move it once: a drill does not"
	}
	return c
}
