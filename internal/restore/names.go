package restore

import (
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
)

// The engine's ports and reports, under the names that its users know.
type (
	Source      = port.Source
	Served      = port.Served
	Cluster     = port.Cluster
	FillRequest = port.FillRequest
	Volumes     = port.Volumes
	Progress    = port.Progress
	Silent      = port.Silent
	Clock       = port.Clock

	Finding = report.Finding
	Problem = report.Problem
	Step    = report.Step
	Action  = report.Action
	Planned = report.Planned
	Result  = report.Result
)

// Errors that callers may decide on with errors.Is.
var (
	ErrNotServed  = port.ErrNotServed
	ErrUnanswered = port.ErrUnanswered
	ErrBusy       = hold.ErrBusy
)

// Blocking returns the findings that stop a restore.
func Blocking(findings []Finding) []Finding { return report.Blocking(findings) }
