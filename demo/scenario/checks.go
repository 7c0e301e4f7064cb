package scenario

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/demo/stage"
)

const databasePod = "db-0"

func (r *Run) sql(ctx context.Context, query string) (string, error) {
	return r.Stage.Kubectl(ctx, r.active, "-n", namespace, "exec", databasePod, "--",
		"psql", "-h", "/tmp", "-X", "-A", "-t", "-F", " ", "-U", "shop", "-d", "shop", "-c", query)
}

// checkOrders looks for every order that the ledger, outside the clusters, saw
// acknowledged: each must be there once, and as it was placed. Only those between
// the point that a site was lost with and its death may be missing.
func (r *Run) checkOrders(ctx context.Context) (string, error) {
	v, err := r.judge(ctx, OrdersQuery, r.gone)
	if err != nil {
		return "", err
	}
	if len(v.lost) == 0 {
		return fmt.Sprintf("%d orders, each exactly once", v.kept), nil
	}
	gap := r.gone[len(r.gone)-1]
	s := tally(v.all, v, gap)
	return fmt.Sprintf("each exactly once: %s, and %d since", s.text(gap), v.kept-s.kept), nil
}

func (r *Run) checkDatabase(ctx context.Context) (string, error) {
	_, err := r.Stage.Kubectl(ctx, r.active, "-n", namespace, "exec", databasePod, "--",
		"pg_amcheck", "-h", "/tmp", "-U", "postgres", "-d", "shop", "--install-missing", "--heapallindexed", "--parent-check")
	return "", err
}

func (r *Run) checkObjects(ctx context.Context) (string, error) {
	config, err := r.Stage.Bed.Site(r.active).RESTConfig()
	if err != nil {
		return "", err
	}
	after, err := Collect(ctx, config, namespace, app)
	if err != nil {
		return "", err
	}
	if diff := r.before.Differences(after); len(diff) > 0 {
		return "", fmt.Errorf("%d differences:\n  %s", len(diff), strings.Join(diff, "\n  "))
	}
	return fmt.Sprintf("%d objects", len(after)), r.checkOwner(ctx)
}

// checkOwner checks that the owned custom resource is owned by the restored
// owner and not by a UID of the lost site, which would get it deleted.
func (r *Run) checkOwner(ctx context.Context) error {
	owner, err := r.Stage.Kubectl(ctx, r.active, "-n", namespace, "get", "warehouses.shop.example.com", "-o", "jsonpath={.items[*].metadata.uid}")
	if err != nil {
		return err
	}
	named, err := r.Stage.Kubectl(ctx, r.active, "-n", namespace, "get", "shelves.shop.example.com", "-o", "jsonpath={.items[*].metadata.ownerReferences[*].uid}")
	if err != nil {
		return err
	}
	if named == "" || !strings.Contains(owner, named) {
		return fmt.Errorf("the shelf is owned by %q, the warehouse is %q", named, owner)
	}
	return nil
}

// checkWriter checks that orders go on being acknowledged, and that they are
// in the database of the site that runs the shop.
func (r *Run) checkWriter(ctx context.Context) (string, error) {
	before, err := r.maxOrder(ctx)
	if err != nil {
		return "", err
	}
	if _, err := r.ordersReach(ctx, 50); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var now int64
	err = stage.Wait(ctx, "the database has newer orders", func(ctx context.Context) (bool, string, error) {
		var err error
		now, err = r.maxOrder(ctx)
		return now >= before+50, fmt.Sprintf("order %d, was %d", now, before), err
	})
	return fmt.Sprintf("from order %d to %d in %s", before, now, r.active), err
}

func (r *Run) maxOrder(ctx context.Context) (int64, error) {
	out, err := r.sql(ctx, "select coalesce(max(id), 0) from orders")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the newest order: %w", err)
	}
	return n, nil
}
