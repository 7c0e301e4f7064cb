package forecast

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/planning"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/prediction"
	"davit.dev/davit/internal/preflight"
)

// Judge judges plans against their sites, for `plan validate --sites`.
func (h *Host) Judge() planning.Judge {
	a := &asked{}
	return planning.Judge{
		Flags: a.flags,
		Run: func(cmd *cobra.Command, p *plan.Plan) (output.Result, bool, error) {
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			at, err := h.open(ctx, cmd, a)
			if err != nil {
				return nil, false, err
			}
			out, err := at.look(ctx, p, plan.Failover)
			if err != nil {
				return nil, false, err
			}
			v := OfOutlook(out)
			return v, v.Worst == preflight.Fail, nil
		},
	}
}

// Sites is what `plan validate --sites` found.
type Sites struct {
	Plan       string                    `json:"plan"`
	From       string                    `json:"from"`
	To         string                    `json:"to"`
	Worst      preflight.Verdict         `json:"worst"`
	Findings   []preflight.Finding       `json:"findings"`
	RTO        prediction.RTO            `json:"rto"`
	RPO        map[string]prediction.RPO `json:"rpo"`
	Objectives Objectives                `json:"objectives"`
	LastDrill  *LastRun                  `json:"lastDrill,omitempty"`
	now        time.Time
}

// Objectives are the plan's.
type Objectives struct {
	RPO time.Duration `json:"rpo,omitempty"`
	RTO time.Duration `json:"rto,omitempty"`
}

// LastRun is a run that went well.
type LastRun struct {
	Run string    `json:"run"`
	At  time.Time `json:"at"`
}

// OfOutlook makes the view of a look ahead.
func OfOutlook(o *foresight.Outlook) Sites {
	in := o.Input
	v := Sites{
		Plan: in.Plan.Name, From: in.From, To: in.To, Worst: preflight.Worst(o.Findings), Findings: o.Findings, RTO: o.RTO, RPO: o.RPO,
		Objectives: Objectives(in.Plan.Objectives), now: in.Now,
	}
	if last := foresight.Last(o.History, in.Plan.Name, plan.Drill); last != nil {
		v.LastDrill = &LastRun{last.Run, last.At}
	}
	return v
}

// Document implements output.Result.
func (v Sites) Document() any { return v }

// Text implements output.Result: what is wrong first, and with -o wide all.
func (v Sites) Text(t *output.Text) {
	n := preflight.Count(v.Findings)
	t.Line("Plan %s, from site %s to site %s: %d checks fail, %d warn, %d are not known, %d are well.", v.Plan, orUnknown(v.From), orUnknown(v.To),
		n[preflight.Fail], n[preflight.Warn], n[preflight.Unknown], n[preflight.OK])
	v.Foretell(t, "")
	v.List(t, "", t.Wide)
	if !t.Wide && n[preflight.OK] > 0 {
		t.Line("-o wide shows what is well.")
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// List writes the findings, the worst first; what several checks say alike, once.
func (v Sites) List(t *output.Text, indent string, all bool) {
	for _, verdict := range []preflight.Verdict{preflight.Fail, preflight.Warn, preflight.Unknown, preflight.OK} {
		var found []preflight.Finding
		also := map[preflight.Finding][]string{}
		for _, f := range v.Findings {
			if f.Verdict != verdict || verdict == preflight.OK && !all {
				continue
			}
			alike := f
			alike.Check = ""
			if also[alike] = append(also[alike], f.Check); len(also[alike]) == 1 {
				found = append(found, f)
			}
		}
		for _, f := range found {
			alike := f
			alike.Check = ""
			line := strings.TrimPrefix(f.Where()+": "+f.Reason, ": ")
			if others := also[alike][1:]; len(others) > 0 {
				line += " (so too: " + strings.Join(others, ", ") + ")"
			}
			t.Line("%s%-7s  %-15s  %s", indent, f.Verdict, f.Check, line)
			if f.Remedy != "" {
				t.Line("%s%-7s  %-15s  %s", indent, "", "", "do: "+f.Remedy)
			}
		}
	}
}

// Foretell writes what a run would take and lose, as far as is known.
func (v Sites) Foretell(t *output.Text, indent string) {
	_, words := prediction.Against(v.RTO.Known, v.RTO.Worst, v.Objectives.RTO)
	if v.RTO.Known {
		t.Line("%sTime to recover: %s typically, %s at worst, by %s; %s.", indent, output.Duration(v.RTO.Typical), output.Duration(v.RTO.Worst), v.RTO.Basis, against(words, v.Objectives.RTO))
	} else {
		t.Line("%sTime to recover: %s; %s.", indent, v.RTO.Basis, against(words, v.Objectives.RTO))
	}
	var apps []string
	for app := range v.RPO {
		apps = append(apps, app)
	}
	slices.Sort(apps)
	for _, app := range apps {
		r := v.RPO[app]
		_, words := prediction.Against(r.Known, r.Worst, v.Objectives.RPO)
		if !r.Known {
			t.Line("%sWork lost of %s: %s; %s.", indent, app, r.Basis, against(words, v.Objectives.RPO))
			continue
		}
		t.Line("%sWork lost of %s: %s typically, %s at worst, by %s; %s.", indent, app, output.Duration(r.Typical), output.Duration(r.Worst), r.Basis, against(words, v.Objectives.RPO))
	}
	if v.LastDrill == nil {
		t.Line("%sLast drill: never.", indent)
	} else {
		t.Line("%sLast drill: %s ago (%s).", indent, output.Age(v.LastDrill.At, v.now), v.LastDrill.Run)
	}
}

func against(words string, objective time.Duration) string {
	if objective <= 0 {
		return words
	}
	return words + " of " + output.Duration(objective)
}
