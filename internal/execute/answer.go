package execute

import (
	"fmt"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/transcript"
)

// Saying adds what was said, by whoever knows no secrets.
func (a Answer) Saying(text string) Answer {
	a.Said = transcript.Keep(text, nil)
	return a
}

// Done says that the step is done.
func Done(format string, args ...any) Answer {
	return Answer{Outcome: failover.Done, Note: fmt.Sprintf(format, args...)}
}

// NotDone says that a look found that the step is not done.
func NotDone(format string, args ...any) Answer {
	return Answer{Outcome: failover.NotDone, Note: fmt.Sprintf(format, args...)}
}

// Refuse says that the step was not done, and will not be.
func Refuse(format string, args ...any) Answer {
	return Answer{Outcome: failover.Refused, Note: fmt.Sprintf(format, args...)}
}

// Unknown says that nobody knows, or not yet: look again.
func Unknown(format string, args ...any) Answer {
	return Answer{Outcome: failover.NoAnswer, Note: fmt.Sprintf(format, args...)}
}

// Superseded says that another site's epoch is newer.
func Superseded(format string, args ...any) Answer {
	return Answer{Outcome: failover.Superseded, Note: fmt.Sprintf(format, args...)}
}
