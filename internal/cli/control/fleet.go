package control

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/fleet"
)

func (h Host) fleetCommand() *cobra.Command {
	var project, by string
	var strict, all bool
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Sites and applications of a project: what would be lost now, against which objective, levels and drills",
		Long: `Shows a project's fleet as the console knows it: each site's last sign of life, and of each application what would be lost if its site were lost now,
the objective, its level of readiness, its last drill, and before all what needs a person. The worst comes first; --sort name, lost, level, drill, verified
or site sorts otherwise, with a - before it the other way round. Of more than 40 sites or applications it lists those that are silent or not protected,
and counts the others: --all, or an order of yours, lists all. With --fail-unprotected it ends with 4 unless all applications are protected, and there is one.`,
		Example: `  davit fleet --sort -lost
  davit fleet -o json | jq '.applications[] | select(.state != "Protected").name'`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, down := strings.CutPrefix(by, "-")
			if orders[key] == nil {
				return exit.Usage("state, name, lost, level, drill, verified or site", "the fleet is not sorted by %q", key)
			}
			return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error {
				f, err := s.Fleet(ctx, s.Project)
				if err != nil {
					return h.Explain(err)
				}
				o := overview(s.Project, f, h.Now())
				o.all = all || cmd.Flags().Changed("sort")
				slices.SortStableFunc(o.Applications, orders[key])
				if down {
					slices.Reverse(o.Applications)
				}
				if err := h.Print(o); err != nil {
					return err
				}
				return o.verdict(strict)
			})
		},
	}
	projectFlag(cmd, &project)
	cmd.Flags().StringVar(&by, "sort", "state", "state, name, lost, level, drill, verified or site; with a - before it the other way round")
	cmd.Flags().BoolVar(&all, "all", false, "list all sites and applications, however many there are")
	cmd.Flags().BoolVar(&strict, "fail-unprotected", false, "end with 4 unless all applications are protected, and there is one")
	return cmd
}

// Overview is a project's fleet.
type Overview struct {
	Project string    `json:"project"`
	Vault   string    `json:"vault,omitempty"`
	Read    time.Time `json:"read,omitzero"`    // when the vault was read
	Silent  string    `json:"silent,omitempty"` // why the vault cannot be read
	Old     string    `json:"old,omitempty"`    // why that may be old though it answers
	// Fault is why nothing newer is known of plans and levels.
	Fault        string        `json:"fault,omitempty"`
	Sites        []Site        `json:"sites"`
	Applications []Application `json:"applications"`
	Tasks        []Task        `json:"tasks"` // the most urgent first
	now          time.Time
	all          bool // it is shown whole, however large it is
}

// Bounds of what is shown of a large fleet to who did not ask for all.
const (
	few       = 40
	mostTasks = 20
	mostHeld  = 5 // applications of one site
)

// Site is a site of it.
type Site struct {
	Name       string    `json:"name"`
	Seen       time.Time `json:"seen,omitzero"`
	Silent     bool      `json:"silent,omitempty"`
	Holds      []string  `json:"holds"`
	Agent      string    `json:"agent,omitempty"`
	Davit      string    `json:"davit,omitempty"`
	Kubernetes string    `json:"kubernetes,omitempty"`
}

// Application is an application of it. Seconds are whole.
type Application struct {
	Name  string      `json:"name"`
	State fleet.State `json:"state"`
	Site  string      `json:"site,omitempty"`
	// Lost is how much work would be lost if the site were lost now; none: all of it,
	// or it is not known.
	Lost      *int64    `json:"lostSeconds,omitempty"`
	RPO       int64     `json:"rpoObjectiveSeconds,omitempty"`
	Point     string    `json:"point,omitempty"` // that it would go back to
	Level     string    `json:"level,omitempty"`
	LastDrill *Drill    `json:"lastDrill,omitempty"`
	Verified  time.Time `json:"verified,omitzero"`
	Plans     []string  `json:"plans"`
	Git       string    `json:"git,omitempty"` // what makes it from git at its site
	Fault     string    `json:"fault,omitempty"`
}

// Drill is the newest drill that is over of any plan of an application.
type Drill struct {
	Run  string    `json:"run"`
	At   time.Time `json:"at"`
	Good bool      `json:"good"`
	RTO  int64     `json:"rtoSeconds,omitempty"`
}

// Task is something that a person has to look at.
type Task struct {
	About string `json:"about"`
	Name  string `json:"name"`
	What  string `json:"what"`
	Do    string `json:"do"`
}

func overview(project string, f api.Fleet, now time.Time) *Overview {
	o := &Overview{Project: project, Silent: f.Silent, Old: f.Old, Sites: []Site{}, Applications: []Application{}, Tasks: []Task{}, now: now}
	s := f.Known
	if s == nil {
		return o
	}
	o.Vault, o.Read = s.Vault, s.At
	if s.Ahead != nil {
		o.Fault = s.Ahead.Fault
	}
	agents := make(map[string]fleet.Agent, len(f.Agents))
	for _, a := range f.Agents {
		agents[a.Site] = a
	}
	for _, site := range s.Sites {
		one := Site{Name: site.Name, Seen: site.Seen, Silent: site.Silent(now), Holds: append([]string{}, site.Holds...), Davit: site.Davit, Kubernetes: site.Kube}
		if a, there := agents[site.Name]; there {
			one.Agent = agentState(a, now)
		}
		o.Sites = append(o.Sites, one)
	}
	for _, a := range s.Worst(now) {
		o.Applications = append(o.Applications, application(a, s, now))
	}
	for _, t := range s.Tasks(now) {
		o.Tasks = append(o.Tasks, Task{About: t.About, Name: t.Name, What: t.What, Do: t.Do})
	}
	return o
}

func application(a fleet.Application, s *fleet.Snapshot, now time.Time) Application {
	known := s.Ahead
	out := Application{
		Name: a.Name, State: a.State(now), Site: a.Site, RPO: int64(a.RPO / time.Second), Level: known.Level(a.Name), Verified: a.Proven(),
		Plans: append([]string{}, known.Of(a.Name)...), Fault: a.Fault, Git: a.Git,
	}
	if p, ok := a.Newest(); ok {
		lost, _ := a.Lost(now)
		seconds := int64(lost / time.Second)
		out.Lost, out.Point = &seconds, p.ID
	}
	if d, ok := s.LastDrill(a.Name); ok {
		out.LastDrill = &Drill{Run: d.Run, At: d.At, Good: d.Good, RTO: int64(d.RTO / time.Second)}
	}
	return out
}

// verdict is how the command ends.
func (o *Overview) verdict(strict bool) error {
	bad := slices.ContainsFunc(o.Applications, func(a Application) bool { return a.State != fleet.Protected })
	if strict && (bad || len(o.Applications) == 0 || o.Silent != "" || o.Old != "") {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

// orders are how applications can be sorted, which come the worst first.
var orders = map[string]func(a, b Application) int{
	"state":    func(Application, Application) int { return 0 },
	"name":     func(a, b Application) int { return cmp.Compare(a.Name, b.Name) },
	"site":     func(a, b Application) int { return cmp.Compare(a.Site, b.Site) },
	"lost":     func(a, b Application) int { return cmp.Compare(a.lost(), b.lost()) },
	"level":    func(a, b Application) int { return cmp.Compare(rank(a.Level), rank(b.Level)) },
	"verified": func(a, b Application) int { return a.Verified.Compare(b.Verified) },
	"drill":    func(a, b Application) int { return a.drilled().Compare(b.drilled()) },
}

func (a Application) lost() int64 {
	if a.Lost == nil {
		return math.MaxInt64
	}
	return *a.Lost
}

func (a Application) drilled() time.Time {
	if a.LastDrill == nil {
		return time.Time{}
	}
	return a.LastDrill.At
}

// rank has what is not known, and then no level, come first.
func rank(level string) string { return strings.TrimPrefix(level, "none") }

// Document implements output.Result.
func (o *Overview) Document() any { return o }

// Names implements output.Named.
func (o *Overview) Names() (all []string) {
	for _, a := range o.Applications {
		all = append(all, "application/"+a.Name)
	}
	return all
}

// Text implements output.Result.
func (o *Overview) Text(t *output.Text) {
	if o.Read.IsZero() {
		t.Line("Nothing is known of project %s yet: %s", o.Project, cmp.Or(o.Silent, o.Old, "its vault has not been read yet"))
		return
	}
	t.Line("Project %s, as its vault %s had it %s.", o.Project, o.Vault, output.Ago(o.Read, o.now))
	if o.Silent != "" {
		t.Line("THE VAULT CANNOT BE READ: %s", o.Silent)
	}
	if o.Old != "" {
		t.Line("What is shown may be old, or not whole: %s.", o.Old)
	}
	if o.Fault != "" {
		t.Line("Plans and levels may be old: %s", o.Fault)
	}
	o.tasks(t)
	t.Line("")
	o.sites(t)
	t.Line("")
	o.applications(t)
}

func (o *Overview) tasks(t *output.Text) {
	if len(o.Tasks) > 0 {
		t.Section("To look at, the most urgent first:")
	}
	for i, task := range o.Tasks {
		if !o.all && i == mostTasks {
			t.Line("  … and %d more: --all lists them", len(o.Tasks)-i)
			break
		}
		t.Line("  %s %s: %s", task.About, task.Name, task.What)
		t.Line("      %s", task.Do)
	}
}

func (o *Overview) sites(t *output.Text) {
	var rows [][]string
	shown := slices.Clone(o.Sites)
	slices.SortStableFunc(shown, func(a, b Site) int { return cmp.Compare(living(a), living(b)) })
	if !o.all && len(shown) > few {
		shown = slices.DeleteFunc(shown, func(s Site) bool { return !s.Silent })
		t.Line("%d sites, of which %d are silent; --all lists them.", len(o.Sites), len(shown))
		if len(shown) == 0 {
			return
		}
	}
	for _, s := range shown {
		seen := output.Ago(s.Seen, o.now)
		if s.Silent {
			seen += ", SILENT"
		}
		holds := strings.Join(s.Holds, ",")
		if more := len(s.Holds) - mostHeld; !o.all && more > 0 {
			holds = strings.Join(s.Holds[:mostHeld], ",") + fmt.Sprintf(",… and %d more", more)
		}
		rows = append(rows, []string{s.Name, seen, holds, s.Agent, s.Davit, s.Kubernetes})
	}
	t.Table("", output.Columns("SITE", "LAST SIGN", "HOLDS", "AGENT", "+DAVIT", "+KUBERNETES"), rows)
}

// living has silent sites come first, and of those the ones that hold something.
func living(s Site) int {
	switch {
	case s.Silent && len(s.Holds) > 0:
		return 0
	case s.Silent:
		return 1
	}
	return 2
}

func (o *Overview) applications(t *output.Text) {
	if len(o.Applications) == 0 {
		t.Line("Nothing is protected yet.")
		return
	}
	var rows [][]string
	shown := o.Applications
	if !o.all && len(shown) > few {
		shown = slices.DeleteFunc(slices.Clone(shown), func(a Application) bool { return a.State == fleet.Protected })
		t.Line("%d applications, of which %d are not protected; --all lists them.", len(o.Applications), len(shown))
		if len(shown) == 0 {
			return
		}
	}
	for _, a := range shown {
		lost, objective := "everything", ""
		if a.Lost != nil {
			lost = output.Duration(time.Duration(*a.Lost) * time.Second)
		}
		if a.RPO > 0 {
			objective = output.Duration(time.Duration(a.RPO) * time.Second)
		}
		rows = append(rows, []string{a.Name, string(a.State), a.Site, lost, objective, a.Level, o.drill(a.LastDrill), output.Ago(a.Verified, o.now), strings.Join(a.Plans, ","), a.Point, a.Git})
	}
	t.Table("", output.Columns("APPLICATION", "STATE", "SITE", "LOST NOW", "OBJECTIVE", "LEVEL", "LAST DRILL", "VERIFIED", "PLANS", "+POINT", "+OWNED BY GIT"), rows)
}

func (o *Overview) drill(d *Drill) string {
	switch {
	case d == nil:
		return "never"
	case d.Good:
		return output.Ago(d.At, o.now) + ", good"
	}
	return output.Ago(d.At, o.now) + ", FAILED"
}
