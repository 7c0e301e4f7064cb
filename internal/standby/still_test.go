package standby

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/standby/errand"
)

// still is a cluster as a process sees it that stands still before it makes a Job, or before
// it lets it begin.
type still struct {
	*memory
	before  string // "make" or "begin"
	reached chan struct{}
	goOn    chan struct{}
}

func (s still) stand(what string, at restore.Served) {
	if s.before == what && at.GVK.Kind == "Job" {
		close(s.reached)
		<-s.goOn
	}
}

func (s still) Create(ctx context.Context, at restore.Served, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	s.stand("make", at)
	return s.memory.Create(ctx, at, u)
}

func (s still) Patch(ctx context.Context, at restore.Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	s.stand("begin", at)
	return s.memory.Patch(ctx, at, namespace, name, patch)
}

// TestWhoStoodStillBeginsNothing: a process that stands still between its mark and its Job
// goes on when another has carried the run on, and done the step. The control: nobody has, and it does it.
func TestWhoStoodStillBeginsNothing(t *testing.T) {
	for _, before := range []string{"make", "begin"} {
		for who, successor := range map[string]bool{"taken over": true, "alone": false} {
			t.Run(before+" "+who, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m, ran := newMemory(t), map[string]bool{}
					m.changed = func(u *unstructured.Unstructured) {
						suspended, _, _ := unstructured.NestedBool(u.Object, "spec", "suspend")
						if u.GetKind() == "Job" && !suspended { // as the site's controller does
							ran[u.GetName()] = true
							u.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Complete", "status": "True"}}}
						}
					}
					process := func(c restore.Cluster) execute.Actuator {
						s := New(Options{Recovery: recovery.Deps{Cluster: c}})
						return &execute.Aged{Inner: execute.Func(s.command), Marks: s.marks}
					}
					order := func(a failover.Action, n int64) execute.Order {
						return execute.Order{Action: a, Run: "r", Step: plan.Step{Name: "mail", Timeout: time.Minute, Command: &plan.Command{Image: "i"}}, Token: failover.Token{Sequence: n}}
					}
					c := still{memory: m, before: before, reached: make(chan struct{}), goOn: make(chan struct{})}
					late := make(chan execute.Answer, 1)
					go func() { late <- process(c).Do(t.Context(), order(failover.Act, 5)) }()
					<-c.reached
					want := failover.Done
					if successor {
						want = failover.NoAnswer
						next := process(m)
						if got := next.Do(t.Context(), order(failover.Look, 5)); got.Outcome != failover.NotDone {
							t.Errorf("a look of the successor: %+v", got)
						}
						if got := next.Do(t.Context(), order(failover.Act, 8)); got.Outcome != failover.Done {
							t.Errorf("its act: %+v", got)
						}
					}
					close(c.goOn)
					if got := <-late; got.Outcome != want {
						t.Errorf("who stood still: %+v, want %s", got, want)
					}
					if len(ran) != 1 {
						t.Errorf("the Jobs %v ran", ran)
					}
					for _, u := range m.objects {
						if u.GetKind() == "Job" && u.GetAnnotations()[errand.AnnotationState] != errand.Begun {
							t.Errorf("a Job is left that never begins: %s", u.GetName())
						}
					}
				})
			})
		}
	}
}

// bound is a cluster as an account sees it that may make Jobs and may not change them.
type bound struct{ *memory }

func (b bound) Patch(ctx context.Context, at restore.Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	if at.GVK.Kind == "Job" {
		return nil, apierrors.NewForbidden(at.GVR.GroupResource(), name, errors.New("it may not patch"))
	}
	return b.memory.Patch(ctx, at, namespace, name, patch)
}

// TestWhoMayNotLetAJobBegin is told so, and leaves none that nobody could take back.
func TestWhoMayNotLetAJobBegin(t *testing.T) {
	m := newMemory(t)
	s := New(Options{Recovery: recovery.Deps{Cluster: bound{m}}})
	a := &execute.Aged{Inner: execute.Func(s.command), Marks: s.marks}
	for n, action := range []failover.Action{failover.Act, failover.Look} {
		got := a.Do(t.Context(), execute.Order{Action: action, Run: "r", Step: plan.Step{Name: "mail", Timeout: time.Minute, Command: &plan.Command{Image: "i"}}, Token: failover.Token{Sequence: 5}})
		if want := []failover.Outcome{failover.Refused, failover.NotDone}[n]; got.Outcome != want || want == failover.Refused && !strings.Contains(got.Note, "allowed to patch Jobs") {
			t.Errorf("%s: %+v, want %s", action, got, want)
		}
	}
	for _, u := range m.objects {
		if u.GetKind() == "Job" {
			t.Errorf("Job %s is left", u.GetName())
		}
	}
}
