package store

import (
	"errors"
	"os"
	"testing"

	"davit.dev/davit/internal/console/audit"
)

// Who looked for a project before it was removed, and opens it after that, gets none: its
// file would be open and gone, for which the console would think that it has lost it.
func TestOpenedAfterRemoval(t *testing.T) {
	ctx, c := t.Context(), newConsole(t)
	newProject(t, c, "shop")
	l, err := c.served(ctx, "shop")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.opened(ctx, l); err != nil { // the control
		t.Fatal(err)
	}
	if err := c.Stand(ctx, by("anna"), l, audit.Record{Action: "project.delete"}, Removed, nil, Served); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"before its file is taken away", "after it"} {
		c.mu.Lock()
		p := c.open[l.ID]
		delete(c.open, l.ID) // as Sweep does first
		c.mu.Unlock()
		if p != nil {
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.opened(ctx, l); !errors.Is(err, ErrNotFound) {
			t.Errorf("opened %s: %v", when, err)
		}
		if err := c.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.Lost(ctx); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// Who lists what was removed, and sweeps it away after it was brought back, leaves it alone.
func TestSweptAfterItCameBack(t *testing.T) {
	ctx, c := t.Context(), newConsole(t)
	p := newProject(t, c, "shop")
	l := p.Listing
	if err := c.Stand(ctx, by("anna"), l, audit.Record{Action: "project.delete"}, Removed, nil, Served); err != nil {
		t.Fatal(err)
	}
	l.Standing = Removed
	if err := c.Stand(ctx, by("anna"), l, audit.Record{Action: "project.restore"}, Served, nil, Removed); err != nil {
		t.Fatal(err)
	}
	if err := c.sweep(ctx, l); err != nil {
		t.Fatal(err)
	}
	if now, err := c.Project(ctx, "shop"); err != nil || now != p {
		t.Errorf("%v, another one: %v", err, now != p)
	}
	if err := c.Lost(ctx); err != nil {
		t.Error(err)
	}
}

// A making that was overtaken leaves the database alone that another made.
func TestFillOfWhatIsServed(t *testing.T) {
	ctx, c := t.Context(), newConsole(t)
	l, err := c.PlanProject(ctx, by("anna"), "shop", "", "way")
	if err != nil {
		t.Fatal(err)
	}
	fill := func(p *Project) error { return p.KeepSecret(ctx, by("anna"), "binding", "x") }
	for range 2 { // also what broke off
		if err := c.FillProject(ctx, l, fill); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []Standing{Served, Removed} {
		if err := c.Stand(ctx, by("anna"), l, audit.Record{Action: "project.ready"}, s, nil, Making, Served); err != nil {
			t.Fatal(err)
		}
		if err := c.FillProject(ctx, l, fill); !errors.Is(err, ErrConflict) {
			t.Errorf("%q: %v", s, err)
		}
		if _, err := os.Stat(c.projectPath(l.ID)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}
