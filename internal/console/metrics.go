package console

import (
	"context"
	"fmt"
	"strings"
	"time"

	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/lead"
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
	st := d.status()
	active, waiting, behind := 0.0, 0.0, 0.0
	if st.Role == lead.Active {
		active = 1
	}
	d.mu.Lock()
	term, trail := d.term, d.trail
	d.mu.Unlock()
	if term != nil {
		waiting = term.behind(ctx)
	}
	if trail != nil {
		behind = trail.behind().Seconds()
	}
	return gauges([]gauge{
		{"active", "1 while this console is the active one.", active},
		{"epoch", "The epoch of the active console, as this one saw it last.", float64(st.Epoch)},
		{"journal_waiting", "Changes of the active console that are not in the vault yet.", waiting},
		{"follow_seconds", "How long ago the passive console had all that the active one wrote.", behind},
	})
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
