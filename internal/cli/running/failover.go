package running

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/equipping"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/forecast"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/drill"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/register"
)

// order is what `failover` or `switchover` was asked.
type order struct {
	access.Address
	equipping.Way
	verb                 plan.Verb
	file, name           string
	to, reason           string
	lost, despite        []string
	points               map[string]string
	asOf                 string
	yes, dryRun, accepts bool
	background, wait     bool
}

// from reads which plan is meant: one that the vault or the cluster has, or a file.
func (o *order) from(given []string) error {
	switch {
	case len(given) > 1 || len(given) == 1 && o.file != "":
		return exit.Usage("", "%s takes one PLAN, or -f FILE", o.verb)
	case len(given) == 0 && o.file == "":
		return exit.Usage("`plan ls` lists plans; -f FILE reads one from a file", "%s needs a plan", o.verb)
	case o.background && o.file != "":
		return exit.Usage("apply the plan to this cluster, and give its name", "--background carries out plans that the vault keeps, not files")
	case o.background && o.dryRun, o.wait && !o.background:
		return exit.Usage("", "--dry-run and --background exclude each other, and --wait is for --background")
	case len(o.points) > 0 && o.asOf != "":
		return exit.Usage("", "give --point or --as-of, not both")
	}
	if len(given) == 1 {
		o.name = given[0]
	}
	return nil
}

// Failover makes `failover`.
func Failover(h *Host) *cobra.Command {
	o := order{verb: plan.Failover}
	cmd := &cobra.Command{
		Use:   "failover PLAN | -f FILE",
		Short: "Bring a plan's applications up here: their site is lost",
		Long: `Carries a recovery plan out, here, at the target: claims each application's epoch, restores its data, objects and workloads from
the newest recovery point, in the plan's order, waits until all is ready and answers its probes. It works with your own rights, and
waits for the lost site no longer than the plan's fence.timeout.

Before anything starts here, every site that ever held the applications must have stopped. A site that still lives is asked
through the vault, and proves it; that is reported as the level of the fence. Where nothing proves it the run pauses; --lost SITE says
beforehand that you made sure of it.

The run is a journal in the vault: when this command is killed, the agent here goes on where it was, and where there is none "davit
runs take-over" does. With --background the agent here carries the run from the start, with the rights of the plan's account.

Where this cluster has no Davit, the vault's address, its credentials and the recovery key are enough: with --vault-url and --image the
run says what it would do first, and once you agree, or with --install, it installs Davit here under the name of --to, and joins the
vault. Interrupted, the same command goes on.`,
		Example: `  davit failover shop --to west --dry-run
  davit failover shop --to west --lost east
  davit failover -f shop.yaml --to west --as-of 2026-11-27T04:00:00Z
  davit failover shop --to west --lost east --install --image registry.example.com/davit:v1 \
      --vault-url s3://backups/davit --endpoint https://s3.example.com --recovery-key-file ./davit-recovery.key`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := o.from(given); err != nil {
				return err
			}
			return h.order(cmd, &o)
		},
	}
	flags := o.flags(cmd)
	o.losses(flags, "site that you made sure has stopped; may be repeated")
	flags.StringToStringVar(&o.points, "point", nil, "APPLICATION=POINT to bring back, instead of the newest; may be repeated")
	flags.StringVar(&o.asOf, "as-of", "", "bring back the newest points that are not after this time (RFC 3339)")
	flags.BoolVar(&o.accepts, "accept-asked", false, "go on once a site said that it was asked to stop, without proof that it has")
	o.Way.Flags(flags)
	return cmd
}

// Switchover makes `switchover`.
func Switchover(h *Host) *cobra.Command {
	o := order{verb: plan.Switchover}
	cmd := &cobra.Command{
		Use:   "switchover PLAN | -f FILE",
		Short: "Move a plan's applications here from a site that lives, losing nothing",
		Long: `Carries a recovery plan out, here, at the target, while the site that holds the applications lives: brings them to rest there,
captures what was written last, claims each application's epoch, and brings them up here from that recovery point. No write that
was acknowledged is lost. The other site's agent is asked through the vault; it must have one, of this version. So is every further site
that ever held the applications: one that is gone for good, and kept no lease, is named with --lost.

Until clients can reach the target (its traffic steps, or its workloads where the plan has none), any error takes all of it back: the
applications run at their old site again. From then on the run pauses, for to go back would lose what clients wrote.

The run is a journal in the vault: when this command is killed, the agent here goes on where it was, and where there is none "davit
runs take-over" does. With --background the agent here carries the run from the start, with the rights of the plan's account.`,
		Example: `  davit switchover shop --to west --dry-run
  davit switchover shop --to west --background --reason "maintenance of east"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := o.from(given); err != nil {
				return err
			}
			return h.order(cmd, &o)
		},
	}
	flags := o.flags(cmd)
	o.heeds(flags)
	o.losses(flags, beside)
	o.Way.Flags(flags)
	return cmd
}

// Failback makes `failback`.
func Failback(h *Host) *cobra.Command {
	o := order{verb: plan.Failback}
	cmd := &cobra.Command{
		Use:   "failback PLAN | -f FILE",
		Short: "Bring a plan's applications back here, to the site that they were failed over from",
		Long: `Carries a recovery plan out, here, at the site that ran the applications before and was superseded: what only this site still has is captured
once more, under the epoch that it held, quarantined and pinned; the run names the recovery point. Then the volumes that are here are brought up to
date while the applications still run at the other site: what is here already is not fetched again, and the run reports the bytes. What follows is
a switchover: the applications come to rest there, are captured, and start here. No write that was acknowledged since the failover is lost.

Nothing fails back by itself. This site's agent must run, and have brought what was here to rest. Until clients can reach this site, any error takes
all of it back: the applications run at the other site again; the recovery point stays.`,
		Example: `  davit failback shop --to east --dry-run
  davit failback shop --to east --reason "east is back"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := o.from(given); err != nil {
				return err
			}
			return h.order(cmd, &o)
		},
	}
	flags := o.flags(cmd)
	o.heeds(flags)
	o.losses(flags, beside)
	return cmd
}

// beside says what sites a planned move takes for lost: never the one that it goes from.
const beside = "further site that held the applications before, and that you made sure has stopped; may be repeated"

func (o *order) losses(flags *pflag.FlagSet, usage string) {
	flags.StringSliceVar(&o.lost, "lost", nil, usage)
}

// heeds adds the flag of the verbs that are refused for what a check finds.
func (o *order) heeds(flags *pflag.FlagSet) {
	flags.StringSliceVar(&o.despite, "despite", nil, "CHECK that may fail beforehand, such as capacity: go on all the same; may be repeated")
}

// flags are those of all verbs.
func (o *order) flags(cmd *cobra.Command) *pflag.FlagSet {
	flags := cmd.Flags()
	flags.StringVarP(&o.file, "file", "f", "", `file with the plan; "-" is standard input`)
	flags.StringVar(&o.to, "to", "", "site to bring the applications up at: this one (default: this site)")
	flags.StringVar(&o.reason, "reason", "", "why, for the journal")
	flags.BoolVar(&o.yes, "yes", false, "do not ask")
	flags.BoolVar(&o.background, "background", false, "order the run from the agent here, and return")
	flags.BoolVar(&o.wait, "wait", false, "with --background: wait until it is over, or waits for people")
	flags.BoolVar(&o.dryRun, "dry-run", false, "check everything, say what would be done and lost, change nothing")
	o.BreakGlass(flags)
	return flags
}

// begin opens this site as the target of a run, and reads the plan.
func (h *Host) begin(ctx context.Context, cmd *cobra.Command, o *order) (*here, *plan.Plan, error) {
	var p *plan.Plan
	var err error
	if o.file != "" { // what cannot be read needs no cluster
		if p, err = h.Read(o.file); err != nil {
			return nil, nil, err
		}
	}
	h.Progress().Step("opening the vault")
	in, cluster, err := h.Open(ctx, cmd, &o.Address, o.to)
	if err != nil && o.to == "" && exit.IsRefusal(err) && in != nil {
		err = exit.Hint(err, "give --to with the name that this cluster is to have, one of the plan's sites")
	}
	if err != nil {
		return nil, nil, err
	}
	if o.to != "" && o.to != in.Site {
		return nil, nil, exit.Refuse("give the kubeconfig of the target: a run is carried there", "--to %s: this is site %s", o.to, in.Site)
	}
	if p == nil {
		if p, err = find(ctx, in, cluster, o.name); err != nil {
			return nil, nil, err
		}
	}
	need, err := h.lacking(ctx, cmd, in, cluster, p, o)
	if err != nil {
		return nil, nil, err
	}
	at, err := h.at(ctx, in, cluster, need)
	return at, p, err
}

// lacking is what this cluster lacks for the run. What could not be put here, or not
// without a word of a person, is refused.
func (h *Host) lacking(ctx context.Context, cmd *cobra.Command, in *access.Opened, cluster wiring.Cluster, p *plan.Plan, o *order) (*equipping.Need, error) {
	if in.Project.IsCopy() {
		return nil, exit.Refuse("if the first vault is lost, `vault promote` makes this one the vault: where Davit is missing, after `install` and `vault add NAME URL --copy-of FIRST --join`", "this is a second copy of a vault, in which no run is written down")
	}
	if _, err := commission.Spec(p, commission.Ask{Verb: o.verb, To: in.Site, At: h.Now(), Lost: o.lost}); err != nil {
		return nil, refused(err)
	}
	need, err := h.Equip.Look(ctx, cluster, in, o.equipped(cmd, in.Site))
	if o.verb == plan.Failback && (need != nil || exit.IsRefusal(err)) {
		return nil, exit.Refuse("if this cluster was built anew, it has nothing to keep: `switchover` puts Davit here and moves the applications; else `install`, and `vault add --join`", "a failback takes the site's own agent, with its vault, and this cluster lacks them")
	}
	if err != nil || need == nil {
		return nil, err
	}
	if !o.Install && !o.dryRun && (o.yes || o.verb == plan.Drill) { // nobody is asked
		return nil, exit.Refuse("--install does that first; or do it by hand, with `install` and `vault add --join`", "this cluster lacks what the run needs: %s", strings.Join(need.Told(), "; "))
	}
	return need, nil
}

// equipped is what a cluster that lacks Davit is given.
func (o *order) equipped(cmd *cobra.Command, site string) equipping.Ask {
	return equipping.Ask{Address: &o.Address, Flags: cmd.Flags(), Way: &o.Way, Site: site}
}

// settling is how long nodes that have just got Davit are waited for.
const settling = 30 * time.Second

// equip puts here what a run needs and this cluster lacks, and looks at it anew: what was
// found to be well may be otherwise now.
func (h *here) equip(ctx context.Context, cmd *cobra.Command, p *plan.Plan, o *order, spec *failover.Spec) (*here, *failover.Spec, error) {
	if h.need == nil {
		return h, spec, nil
	}
	if err := h.Equip.Equip(ctx, h.need, o.equipped(cmd, h.need.Site), o.yes); err != nil {
		return nil, nil, err
	}
	h.Progress().Note("Davit is at site %s, and has the vault.", h.need.Site)
	at, err := h.open(ctx, cmd, &o.Address, o.to)
	if err != nil {
		return nil, nil, err
	}
	now, facts, err := at.prepare(ctx, p, o)
	for began := time.Now(); err == nil && o.verb == plan.Drill && drill.Settles(facts.Problems) && time.Since(began) < settling; {
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-time.After(time.Second):
		}
		now, facts, err = at.prepare(ctx, p, o)
	}
	switch {
	case err != nil:
	case len(facts.Problems) > 0:
		err = exit.Refuse("solve that, and give the command again", "the run has not begun: %s", facts.Problems[0])
	case now.From != spec.From: // nobody agreed to that
		err = exit.Refuse("look with --dry-run, and give the command again", "the run has not begun: while Davit was installed, site %s took over what site %s held", now.From, spec.From)
	}
	return at, now, err
}

func (h *Host) order(cmd *cobra.Command, o *order) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	at, p, err := h.begin(ctx, cmd, o)
	if err != nil {
		return err
	}
	spec, facts, err := at.prepare(ctx, p, o)
	if err != nil {
		return err
	}
	outlook := at.outlook(ctx, spec, facts)
	outlook.First = at.need
	if heeds := commission.Heeds(spec.Verb); heeds || o.dryRun || !o.yes {
		outlook.Ahead, outlook.Blind = at.ahead(ctx, p, spec, heeds)
	}
	if o.dryRun {
		return h.dry(outlook, spec)
	}
	if len(facts.Problems) > 0 {
		return exit.Refuse("solve that, and give the command again", "nothing was changed: %s", facts.Problems[0])
	}
	if err := outlook.stops(spec); err != nil && !o.background { // what an agent carries, the agent judges
		return refused(err)
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
	if at, spec, err = at.equip(ctx, cmd, p, o, spec); err != nil {
		return err
	}
	if o.background {
		return at.background(ctx, spec, o)
	}
	defer at.mention(ctx, p, spec, outlook)()
	state, err := at.launch(ctx, *spec, nil)
	at.tidy(ctx, *spec)
	return at.conclude(state, err)
}

// dry prints what a run would do. Its exit code says whether it would begin.
func (h *Host) dry(outlook Outlook, spec *failover.Spec) error {
	if err := h.Print(outlook); err != nil {
		return err
	}
	if err := outlook.stops(spec); err != nil {
		return refused(err)
	}
	if len(outlook.Problems) > 0 {
		return exit.Quietly(exit.Refused)
	}
	return nil
}

// stops refuses a planned run that a check says would not work.
func (o Outlook) stops(spec *failover.Spec) error {
	if o.Ahead == nil {
		return nil
	}
	return commission.Foreseen(spec, o.Ahead.Findings)
}

// mention says which checks fail of a run whose person was not asked, while it goes
// on: what the vault has of them, as the run has better use for the cluster.
// The returned function waits for that.
func (h *here) mention(ctx context.Context, p *plan.Plan, s *failover.Spec, known Outlook) func() {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	said := make(chan struct{})
	go func() {
		defer close(said)
		if known.Ahead != nil {
			return // it was shown, or has refused the run
		}
		out, err := foresight.Look(ctx, foresight.Options{Project: h.in.Project, Domain: h.in.Domain, Now: h.Now}, p, s.Verb, s.To)
		if err != nil {
			return
		}
		for _, f := range out.Findings {
			if f.Verdict == preflight.Fail {
				h.Progress().Note("Preflight: %s %s: %s", f.Check, f.Where(), f.Reason)
			}
		}
	}()
	return func() {
		cancel()
		<-said
	}
}

// prepare makes the run's order, and looks whether it can be. Nothing is changed.
func (h *here) prepare(ctx context.Context, p *plan.Plan, o *order) (*failover.Spec, *failover.Facts, error) {
	ask := commission.Ask{Verb: o.verb, To: h.in.Site, By: h.who.Name, Reason: o.reason, At: h.Now(), Lost: o.lost, Despite: o.despite}
	if o.accepts {
		ask.Accept = failover.Asked
	}
	choose := h.chosen
	if o.verb == plan.Drill {
		choose = h.cloned
	}
	var err error
	if ask.Points, err = choose(ctx, p, o); err != nil {
		return nil, nil, err
	}
	spec, err := commission.Spec(p, ask)
	if err != nil {
		return nil, nil, refused(err)
	}
	h.Progress().Step("looking at vault and cluster")
	under, err := register.New(h.in.Project).States(ctx, spec.Plan, "")
	if err != nil {
		return nil, nil, err
	}
	if err := commission.Conflict(spec, under); err != nil {
		return nil, nil, refused(err)
	}
	facts, err := h.site.Evaluate(ctx, *spec)
	if err != nil {
		return nil, nil, err
	}
	if err := commission.Undivided(facts); err != nil {
		return nil, nil, refused(err)
	}
	spec.From, err = commission.From(p, spec, facts)
	if err != nil && len(facts.Problems) > 0 { // which may be why: a vault that has forgotten epochs names no site
		return nil, nil, exit.Refuse("solve that, and give the command again", "nothing was changed: %s", facts.Problems[0])
	}
	return spec, facts, refused(err)
}

// refused gives a refusal its exit code.
func refused(err error) error {
	if r := commission.Refused(err); r != nil {
		return exit.Refuse(r.Do, "%s", r.Why)
	}
	return err
}

// chosen are the points that were asked for.
func (h *here) chosen(ctx context.Context, p *plan.Plan, o *order) (map[string]failover.Point, error) {
	if len(o.points) == 0 && o.asOf == "" {
		return nil, nil
	}
	var asOf time.Time
	if o.asOf != "" {
		var err error
		if asOf, err = time.Parse(time.RFC3339, o.asOf); err != nil {
			return nil, exit.Usage("write it such as 2026-11-27T04:00:00Z", "--as-of %q is not a time", o.asOf)
		}
	}
	for app := range o.points {
		if !slices.ContainsFunc(p.Applications, func(a plan.Application) bool { return a.Name == app }) {
			return nil, exit.Refuse("`plan show` lists the plan's", "--point %s: that is no application of plan %s", app, p.Name)
		}
	}
	protector, all := h.in.Protector(h.Now), map[string]failover.Point{}
	for _, a := range p.Applications {
		id := o.points[a.Name]
		if id == "" && o.asOf == "" {
			continue
		}
		_, points, err := protector.Points(ctx, a.Name)
		if err != nil {
			return nil, err
		}
		got, ok := point.Newest(points, asOf)
		if id != "" {
			i := slices.IndexFunc(points, func(x point.Point) bool { return x.ID == id })
			if ok = i >= 0; ok {
				got = points[i]
			}
		}
		if !ok {
			return nil, exit.Refuse("`points "+a.Name+"` lists them", "%s has no recovery point %s that may be offered", a.Name, cmp.Or(id, "as of "+o.asOf))
		}
		all[a.Name] = failover.Point{ID: got.ID, Instant: got.Instant}
	}
	return all, nil
}

// outlook is what a failover would do and lose.
func (h *here) outlook(ctx context.Context, s *failover.Spec, facts *failover.Facts) Outlook {
	o := Outlook{Verb: s.Verb, Plan: s.Plan, From: s.From, To: s.To, Problems: facts.Problems, Unheard: facts.Unheard, Fence: failover.None.String(), now: h.Now()}
	protector := h.in.Protector(h.Now)
	for _, app := range s.Applications {
		a := OutlookApp{Name: app, Epoch: facts.Epochs[app].Number, Holders: facts.Holders[app]}
		if chosen, ok := s.Points[app]; ok {
			a.Point, a.Instant = chosen.ID, chosen.Instant
		} else if _, points, err := protector.Points(ctx, app); err == nil {
			if newest, ok := point.Newest(points, time.Time{}); ok {
				a.Point, a.Instant = newest.ID, newest.Instant
			}
		}
		for _, site := range a.Holders {
			if _, leased := facts.Terms[site]; !leased && !slices.Contains(s.Lost, site) && facts.Words[app][site] == "" {
				o.Unproven = append(o.Unproven, site)
			}
		}
		o.Applications = append(o.Applications, a)
	}
	if len(o.Unproven) == 0 && len(s.Lost) == 0 && len(facts.Words) == 0 {
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

// ahead is what is known beforehand of the run; why not, otherwise. A failover waits for
// neither: it looks for itself at what it needs. Registries are asked only where there
// is time.
func (h *here) ahead(ctx context.Context, p *plan.Plan, s *failover.Spec, registries bool) (*forecast.Sites, string) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	h.Progress().Step("looking at the sites, and at earlier runs")
	o := forecast.Options(h.in, []wiring.Cluster{h.cluster}, h.Now, p)
	o.Coming = h.need != nil && h.need.Davit
	o.Names = func(ctx context.Context, p *plan.Plan) []preflight.Name { return h.cluster.Rehearse(ctx, p, h.Now) }
	if registries {
		o.Registry = foresight.Registries(images.Registries{}, lookPatience/2, time.Hour)
	}
	out, err := foresight.Look(ctx, o, p.Only(s.Verb), s.Verb, s.To)
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
	if err := register.New(h.in.Project).Begin(ctx, s); err != nil {
		return nil, err
	}
	return h.carry(held, s.Run, m, journal.Create(h.in.Project, s.Run, h.process), h.wishes(s, failover.Facts{}, h.until(0, s), stop), settled)
}
