package quiesce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// ErrGone says that the pod a hook was for is not there any more, and so that
// nothing can be, or need be, done in it.
var ErrGone = errors.New("the pod is gone")

// Defaults of hooks.
const (
	DefaultTimeout = 30 * time.Second
	DefaultLimit   = time.Minute
	DefaultMarker  = "DAVIT HELD"
	DefaultAsk     = "DAVIT CHECK"
	// MaxLimit is the longest that a hold may be asked for.
	MaxLimit = 10 * time.Minute
)

// Action is something to do before or after the cut. One of its fields is set.
// It is also what the ledger keeps, and so can be written as JSON.
type Action struct {
	// Command runs in the target's container.
	Command []string `json:"command,omitempty"`
	// HTTP is a request to the target.
	HTTP *HTTP `json:"http,omitempty"`
	// Job runs to its end in the target's namespace.
	Job *Job `json:"job,omitempty"`
}

// HTTP is a request to a pod: to the target's or, where there is a Service, to
// one that it is in front of. What is empty is filled in by who makes it.
type HTTP struct {
	Service string   `json:"service,omitempty"`
	Port    string   `json:"port"` // number or name
	Scheme  string   `json:"scheme"`
	Method  string   `json:"method"`
	Path    string   `json:"path"` // with its query
	Headers []Header `json:"headers,omitempty"`
	Body    string   `json:"body,omitempty"`
	Status  []int32  `json:"status,omitempty"` // that are a success; empty: 200 to 299
}

// Header is a header of a request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Job is what a CronJob would run.
type Job struct {
	CronJob string `json:"cronJob"`
}

// of names what is acted on where that is no pod, as kind/name; or is empty.
func (a *Action) of() string {
	switch {
	case a == nil:
		return ""
	case a.Job != nil:
		return "cronjob/" + a.Job.CronJob
	case a.HTTP != nil && a.HTTP.Service != "":
		return "service/" + a.HTTP.Service
	}
	return ""
}

// String says it for people. Headers and bodies are left out.
func (a Action) String() string {
	switch {
	case a.HTTP != nil:
		return a.HTTP.Method + " " + a.HTTP.Path
	case a.Job != nil:
		return "a Job of CronJob " + a.Job.CronJob
	}
	return fmt.Sprintf("%q", a.Command)
}

// Hold is a command whose session is kept open across the cut. It brings the
// application to rest, prints Marker on a line of its own, and reads lines. For
// the line Ask it prints Marker again, if the application has been at rest
// without a break. When its input ends it lets the application go, and ends.
type Hold struct {
	Command     []string
	Marker, Ask string        // empty: DefaultMarker, DefaultAsk
	Limit       time.Duration // of the whole session; 0: DefaultLimit
}

// Hook is something done around the cut, in pods.
type Hook struct {
	Name string
	// Order: hooks of a lower one act earlier before the cut and later after
	// it; those of the same act at once.
	Order int32
	Pods  labels.Selector
	// Namespace of a hook that is not of pods: see Apart. Empty: the
	// application's only one.
	Namespace string
	Container string // empty: the pod's default
	Before    *Action
	Hold      *Hold
	After     *Action
	// Timeout of each action, and of the wait until a hold holds; 0:
	// DefaultTimeout.
	Timeout time.Duration
	// Continue makes a failure a warning.
	Continue bool
}

// Apart tells whether the hook acts in no pod, but once, by Jobs or Services.
func (h *Hook) Apart() bool { return h.Before.of() != "" || h.After.of() != "" }

// rests tells whether the hook brings something to rest.
func (h *Hook) rests() bool { return h.Before != nil || h.Hold != nil }

// Target is where a hook acts: a container of a pod, or something else in a
// namespace.
type Target struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod,omitempty"`
	UID       string `json:"uid,omitempty"` // of the pod
	Container string `json:"container,omitempty"`
	Of        string `json:"of,omitempty"` // kind/name, where there is no pod
}

// Key is namespace/pod, or namespace/kind/name.
func (t Target) Key() string { return t.Namespace + "/" + cmp.Or(t.Pod, t.Of) }

// object names the target in warnings.
func (t Target) object() string {
	if t.Pod == "" {
		return t.Key()
	}
	return "pods " + t.Key()
}

// Container is one container of a pod.
type Container struct{ Name, Image string }

// Pod is a pod in which something may run.
type Pod struct {
	Namespace, Name, UID string
	Labels, Annotations  map[string]string
	Containers           []Container // those that keep running, in their order
	Others               []string    // names of those that run before them
	// Default is the container that people mean who name none.
	Default string
	// Unfit says why no hook can run there, although something else may. Such
	// a pod is not brought to rest.
	Unfit string
}

// Key is namespace/name.
func (p Pod) Key() string { return p.Namespace + "/" + p.Name }

// Container is the name of one of the pod's containers; of its default one for
// an empty name.
func (p Pod) Container(name string) (string, error) {
	if name == "" {
		name = p.Default
	}
	if name == "" && len(p.Containers) > 0 {
		return p.Containers[0].Name, nil
	}
	names := slices.Clone(p.Others)
	for _, c := range p.Containers {
		names = append(names, c.Name)
	}
	if !slices.Contains(names, name) {
		return "", fmt.Errorf("pod %s has no container %q: it has %s", p.Key(), name, strings.Join(names, ", "))
	}
	return name, nil
}

// Session is a Hold's command while it runs.
type Session interface {
	// Held waits until the command says for the first time that it holds.
	Held(ctx context.Context) error
	// Ask sends the question and waits for the answer. It fails when the
	// session has ended, or the command spoke before it was asked.
	Ask(ctx context.Context) error
	// Close ends the command's input and waits for its end. When ctx is done it
	// ends the connection instead.
	Close(ctx context.Context) error
	// Output is what the command printed, cut to a bounded size.
	Output() string
}

// Runner acts in the cluster.
type Runner interface {
	// Pods lists the pods of the namespaces in which something may run.
	Pods(ctx context.Context, namespaces []string) ([]Pod, error)
	// Run carries out an action and returns what it printed, cut to a bounded
	// size. A failure says so in words of the action. ErrGone: there is no such
	// pod any more.
	Run(ctx context.Context, t Target, a Action) (output string, err error)
	// Hold starts a session, which lives no longer than ctx. That the command
	// could not be started may be said by the session's Held.
	Hold(ctx context.Context, t Target, h Hold) (Session, error)
}

// Owed is one After that must be carried out whatever happens.
type Owed struct {
	Hook    string        `json:"hook"`
	Order   int32         `json:"order,omitempty"`
	Target  Target        `json:"target"`
	Action  Action        `json:"action"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Debt is all that is owed to an application.
type Debt struct {
	Application string `json:"application"`
	Owed        []Owed `json:"owed"`
}

// Ledger keeps debts where they outlive this process. From Owe until Leave the
// application's debt is this process's own: nobody else collects it.
type Ledger interface {
	// Owe writes the debt down. It adds to what the application is owed already.
	Owe(ctx context.Context, d Debt) error
	// Leave strikes out what was carried out, and leaves the rest of the
	// application's debt to be collected.
	Leave(ctx context.Context, application string, done []Owed) error
}

// Reporter is told how it goes.
type Reporter interface {
	Step(text string)
	Note(level, object, message string) // into the log
	Warn(object, message string)
}

// title names the hook, for people. A profile says by its name that it is one.
func (h *Hook) title() string {
	if strings.HasPrefix(h.Name, "profile ") {
		return h.Name
	}
	return "hook " + h.Name
}

func (h *Hook) timeout() time.Duration {
	if h.Timeout <= 0 {
		return DefaultTimeout
	}
	return h.Timeout
}

// WithDefaults fills in what was left out.
func (h Hold) WithDefaults() Hold {
	if h.Marker == "" {
		h.Marker = DefaultMarker
	}
	if h.Ask == "" {
		h.Ask = DefaultAsk
	}
	if h.Limit <= 0 {
		h.Limit = DefaultLimit
	}
	return h
}
