package e2e

var together = []day{
	{"HeldAtRest", heldAtRest},
	{"OddCommands", oddCommands},
	{"InTurn", inTurn},
	{"AskedAround", askedAround},
	{"ConsoleTold", consoleTold},
	{"Profiled", profiled},
	{"KeptByLogs", keptByLogs},
	{"AcrossNodes", acrossNodes},
	{"OneByOne", oneByOne},
	{"FullWhileFrozen", fullWhileFrozen},
	{"VaultTrouble", vaultTrouble},
	{"ChangedBlocks", changedBlocks},
	{"LyingDriver", lyingDriver},
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
	{"ByCalendar", byCalendar},
	{"FullVault", fullVault},
	{"ManyPoints", manyPoints},
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
	{"Forewarned", forewarned},
	{"OneActive", oneActive},
	{"Monitored", monitored},
	{"ByHand", byHand},
	{"ByHandLost", byHandLost},
	{"InWaves", inWaves},
	{"Refused", refused},
	{"SupportBundle", supportBundle},
}

// alone are groups of what takes the agent, a node process or a link away from
// everybody, or measures. Those of one group are in lanes, which run side by side: none
// of a lane needs what another lane takes away. In a lane, one goes after the other.
var alone = [][][]day{
	// The one lane has east alone, and the other has west. Captures and restores put a proof off:
	// where proofs are, there are few.
	{
		{
			{"AgentKilled", agentKilled},
			{"TestKilled", testKilled},
			{"FreezeKilled", freezeKilled},
			{"NodeLost", nodeLost},
			{"HeldByTheDead", heldByTheDead},
		},
		{{"Throttled", throttled}, {"Booted", booted}, {"VerifiedOnSchedule", verifiedOnSchedule}},
	},
	// The one has lost east's node process before it kills west's; the other kills
	// west's agent, which the first asks for nothing.
	{{{"NodeKilled", nodeKilled}}, {{"BackgroundKilled", backgroundKilled}}},
	{{{"VaultCut", vaultCut}}},
	{{{"FrozenTogether", frozenTogether}}}, // six databases at once are too many for one node
	// The one takes Davit away from west, which the other does not ask.
	{{{"TwoOfAName", twoOfAName}}, {{"NotFrozen", notFrozen}}},
	{{{"FencedByNode", fencedByNode}, {"FencedByAgent", fencedByAgent}}},
	{{{"LeaseOver", leaseOver}}},
	{{{"Promised", promised}}},
	{{{"FailedOver", failedOver}}},
	{{{"SwitchedBack", switchedBack}}},
	// The one kills west's agent. The other has a console there, which runs without it, and
	// is alone because east's agent calls one console at a time.
	{{{"CarriedByAgents", carriedByAgents}}, {{"ConsoleInstalled", consoleInstalled}}},
	{{{"NamedByExternalDNS", namedByExternalDNS}}},
	{{{"FromNothing", fromNothing}}},
}
