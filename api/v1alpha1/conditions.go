package v1alpha1

// Condition types. Each is True when all is well, so that a person who sees
// False anywhere knows where to look.
const (
	// ConditionReady folds the others into one answer.
	ConditionReady = "Ready"
	// ConditionUntouched is true of a restore that failed before it changed
	// anything; others do not have it.
	ConditionUntouched = "Untouched"
	// ConditionReachable says whether the vault answered the last check.
	ConditionReachable = "Reachable"
	// ConditionProtected says whether the application's newest recovery point
	// is within its RPO objective.
	ConditionProtected = "Protected"
	// ConditionVerified says whether something read the recovery point back;
	// of an Application, whether its points stand as their policy asks.
	ConditionVerified = "Verified"
	// ConditionTested says whether the restore test that the policy asks for
	// brought the application up, within its RTO objective.
	ConditionTested = "RestoreTested"
	// ConditionConsole says on a cluster's own Site whether its consoles are
	// reached. Nothing depends on them: it counts for no other condition.
	ConditionConsole = "ConsoleConnected"
	// ConditionValid says whether a plan can be carried out as it is written.
	ConditionValid = "Valid"
	// ConditionMirrored says whether the vault holds the plan as it is here.
	ConditionMirrored = "Mirrored"
	// ConditionDeclares says whether a lost source of a plan would be failed over
	// by this site without a person.
	ConditionDeclares = "Declares"
	// ConditionDrilled: the newest drill of a plan at this site passed, and none is
	// overdue.
	ConditionDrilled = "Drilled"
	// ConditionAccepted says whether the run's order could be taken up: False
	// means that nothing was changed for it.
	ConditionAccepted = "Accepted"
	// ConditionSucceeded says how a run ended; Unknown while it goes on.
	ConditionSucceeded = "Succeeded"
	// ConditionSettled says whether people have seen to what a run that is over left
	// to them, and to what not yet. One that left nothing does not have it.
	ConditionSettled = "Settled"
)

// Condition reasons, one meaning each wherever they appear.
const (
	ReasonSucceeded        = "Succeeded"
	ReasonProgressing      = "Progressing"
	ReasonInvalid          = "Invalid"             // the spec cannot work: a person must change it
	ReasonVaultUnavailable = "VaultUnavailable"    // no answer: tried again by itself
	ReasonVaultDenied      = "VaultDenied"         // credentials refused or store read-only
	ReasonVaultFull        = "VaultFull"           // no room left: expiry goes on, captures do not
	ReasonClockSkew        = "ClockSkew"           // the vault's clock and the site's are apart
	ReasonWrongKey         = "WrongKey"            // the key opens nothing in this project
	ReasonSuperseded       = "Superseded"          // another site holds a higher epoch
	ReasonLeaseOver        = "LeaseOver"           // the vault is silent, and the nodes stopped the application
	ReasonHeld             = "Held"                // a run keeps it at rest
	ReasonLeft             = "LeftToPeople"        // a run that is over left it, and nobody has seen to it
	ReasonNameTaken        = "SiteNameTaken"       // another cluster bears this site's name in the vault
	ReasonOvertaken        = "Overtaken"           // the epoch changed since the restore was ordered
	ReasonSuspended        = "Suspended"           // paused by its policy
	ReasonNoPoint          = "NoRecoveryPoint"     // nothing captured yet
	ReasonLagging          = "Lagging"             // newest point is older than the RPO objective
	ReasonImpossible       = "ObjectiveImpossible" // the schedule can never keep the RPO objective
	ReasonCaptureFailed    = "CaptureFailed"
	ReasonRestoreFailed    = "RestoreFailed"
	ReasonDamaged          = "Damaged" // verification found missing or changed bytes
	ReasonNotVerified      = "NotVerified"
	ReasonOverdue          = "Overdue" // the policy asked for it, and it is late
	ReasonNeverDrilled     = "NeverDrilled"
	ReasonDrillFailed      = "DrillFailed"       // the newest drill failed, was canceled or refused
	ReasonTestFailed       = "RestoreTestFailed" // a restored copy did not come up or failed a probe
	ReasonNothingProven    = "NothingProven"     // a restored copy showed nothing of whether it works
	ReasonTooSlow          = "RTOExceeded"       // a restored copy came up later than the RTO objective allows
)

// Labels and annotations Davit sets.
const (
	// LabelManagedBy marks Davit's own helpers (holder pods, scratch claims,
	// snapshots); capture leaves objects with it out.
	LabelManagedBy = "davit.dev/managed-by"
	// LabelApplication carries the vault-wide application name.
	LabelApplication = "davit.dev/application"
	// LabelPoint carries the recovery point's ID.
	LabelPoint = "davit.dev/recovery-point"
	// LabelRestore carries the id of the restore that created an object.
	LabelRestore = "davit.dev/restore"
	// RestoreReportPrefix begins the names of ConfigMaps of davit-system that
	// keep what restores of the command line said.
	RestoreReportPrefix = "restore-report-"
	// LabelOverlay is on ConfigMaps of davit-system that change what is restored
	// at this site.
	LabelOverlay = "davit.dev/overlay"
	// LabelSandbox is on the namespaces of a drill's copy, with the sandbox's
	// name: node processes let their pods speak to each other and to name
	// servers only.
	LabelSandbox = "davit.dev/sandbox"
	// LabelRestoreTest is on the namespaces of a restore test's copy, with the
	// test's id. No application covers them; whoever finds one whose test is
	// over removes it.
	LabelRestoreTest = "davit.dev/restore-test"
	// AnnotationTestOwner names the process that runs a restore test, and
	// AnnotationTestUntil says when it is over at the latest (RFC 3339).
	AnnotationTestOwner = "davit.dev/restore-test-owner"
	AnnotationTestUntil = "davit.dev/restore-test-until"
	// AnnotationReplicas keeps the replica count of a workload that was
	// scaled to zero because its site was superseded.
	AnnotationReplicas = "davit.dev/replicas-before-fence"
	// AnnotationClaims keeps what a StatefulSet did with the claims of pods it
	// was scaled down by; the fence makes it keep them.
	AnnotationClaims = "davit.dev/claims-when-scaled-before-fence"
	// AnnotationUnready is on a workload that was stopped and had not been ready for a
	// while before: nobody waits for it when it is started again.
	AnnotationUnready = "davit.dev/unready-before-fence"
	// AnnotationRestoring is on an Application from the start of its restore
	// until that ended well, with the restore's id. Nothing is captured
	// meanwhile: half an application would be its newest recovery point.
	AnnotationRestoring = "davit.dev/restoring"
	// AnnotationDistrusted is on an Application of whose volumes some have a storage that was
	// found to call blocks unchanged that were not; see Application.Distrusted. A capture that
	// finds it may leave no point that says so.
	AnnotationDistrusted = "davit.dev/blocks-distrusted"
	// AnnotationGate, with a gate's name, is on an Application whose clients may
	// come in by that gate, with the run that opened it.
	AnnotationGate = "gate.davit.dev/"
	// LabelMoves is "true" on DNSEndpoints whose name plans move, and
	// AnnotationNameGuard on them says under which epochs (docs/formats/dns-guard.md).
	LabelMoves          = "davit.dev/moves-name"
	AnnotationNameGuard = "davit.dev/name-guard"
	// AnnotationHeldBy is on an Application that runs hold at rest, with their
	// names, separated by commas. The agent stops the application, and starts
	// what it stopped when the last name is gone and this site may write.
	AnnotationHeldBy = "davit.dev/held-by"
	// AnnotationRun is on what a run asked for, with the run's name.
	AnnotationRun = "davit.dev/run"
	// AnnotationRested is on the recovery point with the last write of a planned move: the
	// mark of when something of the application was last found to run before it was asked for.
	AnnotationRested = "davit.dev/rested"
	// AnnotationSuspended marks a CronJob or Job suspended for the same reason.
	AnnotationSuspended = "davit.dev/suspended-by-fence"
	// LabelPlan is on Runs, with the plan's name where it is short enough for a label.
	LabelPlan = "davit.dev/plan"
	// LabelScheduled is "true" on Runs that the agent ordered by a plan's schedule.
	LabelScheduled = "davit.dev/scheduled"
	// LabelProjection is "true" on Runs that the agent made to show what others
	// carry: they order nothing.
	LabelProjection = "davit.dev/projection"
	// LabelDeclared is "true" on Runs that the agent ordered because the vantage
	// points agreed that a site is lost.
	LabelDeclared = "davit.dev/declared"
	// AnnotationDeclared is on those Runs, and says which site was lost, and by
	// which epochs it held the applications: {"source":"east","epochs":{"db":1}}.
	AnnotationDeclared = "davit.dev/declared-of"
	// LabelConsole is on what a project's console had its agent make here, with the
	// project's name. What lacks it is not the console's.
	LabelConsole = "davit.dev/console"
	// AnnotationDocument is on the same, and says for which site it was made, of
	// which document, and at which version of that.
	AnnotationDocument = "davit.dev/console-document"
	// AnnotationRequest is on Runs that a project's console asked for, and says by
	// which request: <project>/<id>.
	AnnotationRequest = "davit.dev/console-request"
	// AnnotationSites is on documents of a console, with the sites that they are
	// for, separated by commas.
	AnnotationSites = "davit.dev/sites"
	// LabelNowhere is a label that no node has: a DaemonSet that asks for it runs
	// on none.
	LabelNowhere = "davit.dev/superseded"
	// AnnotationNodeSelector keeps, as JSON, the node selector of a DaemonSet
	// that was sent to no node for the same reason.
	AnnotationNodeSelector = "davit.dev/node-selector-before-fence"
)
