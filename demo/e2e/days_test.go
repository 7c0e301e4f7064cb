package e2e

var together = []day{
	{"HeldAtRest", heldAtRest},
	{"OddCommands", oddCommands},
	{"AskedAround", askedAround},
	{"ConsoleTold", consoleTold},
	{"Profiled", profiled},
	{"KeptByLogs", keptByLogs},
	{"AcrossNodes", acrossNodes},
	{"OneByOne", oneByOne},
	{"FullWhileFrozen", fullWhileFrozen},
	{"VaultTrouble", vaultTrouble},
	{"InPlace", inPlace},
	{"Cloned", cloned},
	{"Spanning", spanning},
	{"InParts", inParts},
	{"RolledBack", rolledBack},
	{"Exactly", exactly},
	{"StartedMeanwhile", startedMeanwhile},
	{"Transformed", transformed},
	{"Mirrored", mirrored},
	{"Overlaid", overlaid},
	{"RestoreKilled", restoreKilled},
	{"RestoreTwice", restoreTwice},
	{"FailedOverAndBack", failedOverAndBack},
	{"MadeAround", madeAround},
	{"SwitchedOver", switchedOver},
	{"FailedBack", failedBack},
	{"ReadOnlyVault", readOnlyVault},
	{"PrivateCA", privateCA},
	{"Damage", damage},
	{"Copies", copies},
	{"KeysRotated", keysRotated},
	{"LockedVault", lockedVault},
	{"KeptVault", keptVault},
	{"SelfService", selfService},
	{"Retention", retention},
	{"Deleted", deleted},
	{"LocalVolume", localVolume},
	{"MissingClass", missingClass},
	{"MissingKinds", missingKinds},
	{"UnboundClaim", unboundClaim},
	{"BadImage", badImage},
	{"FullDisk", fullDisk},
	{"Quota", quota},
	{"InTheWay", inTheWay},
	{"WrongKeys", wrongKeys},
	{"Drilled", drilled},
	{"Sandboxed", sandboxed},
	{"Coverage", coverage},
	{"LookedAt", lookedAt},
	{"Foreseen", foreseen},
	{"SupportBundle", supportBundle},
}

// alone are groups of what takes the agent, a node process or a link away from
// everybody, or measures. Those of one group run side by side: none of them needs
// what another one of them takes away.
var alone = [][]day{
	{{"AgentKilled", agentKilled}},
	// The one has lost east's node process before it kills west's; the other kills
	// west's agent, which the first asks for nothing.
	{{"NodeKilled", nodeKilled}, {"BackgroundKilled", backgroundKilled}},
	{{"TestKilled", testKilled}},
	{{"VaultCut", vaultCut}},
	{{"ConsoleInstalled", consoleInstalled}}, // east's agent calls one console at a time
	{{"FrozenTogether", frozenTogether}},     // six databases at once are too many for one node
	{{"NotFrozen", notFrozen}},
	{{"FreezeKilled", freezeKilled}, {"Throttled", throttled}}, // the one kills at east, the other has west alone
	{{"NodeLost", nodeLost}},
	{{"FencedByNode", fencedByNode}},
	{{"LeaseOver", leaseOver}},
	// Captures and restores put a proof off: here there are few. The third takes
	// Davit away from west, which the others do not ask.
	{{"VerifiedOnSchedule", verifiedOnSchedule}, {"Booted", booted}, {"TwoOfAName", twoOfAName}},
	{{"HeldByTheDead", heldByTheDead}},
	{{"FailedOver", failedOver}},
	{{"SwitchedBack", switchedBack}},
	{{"CarriedByAgents", carriedByAgents}},
	{{"NamedByExternalDNS", namedByExternalDNS}},
	{{"FromNothing", fromNothing}},
}
