package ahead_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func filled(t *testing.T) *vault.Project {
	t.Helper()
	p, _, err := consoletest.New(t.Context(), mem.New(func() time.Time { return now }), "acme")
	if err == nil {
		err = consoletest.Fill(t.Context(), p, now)
	}
	if err == nil {
		err = consoletest.Prepare(t.Context(), p, now)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func read(t *testing.T, p *vault.Project) *ahead.View {
	t.Helper()
	v, err := ahead.Read(t.Context(), p, []string{"shop", "wiki"}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What a failover would cost is what the vault alone says.
func TestRead(t *testing.T) {
	v := read(t, filled(t))
	shop, ok := v.Plan("shop")
	if !ok || shop.Fault != "" || shop.From != "east" || shop.To != "west" || shop.Revision != 1 {
		t.Fatalf("%+v", shop)
	}
	if shop.Fence != "none (forced)" || len(shop.Unproven) != 1 || shop.Unproven[0] != "east" {
		t.Errorf("nobody keeps a lease: fence %s, unproven %v", shop.Fence, shop.Unproven)
	}
	// The newest was called off by a person, which is no failure of the plan.
	if len(shop.Drills) != 1 || !shop.Drills[0].Good || shop.Drills[0].To != "west" || shop.Drills[0].RTO <= 0 {
		t.Errorf("drills: %+v", shop.Drills)
	}
	if !shop.RTO.Known || shop.RTO.Runs != 1 || !shop.RPO["shop"].Known {
		t.Errorf("predicted %+v, %+v", shop.RTO, shop.RPO)
	}
	if len(shop.Findings) == 0 || shop.Count("fail")+shop.Count("warn")+shop.Count("unknown")+shop.Count("ok") != len(shop.Findings) || string(shop.Findings[0].Verdict) != shop.Worst() {
		t.Errorf("worst %s, first %+v", shop.Worst(), shop.Findings)
	}
	sites := map[string]bool{}
	for _, r := range v.Rows {
		sites[r.Application+" to "+r.Site] = true
		if len(r.Columns) != 5 || r.Level == "" {
			t.Errorf("%+v", r)
		}
	}
	if !sites["shop to west"] || !sites["wiki to east"] || len(v.Components) == 0 {
		t.Errorf("readiness of %v", sites)
	}
	if got := v.Of("shop"); len(got) != 1 || got[0] != "shop" || len(v.Of("wiki")) != 0 {
		t.Errorf("shop moves by %v", got)
	}
}

// It is kept over restarts.
func TestKept(t *testing.T) {
	text, err := json.Marshal(read(t, filled(t)))
	var again ahead.View
	if err == nil {
		err = json.Unmarshal(text, &again)
	}
	if err != nil {
		t.Fatal(err)
	}
	if shop, ok := again.Plan("shop"); !ok || len(shop.Findings) == 0 || again.Rows[0].Level == "" {
		t.Errorf("%s", text)
	}
}

// One plan that cannot be carried out says so, and hides no other.
func TestFaults(t *testing.T) {
	p := filled(t)
	for name, text := range map[string]string{
		"loop":  strings.ReplaceAll(`{"apiVersion":"davit.dev/v1alpha1","kind":"RecoveryPlan","metadata":{"name":"loop"},"spec":{"sites":[{"name":"east"},{"name":"west"}],"applications":[{"name":"a","after":["b"]},{"name":"b","after":["a"]}]}}`, "\n", ""),
		"alien": `{"kind":"Pod"}`,
	} {
		if _, err := shelf.New(p).Put(t.Context(), shelf.Sheet{Plan: name, Site: "east", At: now, Document: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	v := read(t, p)
	if len(v.Plans) != 3 {
		t.Fatalf("%+v", v.Plans)
	}
	for _, one := range v.Plans {
		if (one.Fault == "") != (one.Name == "shop") || one.Fault != "" && one.Worst() != "fail" {
			t.Errorf("%s: %q, %s", one.Name, one.Fault, one.Worst())
		}
	}
}

// TestAWordIsNoProof: what nobody holds any more of a lost vault is asked for until a
// person says for good that it has stopped, and the fence is none all the same. Of a site
// that came over, and noted that it held it, the word says nothing.
func TestAWordIsNoProof(t *testing.T) {
	p := filled(t)
	epochs := lease.New(p)
	current, err := epochs.Current(t.Context(), "shop")
	check(t, err)
	nobodys, err := epochs.Claim(t.Context(), "shop", current.Number+1, lease.Claim{Site: "nobody", Cluster: "lost", Request: "promotion-1", Promotion: &lease.Promotion{From: "lost"}})
	check(t, err)
	_, err = epochs.Claim(t.Context(), "shop", current.Number+2, lease.Claim{Site: "east", Cluster: "e", Request: "r"})
	check(t, err)
	check(t, lease.Note(t.Context(), p, lease.Moved{Application: "shop", Site: "moved", Cluster: "m", Lost: "lost", Request: "promotion-1", Held: 1, Seen: 1, At: now}))
	for _, want := range []string{"east moved nobody", "east moved"} {
		shop, _ := read(t, p).Plan("shop")
		if got := strings.Join(shop.Unproven, " "); got != want || shop.Fence != "none (forced)" {
			t.Errorf("unproven %q, want %q; fence %s", got, want, shop.Fence)
		}
		check(t, lease.Say(t.Context(), p, "shop", nobodys, "ann", now))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
