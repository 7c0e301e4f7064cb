package restore

import (
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/policy"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
)

// The engine's ports and reports, under the names that its users know.
type (
	// Source is where the objects of a point are read.
	Source = port.Source
	// Served is a kind as the target serves it.
	Served = port.Served
	// Cluster is the target.
	Cluster = port.Cluster
	// FillRequest asks for a claim to be filled.
	FillRequest = port.FillRequest
	// Volumes fills claims.
	Volumes = port.Volumes
	// Progress is told how far a restore is.
	Progress = port.Progress
	// Silent is a Progress that says nothing.
	Silent = port.Silent
	// Clock tells the time and waits.
	Clock = port.Clock

	// Finding is what a check before the restore found.
	Finding = report.Finding
	// Problem is what went wrong with one object.
	Problem = report.Problem
	// Step is a part of a restore, timed.
	Step = report.Step
	// Action is what is done with an object.
	Action = report.Action
	// Planned is an object and what would be done with it.
	Planned = report.Planned
	// Result is what came of a restore.
	Result = report.Result
)

// Existing says what happens to objects that exist already and differ.
type Existing = policy.Existing

// What happens to objects that exist already: see package policy.
const (
	Skip    = policy.Skip
	Update  = policy.Update
	Replace = policy.Replace
	Exact   = policy.Exact
)

// Errors that callers may decide on with errors.Is.
var (
	ErrNotServed  = port.ErrNotServed
	ErrUnanswered = port.ErrUnanswered
	ErrBusy       = hold.ErrBusy
	ErrNoAnswer   = report.ErrNoAnswer
)

// Blocking returns the findings that stop a restore.
func Blocking(findings []Finding) []Finding { return report.Blocking(findings) }
