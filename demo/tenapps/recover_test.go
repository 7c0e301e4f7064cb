package tenapps

import (
	"context"
	"flag"
	"fmt"
	"io"
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
	slices.SortFunc(t.rows, func(a, b row) int { return strings.Compare(a.app, b.app) })
	for _, r := range t.rows {
		fmt.Fprintf(w, "%-12s restore %5.1f s, checked after %5.1f s: %s\n", r.app, r.restore.Seconds(), r.usable.Seconds(), r.result)
	}
}

// TestTakeOver loses each application at east and takes it over at west.
func TestTakeOver(t *testing.T) {
	// A few at a time: two cores carry about three at once.
	if err := flag.Set("test.parallel", "3"); err != nil {
		t.Fatal(err)
	}
	for _, a := range chosen() {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			takeOver(t, a)
		})
	}
}

func takeOver(t *testing.T, a apps.App) {
	ctx, name := t.Context(), "app-"+a.Name
	here, there := place(east, a), place(west, a)
	t.Cleanup(func() { clean(a, name) })
	r := row{app: a.Name, result: "failed"}
	defer func() { results.add(r) }()
	if err := a.Deploy(ctx, here); err != nil {
		t.Fatal(err)
	}
	known, err := a.Load(ctx, here)
	if err != nil {
		t.Fatal(err)
	}
	// What the check says of a healthy application is what it says of a recovered one.
	davit(t, east, "protect", name)
	davit(t, east, "backup", name, "--wait")
	start := time.Now()
	davit(t, west, "restore", name, "--take-over", "--yes")
	r.restore = time.Since(start)
	if err := a.Await(ctx, there); err != nil {
		t.Fatal(err)
	}
	if err := a.Check(ctx, there, known); err != nil {
		t.Fatal(err)
	}
	r.usable, r.result = time.Since(start), "recovered"
}

// davit runs a command that must succeed without a warning.
func davit(t *testing.T, site string, args ...string) {
	t.Helper()
	if out, err := rig.Davit(t.Context(), site, args...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// clean makes room for the next.
func clean(a apps.App, name string) {
	ctx := context.Background()
	for _, site := range []string{west, east} {
		for _, kind := range []string{"application", "protectionpolicy"} {
			_, _ = rig.Kubectl(ctx, site, "-n", system, "delete", kind, name, "--ignore-not-found")
		}
		_ = a.Remove(ctx, place(site, a))
	}
}
