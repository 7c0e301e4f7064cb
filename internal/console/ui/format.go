package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/uplink"
)

// functions are what templates write values with.
var functions = template.FuncMap{
	"duration": duration, "ago": ago, "stamp": stamp, "bytes": size, "lost": lost, "tone": tone, "mark": mark, "runTone": runTone,
	"stepTone": stepTone, "levelTone": levelTone, "rows": levels, "document": indented,
	"placed": placed, "trip": trip, "millis": func(n int64) string { return duration(time.Duration(n) * time.Millisecond) },
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

// duration writes a length of time in its two largest units.
func duration(d time.Duration) string {
	if d < 0 {
		return "-" + duration(-d)
	}
	units := []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	for i, u := range units {
		if d < u.of {
			continue
		}
		text := fmt.Sprintf("%d %s", d/u.of, u.name)
		if i+1 < len(units) {
			if rest := d % u.of / units[i+1].of; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, units[i+1].name)
			}
		}
		return text
	}
	return "0 s"
}

// ago is how long before now something was.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return duration(max(0, now.Sub(t)))
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

func size(n int64) string {
	value, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}

// lost is how much work would be lost now.
func lost(a fleet.Application, now time.Time) string {
	d, ok := a.Lost(now)
	if !ok {
		return "everything"
	}
	return duration(d)
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

// trip is a round trip in microseconds, for people.
func trip(micros int64) string {
	if micros < 10_000 {
		return fmt.Sprintf("%.1f ms", float64(micros)/1000)
	}
	return fmt.Sprintf("%d ms", micros/1000)
}
