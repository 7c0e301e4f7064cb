// Package landing makes a cluster the target of runs: for the command line with
// the caller's rights, for the agent with those of the plan's account.
package landing

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/externaldns"
	"davit.dev/davit/internal/kube/machinery"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/kube/scratch"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/standby/machines"
	"davit.dev/davit/internal/traffic/names"
	"davit.dev/davit/internal/traffic/providers"
	"davit.dev/davit/internal/traffic/rehearsal"
)

// New makes the target. clients have the rights with which all is done.
func New(clients *kube.Clients, m *mover.Mover, deps recovery.Deps) *standby.Site {
	asker := scratch.New(clients, m)
	secret := func(ctx context.Context, name string) (map[string][]byte, error) {
		s, err := clients.Kubernetes.CoreV1().Secrets(v1alpha1.SystemNamespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read Secret %s/%s: %w", v1alpha1.SystemNamespace, name, err)
		}
		return s.Data, nil
	}
	open := providers.Open(secret, externaldns.Objects{Client: clients.Dynamic}, deps.Now)
	return standby.New(standby.Options{
		Recovery:  deps,
		Entrances: asker.Entrances,
		Drills:    asker.Drills(deps.Now),
		JobLog:    asker.JobLog,
		JobTail:   asker.JobTail,
		Machines: machines.Actuator{Open: func(ctx context.Context, name string) (machines.Cluster, error) {
			return machinery.Open(ctx, clients, secret, name)
		}},
		Rehearse: func(ctx context.Context, step plan.Step, _ string) (string, error) {
			one := &plan.Plan{Traffic: []plan.Traffic{{Name: step.Name, Kind: step.Kind, Object: step.Object, Record: step.Record}}}
			return rehearsal.Sum(rehearsal.Ask(ctx, one, open))
		},
		HTTP: func(ctx context.Context, namespace, service, port, scheme, path string) (int, string, error) {
			return asker.HTTP(ctx, namespace, v1alpha1.HTTPProbe{Service: service, Port: port, Scheme: scheme, Path: path})
		},
		More: execute.Kinds{plan.KindDNS: &names.Actuator{Open: open, Now: deps.Now}},
	})
}
