package proof

import (
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/internal/schedule"
)

// due is when the next run is to start: after the pause, or at the slot after
// the last run. A slot that was missed is made up for at once, and only once.
func due(every *metav1.Duration, table string, last, created, now time.Time) (time.Time, error) {
	var pause time.Duration
	if every != nil {
		pause = every.Duration
	}
	slots, err := schedule.Parse(pause, table, "")
	if err != nil {
		return time.Time{}, err
	}
	if slots == nil {
		return time.Time{}, errors.New("the policy's verify names no pause and no cron expression")
	}
	return slots.Next(last, created, now), nil
}

// later is the later of a due time and the end of the pause after a try that
// gave no verdict.
func later(at time.Time, tried *metav1.Time) time.Time {
	if tried != nil && tried.Add(retryAfter).After(at) {
		return tried.Add(retryAfter)
	}
	return at
}
