package carrier

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/standby"
)

// oneLease is a cluster that holds one lease. Whatever else is asked of it panics.
type oneLease struct {
	port.Cluster

	mu      sync.Mutex
	lease   *unstructured.Unstructured
	version int
}

func (c *oneLease) Serves(_ context.Context, kind schema.GroupKind) ([]port.Served, error) {
	return []port.Served{{GVK: kind.WithVersion("v1"), GVR: schema.GroupVersionResource{Group: kind.Group, Version: "v1", Resource: "leases"}, Namespaced: true}}, nil
}

func (c *oneLease) Get(_ context.Context, at port.Served, _, name string) (*unstructured.Unstructured, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lease == nil {
		return nil, apierrors.NewNotFound(at.GVR.GroupResource(), name)
	}
	return c.lease.DeepCopy(), nil
}

func (c *oneLease) Create(_ context.Context, _ port.Served, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return c.put(u)
}

func (c *oneLease) Update(_ context.Context, at port.Served, u *unstructured.Unstructured, _ string) (*unstructured.Unstructured, error) {
	c.mu.Lock()
	held := c.lease.GetResourceVersion()
	c.mu.Unlock()
	if held != u.GetResourceVersion() {
		return nil, apierrors.NewConflict(at.GVR.GroupResource(), u.GetName(), nil)
	}
	return c.put(u)
}

func (c *oneLease) put(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.lease = u.DeepCopy()
	c.lease.SetResourceVersion(strconv.Itoa(c.version))
	return c.lease.DeepCopy(), nil
}

// holding is a site whose leases are real ones.
type holding struct {
	*site
	hold func(ctx context.Context, run, process string) (context.Context, func(), error)
}

func (h holding) Hold(ctx context.Context, run, process string) (context.Context, func(), error) {
	return h.hold(ctx, run, process)
}

// TestARunGoesOnWithinItsLeaseAndTwoSeconds: whoever carries it is killed, at any time
// after it renewed its lease and after the agent looked; the agent has taken the run
// over when the lease of a dead process and two seconds are over. The time is virtual.
func TestARunGoesOnWithinItsLeaseAndTwoSeconds(t *testing.T) {
	// What reads a vault is pooled, and what was made in virtual time is of no use
	// outside of it: the test has a process of its own.
	const alone = "DAVIT_TEST_ALONE"
	if os.Getenv(alone) == "" {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		again.Env = append(os.Environ(), alone+"=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	synctest.Test(t, func(t *testing.T) {
		for lived := 20 * time.Second; lived < 24*time.Second; lived += 170 * time.Millisecond {
			killed(t, lived)
		}
	})
}

func killed(t *testing.T, lived time.Duration) {
	r := newRig(t, shop(0))
	cluster := standby.New(standby.Options{Recovery: recovery.Deps{Project: r.project, Cluster: &oneLease{}, Site: "west"}})
	r.c.Target = func(context.Context, string, string) (Target, error) { return holding{r.site, cluster.Hold}, nil }
	spec := failover.Spec{
		Run: "r1", Plan: "shop", Verb: plan.Restore, To: "west", By: "ann", At: time.Now().UTC(), Accept: failover.TimedOut, Applications: []string{"db"},
		Steps: []plan.Step{{Name: "claim/db", Kind: plan.KindClaim, Application: "db", Side: plan.Target, Timeout: time.Minute}},
	}
	if err := register.New(r.project).Begin(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	entries := []failover.Entry{{Kind: failover.Opened, At: spec.At, Spec: &spec}, {Kind: failover.Took, At: spec.At, By: "cli"}}
	if err := journal.Create(r.project, "r1", "cli").Append(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	alive, kill := context.WithCancel(t.Context())
	if _, _, err := cluster.Hold(alive, "r1", "cli"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go r.work(ctx)
	time.Sleep(lived)                       // virtual time
	if by := carrierOf(t, r); by != "cli" { // the control: while it lives nobody takes the run from it
		t.Fatalf("after %s it was taken over from a living process by %s", lived, by)
	}
	kill()                                    // and nothing gives the lease back
	time.Sleep(hold.Duration + 2*time.Second) // virtual time
	synctest.Wait()
	if by := carrierOf(t, r); by != "agent a" {
		t.Errorf("killed after %s: %s later the run is still %s's", lived, hold.Duration+2*time.Second, by)
	}
}

// carrierOf is who carries the run, as its journal says.
func carrierOf(t *testing.T, r *rig) string {
	t.Helper()
	s, err := journal.Read(t.Context(), r.project, "r1")
	if err != nil {
		t.Fatal(err)
	}
	return s.Executor
}
