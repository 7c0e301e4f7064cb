package standby

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby/errand"
)

// counted counts the writes to a cluster, and may do something before each.
type counted struct {
	*memory

	mu                sync.Mutex
	writes, conflicts int
	before            func(ctx context.Context) error
}

func (c *counted) count(ctx context.Context, write func() (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	if c.before != nil {
		if err := c.before(ctx); err != nil {
			return nil, err
		}
	}
	got, err := write()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		c.conflicts++
	}
	return got, err
}

func (c *counted) Create(ctx context.Context, at restore.Served, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return c.count(ctx, func() (*unstructured.Unstructured, error) { return c.memory.Create(ctx, at, u) })
}

func (c *counted) Update(ctx context.Context, at restore.Served, u *unstructured.Unstructured, sub string) (*unstructured.Unstructured, error) {
	return c.count(ctx, func() (*unstructured.Unstructured, error) { return c.memory.Update(ctx, at, u, sub) })
}

func markOf(t *testing.T, n *notes, step string) execute.Mark {
	t.Helper()
	m, err := n.Load(t.Context(), "run-1", step)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNotesOfManySteps(t *testing.T) {
	c := &counted{memory: newMemory(t)}
	n := &notes{cluster: c}
	const steps, rounds = 60, 5
	var all sync.WaitGroup
	for i := range steps {
		all.Go(func() {
			step := fmt.Sprintf("data/app-%d", i)
			for round := range int64(rounds) {
				m, err := n.Load(t.Context(), "run-1", step)
				if err != nil || m.Seen != round {
					t.Errorf("%s: round %d: mark %+v, %v", step, round, m, err)
					return
				}
				m.Seen++
				if err := n.Save(t.Context(), "run-1", step, m); err != nil {
					t.Errorf("%s: round %d: %v", step, round, err)
				}
			}
		})
	}
	all.Wait()
	if c.conflicts != 0 || c.writes > steps*rounds {
		t.Errorf("%d writes for %d marks, %d of them in the way of another", c.writes, steps*rounds, c.conflicts)
	}
	for i := range steps {
		if m := markOf(t, n, fmt.Sprintf("data/app-%d", i)); m.Seen != rounds {
			t.Errorf("step %d: mark %+v", i, m)
		}
	}
	if len(n.pages) != 0 {
		t.Errorf("%d runs are remembered which nobody writes of", len(n.pages))
	}
}

// TestNotesOfTwoProcesses: of two that read one mark, one alone may change it,
// and neither loses the other's marks of other steps.
func TestNotesOfTwoProcesses(t *testing.T) {
	c := newMemory(t)
	one, two := &notes{cluster: c}, &notes{cluster: c}
	if err := one.Save(t.Context(), "run-1", "a", execute.Mark{Seen: 1}); err != nil {
		t.Fatal(err)
	}
	stale := markOf(t, one, "a")
	newer := markOf(t, two, "a")
	newer.Seen = 7
	if err := errors.Join(two.Save(t.Context(), "run-1", "a", newer), two.Save(t.Context(), "run-1", "b", execute.Mark{Seen: 2})); err != nil {
		t.Fatal(err)
	}
	stale.Seen = 3
	if err := one.Save(t.Context(), "run-1", "a", stale); !errors.Is(err, execute.ErrMarked) {
		t.Errorf("a mark that another changed was written: %v", err)
	}
	if err := one.Save(t.Context(), "run-1", "b", execute.Mark{Seen: 9}); !errors.Is(err, execute.ErrMarked) {
		t.Errorf("a mark that another made was written: %v", err)
	}
	if a, b := markOf(t, one, "a"), markOf(t, one, "b"); a.Seen != 7 || b.Seen != 2 {
		t.Errorf("marks are %+v and %+v", a, b)
	}
}

// TestNotesWrittenByAnother: what waits for one whose time ends in the middle is
// written by the next, and who gave up is not written after that.
func TestNotesWrittenByAnother(t *testing.T) {
	c := &counted{memory: newMemory(t)}
	begun, hang := make(chan struct{}), true
	c.before = func(ctx context.Context) error {
		if !hang { // of whoever has the turn, one after the other
			return nil
		}
		hang = false
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}
	n := &notes{cluster: c}
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	go func() { first <- n.Save(ctx, "run-1", "first", execute.Mark{Seen: 1}) }()
	<-begun
	go func() { second <- n.Save(t.Context(), "run-1", "second", execute.Mark{Seen: 2}) }()
	late, leave := context.WithCancel(t.Context())
	leave()
	if err := n.Save(late, "run-1", "third", execute.Mark{Seen: 3}); !errors.Is(err, context.Canceled) {
		t.Errorf("the one that gave up: %v", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one whose time was over: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the one that waited: %v", err)
	}
	if a, b, c := markOf(t, n, "first"), markOf(t, n, "second"), markOf(t, n, "third"); a.Seen != 0 || b.Seen != 2 || c.Seen != 0 {
		t.Errorf("marks are %+v, %+v and %+v", a, b, c)
	}
}

// TestWhatARunMakesSaysWhichVaultItIsOf: two vaults may have runs of one name, and whoever
// clears up for one must not take away what is of the other. A lease of an older davit gets
// the label when it is taken again.
func TestWhatARunMakesSaysWhichVaultItIsOf(t *testing.T) {
	c := newMemory(t, `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"run-old","namespace":"davit-system","labels":{"davit.dev/managed-by":"davit"}},"spec":{}}`)
	site := New(Options{Recovery: recovery.Deps{Cluster: c, VaultName: "main", Site: "west", Progress: port.Silent{}, Log: slog.New(slog.DiscardHandler)}})
	for _, run := range []string{"old", "new"} {
		_, release, err := site.Hold(t.Context(), run, "somebody")
		check(t, err)
		release()
	}
	check(t, site.marks.Save(t.Context(), "new", "step", execute.Mark{Seen: 1}))
	check(t, Marks(c, "other").Save(t.Context(), "new", "step", execute.Mark{Seen: 1}))
	c.mu.Lock()
	defer c.mu.Unlock()
	got := map[string]string{}
	for _, u := range c.objects {
		got[u.GetName()] = u.GetLabels()[shape.LabelVault]
	}
	want := map[string]string{"run-old": "main", "run-new": "main", "davit-run-new": "main", "davit-run-from-other-new": "other"}
	if !maps.Equal(got, want) {
		t.Errorf("objects are of %v, want %v", got, want)
	}
	j := errand.New(execute.Order{Step: plan.Step{Timeout: time.Second}}, "main", &plan.Command{Image: "i"})
	if j.GetLabels()[shape.LabelVault] != "main" {
		t.Errorf("a step's Job has the labels %v", j.GetLabels())
	}
}

// TestTheMarksOfManyApplicationsFit: one ConfigMap has them all, and the API server takes none above 1 MiB. The
// names are as long as they can be, and each step has been ordered many times.
func TestTheMarksOfManyApplicationsFit(t *testing.T) {
	const applications, most = 500, 1 << 20
	size := func(long int) (bytes int) {
		for i := range applications {
			app := fmt.Sprintf("%s.%s-%03d", strings.Repeat("n", long), strings.Repeat("a", long-4), i)
			for _, kind := range []plan.Kind{plan.KindClaim, plan.KindPin, plan.KindCatchUp, "data", plan.KindApply, plan.KindScale} {
				m := execute.Mark{Seen: 1_000_000, Began: 1_000_000, Last: "undo", Ended: true}
				if kind == "data" {
					m.Point = &failover.Point{ID: app + "-20261129-080000000-abcdef", Instant: time.Now().UTC()}
				}
				text, err := json.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				bytes += len(noteKey(string(kind)+"/"+app)) + len(text)
			}
		}
		return bytes
	}
	t.Logf("%d applications: %d KiB of marks with names of 26 letters, %d KiB with the longest", applications, size(13)>>10, size(63)>>10)
	if got := size(63); got > most*9/10 {
		t.Errorf("%d bytes of marks: they need more than one ConfigMap", got)
	}
}
