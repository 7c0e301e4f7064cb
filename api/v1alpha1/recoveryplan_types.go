package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RecoveryPlan says how a set of applications moves between sites. It is read
// from files: `davit plan` checks, orders and compares them. No cluster serves
// the kind yet.
type RecoveryPlan struct {
	metav1.TypeMeta `json:",inline"`
	// Metadata names the plan.
	Metadata PlanMeta         `json:"metadata"`
	Spec     RecoveryPlanSpec `json:"spec"`
}

// PlanMeta is the part of an object's metadata that plans in files have.
type PlanMeta struct {
	Name string `json:"name"`
}

// RecoveryPlanSpec is what a plan says.
type RecoveryPlanSpec struct {
	// Sites are two or more.
	Sites []PlanSite `json:"sites"`
	// Applications that move together.
	Applications []PlanApplication `json:"applications"`
	// Groups of applications come up before or after other groups.
	Groups []PlanGroup `json:"groups,omitempty"`
	// Steps are what Davit does not do by itself.
	Steps []PlanStep `json:"steps,omitempty"`
	// Outside is what applications need and no site runs.
	Outside []PlanOutside `json:"outside,omitempty"`
	// Traffic is how clients find the applications.
	Traffic []PlanTraffic `json:"traffic,omitempty"`
	// Approvals are how many people must agree before a run begins.
	Approvals []PlanApproval `json:"approvals,omitempty"`
	// Objectives are what runs are measured against.
	Objectives PlanObjectives `json:"objectives,omitempty"`
	// Declaration says who decides that a site is lost; a person, unless it
	// says otherwise.
	Declaration PlanDeclaration `json:"declaration,omitempty"`
	// Fence says when a source that does not answer counts as stopped.
	Fence PlanFence `json:"fence"`
	// Commit says what ends a run that has done everything.
	Commit PlanCommit `json:"commit,omitempty"`
	// Limits are time limits of steps that Davit adds, by kind of step.
	Limits map[string]metav1.Duration `json:"limits,omitempty"`
}

// PlanSite is a site, and what things are called there.
type PlanSite struct {
	Name string `json:"name"`
	// Mappings from names of other sites to this one's.
	Mappings []PlanMapping `json:"mappings,omitempty"`
}

// PlanMapping says what something of another site is called here.
type PlanMapping struct {
	// Kind is storageClass, namespace, image, ingressClass, host or nodeLabel.
	Kind string `json:"kind"`
	From string `json:"from"`
	To   string `json:"to"`
}

// PlanApplication is an application that moves.
type PlanApplication struct {
	Name  string `json:"name"`
	Group string `json:"group,omitempty"`
	// After are applications that must be ready first.
	After []string `json:"after,omitempty"`
	// Needs are outside dependencies.
	Needs []string `json:"needs,omitempty"`
	// Data is restore (the default) or promote.
	Data string `json:"data,omitempty"`
	// Probes must succeed before the application counts as recovered.
	Probes []PlanCheck `json:"probes,omitempty"`
}

// PlanGroup is a group of applications.
type PlanGroup struct {
	Name  string   `json:"name"`
	After []string `json:"after,omitempty"`
}

// PlanStep is one act.
type PlanStep struct {
	Name string `json:"name"`
	// Kind is approval, command, dns, gate, http, infrastructure, manual, probe,
	// resume or suspend.
	Kind        string `json:"kind"`
	Application string `json:"application,omitempty"`
	// Side is source or target.
	Side string `json:"side,omitempty"`
	// Verbs in which the step takes part; failover, switchover and failback by default.
	Verbs []string `json:"verbs,omitempty"`
	// After and Before name steps: the plan's, or Davit's, such as ready/shop.
	After  []string `json:"after,omitempty"`
	Before []string `json:"before,omitempty"`
	// Timeout is the step's time budget.
	Timeout metav1.Duration `json:"timeout"`
	// OnError is stop, continue or rollback.
	OnError string `json:"onError,omitempty"`
	// NoWayBack marks a step after which a run cannot roll back.
	NoWayBack bool `json:"noWayBack,omitempty"`
	// Early says that the step starts no writer and need not wait for the fence.
	Early   bool         `json:"early,omitempty"`
	Command *PlanCommand `json:"command,omitempty"`
	Call    *PlanCall    `json:"call,omitempty"`
	// Prompt is what a person is asked.
	Prompt string      `json:"prompt,omitempty"`
	Checks []PlanCheck `json:"checks,omitempty"`
	// Undo takes a command or a call back when a run rolls back.
	Undo *PlanCommand `json:"undo,omitempty"`
	// Object is what the step works on: a record, a gate, a GitOps object.
	Object string `json:"object,omitempty"`
	// Record says where the name in Object leads; of dns steps.
	Record *PlanRecord `json:"record,omitempty"`
}

// PlanCommand is a Job.
type PlanCommand struct {
	Image string            `json:"image"`
	Args  []string          `json:"args,omitempty"`
	Env   map[string]string `json:"env,omitempty"`
	// Secrets are names of Secrets whose keys become environment variables.
	Secrets []string `json:"secrets,omitempty"`
}

// PlanCall is an HTTP call.
type PlanCall struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	// Expect is the status that means success.
	Expect int `json:"expect"`
}

// PlanCheck is a probe.
type PlanCheck struct {
	// Kind is tcp, http, sql or command.
	Kind    string          `json:"kind"`
	Target  string          `json:"target"`
	Expect  string          `json:"expect,omitempty"`
	Timeout metav1.Duration `json:"timeout"`
}

// PlanOutside is an API, a database, a virtual machine.
type PlanOutside struct {
	Name string `json:"name"`
	// Probes say, for every site, how it reaches it.
	Probes map[string]PlanCheck `json:"probes"`
}

// PlanTraffic is a record or a gate.
type PlanTraffic struct {
	Name string `json:"name"`
	// Kind is dns or gate.
	Kind string `json:"kind"`
	// Application that it leads to; all of them by default.
	Application string `json:"application,omitempty"`
	// Object is the name in the DNS, or the gate's.
	Object string `json:"object"`
	// Record says where the name in Object leads; of dns.
	Record *PlanRecord `json:"record,omitempty"`
}

// PlanRecord is where a name in the DNS leads, and who serves its zone.
type PlanRecord struct {
	Zone string `json:"zone"`
	// TTL is how long resolvers may keep the record; 30s by default.
	TTL metav1.Duration `json:"ttl,omitempty"`
	// To is where the name leads, by site: addresses, or one other name.
	To map[string][]string `json:"to"`
	// Servers are all that serve the zone.
	Servers []PlanNameServer `json:"servers"`
	// Secret in davit-system, at every site, with the key that may update the
	// zone: name, algorithm and secret.
	Secret string `json:"secret"`
}

// PlanNameServer is an authoritative server.
type PlanNameServer struct {
	// Address is host or host:port.
	Address string `json:"address"`
	// Watch marks a secondary: it is asked, not told.
	Watch bool `json:"watch,omitempty"`
}

// PlanApproval is how many must agree.
type PlanApproval struct {
	// Verbs that need it; all but drill by default.
	Verbs []string `json:"verbs,omitempty"`
	Count int      `json:"count"`
	// Roles whose members may approve.
	Roles []string `json:"roles,omitempty"`
}

// PlanObjectives are what a plan should achieve.
type PlanObjectives struct {
	RPO metav1.Duration `json:"rpo,omitempty"`
	RTO metav1.Duration `json:"rto,omitempty"`
}

// PlanDeclaration says who declares that a site is lost.
type PlanDeclaration struct {
	// Automatic lets vantage points decide.
	Automatic bool `json:"automatic,omitempty"`
	// Vantages are three or more points of view.
	Vantages []string `json:"vantages,omitempty"`
	// Agree is how many of them must.
	Agree int `json:"agree,omitempty"`
	// For is how long they must agree without a break.
	For metav1.Duration `json:"for,omitempty"`
	// Block is how long nothing is declared automatically after a run.
	Block metav1.Duration `json:"block,omitempty"`
}

// PlanFence are the times of the fence.
type PlanFence struct {
	// Timeout bounds how long a source is asked.
	Timeout metav1.Duration `json:"timeout"`
	// Lease is how long a site may write after it last saw that it may. Only
	// with automatic declaration.
	Lease metav1.Duration `json:"lease,omitempty"`
	// Bound is how long a node may take to stop once the lease is over.
	Bound metav1.Duration `json:"bound,omitempty"`
	// DriftPPM is how many parts in a million a clock may run fast or slow.
	DriftPPM int64 `json:"driftPPM,omitempty"`
}

// PlanCommit is the end of a run.
type PlanCommit struct {
	// Window is how long a run stays revocable.
	Window metav1.Duration `json:"window,omitempty"`
	// Then is commit, rollback, or empty to wait for a person.
	Then string `json:"then,omitempty"`
}
