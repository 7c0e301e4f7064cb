package protect

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/schedule"
)

// Check says what cannot be in the objects as they are after Apply.
func (o *Flags) Check(app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy, now time.Time) error {
	if _, err := protection.SpecOf(app); err != nil {
		return exit.AsUsage(err)
	}
	s := policy.Spec.Schedule
	if o.Wait && s.Every == nil && s.Cron == "" {
		return exit.Usage("give --every or --cron, or capture it with `backup "+app.Name+" --wait` afterwards", "--wait waits for ever: nothing is captured without a schedule")
	}
	if err := checkSchedule(s, policy.Spec.Objectives.RPO, now); err != nil {
		return err
	}
	return o.keeping.Finish(&policy.Spec)
}

func checkSchedule(s v1alpha1.Schedule, objective *metav1.Duration, now time.Time) error {
	every, rpo := value(s.Every), value(objective)
	if rpo > 0 && every > rpo {
		return exit.Usage("capture more often, or allow more to be lost",
			"--every %s can never keep --rpo %s: up to %s of work would be lost", every, rpo, every)
	}
	table, err := schedule.Parse(every, s.Cron, s.TimeZone)
	if err != nil {
		return exit.Usage("five fields: minute, hour, day of month, month, day of week", "--cron or --time-zone: %v", err)
	}
	if table == nil {
		return nil
	}
	gap := table.LongestGap(now)
	if s.Cron != "" && gap == 0 {
		return exit.Usage("", "--cron %q names no two times within a year", s.Cron)
	}
	if err := schedule.CheckObjective(rpo, gap, 0); err != nil {
		return exit.Usage("capture more often, or allow more to be lost", "--rpo: %v", err)
	}
	return nil
}

// value is what a field says; zero where it says nothing.
func value(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}
