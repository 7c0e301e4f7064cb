package ui

import (
	"bytes"
	"encoding/json"
	"html/template"
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/ui/figure"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/uplink"
)

// functions are what templates write values with.
var functions = template.FuncMap{
	"duration": figure.Duration, "ago": figure.Ago, "stamp": figure.Stamp, "bytes": figure.Bytes, "lost": lost, "tone": tone, "mark": mark, "runTone": runTone,
	"stepTone": stepTone, "levelTone": levelTone, "rows": levels, "document": indented,
	"placed": placed, "trip": figure.Trip, "millis": func(n int64) string { return figure.Duration(time.Duration(n) * time.Millisecond) },
}

// placed is the tone of how a document stands at a site.
func placed(state string) string {
	switch state {
	case uplink.Applied:
		return "good"
	case uplink.Conflict, uplink.Refused:
		return "bad"
	}
	return "warn"
}

// lost is how much work would be lost now.
func lost(a fleet.Application, now time.Time) string {
	d, ok := a.Lost(now)
	if !ok {
		return "everything"
	}
	return figure.Duration(d)
}

// tone is the colour of a state, and mark its sign for those who see no colours.
func tone(s fleet.State) string {
	switch s {
	case fleet.Protected:
		return "good"
	case fleet.Lagging, fleet.Suspended:
		return "warn"
	}
	return "bad"
}

func mark(s fleet.State) string {
	return map[string]string{"good": "✓", "warn": "!", "bad": "✕"}[tone(s)]
}

func runTone(r fleet.Run) string {
	switch {
	case r.Fault != "" || r.State == failover.SplitBrain || r.State == failover.Failed || r.State == failover.RollbackFailed:
		return "bad"
	case r.State == failover.Completed:
		return "good"
	case r.Over:
		return "none"
	}
	return "warn"
}

func stepTone(s failover.StepResult) string {
	switch s.Status {
	case failover.Succeeded, failover.Skipped:
		return "good"
	case failover.Broke, failover.Unknown:
		return "bad"
	case failover.Doing:
		return "warn"
	}
	return "none"
}

// levelTone is the colour of a level of readiness.
func levelTone(level string) string {
	switch level {
	case "2", "3":
		return "good"
	case "0", "1":
		return "warn"
	}
	return "bad"
}

// levelled are rows of readiness, and when they are looked at.
type levelled struct {
	Rows []ahead.Row
	Now  time.Time
}

func levels(rows []ahead.Row, now time.Time) levelled { return levelled{rows, now} }

// indented writes a document for people.
func indented(raw json.RawMessage) string {
	var out bytes.Buffer
	if json.Indent(&out, raw, "", "  ") != nil {
		return string(raw)
	}
	return out.String()
}
