package running

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/forecast"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/preflight"
)

// order is what `failover` or `switchover` was asked.
type order struct {
	access.Address
	verb                 plan.Verb
	file, to, reason     string
	lost                 []string
	yes, dryRun, accepts bool
}

// Failover makes `failover`.
func Failover(h *Host) *cobra.Command {
	o := order{verb: plan.Failover}
	cmd := &cobra.Command{
		Use:   "failover -f PLAN",
		Short: "Bring a plan's applications up here: their site is lost",
		Long: `Carries a recovery plan out, here, at the target: claims each application's epoch, restores its data, objects and workloads from
the newest recovery point, in the plan's order, waits until all is ready and answers its probes. It works with your own rights, and
waits for the lost site no longer than the plan's fence.timeout.

Before anything starts here, every site that ever held the applications must have stopped. A site that still lives is asked
through the vault, and proves it; that is reported as the level of the fence. Where nothing proves it the run pauses; --lost SITE says
beforehand that you made sure of it.

The run is a journal in the vault: when this command is killed, "davit runs take-over" goes on where it was.`,
		Example: `  davit failover -f shop.yaml --to west --dry-run
  davit failover -f shop.yaml --to west --lost east`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.file == "" {
				return exit.Usage("give -f FILE", "failover needs a plan")
			}
			return h.order(cmd, &o)
		},
	}
	flags := o.flags(cmd)
	flags.StringSliceVar(&o.lost, "lost", nil, "site that you made sure has stopped; may be repeated")
	flags.BoolVar(&o.accepts, "accept-asked", false, "go on once a site said that it was asked to stop, without proof that it has")
	return cmd
}

// Switchover makes `switchover`.
func Switchover(h *Host) *cobra.Command {
	o := order{verb: plan.Switchover}
	cmd := &cobra.Command{
		Use:   "switchover -f PLAN",
		Short: "Move a plan's applications here from a site that lives, losing nothing",
		Long: `Carries a recovery plan out, here, at the target, while the site that holds the applications lives: brings them to rest there,
captures what was written last, claims each application's epoch, and brings them up here from that recovery point. No write that
was acknowledged is lost. The other site's agent is asked through the vault; it must have one, of this version.

Until clients can reach the target (its traffic steps, or its workloads where the plan has none), any error takes all of it back: the
applications run at their old site again. From then on the run pauses, for to go back would lose what clients wrote.

The run is a journal in the vault: when this command is killed, "davit runs take-over" goes on where it was.`,
		Example: `  davit switchover -f shop.yaml --to west --dry-run
  davit switchover -f shop.yaml --to west --reason "maintenance of east"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.file == "" {
				return exit.Usage("give -f FILE", "switchover needs a plan")
			}
			return h.order(cmd, &o)
		},
	}
	o.flags(cmd)
	return cmd
}

// flags are those of both verbs.
func (o *order) flags(cmd *cobra.Command) *pflag.FlagSet {
	flags := cmd.Flags()
	flags.StringVarP(&o.file, "file", "f", "", `file with the plan; "-" is standard input`)
	flags.StringVar(&o.to, "to", "", "site to bring the applications up at: this one (default: this site)")
	flags.StringVar(&o.reason, "reason", "", "why, for the journal")
	flags.BoolVar(&o.yes, "yes", false, "do not ask")
	flags.BoolVar(&o.dryRun, "dry-run", false, "check everything, say what would be done and lost, change nothing")
	o.BreakGlass(flags)
	return flags
}

func (h *Host) order(cmd *cobra.Command, o *order) error {
	p, err := h.Read(o.file)
	if err != nil {
		return err
	}
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	at, err := h.open(ctx, cmd, &o.Address, o.to)
	if err != nil {
		return err
	}
	if o.to != "" && o.to != at.in.Site {
		return exit.Refuse("give the kubeconfig of the target: a run is carried there", "--to %s: this is site %s", o.to, at.in.Site)
	}
	spec, err := at.spec(p, o)
	if err != nil {
		return err
	}
	h.Progress().Step("looking at vault and cluster")
	facts, err := at.site.Evaluate(ctx, *spec)
	if err != nil {
		return err
	}
	if spec.From, err = from(p, spec.To, facts); err != nil {
		return err
	}
	for _, site := range o.lost {
		if !slices.ContainsFunc(p.Applications, func(a plan.Application) bool { return slices.Contains(facts.Holders[a.Name], site) }) {
			return exit.Refuse("`runs show` and `describe` name the sites of an application", "--lost %s: that site holds nothing that the run takes over", site)
		}
	}
	outlook := at.outlook(ctx, spec, facts, o.lost)
	if o.dryRun || !o.yes {
		outlook.Ahead, outlook.Blind = at.ahead(ctx, p, spec)
	}
	if o.dryRun {
		if err := h.Print(outlook); err != nil || len(facts.Problems) == 0 {
			return err
		}
		return exit.Quietly(exit.Refused)
	}
	if len(facts.Problems) > 0 {
		return exit.Refuse("solve that, and give the command again", "nothing was changed: %s", facts.Problems[0])
	}
	if !o.yes {
		h.Progress().Done()
		var t output.Text
		outlook.Text(&t)
		fmt.Fprint(h.Err, t.String())
		if err := h.AskFor(p.Name, "the plan's name"); err != nil {
			return err
		}
	}
	state, err := at.launch(ctx, *spec, nil)
	at.tidy(ctx, *spec)
	return at.conclude(state, err)
}

// spec is the run, but for where the applications are now.
func (h *here) spec(p *plan.Plan, o *order) (*failover.Spec, error) {
	if problems := p.Check(); len(problems) > 0 {
		return nil, exit.Refuse("`plan validate` says all that is wrong", "%s: %w", p.Name, problems[0])
	}
	known := func(site string) bool {
		return slices.ContainsFunc(p.Sites, func(s plan.Site) bool { return s.Name == site })
	}
	if !known(h.in.Site) {
		return nil, exit.Refuse("add it to the plan's sites, or give the kubeconfig of one of them", "plan %s does not name this site, %s", p.Name, h.in.Site)
	}
	for _, s := range p.Sites {
		if len(s.Mappings) > 0 {
			return nil, exit.Refuse("write an overlay of the site instead (docs/restore.md)", "site %s: mappings are not carried out by this davit", s.Name)
		}
	}
	g, err := p.Graph(o.verb)
	if err != nil {
		return nil, err
	}
	now := h.Now().UTC()
	s := &failover.Spec{
		Run: fmt.Sprintf("%s-%s-%s", p.Name, o.verb, now.Format("20060102-150405")), Plan: p.Name, Verb: o.verb, To: h.in.Site,
		By: h.user, Reason: o.reason, At: now, Accept: failover.TimedOut, Lost: o.lost, Steps: g.Steps, Fence: p.Fence, Commit: p.Commit, Objectives: p.Objectives,
	}
	if o.accepts {
		s.Accept = failover.Asked
	}
	for _, a := range p.Applications {
		s.Applications = append(s.Applications, a.Name)
	}
	slices.Sort(s.Applications)
	for _, a := range p.Approvals {
		if len(a.Verbs) == 0 || slices.Contains(a.Verbs, o.verb) {
			s.Approvals = max(s.Approvals, a.Count)
		}
	}
	for i := range s.Steps { // what applications need is asked from here
		for _, out := range p.Outside {
			if s.Steps[i].Kind == plan.KindOutside && s.Steps[i].Object == out.Name {
				s.Steps[i].Checks = []plan.Check{out.Probes[s.To]}
			}
		}
	}
	return s, nil
}

// from is the site that holds the applications.
func from(p *plan.Plan, to string, facts *failover.Facts) (string, error) {
	site := ""
	for _, a := range p.Applications {
		held, ok := facts.Epochs[a.Name]
		switch {
		case !ok:
			return "", exit.Refuse("`davit points "+a.Name+"` shows what the vault holds", "no site ever held %s", a.Name)
		case held.Site == to:
			return "", exit.Refuse("`status` shows it", "%s is at site %s already, by epoch %d", a.Name, to, held.Number)
		case site != "" && site != held.Site:
			return "", exit.Refuse("make a plan for each site's applications", "%s is at site %s and others at %s", a.Name, held.Site, site)
		}
		site = held.Site
	}
	return site, nil
}

// outlook is what a failover would do and lose.
func (h *here) outlook(ctx context.Context, s *failover.Spec, facts *failover.Facts, lost []string) Outlook {
	o := Outlook{Verb: s.Verb, Plan: s.Plan, From: s.From, To: s.To, Problems: facts.Problems, Fence: failover.None.String(), now: h.Now()}
	protector := h.in.Protector(h.Now)
	for _, app := range s.Applications {
		a := OutlookApp{Name: app, Epoch: facts.Epochs[app].Number, Holders: facts.Holders[app]}
		if _, points, err := protector.Points(ctx, app); err == nil {
			if newest, ok := point.Newest(points, time.Time{}); ok {
				a.Point, a.Instant = newest.ID, newest.Instant
			}
		}
		for _, site := range a.Holders {
			if _, leased := facts.Terms[site]; !leased && !slices.Contains(lost, site) {
				o.Unproven = append(o.Unproven, site)
			}
		}
		o.Applications = append(o.Applications, a)
	}
	if len(o.Unproven) == 0 && len(lost) == 0 {
		o.Fence = failover.TimedOut.String()
	}
	slices.Sort(o.Unproven)
	o.Unproven = slices.Compact(o.Unproven)
	for _, step := range s.Steps {
		o.Steps = append(o.Steps, step.Name)
	}
	return o
}

// lookPatience bounds how long a person waits for what is known beforehand.
const lookPatience = 20 * time.Second

// ahead is what is known beforehand of the run; why not, otherwise. A run waits for
// neither: it looks for itself at what it needs.
func (h *here) ahead(ctx context.Context, p *plan.Plan, s *failover.Spec) (*forecast.Sites, string) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	h.Progress().Step("looking at the sites, and at earlier runs")
	o := forecast.Options(h.in, []wiring.Cluster{h.cluster}, h.Now)
	o.Names = func(ctx context.Context, p *plan.Plan) []preflight.Name { return h.cluster.Rehearse(ctx, p, h.Now) }
	out, err := foresight.Look(ctx, o, p, s.Verb, s.To)
	if err != nil {
		return nil, err.Error()
	}
	v := forecast.OfOutlook(out)
	return &v, ""
}

// launch opens the run and carries it. A drill ends when stop is closed.
func (h *here) launch(ctx context.Context, s failover.Spec, stop <-chan struct{}) (*failover.State, error) {
	m, err := failover.New(h.process, s)
	if err != nil {
		return nil, err
	}
	held, release, err := h.site.Hold(ctx, s.Run, h.process)
	if err != nil {
		return nil, err
	}
	defer release()
	return h.carry(held, s.Run, m, journal.Create(h.in.Project, s.Run, h.process), h.wishes(s, failover.Facts{}, &until{Box: h.box}, stop), settled)
}
