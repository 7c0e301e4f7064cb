// Package plan says how applications move between sites: as data. A Plan is
// what a person writes down; Graph turns it, for one verb, into the steps of a
// run with everything that Davit adds by itself. Both are pure: standard
// library only, no clock, no I/O, and the same input gives the same output.
package plan

import (
	"slices"
	"strings"
	"time"
)

// Verb is what a run does with a plan.
type Verb string

// The verbs.
const (
	Failover   Verb = "failover"   // the source is lost or unreachable
	Switchover Verb = "switchover" // the source is alive and gives its last write
	Failback   Verb = "failback"   // back again: catch up, then a switchover
	Drill      Verb = "drill"      // the plan on clones, isolated, cleaned up
	Restore    Verb = "restore"    // in place, at the site that may write
)

// Verbs are all verbs, in the order in which people meet them.
func Verbs() []Verb { return []Verb{Failover, Switchover, Failback, Drill, Restore} }

// Moves tells whether runs of the verb bring applications to another site.
func (v Verb) Moves() bool { return v == Failover || v == Switchover || v == Failback }

// Claims tells whether runs of the verb raise the applications' epochs. A
// restore does so where the application stays: whatever another run still has
// under way there counts no more.
func (v Verb) Claims() bool { return v.Moves() || v == Restore }

// Side is where a step acts.
type Side string

// The sides.
const (
	Source Side = "source"
	Target Side = "target"
)

// OnError is what follows when a step fails.
type OnError string

// What may follow.
const (
	Stop     OnError = "stop"     // the run pauses and says so
	Continue OnError = "continue" // the failure is noted, the run goes on
	Rollback OnError = "rollback" // what was done is undone, in reverse
)

// Plan is a recovery plan.
type Plan struct {
	Name string `json:"name"`
	// Account carries the runs that agents carry; the usual one where it is empty.
	Account string `json:"account,omitempty"`
	// Pull has the sites that may take over pull the images that runs need to their nodes,
	// ahead of time.
	Pull         bool          `json:"pull,omitempty"`
	Sites        []Site        `json:"sites"`
	Applications []Application `json:"applications"`
	Groups       []Group       `json:"groups,omitempty"`
	// Steps are those that people add. What every move needs (claim, fence,
	// data, apply, scale, ready ...) Graph adds by itself.
	Steps       []Step      `json:"steps,omitempty"`
	Outside     []Outside   `json:"outside,omitempty"`
	Traffic     []Traffic   `json:"traffic,omitempty"`
	Approvals   []Approval  `json:"approvals,omitempty"`
	Objectives  Objectives  `json:"objectives"`
	Declaration Declaration `json:"declaration"`
	Fence       Fence       `json:"fence"`
	Commit      Commit      `json:"commit"`
	// Limits are time limits of steps that Graph adds, by kind, where the
	// usual ones do not fit.
	Limits map[Kind]time.Duration `json:"limits,omitempty"`
	// Drills are those that agents carry out by themselves; nil: none.
	Drills *Drills `json:"drills,omitempty"`
}

// Drills are on a schedule: an interval, or a cron expression in a time zone.
type Drills struct {
	Every   time.Duration `json:"every,omitempty"`
	Cron    string        `json:"cron,omitempty"`
	Zone    string        `json:"zone,omitempty"`
	Sites   []string      `json:"sites,omitempty"` // that drill; empty: all
	Suspend bool          `json:"suspend,omitempty"`
}

// Site is a place that applications of the plan may run at.
type Site struct {
	Name     string    `json:"name"`
	Mappings []Mapping `json:"mappings,omitempty"`
}

// Mapping says what something of another site is called at this one.
type Mapping struct {
	Kind MappingKind `json:"kind"`
	From string      `json:"from"`
	To   string      `json:"to"`
}

// MappingKind is what a mapping maps.
type MappingKind string

// What can be mapped.
const (
	MapStorageClass MappingKind = "storageClass"
	MapNamespace    MappingKind = "namespace"
	MapImage        MappingKind = "image" // a registry or repository prefix
	MapIngressClass MappingKind = "ingressClass"
	MapHost         MappingKind = "host"
	MapNodeLabel    MappingKind = "nodeLabel"
)

// Application is one that moves with the plan.
type Application struct {
	Name  string `json:"name"`
	Group string `json:"group,omitempty"`
	// After are applications that must be ready before this one starts.
	After []string `json:"after,omitempty"`
	// Needs are outside dependencies, probed before anything changes.
	Needs []string `json:"needs,omitempty"`
	// Data says how its data comes: Restore from a recovery point (also when
	// empty), or Promote for volumes that are replicated.
	Data   Kind    `json:"data,omitempty"`
	Probes []Check `json:"probes,omitempty"`
}

// Group is applications that move together, before or after other groups.
type Group struct {
	Name  string   `json:"name"`
	After []string `json:"after,omitempty"`
}

// Step is one act of a run.
type Step struct {
	Name        string `json:"name"`
	Kind        Kind   `json:"kind"`
	Application string `json:"application,omitempty"`
	Side        Side   `json:"side,omitempty"`
	// Verbs in which the step takes part. Empty means failover, switchover and
	// failback: a drill reaches nothing outside of itself unless told to.
	Verbs  []Verb   `json:"verbs,omitempty"`
	After  []string `json:"after,omitempty"`
	Before []string `json:"before,omitempty"`
	// Timeout is the step's time budget, looking before and after included.
	Timeout time.Duration `json:"timeout"`
	OnError OnError       `json:"onError,omitempty"`
	// NoWayBack marks a step after which the run can no longer roll back.
	NoWayBack bool `json:"noWayBack,omitempty"`
	// Returns says that a fence is taken back, in its way: when a run has rolled back, the
	// application is seen to run again at the source. Steps of older plans do not say it.
	Returns bool `json:"returns,omitempty"`
	// Early says that the step starts no writer, so that it need not wait
	// until the source is fenced.
	Early bool `json:"early,omitempty"`

	// Command is what command and infrastructure steps run, Terraform and ClusterAPI
	// are the other forms of infrastructure.
	Command    *Command    `json:"command,omitempty"`
	Terraform  *Terraform  `json:"terraform,omitempty"`
	ClusterAPI *ClusterAPI `json:"clusterAPI,omitempty"`
	Call       *Call       `json:"call,omitempty"`
	Prompt     string      `json:"prompt,omitempty"` // of manual tasks and approvals
	// Approvers are who must agree, of approvals. Nil: one of those who may.
	Approvers *Approval `json:"approvers,omitempty"`
	Checks    []Check   `json:"checks,omitempty"` // of probes
	// Undo is the command that takes a command or call back. Without one they
	// stay done when a run rolls back.
	Undo *Command `json:"undo,omitempty"`
	// Object names what the step works on: a record, gate or GitOps object.
	Object string `json:"object,omitempty"`
	// Record says where the name in Object leads; of dns steps.
	Record *Record `json:"record,omitempty"`
	// Mappings are those of the target, for what brings an application there. Aim
	// sets them.
	Mappings []Mapping `json:"mappings,omitempty"`
	// Gates are those of the run that let in clients of the application whose data
	// the step brings. Aim sets them.
	Gates []string `json:"gates,omitempty"`
}

// Command is a Job.
type Command struct {
	Image   string            `json:"image"`
	Args    []string          `json:"args,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Secrets []string          `json:"secrets,omitempty"` // names of Secrets, as environment
}

// Check is a probe of something that should answer.
type Check struct {
	Kind    CheckKind     `json:"kind"`
	Target  string        `json:"target"`
	Expect  string        `json:"expect,omitempty"`
	Timeout time.Duration `json:"timeout"`
	// Query is what sql asks; SELECT 1 where it is empty.
	Query string `json:"query,omitempty"`
	// Command is what command runs.
	Command []string `json:"command,omitempty"`
	// Container is where sql and command run; the pod's default one.
	Container string `json:"container,omitempty"`
}

// CheckKind is how a probe asks.
type CheckKind string

// How probes ask.
const (
	CheckTCP     CheckKind = "tcp"
	CheckHTTP    CheckKind = "http"
	CheckSQL     CheckKind = "sql"
	CheckCommand CheckKind = "command"
)

// Outside is something that applications need and that no site runs: an API,
// a database, a virtual machine. It has a probe for each site.
type Outside struct {
	Name   string           `json:"name"`
	Probes map[string]Check `json:"probes"` // by site
}

// Traffic is how clients find an application, once it is ready.
type Traffic struct {
	Name        string `json:"name"`
	Kind        Kind   `json:"kind"`                  // DNS or Gate
	Application string `json:"application,omitempty"` // empty: all of them
	Object      string `json:"object"`                // record or gate
	// Record says where the name in Object leads; of dns.
	Record *Record `json:"record,omitempty"`
}

// Approval is how many people must agree before a run begins.
type Approval struct {
	Verbs []Verb `json:"verbs,omitempty"` // empty: all but drills
	Count int    `json:"count"`
	// Roles are groups, Users people, as the target's cluster knows them. Neither:
	// anyone who may approve runs of the plan.
	Roles []string `json:"roles,omitempty"`
	Users []string `json:"users,omitempty"`
}

// Lets tells whether somebody's agreement counts.
func (a Approval) Lets(by string, groups []string) bool {
	return len(a.Roles)+len(a.Users) == 0 || slices.Contains(a.Users, by) ||
		slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(a.Roles, g) })
}

// Who says whose agreement counts.
func (a Approval) Who() string {
	var all []string
	for _, role := range a.Roles {
		all = append(all, "group "+role)
	}
	for _, user := range a.Users {
		all = append(all, "user "+user)
	}
	if len(all) == 0 {
		return "those who may approve runs of the plan"
	}
	return strings.Join(all, ", ")
}

// Objectives are what the plan should achieve. Runs measure against them.
type Objectives struct {
	RPO time.Duration `json:"rpo,omitempty"`
	RTO time.Duration `json:"rto,omitempty"`
}

// Fresh is how long what a vantage point said counts for whoever hears it.
const Fresh = 15 * time.Second

// Declaration says who decides that a site is lost.
type Declaration struct {
	// Automatic lets vantage points decide. Otherwise a person does.
	Automatic bool     `json:"automatic,omitempty"`
	Vantages  []string `json:"vantages,omitempty"` // three or more
	Agree     int      `json:"agree,omitempty"`    // how many must
	// For is how long they must agree without a break: longer than Fresh.
	For time.Duration `json:"for,omitempty"`
	// Block is how long after a run nothing is declared automatically.
	Block time.Duration `json:"block,omitempty"`
	// Probes are asked of a site, by its name, that gives no sign of life, from
	// every vantage point: one that answers is not lost.
	Probes map[string]Check `json:"probes,omitempty"`
}

// Fence says when a source that does not answer counts as stopped.
type Fence struct {
	// Timeout bounds how long a source is asked.
	Timeout time.Duration `json:"timeout"`
	// Lease is how long a site may write after the last time that it began to
	// ask for the newest epoch and was told that it is its own. Zero, and so it
	// is without automatic declaration: silence stops nobody.
	Lease time.Duration `json:"lease,omitempty"`
	// Bound is how long a node may take from the end of the lease until none
	// of the application's writers runs.
	Bound time.Duration `json:"bound,omitempty"`
	// Drift is how many parts in a million any clock may run fast or slow.
	Drift int64 `json:"drift,omitempty"`
	// Promises lets a site run on while the vault is silent, as long as all others promise
	// to stay passive.
	Promises bool `json:"promises,omitempty"`
	// Peers are where sites are asked for that, by name: host:port.
	Peers map[string]string `json:"peers,omitempty"`
}

// Wait is how long a target waits, by its own clock, from the moment that it
// knows its claim to stand until no writer can be left at a source that keeps
// the same terms: (Lease + Bound) * (1 + d) / (1 - d), d being the drift. It
// is zero without a lease: no wait proves anything then.
func (f Fence) Wait() time.Duration {
	const million = 1_000_000
	if f.Lease <= 0 || f.Drift < 0 || f.Drift >= million {
		return 0
	}
	slow, total := million-f.Drift, int64(f.Lease+f.Bound)
	// Rounded up; by parts, as total*million does not fit.
	whole, rest := total/slow, total%slow
	return time.Duration(whole*(million+f.Drift) + (rest*(million+f.Drift)+slow-1)/slow)
}

// Commit says what ends a run that has done everything.
type Commit struct {
	// Window is how long the run stays revocable, unless a person commits it.
	Window time.Duration `json:"window,omitempty"`
	// Then is what happens when the window closes: "commit", "rollback", or
	// empty to wait for a person.
	Then string `json:"then,omitempty"`
}

// What happens when the commit window closes.
const (
	ThenCommit   = "commit"
	ThenRollback = "rollback"
)
