package standby

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// promotedVault is a second copy that became the vault, and to which east was moved
// over, which goes on with shop.
func promotedVault(t *testing.T) *vault.Project {
	t.Helper()
	store := mem.New(nil)
	key, err := vault.NewRecoveryKey()
	check(t, err)
	lost, err := vault.Init(t.Context(), mem.New(nil))
	check(t, err)
	check(t, vault.InitCopy(t.Context(), store, lost))
	_, err = vault.CreateProject(t.Context(), store, "default", key.Recipient())
	check(t, err)
	p, err := vault.OpenProject(t.Context(), store, "default", key)
	check(t, err)
	promoter := promotion.New(store, p, lease.Identity{Site: "east", Cluster: "e"}, "test", time.Now)
	record, err := promoter.Promote(t.Context())
	check(t, err)
	_, err = promoter.Settle(t.Context(), record, []promotion.App{{Name: "shop", Seen: 3, Held: 3}})
	check(t, err)
	p, err = vault.OpenProject(t.Context(), store, "default", key) // no copy any more
	check(t, err)
	return p
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAPromotedVaultAsksForAWord: nobody's epochs stay among the former holders, said or
// not. Without a word a planned move is refused before it stops anything, and a failover
// begins, to ask for a consent; with one both begin, and know who gave it.
func TestAPromotedVaultAsksForAWord(t *testing.T) {
	p := promotedVault(t)
	site := New(Options{Recovery: recovery.Deps{Project: p, VaultName: "main", Site: "west", ClusterID: "w"}})
	site.check = func(context.Context, recovery.Options, recovery.Deps) (recovery.Report, error) {
		return recovery.Report{Findings: []restore.Finding{}}, nil
	}
	look := func(verb plan.Verb) *failover.Facts {
		t.Helper()
		facts, err := site.Evaluate(t.Context(), failover.Spec{Verb: verb, From: "east", To: "west", Applications: []string{"shop"}})
		check(t, err)
		if who := facts.Holders["shop"]; !slices.Equal(who, []string{"east", promotion.Nobody}) {
			t.Errorf("%s: the former holders are %v", verb, who)
		}
		return facts
	}
	for verb, want := range map[plan.Verb]string{plan.Switchover: "`vault promote main --lost-stopped`", plan.Failover: ""} {
		facts := look(verb)
		problems := strings.Join(facts.Problems, "; ")
		if len(facts.Words) > 0 || (want == "") != (problems == "") || !strings.Contains(problems, want) {
			t.Errorf("%s, not said: %v, %q", verb, facts.Words, problems)
		}
	}
	history, err := lease.New(p).History(t.Context(), "shop")
	check(t, err)
	nobodys, ok := lease.Unheld(history)
	if !ok || nobodys.Number >= int64(len(history)) {
		t.Fatalf("%+v of %d", nobodys, len(history))
	}
	check(t, lease.Say(t.Context(), p, "shop", nobodys, "ann", time.Now()))
	for _, verb := range []plan.Verb{plan.Switchover, plan.Failover} {
		if facts := look(verb); len(facts.Problems) > 0 || facts.Words["shop"][promotion.Nobody] != "ann" || len(facts.Words["shop"]) != 1 {
			t.Errorf("%s, said: %v, %v", verb, facts.Words, facts.Problems)
		}
	}
}
