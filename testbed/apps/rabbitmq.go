package apps

import (
	"context"
	"fmt"
	"strings"
)

const (
	rabbitmqQuorum  = 200
	rabbitmqClassic = 100
)

var rabbitmq = App{
	Name: "rabbitmq", Images: []string{"app-rabbitmq"},
	Loaded:    "200 messages in a quorum queue, 100 persistent ones in a durable classic queue, an exchange with a binding, a user, a policy; three members",
	workloads: []string{"statefulset/rabbitmq"},
	load:      loadRabbitMQ, check: checkRabbitMQ, write: writeRabbitMQ,
}

const rabbitmqDefinitions = `{
"queues": [
  {"vhost": "/", "name": "orders", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum", "x-quorum-initial-group-size": 3}},
  {"vhost": "/", "name": "letters", "durable": true, "auto_delete": false, "arguments": {}},
  {"vhost": "/", "name": "scratch", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}}],
"exchanges": [{"vhost": "/", "name": "post", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}],
"bindings": [{"vhost": "/", "source": "post", "destination": "letters", "destination_type": "queue", "routing_key": "letter.*", "arguments": {}}],
"policies": [{"vhost": "/", "name": "long", "pattern": "^letters$", "apply-to": "queues", "priority": 0, "definition": {"max-length": 100000}}]
}`

// amqp runs one of amqp-tools against a pod's member.
const amqp = `amqp-%s -u "amqp://$RABBITMQ_USER:$RABBITMQ_PASSWORD@127.0.0.1" %s`

func rabbitmqPublish(ctx context.Context, p Place, pod, to string, n int, prefix string) error {
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "%s-%d\n", prefix, i*i)
	}
	_, err := p.feed(ctx, pod, in.String(), "sh", "-c", fmt.Sprintf(amqp, "publish", "-p -l "+to))
	return err
}

func loadRabbitMQ(ctx context.Context, p Place) (any, error) {
	if err := rabbitmqFormed(ctx, p); err != nil {
		return nil, err
	}
	return nil, inTurn(
		func() error {
			_, err := p.feed(ctx, "rabbitmq-0", rabbitmqDefinitions, "sh", "-ec", "cat >/tmp/definitions && rabbitmqctl import_definitions /tmp/definitions && rabbitmqctl add_user ann secret && rabbitmqctl set_permissions ann '' '' '^letters$'")
			return err
		},
		func() error { return rabbitmqPublish(ctx, p, "rabbitmq-0", "-r orders", rabbitmqQuorum, "order") },
		func() error {
			return rabbitmqPublish(ctx, p, "rabbitmq-1", "-e post -r letter.new", rabbitmqClassic, "letter")
		},
		func() error { return rabbitmqHolds(ctx, p) },
	)
}

// rabbitmqFormed waits until all three members are in the cluster and run.
func rabbitmqFormed(ctx context.Context, p Place) error {
	return until(ctx, func(ctx context.Context) error {
		return p.expect(ctx, "running members", "rabbitmq-2", `rabbitmqctl -q eval 'length(rabbit_mnesia:cluster_nodes(running)).'`, "3")
	})
}

// rabbitmqHolds waits until the queues say that they have everything: publishing without confirmation runs behind.
func rabbitmqHolds(ctx context.Context, p Place) error {
	return until(ctx, func(ctx context.Context) error {
		return p.expect(ctx, "queues", "rabbitmq-2", "rabbitmqctl -q list_queues --no-table-headers name type messages policy | grep -v ^scratch | sort",
			fmt.Sprintf("letters\tclassic\t%d\tlong\norders\tquorum\t%d", rabbitmqClassic, rabbitmqQuorum))
	})
}

func writeRabbitMQ(ctx context.Context, p Place, n int) error {
	return rabbitmqPublish(ctx, p, "rabbitmq-2", "-r scratch", 1, fmt.Sprintf("scratch-%d", n))
}

func checkRabbitMQ(ctx context.Context, p Place, _ any) error {
	return inTurn(
		func() error { return rabbitmqFormed(ctx, p) },
		func() error { return rabbitmqHolds(ctx, p) },
		func() error { return rabbitmqDrained(ctx, p, "rabbitmq-0", "orders", rabbitmqQuorum, "order") },
		func() error { return rabbitmqDrained(ctx, p, "rabbitmq-2", "letters", rabbitmqClassic, "letter") },
		func() error {
			return p.expect(ctx, "a user's rights", "rabbitmq-1", "rabbitmqctl -q list_user_permissions --no-table-headers ann | tr -s '\\t' ' '", "/ ^letters$")
		},
		func() error { return rabbitmqPublish(ctx, p, "rabbitmq-1", "-e post -r letter.after", 1, "after") },
		func() error { return rabbitmqDrained(ctx, p, "rabbitmq-0", "letters", 1, "after") },
		func() error { return rabbitmqPublish(ctx, p, "rabbitmq-2", "-r orders", 1, "after") },
		func() error { return rabbitmqDrained(ctx, p, "rabbitmq-0", "orders", 1, "after") },
	)
}

// rabbitmqDrained takes all messages of a queue and compares them.
func rabbitmqDrained(ctx context.Context, p Place, pod, queue string, n int, prefix string) error {
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%s-%d", prefix, i*i))
	}
	got, err := p.sh(ctx, pod, fmt.Sprintf("timeout 60 "+amqp, "consume", fmt.Sprintf("-q %s -c %d -p 10 -- sh -c 'cat; echo'", queue, n)))
	if err != nil {
		return err
	}
	if fields := strings.Fields(got); strings.Join(fields, " ") != strings.Join(want, " ") {
		return fmt.Errorf("queue %s has %d messages: %.300q, want %d: %.300q", queue, len(fields), got, n, want)
	}
	return nil
}
