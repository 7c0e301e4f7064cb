package halt

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"

	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
)

// cluster remembers objects, by kind, namespace and name. Whatever else is asked of it panics.
type cluster struct {
	restore.Cluster
	objects map[string]*unstructured.Unstructured
	// play is what controllers make of what there is, before it is read.
	play func(get func(key string) *unstructured.Unstructured)
}

func newCluster(t *testing.T, documents ...string) *cluster {
	t.Helper()
	c := &cluster{objects: map[string]*unstructured.Unstructured{}}
	for _, text := range documents {
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal([]byte(text), &u.Object); err != nil {
			t.Fatal(err)
		}
		u.SetNamespace("shop")
		u.SetUID(types.UID("uid-" + u.GetName()))
		c.objects[u.GetKind()+"/"+u.GetName()] = u
	}
	return c
}

func (c *cluster) Serves(_ context.Context, kind schema.GroupKind) ([]restore.Served, error) {
	return []restore.Served{{GVK: kind.WithVersion("v1")}}, nil
}

func (c *cluster) List(_ context.Context, at restore.Served, _, selector string, fn func(*unstructured.Unstructured) error) error {
	if c.play != nil {
		c.play(func(key string) *unstructured.Unstructured { return c.objects[key] })
	}
	chosen, err := labels.Parse(selector)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(c.objects)) {
		if u := c.objects[key]; u.GetKind() == at.GVK.Kind && chosen.Matches(labels.Set(u.GetLabels())) {
			if err := fn(u.DeepCopy()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cluster) Get(_ context.Context, at restore.Served, _, name string) (*unstructured.Unstructured, error) {
	if u := c.objects[at.GVK.Kind+"/"+name]; u != nil {
		return u.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: at.GVK.Kind}, name)
}

func (c *cluster) Patch(_ context.Context, at restore.Served, _, name string, patch []byte) (*unstructured.Unstructured, error) {
	change := shape.Document{}
	if err := json.Unmarshal(patch, &change); err != nil {
		return nil, err
	}
	u := c.objects[at.GVK.Kind+"/"+name]
	shape.Merge(u.Object, change)
	return u, nil
}

func (c *cluster) Delete(_ context.Context, at restore.Served, u *unstructured.Unstructured, _ bool) error {
	delete(c.objects, at.GVK.Kind+"/"+u.GetName())
	return nil
}

const (
	operator = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"operator","labels":{"davit.dev/restore":"r"}},"spec":{"replicas":1,"selector":{"matchLabels":{"app":"operator"}}}}`
	owned    = `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"db","labels":{"davit.dev/restore":"r"},"ownerReferences":[{"apiVersion":"db.example.com/v1","kind":"Database","name":"db","uid":"u","controller":true}]},"spec":{"replicas":2,"selector":{"matchLabels":{"app":"db"}}}}`
)

func replicas(u *unstructured.Unstructured) int64 {
	n, _ := shape.Number(u.Object, "spec", "replicas")
	return n
}

// follows plays the controller of a StatefulSet, and its operator as long as that runs; outside says
// that the operator is no part of what is stopped.
func follows(outside bool) func(get func(string) *unstructured.Unstructured) {
	return func(get func(string) *unstructured.Unstructured) {
		db := get("StatefulSet/db")
		if operator := get("Deployment/operator"); outside || operator != nil && replicas(operator) > 0 {
			shape.Child(db.Object, "spec")["replicas"] = int64(2)
		}
		_ = unstructured.SetNestedField(db.Object, replicas(db), "status", "replicas")
	}
}

// TestWhatAnOperatorOwnsIsStopped: a point has what an operator made as well, with its owner. A roll-back that
// leaves it to its operator, which it stops, waits for its pods for ever.
func TestWhatAnOperatorOwnsIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, operator, owned)
		c.play = follows(false)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if did, err := Stop(ctx, c, "r"); err != nil || did != "2 workloads" {
			t.Errorf("stopped %s, %v", did, err)
		}
		if n := replicas(c.objects["StatefulSet/db"]); n != 0 {
			t.Errorf("it has %d replicas", n)
		}
	})
}

// TestWhoStartsItAgainIsNotFoughtForEver: an operator that is no part of the application starts again what
// it owns. That is said, with what helps, before the step's time is over.
func TestWhoStartsItAgainIsNotFoughtForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, owned)
		c.play = follows(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := Stop(ctx, c, "r"); err == nil || !strings.Contains(err.Error(), "StatefulSet shop/db is started again") || ctx.Err() != nil {
			t.Error(err)
		}
	})
}

// TestPodsThatAreAboutToEndHaveNotEnded: no workload counts a pod that was told to end, and it writes until
// it has. The controls are pods of others with the same labels, and one that is over.
func TestPodsThatAreAboutToEndHaveNotEnded(t *testing.T) {
	pod := func(name, owner, phase string) string {
		return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `","labels":{"app":"web","pod-template-hash":"5d9c"},"ownerReferences":[` + owner + `]},"status":{"phase":"` + phase + `"}}`
	}
	const (
		web   = `{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-5d9c","uid":"x","controller":true}`
		elses = `{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"shop-5d9c","uid":"y","controller":true}`
		set   = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"davit.dev/restore":"r"}},"spec":{"replicas":0,"selector":{"matchLabels":{"app":"web"}}}}`
	)
	for name, tt := range map[string]struct {
		pod   string
		waits bool
	}{
		"its own":          {pod("web-5d9c-x", web, "Running"), true},
		"its own, over":    {pod("web-5d9c-x", web, "Succeeded"), false},
		"another's":        {pod("shop-5d9c-x", elses, "Running"), false},
		"nobody's, and so": {pod("bare", "", "Running"), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := Stop(ctx, newCluster(t, set, tt.pod), "r"); (err != nil) != tt.waits {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// TestWhatIsWaitedForIsNamed: one thing of all that runs, and what helps where its node says nothing any more.
func TestWhatIsWaitedForIsNamed(t *testing.T) {
	const (
		web = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"davit.dev/restore":"r"}},"spec":{"replicas":0,"selector":{"matchLabels":{"app":"web"}}},"status":{"replicas":1}}`
		pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"once","labels":{"davit.dev/restore":"r"},"ownerReferences":[{"kind":"Job","name":"once","uid":"z"}]}}`
		end = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-x","deletionTimestamp":"2026-01-01T00:00:00Z","labels":{"app":"web"},"ownerReferences":[{"kind":"ReplicaSet","name":"web-","uid":"z","controller":true}]}}`
	)
	idle := strings.Replace(web, `"status":{"replicas":1}`, `"status":{}`, 1)
	for want, have := range map[string][]string{
		"the pods of Deployment shop/web to end": {web, pod},
		"if its node is lost":                    {idle, end},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := Stop(ctx, newCluster(t, have...), "r"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// TestWhatACronJobHasBegunIsStopped: such a Job bears no mark of the restore. The control is a Job of
// somebody else's that bears the name of one.
func TestWhatACronJobHasBegunIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t,
			`{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"night","labels":{"davit.dev/restore":"r"}},"spec":{},"status":{"active":[{"kind":"Job","name":"night-1","namespace":"shop"},{"kind":"Job","name":"gone","namespace":"shop"},{"kind":"Job","name":"other","namespace":"shop"}]}}`,
			`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"night-1","ownerReferences":[{"kind":"CronJob","name":"night","uid":"uid-night","controller":true}]},"spec":{},"status":{"active":1}}`,
			`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"other"},"spec":{},"status":{"active":1}}`)
		c.play = func(get func(string) *unstructured.Unstructured) {
			job := get("Job/night-1")
			if stopped, _ := shape.Child(job.Object, "spec")["suspend"].(bool); stopped {
				shape.Child(job.Object, "status")["active"] = int64(0)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := Stop(ctx, c, "r"); err != nil {
			t.Error(err)
		}
		if _, stopped := shape.Child(c.objects["Job/other"].Object, "spec")["suspend"]; stopped {
			t.Error("somebody else's Job was stopped")
		}
	})
}
