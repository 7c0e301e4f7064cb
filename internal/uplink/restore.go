package uplink

import (
	"encoding/json"
	"time"
)

// How many restores and dry runs a console asks for in one stream before it is told the
// end of some. An agent that is asked for more ends the stream.
const (
	MostRestores = 128
	MostDryRuns  = 16
	// MostAsked is all of it: each restore may be taken back, too.
	MostAsked = 2*MostRestores + MostDryRuns
)

// What a console may restore at a site.
const (
	RestoresNone = "none"
	// RestoresClone: copies, into namespaces that are not there yet.
	RestoresClone = "clone"
	// RestoresAll: also in place, with all that overwrites and deletes.
	RestoresAll = "all"
)

// Restore asks a site's agent to restore an application there, or to say what that
// would do. The same again begins no second one.
type Restore struct {
	// Epoch is that of the console. A lower one than was heard is not obeyed.
	Epoch int64  `json:"epoch"`
	ID    string `json:"id"`
	// Name is what the Restore is to be called.
	Name string `json:"name"`
	// DryRun asks for a Preview, and changes nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Begun says that the site said before that it makes this: what is gone by now is
	// not made again.
	Begun bool `json:"begun,omitempty"`
	// Cancel takes it back, if it has not begun to restore. Only to agents that say
	// that they do so: another would begin it.
	Cancel      bool   `json:"cancel,omitempty"`
	Application string `json:"application"` // its name in the vault
	Point       string `json:"point"`
	// Clone makes a copy in Namespaces, which map all that were captured; else it
	// comes back in place.
	Clone          bool              `json:"clone,omitempty"`
	Namespaces     map[string]string `json:"namespaces,omitempty"`
	StorageClasses map[string]string `json:"storageClasses,omitempty"`
	// Existing is skip, update, replace or exact.
	Existing string `json:"existing,omitempty"`
	// Seen is the application's newest epoch as the console saw it: a restore in
	// place is refused when another site has raised it since.
	Seen   int64  `json:"seen"`
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
	// Until is when it is too late to begin, by the console's clock.
	Until time.Time `json:"until"`
}

// States of a restore that a console asked for, besides Refused.
const (
	// Planned: the dry run's Preview is there.
	Planned = "planned"
	// Running: the Restore is there, and the agent carries it.
	Running = "running"
	// Completed, Warned and Failed: it is over.
	Completed = "completed"
	Warned    = "warned"
	Failed    = "failed"
	// Canceled: it was taken back before it began.
	Canceled = "canceled"
)

// RestoreOver tells whether a state of a restore is its last; known whether it is
// one at all.
func RestoreOver(state string) (over, known bool) {
	switch state {
	case Refused, Planned, Completed, Warned, Failed, Canceled:
		return true, true
	case Running:
		return false, true
	}
	return false, false
}

// Restored is what became of a Restore. Each replaces what was said before, up to
// the one whose state is the last.
type Restored struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
	Do    string `json:"do,omitempty"`
	// Result is a Preview of a dry run, and an Outcome of a restore.
	Result json.RawMessage `json:"result,omitempty"`
}

// MaxResult bounds a Result, in bytes.
const MaxResult = 256 << 10

// Preview is what a restore would do. Nothing of a Secret's values is in it.
type Preview struct {
	Site        string    `json:"site"`
	Point       string    `json:"point"`
	Instant     time.Time `json:"instant,omitzero"`
	Consistency string    `json:"consistency,omitempty"`
	SourceSite  string    `json:"sourceSite,omitempty"`
	// Account is whose rights it would have.
	Account string `json:"account"`
	// Holder is the site that holds the application's newest epoch.
	Epoch    int64    `json:"epoch,omitempty"`
	Holder   string   `json:"holder,omitempty"`
	Overlays []string `json:"overlays,omitempty"`
	// Checks are what was found beforehand; one of severity error stops a restore.
	Checks []Check `json:"checks,omitempty"`
	// Counts are all objects, by action.
	Counts map[string]int `json:"counts"`
	// Objects are those that there was room for, and Left how many there was none for.
	Objects []Planning `json:"objects"`
	Left    int        `json:"left,omitempty"`
	// Cut is how many differences are not shown, or not whole.
	Cut int `json:"cut,omitempty"`
}

// Check is one finding of a restore's preflight.
type Check struct {
	Severity string `json:"severity"` // error or warning
	Message  string `json:"message"`
	Remedy   string `json:"remedy,omitempty"`
}

// Planning is what a restore would do with one object.
type Planning struct {
	Object string `json:"object"`
	// Action is create, update, replace, roll back, prune, suspend, continue, skip,
	// unchanged or conflict.
	Action string `json:"action"`
	Reason string `json:"reason,omitempty"`
	Diff   string `json:"diff,omitempty"` // unified, of YAML
}

// Outcome is how far a restore is, and in the end what it did.
type Outcome struct {
	Step     string    `json:"step,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Restored int64     `json:"restored"`
	Skipped  int64     `json:"skipped"`
	Pruned   int64     `json:"pruned"`
	Failed   int64     `json:"failed"`
	Bytes    int64     `json:"bytes"` // of volumes
	// RPO and RTO are measured, in milliseconds; 0: not known.
	RPO int64 `json:"rpoMillis,omitempty"`
	RTO int64 `json:"rtoMillis,omitempty"`
	// Warnings are the first, and More how many there are besides.
	Warnings []string `json:"warnings,omitempty"`
	More     int64    `json:"more,omitempty"`
}

// Due tells whether it is not too late for what was asked for at a time, until another. By
// a clock that was ahead it was asked for later than now: it could else be begun for as much
// longer, when nobody thinks of it any more.
func Due(at, until, now time.Time) bool {
	return now.Before(until) && at.Sub(now) < until.Sub(at)
}
