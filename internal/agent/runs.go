package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/landing"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/reconcile/carrier"
)

// processName is what runs know this process by: where it runs, and something
// random, as another process may have the same name later.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("agent %s/%s", host, strings.ToLower(rand.Text()[:6]))
}

// Standby is this site as the target of runs that come through a vault, with the
// rights of an account of davit-system.
func (p *pool) Standby(ctx context.Context, vaultName, account string) (carrier.Target, error) {
	deps, err := p.Recovery(ctx, vaultName, v1alpha1.SystemNamespace, account)
	if err != nil {
		return nil, err
	}
	clients, err := p.clients.Impersonate(kube.ServiceAccountUser(v1alpha1.SystemNamespace, account))
	if err != nil {
		return nil, err
	}
	m, err := mover.NewForConfig(p.clients.RESTConfig, clients.RESTConfig, mover.Options{Now: p.now})
	if err != nil {
		return nil, err
	}
	deps.Now, deps.Holder = p.now, "davit agent of site "+p.self.Site
	return landing.New(clients, m, deps), nil
}
