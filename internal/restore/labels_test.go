package restore

import "davit.dev/davit/api/v1alpha1"

const (
	apiLabelRestore   = v1alpha1.LabelRestore
	apiLabelManagedBy = v1alpha1.LabelManagedBy
)
