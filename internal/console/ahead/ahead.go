// Package ahead is what a console knows beforehand: the plans that a vault
// keeps, what a failover of each would cost now, and how ready applications are.
// It reads the vault alone, and has the same cores judge as the command line.
package ahead

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/prediction"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/readiness"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
)

// View is what is known beforehand, at one time.
type View struct {
	At         time.Time             `json:"at"`
	Plans      []Plan                `json:"plans"` // by name
	Rows       []Row                 `json:"readiness"`
	Components []readiness.Component `json:"components"`
	// Fault is why nothing newer is known.
	Fault string `json:"fault,omitempty"`
	// Revisions are those of the plans that were judged, and Runs how many were over.
	Revisions map[string]int64 `json:"-"`
	Runs      int              `json:"-"`
}

// Plan is a plan that the vault keeps, and what a failover by it would be now.
type Plan struct {
	Name     string    `json:"name"`
	Revision int64     `json:"revision"`
	At       time.Time `json:"at,omitzero"`    // when it was written
	Site     string    `json:"site,omitempty"` // that wrote it
	// Applications are those that move by it; nil: see Document.
	Applications []string `json:"applications,omitempty"`
	// Document is the RecoveryPlan.
	Document json.RawMessage `json:"document,omitempty"`
	// Fault is why it cannot be read or carried out.
	Fault string `json:"fault,omitempty"`
	// From holds most of its applications, To is where they would go.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Fence is the level that a failover would rely on at worst, and Unproven are
	// the sites that it would ask a person about.
	Fence    string                    `json:"fence,omitempty"`
	Unproven []string                  `json:"unproven,omitempty"`
	Findings []preflight.Finding       `json:"findings"` // the worst first
	RTO      prediction.RTO            `json:"rto"`
	RPO      map[string]prediction.RPO `json:"rpo"`
	Drills   []Drill                   `json:"drills"` // the newest first
}

// Drill is a drill of a plan that is over.
type Drill struct {
	Run  string        `json:"run"`
	To   string        `json:"to"`
	At   time.Time     `json:"at"`
	Good bool          `json:"good"`
	RTO  time.Duration `json:"rto,omitempty"` // the slowest application's
}

// Row is how ready an application is to go to a site.
type Row struct {
	Application string   `json:"application"`
	Site        string   `json:"site"`
	Level       string   `json:"level"`
	Columns     []Column `json:"columns"`
	Verify      string   `json:"verify,omitempty"`
	Missing     []string `json:"missing,omitempty"`
}

// Column is one column's level, with its evidence.
type Column struct {
	Name     string    `json:"name"`
	Level    string    `json:"level"`
	Evidence string    `json:"evidence"`
	At       time.Time `json:"at,omitzero"`
	Missing  string    `json:"missing,omitempty"`
}

// mostDrills is how many drills of a plan are kept.
const mostDrills = 5

// Plan finds one by its name.
func (v *View) Plan(name string) (*Plan, bool) {
	if v == nil {
		return nil, false
	}
	i := slices.IndexFunc(v.Plans, func(p Plan) bool { return p.Name == name })
	if i < 0 {
		return nil, false
	}
	return &v.Plans[i], true
}

// Of are the plans that an application moves by.
func (v *View) Of(app string) (names []string) {
	if v == nil {
		return nil
	}
	for _, p := range v.Plans {
		if p.Applications != nil {
			if slices.Contains(p.Applications, app) {
				names = append(names, p.Name)
			}
			continue
		}
		if parsed, err := p.Parse(); err == nil && slices.ContainsFunc(parsed.Applications, func(a plan.Application) bool { return a.Name == app }) {
			names = append(names, p.Name)
		}
	}
	return names
}

// Level is the least level of readiness of an application; empty: not known.
func (v *View) Level(app string) (least string) {
	if v == nil {
		return ""
	}
	for _, r := range v.Rows {
		if r.Application == app && (least == "" || least != "none" && (r.Level == "none" || r.Level < least)) {
			least = r.Level
		}
	}
	return least
}

// Parse reads the plan's document.
func (p Plan) Parse() (*plan.Plan, error) {
	if len(p.Document) == 0 {
		return nil, errors.New(p.Fault)
	}
	return document.Parse(p.Document)
}

// Count is how many findings have a verdict.
func (p Plan) Count(verdict string) int {
	return preflight.Count(p.Findings)[preflight.Verdict(verdict)]
}

// Worst is the worst verdict of all checks.
func (p Plan) Worst() string {
	if p.Fault != "" {
		return string(preflight.Fail)
	}
	return string(preflight.Worst(p.Findings))
}

// Read reads and judges all plans, and the readiness of all applications.
// Damaged plans are faults of their own.
func Read(ctx context.Context, p *vault.Project, apps []string, now func() time.Time) (*View, error) {
	v := &View{At: now().UTC(), Plans: []Plan{}, Rows: []Row{}, Revisions: map[string]int64{}}
	sheets, faults, err := shelf.New(p).List(ctx)
	if err != nil {
		return nil, fmt.Errorf("look ahead: %w", err)
	}
	all := slices.Clone(apps)
	parsed := map[string]*plan.Plan{}
	for name, sheet := range sheets {
		v.Revisions[name] = sheet.Revision
		one := Plan{Name: name, Revision: sheet.Revision, At: sheet.At.UTC(), Site: sheet.Site, Document: sheet.Document, Findings: []preflight.Finding{}, Drills: []Drill{}}
		got, err := one.Parse()
		if err != nil {
			one.Fault = err.Error()
		} else if problems := got.Check(); len(problems) > 0 {
			one.Fault = problems[0].Error()
		} else {
			parsed[name] = got
			for _, a := range got.Applications {
				all = append(all, a.Name)
				one.Applications = append(one.Applications, a.Name)
			}
		}
		v.Plans = append(v.Plans, one)
	}
	for name, fault := range faults {
		v.Plans = append(v.Plans, Plan{Name: name, Fault: fault.Error(), Findings: []preflight.Finding{}, Drills: []Drill{}})
	}
	slices.SortFunc(v.Plans, func(a, b Plan) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(all)
	return v, v.judge(ctx, p, parsed, slices.Compact(all), now)
}

func (v *View) judge(ctx context.Context, p *vault.Project, parsed map[string]*plan.Plan, apps []string, now func() time.Time) error {
	known, err := foresight.Gather(ctx, foresight.Options{Project: p, Now: now}, apps)
	if err != nil {
		return fmt.Errorf("look ahead: %w", err)
	}
	var plans []*plan.Plan
	for i := range v.Plans {
		one := &v.Plans[i]
		got := parsed[one.Name]
		if got == nil {
			continue
		}
		plans = append(plans, got)
		one.foretell(known.Judge(ctx, got, plan.Failover, ""))
		if one.Fence, one.Unproven, err = fence(ctx, p, got, one.To); err != nil {
			return fmt.Errorf("look ahead at plan %s: %w", one.Name, err)
		}
	}
	ready := known.Ready(ctx, plans)
	v.Components = ready.Components
	for _, r := range ready.Rows {
		v.Rows = append(v.Rows, row(r))
	}
	return nil
}

// foretell notes what a look ahead found.
func (p *Plan) foretell(out *foresight.Outlook) {
	p.From, p.To, p.RTO, p.RPO = out.Input.From, out.Input.To, out.RTO, out.RPO
	p.Findings = append(p.Findings, out.Findings...)
	slices.SortStableFunc(p.Findings, func(a, b preflight.Finding) int {
		switch {
		case a.Verdict.Worse(b.Verdict):
			return -1
		case b.Verdict.Worse(a.Verdict):
			return 1
		}
		return 0
	})
	for _, past := range out.History {
		if past.Plan != p.Name || past.Verb != string(plan.Drill) || past.Canceled || len(p.Drills) == mostDrills {
			continue
		}
		d := Drill{Run: past.Run, To: past.To, At: past.At.UTC(), Good: past.Good}
		for _, rto := range past.RTO {
			d.RTO = max(d.RTO, rto)
		}
		p.Drills = append(p.Drills, d)
	}
}

// fence is what a failover would rely on at worst: a lease that every former
// holder keeps, or a person's word about those that it names.
func fence(ctx context.Context, p *vault.Project, of *plan.Plan, to string) (level string, unproven []string, err error) {
	vouched := false // somebody said it for good: no proof, and nobody is asked
	target, err := lease.Bearer(ctx, p, to)
	if err != nil {
		return "", nil, err
	}
	movers, err := lease.Movers(ctx, p, "")
	if err != nil {
		return "", nil, err
	}
	for _, app := range of.Applications {
		history, err := lease.New(p).History(ctx, app.Name)
		if err != nil {
			return "", nil, err
		}
		word, said, err := lease.Said(ctx, p, app.Name, history)
		if err != nil {
			return "", nil, err
		}
		vouched = vouched || said
		for _, site := range lease.Holders(history, movers[app.Name]) {
			if site == to || slices.Contains(unproven, site) || said && site == word.Site {
				continue
			}
			_, kept, err := lease.Leased(ctx, p, app.Name, site, target, history, movers[app.Name])
			if err != nil {
				return "", nil, err
			}
			if !kept {
				unproven = append(unproven, site)
			}
		}
	}
	slices.Sort(unproven)
	if len(unproven) > 0 || vouched {
		return failover.None.String(), unproven, nil
	}
	return failover.TimedOut.String(), nil, nil
}

func row(r readiness.Row) Row {
	out := Row{Application: r.Application, Site: r.Site, Level: r.Level.String(), Verify: r.Verify, Missing: r.Missing}
	for _, c := range r.Columns {
		out.Columns = append(out.Columns, Column{Name: c.Name, Level: c.Level.String(), Evidence: c.Evidence, At: c.At.UTC(), Missing: c.Missing})
		if c.At.IsZero() {
			out.Columns[len(out.Columns)-1].At = time.Time{}
		}
	}
	return out
}
