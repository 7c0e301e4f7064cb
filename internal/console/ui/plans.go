package ui

import (
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/prediction"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/uplink"
)

func (s seen) ahead() *ahead.View {
	if s.Known.Snapshot == nil {
		return nil
	}
	return s.Known.Snapshot.Ahead
}

// plansData is what is known beforehand, as far as it is like what is looked for.
type plansData struct {
	seen
	Ahead *ahead.View
	Query string
	Plans []ahead.Plan
	Rows  []ahead.Row
}

func (v *visit) plans() plansData {
	d := plansData{seen: v.look(), Query: strings.TrimSpace(v.r.FormValue("q"))}
	if d.Ahead = d.ahead(); d.Ahead == nil {
		return d
	}
	for _, p := range d.Ahead.Plans {
		if finds(d.Query, p.Name, p.From, p.To) {
			d.Plans = append(d.Plans, p)
		}
	}
	for _, r := range d.Ahead.Rows {
		if finds(d.Query, r.Application, r.Site, r.Level) {
			d.Rows = append(d.Rows, r)
		}
	}
	return d
}

func plansPage(v *visit) error {
	d := v.plans()
	d.Plans = cut(v, "plans", mostRows, d.Plans)
	return v.show(http.StatusOK, "plans", "Plans", d)
}

// loss is what a failover would lose of an application.
type loss struct {
	Name      string
	Known     bool
	Point     fleet.Point
	Age       time.Duration
	Predicted prediction.RPO
	Late      bool // more than the plan's objective
}

type planData struct {
	seen
	Ahead      *ahead.View
	Plan       *ahead.Plan
	Objectives plan.Objectives
	Losses     []loss
	Worst      time.Duration
	Everything bool // of one application all would be lost
	Slow       bool
	Rows       []ahead.Row
	Running    []fleet.Run
	Verb       plan.Verb
	Verbs      []plan.Verb
	Graph      template.HTML
	GraphFault string
	Ways       []plan.Verb // that whoever looks may begin
	Requests   []begin.Shown
}

func planPage(v *visit) error {
	d := planData{seen: v.look(), Verb: plan.Failover, Verbs: []plan.Verb{plan.Failover, plan.Switchover, plan.Failback, plan.Drill}}
	d.Ahead = d.ahead()
	name := v.r.PathValue("name")
	found, ok := d.Ahead.Plan(name)
	if !ok {
		return store.ErrNotFound
	}
	d.Plan = found
	if verb := plan.Verb(v.r.FormValue("verb")); slices.Contains(d.Verbs, verb) {
		d.Verb = verb
	}
	if parsed, err := found.Parse(); err == nil {
		d.fill(parsed)
	}
	for _, r := range d.Known.Snapshot.Runs {
		if r.Plan == name && !r.Over {
			d.Running = append(d.Running, r)
		}
	}
	d.Ways = v.ways()
	asked, err := v.project.Requests(v.ctx(), name, 5)
	for _, r := range asked {
		one, unread := begin.Show(r, d.Now)
		err = errors.Join(err, unread)
		d.Requests = append(d.Requests, one)
	}
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "plan", name, d)
}

// fill adds what follows from the plan's document.
func (d *planData) fill(of *plan.Plan) {
	d.Objectives = of.Objectives
	d.Slow, _ = prediction.Against(d.Plan.RTO.Known, d.Plan.RTO.Worst, of.Objectives.RTO)
	d.Slow = !d.Slow
	for _, a := range of.Applications {
		one := loss{Name: a.Name, Predicted: d.Plan.RPO[a.Name]}
		if app, ok := d.Known.Snapshot.Application(a.Name); ok {
			one.Point, one.Known = app.Newest()
			one.Age = max(0, d.Now.Sub(one.Point.Instant))
		}
		one.Late = one.Known && of.Objectives.RPO > 0 && one.Age > of.Objectives.RPO
		d.Worst, d.Everything = max(d.Worst, one.Age), d.Everything || !one.Known
		d.Losses = append(d.Losses, one)
		for _, r := range d.Ahead.Rows {
			if r.Application == a.Name {
				d.Rows = append(d.Rows, r)
			}
		}
	}
	g, err := of.Graph(d.Verb)
	if err != nil {
		d.GraphFault = err.Error()
		return
	}
	d.Graph = graphDrawing(g)
}

// Amiss are the findings that are not well, and Well the others.
func (d planData) Amiss() []preflight.Finding { return d.findings(false) }

// Well are the findings of checks that are well.
func (d planData) Well() []preflight.Finding { return d.findings(true) }

func (d planData) findings(well bool) (some []preflight.Finding) {
	for _, f := range d.Plan.Findings {
		if (f.Verdict == preflight.OK) == well {
			some = append(some, f)
		}
	}
	return some
}

// Tone is the colour of what a failover would be.
func (d planData) Tone() string {
	switch {
	case d.Plan.Worst() == "fail" || d.Everything:
		return "bad"
	case d.Plan.Worst() != "ok" || d.Slow || slices.ContainsFunc(d.Losses, func(l loss) bool { return l.Late }):
		return "warn"
	}
	return "good"
}

func readinessPage(v *visit) error {
	d := v.plans()
	d.Rows = cut(v, "rows", mostCards, d.Rows)
	return v.show(http.StatusOK, "readiness", "Readiness", d)
}

// eventPages is how many events a page has.
const eventPages = 100

type eventItem struct {
	Number int64
	Site   string
	uplink.Event
}

func eventsPage(v *visit) error {
	d := struct {
		seen
		Items       []eventItem
		Site, Type  string
		Sites       []string
		Older       int64
		From, Until int64
	}{seen: v.look(), Site: v.r.FormValue("site"), Type: v.r.FormValue("type")}
	after := int64(-1)
	if before, err := strconv.ParseInt(v.r.FormValue("before"), 10, 64); err == nil && before > 0 {
		d.Until = before
		after = max(0, before-1-eventPages)
	}
	all, err := v.project.AgentEvents(v.ctx(), d.Site, after, eventPages)
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(all) {
		one := eventItem{Number: e.Number, Site: e.Site}
		if err := json.Unmarshal(e.Body, &one.Event); err != nil {
			return fmt.Errorf("read event %d: %w", e.Number, err)
		}
		if (d.Until == 0 || e.Number < d.Until) && (d.Type == "" || one.Type == d.Type) {
			d.Items = append(d.Items, one)
		}
	}
	switch {
	case d.Until > 0 && after > 0:
		d.Older = after + 1
	case d.Until == 0 && len(all) == eventPages:
		d.Older = all[0].Number
	}
	for _, a := range d.Known.Agents {
		d.Sites = append(d.Sites, a.Site)
	}
	return v.show(http.StatusOK, "events", "Events", d)
}

// colours turns what the plan's own drawing paints into classes, which have
// colours for day and night.
var colours = strings.NewReplacer(
	`<svg xmlns="http://www.w3.org/2000/svg"`, `<svg class="line graph" role="img"`, ` font-family="sans-serif" font-size="12"`, "",
	`<rect width="100%" height="100%" fill="#ffffff"/>`, "", ` fill="none" stroke="#8a93a0"`, ` class="edge"`, ` fill="#5a6472"`, "", ` font-size="15"`, "",
	`fill="#fdecea" stroke="#c0392b"`, `class="noway"`, `fill="#fff7e6" stroke="#b9770e"`, `class="source"`,
	`fill="#e8f5ee" stroke="#1e8449"`, `class="activates"`, `fill="#eef3fa" stroke="#2e5f8a"`, `class="step"`,
)

// graphDrawing draws the steps of a verb. The core has escaped all text.
func graphDrawing(g *plan.Graph) template.HTML {
	drawn := colours.Replace(g.SVG())
	head, rest, _ := strings.Cut(drawn, ">")
	title := fmt.Sprintf("<title>%d steps in %d waves</title>", len(g.Steps), len(g.Waves))
	return template.HTML(head + ">" + title + rest) //nolint:gosec // made of numbers and escaped text
}
