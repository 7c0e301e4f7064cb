package running

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/spf13/cobra"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
)

// PlanLs makes `plan ls`.
func PlanLs(h *Host) *cobra.Command {
	var a access.Address
	cmd := &cobra.Command{
		Use: "ls", Short: "List the plans of this cluster and of its vault", Args: operands(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			in, cluster, err := h.look(ctx, cmd, &a)
			if err != nil {
				return err
			}
			sheets, errs, err := shelf.New(in.Project).List(ctx)
			if err != nil {
				return err
			}
			rows := map[string]*PlanRow{}
			for name, sheet := range sheets {
				rows[name] = &PlanRow{Name: name, Revision: sheet.Revision, Site: sheet.Site, Written: sheet.At}
				if f, err := plans.Parse(sheet); err == nil {
					rows[name].Applications = len(f.Object.Spec.Applications)
				}
			}
			for name, err := range errs {
				rows[name] = &PlanRow{Name: name, Note: err.Error()}
			}
			here, err := served(ctx, cluster)
			if err != nil {
				return err
			}
			for i := range here.Items {
				p := &here.Items[i]
				if rows[p.Name] == nil {
					rows[p.Name] = &PlanRow{Name: p.Name, Applications: len(p.Spec.Applications)}
				}
				rows[p.Name].of(p)
			}
			list := PlanList{Plans: []PlanRow{}, now: h.Now(), asked: cluster != nil}
			for _, name := range slices.Sorted(maps.Keys(rows)) {
				list.Plans = append(list.Plans, *rows[name])
			}
			return h.Print(list)
		},
	}
	a.BreakGlass(cmd.Flags())
	return cmd
}

// served are the plans that the cluster has, if there is one that knows of plans.
func served(ctx context.Context, cluster wiring.Cluster) (v1alpha1.RecoveryPlanList, error) {
	var here v1alpha1.RecoveryPlanList
	if cluster == nil {
		return here, nil
	}
	err := cluster.List(ctx, &here)
	if err != nil && !meta.IsNoMatchError(err) && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
		return here, fmt.Errorf("list RecoveryPlans: %w", err)
	}
	return here, nil
}

// of adds what the cluster says of a plan.
func (r *PlanRow) of(p *v1alpha1.RecoveryPlan) {
	r.Here, r.At = true, p.Status.At
	if c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady); c != nil && c.Status != "True" {
		r.Note = c.Message
	}
	if run := p.Status.LastRun; run != nil {
		r.LastRun = run.Verb + " " + run.Phase
	}
	if drill := p.Status.LastDrill; drill != nil {
		r.LastDrill = cmp.Or(drill.Verdict, drill.Phase)
	}
}

// PlanShow makes `plan show`.
func PlanShow(h *Host) *cobra.Command {
	var a access.Address
	cmd := &cobra.Command{
		Use: "show PLAN", Short: "Show a plan as the vault keeps it", Args: operands(1, 1, "one PLAN"),
		Long: `Shows the plan that a run would follow now: what the vault keeps, or what the cluster serves if that is not in the vault yet. With
-o yaml it can be written to a file, and applied to another cluster.`,
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			in, cluster, err := h.look(ctx, cmd, &a)
			if err != nil {
				return err
			}
			found, err := plans.Find(ctx, cluster, in.Project, given[0])
			if errors.Is(err, plans.ErrUnknown) {
				return exit.Refuse("`plan ls` lists those that there are", "neither this cluster nor the vault has a plan %q", given[0])
			}
			if err != nil {
				return err
			}
			document, err := plans.Document(found.Object)
			if err != nil {
				return err
			}
			here, err := plans.Here(ctx, cluster, given[0])
			if err != nil {
				return err
			}
			shown := Shown{found: found, document: document, here: here, now: h.Now()}
			if p := found.Plan(); p.Fence.Promises {
				shown.unread = shown.ask(ctx, in.Project, p)
			}
			return h.Print(shown)
		},
	}
	a.BreakGlass(cmd.Flags())
	return cmd
}

// PlanRow is a plan in a list.
type PlanRow struct {
	Name         string    `json:"name"`
	Applications int       `json:"applications"`
	Here         bool      `json:"here"` // this cluster serves it
	At           string    `json:"at,omitempty"`
	Revision     int64     `json:"revision,omitempty"` // in the vault
	Site         string    `json:"site,omitempty"`     // that wrote it there
	Written      time.Time `json:"written,omitzero"`
	LastRun      string    `json:"lastRun,omitempty"`
	LastDrill    string    `json:"lastDrill,omitempty"`
	Note         string    `json:"note,omitempty"`
}

// PlanList is all plans.
type PlanList struct {
	Plans []PlanRow `json:"plans"`
	now   time.Time
	asked bool // a cluster was
}

// Document implements output.Result.
func (l PlanList) Document() any { return l }

// Text implements output.Result.
func (l PlanList) Text(t *output.Text) {
	if len(l.Plans) == 0 {
		t.Line("There is no plan yet: docs/plans.md shows one. kubectl apply makes it known.")
		return
	}
	var rows [][]string
	for _, p := range l.Plans {
		kept := "not in the vault"
		if p.Revision > 0 {
			kept = fmt.Sprintf("revision %d by %s, %s", p.Revision, p.Site, output.Ago(p.Written, l.now))
		}
		if l.asked && !p.Here && p.Note == "" {
			p.Note = "in the vault alone: runs find it there; this cluster does not have it"
		}
		rows = append(rows, []string{p.Name, fmt.Sprint(p.Applications), p.At, kept, p.LastRun, p.LastDrill, output.Short(output.OneLine(p.Note), 80)})
	}
	t.Table("", output.Columns("PLAN", ">APPLICATIONS", "AT", "VAULT", "LAST RUN", "LAST DRILL", "NOTE"), rows)
}

// Shown is one plan.
type Shown struct {
	found    plans.Found
	document []byte
	here     *v1alpha1.RecoveryPlan // as the cluster serves it; nil: it does not
	promised []preflight.Promised   // of a plan that wants promises
	sites    map[string]*preflight.Site
	unread   error // why nobody knows of them
	now      time.Time
}

// Document implements output.Result.
func (s Shown) Document() any { return rawJSON(s.document) }

// rawJSON is a document that is JSON already.
type rawJSON []byte

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

// Text implements output.Result.
func (s Shown) Text(t *output.Text) {
	p := s.found.Plan()
	kept := "this cluster's; the vault does not hold it as it is"
	if s.found.Revision > 0 {
		kept = fmt.Sprintf("revision %d in the vault, by site %s", s.found.Revision, s.found.Site)
	}
	var sites, apps []string
	for _, site := range p.Sites {
		sites = append(sites, site.Name)
	}
	for _, app := range p.Applications {
		apps = append(apps, app.Name)
	}
	t.Fields("", "Plan", p.Name, "Kept", kept, "Sites", strings.Join(sites, ", "), "Applications", strings.Join(apps, ", "))
	for _, problem := range p.Check() {
		t.Line("Problem: %s", problem.Error())
	}
	s.declares(t, p)
	s.promises(t)
	s.drills(t)
	t.Line("-o yaml shows all of it.")
}

// declares says who declares, and what is seen where this site would take over.
func (s Shown) declares(t *output.Text, p *plan.Plan) {
	if !p.Declaration.Automatic {
		t.Line("A person declares.")
		return
	}
	if s.here != nil {
		if d := view.OfDeclaration(s.here); d != nil {
			d.Text(t, p.Name, s.now)
			return
		}
	}
	t.Line("Declared automatically, by %s, at the site that would take over: plan show says more there.", strings.Join(p.Declaration.Vantages, ", "))
}

// ask reads whose promises there are. The plan is shown without: one damaged object must not keep it from whoever
// has to write it down.
func (s *Shown) ask(ctx context.Context, project *vault.Project, p *plan.Plan) (err error) {
	if s.promised, err = foresight.Promises(ctx, project, p); err == nil {
		s.sites, _, err = bulletin.Read(ctx, project)
	}
	return err
}

// promises says whose promises each application may run on by while the vault is silent, and
// what those last answered the site that holds it.
func (s Shown) promises(t *output.Text) {
	if s.unread != nil {
		t.Line("Promises: could not be read: %s", output.OneLine(s.unread.Error()))
		return
	}
	var rows [][]string
	for _, p := range s.promised {
		row := []string{p.Application, p.Site, "nobody: no lease", "", ""}
		if p.Leased {
			row[2], row[3] = "nobody", "no: the vault alone renews its lease"
		}
		if p.Stated {
			row[3] = "yes"
		}
		var of, said []string
		for _, peer := range p.Peers {
			of = append(of, peer.Site+" ("+peer.Address+")")
			word := peer.Site + " was not asked of late"
			if a := p.Answer(s.sites[p.Site], peer); a != nil && a.Err != "" {
				word = peer.Site + " promises nothing, " + output.Ago(a.At, s.now) + ": " + output.OneLine(a.Err)
			} else if a != nil {
				word = peer.Site + " would promise, " + output.Ago(a.At, s.now)
			}
			said = append(said, word)
		}
		if len(of) > 0 {
			row[2], row[4] = strings.Join(of, ", "), strings.Join(said, "; ")
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		t.Line("Promises while the vault is silent:")
		t.Table("  ", output.Columns("APPLICATION", "HELD BY", "ASKED OF", "NODES ASK", "ANSWERS"), rows)
	}
}

// drills says how the last drill went, as far as this site knows, and when the
// next is due here.
func (s Shown) drills(t *output.Text) {
	if s.here == nil {
		return
	}
	last, next := "none that this site knows of", "none on schedule"
	if d := s.here.Status.LastDrill; d != nil {
		last = fmt.Sprintf("%s at %s: %s", d.Name, d.To, cmp.Or(d.Verdict, d.Phase))
		if d.EndedAt != nil {
			last += fmt.Sprintf(" on %s, %s ago; `davit runs report %s` has its signed report", d.EndedAt.UTC().Format(time.RFC3339), output.Age(d.EndedAt.Time, s.now), d.Name)
		}
		if d.Message != "" {
			last += ": " + output.OneLine(d.Message)
		}
	}
	if d := s.here.Status.NextDrill; d != nil {
		next = d.UTC().Format(time.RFC3339)
	}
	if c := meta.FindStatusCondition(s.here.Status.Conditions, v1alpha1.ConditionDrilled); c != nil && c.Status != "True" {
		next += " (" + output.OneLine(c.Message) + ")"
	}
	t.Fields("", "Last drill", last, "Next drill here", next)
}
