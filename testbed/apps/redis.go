package apps

import (
	"context"
	"fmt"
	"strings"
)

const redisKeys = 500

var redis = App{
	Name: "redis", Images: []string{"app-redis"},
	Loaded:    "500 strings, a list, a sorted set, a stream with a consumer group; acknowledged by the replica",
	workloads: []string{"statefulset/redis"},
	load:      loadRedis, check: checkRedis, write: writeRedis,
}

func loadRedis(ctx context.Context, p Place) (any, error) {
	var in strings.Builder
	for i := range redisKeys {
		fmt.Fprintf(&in, "SET key:%d value-%d\n", i, i*i)
	}
	in.WriteString("RPUSH list a b c\nZADD scores 1 one 2 two 3 three\n")
	in.WriteString("XADD jobs 1-1 task first\nXADD jobs 2-1 task second\nXGROUP CREATE jobs workers 0\n")
	in.WriteString("XREADGROUP GROUP workers w1 COUNT 1 STREAMS jobs >\nWAIT 1 20000\n")
	out, err := p.feed(ctx, "redis-0", in.String(), "redis-cli")
	if err == nil && !strings.HasSuffix(out, "1") {
		err = fmt.Errorf("the replica did not acknowledge: %.300q", out)
	}
	return nil, err
}

func writeRedis(ctx context.Context, p Place, n int) error {
	return p.expect(ctx, "scratch", "redis-0", fmt.Sprintf("redis-cli SET scratch:%d %d", n, n), "OK")
}

// redisSum adds up all values, so that one lost or changed shows.
const redisSum = `redis-cli EVAL "local s = 0; for i = 0, ` + "499" + ` do s = s + string.sub(redis.call('GET', 'key:' .. i), 7) end; return s" 0`

func checkRedis(ctx context.Context, p Place, _ any) error {
	for _, pod := range []string{"redis-0", "redis-1"} {
		err := inTurn(
			func() error {
				return p.expect(ctx, "values in "+pod, pod, redisSum, fmt.Sprint(sumOfSquares(redisKeys)))
			},
			func() error { return p.expect(ctx, "list in "+pod, pod, "redis-cli LRANGE list 0 -1", "a\nb\nc") },
			func() error {
				return p.expect(ctx, "scores in "+pod, pod, "redis-cli ZRANGE scores 0 -1 WITHSCORES", "one\n1\ntwo\n2\nthree\n3")
			},
			func() error {
				return p.expect(ctx, "pending jobs in "+pod, pod, "redis-cli XPENDING jobs workers | head -n 1", "1")
			},
		)
		if err != nil {
			return err
		}
	}
	return until(ctx, func(ctx context.Context) error {
		return inTurn(
			func() error {
				return p.expect(ctx, "replica's link", "redis-1", "redis-cli INFO replication | grep -c master_link_status:up", "1")
			},
			func() error {
				return p.expect(ctx, "new write", "redis-0", `printf 'SET after restore\nWAIT 1 5000\n' | redis-cli | tail -n 1`, "1")
			},
			func() error {
				return p.expect(ctx, "new value on the replica", "redis-1", "redis-cli GET after", "restore")
			},
		)
	})
}

func sumOfSquares(n int) int {
	sum := 0
	for i := range n {
		sum += i * i
	}
	return sum
}
