// Package fleet is what a console knows of a project's sites, applications and
// runs. It reads the vault alone: neither a site nor an agent has to answer, so
// what it shows is what a recovery would find. It changes nothing there.
package fleet

import (
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/failover"
)

// Snapshot is a project as the vault had it at one time.
type Snapshot struct {
	Project string `json:"project"`
	Vault   string `json:"vault"` // its address
	// At is when the console looked what there is, by its own clock. What is known of an
	// application may be older: see there.
	At time.Time `json:"at"`
	// Took is how long the last whole round took, and Calls what it asked the vault.
	Took  int64 `json:"tookMillis"`
	Calls int64 `json:"calls"`
	// Copy says that the vault is a second copy, which knows no epochs.
	Copy         bool          `json:"copy,omitempty"`
	Sites        []Site        `json:"sites"`
	Applications []Application `json:"applications"`
	Runs         []Run         `json:"runs"` // newest first
	// Earlier is how many runs that are over are not among them.
	Earlier int `json:"earlierRuns,omitempty"`
	// Unread is how many applications have not been read yet.
	Unread int `json:"unread,omitempty"`
	// Ahead is what is known beforehand of plans and readiness; nil: nothing yet.
	Ahead *ahead.View `json:"ahead,omitempty"`
}

// Site is a site by its signs of life.
type Site struct {
	Name    string    `json:"name"`
	Cluster string    `json:"cluster,omitempty"`
	Seen    time.Time `json:"seen"` // by the vault's clock
	Davit   string    `json:"davit,omitempty"`
	Kube    string    `json:"kubernetes,omitempty"`
	// Holds are the applications that it may write.
	Holds []string `json:"holds"`
	// Fault is why its sign of life could not be read.
	Fault string `json:"fault,omitempty"`
}

// Silent tells whether the site has given no sign of life for too long.
func (s Site) Silent(now time.Time) bool { return now.Sub(s.Seen) > silentAfter }

// Application is an application by its epochs, documents and recovery points.
type Application struct {
	Name string `json:"name"`
	// Site holds Epoch: it may write. Empty: nobody has claimed it yet.
	Site  string    `json:"site,omitempty"`
	Epoch int64     `json:"epoch,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Policy is the name of its policy; the rest of this block is what that says.
	Policy    string        `json:"policy,omitempty"`
	Suspended bool          `json:"suspended,omitempty"`
	RPO       time.Duration `json:"rpoObjective,omitempty"`
	RTO       time.Duration `json:"rtoObjective,omitempty"`
	Every     time.Duration `json:"every,omitempty"`
	Cron      string        `json:"cron,omitempty"`
	Points    []Point       `json:"points"` // newest first
	// Git names what makes it from git, as the agent of its site says.
	Git string `json:"git,omitempty"`
	// Fault is what is wrong in the vault with this application.
	Fault string `json:"fault,omitempty"`
	// Read is as of when all this is known, by the console's clock.
	Read time.Time `json:"read,omitzero"`
	// Unread says that it has not been read yet: nothing is known of it.
	Unread bool `json:"unread,omitempty"`
	// Stale is why the last attempt to read it brought nothing.
	Stale string `json:"stale,omitempty"`
}

// Point is a recovery point.
type Point struct {
	ID          string    `json:"id"`
	Instant     time.Time `json:"instant,omitzero"`
	Site        string    `json:"site,omitempty"`
	Epoch       int64     `json:"epoch,omitempty"`
	Consistency string    `json:"consistency,omitempty"`
	Objects     int64     `json:"objects"`
	Volumes     int       `json:"volumes"`
	Bytes       int64     `json:"bytes"`
	Stored      int64     `json:"storedBytes"`
	Warnings    int       `json:"warnings,omitempty"`
	// Verified is when it was last read back whole, or brought up; Tested when a
	// copy of it was brought up, with the outcome.
	Verified time.Time     `json:"verified,omitzero"`
	Tested   time.Time     `json:"tested,omitzero"`
	Passed   bool          `json:"passed,omitempty"`
	RTO      time.Duration `json:"rto,omitempty"` // of the test
	Pinned   bool          `json:"pinned,omitempty"`
	// Good says that it may be offered; Why says why not.
	Good bool   `json:"good"`
	Why  string `json:"why,omitempty"`
	// Kept says that retention keeps it, or does not, and Because by which rule.
	Kept    bool   `json:"kept"`
	Because string `json:"because,omitempty"`
	// Until is when that rule keeps it no more, where that is known: another may for longer.
	Until time.Time `json:"keptUntil,omitzero"`
}

// Run is a run by its journal.
type Run struct {
	failover.Result
	From     string    `json:"from,omitempty"`
	To       string    `json:"to,omitempty"`
	Begun    time.Time `json:"begun,omitzero"`
	End      time.Time `json:"end,omitzero"`
	Executor string    `json:"executor,omitempty"`
	By       string    `json:"by,omitempty"`
	Over     bool      `json:"over"`
	// Pause is why it does not go on by itself.
	Pause     string             `json:"pause,omitempty"`
	PauseKind failover.PauseKind `json:"pauseKind,omitempty"`
	// Reason is why it was asked for.
	Reason string `json:"reason,omitempty"`
	// Planned are its steps, as the plan has them.
	Planned []PlannedStep `json:"planned,omitempty"`
	Fault   string        `json:"fault,omitempty"`
	// Brief says that it is over and its steps are not kept here: its journal has them.
	Brief bool `json:"brief,omitempty"`
}

// Newest is the newest point that may be offered.
func (a *Application) Newest() (Point, bool) {
	for _, p := range a.Points {
		if p.Good {
			return p, true
		}
	}
	return Point{}, false
}

// Proven is the newest time at which any point was verified.
func (a *Application) Proven() (newest time.Time) {
	for _, p := range a.Points {
		if p.Good && p.Verified.After(newest) {
			newest = p.Verified
		}
	}
	return newest
}

// Lost is how much work would be lost if the site were lost now.
func (a *Application) Lost(now time.Time) (time.Duration, bool) {
	p, ok := a.Newest()
	return max(0, now.Sub(p.Instant)), ok
}

// limit is how old the newest point may be: the objective, or with none twice
// the schedule's interval and a little.
func (a *Application) limit() time.Duration {
	switch {
	case a.RPO > 0:
		return a.RPO
	case a.Every > 0:
		return 2*a.Every + time.Minute
	}
	return 0
}
