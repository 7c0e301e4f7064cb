package register

import "time"

// LookFor changes how long runs of other plans are looked for, until the function
// that it returns is called.
func LookFor(d time.Duration) func() {
	was := lookFor
	lookFor = d
	return func() { lookFor = was }
}
