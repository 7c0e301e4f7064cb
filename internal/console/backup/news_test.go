package backup

import (
	"path/filepath"
	"testing"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
)

// A project that has no way into its vault is looked at less and less often, and
// one that is added at once.
func TestNewsRests(t *testing.T) {
	ctx := t.Context()
	c, err := store.Create(ctx, filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	add := func(name string) *store.Project {
		p, err := c.CreateProject(ctx, audit.Act{By: "test"}, name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	k := &Keeper{Console: c}
	if k.news(ctx) {
		t.Error("there is nothing")
	}
	add("unbound")
	looks := 0
	for range 600 {
		before := k.rest
		if k.news(ctx) {
			t.Fatal("it has no way")
		}
		if before == 0 {
			looks++
		}
	}
	if looks < 5 || looks > 30 {
		t.Errorf("it was looked at %d times in 600 glances", looks)
	}
	bound := add("bound")
	if err := bound.KeepSecret(ctx, audit.Act{By: "test"}, fleet.BindingSecret, fleet.Binding{URL: "file:///vault"}); err != nil {
		t.Fatal(err)
	}
	if !k.news(ctx) {
		t.Error("one that was added is not seen at once")
	}
}
