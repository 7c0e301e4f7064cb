// Package report is what a restore says: what its checks found, what it would
// do, what it did, and what a person should know.
package report

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Severity says whether a finding stops the restore.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // nothing is changed before it is solved
	Warning Severity = "warning" // a person should know
)

// Finding is the outcome of one preflight check.
type Finding struct {
	Check    string   `json:"check"`  // the check's name, such as "storage-classes"
	Reason   string   `json:"reason"` // one word for scripts
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	Remedy   string   `json:"remedy,omitempty"` // what to do next
}

// String is the finding for people.
func (f Finding) String() string {
	if f.Remedy == "" {
		return f.Message
	}
	return f.Message + ": " + f.Remedy
}

// Blocking returns the findings that stop a restore.
func Blocking(findings []Finding) []Finding {
	var all []Finding
	for _, f := range findings {
		if f.Severity == Error {
			all = append(all, f)
		}
	}
	return all
}

// ErrNoAnswer is in the error of what failed only because the vault, or the
// node process that was to read it, gave no answer.
var ErrNoAnswer = errors.New("no answer")

// Problem is something a person should know about one object.
type Problem struct {
	Object  string `json:"object,omitempty"` // kind.group namespace/name, as at the target
	Message string `json:"message"`
	// NoAnswer says that a failure tells nothing about the point: see ErrNoAnswer.
	NoAnswer bool `json:"noAnswer,omitempty"`
}

// String is the problem for people.
func (p Problem) String() string {
	if p.Object == "" {
		return p.Message
	}
	return p.Object + ": " + p.Message
}

// Step is one step's time and outcome. Steps may overlap; they are listed as
// they began.
type Step struct {
	Name       string        `json:"name"`
	StartedAt  time.Time     `json:"startedAt"`
	FinishedAt time.Time     `json:"finishedAt"`
	Duration   time.Duration `json:"duration"` // nanoseconds
	Message    string        `json:"message,omitempty"`
}

// Action is what a restore does with one object.
type Action string

// The actions.
const (
	Create  Action = "create"
	Updated Action = "update"
	SkipIt  Action = "skip"
	// Unchanged: it is there and the same.
	Unchanged Action = "unchanged"
	Continue  Action = "continue"  // made by this restore before it was interrupted
	Conflict  Action = "conflict"  // would fail
	Replaced  Action = "replace"   // deleted and made anew
	RollBack  Action = "roll back" // a volume that exists gets the point's data
	Prune     Action = "prune"     // deleted, because the point does not have it
	Suspend   Action = "suspend"   // for the time of the restore, and then resumed
)

// Planned is what a restore would do with one object.
type Planned struct {
	Object string `json:"object"`
	Action Action `json:"action"`
	Reason string `json:"reason,omitempty"`
	// Diff is a unified diff of an object that is changed, as YAML. What is in
	// a Secret is not in it.
	Diff string `json:"diff,omitempty"`
}

// Result is what a restore did. Objects counts every object of the point.
type Result struct {
	Objects   int64 `json:"objects"`
	Created   int64 `json:"created"`
	Updated   int64 `json:"updated"`
	Replaced  int64 `json:"replaced,omitempty"`
	Pruned    int64 `json:"pruned,omitempty"`
	Continued int64 `json:"continued"` // were there from the interrupted try
	Skipped   int64 `json:"skipped"`
	Failed    int64 `json:"failed"`
	// Volumes and VolumeBytes count what was filled, now or by the
	// interrupted try.
	Volumes     int64 `json:"volumes"`
	VolumeBytes int64 `json:"volumeBytes"`
	// FetchedBytes is what of them came out of the vault: the rest was in the
	// volumes already.
	FetchedBytes int64     `json:"fetchedBytes"`
	Warnings     []Problem `json:"warnings,omitempty"`
	Failures     []Problem `json:"failures,omitempty"`
	Steps        []Step    `json:"steps"`
	// Ready says whether every restored workload got ready in time.
	Ready bool `json:"ready"`
	// Running counts the workloads that were waited for and have pods that are
	// ready: those at zero replicas, and those that operators make, do not count.
	Running int64 `json:"running,omitempty"`
	// Unfit is what would have run, or held data, and was left out of a copy.
	Unfit []Problem `json:"unfit,omitempty"`
}

// Recorder collects a Result from many goroutines.
type Recorder struct {
	mu  sync.Mutex
	res Result
}

// Warn records what a person should know about an object.
func (r *Recorder) Warn(object, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Warnings = append(r.res.Warnings, Problem{Object: object, Message: fmt.Sprintf(format, args...)})
}

// Fail records that an object could not be restored, and why.
func (r *Recorder) Fail(object string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Failed++
	r.res.Failures = append(r.res.Failures, Problem{Object: object, Message: err.Error(), NoAnswer: errors.Is(err, ErrNoAnswer)})
}

// Count changes the result; f must not keep it.
func (r *Recorder) Count(f func(*Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.res)
}

// Result returns a copy with problems in an order that does not depend on
// which goroutine was first.
func (r *Recorder) Result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := r.res
	res.Warnings, res.Failures = slices.Clone(res.Warnings), slices.Clone(res.Failures)
	res.Steps = slices.Clone(res.Steps)
	slices.SortStableFunc(res.Steps, func(a, b Step) int { return a.StartedAt.Compare(b.StartedAt) })
	order := func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	}
	slices.SortStableFunc(res.Warnings, order)
	slices.SortStableFunc(res.Failures, order)
	return res
}
