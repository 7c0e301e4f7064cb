package agent

import (
	"context"
	"testing"
	"time"
)

// TestAChoreRunsOnceAndEnds: what hangs neither piles up nor holds anything
// else back, and is over when its time is.
func TestAChoreRunsOnceAndEnds(t *testing.T) {
	var c chore
	began, ended := make(chan struct{}), make(chan error, 1)
	hang := func(ctx context.Context) {
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
	}
	if !c.begin(t.Context(), 50*time.Millisecond, hang) {
		t.Fatal("not begun")
	}
	<-began
	if c.begin(t.Context(), time.Hour, func(context.Context) { t.Error("done twice at a time") }) {
		t.Error("begun beside itself")
	}
	if err := <-ended; err == nil || err.Error() != "not done within 50ms" {
		t.Errorf("ended with %v", err)
	}
	c.running.Wait()
	again := make(chan struct{})
	if !c.begin(t.Context(), time.Hour, func(context.Context) { close(again) }) {
		t.Fatal("never begun again")
	}
	<-again
}
