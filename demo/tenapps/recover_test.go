package tenapps

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/testbed/apps"
)

// row is what became of one application.
type row struct {
	app, result     string
	naive           bool          // restored by something simple, for comparison
	restore, usable time.Duration // by davit; until everything was read back
}

type table struct {
	mu   sync.Mutex
	rows []row
}

var results table

func (t *table) add(r row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
}

func (t *table) print(w io.Writer) {
	slices.SortStableFunc(t.rows, func(a, b row) int { return strings.Compare(a.app, b.app) })
	for _, r := range t.rows {
		by := "davit"
		if r.naive {
			by = "naive"
		}
		fmt.Fprintf(w, "%-12s %s: restore %5.1f s, checked after %5.1f s: %s\n", r.app, by, r.restore.Seconds(), r.usable.Seconds(), r.result)
	}
}

// loss is an application that was backed up at east, and what it knew then.
type loss struct {
	app   apps.App
	known any
	naive *bundle // nil unless a naive restore is tried too
}

// TestTakeOver backs the applications up at east while they run, kills east, and takes them over at west. The soak then does
// the same again with a restore that knows nothing, to see what there was to know.
func TestTakeOver(t *testing.T) {
	var (
		mu     sync.Mutex
		losses []loss
	)
	t.Cleanup(func() { cleanAll(t) })
	t.Run("protect", func(t *testing.T) {
		for _, a := range chosen() {
			t.Run(a.Name, func(t *testing.T) {
				t.Parallel()
				l := protect(t, a)
				mu.Lock()
				defer mu.Unlock()
				losses = append(losses, l)
			})
		}
	})
	if err := rig.Bed.Kill(t.Context(), east); err != nil {
		t.Fatal(err)
	}
	t.Run("recover", func(t *testing.T) {
		for _, l := range losses {
			t.Run(l.app.Name, func(t *testing.T) {
				t.Parallel()
				takeOver(t, l)
				if l.naive != nil && !t.Failed() {
					naively(t, l)
				}
			})
		}
	})
}

// protect runs an application, fills it, and backs it up while it is written to.
func protect(t *testing.T, a apps.App) loss {
	ctx, here := t.Context(), place(east, a)
	t.Cleanup(func() {
		if t.Failed() {
			evidence(t, here)
		}
	})
	if err := a.Deploy(ctx, here); err != nil {
		t.Fatal(err)
	}
	known, err := a.Load(ctx, here)
	if err != nil {
		t.Fatal(err)
	}
	davit(t, east, "protect", named(a))
	l := loss{app: a, known: known}
	stop := churn(ctx, a, here)
	davit(t, east, "backup", named(a), "--wait")
	if soak() {
		b, err := captureNaively(ctx, filepath.Join(copies(), a.Name), here)
		if err != nil {
			t.Error(err)
		}
		l.naive = &b
	}
	writes, err := stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d writes while it was backed up", writes)
	return l
}

// churn writes to an application until it is stopped, and says how often it did.
func churn(ctx context.Context, a apps.App, p apps.Place) (stop func() (int, error)) {
	type end struct {
		writes int
		err    error
	}
	quit, ended := make(chan struct{}), make(chan end, 1)
	go func() {
		for n := 0; ; n++ {
			if !a.Writes() {
				<-quit
			}
			select {
			case <-quit:
				ended <- end{writes: n}
				return
			default:
			}
			if err := a.Write(ctx, p, n); err != nil {
				ended <- end{writes: n, err: err}
				return
			}
		}
	}()
	return func() (int, error) {
		close(quit)
		e := <-ended
		return e.writes, e.err
	}
}

func takeOver(t *testing.T, l loss) {
	ctx, there := t.Context(), place(west, l.app)
	t.Cleanup(func() {
		if t.Failed() {
			evidence(t, there)
		}
	})
	r := row{app: l.app.Name, result: "failed"}
	defer func() { results.add(r) }()
	start := time.Now()
	davit(t, west, "restore", named(l.app), "--take-over", "--yes")
	r.restore = time.Since(start)
	if err := l.app.Await(ctx, there); err != nil {
		t.Fatal(err)
	}
	if err := l.app.Check(ctx, there, l.known); err != nil {
		t.Fatal(err)
	}
	r.usable, r.result = time.Since(start), "recovered"
}

// evidence tells what an application's pods say.
func evidence(t *testing.T, p apps.Place) {
	t.Helper()
	ctx := context.Background()
	for _, args := range [][]string{
		{"get", "pods,pvc", "-o", "wide"},
		{"get", "events", "--field-selector", "type=Warning"},
	} {
		out, err := p.Kubectl(ctx, "", append([]string{"-n", p.Namespace}, args...)...)
		t.Logf("%s %v\n%s", args, err, out)
	}
	pods, _ := p.Kubectl(ctx, "", "-n", p.Namespace, "get", "pods", "-o", "name")
	for _, pod := range strings.Fields(pods) {
		out, err := p.Kubectl(ctx, "", "-n", p.Namespace, "logs", pod, "--tail=15")
		t.Logf("logs of %s %v\n%s", pod, err, out)
	}
}

// named is what the application is called to Davit.
func named(a apps.App) string { return "app-" + a.Name }

// davit runs a command that must succeed without a warning.
func davit(t *testing.T, site string, args ...string) {
	t.Helper()
	if out, err := rig.Davit(t.Context(), site, args...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// vacate removes an application and Davit's knowledge of it from a site.
func vacate(ctx context.Context, site string, a apps.App) error {
	for _, kind := range []string{"application", "protectionpolicy"} {
		if _, err := rig.Kubectl(ctx, site, "-n", system, "delete", kind, named(a), "--ignore-not-found"); err != nil {
			return err
		}
	}
	return a.Remove(ctx, place(site, a))
}

// cleanAll brings east back and makes room for what comes next.
func cleanAll(t *testing.T) {
	ctx := context.Background()
	if err := os.RemoveAll(copies()); err != nil {
		t.Error(err)
	}
	if err := rig.Bed.Revive(ctx, east); err != nil {
		t.Error(err)
		return
	}
	var all sync.WaitGroup
	for _, a := range chosen() {
		for _, site := range []string{west, east} {
			all.Go(func() {
				if err := vacate(ctx, site, a); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
}
