package console

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// TestRetireNamesWhoIsLate: an authority that agents still need is retired only if all of
// them that have not gone over are named.
func TestRetireNamesWhoIsLate(t *testing.T) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, noon := t.Context(), time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	h := Host{Now: func() time.Time { return noon }}
	act := audit.Act{By: "user/anna", At: noon}
	c, err := store.Create(ctx, filepath.Join(t.TempDir(), "console"))
	check(err)
	defer c.Close()
	agents, err := c.CreateProject(ctx, act, "shop")
	check(err)
	key, err := vault.NewRecoveryKey()
	check(err)
	s := mem.New(h.Now)
	_, err = vault.Init(ctx, s)
	check(err)
	p, err := vault.CreateProject(ctx, s, "shop", key.Recipient())
	check(err)
	_, err = authority.Ensure(ctx, p, key, noon)
	check(err)
	for _, site := range []string{"gone", "lost", "over"} {
		id, err := account.NewID()
		check(err)
		check(agents.AdmitAgent(ctx, act, site, id))
	}
	_, err = h.rotate(ctx, held{agents, c}, p, key, rotation{})
	check(err)

	refused := func(named string, behind ...string) {
		t.Helper()
		_, err := h.retire(ctx, held{agents, c}, p, key, rotation{behind: behind})
		if err == nil || !strings.HasSuffix(err.Error(), ": "+named) {
			t.Errorf("left behind %q: %v, want %s named", behind, err, named)
		}
		if a, err := authority.Read(ctx, p, key); err != nil || len(a.Trusted()) != 2 {
			t.Fatalf("it was refused, and the former is trusted no more: %v", err)
		}
	}
	refused("gone, lost, over")                                         // no console has taken the newest up yet
	for site, by := range map[string]string{"lost": "1", "over": "2"} { // gone has not called since
		check(agents.Keep(ctx, noon, map[string][]byte{"agent.authority/" + site: []byte(by)}))
	}
	refused("gone, lost")
	refused("lost", "gone")
	refused("gone, lost", "over")
	a, err := h.retire(ctx, held{agents, c}, p, key, rotation{behind: []string{"lost", "gone"}})
	check(err)
	if len(a.Trusted()) != 1 {
		t.Error("the former authority is trusted still")
	}
	if left, err := late(ctx, agents, a.Number); err != nil || !slices.Equal(left, []string{"gone", "lost"}) {
		t.Errorf("to be enrolled anew: %q, %v", left, err)
	}
}
