package console

import (
	"context"
	"fmt"
	"strings"
	"time"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/version"
)

// metrics are what anybody may read: they name no project.
func metrics(states []backup.State, now time.Time) string {
	var faults, checkFaults int
	var age, checkAge time.Duration
	for _, s := range states {
		if s.Fault != "" || s.At.IsZero() {
			faults++
		}
		if s.CheckFault != "" || s.Checked.IsZero() {
			checkFaults++
		}
		if !s.At.IsZero() {
			age = max(age, now.Sub(s.At))
		}
		if !s.Checked.IsZero() {
			checkAge = max(checkAge, now.Sub(s.Checked))
		}
	}
	return gauges([]gauge{
		{"databases", "Databases of the console whose backup was tried since it started.", float64(len(states))},
		{"backup_faults", "Databases whose newest backup failed, or that have none.", float64(faults)},
		{"backup_age_seconds", "Age of the oldest of the databases' newest backups.", age.Seconds()},
		{"backup_check_faults", "Databases whose backup could not be brought back, or was not tried since the console started.", float64(checkFaults)},
		{"backup_check_age_seconds", "How long ago a backup was last brought back into a scratch directory, of the database where that is the longest ago.", checkAge.Seconds()},
	})
}

// metrics of who is active.
func (d *duty) metrics(ctx context.Context) string {
	if d == nil {
		return ""
	}
	st, active := d.status(), 0.0
	if st.Role == lead.Active {
		active = 1
	}
	waiting, behind := d.behind(ctx)
	return gauges([]gauge{
		{"active", "1 while this console is the active one.", active},
		{"epoch", "The epoch of the active console, as this one saw it last.", float64(st.Epoch)},
		{"journal_waiting", "Changes of the active console that are not in the vault yet.", waiting},
		{"follow_seconds", "How long ago the passive console had all that the active one wrote.", behind.Seconds()},
	})
}

// behind is how many changes of the active console are not in the vault, and how long
// ago a passive one had all.
func (d *duty) behind(ctx context.Context) (waiting float64, behind time.Duration) {
	if d == nil {
		return 0, 0
	}
	d.mu.Lock()
	term, trail := d.term, d.trail
	d.mu.Unlock()
	if term != nil {
		waiting = term.behind(ctx)
	}
	if trail != nil {
		behind = trail.behind()
	}
	return waiting, behind
}

// standing is what this process is, for whoever keeps the console.
func (d *duty) standing(ctx context.Context) api.Status {
	st := d.status()
	s := api.Status{Role: string(st.Role), Epoch: st.Epoch, Active: st.URL, Version: version.String()}
	if err := d.allowed(); err != nil {
		s.Why = err.Error()
	}
	waiting, behind := d.behind(ctx)
	s.Waiting, s.Behind = int64(waiting), behind.Milliseconds()
	return s
}

type gauge struct {
	name, help string
	value      float64
}

func gauges(all []gauge) string {
	var text strings.Builder
	for _, m := range all {
		fmt.Fprintf(&text, "# HELP davit_console_%s %s\n# TYPE davit_console_%s gauge\ndavit_console_%s %g\n", m.name, m.help, m.name, m.name, m.value)
	}
	return text.String()
}
