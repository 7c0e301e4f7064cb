package standby

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby/errand"
)

// jobless is a cluster that answers every Create with an error.
type jobless struct {
	restore.Cluster
	err error
}

func (j jobless) Serves(context.Context, schema.GroupKind) ([]restore.Served, error) {
	return make([]restore.Served, 1), nil
}

func (j jobless) Create(context.Context, restore.Served, *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return nil, j.err
}

// TestAJobThatMayHaveArrivedIsNotRefused: only where the API server said no is
// it certain that nothing runs.
func TestAJobThatMayHaveArrivedIsNotRefused(t *testing.T) {
	jobs := schema.GroupResource{Group: "batch", Resource: "jobs"}
	for _, tc := range []struct {
		err  error
		want failover.Outcome
	}{
		{context.DeadlineExceeded, failover.NoAnswer},
		{errors.New("connection reset by peer"), failover.NoAnswer},
		{apierrors.NewServerTimeout(jobs, "create", 1), failover.NoAnswer},
		{apierrors.NewInternalError(errors.New("etcd")), failover.NoAnswer},
		{apierrors.NewTimeoutError("request did not complete", 1), failover.NoAnswer},
		{apierrors.NewForbidden(jobs, "j", errors.New("quota")), failover.Refused},
		{apierrors.NewInvalid(schema.GroupKind{Group: "batch", Kind: "Job"}, "j", nil), failover.Refused},
		{apierrors.NewBadRequest("no"), failover.Refused},
		{apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "davit-system"), failover.Refused},
	} {
		s := New(Options{Recovery: recovery.Deps{Cluster: jobless{err: tc.err}}})
		got := commands(t.Context(), s, execute.Order{Action: failover.Act, Run: "r", Step: plan.Step{Name: "mail", Kind: plan.KindCommand, Command: &plan.Command{Image: "i"}}})
		if got.Outcome != tc.want || got.Note == "" {
			t.Errorf("%v: %+v, want %s", tc.err, got, tc.want)
		}
	}
}

// TestLastWords: a failed Job is told with the end of what it said, and with
// what the Job says where it said nothing.
func TestLastWords(t *testing.T) {
	live := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{
		map[string]any{"type": "Failed", "status": "True", "message": "it has reached its limit"},
	}}}}
	for _, tc := range []struct {
		said string
		err  error
		want string
	}{
		{"one\ntwo\n\n three\nfour\nfive\nsix\x1b[31m\n", nil, "two | three | four | five | six"},
		{" \n", nil, "it said nothing, and the Job: it has reached its limit"},
		{strings.Repeat("é", 600), nil, "..." + strings.Repeat("é", 500)},
		{"", errors.New("forbidden"), "what it said is not known: forbidden"},
	} {
		s := New(Options{JobLog: func(_ context.Context, namespace, job string) (string, error) {
			if namespace != "davit-system" || job != "j" {
				t.Errorf("asked for %s/%s", namespace, job)
			}
			return tc.said, tc.err
		}})
		if got, _ := s.lastWords(t.Context(), "j", live, hidden{}, unwatched); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.said, got, tc.want)
		}
	}
}

// TestWhatWasHeardIsTold: the site has taken the pod away that it ended, and its log. The
// control: nobody listened.
func TestWhatWasHeardIsTold(t *testing.T) {
	for heard, want := range map[string]string{"applying\ndavit: the step's time was over\n": "the step's time was over", "": "the Job: it was too long"} {
		m := newMemory(t)
		m.changed = func(u *unstructured.Unstructured) {
			u.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Failed", "status": "True", "message": "it was too long"}}}
		}
		s := New(Options{
			Recovery: recovery.Deps{Cluster: m},
			JobLog:   func(context.Context, string, string) (string, error) { return "", nil },
			JobTail:  func(context.Context, string, string) string { return heard },
		})
		got := commands(t.Context(), s, execute.Order{Action: failover.Act, Run: "r", Step: plan.Step{Name: "mail", Timeout: time.Minute, Command: &plan.Command{Image: "i"}}})
		if got.Outcome != failover.Refused || !strings.Contains(got.Note, want) {
			t.Errorf("%q: %+v", heard, got)
		}
	}
}

// TestAJobEndsWithItsPods: one that the site has failed still runs until its pods are gone,
// and what it does then is not done anew beside it.
func TestAJobEndsWithItsPods(t *testing.T) {
	for terminating, want := range map[int64]string{1: "", 0: "Failed"} {
		live := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{
			"terminating": terminating, "conditions": []any{map[string]any{"type": "Failed", "status": "True"}},
		}}}
		if got := errand.Ended(live); got != want {
			t.Errorf("%d pods end: %q, want %q", terminating, got, want)
		}
	}
}

// TestACommandEndsWithItsStep: the site ends a Job that outlasts its step, so that a
// look says that it was not done, and not for ever that it is being done.
func TestACommandEndsWithItsStep(t *testing.T) {
	for timeout, want := range map[time.Duration]int64{5 * time.Second: 5, time.Millisecond: 1, 90*time.Second + 1: 91} {
		j := errand.New(execute.Order{Step: plan.Step{Name: "mail", Timeout: timeout}}, "", &plan.Command{Image: "i"})
		if got, _, err := unstructured.NestedInt64(j.Object, "spec", "activeDeadlineSeconds"); err != nil || got != want {
			t.Errorf("a step of %s: its Job has %d s, %v, want %d", timeout, got, err, want)
		}
		if got, _, err := unstructured.NestedInt64(j.Object, "spec", "template", "spec", "terminationGracePeriodSeconds"); err != nil || time.Duration(got)*time.Second >= failover.Grace {
			t.Errorf("its pod has %d s to end, %v: the run waits %s for it", got, err, failover.Grace)
		}
	}
	for end, want := range map[string]failover.Outcome{"": failover.Busy, "Failed": failover.NotDone, "Complete": failover.Done} {
		live := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "j"}}}
		if end != "" {
			live.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": end, "status": "True"}}}
		}
		got := New(Options{}).lookAtJobs(t.Context(), listed{job: live}, restore.Served{}, "id", plan.Step{})
		if got.Outcome != want || strings.Contains(got.Note, "davit-system/j failed") != (end == "Failed") {
			t.Errorf("a Job that is %q: %+v", end, got)
		}
	}
}

// listed is a cluster with one Job.
type listed struct {
	restore.Cluster
	job *unstructured.Unstructured
}

func (l listed) List(_ context.Context, _ restore.Served, _, _ string, fn func(*unstructured.Unstructured) error) error {
	return fn(l.job)
}

func (l listed) Serves(context.Context, schema.GroupKind) ([]restore.Served, error) {
	return nil, restore.ErrNotServed // it has no pods
}

// node is a node as its cluster has it, and stuckPod a step's pod on it.
const (
	node     = `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"},"status":{"conditions":[{"type":"Ready","status":"%s","lastTransitionTime":"2026-01-02T03:04:05Z"}]}}`
	stuckPod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"davit-system","labels":{"davit.dev/run-step":"%s"}%s},"spec":{"nodeName":"n1"},"status":{"phase":"%s"}}`
)

// TestAPodOnADeadNodeIsNamed: a Job counts as running for as long as its pod may write;
// where that may be for ever it is said which pod, where, and what helps. The controls: a
// node that answers, and a pod that has ended.
func TestAPodOnADeadNodeIsNamed(t *testing.T) {
	o := execute.Order{Run: "r", Step: plan.Step{Name: "mail", Timeout: time.Minute, Command: &plan.Command{Image: "i"}}}
	now := time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC)
	ends := func(at time.Time) string { return `,"deletionTimestamp":"` + at.Format(time.RFC3339) + `"` }
	for name, tc := range map[string]struct{ ready, phase, ends, want string }{
		"dead":           {"Unknown", "Running", "", "its pod davit-system/p is on node n1, which has not been heard of since 2026-01-02T03:04:05Z"},
		"overdue":        {"True", "Running", ends(now.Add(-2 * overdue)), "pod davit-system/p on node n1 was to end at 2026-01-02T03:58:00Z and has not"},
		"ends":           {"True", "Running", ends(now.Add(-overdue / 2)), ""},
		"answers":        {"True", "Running", "", ""},
		"ended":          {"Unknown", "Succeeded", "", ""},
		"is not running": {"False", "Running", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(
				t, fmt.Sprintf(node, tc.ready), fmt.Sprintf(stuckPod, errand.ID(o), tc.ends, tc.phase),
				`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"j","namespace":"davit-system","labels":{"davit.dev/run-step":"`+errand.ID(o)+`"}},"status":{"terminating":1,"conditions":[{"type":"Failed","status":"True"}]}}`,
			)
			s := New(Options{Recovery: recovery.Deps{Cluster: m, Now: func() time.Time { return now }}})
			look := o
			look.Action = failover.Look
			got := commands(t.Context(), s, look)
			if got.Outcome != failover.Busy || got.Stuck != (tc.want != "") || !strings.Contains(got.Note, tc.want) || got.Stuck != strings.Contains(got.Note, "kubectl delete node n1") {
				t.Errorf("a look: %+v, want %q", got, tc.want)
			}
		})
	}
}

// unsure is a cluster that does not say how a node is.
type unsure struct {
	*memory
	err error
}

func (u unsure) Get(ctx context.Context, at restore.Served, namespace, name string) (*unstructured.Unstructured, error) {
	if at.GVK.Kind == "Node" {
		return nil, u.err
	}
	return u.memory.Get(ctx, at, namespace, name)
}

// TestASilentClusterTakesNothingBack: that nobody says now whether a node answers is not
// that it does. Who may not know is another matter: he never learns it.
func TestASilentClusterTakesNothingBack(t *testing.T) {
	o := execute.Order{Action: failover.Look, Run: "r", Step: plan.Step{Name: "mail", Timeout: time.Minute, Command: &plan.Command{Image: "i"}}}
	nodes := schema.GroupResource{Resource: "nodes"}
	for _, tc := range []struct {
		err  error
		want failover.Outcome
	}{
		{apierrors.NewInternalError(errors.New("etcd")), failover.NoAnswer},
		{apierrors.NewForbidden(nodes, "n1", errors.New("no rights")), failover.Busy},
		{apierrors.NewNotFound(nodes, "n1"), failover.Busy},
	} {
		m := newMemory(t, fmt.Sprintf(stuckPod, errand.ID(o), "", "Running"), `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"j","namespace":"davit-system","labels":{"davit.dev/run-step":"`+errand.ID(o)+`"}}}`)
		if got := commands(t.Context(), New(Options{Recovery: recovery.Deps{Cluster: unsure{m, tc.err}}}), o); got.Outcome != tc.want || got.Stuck {
			t.Errorf("%v: %+v, want %s", tc.err, got, tc.want)
		}
	}
}

// deleted is a cluster whose Jobs somebody deletes.
type deleted struct{ *memory }

func (d deleted) Get(ctx context.Context, at restore.Served, namespace, name string) (*unstructured.Unstructured, error) {
	if at.GVK.Kind == "Job" {
		return nil, missing(at, name)
	}
	return d.memory.Get(ctx, at, namespace, name)
}

// TestADeletedJobIsNotWaitedFor: what it did nobody knows, and a person is told at once.
func TestADeletedJobIsNotWaitedFor(t *testing.T) {
	o := execute.Order{Action: failover.Act, Run: "r", Step: plan.Step{Name: "mail", Timeout: time.Hour, Command: &plan.Command{Image: "i"}}}
	got := commands(t.Context(), New(Options{Recovery: recovery.Deps{Cluster: deleted{newMemory(t)}}}), o)
	if got.Outcome != failover.Refused || !strings.Contains(got.Note, "was deleted before it had ended") {
		t.Errorf("%+v", got)
	}
}

// TestAnActEndsWhereItsNodeIsDead: looks go on from there, which tell the run. The Job
// stays as it is.
func TestAnActEndsWhereItsNodeIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := execute.Order{Action: failover.Act, Run: "r", Step: plan.Step{Name: "mail", Timeout: time.Hour, Command: &plan.Command{Image: "i"}}}
		m := newMemory(t, fmt.Sprintf(node, "Unknown"), fmt.Sprintf(stuckPod, errand.ID(o), "", "Running"))
		got := commands(t.Context(), New(Options{Recovery: recovery.Deps{Cluster: m}}), o)
		if got.Outcome != failover.NoAnswer || !strings.Contains(got.Note, "node n1") {
			t.Errorf("%+v", got)
		}
		if len(m.objects) != 3 {
			t.Errorf("%d objects are left, want the node, the pod and the Job", len(m.objects))
		}
	})
}

// TestWhatTakesBackDoesNotRunBeside: a Job that is still under way when its step is taken
// back ends first, or all that it makes would be left. The control: one that has ended is
// not waited for. What was taken back once is not taken back again.
func TestWhatTakesBackDoesNotRunBeside(t *testing.T) {
	ends := func(u *unstructured.Unstructured, how string) {
		u.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": how, "status": "True"}}}
	}
	for name, over := range map[string]bool{"under way": false, "has ended": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(t)
				s := New(Options{Recovery: recovery.Deps{Cluster: m}})
				step := plan.Step{Name: "network", Timeout: time.Hour, Command: &plan.Command{Image: "make"}, Undo: &plan.Command{Image: "unmake"}}
				o := func(a failover.Action, n int64) execute.Order {
					return execute.Order{Action: a, Run: "r", Step: step, Token: failover.Token{Sequence: n}}
				}
				act := errand.New(o(failover.Act, 1), "main", step.Command)
				act.SetAnnotations(map[string]string{errand.AnnotationState: errand.Begun})
				if over {
					ends(act, "Complete")
				}
				at, err := serving(t.Context(), m, shape.KindJob)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := m.Create(t.Context(), at, act); err != nil {
					t.Fatal(err)
				}
				made := 0
				m.changed = func(u *unstructured.Unstructured) {
					if u.GetAnnotations()[errand.AnnotationState] == errand.Begun {
						made++
						ends(u, "Complete")
					}
				}
				soon, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				got := commands(soon, s, o(failover.Undo, 2))
				switch {
				case over && (got.Outcome != failover.Done || made != 1):
					t.Fatalf("%+v, %d Jobs", got, made)
				case !over && (got.Outcome != failover.NoAnswer || made != 0 || !strings.Contains(got.Note, "no other Job")):
					t.Fatalf("%+v, %d Jobs", got, made)
				case !over:
					return
				}
				if got := commands(t.Context(), s, o(failover.Undo, 3)); got.Outcome != failover.Done || made != 1 {
					t.Errorf("again: %+v, %d Jobs", got, made)
				}
			})
		})
	}
}

// TestADeafListenerHoldsNothingUp: what listens to a Job may not end when it is asked to.
func TestADeafListenerHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, deaf := range map[string]bool{"deaf": true, "hears": false} {
			over := make(chan struct{})
			s := New(Options{JobTail: func(ctx context.Context, _, _ string) string {
				if deaf {
					<-over
					return ""
				}
				<-ctx.Done()
				return "heard"
			}})
			said, stop := s.follow(t.Context(), "j")
			if got := said(); (got == "heard") == deaf {
				t.Errorf("%s: %q", name, got)
			}
			stop()
			close(over)
		}
	})
}
