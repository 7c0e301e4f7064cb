package standby

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/reason"
)

func serving(ctx context.Context, c restore.Cluster, kind schema.GroupKind) (restore.Served, error) {
	served, err := c.Serves(ctx, kind)
	if err != nil {
		return restore.Served{}, fmt.Errorf("look at %s: %w", kind, err)
	}
	return served[0], nil
}

// unready are the workloads of a restore that are not ready, for people.
func unready(ctx context.Context, c restore.Cluster, id string, namespaces []string) (string, error) {
	lag, _, err := reason.Watch{Finder: reason.Finder{Cluster: c}, ID: id, Kinds: reason.WaitedFor, Namespaces: namespaces}.Laggards(ctx, true)
	switch {
	case errors.Is(err, restore.ErrNotServed):
		return "", nil
	case err != nil || len(lag) == 0:
		return "", err
	}
	return lag[0].Object + ": " + lag[0].Why, nil
}
