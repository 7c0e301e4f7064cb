// Package detector tells tests of the race detector. What is skipped because of it says so with
// the words "race detector": hack/test runs it without, then.
package detector

import (
	"runtime/debug"
	"slices"
)

// Watches tells whether the race detector is in this program.
func Watches() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
