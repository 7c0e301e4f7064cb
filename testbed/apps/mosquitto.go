package apps

import (
	"context"
	"fmt"
	"strings"
)

const (
	mosquittoTopics = 200
	mosquittoQueued = 50
)

var mosquitto = App{
	Name: "mosquitto", Images: []string{"app-mosquitto"},
	Loaded:    "200 retained messages, 50 messages queued for a subscriber that is away",
	workloads: []string{"deployment/mosquitto"},
	load:      loadMosquitto, check: checkMosquitto, write: writeMosquitto,
}

const mosquittoPod = "deployment/mosquitto"

// mosquittoLoad ends with two messages of no account: the broker saves when more than one thing has changed.
const mosquittoLoad = `set -e
mosquitto_sub -i away -c -q 1 -t 'queue/#' -E
i=0; while [ $i -lt 200 ]; do mosquitto_pub -q 1 -r -t known/$i -m "value-$((i * i))"; i=$((i + 1)); done
i=0; while [ $i -lt 50 ]; do echo "job-$i"; i=$((i + 1)); done | mosquitto_pub -q 1 -t queue/jobs -l
mosquitto_pub -q 1 -r -t scratch -m 1; sleep 2; mosquitto_pub -q 1 -r -t scratch -m 2; mosquitto_pub -q 1 -r -t scratch -m 3; sleep 2`

func loadMosquitto(ctx context.Context, p Place) (any, error) {
	_, err := p.sh(ctx, mosquittoPod, mosquittoLoad)
	return nil, err
}

func writeMosquitto(ctx context.Context, p Place, n int) error {
	_, err := p.sh(ctx, mosquittoPod, fmt.Sprintf("mosquitto_pub -q 1 -r -t scratch -m %d", n))
	return err
}

func checkMosquitto(ctx context.Context, p Place, _ any) error {
	var retained, queued []string
	for i := range mosquittoTopics {
		retained = append(retained, fmt.Sprintf("known/%d value-%d", i, i*i))
	}
	for i := range mosquittoQueued {
		queued = append(queued, fmt.Sprintf("job-%d", i))
	}
	return inTurn(
		func() error {
			return p.expect(ctx, "retained messages", mosquittoPod,
				"mosquitto_sub -v -t 'known/#' -C 200 -W 20 | sort -t / -k 2 -n", strings.Join(retained, "\n"))
		},
		func() error {
			return p.expect(ctx, "queued messages", mosquittoPod,
				"mosquitto_sub -i away -c -q 1 -t 'queue/#' -C 50 -W 20", strings.Join(queued, "\n"))
		},
		func() error {
			return p.expect(ctx, "new message", mosquittoPod,
				"mosquitto_pub -q 1 -r -t after -m restore && mosquitto_sub -t after -C 1 -W 20", "restore")
		},
	)
}
