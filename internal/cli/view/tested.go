package view

import (
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/trial"
)

// Tested is what a restore test found.
type Tested trial.Report

// Document is the report itself.
func (t Tested) Document() any { return trial.Report(t) }

// Text is the verdict, the probes, and what the copy may reach.
func (t Tested) Text(out *output.Text) {
	switch {
	case t.Passed:
		out.Line("%s came up: it worked after %s.", t.Point, output.Duration(t.RTO))
	case t.Unproven != "":
		out.Line("%s: nothing is proven: %s.", t.Point, t.Unproven)
	default:
		out.Line("%s did not pass: %s", t.Point, t.Failure)
	}
	if len(t.Probes) > 0 {
		var rows [][]string
		for _, p := range t.Probes {
			rows = append(rows, []string{p.Name, map[bool]string{true: "passed", false: "FAILED"}[p.Passed], output.Duration(p.Took), p.Message})
		}
		out.Table("  ", output.Columns("PROBE", "RESULT", ">TOOK", "MESSAGE"), rows)
	}
	listText(out, "What the copy was made without, or may reach", len(t.Warnings), func(i int) string { return t.Warnings[i] })
}
