package standby

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// ErrCarried says that a living process carries the run.
var ErrCarried = errors.New("another process carries the run")

// Hold takes the run's lease, in this cluster, and keeps it: it says which
// process carries the run, so that nobody takes one over without need. What keeps two
// executors apart is the journal. A process that died holds it for 15 s. The
// returned context ends when the lease is lost.
func (s *Site) Hold(ctx context.Context, run, process string) (held context.Context, release func(), err error) {
	d := s.o.Recovery
	clock := d.Clock
	if clock == nil {
		clock = port.WallClock{}
	}
	held, lease, err := hold.Take(ctx, hold.Options{
		Name: "run-" + run, Namespace: "davit-system", Vault: d.VaultName, ID: run, Holder: process, Cluster: port.Retry(d.Cluster, clock), Bare: d.Cluster,
		Clock: clock, Progress: d.Progress, Log: d.Log, MakeNamespace: s.makeNamespace,
	})
	if errors.Is(err, hold.ErrBusy) {
		return nil, nil, fmt.Errorf("hold run %s: %w", run, ErrCarried)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("hold run %s: %w", run, err)
	}
	return held, func() { lease.Release(ctx, true) }, nil
}

func (s *Site) makeNamespace(ctx context.Context, name string) error {
	at, err := serving(ctx, s.o.Recovery.Cluster, shape.KindNamespace)
	if err != nil {
		return err
	}
	_, err = s.o.Recovery.Cluster.Create(ctx, at, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": name, "labels": map[string]any{shape.LabelManagedBy: "davit"}},
	}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
