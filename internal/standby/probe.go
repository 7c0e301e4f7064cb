package standby

import (
	"context"
	"errors"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/probe"
	"davit.dev/davit/internal/transcript"
)

const askAgain = 500 * time.Millisecond

// probe asks all checks of a step until they answer, or its time is over. It
// changes nothing, so a look asks once.
func (s *Site) probe(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("")
	}
	for {
		var said transcript.Tail
		asker := s.asker()
		asker.Said = &said
		answer, err := asker.All(ctx, o.Step.Checks)
		switch {
		case err == nil:
			return execute.Done("%s", answer).Saying(said.String())
		case o.Action == failover.Look:
			return execute.NotDone("%v", err).Saying(said.String())
		}
		select {
		case <-ctx.Done():
			return execute.Refuse("%v (tried for %s)", err, o.Step.Timeout).Saying(said.String())
		case <-time.After(askAgain):
		}
	}
}

// asks tells whether this site can ask a check.
func (s *Site) asks(c plan.Check) bool {
	return c.Kind == plan.CheckTCP || c.Kind == plan.CheckHTTP || s.o.Drills != nil
}

// asker asks what runs here.
func (s *Site) asker() probe.Asker {
	switch {
	case s.o.Drills != nil:
		return probe.Asker{Cluster: s.o.Drills}
	case s.o.HTTP != nil:
		return probe.Asker{Cluster: services(s.o.HTTP)}
	}
	return probe.Asker{}
}

// services can ask Services alone.
type services func(ctx context.Context, namespace, service, port, scheme, path string) (int, string, error)

// HTTP implements probe.Cluster.
func (f services) HTTP(ctx context.Context, namespace, service, port, scheme, path string) (int, string, error) {
	return f(ctx, namespace, service, port, scheme, path)
}

// Exec implements probe.Cluster.
func (services) Exec(context.Context, probe.Place, []string) (string, error) {
	return "", errors.New("nothing is run in pods from here")
}
