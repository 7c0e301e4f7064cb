package forecast

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/readiness"
	"davit.dev/davit/internal/shelf"
)

// Readiness makes `readiness`.
func (h *Host) Readiness() *cobra.Command {
	a := &asked{}
	var files []string
	cmd := &cobra.Command{
		Use:   "readiness [APP...]",
		Short: "How ready applications are to be lost, from evidence",
		Long: `Computes for every application, and every site that it could go to, a level from 0 to 3: the least of backups, procedures,
infrastructure, apps and DNS. Each has its evidence with a date; evidence ages, and what changed since the last drill or run needs
verification (docs/readiness.md). It also says of each part of a cluster that recovery depends on what covers it. Plans are those of
the cluster, of -f, and those that the vault alone has, which are named. It changes nothing.`,
		Example: `  davit readiness
  davit readiness shop -f shop.yaml -o wide`,
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			v, err := h.readiness(ctx, cmd, a, files, given)
			if err != nil {
				return err
			}
			return h.Print(*v)
		},
	}
	cmd.Flags().StringSliceVarP(&files, "file", "f", nil, "file with a plan; may be repeated")
	a.flags(cmd.Flags())
	_ = cmd.Flags().MarkHidden("to") // every site is looked at
	return cmd
}

func (h *Host) readiness(ctx context.Context, cmd *cobra.Command, a *asked, files, only []string) (*Ready, error) {
	var planned []*plan.Plan
	for _, file := range files {
		p, err := h.Read(file)
		if err != nil {
			return nil, err
		}
		planned = append(planned, p)
	}
	at, err := h.open(ctx, cmd, a)
	if err != nil {
		return nil, err
	}
	planned, kept, err := at.vaultPlans(ctx, at.clusterPlans(ctx, planned), only)
	if err != nil {
		return nil, err
	}
	apps, err := at.in.Project.Apps(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range only {
		if !slices.Contains(apps, name) {
			return nil, exit.Refuse("`status` lists them", "the vault knows no application %s", name)
		}
	}
	for _, p := range planned {
		for _, app := range p.Applications {
			apps = append(apps, app.Name)
		}
	}
	slices.Sort(apps)
	h.Progress().Step("asking vault, sites, registries and name servers")
	known, err := foresight.Gather(ctx, at.options("", planned...), slices.Compact(apps))
	if err != nil {
		return nil, err
	}
	r := known.Ready(ctx, planned)
	v := &Ready{Applications: r.Rows, Components: r.Components, VaultPlans: kept, now: h.Now()}
	v.Applications = slices.DeleteFunc(v.Applications, func(r readiness.Row) bool { return len(only) > 0 && !slices.Contains(only, r.Application) })
	return v, nil
}

// clusterPlans adds the plans that the cluster serves and that no file gave.
// One that cannot be asked, or does not know the kind, has none.
func (h *here) clusterPlans(ctx context.Context, given []*plan.Plan) []*plan.Plan {
	var list v1alpha1.RecoveryPlanList
	if h.cluster == nil || h.cluster.List(ctx, &list) != nil {
		return given
	}
	for i := range list.Items {
		p := document.Convert(&list.Items[i])
		if !slices.ContainsFunc(given, func(o *plan.Plan) bool { return o.Name == p.Name }) {
			given = append(given, p)
		}
	}
	return given
}

// vaultPlans adds the plans that the vault alone has, as a run would find them by their
// names: where applications are asked for, those that move one of them. It names what it
// added. One that cannot be read is left out, and said.
func (h *here) vaultPlans(ctx context.Context, given []*plan.Plan, only []string) (all []*plan.Plan, added []string, err error) {
	sheets, errs, err := shelf.New(h.in.Project).List(ctx)
	if err != nil {
		return nil, nil, err
	}
	all = given
	for _, name := range slices.Sorted(maps.Keys(sheets)) {
		if slices.ContainsFunc(given, func(p *plan.Plan) bool { return p.Name == name }) {
			continue
		}
		found, err := plans.Parse(sheets[name])
		if err != nil {
			errs[name] = err
			continue
		}
		p := found.Plan()
		if len(only) == 0 || slices.ContainsFunc(p.Applications, func(a plan.Application) bool { return slices.Contains(only, a.Name) }) {
			all, added = append(all, p), append(added, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(errs)) {
		h.Progress().Note("warning: plan %s is left out: %v", name, errs[name])
	}
	return all, added, nil
}

// Ready is what `readiness` found.
type Ready struct {
	Applications []readiness.Row       `json:"applications"`
	Components   []readiness.Component `json:"components"`
	// VaultPlans are those that the vault alone has.
	VaultPlans []string `json:"vaultPlans,omitempty"`
	now        time.Time
}

// Document implements output.Result.
func (v Ready) Document() any { return v }

// Text implements output.Result.
func (v Ready) Text(t *output.Text) {
	if len(v.Applications) == 0 {
		t.Line("The vault knows no application.")
	} else {
		t.Table("", output.Columns("APPLICATION", "TO SITE", "LEVEL", "BACKUPS", "PROCEDURES", "INFRASTRUCTURE", "APPS", "DNS", "VERIFY"), v.rows())
	}
	for _, r := range v.Applications {
		if !t.Wide && len(r.Missing) == 0 && r.Verify == "" {
			continue
		}
		t.Section(fmt.Sprintf("%s to site %s", r.Application, r.Site))
		if r.Verify != "" {
			t.Line("  Needs verification: %s.", r.Verify)
		}
		for _, missing := range r.Missing {
			t.Line("  For level %s: %s.", r.Level+1, strings.TrimSuffix(missing, "."))
		}
		if t.Wide {
			t.Table("  ", output.Columns("COLUMN", "LEVEL", "EVIDENCE", ">AGE", "MISSING"), v.columns(r))
		}
	}
	if len(v.VaultPlans) > 0 {
		t.Section("Plans of the vault alone: " + strings.Join(v.VaultPlans, ", "))
		t.Line("No cluster that was asked has them; runs find them by their names. Applied (`plan show NAME -o yaml`), they are drilled on schedule and judged there as well.")
	}
	t.Section("What recovery of a cluster depends on")
	var rows [][]string
	for _, c := range v.Components {
		covered := "no"
		if c.Covered {
			covered = "yes"
		}
		proven := output.Age(c.Proven, v.now)
		if c.Covered && proven == "" {
			proven = "never"
		}
		rows = append(rows, []string{c.Name, covered, proven, c.By})
	}
	t.Table("", output.Columns("COMPONENT", "COVERED", "PROVEN", "BY"), rows)
}

func (v Ready) rows() [][]string {
	var rows [][]string
	for _, r := range v.Applications {
		row := []string{r.Application, r.Site, r.Level.String()}
		for _, c := range r.Columns {
			row = append(row, c.Level.String())
		}
		verify := ""
		if r.Verify != "" {
			verify = "needed"
		}
		rows = append(rows, append(row, verify))
	}
	return rows
}

func (v Ready) columns(r readiness.Row) [][]string {
	var rows [][]string
	for _, c := range r.Columns {
		rows = append(rows, []string{c.Name, c.Level.String(), c.Evidence, output.Age(c.At, v.now), c.Missing})
	}
	return rows
}
