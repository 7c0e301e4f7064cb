// Package shape is the pure part of a restore: what the captured objects are
// like, and what they have to become before the target can take them. It strips
// what the target assigns itself, maps namespaces and storage classes, tells
// what is not restored at all, in which order kinds come, which workloads are
// ready, and where two objects differ. It reads no cluster and no clock.
//
// Objects are outside data: they may have any shape, and no function here
// panics because of one.
package shape

// Labels and annotations of restored objects. LabelRestore and LabelManagedBy
// have the same values in the API package, which engines do not import.
const (
	// LabelVault names the Vault that an object of davit-system comes from, or is about.
	LabelVault           = "davit.dev/vault"
	LabelRestore         = "davit.dev/restore"
	LabelManagedBy       = "davit.dev/managed-by"
	AnnotationFilledFrom = "davit.dev/filled-from"
	// AnnotationFilledFor names the attempt that rolled a claim's data back.
	AnnotationFilledFor = "davit.dev/filled-for"
	// AnnotationBefore of a workload that is stopped says what it was.
	AnnotationBefore = "davit.dev/before-restore"
	// AnnotationOrder of an object, or of the definition of its kind, changes
	// its place in the order of a restore; see package sequence.
	AnnotationOrder = "davit.dev/restore-order"
	// FilledFromNothing is what a claim was filled from that starts empty,
	// because the recovery point holds no data for it.
	FilledFromNothing = "nothing"
)
