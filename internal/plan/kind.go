package plan

import (
	"slices"
	"time"
)

// Kind is what a step does.
type Kind string

// The kinds of steps.
const (
	KindOutside  Kind = "outside"  // probe an outside dependency from the target
	KindPin      Kind = "pin"      // pin what the old side has that the new one has not
	KindCatchUp  Kind = "catch-up" // move the difference while the source still writes
	KindQuiesce  Kind = "quiesce"  // stop the source's writers, orderly
	KindSync     Kind = "sync"     // move the last write
	KindClaim    Kind = "claim"    // write the application's next epoch for the target
	KindHold     Kind = "hold"     // the target promises no peer any more to stay passive
	KindFence    Kind = "fence"    // make former holders stop, and get their proof
	KindDemote   Kind = "demote"   // the source's volumes become replicas
	KindPromote  Kind = "promote"  // the target's replicas become volumes
	KindRestore  Kind = "restore"  // volumes are filled from a recovery point
	KindClone    Kind = "clone"    // a drill's volumes, from a recovery point
	KindApply    Kind = "apply"    // transform and apply objects
	KindScale    Kind = "scale"    // start workloads
	KindReady    Kind = "ready"    // wait until they are ready
	KindProbe    Kind = "probe"    // ask whether they answer
	KindDNS      Kind = "dns"      // move a record
	KindGate     Kind = "gate"     // open the target's traffic gate
	KindSandbox  Kind = "sandbox"  // make a drill's isolated namespaces
	KindCleanup  Kind = "cleanup"  // remove them
	KindCommand  Kind = "command"  // run a Job
	KindHTTP     Kind = "http"     // call an API
	KindManual   Kind = "manual"   // a person does it and says so
	KindApproval Kind = "approval" // a person allows what follows
	KindSuspend  Kind = "suspend"  // GitOps keeps its hands off
	KindResume   Kind = "resume"   // GitOps goes on
	// KindInfra makes machines and networks, by Terraform, Cluster API or a Job.
	KindInfra Kind = "infrastructure"
)

// traits are what is true of all steps of a kind.
type traits struct {
	side Side
	// limit is the usual time limit where Graph adds the step.
	limit time.Duration
	// written says that people may add such steps; either says at either side.
	written, either bool
	// activates says that a writer may run at the target afterwards.
	activates bool
	// undo says that the step can be taken back.
	undo bool
	// asks says that only a person ends the step.
	asks bool
}

var kinds = map[Kind]traits{
	KindOutside:  {side: Target, limit: time.Minute},
	KindPin:      {side: Target, limit: 2 * time.Hour, undo: true},
	KindCatchUp:  {side: Target, limit: 4 * time.Hour},
	KindQuiesce:  {side: Source, limit: 5 * time.Minute, undo: true},
	KindSync:     {side: Source, limit: 30 * time.Minute},
	KindClaim:    {side: Target, limit: time.Minute, undo: true},
	KindHold:     {side: Target, limit: time.Minute, undo: true},
	KindFence:    {side: Source, limit: time.Minute},
	KindDemote:   {side: Source, limit: 5 * time.Minute, undo: true},
	KindPromote:  {side: Target, limit: 10 * time.Minute, activates: true, undo: true},
	KindRestore:  {side: Target, limit: 4 * time.Hour, undo: true},
	KindClone:    {side: Target, limit: time.Hour},
	KindApply:    {side: Target, limit: 10 * time.Minute, activates: true, undo: true},
	KindScale:    {side: Target, limit: 5 * time.Minute, activates: true, undo: true},
	KindReady:    {side: Target, limit: 10 * time.Minute},
	KindProbe:    {side: Target, limit: 5 * time.Minute, written: true},
	KindDNS:      {side: Target, limit: 5 * time.Minute, written: true, activates: true, undo: true},
	KindGate:     {side: Target, limit: 2 * time.Minute, written: true, activates: true, undo: true},
	KindSandbox:  {side: Target, limit: 5 * time.Minute},
	KindCleanup:  {side: Target, limit: 15 * time.Minute},
	KindCommand:  {side: Target, written: true, activates: true, undo: true},
	KindHTTP:     {side: Target, written: true, activates: true, undo: true},
	KindManual:   {side: Target, written: true, either: true, activates: true, asks: true},
	KindApproval: {side: Target, written: true, asks: true},
	KindSuspend:  {side: Source, written: true, either: true, undo: true},
	KindResume:   {side: Target, written: true, either: true, activates: true, undo: true},
	KindInfra:    {side: Target, written: true, activates: true},
}

// Activates tells whether a writer may run at the target once the step has
// begun, so that it must wait until the former holders are fenced.
func (s Step) Activates() bool { return kinds[s.Kind].activates && s.Side != Source && !s.Early }

// Undoable tells whether the step can be taken back. What cannot is left as it
// is when a run rolls back.
func (s Step) Undoable() bool {
	switch {
	case s.Kind == KindInfra && s.Terraform != nil:
		return s.Terraform.Destroy
	case s.Kind == KindInfra && s.ClusterAPI != nil:
		return true
	case s.Kind == KindCommand, s.Kind == KindHTTP, s.Kind == KindInfra:
		return s.Undo != nil
	case s.Kind == KindFence:
		return s.Returns
	}
	return kinds[s.Kind].undo
}

// Asks tells whether only a person ends the step.
func (s Step) Asks() bool { return kinds[s.Kind].asks }

// OfPeople tells of what people's steps do, which no actuator of Davit's stops as it stops
// workloads of a lower epoch.
func (k Kind) OfPeople() bool {
	return slices.Contains([]Kind{KindCommand, KindHTTP, KindInfra, KindSuspend, KindResume}, k)
}

// BringsData tells whether such a step is a restore of its own.
func (k Kind) BringsData() bool { return k == KindRestore || k == KindClone || k == KindCatchUp }

// LetsGo tells whether to take the step back lets go of what the source holds at rest, or lets git go on elsewhere.
func (s Step) LetsGo() bool {
	return s.Kind == KindQuiesce || s.Kind == KindSuspend && s.Side != Source
}

// WhyNotSkipped says why no run goes on without a step of the kind, whoever wants it; empty: one does.
func (k Kind) WhyNotSkipped() string {
	switch k {
	case KindClaim, KindHold, KindFence, KindSandbox, KindCleanup:
		return "a " + string(k) + " step keeps writers apart and cannot be skipped"
	case KindQuiesce, KindSync:
		return "without a " + string(k) + " step the move would leave behind what clients write: wait for it, or roll back"
	case KindApproval:
		return "an approval cannot be skipped: retry it, and have it approved, or roll back"
	}
	return ""
}
