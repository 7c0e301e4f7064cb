package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// RecoveryPlan says how a set of applications moves between sites. Files hold
// the same document. What a cluster is told is kept in the vault too, so that
// the other sites have it when this one is lost.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=davit,shortName=dplan
// +kubebuilder:printcolumn:name="Applications",type=integer,JSONPath=`.status.applications`
// +kubebuilder:printcolumn:name="At",type=string,JSONPath=`.status.at`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="In vault",type=string,JSONPath=`.status.conditions[?(@.type=="Mirrored")].status`
// +kubebuilder:printcolumn:name="Last run",type=string,JSONPath=`.status.lastRun.phase`
// +kubebuilder:printcolumn:name="Last drill",type=string,JSONPath=`.status.lastDrill.phase`
// +kubebuilder:printcolumn:name="Verdict",type=string,JSONPath=`.status.lastDrill.verdict`
// +kubebuilder:printcolumn:name="Drilled",type=date,JSONPath=`.status.lastDrill.endedAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 200",message="a plan's name has at most 200 characters: its runs are named after it"
type RecoveryPlan struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RecoveryPlanSpec   `json:"spec"`
	Status RecoveryPlanStatus `json:"status,omitempty"`
}

// RecoveryPlanSpec is what a plan says.
type RecoveryPlanSpec struct {
	// Vault names the Vault that keeps the plan, its runs and what its
	// applications are restored from; default the only one that is no copy.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Vault string `json:"vault,omitempty"`
	// ServiceAccountName is the account of davit-system, at the target, with
	// whose rights an agent carries runs; default davit-restore. A run from the
	// command line has the rights of whoever gave the command.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Sites are two or more.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=2
	// +kubebuilder:validation:MaxItems=32
	Sites []PlanSite `json:"sites"`
	// Applications that move together.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	Applications []PlanApplication `json:"applications"`
	// Groups of applications come up before or after other groups.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=200
	Groups []PlanGroup `json:"groups,omitempty"`
	// Steps are what Davit does not do by itself.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=500
	Steps []PlanStep `json:"steps,omitempty"`
	// Outside is what applications need and no site runs.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=200
	Outside []PlanOutside `json:"outside,omitempty"`
	// Traffic is how clients find the applications.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=200
	Traffic []PlanTraffic `json:"traffic,omitempty"`
	// Approvals are how many people must agree before a run begins.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Approvals []PlanApproval `json:"approvals,omitempty"`
	// Objectives are what runs are measured against.
	// +optional
	Objectives PlanObjectives `json:"objectives,omitempty"`
	// Declaration says who decides that a site is lost; a person, unless it
	// says otherwise.
	// +optional
	Declaration PlanDeclaration `json:"declaration,omitempty"`
	// Fence says when a source that does not answer counts as stopped.
	Fence PlanFence `json:"fence"`
	// Commit says what ends a run that has done everything.
	// +optional
	Commit PlanCommit `json:"commit,omitempty"`
	// Limits are time limits of steps that Davit adds, by kind of step.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Limits map[string]metav1.Duration `json:"limits,omitempty"`
	// Drills say when the plan is tried on clones; never by itself, unless given.
	// +optional
	Drills *PlanDrills `json:"drills,omitempty"`
}

// PlanDrills are the drills that agents carry out on a schedule: at each site
// whose cluster has the plan, as long as none of its applications runs there.
// +kubebuilder:validation:XValidation:rule="has(self.schedule.every) || has(self.schedule.cron)",message="drills need a schedule: every or cron"
// +kubebuilder:validation:XValidation:rule="!has(self.schedule.every) || duration(self.schedule.every) >= duration('10m')",message="drills can be 10m apart or more"
type PlanDrills struct {
	// Schedule counts from the start of the last drill at a site. A plan that was
	// never drilled there is due at once with every, and at the next time with cron.
	Schedule Schedule `json:"schedule"`
	// Sites that drill, each by itself; default all of the plan's.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	Sites []string `json:"sites,omitempty"`
	// Suspend pauses the schedule. A drill that is under way goes on.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// PlanSite is a site, and what things are called there.
type PlanSite struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Peer is where the other sites ask this one to stay passive, host:port, for
	// fence.promises.
	// +optional
	// +kubebuilder:validation:MaxLength=262
	Peer string `json:"peer,omitempty"`
	// Mappings from names of other sites to this one's.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	Mappings []PlanMapping `json:"mappings,omitempty"`
}

// PlanMapping says what something of another site is called here.
type PlanMapping struct {
	// Kind is storageClass, namespace, image, ingressClass, host or nodeLabel.
	// +kubebuilder:validation:Enum=storageClass;namespace;image;ingressClass;host;nodeLabel
	Kind string `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	From string `json:"from"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	To string `json:"to"`
}

// PlanApplication is an application that moves.
type PlanApplication struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`
	// After are applications that must be ready first.
	// +optional
	// +kubebuilder:validation:MaxItems=1000
	After []string `json:"after,omitempty"`
	// Needs are outside dependencies.
	// +optional
	// +kubebuilder:validation:MaxItems=200
	Needs []string `json:"needs,omitempty"`
	// Data is restore (the default) or promote.
	// +optional
	// +kubebuilder:validation:Enum=restore;promote
	Data string `json:"data,omitempty"`
	// Probes must succeed before the application counts as recovered.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Probes []PlanCheck `json:"probes,omitempty"`
}

// PlanGroup is a group of applications.
type PlanGroup struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +optional
	// +kubebuilder:validation:MaxItems=200
	After []string `json:"after,omitempty"`
}

// PlanStep is one act.
// +kubebuilder:validation:XValidation:rule="self.kind != 'command' || has(self.command)",message="a command step needs command"
// +kubebuilder:validation:XValidation:rule="self.kind != 'http' || has(self.call)",message="an http step needs call"
// +kubebuilder:validation:XValidation:rule="self.kind != 'probe' || has(self.checks) && self.checks.size() > 0",message="a probe step needs checks"
// +kubebuilder:validation:XValidation:rule="!(self.kind in ['manual', 'approval']) || has(self.prompt)",message="a step that asks a person needs prompt"
// +kubebuilder:validation:XValidation:rule="self.kind != 'infrastructure' || [has(self.terraform), has(self.clusterAPI), has(self.command)].filter(x, x).size() == 1",message="an infrastructure step needs one of terraform, clusterAPI and command"
type PlanStep struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Kind is approval, command, dns, gate, http, infrastructure, manual, probe,
	// resume or suspend.
	// +kubebuilder:validation:Enum=approval;command;dns;gate;http;infrastructure;manual;probe;resume;suspend
	Kind string `json:"kind"`
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Application string `json:"application,omitempty"`
	// Side is source or target.
	// +optional
	// +kubebuilder:validation:Enum=source;target
	Side string `json:"side,omitempty"`
	// Verbs in which the step takes part; failover, switchover and failback by default.
	// +optional
	// +kubebuilder:validation:MaxItems=8
	Verbs []PlanVerb `json:"verbs,omitempty"`
	// After and Before name steps: the plan's, or Davit's, such as ready/shop.
	// +optional
	// +kubebuilder:validation:MaxItems=200
	After []string `json:"after,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=200
	Before []string `json:"before,omitempty"`
	// Timeout is the step's time budget.
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="timeout must be more than nothing"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	Timeout metav1.Duration `json:"timeout"`
	// OnError is stop, continue or rollback.
	// +optional
	// +kubebuilder:validation:Enum=stop;continue;rollback
	OnError string `json:"onError,omitempty"`
	// NoWayBack marks a step after which a run cannot roll back.
	// +optional
	NoWayBack bool `json:"noWayBack,omitempty"`
	// Early says that the step starts no writer and need not wait for the fence.
	// +optional
	Early bool `json:"early,omitempty"`
	// +optional
	Command *PlanCommand `json:"command,omitempty"`
	// +optional
	Call *PlanCall `json:"call,omitempty"`
	// Prompt is what a person is asked.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Prompt string `json:"prompt,omitempty"`
	// Approvers are who must agree; of approval steps.
	// +optional
	Approvers *PlanApprovers `json:"approvers,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Checks []PlanCheck `json:"checks,omitempty"`
	// Terraform is what an infrastructure step applies.
	// +optional
	Terraform *PlanTerraform `json:"terraform,omitempty"`
	// ClusterAPI is what an infrastructure step asks of a management cluster.
	// +optional
	ClusterAPI *PlanClusterAPI `json:"clusterAPI,omitempty"`
	// Undo takes a command or a call back when a run rolls back.
	// +optional
	Undo *PlanCommand `json:"undo,omitempty"`
	// Object is what the step works on: a record, a gate, a GitOps object.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Object string `json:"object,omitempty"`
	// Record says where the name in Object leads; of dns steps.
	// +optional
	Record *PlanRecord `json:"record,omitempty"`
}

// PlanVerb is what a run does with a plan.
// +kubebuilder:validation:Enum=failover;switchover;failback;drill;restore
type PlanVerb string

// PlanCommand is a Job.
type PlanCommand struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Image string `json:"image"`
	// +optional
	// +kubebuilder:validation:MaxItems=256
	Args []string `json:"args,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxProperties=256
	Env map[string]string `json:"env,omitempty"`
	// Secrets are names of Secrets whose keys become environment variables.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Secrets []string `json:"secrets,omitempty"`
}

// PlanTerraform is a configuration of Terraform or OpenTofu, applied by a Job in
// davit-system. Its state is kept by its backend, which must outlive either site.
// +kubebuilder:validation:XValidation:rule="[has(self.configMap), has(self.secret), has(self.directory), has(self.module)].filter(x, x).size() == 1",message="say one of configMap, secret, directory and module"
type PlanTerraform struct {
	// Image has the program, a shell, and what the configuration needs.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Image string `json:"image"`
	// Program is terraform by default; tofu, for one, is another.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Program string `json:"program,omitempty"`
	// ConfigMap of davit-system, each key a file of the configuration.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ConfigMap string `json:"configMap,omitempty"`
	// Secret of davit-system, each key a file of the configuration.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Secret string `json:"secret,omitempty"`
	// Directory of the image that has the configuration.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Directory string `json:"directory,omitempty"`
	// Module is an address that init copies the configuration from, such as
	// git::https://git.example.com/infra.git//west?ref=v3.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Module string `json:"module,omitempty"`
	// Backend completes the configuration's backend; what is secret comes by
	// environment.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Backend map[string]string `json:"backend,omitempty"`
	// Workspace is made by the first apply; default is the default one.
	// +optional
	// +kubebuilder:validation:MaxLength=90
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]*$`
	Workspace string `json:"workspace,omitempty"`
	// Variables of the configuration.
	// +optional
	// +kubebuilder:validation:MaxProperties=256
	Variables map[string]string `json:"variables,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxProperties=256
	Env map[string]string `json:"env,omitempty"`
	// Secrets are names of Secrets whose keys become environment variables, such as
	// TF_VAR_password.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Secrets []string `json:"secrets,omitempty"`
	// LockTimeout is how long a state that another holds is waited for; 1m by default.
	// +optional
	LockTimeout metav1.Duration `json:"lockTimeout,omitempty"`
	// Undo is what a roll-back does with what was made: keep (the default) or
	// destroy, which destroys all that the state knows.
	// +optional
	// +kubebuilder:validation:Enum=keep;destroy
	Undo string `json:"undo,omitempty"`
}

// PlanClusterAPI is what a management cluster of Cluster API is asked for.
// +kubebuilder:validation:XValidation:rule="has(self.apply) || has(self.scale) || has(self.wait)",message="say one of apply, scale and wait"
type PlanClusterAPI struct {
	// Kubeconfig is a Secret of davit-system with the key value, or kubeconfig, that
	// leads to the management cluster; without it the target is its own.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// Apply are objects of Cluster API's groups.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Apply []PlanObject `json:"apply,omitempty"`
	// Scale says how many machines there must be at least. What has more keeps them.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Scale []PlanMachines `json:"scale,omitempty"`
	// Wait are conditions that must hold then.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Wait []PlanConditions `json:"wait,omitempty"`
	// Undo is what a roll-back does with objects that the run made: keep (the
	// default) or destroy. Replicas go back to what they were in any case.
	// +optional
	// +kubebuilder:validation:Enum=keep;destroy
	Undo string `json:"undo,omitempty"`
}

// PlanObject is an object as it is written in YAML.
// +kubebuilder:validation:Type=object
// +kubebuilder:pruning:PreserveUnknownFields
type PlanObject struct {
	runtime.RawExtension `json:",inline"`
}

// PlanMachines is how many machines something has.
type PlanMachines struct {
	// Object is RESOURCE.GROUP/NAMESPACE/NAME, such as
	// machinedeployments.cluster.x-k8s.io/fleet/west-workers.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Object string `json:"object"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Replicas int32 `json:"replicas"`
}

// PlanConditions are conditions of an object that must be true.
type PlanConditions struct {
	// Object is RESOURCE.GROUP/NAMESPACE/NAME, such as clusters.cluster.x-k8s.io/fleet/west.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Object string `json:"object"`
	// Conditions by default are Ready, or Available where there is no Ready.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Conditions []string `json:"conditions,omitempty"`
}

// PlanCall is an HTTP call.
// +kubebuilder:validation:XValidation:rule="!has(self.body) || !has(self.bodyFrom)",message="say one of body and bodyFrom"
// +kubebuilder:validation:XValidation:rule="has(self.url) != has(self.urlFrom)",message="say one of url and urlFrom"
type PlanCall struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	Method string `json:"method"`
	// URL is written into journals and logs: what is secret belongs into a header, the body or
	// URLFrom. Preflight tells of a user, password or token in it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`
	// URLFrom is the key of a Secret whose value is the URL, where that is secret: who knows
	// the address of such a webhook may call it.
	// +optional
	URLFrom *PlanSecretKey `json:"urlFrom,omitempty"`
	// Expect is the status that means success.
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=599
	Expect int `json:"expect"`
	// Headers of the request.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Headers []PlanHeader `json:"headers,omitempty"`
	// Body is sent as it is written here.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	Body string `json:"body,omitempty"`
	// BodyFrom is the key of a Secret whose value is the body, where it holds a secret.
	// +optional
	BodyFrom *PlanSecretKey `json:"bodyFrom,omitempty"`
}

// PlanHeader is a header of a request. What is secret comes from a Secret.
// +kubebuilder:validation:XValidation:rule="has(self.from) || has(self.value)",message="a header needs value or from"
// +kubebuilder:validation:XValidation:rule="has(self.from) || !(self.name.lowerAscii() in ['authorization', 'proxy-authorization', 'cookie'])",message="take what it says from a Secret: from"
type PlanHeader struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`
	Name string `json:"name"`
	// Value is what the header says; with from, what it says before the Secret's
	// value, such as "Bearer ".
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`
	// From is the key of a Secret whose value it says.
	// +optional
	From *PlanSecretKey `json:"from,omitempty"`
}

// PlanSecretKey is one key of a Secret in davit-system.
type PlanSecretKey struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Secret string `json:"secret"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`
}

// PlanCheck is a probe.
type PlanCheck struct {
	// Kind is tcp, http, sql or command.
	// +kubebuilder:validation:Enum=tcp;http;sql;command
	Kind string `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Target string `json:"target"`
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Expect string `json:"expect,omitempty"`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	Timeout metav1.Duration `json:"timeout"`
	// Query is what sql asks; SELECT 1 by default. The database's own client
	// asks it, in the container that serves the target.
	// +optional
	// +kubebuilder:validation:MaxLength=8192
	Query string `json:"query,omitempty"`
	// Command is what command runs, in a pod of the target: SERVICE.NAMESPACE, or
	// NAMESPACE/LABEL=VALUE.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	Command []string `json:"command,omitempty"`
	// Container is where sql and command run; default the pod's first.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Container string `json:"container,omitempty"`
}

// PlanOutside is an API, a database, a virtual machine.
type PlanOutside struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Probes say, for every site, how it reaches it.
	// +kubebuilder:validation:MaxProperties=32
	Probes map[string]PlanCheck `json:"probes"`
}

// PlanTraffic is a record or a gate.
type PlanTraffic struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Kind is dns or gate.
	// +kubebuilder:validation:Enum=dns;gate
	Kind string `json:"kind"`
	// Application that it leads to; all of them by default.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Application string `json:"application,omitempty"`
	// Object is the name in the DNS, or the gate's.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Object string `json:"object"`
	// Record says where the name in Object leads; of dns.
	// +optional
	Record *PlanRecord `json:"record,omitempty"`
}

// PlanRecord is where a name in the DNS leads, and who serves its zone.
type PlanRecord struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Zone string `json:"zone"`
	// TTL is how long resolvers may keep the record; 30s by default.
	// +optional
	TTL metav1.Duration `json:"ttl,omitempty"`
	// To is where the name leads, by site: addresses, or one other name.
	// +kubebuilder:validation:MaxProperties=32
	To map[string][]string `json:"to"`
	// Provider is the service that keeps the zone; without it, servers take
	// dynamic updates (RFC 2136).
	// +optional
	// +kubebuilder:validation:Enum=route53;cloudflare;azure;google;external-dns
	Provider string `json:"provider,omitempty"`
	// Servers are all that serve the zone. Where a provider keeps it they are
	// watched, or left out.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Servers []PlanNameServer `json:"servers,omitempty"`
	// Secret in davit-system, at every site, with the key that may update the
	// zone: name, algorithm and secret, or what the provider needs (docs/traffic.md).
	// External-dns has its own.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Secret string `json:"secret,omitempty"`
	// Endpoint is the DNSEndpoint of provider external-dns: NAMESPACE/NAME, the same at every site.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Endpoint string `json:"endpoint,omitempty"`
}

// PlanNameServer is an authoritative server.
type PlanNameServer struct {
	// Address is host or host:port.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=260
	Address string `json:"address"`
	// Watch marks a secondary: it is asked, not told.
	// +optional
	Watch bool `json:"watch,omitempty"`
}

// PlanApproval is how many must agree.
type PlanApproval struct {
	// Verbs that need it; all but drill by default.
	// +optional
	// +kubebuilder:validation:MaxItems=8
	Verbs []PlanVerb `json:"verbs,omitempty"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	Count int `json:"count"`
	// Roles are groups, as the target's cluster knows them, whose members' approval
	// counts. Without roles and users everybody's counts who may approve.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Roles []string `json:"roles,omitempty"`
	// Users are people, by the names that the target's cluster knows them by, whose
	// approval counts.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Users []string `json:"users,omitempty"`
}

// PlanApprovers are who must agree to an approval step.
type PlanApprovers struct {
	// Count is how many different people must agree; 1 by default.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	Count int `json:"count,omitempty"`
	// Roles and Users are as in approvals.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Roles []string `json:"roles,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Users []string `json:"users,omitempty"`
}

// PlanObjectives are what a plan should achieve.
type PlanObjectives struct {
	// +optional
	RPO metav1.Duration `json:"rpo,omitempty"`
	// +optional
	RTO metav1.Duration `json:"rto,omitempty"`
}

// PlanDeclaration says who declares that a site is lost.
// +kubebuilder:validation:XValidation:rule="!has(self.automatic) || !self.automatic || has(self.vantages) && self.vantages.size() >= 3 && has(self.agree) && self.agree * 2 > self.vantages.size()",message="automatic declaration takes three vantage points or more, of which more than half must agree"
type PlanDeclaration struct {
	// Automatic lets vantage points decide.
	// +optional
	Automatic bool `json:"automatic,omitempty"`
	// Vantages are three or more points of view.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Vantages []string `json:"vantages,omitempty"`
	// Agree is how many of them must.
	// +optional
	Agree int `json:"agree,omitempty"`
	// For is how long they must agree without a break.
	// +optional
	For metav1.Duration `json:"for,omitempty"`
	// Block is how long nothing is declared automatically after a run.
	// +optional
	Block metav1.Duration `json:"block,omitempty"`
	// Probes are asked, from every vantage point, of a site that gives no sign of
	// life: one that answers is not lost. http or tcp, by site.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Probes map[string]PlanCheck `json:"probes,omitempty"`
}

// PlanFence are the times of the fence.
type PlanFence struct {
	// Timeout bounds how long a source is asked.
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="timeout must be more than nothing"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	Timeout metav1.Duration `json:"timeout"`
	// Lease is how long a site may write after it last saw that it may. Only
	// with automatic declaration.
	// +optional
	Lease metav1.Duration `json:"lease,omitempty"`
	// Bound is how long a node may take to stop once the lease is over.
	// +optional
	Bound metav1.Duration `json:"bound,omitempty"`
	// DriftPPM is how many parts in a million a clock may run fast or slow.
	// +optional
	DriftPPM int64 `json:"driftPPM,omitempty"`
	// Promises lets a site run on while the vault is silent, as long as every other
	// site of the plan, asked at its peer address, promises to stay passive.
	// +optional
	Promises bool `json:"promises,omitempty"`
}

// PlanCommit is the end of a run.
type PlanCommit struct {
	// Window is how long a run stays revocable.
	// +optional
	Window metav1.Duration `json:"window,omitempty"`
	// Then is commit, rollback, or empty to wait for a person.
	// +optional
	// +kubebuilder:validation:Enum=commit;rollback;""
	Then string `json:"then,omitempty"`
}

// RecoveryPlanStatus is what is known of a plan at this site.
type RecoveryPlanStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Applications is how many there are.
	// +optional
	Applications int32 `json:"applications,omitempty"`
	// At are the sites that hold the applications, by their newest epochs.
	// +optional
	At string `json:"at,omitempty"`
	// Revision is that of the plan in the vault.
	// +optional
	Revision int64 `json:"revision,omitempty"`
	// LastRun is the newest run that is no drill, and LastDrill the newest drill.
	// +optional
	LastRun *PlanRun `json:"lastRun,omitempty"`
	// +optional
	LastDrill *PlanRun `json:"lastDrill,omitempty"`
	// Declaration is, at the site that would take over, what the vantage points see
	// and what follows.
	// +optional
	Declaration *PlanDeclarationStatus `json:"declaration,omitempty"`
	// NextDrill is when this site's next drill is due by the schedule; in the
	// past while it is under way, or waits: the condition Drilled says for what.
	// +optional
	NextDrill *metav1.Time `json:"nextDrill,omitempty"`
	// Preflight is what the last look at the sites found.
	// +optional
	Preflight *PlanPreflight `json:"preflight,omitempty"`
	// Readiness is the level that the evidence allows.
	// +optional
	Readiness *PlanReadiness `json:"readiness,omitempty"`
	// Prediction is what a run would achieve, by what runs did.
	// +optional
	Prediction *PlanPrediction `json:"prediction,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PlanDeclarationStatus is how far the automatic declaration of a site is.
type PlanDeclarationStatus struct {
	// Source is the site that is watched, Target the one that would take over.
	// +optional
	Source string `json:"source,omitempty"`
	// +optional
	Target string `json:"target,omitempty"`
	// Next is what would happen, and when.
	// +optional
	Next string `json:"next,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Observers []PlanObserver `json:"observers,omitempty"`
}

// PlanObserver is what a vantage point said last of the source.
type PlanObserver struct {
	Name string `json:"name"`
	// View is alive, lost, blind or silent.
	View string `json:"view"`
	// +optional
	Why string `json:"why,omitempty"`
	// Since is when its view was first heard, by the target's clock.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
}

// PlanRun is a run of a plan, in short.
type PlanRun struct {
	Name  string `json:"name"`
	Verb  string `json:"verb"`
	To    string `json:"to"`
	Phase string `json:"phase"`
	// +optional
	BegunAt *metav1.Time `json:"begunAt,omitempty"`
	// +optional
	EndedAt *metav1.Time `json:"endedAt,omitempty"`
	// RPO and RTO are the worst of its applications', measured.
	// +optional
	RPO *metav1.Duration `json:"rpo,omitempty"`
	// +optional
	RTO *metav1.Duration `json:"rto,omitempty"`
	// Fence is the weakest level that was relied on.
	// +optional
	Fence string `json:"fence,omitempty"`
	// Verdict of a drill that is over: Passed, Failed or Canceled.
	// +optional
	Verdict string `json:"verdict,omitempty"`
	// Message is why it did not pass.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Message string `json:"message,omitempty"`
	// Report is where the vault's project keeps the signed report of a run that is
	// over: davit runs report shows it.
	// +optional
	Report string `json:"report,omitempty"`
}

// Verdicts of drills.
const (
	DrillPassed   = "Passed"
	DrillFailed   = "Failed"
	DrillCanceled = "Canceled"
)

// PlanPreflight is what the last look at the sites found.
type PlanPreflight struct {
	CheckedAt metav1.Time `json:"checkedAt"`
	// Findings are what is wrong, the worst first.
	// +optional
	// +kubebuilder:validation:MaxItems=200
	Findings []PlanFinding `json:"findings,omitempty"`
}

// PlanFinding is one thing that preflight found.
type PlanFinding struct {
	// Check names what was looked at.
	Check string `json:"check"`
	// +optional
	Site string `json:"site,omitempty"`
	// Severity is error, which refuses a run, or warning.
	// +kubebuilder:validation:Enum=error;warning
	Severity string `json:"severity"`
	Message  string `json:"message"`
	// Remedy is what to do about it.
	// +optional
	Remedy string `json:"remedy,omitempty"`
}

// PlanReadiness is a level with what it lacks for the next.
type PlanReadiness struct {
	ComputedAt metav1.Time `json:"computedAt"`
	Level      int32       `json:"level"`
	// Stale says that something changed since it was proven.
	// +optional
	Stale bool `json:"stale,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Missing []string `json:"missing,omitempty"`
}

// PlanPrediction is what a run would achieve.
type PlanPrediction struct {
	ComputedAt metav1.Time `json:"computedAt"`
	// Runs is how many it is computed from.
	Runs int32 `json:"runs"`
	// +optional
	RPO *metav1.Duration `json:"rpo,omitempty"`
	// +optional
	RTO *metav1.Duration `json:"rto,omitempty"`
}

// RecoveryPlanList is a list of RecoveryPlan.
//
// +kubebuilder:object:root=true
type RecoveryPlanList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []RecoveryPlan `json:"items"`
}
