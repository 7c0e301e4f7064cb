// Package lifting tells which nodes would still stop an application that may run at their
// site again. A node lifts its fence when the vault has told it so, and no earlier; what is
// started before is stopped once more.
package lifting

import (
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/api/v1alpha1"
)

// speaksFor is how old a node's report may be. On a node that has said nothing for longer,
// nobody knows what is stopped, and waiting for it helps nobody: it may be dead.
const speaksFor = time.Minute

// Keepers names the nodes, sorted and with the reason, that say that an application may not
// run on them. Reports are all that nodes say, app is the application's name in the vault.
func Keepers(reports []v1alpha1.NodeFence, app string, now time.Time) []string {
	var all []string
	for i := range reports {
		r := &reports[i]
		if at := r.Status.ObservedAt; at == nil || now.Sub(at.Time) > speaksFor {
			continue
		}
		for _, a := range r.Status.Applications {
			if a.Application == app {
				all = append(all, fmt.Sprintf("node %s has not lifted its fence yet (%s)", r.Name, a.Reason))
			}
		}
	}
	slices.Sort(all)
	return all
}
