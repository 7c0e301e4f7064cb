package standby

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/probe"
	"davit.dev/davit/internal/transcript"
)

const (
	askAgain  = 500 * time.Millisecond
	maxAnswer = 1 << 20
)

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

func fetch(ctx context.Context, c *plan.Call) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, c.Method, c.URL, nil)
	if err != nil {
		return 0, "", err
	}
	for key, value := range c.Header {
		request.Header.Set(key, value)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response.StatusCode, string(body), err
}

// call makes the HTTP call of a step. Nobody can see whether one was made
// before, so that a call without answer is for a person to settle.
func (s *Site) call(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return s.command(ctx, o)
	}
	c := o.Step.Call
	status, body, err := fetch(ctx, c)
	var refused *net.OpError
	switch {
	case errors.As(err, &refused) && refused.Op == "dial":
		return execute.Refuse("%s %s: %v", c.Method, c.URL, err)
	case err != nil:
		return execute.Unknown("%s %s: %v", c.Method, c.URL, err)
	}
	said := fmt.Sprintf("status %d\n%s", status, body)
	if status != c.Expect {
		return execute.Refuse("%s %s: status %d, not %d: %s", c.Method, c.URL, status, c.Expect, strings.TrimSpace(body[:min(len(body), 200)])).Saying(said)
	}
	return execute.Answer{Outcome: failover.Done, Guard: execute.Unfenced}.Saying(said)
}
