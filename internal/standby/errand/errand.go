// Package errand is the Job that does what a run's step says, or takes it back: what it is
// made of, when it has ended, and how it begins.
//
// Whoever carries a run may stand still at any moment, for longer than it takes another
// process to carry the run on. So a Job is made suspended: nothing of it runs, and all can see it.
// It begins by one change that the API server refuses if anybody has touched it, after a look whether
// its order is still the newest. Whoever looks for the step's Jobs touches those that have
// not begun: they never will.
package errand

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/drill"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
)

// What a Job of a step says of itself.
const (
	// LabelStep is of the Job and its pods: which step of which run it does, or takes back.
	LabelStep = "davit.dev/run-step"
	// AnnotationRun names the run.
	AnnotationRun = "davit.dev/run"
	// AnnotationState is Prepared, Begun or Withdrawn. Jobs of older versions have none, and
	// began when they were made.
	AnnotationState = "davit.dev/run-step-state"
)

// The states of a Job before it runs.
const (
	Prepared  = "prepared"
	Begun     = "begun"
	Withdrawn = "withdrawn" // it never begins
)

// Grace is what a command has to end by itself when its time is over, less than
// a run waits for that.
const Grace = 10 * time.Second

// attempts are how often a Job that others change is begun, until it is looked at again.
const attempts = 10

// ID is a label's value for a step of a run, and what is done with it.
func ID(o execute.Order) string {
	what := failover.Act
	if o.Action == failover.Undo {
		what = failover.Undo
	}
	sum := sha256.Sum256([]byte(o.Run + "\n" + o.Step.Name + "\n" + string(what)))
	return hex.EncodeToString(sum[:10])
}

// New is the Job of an order, prepared. It is not tried again: whether it may be is for the plan.
func New(o execute.Order, vault string, c *plan.Command) *unstructured.Unstructured {
	container := map[string]any{"name": "step", "image": c.Image}
	var args, env, secrets []any
	for _, a := range c.Args {
		args = append(args, a)
	}
	for key, value := range c.Env {
		env = append(env, map[string]any{"name": key, "value": value})
	}
	told := o.Told() // as headers of a call
	told["DAVIT_VERB"], told["DAVIT_FROM"], told["DAVIT_TO"] = string(o.Verb), o.From, o.To
	for key, value := range told {
		env = append(env, map[string]any{"name": strings.ToUpper(strings.ReplaceAll(key, "-", "_")), "value": value})
	}
	for _, secret := range c.Secrets {
		secrets = append(secrets, map[string]any{"secretRef": map[string]any{"name": secret}})
	}
	container["args"], container["env"], container["envFrom"] = args, env, secrets
	labels := map[string]any{shape.LabelManagedBy: "davit", LabelStep: ID(o)}
	shape.OfVault(labels, vault)
	if o.Sandbox != "" {
		labels[v1alpha1.LabelSandbox] = drill.Name(o.Run) // the clean-up takes it away
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "batch/v1", "kind": "Job",
		"metadata": map[string]any{
			"name": fmt.Sprintf("davit-step-%s-%d", ID(o), o.Token.Sequence), "namespace": v1alpha1.SystemNamespace, "labels": labels,
			"annotations": map[string]any{AnnotationRun: o.Run, "davit.dev/step": strings.TrimSpace(o.Step.Name), AnnotationState: Prepared},
		},
		"spec": map[string]any{
			"suspend":      true,
			"backoffLimit": int64(0),
			// The site ends what outlasts the step, whoever carries the run then: else
			// nobody could say whether it is still being done. It counts from when the Job begins.
			"activeDeadlineSeconds": Seconds(o.Step.Timeout),
			"template": map[string]any{
				"metadata": map[string]any{"labels": labels},
				"spec": map[string]any{
					"restartPolicy": "Never", "terminationGracePeriodSeconds": int64(Grace / time.Second), "containers": []any{container},
				},
			},
		},
	}}
}

// Seconds are whole ones of a time, at least one.
func Seconds(d time.Duration) int64 { return max(1, int64((d+time.Second-1)/time.Second)) }

// Ended is the condition that a Job ended with, empty while it runs. One that the site
// has failed runs until its pods are gone: a terraform still writes its state then.
func Ended(u *unstructured.Unstructured) string {
	if n, _ := shape.Number(u.Object, "status", "terminating"); n > 0 {
		return ""
	}
	for _, c := range shape.Items(u.Object, "status", "conditions") {
		kind := shape.Text(c, "type")
		if (kind == "Complete" || kind == "Failed") && shape.Text(c, "status") == "True" {
			return kind
		}
	}
	return ""
}

func state(u *unstructured.Unstructured) string { return u.GetAnnotations()[AnnotationState] }

// Begin makes an order's Job, or finds it, and lets it run, once, if the order is still the newest
// of its step by the site's marks. Done: it runs, or has. Anything else is the order's answer.
func Begin(ctx context.Context, c restore.Cluster, at restore.Served, marks execute.Marks, o execute.Order, wanted *unstructured.Unstructured) execute.Answer {
	name := wanted.GetName()
	live, err := c.Create(ctx, at, wanted)
	switch {
	case apierrors.IsAlreadyExists(err):
		live, err = c.Get(ctx, at, v1alpha1.SystemNamespace, name)
	case err != nil && refused(err):
		return execute.Refuse("make Job %s: %v", name, err)
	case err != nil:
		return execute.Unknown("make Job %s: %v", name, err) // it may have arrived; it has not begun
	}
	for range attempts {
		switch {
		case err != nil:
			return execute.Unknown("begin Job %s: %v", name, err) // it may have
		case state(live) == Withdrawn:
			return execute.Unknown("Job %s was withdrawn before it had begun, by a newer look or order of its step", name)
		case state(live) != Prepared:
			return execute.Done("")
		}
		current, err2 := execute.Current(ctx, marks, o)
		switch {
		case err2 != nil:
			return execute.Unknown("begin Job %s: %v", name, err2)
		case !current:
			_, _ = Withdraw(ctx, c, at, live) // it never begins, and is of no use to anybody
			return execute.Unknown("order %d is old: Job %s was not begun", o.Token.Sequence, name)
		}
		prepared := live
		if live, err = turn(ctx, c, at, prepared, Begun); apierrors.IsConflict(err) {
			live, err = c.Get(ctx, at, v1alpha1.SystemNamespace, name)
		} else if apierrors.IsForbidden(err) {
			// Who may not let it begin may not withdraw it either: it would be in the way of
			// every look, and of taking the step back.
			_ = c.Delete(ctx, at, prepared, false)
			return execute.Refuse("begin Job %s: %v: whoever carries the run has to be allowed to patch Jobs of %s", name, err, v1alpha1.SystemNamespace)
		}
	}
	return execute.Unknown("Job %s changes faster than it can be begun", name)
}

// Withdraw sees to it that a Job which is prepared never begins. It is false of any other. An
// error says that nobody knows: it may have begun just now.
func Withdraw(ctx context.Context, c restore.Cluster, at restore.Served, u *unstructured.Unstructured) (bool, error) {
	switch state(u) {
	case Withdrawn:
		return true, nil
	case Prepared:
	default:
		return false, nil
	}
	live, err := turn(ctx, c, at, u, Withdrawn)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("withdraw Job %s: %w", u.GetName(), err)
	}
	_ = c.Delete(ctx, at, live, false) // what stays is cleared with the run
	return true, nil
}

// turn changes the state of a Job that nobody has changed since it was read.
func turn(ctx context.Context, c restore.Cluster, at restore.Served, u *unstructured.Unstructured, to string) (*unstructured.Unstructured, error) {
	change := map[string]any{"metadata": map[string]any{"resourceVersion": u.GetResourceVersion(), "annotations": map[string]any{AnnotationState: to}}}
	if to == Begun {
		change["spec"] = map[string]any{"suspend": false}
	}
	patch, err := json.Marshal(change)
	if err != nil {
		return nil, fmt.Errorf("encode Job: %w", err)
	}
	return c.Patch(ctx, at, u.GetNamespace(), u.GetName(), patch)
}

// refused tells whether the API server has said no: nothing was made.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsNotFound(err)
}
