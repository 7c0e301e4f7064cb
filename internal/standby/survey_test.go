package standby

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/report"
)

// checks is a preflight that counts what was asked. The first asked wait for each
// other until as many are there as are to be at once.
type checks struct {
	full chan struct{}

	mu    sync.Mutex
	asked map[string]int
	now   int
	most  int
	bad   string // the application that could not come
}

func (c *checks) arrive(app string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked[app]++
	c.now++
	if c.now > c.most {
		c.most = c.now
		if c.most == failover.Abreast {
			go c.open()
		}
	}
}

// open lets all go on, after whoever else may come has had the time to.
func (c *checks) open() {
	for range 10_000 {
		runtime.Gosched()
	}
	close(c.full)
}

func (c *checks) check(ctx context.Context, o recovery.Options, _ recovery.Deps) (recovery.Report, error) {
	c.arrive(o.Application)
	select {
	case <-c.full:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
	if o.Application == c.bad {
		return recovery.Report{Findings: []restore.Finding{{Severity: report.Error, Message: "no room"}}}, nil
	}
	return recovery.Report{}, nil
}

// take returns how many applications were asked about since, and forgets them.
func (c *checks) take() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.asked)
	c.asked = map[string]int{}
	return n
}

// TestACrowdIsLookedAtSomeAtATime, and again only for what may have changed.
func TestACrowdIsLookedAtSomeAtATime(t *testing.T) {
	p, c := project(t), &checks{full: make(chan struct{}), asked: map[string]int{}, bad: "shop-03"}
	spec := failover.Spec{Verb: plan.Failover, From: "east", To: "west"}
	for i := range 5 * failover.Abreast {
		app := fmt.Sprintf("shop-%02d", i)
		spec.Applications = append(spec.Applications, app)
		if _, err := lease.New(p).Claim(t.Context(), app, 1, lease.Claim{Site: "east", Cluster: "e", Request: "first", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	s := New(Options{Recovery: recovery.Deps{Project: p, Site: "west", ClusterID: "w", Holder: "ann", Now: func() time.Time { return now }}})
	s.check = c.check
	evaluate := func(want int) {
		t.Helper()
		facts, err := s.Evaluate(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if len(facts.Problems) != 1 || len(facts.Epochs) != len(spec.Applications) || len(facts.Holders["shop-39"]) != 1 {
			t.Errorf("problems %q, epochs of %d, holders %q", facts.Problems, len(facts.Epochs), facts.Holders["shop-39"])
		}
		if got := c.take(); got != want {
			t.Errorf("asked about %d applications, want %d", got, want)
		}
	}
	evaluate(len(spec.Applications))
	if c.most != failover.Abreast {
		t.Errorf("%d at once, want %d", c.most, failover.Abreast)
	}
	evaluate(1) // what could not come
	if _, err := lease.New(p).Claim(t.Context(), "shop-07", 2, lease.Claim{Site: "east", Cluster: "e", Request: "second", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	evaluate(2) // and what was claimed since
	spec.Points = map[string]failover.Point{"shop-11": {ID: "shop-11-p"}}
	evaluate(2) // and of which another point is to come
	now = now.Add(fresh)
	evaluate(len(spec.Applications))
}
