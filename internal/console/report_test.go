package console

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/settlement"
	"davit.dev/davit/internal/settlement/settlementtest"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
)

// A run's report comes from the vault, signed and checked; none that is missing
// or forged is handed out.
func TestReport(t *testing.T) {
	w := newWorld(t)
	anna, bob := w.browse("anna"), w.browse("bob")
	const path = "/p/acme/runs/drill-shop-2/report/"
	if code, text := w.do(anna, w.get(path+"html")); code != http.StatusUnprocessableEntity || !strings.Contains(text, "davit runs report drill-shop-2") {
		t.Errorf("%d %s", code, text)
	}
	p := w.vault("acme")
	if _, err := evidence.Publish(t.Context(), p, "drill-shop-2"); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{"html": "<html", "json": `"formatVersion"`} {
		answer, err := anna.Do(w.get(path + kind))
		if err != nil {
			t.Fatal(err)
		}
		disposition := answer.Header.Get("Content-Disposition")
		if err := answer.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if code, text := w.do(anna, w.get(path+kind)); code != http.StatusOK || !strings.Contains(text, want) || !strings.HasPrefix(disposition, "attachment") {
			t.Errorf("%s: %d, %q, %.80s", kind, code, disposition, text)
		}
	}
	vera, other := w.login("vera"), w.login("bob")
	if d := asked[evidence.Document](w, vera, "GET", "/projects/acme/runs/drill-shop-2/report", "", 200); !strings.Contains(d.HTML, "<html") || d.Signature == "" {
		t.Errorf("%+v", d)
	}
	asked[any](w, vera, "GET", "/projects/acme/runs/nothing/report", "", 422)
	asked[any](w, other, "GET", "/projects/acme/runs/drill-shop-2/report", "", 404)
	if code, _ := w.do(bob, w.get(path+"json")); code != http.StatusNotFound {
		t.Errorf("another project's admin is answered %d", code)
	}
}

// Plans, what they would cost, and readiness are shown from the vault alone.
func TestPlans(t *testing.T) {
	w := newWorld(t)
	p, err := vault.OpenProject(t.Context(), w.vaults["mem:acme"], "acme", w.keys["acme"])
	if err == nil {
		err = consoletest.Prepare(t.Context(), p, w.now)
	}
	if err != nil {
		t.Fatal(err)
	}
	anna := w.browse("anna")
	w.shown(anna, "/p/acme/runs", "failover-shop-20260301-115900")
	page := w.shown(anna, "/p/acme/plans/shop", "checks are well")
	for _, want := range []string{"If you fail over now, from east to west", "davit failover shop --to west --dry-run", "--lost east", "none (forced)", "claim/shop", `class="activates"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the plan's page does not say %q", want)
		}
	}
	if strings.Contains(page, `fill="#`) || strings.Contains(page, `stroke="#`) {
		t.Error("the graph has colours of its own, which are for the day alone")
	}
	w.shown(anna, "/p/acme/plans/shop?verb=drill", "sandbox")
	w.shown(anna, "/p/acme/readiness", "needs verification")
	w.shown(anna, "/p/acme/runs/failover-shop-20260301-115900", "waits for")

	// What a run that is over left to people has a form for those who may say that they have seen to it.
	err = journal.Create(p, "left-1", "agent west").Append(t.Context(), settlementtest.Left("left-1", "agent west", w.now))
	if err == nil {
		_, _, err = settlement.Write(t.Context(), p, "left-1", "cli", settlement.Word{By: "ann", Reason: "sent <b>another</b>", Step: "mail"}, time.Now)
	}
	if err != nil {
		t.Fatal(err)
	}
	page = w.shown(anna, "/p/acme/runs/left-1", "Left to people")
	for _, want := range []string{"Say that it is seen to", `name="kind" value="settle"><input type="hidden" name="step" value="warm-up"`, "sent &lt;b&gt;another&lt;/b&gt;", "not yet"} {
		if !strings.Contains(page, want) {
			t.Errorf("the run's page does not say %q", want)
		}
	}
	if strings.Contains(page, `name="step" value="mail"`) || strings.Contains(w.shown(w.browse("vera"), "/p/acme/runs/left-1", "not yet"), `value="settle"`) {
		t.Error("a form for what is settled, or for a viewer")
	}

	// What steps said is plain text, for those who may act. Viewers see the run without it.
	const drill, said = "/p/acme/runs/drill-shop-20260227-090000", `<details id="said-ready/shop">`
	w.vaults["mem:acme"].Set(fault.Faults{Stall: 1}) // the rest of the page needs no vault
	w.shown(anna, drill, "What the steps said cannot be read now")
	w.vaults["mem:acme"].Set(fault.Faults{})
	w.shown(anna, drill, said)
	w.shown(anna, drill, "all pods\nare &lt;b&gt;ready&lt;/b&gt;")
	if page := w.shown(w.browse("vera"), drill, "ready/shop"); strings.Contains(page, "said-") || strings.Contains(page, "all pods") {
		t.Error("a viewer reads what steps said")
	}
}

// A page that is open hears of each round; who may not see the project hears nothing.
func TestLive(t *testing.T) {
	w := newWorld(t)
	anna := w.browse("anna")
	client := *anna
	client.Timeout = 0
	answer, err := client.Do(w.get("/p/acme/live"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("%d, %s", answer.StatusCode, got)
	}
	rounds, beats := 0, 0
	for s := bufio.NewScanner(answer.Body); rounds < 2 && s.Scan(); {
		switch s.Text() {
		case "event: round":
			rounds++
		case "event: beat":
			beats++
		}
	}
	if rounds != 2 || beats == 0 {
		t.Errorf("heard of %d rounds and %d beats", rounds, beats)
	}
	w.shown(anna, "/p/acme", `data-live="/p/acme/live" data-beat="15000"`)
}
