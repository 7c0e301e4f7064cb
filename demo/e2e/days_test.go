package e2e

var together = []day{
	{"HeldAtRest", heldAtRest},
	{"VaultTrouble", vaultTrouble},
	{"InPlace", inPlace},
	{"Cloned", cloned},
	{"RolledBack", rolledBack},
	{"Exactly", exactly},
	{"StartedMeanwhile", startedMeanwhile},
	{"RestoreKilled", restoreKilled},
	{"RestoreTwice", restoreTwice},
	{"ReadOnlyVault", readOnlyVault},
	{"PrivateCA", privateCA},
	{"Damage", damage},
	{"Retention", retention},
	{"LocalVolume", localVolume},
	{"MissingClass", missingClass},
	{"MissingKinds", missingKinds},
	{"UnboundClaim", unboundClaim},
	{"BadImage", badImage},
	{"FullDisk", fullDisk},
	{"Quota", quota},
	{"InTheWay", inTheWay},
	{"WrongKeys", wrongKeys},
	{"Coverage", coverage},
	{"SupportBundle", supportBundle},
}

var alone = []day{
	{"AgentKilled", agentKilled},
	{"NodeKilled", nodeKilled},
	{"BackgroundKilled", backgroundKilled},
	{"VaultCut", vaultCut},
	{"FrozenTogether", frozenTogether},
	{"NotFrozen", notFrozen},
	{"FreezeKilled", freezeKilled},
	{"VerifiedOnSchedule", verifiedOnSchedule}, // which captures and restores of others would put off
	{"TwoOfAName", twoOfAName},
	{"HeldByTheDead", heldByTheDead},
	{"FromNothing", fromNothing},
}
