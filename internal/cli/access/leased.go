package access

import (
	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
)

// Unleased refuses to take away what keeps the lease of an application: other
// sites go by it.
func Unleased(apps ...v1alpha1.Application) error {
	for i := range apps {
		if apps[i].Status.Lease != nil {
			return exit.Refuse("take the lease off with `plan disarm` first",
				"%s runs here under a lease, and other sites go by that this site stops it: nothing would keep it", apps[i].VaultName())
		}
	}
	return nil
}
