package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/restore/shape"
)

// stuckVolumes wait for a claim that is never bound, as the mover does: what
// the cluster says of it is in the error.
type stuckVolumes struct{ *fakeVolumes }

func (stuckVolumes) Fill(ctx context.Context, _ FillRequest) ([]string, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("claim is not bound (storage class fast): ProvisioningFailed: no such pool: %w", ctx.Err())
}

var errTime = errors.New("time is over")

func TestTimeThatIsOverNamesTheClaim(t *testing.T) {
	for _, c := range []struct {
		name    string
		stop    func(context.Context) (context.Context, context.CancelFunc)
		cause   error
		records bool
	}{
		{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Minute, errTime)
		}, errTime, true},
		{"stopped by a person", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Minute, cancel)
			return ctx, cancel
		}, context.Canceled, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig()
				ctx, cancel := c.stop(t.Context())
				defer cancel()
				e := New(r.m, Options{ID: testID, Holder: "test"}, Deps{Source: r.s, Cluster: r.c, Volumes: stuckVolumes{r.v}})
				res, err := e.Run(ctx)
				if !errors.Is(err, c.cause) {
					t.Fatalf("ended with %v, want %v", err, c.cause)
				}
				if says := strings.Contains(err.Error(), "no such pool"); says != c.records {
					t.Errorf("the error names the reason: %t: %v", says, err)
				}
				if (len(res.Failures) > 0) != c.records {
					t.Fatalf("failures: %v", res.Failures)
				}
				if c.records && !strings.Contains(res.Failures[0].String(), "shop/data-db-0: claim is not bound (storage class fast): ProvisioningFailed: no such pool") {
					t.Errorf("failures: %v", res.Failures)
				}
			})
		})
	}
}

func TestTimeThatIsOverNamesTheWorkload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.c.ready = false
		r.c.serve("v1", "events", "Event", true)
		r.c.put("v1", "Event", "shop", "e1", shape.Document{
			"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: q, requested: pods=1",
			"involvedObject": shape.Document{"kind": "StatefulSet", "name": "db"},
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		res, err := r.engine(Options{}).Run(ctx)
		const want = "FailedCreate: exceeded quota: q"
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "StatefulSet.apps shop/db") {
			t.Errorf("error: %v", err)
		}
		var said bool
		for _, w := range res.Warnings {
			said = said || strings.HasPrefix(w.Object, "StatefulSet") && strings.Contains(w.Message, want)
		}
		if !said {
			t.Errorf("no warning says %q: %v", want, res.Warnings)
		}
	})
}

// The pod's claim has the reason that the pod itself only hints at.
func TestLaggardNamesItsClaim(t *testing.T) {
	r := newRig()
	r.c.ready = false
	r.c.serve("v1", "events", "Event", true)
	r.c.put("v1", "Pod", "shop", "web-2", shape.Document{
		"metadata": shape.Document{"name": "web-2", "namespace": "shop", "labels": shape.Document{"app": "web"}},
		"spec":     shape.Document{"volumes": []any{shape.Document{"persistentVolumeClaim": shape.Document{"claimName": "cache"}}}},
		"status": shape.Document{"phase": "Pending", "conditions": []any{shape.Document{
			"type": "PodScheduled", "status": "False", "message": "pod has unbound immediate PersistentVolumeClaims",
		}}},
	})
	r.c.put("v1", "PersistentVolumeClaim", "shop", "cache", shape.Document{"spec": shape.Document{"storageClassName": "gone"}, "status": shape.Document{"phase": "Pending"}})
	r.c.put("v1", "Event", "shop", "e2", shape.Document{
		"type": "Warning", "reason": "ProvisioningFailed", "message": `storageclass "gone" not found`,
		"involvedObject": shape.Document{"kind": "PersistentVolumeClaim", "name": "cache"},
	})
	res := run(t, r, Options{ReadyTimeout: time.Second})
	const want = `claim cache is not bound (storage class gone): ProvisioningFailed: storageclass "gone" not found`
	var all []string
	for _, w := range res.Warnings {
		all = append(all, w.String())
	}
	if !strings.Contains(strings.Join(all, "\n"), want) {
		t.Errorf("no warning says %q:\n%s", want, strings.Join(all, "\n"))
	}
}
