package running

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/drill"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/vault"
)

// Drill makes `drill`.
func Drill(h *Host) *cobra.Command {
	o := order{verb: plan.Drill}
	var sweep bool
	cmd := &cobra.Command{
		Use:   "drill PLAN | -f FILE",
		Short: "Try a plan on clones, isolated, and remove them",
		Long: `Carries a recovery plan out, here, at a site that would take its applications over, on clones of their recovery points: the same
steps in the same order, in namespaces of their own, which the nodes close in: clones reach each other and name servers, nothing else.
Claims, fences and the source are left out; names in the DNS are only rehearsed. The live applications, their epochs and
recovery points are not touched. When it is over, also when it failed or you interrupt it, the clones are removed.

A failover goes before: when another run claims one of the applications, the drill ends and is cleaned up. A drill is a run:
"davit runs report" shows its signed report, "davit runs take-over" goes on where a killed one was, and "davit drill --sweep" cleans
up after it.`,
		Example: `  davit drill shop --to west
  davit drill -f shop.yaml --point shop=shop-20261127-033000-abcde
  davit drill --sweep`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if sweep && (len(given) > 0 || o.file != "") {
				return exit.Usage("", "--sweep takes no plan")
			}
			if sweep {
				return h.sweep(cmd, &o.Address)
			}
			if err := o.from(given); err != nil {
				return err
			}
			return h.drill(cmd, &o)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.file, "file", "f", "", `file with the plan; "-" is standard input`)
	flags.StringVar(&o.to, "to", "", "site to drill at: this one (default: this site)")
	flags.StringVar(&o.reason, "reason", "", "why, for the journal")
	flags.BoolVar(&o.dryRun, "dry-run", false, "check everything, say what would be done, change nothing")
	flags.BoolVar(&o.background, "background", false, "order the drill from the agent here, and return")
	flags.BoolVar(&o.wait, "wait", false, "with --background: wait until it is over, or waits for people")
	flags.StringToStringVar(&o.points, "point", nil, "APPLICATION=POINT to clone (default: the newest that may be offered)")
	o.heeds(flags)
	flags.BoolVar(&sweep, "sweep", false, "end drills whose process has died, and remove their sandboxes")
	o.BreakGlass(flags)
	o.Way.Flags(flags)
	return cmd
}

func (h *Host) drill(cmd *cobra.Command, o *order) error {
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
	outlook := drillOutlook(spec, facts, h.Now())
	outlook.First = at.need
	outlook.Ahead, outlook.Blind = at.ahead(ctx, p, spec, true)
	if o.dryRun {
		return h.dry(outlook, spec)
	}
	if len(facts.Problems) > 0 {
		return exit.Refuse("solve that, and give the command again", "nothing was changed: %s", facts.Problems[0])
	}
	if err := outlook.stops(spec); err != nil && !o.background { // what an agent carries, the agent judges
		return refused(err)
	}
	if at, spec, err = at.equip(ctx, cmd, p, o, spec); err != nil {
		return err
	}
	if o.background {
		return at.background(ctx, spec, o)
	}
	// Told to stop, it cleans up first: what carries the run outlives ctx.
	state, err := at.launch(context.WithoutCancel(ctx), *spec, ctx.Done())
	return at.drilled(state, err)
}

// cloned settles which points a drill clones, so that every part of it, and
// whoever takes it over, takes the same.
func (h *here) cloned(ctx context.Context, p *plan.Plan, o *order) (map[string]failover.Point, error) {
	all, protector := map[string]failover.Point{}, h.in.Protector(h.Now)
	for app := range o.points {
		if !slices.ContainsFunc(p.Applications, func(a plan.Application) bool { return a.Name == app }) {
			return nil, exit.Refuse("the plan names them", "--point: plan %s has no application %s", p.Name, app)
		}
	}
	for _, a := range p.Applications {
		app := a.Name
		if id := o.points[app]; id != "" {
			m, err := h.in.Project.Manifest(ctx, app, id)
			if err != nil {
				return nil, exit.Refuse("`davit points "+app+"` lists them", "--point %s=%s: %v", app, id, err)
			}
			all[app] = failover.Point{ID: id, Instant: m.Instant}
			continue
		}
		_, points, err := protector.Points(ctx, app)
		if err != nil {
			return nil, err
		}
		newest, ok := point.Newest(points, time.Time{})
		if !ok {
			return nil, exit.Refuse("`davit points "+app+"` shows what the vault holds", "no recovery point of %s may be offered", app)
		}
		all[app] = failover.Point{ID: newest.ID, Instant: newest.Instant}
	}
	return all, nil
}

func drillOutlook(s *failover.Spec, facts *failover.Facts, now time.Time) Outlook {
	o := Outlook{Verb: s.Verb, Plan: s.Plan, From: s.From, To: s.To, Problems: facts.Problems, now: now}
	for _, app := range s.Applications {
		o.Applications = append(o.Applications, OutlookApp{Name: app, Epoch: facts.Epochs[app].Number, Point: s.Points[app].ID, Instant: s.Points[app].Instant})
	}
	for _, step := range s.Steps {
		o.Steps = append(o.Steps, step.Name)
	}
	return o
}

// drilled prints what became of a drill, and decides the exit code: only one
// that passed is a success.
func (h *here) drilled(s *failover.State, err error) error {
	if err != nil || s.Phase == failover.Completed {
		return h.conclude(s, err)
	}
	if s.Phase != failover.Failed && s.Phase != failover.Canceled {
		return h.conclude(s, nil)
	}
	if err := h.Print(reportOf(s)); err != nil {
		return err
	}
	if len(s.Facts.Problems) > 0 {
		return exit.Refuse("solve that, and give the command again", "run %s: %s", s.Spec.Run, s.Why)
	}
	return exit.Hint(fmt.Errorf("drill %s did not pass: %s", s.Spec.Run, s.Why), "`runs report "+s.Spec.Run+" -o html` tells all")
}

// sweep ends the drills here that nobody carries.
func (h *Host) sweep(cmd *cobra.Command, a *access.Address) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	at, err := h.open(ctx, cmd, a, "")
	if err != nil {
		return err
	}
	runs, err := at.site.Drills(ctx)
	if err != nil {
		return err
	}
	swept := Swept{Runs: []string{}}
	for _, run := range runs {
		done, err := at.sweepOne(ctx, run)
		if err != nil {
			return err
		}
		if done {
			swept.Runs = append(swept.Runs, run)
		}
	}
	return h.Print(swept)
}

// tidy cleans up after drills of a run's applications that nobody carries: one
// that is carried makes way by itself. It stops no run, so what it cannot do is told.
func (h *here) tidy(ctx context.Context, s failover.Spec) {
	runs, err := h.site.Drills(ctx)
	for _, run := range runs {
		var d *failover.State
		if d, err = journal.Read(ctx, h.in.Project, run); err != nil {
			break
		}
		if slices.ContainsFunc(d.Spec.Applications, func(app string) bool { return slices.Contains(s.Applications, app) }) {
			if _, err = h.sweepOne(ctx, run); err != nil {
				break
			}
		}
	}
	if err != nil {
		h.Progress().Note("A drill may have left a sandbox here, `davit drill --sweep` removes it: %v", err)
	}
}

// sweepOne takes a drill over that nobody carries, and has it cleaned up. Of
// one that is over, or has no journal, what is left is removed.
func (h *here) sweepOne(ctx context.Context, run string) (bool, error) {
	h.Progress().Step("looking at drill %s", run)
	s, err := journal.Read(ctx, h.in.Project, run)
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return false, err
	}
	if err == nil && s.Phase.Over() {
		return true, h.site.CleanDrill(ctx, run)
	}
	none := err != nil // or its journal is in another vault: then it may well be carried
	stop := make(chan struct{})
	close(stop)
	held, release, err := h.site.Hold(ctx, run, h.process)
	if errors.Is(err, standby.ErrCarried) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer release()
	if none {
		return true, h.site.CleanDrill(ctx, run)
	}
	j, state, err := journal.Open(ctx, h.in.Project, run, h.process)
	if err != nil {
		return false, err
	}
	wishes := h.wishes(state.Spec, state.Facts, h.until(0, state.Spec), stop)
	state, err = h.carry(held, run, failover.TakeOver(h.process, state), j, wishes, func(s *failover.State) bool {
		y, drills := wishes.(*drill.Yield) // one that waited for a person is to hear first that nobody will come
		return settled(s) && (!drills || y.Answered())
	})
	if err != nil {
		return false, err
	}
	if !state.Phase.Over() {
		return false, exit.Hint(fmt.Errorf("drill %s is not cleaned up: %s", run, state.Shown()), "`runs show "+run+"` says why; then `davit drill --sweep` again")
	}
	return true, h.site.CleanDrill(ctx, run) // one that was canceled before is over at once
}

// wishes are what people want of a run. A drill makes way for other runs, too, and
// ends when stop is closed.
func (h *here) wishes(s failover.Spec, facts failover.Facts, u *until, stop <-chan struct{}) execute.Requests {
	if s.Verb != plan.Drill {
		return u
	}
	y := &drill.Yield{Requests: u, Project: h.in.Project, Apps: s.Applications, Stop: stop}
	for app, held := range facts.Epochs {
		if y.Epochs == nil {
			y.Epochs = map[string]int64{}
		}
		y.Epochs[app] = held.Number
	}
	return y
}

// Swept is which drills were ended.
type Swept struct {
	Runs []string `json:"runs"`
}

// Document implements output.Result.
func (s Swept) Document() any { return s }

// Text implements output.Result.
func (s Swept) Text(t *output.Text) {
	if len(s.Runs) == 0 {
		t.Line("No drill was left behind.")
		return
	}
	for _, run := range s.Runs {
		t.Line("Cleaned up after %s.", run)
	}
}
