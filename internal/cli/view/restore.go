package view

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
)

// Restore is a recovery as people read it.
type Restore struct {
	recovery.Report
	DryRun bool `json:"-"`
}

// shownProblems bounds warnings and failures in a report; logs has all.
const shownProblems = 20

// Text is a timeline with what was measured.
func (r Restore) Text(t *output.Text) {
	t.Line("%s", r.headline())
	t.Fields("  ", "point", r.pointText(), "epoch", r.epochText(),
		"overlays", strings.Join(r.Overlays, ", "), "rules", strings.Join(r.Rules, ", "), "mirror", r.Mirror)
	if len(r.Findings) > 0 {
		t.Section("Checks")
		for _, f := range r.Findings {
			t.Line("  %s: %s", f.Severity, f.String())
		}
	}
	if r.DryRun {
		r.planText(t)
		return
	}
	if len(r.Steps) > 0 {
		t.Section("Steps")
		t.Table("  ", output.Columns("STEP", ">TOOK", "NOTE"), r.stepRows())
	}
	if r.Result.Objects > 0 {
		t.Section("Result")
		r.resultText(t)
	}
}

func (r Restore) headline() string {
	if r.DryRun {
		return fmt.Sprintf("Plan for %s at site %s (%s): nothing was changed.", r.Application, r.Site, r.Mode)
	}
	switch r.Phase {
	case v1alpha1.RestoreCompleted:
		return fmt.Sprintf("%s is restored at site %s.", r.Application, r.Site)
	case v1alpha1.RestoreWarned:
		return fmt.Sprintf("%s is restored at site %s, with warnings.", r.Application, r.Site)
	}
	return fmt.Sprintf("%s is not restored at site %s.", r.Application, r.Site)
}

func (r Restore) pointText() string {
	if r.Point == "" {
		return ""
	}
	return fmt.Sprintf("%s, of %s, from site %s, consistency %s", r.Point, output.Time(r.Instant), r.SourceSite, r.Consistency)
}

func (r Restore) epochText() string {
	if r.Epoch == 0 {
		return ""
	}
	text := fmt.Sprint(r.Epoch)
	if r.PreviousEpoch > 0 && r.PreviousEpoch != r.Epoch {
		text += fmt.Sprintf(", before it %d of site %s", r.PreviousEpoch, r.EpochSite)
	}
	if r.Fence != "" {
		text += "; fencing: " + r.Fence
	}
	return text
}

func (r Restore) stepRows() [][]string {
	var rows [][]string
	for _, s := range r.Steps {
		took := s.Duration
		if took == 0 && !s.FinishedAt.IsZero() {
			took = s.FinishedAt.Sub(s.StartedAt)
		}
		rows = append(rows, []string{s.Name, output.Duration(took), output.OneLine(s.Message)})
	}
	return rows
}

func (r Restore) planText(t *output.Text) {
	if len(r.Plan) == 0 {
		return
	}
	var rows [][]string
	for _, p := range r.Plan {
		rows = append(rows, []string{string(p.Action), p.Object, p.Reason})
	}
	if r.Order != nil {
		r.orderText(t)
	}
	t.Section("Objects")
	t.Table("  ", output.Columns("ACTION", "OBJECT", "REASON"), rows)
	for _, p := range r.Plan {
		if p.Diff == "" {
			continue
		}
		t.Section(p.Object)
		t.AsIs("  ", p.Diff)
	}
}

// orderText shows what waits for what.
func (r Restore) orderText(t *output.Text) {
	t.Section("Order")
	t.Table("  ", output.Columns("WAVE", "OBJECT", "AFTER"), r.Order.Rows())
	for _, b := range r.Order.Broken {
		t.Line("  not waited for, because of a cycle: %s, by %s (%s)", b.Wait.Name, b.Name, b.Why)
	}
}

// resultFields are what was brought back, and how fast.
func (r Restore) resultFields() []string {
	res := r.Result
	objects := []string{fmt.Sprintf("%d created", res.Created)}
	for _, c := range []struct {
		n    int64
		name string
	}{{res.Updated, "updated"}, {res.Replaced, "replaced"}, {res.Pruned, "pruned"}, {res.Continued, "continued"}, {res.Skipped, "skipped"}, {res.Failed, "failed"}} {
		if c.n > 0 {
			objects = append(objects, fmt.Sprintf("%d %s", c.n, c.name))
		}
	}
	volumes := fmt.Sprintf("%d, %s", res.Volumes, output.Bytes(res.VolumeBytes))
	if 0 < res.FetchedBytes && res.FetchedBytes < res.VolumeBytes {
		volumes += fmt.Sprintf(", of which %s were fetched and the rest was there", output.Bytes(res.FetchedBytes))
	}
	return []string{
		"objects", strings.Join(objects, ", "),
		"volumes", volumes,
		"RPO", output.Duration(r.RPO) + " measured: work of this long before the restore began is not in the point",
		"RTO", rtoText(r.RTO),
		"protection", strings.Join(r.Documents, ", "),
	}
}

func (r Restore) resultText(t *output.Text) {
	res := r.Result
	t.Fields("  ", r.resultFields()...)
	problems(t, "Failures", len(res.Failures), func(i int) string { return res.Failures[i].String() })
	problems(t, "Warnings", len(res.Warnings), func(i int) string { return res.Warnings[i].String() })
	if len(res.Failures)+len(res.Warnings) > shownProblems && r.RestoreID != "" {
		t.Line("All of them: logs restore %s", r.RestoreID)
	}
}

func rtoText(rto time.Duration) string {
	if rto == 0 {
		return "not reached: not every workload is ready"
	}
	return output.Duration(rto) + " measured: from the start until every workload was ready"
}

func problems(t *output.Text, title string, n int, line func(i int) string) {
	if n == 0 {
		return
	}
	t.Section(fmt.Sprintf("%s (%d)", title, n))
	for i := range min(n, shownProblems) {
		t.Line("  %s", line(i))
	}
	if n > shownProblems {
		t.Line("  … and %d more", n-shownProblems)
	}
}

// Document is the whole report.
func (r Restore) Document() any { return r.Report }

// Ended tells whether a restore is over, well or not.
func Ended(r *v1alpha1.Restore) bool {
	switch r.Status.Phase {
	case v1alpha1.RestoreCompleted, v1alpha1.RestoreWarned, v1alpha1.RestoreFailed:
		return true
	}
	return false
}

// RestoreObject is a Restore object as people read it.
type RestoreObject struct{ *v1alpha1.Restore }

// Text is a timeline with what was measured.
func (r RestoreObject) Text(t *output.Text) {
	s := &r.Status
	t.Line("Restore %s of %s: %s", r.Name, r.Spec.Application, s.Phase)
	var rows [][]string
	for _, step := range s.Steps {
		took := ""
		if step.Took != nil {
			took = output.Duration(step.Took.Duration)
		} else if step.StartedAt != nil && step.FinishedAt != nil {
			took = output.Duration(step.FinishedAt.Sub(step.StartedAt.Time))
		}
		rows = append(rows, []string{step.Name, took, output.OneLine(step.Message)})
	}
	pairs := []string{"point", s.Point, "overlays", strings.Join(s.Overlays, ", "), "step", s.Step, "why", Condition(s.Conditions, v1alpha1.ConditionReady)}
	if s.Epoch > 0 {
		pairs = append(pairs, "epoch", fmt.Sprint(s.Epoch))
	}
	pairs = append(pairs, "objects", fmt.Sprintf("%d restored, %d skipped, %d failed", s.Restored, s.Skipped, s.FailedObjects),
		"volumes", output.Bytes(s.VolumeBytes), "RPO", durationText(s.RPO), "RTO", durationText(s.RTO))
	t.Fields("  ", pairs...)
	if len(rows) > 0 {
		t.Section("Steps")
		t.Table("  ", output.Columns("STEP", ">TOOK", "NOTE"), rows)
	}
	problems(t, "Warnings", len(s.WarningList), func(i int) string { return s.WarningList[i] })
}

// Document is the object.
func (r RestoreObject) Document() any { return r.Restore }

func durationText(d *metav1.Duration) string {
	if d == nil {
		return ""
	}
	return output.Duration(d.Duration)
}

// Log is a log.
type Log struct {
	ID      string           `json:"id"`
	Entries []vault.LogEntry `json:"entries"`
}

// Has tells whether the log says this already.
func (l Log) Has(object, message string) bool {
	for _, entry := range l.Entries {
		if entry.Object == object && entry.Message == message {
			return true
		}
	}
	return false
}

// Text is a line for each entry.
func (l Log) Text(t *output.Text) {
	if len(l.Entries) == 0 {
		t.Line("%s has nothing to say: no warnings.", l.ID)
	}
	for _, entry := range l.Entries {
		text := entry.Message
		if entry.Object != "" {
			text = entry.Object + ": " + text
		}
		t.Line("%s %-7s %s", entry.At.UTC().Format("15:04:05.000"), entry.Level, text)
	}
}

// Document is all of them.
func (l Log) Document() any { return l }

// RestoreLog is a report with every warning and failure.
type RestoreLog struct{ Restore }

// Text is the report, and all that was said.
func (r RestoreLog) Text(t *output.Text) {
	t.Line("Restore %s of %s at %s", r.RestoreID, r.Application, output.Time(r.StartedAt.Truncate(time.Second)))
	t.Line("%s", r.headline())
	t.Fields("  ", "point", r.pointText(), "epoch", r.epochText(), "error", r.Error,
		"overlays", strings.Join(r.Overlays, ", "), "rules", strings.Join(r.Rules, ", "), "mirror", r.Mirror)
	t.Section("Steps")
	t.Table("  ", output.Columns("STEP", ">TOOK", "NOTE"), r.stepRows())
	if r.Result.Objects > 0 {
		t.Section("Result")
		t.Fields("  ", r.resultFields()...)
	}
	listText(t, fmt.Sprintf("Failures (%d)", len(r.Result.Failures)), len(r.Result.Failures), func(i int) string { return r.Result.Failures[i].String() })
	listText(t, fmt.Sprintf("Warnings (%d)", len(r.Result.Warnings)), len(r.Result.Warnings), func(i int) string { return r.Result.Warnings[i].String() })
}
