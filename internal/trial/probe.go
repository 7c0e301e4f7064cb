package trial

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/vault"
)

const (
	askAgain     = 2 * time.Second
	probeTimeout = time.Minute
	maxAnswer    = 200 // characters of an answer that a message tells
)

// Prober asks a copy. Each call ends with its context. An answer that tells
// of a failure is an error; so is none.
type Prober interface {
	Exec(ctx context.Context, namespace string, pod v1alpha1.PodChoice, command []string) (output string, err error)
	HTTP(ctx context.Context, namespace string, probe v1alpha1.HTTPProbe) (status int, body string, err error)
	// Job runs a pod to its end; the name is of this try alone.
	Job(ctx context.Context, namespace, name string, probe v1alpha1.JobProbe) (output string, err error)
}

// probe asks all probes in their order and stops at the first that fails.
func (t *test) probe(bounded, ctx context.Context) (failure string, noVerdict error) {
	for i := range t.opts.Probes {
		p := &t.opts.Probes[i]
		began := t.now()
		message := t.ask(bounded, p, i)
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		t.report.Probes = append(t.report.Probes, vault.MarkProbe{Name: p.Name, Passed: message == "", Took: t.now().Sub(began), Message: message})
		if message != "" {
			return fmt.Sprintf("probe %s: %s", p.Name, message), nil
		}
	}
	return "", nil
}

// ask tries a probe until it passes or its time is over, and returns why the
// last try did not pass.
func (t *test) ask(ctx context.Context, p *v1alpha1.RestoreProbe, index int) string {
	limit := probeTimeout
	if p.Timeout != nil {
		limit = p.Timeout.Duration
	}
	bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	last := ""
	for try := 1; ; try++ {
		err := t.try(bounded, p, fmt.Sprintf("davit-probe-%s-%d-%d", t.id, index, try))
		if err == nil {
			return ""
		}
		if bounded.Err() != nil && last != "" { // a try that was cut off says less than one that ended
			return fmt.Sprintf("%s (tried for %s)", last, limit)
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			err = context.Cause(bounded)
		}
		last = shorten(err.Error())
		if t.deps.Sleep(bounded, askAgain) != nil {
			return fmt.Sprintf("%s (tried for %s)", last, limit)
		}
	}
}

// try asks once; a Job gets the name that is of this probe and try alone.
func (t *test) try(ctx context.Context, p *v1alpha1.RestoreProbe, job string) error {
	namespace := t.mapping[t.manifest.Namespaces[0]]
	if p.Namespace != "" {
		namespace = t.mapping[p.Namespace]
	}
	answer, err := t.answer(ctx, p, namespace, job)
	if err != nil {
		return err
	}
	if p.Expect == "" {
		return nil
	}
	want, err := regexp.Compile(p.Expect)
	if err != nil {
		return fmt.Errorf("expect is no regular expression: %w", err)
	}
	if !want.MatchString(answer) && !want.MatchString(strings.TrimSpace(answer)) {
		return fmt.Errorf("want an answer that matches %q, got %q", p.Expect, shorten(strings.TrimSpace(answer)))
	}
	return nil
}

func (t *test) answer(ctx context.Context, p *v1alpha1.RestoreProbe, namespace, job string) (string, error) {
	c := t.deps.Cluster
	switch {
	case p.Exec != nil:
		return c.Exec(ctx, namespace, p.Exec.PodChoice, p.Exec.Command)
	case p.SQL != nil:
		return c.Exec(ctx, namespace, p.SQL.PodChoice, sqlCommand(p.SQL))
	case p.HTTP != nil:
		status, body, err := c.HTTP(ctx, namespace, *p.HTTP)
		if err == nil && !asWanted(status, int(p.HTTP.Status)) {
			err = fmt.Errorf("status %d: %s", status, shorten(body))
		}
		return body, err
	case p.Job != nil:
		return c.Job(ctx, namespace, job, *p.Job)
	}
	return "", errors.New("the probe asks nothing")
}

func asWanted(status, want int) bool {
	if want != 0 {
		return status == want
	}
	return status >= 200 && status < 400
}

// sqlCommand is the client's call: no start-up files, rows only, an error ends it.
func sqlCommand(p *v1alpha1.SQLProbe) []string {
	if p.Client == "psql" {
		command := []string{"psql", "-XAtq", "-v", "ON_ERROR_STOP=1"}
		if p.User != "" {
			command = append(command, "-U", p.User)
		}
		if p.Database != "" {
			command = append(command, "-d", p.Database)
		}
		return append(command, "-c", p.Query)
	}
	command := []string{p.Client, "-NBs", "--connect-timeout=5"}
	if p.User != "" {
		command = append(command, "-u", p.User)
	}
	command = append(command, "-e", p.Query)
	if p.Database != "" {
		command = append(command, p.Database)
	}
	return command
}

func shorten(s string) string {
	if len(s) <= maxAnswer {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:maxAnswer], "") + "..."
}
