package standby

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
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
		err := s.checks(ctx, o.Step.Checks)
		switch {
		case err == nil:
			return execute.Done("")
		case o.Action == failover.Look:
			return execute.NotDone("%v", err)
		}
		select {
		case <-ctx.Done():
			return execute.Refuse("%v (tried for %s)", err, o.Step.Timeout)
		case <-time.After(askAgain):
		}
	}
}

func (s *Site) checks(ctx context.Context, all []plan.Check) error {
	for _, c := range all {
		bounded, cancel := context.WithTimeout(ctx, c.Timeout)
		err := s.check(bounded, c)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// asks tells whether this site can ask a check.
func asks(c plan.Check) bool { return c.Kind == plan.CheckTCP || c.Kind == plan.CheckHTTP }

func (s *Site) check(ctx context.Context, c plan.Check) error {
	switch c.Kind {
	case plan.CheckTCP:
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Target)
		if err != nil {
			return fmt.Errorf("probe %s: %w", c.Target, err)
		}
		return conn.Close()
	case plan.CheckHTTP:
		return s.ask(ctx, c)
	}
	return fmt.Errorf("probe %s: checks of the kind %q are not carried out by this davit", c.Target, c.Kind)
}

// ask gets an address. One of a Service, SERVICE.NAMESPACE, is asked through the
// API server, as whoever carries the run need not be inside of the cluster.
func (s *Site) ask(ctx context.Context, c plan.Check) error {
	u, err := url.Parse(c.Target)
	if err != nil {
		return fmt.Errorf("probe %s: %w", c.Target, err)
	}
	status, body, err := s.get(ctx, u)
	switch {
	case err != nil:
		return fmt.Errorf("probe %s: %w", c.Target, err)
	case status < 200 || status > 299:
		return fmt.Errorf("probe %s: status %d", c.Target, status)
	case c.Expect == "":
		return nil
	}
	want, err := regexp.Compile(c.Expect)
	if err != nil {
		return fmt.Errorf("probe %s: expect is no regular expression: %w", c.Target, err)
	}
	if !want.MatchString(body) {
		return fmt.Errorf("probe %s: the answer does not match %q", c.Target, c.Expect)
	}
	return nil
}

func (s *Site) get(ctx context.Context, u *url.URL) (int, string, error) {
	if service, namespace, ok := inCluster(u.Hostname()); ok && s.o.HTTP != nil {
		return s.o.HTTP(ctx, namespace, service, cmp.Or(u.Port(), map[string]string{"https": "443"}[u.Scheme], "80"), u.Scheme, u.RequestURI())
	}
	return fetch(ctx, http.MethodGet, u.String())
}

// inCluster reads a Service's name in the cluster.
func inCluster(host string) (service, namespace string, ok bool) {
	host = strings.TrimSuffix(strings.TrimSuffix(host, ".cluster.local"), ".svc")
	service, namespace, ok = strings.Cut(host, ".")
	return service, namespace, ok && !strings.Contains(namespace, ".") && net.ParseIP(host) == nil
}

func fetch(ctx context.Context, method, address string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return 0, "", err
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
	status, body, err := fetch(ctx, c.Method, c.URL)
	var refused *net.OpError
	switch {
	case errors.As(err, &refused) && refused.Op == "dial":
		return execute.Refuse("%s %s: %v", c.Method, c.URL, err)
	case err != nil:
		return execute.Unknown("%s %s: %v", c.Method, c.URL, err)
	case status != c.Expect:
		return execute.Refuse("%s %s: status %d, not %d: %s", c.Method, c.URL, status, c.Expect, strings.TrimSpace(body[:min(len(body), 200)]))
	}
	return execute.Answer{Outcome: failover.Done, Guard: execute.Unfenced}
}
