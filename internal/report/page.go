package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"time": clock, "day": day, "span": length, "tone": tone, "verb": title, "short": short,
}).Parse(pageText))

// HTML is the report as one page, which needs nothing but itself.
func (r *Report) HTML() ([]byte, error) {
	var out bytes.Buffer
	view := struct {
		*Report
		Chart    chart
		Headline string
		Tone     string
		Cards    []card
		Probes   []Step
		Took     time.Duration
	}{r, r.chart(), r.headline(), tone(string(r.State)), r.cards(), r.probes(), r.Until.Sub(r.Asked)}
	if err := page.Execute(&out, view); err != nil {
		return nil, fmt.Errorf("make page of run %s: %w", r.Run, err)
	}
	return out.Bytes(), nil
}

// card is a figure that matters most.
type card struct{ Name, Value, Note, Tone string }

func (r *Report) cards() []card {
	cards := []card{{Name: "Took", Value: length(r.Until.Sub(r.Asked)), Note: "from when it was asked for"}}
	var rto, rpo time.Duration
	ready, known, lossless := true, true, true
	for _, a := range r.Applications {
		rto, rpo = max(rto, a.RTO), max(rpo, a.RPO)
		ready, known, lossless = ready && a.RTO > 0, known && a.RPOKnown, lossless && a.Lossless
	}
	c := card{Name: "Measured RTO", Value: "–", Note: "not all applications got ready", Tone: "bad"}
	if ready {
		c = against("Measured RTO", rto, r.Objectives.RTO)
	}
	cards = append(cards, c)
	c = card{Name: "Measured RPO", Value: "–", Note: "not all data was brought", Tone: "bad"}
	switch {
	case known && lossless:
		c = card{Name: "Measured RPO", Value: "0", Note: "nothing was lost", Tone: "good"}
	case known:
		c = against("Measured RPO", rpo, r.Objectives.RPO)
	}
	if r.Verb == plan.Drill && known {
		c.Note = "age of the oldest point" + note(c.Note)
	}
	cards = append(cards, c)
	if r.Fence != "" {
		cards = append(cards, card{Name: "Fence", Value: r.Fence, Note: "the weakest that was relied on", Tone: map[string]string{"proven": "good", "timed-out lease": "good"}[r.Fence]})
	}
	return cards
}

// against sets a measure beside its objective.
func against(name string, measured, objective time.Duration) card {
	c := card{Name: name, Value: length(measured), Note: "no objective is set"}
	switch {
	case objective == 0:
	case measured <= objective:
		c.Note, c.Tone = "objective "+length(objective)+": met", "good"
	default:
		c.Note, c.Tone = "objective "+length(objective)+": missed", "bad"
	}
	return c
}

// headline is the run in one sentence.
func (r *Report) headline() string {
	switch {
	case r.Verb == plan.Drill && r.State == failover.Completed:
		return "The drill passed, and its sandbox is gone"
	case r.Verb == plan.Drill && r.State == failover.Failed:
		return "The drill failed"
	case r.State == failover.Completed:
		return "The " + string(r.Verb) + " is complete"
	case r.State == failover.AwaitingCommit:
		return "The " + string(r.Verb) + " is done and waits to be committed"
	case r.State == failover.RolledBack:
		return "The " + string(r.Verb) + " was rolled back"
	case r.Over:
		return "The " + string(r.Verb) + " ended: " + string(r.State)
	}
	return "The " + string(r.Verb) + " goes on: " + string(r.State)
}

// probes are the steps that asked something.
func (r *Report) probes() []Step {
	var all []Step
	for _, s := range r.Steps {
		if len(s.Checks) > 0 {
			all = append(all, s)
		}
	}
	return all
}

func tone(status string) string {
	switch status {
	case string(failover.Completed), string(failover.Succeeded):
		return "good"
	case string(failover.Failed), string(failover.RollbackFailed), string(failover.SplitBrain), string(failover.OutcomeUnknown), string(failover.Unknown):
		return "bad"
	case "", string(failover.Doing):
		return ""
	}
	return "warn"
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("15:04:05")
}

func day(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func title(v plan.Verb) string {
	if v == "" {
		return ""
	}
	return strings.ToUpper(string(v[:1])) + string(v[1:])
}

func short(s string) string { return s[:min(len(s), 16)] }

// length is a duration for people.
func length(d time.Duration) string {
	switch {
	case d < 0:
		return "–"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}
