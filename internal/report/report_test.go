package report

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

var at = time.Date(2026, 3, 1, 3, 4, 5, 0, time.UTC)

func after(s float64) time.Time { return at.Add(time.Duration(s * float64(time.Second))) }

// story is a failover in which a person was asked, a step failed once, and a
// second process took over.
func story(t *testing.T) (*failover.State, []Record) {
	t.Helper()
	step := func(name string, k plan.Kind, side plan.Side, wait ...string) plan.Step {
		app := "shop"
		if strings.HasPrefix(name, "warm") {
			app = ""
		}
		return plan.Step{Name: name, Kind: k, Application: app, Side: side, Timeout: time.Minute, After: wait, OnError: plan.Stop}
	}
	probe := step("probe/shop", plan.KindProbe, plan.Target, "ready/shop")
	probe.Checks = []plan.Check{{Kind: plan.CheckHTTP, Target: "http://web.shop/", Expect: "<b>ok</b>", Timeout: time.Second}}
	spec := &failover.Spec{
		Run: "shop-failover-1", Plan: "shop", Verb: plan.Failover, From: "east", To: "west", By: "ann", Reason: "the cellar is under water", At: at, LostAt: at,
		Accept: failover.TimedOut, Applications: []string{"shop"}, Commit: plan.Commit{Window: time.Hour}, Objectives: plan.Objectives{RPO: time.Minute, RTO: 30 * time.Second},
		Steps: []plan.Step{
			step("claim/shop", plan.KindClaim, plan.Target), step("fence/shop", plan.KindFence, plan.Source, "claim/shop"), step("data/shop", plan.KindRestore, plan.Target, "claim/shop"),
			step("ready/shop", plan.KindReady, plan.Target, "data/shop"), probe,
		},
	}
	spec.Steps[1].OnError = plan.Continue
	point := &failover.Point{ID: "shop-20260301-030330", Instant: after(-35)}
	e := func(s float64, e failover.Entry) failover.Entry { e.At = after(s); return e }
	did := func(from, to float64, step string, status failover.Status, note string) []failover.Entry {
		return []failover.Entry{
			e(from, failover.Entry{Kind: failover.Intended, Step: step}),
			e(to, failover.Entry{Kind: failover.Ended, Step: step, Status: status, Note: note, Took: after(to).Sub(after(from))}),
		}
	}
	data := did(2, 11, "data/shop", failover.Succeeded, "")
	data[1].Point = point
	claim := did(0.8, 1.1, "claim/shop", failover.Succeeded, "")
	claim[1].Epoch = 2
	parts := [][]failover.Entry{
		{e(0, failover.Entry{Kind: failover.Opened, By: "ann", Spec: spec}), e(0, failover.Entry{Kind: failover.Took, By: "cli one"})},
		{e(0.5, failover.Entry{Kind: failover.Evaluated, Facts: &failover.Facts{Epochs: map[string]failover.Held{"shop": {Number: 1, Site: "east"}}, Holders: map[string][]string{"shop": {"east"}}}})},
		claim, did(1.2, 9, "fence/shop", failover.Broke, "no answer, and its time is up"), data,
		{e(12, failover.Entry{Kind: failover.PausedBy, Pause: failover.ForInput, Note: "nothing proves that site east has stopped shop"})},
		{e(21, failover.Entry{Kind: failover.Took, By: "cli two"}), e(22, failover.Entry{Kind: failover.Consented, By: "bob", Site: "east", Note: "power is off"})},
		did(23, 31, "ready/shop", failover.Succeeded, ""), did(31, 33, "probe/shop", failover.Succeeded, `http://web.shop/: 200 "<b>ok</b>"`),
		{e(33.5, failover.Entry{Kind: failover.Verified})},
	}
	state := failover.NewState()
	var records []Record
	for i, entries := range parts {
		n := int64(i + 1)
		if err := state.Replay(n, entries); err != nil {
			t.Fatal(err)
		}
		records = append(records, Record{Sequence: n, Epoch: 1, Executor: "cli", Hash: fmt.Sprintf("%064x", n), Entries: entries})
	}
	return state, records
}

func TestStory(t *testing.T) {
	r := New(story(t))
	if r.State != failover.AwaitingCommit || r.Over || r.Fence != "none (forced)" || r.Journal.Records != 10 || len(r.Carriers) != 2 {
		t.Fatalf("%+v", r)
	}
	a := r.Applications[0]
	if a.RPO != 35*time.Second || a.RTO != 33*time.Second || a.Epoch != 2 || !a.Instant.Equal(after(-35)) || a.Holders[0].How != "bob said that it has stopped" {
		t.Errorf("application %+v", a)
	}
	if len(r.Failures) != 1 || !strings.HasPrefix(r.Failures[0], "fence/shop: no answer") {
		t.Errorf("failures %v", r.Failures)
	}
	var said []string
	for _, w := range r.People {
		said = append(said, w.By+": "+w.Text)
	}
	want := "ann: asked for the run: the cellar is under water | : waits: nothing proves that site east has stopped shop | bob: said that site east has stopped: power is off"
	if got := strings.Join(said, " | "); got != want {
		t.Errorf("people: %s", got)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || back.Applications[0].RTO != a.RTO || len(back.Steps[2].Spans) != 1 {
		t.Errorf("%v %+v", err, back)
	}
}

func TestPage(t *testing.T) {
	r := New(story(t))
	r.Reason = `<script>alert(1)</script>`
	html, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	if file := os.Getenv("DAVIT_REPORT_PAGE"); file != "" { // to look at it
		if err := os.WriteFile(file, html, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page := string(html)
	for _, want := range []string{
		"waits to be committed", "objective 1 min 00 s: met", "objective 30.0 s: missed", "none (forced)", "35.0 s", `class="bar bad"`, "cli two took the run over",
		"&lt;b&gt;ok&lt;/b&gt;", "prefers-color-scheme: dark", "@media print", r.Journal.Head,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for _, bad := range []string{"<script", "http-equiv", "src=", "url(", "@import", "<link", "ZgotmplZ"} { // it loads nothing, and runs nothing
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

// TestChart: whatever takes place is inside the picture, also where clocks of
// two executors disagree.
func TestChart(t *testing.T) {
	r := New(story(t))
	r.Steps[0].Spans = append(r.Steps[0].Spans, Span{Begin: at.Add(-time.Hour), End: at.Add(-2 * time.Hour)}, Span{Begin: at.Add(time.Hour)})
	c := r.chart()
	for _, row := range c.Rows {
		for _, b := range row.Bars {
			if b.X < c.Left || b.W < leastBar || b.X+b.W > c.Width+1 {
				t.Errorf("%s: bar from %v, %v wide", row.Name, b.X, b.W)
			}
		}
	}
	if len(c.Ticks) < 2 || len(c.Ticks) > mostTicks+2 {
		t.Errorf("%d ticks", len(c.Ticks))
	}
}

// TestBegun: a run of which only the opening is known has a report.
func TestBegun(t *testing.T) {
	_, records := story(t)
	state := failover.NewState()
	if err := state.Replay(1, records[0].Entries); err != nil {
		t.Fatal(err)
	}
	r := New(state, records[:1])
	if page, err := r.HTML(); err != nil || !strings.Contains(string(page), "goes on: Evaluating") || !strings.Contains(string(page), "not begun") {
		t.Errorf("%v %s", err, page)
	}
}

// TestATryThatMayNeverEnd is one bar: what the journal says meanwhile of why ends it not.
func TestATryThatMayNeverEnd(t *testing.T) {
	spans := map[string][]Span{}
	for i, e := range []failover.Entry{
		{Kind: failover.Intended},
		{Kind: failover.Ended, Status: failover.Doing, Note: "node n1 is dead"},
		{Kind: failover.Ended, Status: failover.Unknown, Note: "node n1 is dead"},
		{Kind: failover.Ended, Status: failover.Unknown},
	} {
		e.At, e.Step = after(float64(i)), "net"
		span(spans, e)
	}
	if all := spans["net"]; len(all) != 1 || !all[0].Begin.Equal(after(0)) || !all[0].End.Equal(after(2)) || all[0].Status != failover.Unknown {
		t.Errorf("%+v", all)
	}
}
