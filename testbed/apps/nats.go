package apps

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	natsMessages = 300
	natsTaken    = 100 // acknowledged by the consumer before the capture
)

var nats = App{
	Name: "nats", Images: []string{"app-nats"},
	Loaded:    "a stream of 300 messages with three replicas, a durable consumer that has acknowledged 100 of them; three members",
	workloads: []string{"statefulset/nats"},
	load:      loadNATS, check: checkNATS, write: writeNATS,
}

// natsAsk sends lines to a subject through a member and returns the answers.
func natsAsk(ctx context.Context, p Place, pod, subject string, lines ...string) ([]string, error) {
	out, err := p.feed(ctx, pod, strings.Join(lines, "\n")+"\n", "natsreq", "127.0.0.1:4222", subject)
	if err != nil {
		return nil, err
	}
	answers := strings.Split(out, "\n")
	if len(answers) != len(lines) {
		return nil, fmt.Errorf("%s gave %d answers to %d messages: %.300q", subject, len(answers), len(lines), out)
	}
	for _, answer := range answers {
		if strings.Contains(answer, `"error":`) {
			return nil, fmt.Errorf("%s: %s", subject, answer)
		}
	}
	return answers, nil
}

func natsOrder(i int) string { return fmt.Sprintf("order-%d", i*i) }

func loadNATS(ctx context.Context, p Place) (any, error) {
	stream := func(name string) string {
		return `{"name":"` + name + `","subjects":["` + strings.ToLower(name) + `"],"retention":"limits","storage":"file","num_replicas":3,"discard":"old","max_age":0,"max_msgs":-1,"max_bytes":-1,"max_consumers":-1}`
	}
	for _, name := range []string{"ORDERS", "SCRATCH"} {
		// Right after the start the members still elect who places streams.
		err := until(ctx, func(ctx context.Context) error {
			_, err := natsAsk(ctx, p, "nats-0", "$JS.API.STREAM.CREATE."+name, stream(name))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	var orders []string
	for i := range natsMessages {
		orders = append(orders, natsOrder(i))
	}
	if _, err := natsAsk(ctx, p, "nats-0", "orders", orders...); err != nil {
		return nil, err
	}
	consumer := `{"stream_name":"ORDERS","config":{"durable_name":"worker","ack_policy":"all","deliver_policy":"all","replay_policy":"instant","max_ack_pending":1000}}`
	if _, err := natsAsk(ctx, p, "nats-1", "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.worker", consumer); err != nil {
		return nil, err
	}
	return nil, natsTake(ctx, p)
}

// natsTake takes the first messages one by one and acknowledges each: its answer's subject says which it is.
func natsTake(ctx context.Context, p Place) error {
	lines := strings.Repeat(`{"batch":1}`+"\n", natsTaken)
	_, err := p.feed(ctx, "nats-1", lines, "natsreq", "-ack", "127.0.0.1:4222", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.worker")
	return err
}

// writeNATS publishes again what was not answered, as clients do: while a stream has no leader, what is published is
// dropped without a word.
func writeNATS(ctx context.Context, p Place, n int) error {
	return until(ctx, func(ctx context.Context) error {
		_, err := natsAsk(ctx, p, "nats-2", "scratch", fmt.Sprint(n))
		return err
	})
}

func checkNATS(ctx context.Context, p Place, _ any) error {
	for _, pod := range []string{"nats-0", "nats-1", "nats-2"} {
		if err := until(ctx, func(ctx context.Context) error { return natsStored(ctx, p, pod) }); err != nil {
			return err
		}
	}
	return inTurn(
		func() error { return natsPosition(ctx, p) },
		func() error {
			answers, err := natsAsk(ctx, p, "nats-0", "orders", "after")
			if err != nil || !strings.Contains(answers[0], fmt.Sprintf(`"seq":%d`, natsMessages+1)) {
				return errors.Join(err, fmt.Errorf("a new message was answered with %q", answers))
			}
			return nil
		},
		func() error {
			answers, err := natsAsk(ctx, p, "nats-2", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.worker", `{"batch":1}`)
			if err != nil || answers[0] != natsOrder(natsTaken) {
				return errors.Join(err, fmt.Errorf("the consumer goes on with %q, want %s", answers, natsOrder(natsTaken)))
			}
			return nil
		},
	)
}

// natsStored compares every stored message, asked through one member.
func natsStored(ctx context.Context, p Place, pod string) error {
	var asks []string
	for i := range natsMessages {
		asks = append(asks, fmt.Sprintf(`{"seq":%d}`, i+1))
	}
	answers, err := natsAsk(ctx, p, pod, "$JS.API.STREAM.MSG.GET.ORDERS", asks...)
	if err != nil {
		return err
	}
	for i, answer := range answers {
		var got struct{ Message struct{ Data string } }
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			return fmt.Errorf("read message %d: %w", i+1, err)
		}
		data, err := base64.StdEncoding.DecodeString(got.Message.Data)
		if err != nil || string(data) != natsOrder(i) {
			return errors.Join(err, fmt.Errorf("message %d is %q, want %s", i+1, data, natsOrder(i)))
		}
	}
	return nil
}

// natsPosition makes sure that the consumer stands where it stood and that all replicas of the stream are there.
func natsPosition(ctx context.Context, p Place) error {
	return until(ctx, func(ctx context.Context) error {
		answers, err := natsAsk(ctx, p, "nats-0", "$JS.API.CONSUMER.INFO.ORDERS.worker", "")
		if err != nil {
			return err
		}
		var consumer struct {
			Floor struct {
				Stream int `json:"stream_seq"`
			} `json:"ack_floor"`
			Cluster struct {
				Replicas []struct{ Current bool }
			}
		}
		if err := json.Unmarshal([]byte(answers[0]), &consumer); err != nil {
			return fmt.Errorf("read consumer: %w", err)
		}
		if consumer.Floor.Stream != natsTaken {
			return fmt.Errorf("the consumer has acknowledged %d, want %d", consumer.Floor.Stream, natsTaken)
		}
		current := 0
		for _, replica := range consumer.Cluster.Replicas {
			if replica.Current {
				current++
			}
		}
		if current != 2 {
			return fmt.Errorf("%d of 2 followers are current: %s", current, answers[0])
		}
		return nil
	})
}
