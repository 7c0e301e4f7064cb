package apps

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

const etcdKeys = 400

var etcd = App{
	Name: "etcd", Images: []string{"app-etcd"},
	Loaded:    "400 keys, a compacted history, a lease with a key, users and roles with authentication on; three members",
	workloads: []string{"statefulset/etcd"},
	load:      loadEtcd, check: checkEtcd, write: writeEtcd,
}

var etcdMembers = []string{"etcd-0", "etcd-1", "etcd-2"}

// etcdctl asks this pod's member as the administrator.
const etcdctl = `etcdctl --dial-timeout=30s --command-timeout=60s --user "root:$ETCD_ROOT_PASSWORD" `

func loadEtcd(ctx context.Context, p Place) (any, error) {
	setUp := `set -e
etcdctl put revised 1 && etcdctl put revised 2
lease=$(etcdctl lease grant 86400 | cut -d ' ' -f 2) && etcdctl put leased "$lease" --lease="$lease"
etcdctl role add reader && etcdctl role grant-permission reader --prefix=true read key/
etcdctl user add bob:builder && etcdctl user grant-role bob reader
etcdctl user add "root:$ETCD_ROOT_PASSWORD" && etcdctl user grant-role root root && etcdctl auth enable`
	if _, err := p.sh(ctx, "etcd-0", setUp); err != nil {
		return nil, err
	}
	// One transaction takes 128 operations at the most.
	for first := 0; first < etcdKeys; first += 100 {
		var txn strings.Builder
		txn.WriteString("\n")
		for i := first; i < first+100; i++ {
			fmt.Fprintf(&txn, "put key/%03d value-%d\n", i, i*i)
		}
		txn.WriteString("\n\n")
		out, err := p.feed(ctx, "etcd-0", txn.String(), "sh", "-c", etcdctl+"txn")
		if err != nil || !strings.HasPrefix(out, "SUCCESS") {
			return nil, errors.Join(err, fmt.Errorf("put keys: %.300q", out))
		}
	}
	return nil, nil
}

func writeEtcd(ctx context.Context, p Place, n int) error {
	_, err := p.sh(ctx, "etcd-1", fmt.Sprintf(etcdctl+"put scratch/%d %d", n, n))
	return err
}

func checkEtcd(ctx context.Context, p Place, _ any) error {
	var want strings.Builder
	for i := range etcdKeys {
		fmt.Fprintf(&want, "key/%03d\nvalue-%d\n", i, i*i)
	}
	for _, pod := range etcdMembers {
		// Serializable reads are the member's own copy; each must have caught up.
		err := until(ctx, func(ctx context.Context) error {
			return p.expect(ctx, "keys of "+pod, pod, etcdctl+"get --consistency=s --prefix key/", strings.TrimSpace(want.String()))
		})
		if err != nil {
			return err
		}
	}
	return inTurn(
		func() error {
			return p.expect(ctx, "key with a history", "etcd-0", etcdctl+"get revised --print-value-only", "2")
		},
		func() error {
			return p.expect(ctx, "lease of the key", "etcd-0",
				etcdctl+`lease timetolive "$(`+etcdctl+`get leased --print-value-only)" --keys | grep -c 'attached keys(\[leased\])'`, "1")
		},
		func() error {
			return p.expect(ctx, "read as a user", "etcd-2", "etcdctl --user bob:builder get key/007 --print-value-only", "value-49")
		},
		func() error {
			return p.expect(ctx, "write without the right", "etcd-2", "etcdctl --user bob:builder put key/007 x 2>&1 | grep -c '^Error: etcdserver: permission denied'", "1")
		},
		func() error {
			return p.expect(ctx, "members", "etcd-0", etcdctl+"member list | grep -c started", "3")
		},
		func() error { return p.expect(ctx, "new key", "etcd-0", etcdctl+"put after restore", "OK") },
		func() error {
			return p.expect(ctx, "new key at another member", "etcd-2", etcdctl+"get after --print-value-only", "restore")
		},
	)
}
