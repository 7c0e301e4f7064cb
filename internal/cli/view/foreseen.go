package view

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
)

// Plan is a recovery plan as `status` shows it.
type Plan struct {
	Name string `json:"name"`
	// Checked is when the agent last looked at its sites; zero: never.
	Checked  time.Time `json:"checked,omitzero"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	// Worst is the first of the worst findings.
	Worst string `json:"worst,omitempty"`
	// Level of readiness; nil: not computed.
	Level *int32 `json:"level,omitempty"`
	Stale bool   `json:"stale,omitempty"` // it needs verification
	// At are the sites that hold its applications.
	At        string    `json:"at,omitempty"`
	LastRun   string    `json:"lastRun,omitempty"`
	LastDrill string    `json:"lastDrill,omitempty"`
	Drilled   time.Time `json:"drilled,omitzero"`
	NextDrill time.Time `json:"nextDrill,omitzero"`
	// Message says why it cannot be carried out, or is not in the vault.
	Message string `json:"message,omitempty"`
	// Declares says, at the site that would take over, what is seen of the source
	// and what would happen by itself.
	Declares *Declares `json:"declares,omitempty"`
}

// Declares is how far the automatic declaration of a plan's source is.
type Declares struct {
	// Ready says that the source would be failed over without a person.
	Ready     bool       `json:"ready"`
	State     string     `json:"state"`
	Message   string     `json:"message"`
	Source    string     `json:"source,omitempty"`
	Next      string     `json:"next,omitempty"`
	Observers []Observer `json:"observers,omitempty"`
}

// Observer is a vantage point and its last word.
type Observer struct {
	Name  string    `json:"name"`
	View  string    `json:"view"`
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// OfDeclaration is what a plan's status says of its automatic declaration; nil
// where this site would not take over, or people declare.
func OfDeclaration(p *v1alpha1.RecoveryPlan) *Declares {
	c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionDeclares)
	s := p.Status.Declaration
	if c == nil || s == nil {
		return nil
	}
	d := &Declares{Ready: c.Status == "True", State: c.Reason, Message: c.Message, Source: s.Source, Next: s.Next}
	for _, o := range s.Observers {
		d.Observers = append(d.Observers, Observer{Name: o.Name, View: o.View, Why: o.Why, Since: TimeOf(o.Since)})
	}
	return d
}

// Text writes it for people.
func (d *Declares) Text(t *output.Text, plan string, now time.Time) {
	said := make([]string, 0, len(d.Observers))
	for _, o := range d.Observers {
		said = append(said, fmt.Sprintf("%s %s (%s)", o.Name, o.View, output.Age(o.Since, now)))
	}
	word := "is declared automatically"
	if !d.Ready {
		word = "is not declared automatically now"
	}
	t.Line("Plan %s %s: %s, %s.", plan, word, d.State, d.Message)
	t.Line("  Next: %s.", d.Next)
	if len(said) > 0 {
		t.Line("  Site %s, as seen by: %s.", d.Source, strings.Join(said, ", "))
	}
}

// gatherPlans reads what the agent found. A cluster that does not serve the kind has none.
func (v *Status) gatherPlans(ctx context.Context, c client.Client) error {
	var all v1alpha1.RecoveryPlanList
	if err := c.List(ctx, &all); err != nil {
		if meta.IsNoMatchError(err) {
			return nil
		}
		return fmt.Errorf("list plans: %w", err)
	}
	if err := v.gatherPlanRuns(ctx, c); err != nil {
		return err
	}
	for i := range all.Items {
		v.Plans = append(v.Plans, ofPlan(&all.Items[i]))
	}
	return nil
}

func ofPlan(p *v1alpha1.RecoveryPlan) Plan {
	out := Plan{Name: p.Name, At: p.Status.At, Declares: OfDeclaration(p)}
	if meta.IsStatusConditionFalse(p.Status.Conditions, v1alpha1.ConditionReady) {
		out.Message = Condition(p.Status.Conditions, v1alpha1.ConditionReady)
	}
	if r := p.Status.LastRun; r != nil {
		out.LastRun = r.Verb + " " + r.Phase
	}
	if r := p.Status.LastDrill; r != nil {
		out.LastDrill, out.Drilled = cmp.Or(r.Verdict, r.Phase), TimeOf(r.EndedAt)
	}
	out.NextDrill = TimeOf(p.Status.NextDrill)
	if out.Message == "" && meta.IsStatusConditionFalse(p.Status.Conditions, v1alpha1.ConditionDrilled) {
		out.Message = Condition(p.Status.Conditions, v1alpha1.ConditionDrilled)
	}
	if r := p.Status.Readiness; r != nil {
		out.Level, out.Stale = &r.Level, r.Stale
	}
	if p.Status.Preflight == nil {
		return out
	}
	out.Checked = p.Status.Preflight.CheckedAt.Time
	for _, f := range p.Status.Preflight.Findings { // the worst first
		if f.Severity == "error" {
			out.Errors++
		} else {
			out.Warnings++
		}
		if out.Worst == "" {
			out.Worst = f.Check + ": " + f.Message
		}
	}
	return out
}

func (v Status) planText(t *output.Text) {
	if len(v.Plans) == 0 {
		return
	}
	var rows [][]string
	for _, p := range v.Plans {
		level := ""
		switch {
		case p.Level != nil && *p.Level < 0:
			level = "none"
		case p.Level != nil:
			level = fmt.Sprint(*p.Level)
		}
		if p.Stale {
			level += " (verify)"
		}
		drill := cmp.Or(p.LastDrill, "never")
		if !p.Drilled.IsZero() {
			drill += ", " + output.Ago(p.Drilled, v.now)
		}
		switch {
		case p.NextDrill.After(v.now):
			drill += "; next in " + output.Age(v.now, p.NextDrill)
		case !p.NextDrill.IsZero():
			drill += "; due"
		}
		rows = append(rows, []string{
			p.Name, p.At, p.LastRun, drill, level, output.Age(p.Checked, v.now), fmt.Sprint(p.Errors), fmt.Sprint(p.Warnings),
			output.Short(output.OneLine(cmp.Or(p.Message, p.Worst)), 100),
		})
	}
	t.Section("Plans")
	t.Table("", output.Columns("NAME", "AT", "LAST RUN", "DRILL", "LEVEL", "CHECKED", ">ERRORS", ">WARNINGS", "WORST"), rows)
	for _, p := range v.Plans {
		if p.Declares != nil {
			p.Declares.Text(t, p.Name, v.now)
		}
	}
}
