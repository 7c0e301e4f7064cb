package console

import (
	"fmt"
	"strings"
	"time"

	"davit.dev/davit/internal/console/backup"
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
	var text strings.Builder
	for _, m := range []struct {
		name, help string
		value      float64
	}{
		{"databases", "Databases of the console whose backup was tried since it started.", float64(len(states))},
		{"backup_faults", "Databases whose newest backup failed, or that have none.", float64(faults)},
		{"backup_age_seconds", "Age of the oldest of the databases' newest backups.", age.Seconds()},
		{"backup_check_faults", "Databases whose backup could not be brought back, or was not tried since the console started.", float64(checkFaults)},
		{"backup_check_age_seconds", "How long ago a backup was last brought back into a scratch directory, of the database where that is the longest ago.", checkAge.Seconds()},
	} {
		fmt.Fprintf(&text, "# HELP davit_console_%s %s\n# TYPE davit_console_%s gauge\ndavit_console_%s %g\n", m.name, m.help, m.name, m.name, m.value)
	}
	return text.String()
}
