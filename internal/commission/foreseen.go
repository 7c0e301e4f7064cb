package commission

import (
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

// AnnotationDespite on a Run names the checks, with commas between them, that may
// fail: the run is carried all the same.
const AnnotationDespite = "davit.dev/despite"

// stopping are the checks that a planned run does not begin with while they fail, as
// it would meet the same. What a restore finds out for itself, by what it would
// write and may, is not among them (storage classes, kinds, rights), nor what is wrong with
// the source or the vault: that is what one moves away from.
var stopping = []string{"capacity", "quotas", "images", "step-images", "steps", "dns"}

// Heeds tells whether a run of the verb is refused for what the preflight finds. A
// failover is not (docs/decisions/0032-what-stops-a-run.md).
func Heeds(v plan.Verb) bool {
	return v == plan.Switchover || v == plan.Failback || v == plan.Drill
}

// Despite reads the names of checks that may fail.
func Despite(names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !slices.Contains(stopping, name) {
			return nil, Refuse("give some of "+strings.Join(stopping, ", "), "there is no check %q that stops a run", name)
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Foreseen refuses a planned run that a check of the target says would not work, unless
// whoever asks for it named the check. What another site said of itself is minutes old,
// and it may have been given since what it lacked: it is told, and stops nothing.
func Foreseen(s *failover.Spec, findings []preflight.Finding) error {
	if !Heeds(s.Verb) {
		return nil
	}
	var why, checks []string
	for _, f := range findings {
		if f.Verdict != preflight.Fail || !slices.Contains(stopping, f.Check) || slices.Contains(s.Despite, f.Check) || f.Site != "" && f.Site != s.To {
			continue
		}
		if s.Verb == plan.Drill && f.Check == "quotas" { // a sandbox has namespaces of its own, and no quotas there
			continue
		}
		text := f.Check + ": " + f.Reason
		if where := f.Where(); where != "" {
			text = f.Check + " of " + where + ": " + f.Reason
		}
		if f.Remedy != "" {
			text += " (" + f.Remedy + ")"
		}
		why = append(why, text)
		if !slices.Contains(checks, f.Check) {
			checks = append(checks, f.Check)
		}
	}
	if len(why) == 0 {
		return nil
	}
	return Refuse(fmt.Sprintf("solve that; or accept it by name, --despite %s, and it is tried all the same", strings.Join(checks, ",")),
		"nothing was changed, the %s would not work: %s", s.Verb, strings.Join(why, "; "))
}
