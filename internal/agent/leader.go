package agent

import (
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"davit.dev/davit/api/v1alpha1"
)

// renewDeadline is how long a leader tries to renew its lease before it gives up.
const renewDeadline = 10 * time.Second

// leaderLock is the lock by which replicas agree on who leads, held under the
// name of the pod. No two processes have that name at once, so an agent that
// crashed leads again as soon as it is back, where under a name of the process it
// would wait until the lease of the dead one is over. Outside of a pod there is
// none: then controller-runtime makes up a name.
func leaderLock(pod string, config *rest.Config) (resourcelock.Interface, error) {
	if pod == "" {
		return nil, nil
	}
	return resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, v1alpha1.SystemNamespace, leaseName,
		resourcelock.ResourceLockConfig{Identity: pod}, config, renewDeadline)
}
