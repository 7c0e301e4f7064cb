package readiness_test

import (
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/readiness"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

const day = 24 * time.Hour

// best is the best that there can be today.
func best() readiness.Evidence {
	return readiness.Evidence{
		Application: "shop", Site: "west", Now: now,
		Every: 10 * time.Minute, RPO: 30 * time.Minute, Point: ago(5 * time.Minute), ReadBack: ago(day), Apart: true,
		Plan: "shop", Run: &readiness.Run{Name: "shop-failover-1", Verb: "failover", At: ago(5 * day), Probed: true, Moved: true},
		Drills: true, Automatic: true, Standby: ago(time.Minute), Booted: ago(day), Names: 1, Rehearsed: now,
		Changed: ago(6 * day), What: "the application changed",
	}
}

func column(r readiness.Row, name string) readiness.Column {
	for _, c := range r.Columns {
		if c.Name == name {
			return c
		}
	}
	return readiness.Column{}
}

func TestColumns(t *testing.T) {
	for _, c := range []struct {
		name, column string
		level        readiness.Level
		says         string // of evidence or of what is missing
		change       func(e *readiness.Evidence)
	}{
		{"best", "backups", readiness.Scripted, "not replicated", func(*readiness.Evidence) {}},
		{"no point", "backups", readiness.None, "no recovery point", func(e *readiness.Evidence) { e.Point = time.Time{} }},
		{"on demand", "backups", readiness.Documented, "give its policy a schedule", func(e *readiness.Evidence) { e.Every = 0 }},
		{"late", "backups", readiness.Documented, "late", func(e *readiness.Evidence) { e.Point = ago(time.Hour) }},
		{"late by cron", "backups", readiness.Documented, "late", func(e *readiness.Evidence) { e.Every, e.Cron, e.RPO, e.Point = 0, true, 0, ago(4*day) }},
		{"in the same house", "backups", readiness.Documented, "another failure domain", func(e *readiness.Evidence) { e.Together = true }},
		{"never read back", "backups", readiness.Manual, "not read back", func(e *readiness.Evidence) { e.ReadBack = time.Time{} }},
		{"read back long ago", "backups", readiness.Manual, "not read back", func(e *readiness.Evidence) { e.ReadBack = ago(31 * day) }},
		{"where is the vault", "backups", readiness.Manual, "say the failure domains", func(e *readiness.Evidence) { e.Apart = false }},

		{"best", "procedures", readiness.Automatic, "plan shop", func(*readiness.Evidence) {}},
		{"no plan", "procedures", readiness.None, "no plan", func(e *readiness.Evidence) { e.Plan = "" }},
		{"bad plan", "procedures", readiness.None, "a cycle", func(e *readiness.Evidence) { e.PlanFault = "a cycle" }},
		{"never tried", "procedures", readiness.None, "never carried out", func(e *readiness.Evidence) { e.Run = nil }},
		{"changed since", "procedures", readiness.Documented, "the application changed since failover", func(e *readiness.Evidence) { e.Changed = ago(day) }},
		{"long ago", "procedures", readiness.Documented, "more than 90 days", func(e *readiness.Evidence) { e.Run.At, e.Changed = ago(91*day), ago(99*day) }},
		{"people's steps", "procedures", readiness.Manual, "2 steps are done by people", func(e *readiness.Evidence) { e.Tasks = 2 }},
		{"no schedule", "procedures", readiness.Scripted, "drill on a schedule", func(e *readiness.Evidence) { e.Drills = false }},
		{"a person declares", "procedures", readiness.Scripted, "a person declares", func(e *readiness.Evidence) { e.Automatic = false }},

		{"best", "infrastructure", readiness.Automatic, "came up there", func(*readiness.Evidence) {}},
		{"no site", "infrastructure", readiness.None, "never said anything", func(e *readiness.Evidence) { e.Standby = time.Time{} }},
		{"silent", "infrastructure", readiness.Documented, "is silent", func(e *readiness.Evidence) { e.Standby = ago(2 * day) }},
		{"too small", "infrastructure", readiness.Documented, "2 CPU too few", func(e *readiness.Evidence) { e.Failures = []string{"2 CPU too few"} }},
		{"not known", "infrastructure", readiness.Manual, "registry silent", func(e *readiness.Evidence) { e.Unproven = []string{"registry silent"} }},
		{"not proven", "infrastructure", readiness.Scripted, "no drill and no run", func(e *readiness.Evidence) { e.Run = nil }},

		{"best", "apps", readiness.Automatic, "probes were answered", func(*readiness.Evidence) {}},
		{"not captured", "apps", readiness.None, "not captured", func(e *readiness.Evidence) { e.Run, e.Booted, e.Point = nil, time.Time{}, time.Time{} }},
		{"never up", "apps", readiness.Documented, "not brought up", func(e *readiness.Evidence) { e.Run, e.Booted = nil, time.Time{} }},
		{"copy failed", "apps", readiness.Documented, "did not work", func(e *readiness.Evidence) { e.Run, e.Unbooted = nil, true }},
		{"copy only", "apps", readiness.Scripted, "a copy came up", func(e *readiness.Evidence) { e.Run = nil }},
		{"copy without plan", "apps", readiness.Manual, "into a plan", func(e *readiness.Evidence) { e.Run, e.Plan = nil, "" }},
		{"run without probes", "apps", readiness.Scripted, "give it probes", func(e *readiness.Evidence) { e.Run.Probed = false }},

		{"best", "DNS", readiness.Automatic, "moved it", func(*readiness.Evidence) {}},
		{"no plan", "DNS", readiness.None, "no plan says", func(e *readiness.Evidence) { e.Plan = "" }},
		{"no names", "DNS", readiness.Documented, "moves no name", func(e *readiness.Evidence) { e.Names = 0 }},
		{"refused", "DNS", readiness.Documented, "BADKEY", func(e *readiness.Evidence) { e.NameFailed = "BADKEY" }},
		{"not asked", "DNS", readiness.Manual, "no server was asked", func(e *readiness.Evidence) { e.Run.Moved, e.Rehearsed = false, time.Time{} }},
		{"rehearsed", "DNS", readiness.Scripted, "move it once", func(e *readiness.Evidence) { e.Run.Moved = false }},
	} {
		e := best()
		c.change(&e)
		got := column(readiness.Judge(e), c.column)
		if got.Level != c.level || !strings.Contains(got.Evidence+" / "+got.Missing, c.says) {
			t.Errorf("%s of %s: %+v, want %s %q", c.column, c.name, got, c.level, c.says)
		}
		if got.Level < readiness.Automatic && got.Missing == "" {
			t.Errorf("%s of %s: nothing is missing for the next level", c.column, c.name)
		}
	}
}

// The level is that of the weakest column, and what is missing is that column's.
func TestLevelIsTheLeast(t *testing.T) {
	r := readiness.Judge(best())
	if r.Level != readiness.Scripted || len(r.Missing) != 1 || !strings.HasPrefix(r.Missing[0], "backups: ") || r.Verify != "" {
		t.Errorf("%+v", r)
	}
	e := best()
	e.Standby = ago(2 * day)
	if r := readiness.Judge(e); r.Level != readiness.Documented || !strings.HasPrefix(r.Missing[0], "infrastructure: ") {
		t.Errorf("%+v", r)
	}
	if r := readiness.Judge(readiness.Evidence{Application: "x", Site: "y", Now: now}); r.Level != readiness.None || r.Level.String() != "none" || len(r.Missing) != 5 {
		t.Errorf("%+v", r)
	}
}

// A change after the last run takes back what it had proven, everywhere.
func TestNeedsVerification(t *testing.T) {
	e := best()
	e.Changed = ago(time.Hour)
	r := readiness.Judge(e)
	if r.Verify == "" || column(r, "apps").Level == readiness.Automatic || column(r, "DNS").Level == readiness.Automatic || column(r, "infrastructure").Level == readiness.Automatic {
		t.Errorf("%+v", r)
	}
}

func TestComponents(t *testing.T) {
	bare := map[string]readiness.Component{}
	for _, c := range readiness.Components(readiness.Cluster{}) {
		bare[c.Name] = c
		if c.Covered || !c.Proven.IsZero() || !strings.HasPrefix(c.By, "nothing") {
			t.Errorf("nothing is known, and it is covered: %+v", c)
		}
	}
	for _, name := range []string{"etcd", "state file", "cluster config", "certificates", "volumes", "images", "nodes", "load balancers", "manifests", "DNS"} {
		if bare[name].By == "" {
			t.Errorf("%s has no row", name)
		}
	}
	full := readiness.Cluster{Points: 2, Volumes: 3, ReadBack: now, Images: 4, Asked: now, Standby: []string{"west"}, Seen: now, Names: 1, Moved: now}
	for _, c := range readiness.Components(full) {
		want := c.Name == "volumes" || c.Name == "images" || c.Name == "nodes" || c.Name == "manifests" || c.Name == "DNS"
		if c.Covered != want {
			t.Errorf("%+v", c)
		}
	}
	full.Missing = 1
	for _, c := range readiness.Components(full) {
		if c.Name == "images" && (c.Covered || !strings.Contains(c.By, "1 of 4")) {
			t.Errorf("%+v", c)
		}
	}
}
