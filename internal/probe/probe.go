// Package probe asks what plans ask of applications: over TCP and HTTP, by SQL
// with the database's own client, and by a command in a container. Asked in a
// drill, it asks the copy and nothing else.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"davit.dev/davit/internal/plan"
)

const (
	maxAnswer = 1 << 20
	maxTold   = 120 // characters of an answer that are told
)

// Place is where a command runs: in a pod that is ready behind the Service, or
// that has the labels.
type Place struct {
	Namespace, Service, Labels, Container string
}

// Cluster asks inside of a cluster.
type Cluster interface {
	// HTTP gets a path of a Service.
	HTTP(ctx context.Context, namespace, service, port, scheme, path string) (status int, body string, err error)
	// Exec runs a command; one that ends with another code than 0 is an error.
	Exec(ctx context.Context, at Place, command []string) (output string, err error)
}

// Asker asks checks.
type Asker struct {
	// Cluster is nil where nothing inside of a cluster can be asked.
	Cluster Cluster
	// To is set in drills: it says where the copy of a namespace is.
	To func(namespace string) (string, bool)
	// Said is written what commands and databases answer; nil: nobody wants to know.
	Said io.Writer
}

// ErrOutside says that a check leads out of the drill's sandbox: it was not
// asked, as its answer says nothing of the copy.
var ErrOutside = errors.New("not asked: it leads out of the drill's sandbox")

// Ask asks once, and returns the answer for people. An error is why the check
// is not passed, or ErrOutside.
func (a Asker) Ask(ctx context.Context, c plan.Check) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	answer, err := a.ask(bounded, c)
	if a.Said != nil && answer != "" && (c.Kind == plan.CheckCommand || c.Kind == plan.CheckSQL) {
		_, _ = fmt.Fprintf(a.Said, "%s:\n%s\n", c.Target, answer)
	}
	if err != nil {
		return "", fmt.Errorf("probe %s: %w", c.Target, err)
	}
	return fmt.Sprintf("%s: %s", c.Target, Told(answer)), nil
}

// All asks checks in their order, and stops at the first that is not passed.
func (a Asker) All(ctx context.Context, all []plan.Check) (string, error) {
	var told []string
	for _, c := range all {
		answer, err := a.Ask(ctx, c)
		if errors.Is(err, ErrOutside) {
			answer, err = err.Error(), nil
		}
		if err != nil {
			return "", err
		}
		told = append(told, answer)
	}
	return strings.Join(told, "; "), nil
}

func (a Asker) ask(ctx context.Context, c plan.Check) (string, error) {
	switch c.Kind {
	case plan.CheckTCP:
		return a.tcp(ctx, c)
	case plan.CheckHTTP:
		return a.http(ctx, c)
	case plan.CheckSQL:
		return a.sql(ctx, c)
	case plan.CheckCommand:
		return a.command(ctx, c)
	}
	return "", fmt.Errorf("checks of the kind %q are not carried out by this davit", c.Kind)
}

// where is the namespace to ask: in a drill its copy.
func (a Asker) where(namespace string) (string, error) {
	if a.Cluster == nil {
		return "", errors.New("nothing inside of the cluster can be asked from here")
	}
	if a.To == nil {
		return namespace, nil
	}
	to, ok := a.To(namespace)
	if !ok {
		return "", ErrOutside
	}
	return to, nil
}

// tcp connects from here; in a drill the API server connects to the copy's Service.
func (a Asker) tcp(ctx context.Context, c plan.Check) (string, error) {
	if a.To == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Target)
		if err != nil {
			return "", err
		}
		return "connected", conn.Close()
	}
	host, port, err := net.SplitHostPort(c.Target)
	if err != nil {
		return "", err
	}
	service, namespace, ok := inCluster(host)
	if !ok {
		return "", ErrOutside
	}
	namespace, err = a.where(namespace)
	if err != nil {
		return "", err
	}
	status, body, err := a.Cluster.HTTP(ctx, namespace, service, port, "http", "/")
	if err != nil {
		return "", err
	}
	// Whatever speaks another protocol answers nonsense, which is an answer.
	if status == http.StatusNotFound && strings.Contains(body, `"kind":"Status"`) || status == http.StatusServiceUnavailable &&
		(strings.Contains(body, "dial") || strings.Contains(body, "no endpoints") || strings.Contains(body, "timeout")) {
		return "", errors.New(Told(body))
	}
	return "connected", nil
}

func (a Asker) http(ctx context.Context, c plan.Check) (string, error) {
	u, err := url.Parse(c.Target)
	if err != nil {
		return "", err
	}
	status, body, err := a.get(ctx, u)
	switch {
	case err != nil:
		return "", err
	case status < 200 || status > 299:
		return "", fmt.Errorf("status %d", status)
	}
	return fmt.Sprintf("%d %s", status, body), expect(c, body)
}

// get asks a Service, SERVICE.NAMESPACE, through the API server, as whoever
// carries a run need not be inside of the cluster.
func (a Asker) get(ctx context.Context, u *url.URL) (int, string, error) {
	service, namespace, ok := inCluster(u.Hostname())
	switch {
	case !ok && a.To != nil:
		return 0, "", ErrOutside
	case !ok || a.Cluster == nil:
		return fetch(ctx, u.String())
	}
	namespace, err := a.where(namespace)
	if err != nil {
		return 0, "", err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return a.Cluster.HTTP(ctx, namespace, service, port, u.Scheme, u.RequestURI())
}

func fetch(ctx context.Context, address string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
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

func (a Asker) sql(ctx context.Context, c plan.Check) (string, error) {
	u, err := url.Parse(c.Target)
	if err != nil {
		return "", err
	}
	service, namespace, ok := inCluster(u.Hostname())
	if !ok {
		return "", fmt.Errorf("%q names no Service, SERVICE.NAMESPACE", u.Host)
	}
	if namespace, err = a.where(namespace); err != nil {
		return "", err
	}
	answer, err := a.Cluster.Exec(ctx, Place{Namespace: namespace, Service: service, Container: c.Container}, client(u, c.Query))
	if err != nil {
		return "", err
	}
	answer = strings.TrimSpace(answer)
	return answer, expect(c, answer)
}

// The clients run in the database's own container, over its own socket. A
// password that the container has in its environment is used there, and leaves it not.
const (
	psql  = `export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}" PGCONNECT_TIMEOUT=5; exec psql -XAtq -v ON_ERROR_STOP=1 "$@"`
	mysql = `if [ -z "$MYSQL_PWD" ]; then w="${MYSQL_ROOT_PASSWORD:-$MARIADB_ROOT_PASSWORD}"; [ -z "$w" ] || export MYSQL_PWD="$w"; fi
c=mysql; command -v mariadb >/dev/null && c=mariadb; exec $c -NBs --connect-timeout=5 "$@"`
)

func client(u *url.URL, query string) []string {
	if query == "" {
		query = "SELECT 1"
	}
	user, database := u.User.Username(), strings.TrimPrefix(u.Path, "/")
	if u.Scheme == "postgres" || u.Scheme == "postgresql" {
		if user == "" {
			user = "postgres"
		}
		command := []string{"sh", "-c", psql, "psql", "-U", user, "-c", query}
		if database != "" {
			command = append(command, "-d", database)
		}
		return command
	}
	if user == "" {
		user = "root"
	}
	command := []string{"sh", "-c", mysql, "mysql", "-u", user, "-e", query}
	if database != "" {
		command = append(command, "-D", database)
	}
	return command
}

func (a Asker) command(ctx context.Context, c plan.Check) (string, error) {
	at := Place{Container: c.Container}
	if namespace, labels, ok := strings.Cut(c.Target, "/"); ok {
		at.Namespace, at.Labels = namespace, labels
	} else if service, namespace, ok := inCluster(c.Target); ok {
		at.Service, at.Namespace = service, namespace
	} else {
		return "", errors.New("it names no pods: write SERVICE.NAMESPACE or NAMESPACE/LABEL=VALUE")
	}
	var err error
	if at.Namespace, err = a.where(at.Namespace); err != nil {
		return "", err
	}
	answer, err := a.Cluster.Exec(ctx, at, c.Command)
	if err != nil {
		return "", err
	}
	answer = strings.TrimSpace(answer)
	return answer, expect(c, answer)
}

// Mismatch is an answer that is not what a check expects.
type Mismatch struct{ Expect, Answer string }

// Error implements error.
func (m *Mismatch) Error() string { return m.Without() + ": " + Told(m.Answer) }

// Without says it without the answer, which not all may read who may read that there was one.
func (m *Mismatch) Without() string { return fmt.Sprintf("the answer does not match %q", m.Expect) }

func expect(c plan.Check, answer string) error {
	if c.Expect == "" {
		return nil
	}
	want, err := regexp.Compile(c.Expect)
	if err != nil {
		return fmt.Errorf("expect is no regular expression: %w", err)
	}
	if !want.MatchString(answer) {
		return &Mismatch{c.Expect, answer}
	}
	return nil
}

// inCluster reads a Service's name in the cluster.
func inCluster(host string) (service, namespace string, ok bool) {
	host = strings.TrimSuffix(strings.TrimSuffix(host, ".cluster.local"), ".svc")
	service, namespace, ok = strings.Cut(host, ".")
	return service, namespace, ok && service != "" && namespace != "" && !strings.Contains(namespace, ".") && net.ParseIP(host) == nil
}

// Told is an answer as it is told: one line, and not all of a long one.
func Told(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
	if r := []rune(s); len(r) > maxTold {
		return string(r[:maxTold]) + "…"
	}
	return s
}
