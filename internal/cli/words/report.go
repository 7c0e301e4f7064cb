package words

import (
	"io"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/evidence"
)

// Formats are those in which a report is shown.
func Formats() []string { return []string{"text", "html", "json"} }

// Report prints a run's report as it was signed, or as text a summary of it.
func Report(out io.Writer, d *evidence.Document, format string) error {
	switch format {
	case "html":
		_, err := io.WriteString(out, d.HTML)
		return err
	case "json":
		_, err := io.WriteString(out, d.JSON)
		return err
	}
	r, err := d.Report()
	if err != nil {
		return err
	}
	var t output.Text
	t.Fields("", "Run", r.Run, "Verb", string(r.Verb), "Plan", r.Plan, "To", r.To, "State", string(r.State), "Why", r.Why, "Fence", r.Fence,
		"Asked", output.Time(r.Asked)+" by "+r.By, "Until", output.Time(r.Until), "Signed with", d.Key[:16])
	for _, f := range r.Failures {
		t.Line("Failed: %s", f)
	}
	for _, l := range r.Remaining {
		t.Line("Left to people by %s, at site %s; settled by %s", l.Step, l.Site, settledBy(l))
	}
	for _, a := range r.Applications {
		t.Line("%s: RPO %s, RTO %s, point %s", a.Name, output.Duration(a.RPO), output.Duration(a.RTO), a.Point)
	}
	t.Line("The whole report: davit runs report %s -o html > report.html", r.Run)
	_, err = io.WriteString(out, t.String())
	return err
}
