package consoletest

import (
	"testing"
	"time"
)

// patience bounds a test that hangs, and judges nothing.
const patience = 3 * time.Minute

// Until waits for a condition that nothing tells of. What was seen last is told if
// it does not come true.
func Until(t testing.TB, what string, look func() (ok bool, saw string)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // between two looks
		ok, saw := look()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not %s: %s", what, saw)
		}
	}
}
