package obstacle

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// Mappings looks for mappings that cannot be meant. captured are the storage
// classes of the point.
func Mappings(namespaces []string, names shape.Namespaces, classes map[string]string, captured map[string]bool) []report.Finding {
	var found []report.Finding
	from := map[string]string{}
	for _, ns := range namespaces {
		to := names.To(ns)
		if other, taken := from[to]; taken {
			found = append(found, wrong("MappedTogether", "give each a namespace of its own",
				"namespaces %s and %s would both be restored into %s", other, ns, to))
		}
		from[to] = ns
	}
	for _, ns := range slices.Sorted(maps.Keys(names)) {
		to := names[ns]
		if !slices.Contains(namespaces, ns) {
			found = append(found, wrong("UnknownNamespace", "map one of "+shape.Names(namespaces, 8),
				"the recovery point has no namespace %s", ns))
		}
		if bad := validation.IsDNS1123Label(to); len(bad) > 0 {
			found = append(found, wrong("BadNamespace", "choose another name", "%q cannot be a namespace: %s", to, bad[0]))
		}
	}
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		if !captured[class] {
			found = append(found, beware("UnusedMapping", "see davit describe for the classes in the point",
				"no claim of the recovery point has the storage class %s", class))
		}
	}
	return found
}

func wrong(reason, remedy, format string, args ...any) report.Finding {
	return report.Finding{Severity: report.Error, Reason: reason, Remedy: remedy, Message: fmt.Sprintf(format, args...)}
}

func beware(reason, remedy, format string, args ...any) report.Finding {
	return report.Finding{Severity: report.Warning, Reason: reason, Remedy: remedy, Message: fmt.Sprintf(format, args...)}
}
