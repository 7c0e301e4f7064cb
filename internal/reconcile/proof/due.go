package proof

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/schedule"
)

// due is when the next run is to start: after the pause, or at the slot after
// the last run. A slot that was missed is made up for at once, and only once. A last
// run that is dated in the future counts as none.
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
	if last.Sub(now) > ahead { // one of the future would put the next off until then, each time it is asked
		last = time.Time{}
	}
	return slots.Next(last, created, now), nil
}

// ahead is how far the clock of who ran last may be ahead of this one.
const ahead = 5 * time.Minute

// attempts are tries in a row that gave no verdict.
type attempts struct {
	last  *metav1.Time
	count int32
}

// pause is how long after the last of them the next try waits: twice as long
// each time.
func (a attempts) pause() time.Duration {
	if a.last == nil {
		return 0
	}
	wait := retryAfter
	for n := int32(1); n < a.count && wait < retryAtMost; n++ {
		wait *= 2
	}
	return min(wait, retryAtMost)
}

// wait is how long a run that is due at some time, and was due first at
// another, waits from now on: for its time, for the pause after tries that gave
// no verdict, and for captures and restores. Zero says that it is to start.
func wait(ctx context.Context, c client.Client, at, first, now time.Time, tried attempts) (time.Duration, error) {
	if tried.last != nil && tried.last.Sub(now) <= ahead && tried.last.Add(tried.pause()).After(at) { // one of the future counts as none
		at = tried.last.Add(tried.pause())
	}
	if at.After(now) {
		return min(at.Sub(now), lookEvery), nil
	}
	if busy, err := Busy(ctx, c); err != nil || busy && now.Sub(first) < makeRoomFor {
		return lookAgain, err
	}
	return 0, nil
}
