package proof

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/internal/point"
)

// due is when the next run is to start: after the pause, or at the slot after
// the last run. A slot that was missed is made up for at once, and only once.
func due(every *metav1.Duration, table string, last, created, now time.Time) (time.Time, error) {
	if every != nil {
		return point.Next(last, every.Duration, now), nil
	}
	slots, err := cron.ParseStandard(table)
	if err != nil {
		return time.Time{}, fmt.Errorf("cron expression %q: %w", table, err)
	}
	from := last
	if from.IsZero() {
		from = created
	}
	if from.After(now) {
		from = now
	}
	return slots.Next(from.UTC()), nil
}

// later is the later of a due time and the end of the pause after a try that
// gave no verdict.
func later(at time.Time, tried *metav1.Time) time.Time {
	if tried != nil && tried.Add(retryAfter).After(at) {
		return tried.Add(retryAfter)
	}
	return at
}
