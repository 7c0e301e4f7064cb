package running

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/words"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/kube/permit"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/standby"
)

const (
	replyLook = 500 * time.Millisecond
	// replyPatience is how long whoever carries a run has to answer before it is
	// looked whether anybody does.
	replyPatience = 3 * time.Second
	// longPatience is how long somebody waits for an answer who may not carry the run
	// himself: longer than it takes an agent to take a run over from a dead process.
	longPatience = 30 * time.Second
)

// want is a verb about a run.
type want struct {
	verb, short string
	long        string // for --help, where the one line does not do
	kind        failover.EventKind
	operand     string // what follows the run's name, if anything
	optional    bool
	types       bool // the target's name is typed with --lose
}

// furtherBack is what becomes of a run that is being taken back already.
const furtherBack = `One in RollbackFailed is taken back further, and that is then what was asked for: RolledBack ends the
command with 0, or with 4 if not all was seen to run again.`

var wants = []want{
	{verb: "approve", short: "Agree that a run begins", kind: failover.Approve},
	{verb: "pause", short: "Let a run begin nothing more", kind: failover.Pausing},
	{verb: "resume", short: "Let a paused run go on", kind: failover.Resume, long: "Lets a paused run go on. " + furtherBack},
	{verb: "retry", short: "Try a step again, or all that failed", kind: failover.Retry, operand: "STEP", optional: true, long: "Tries a step again, or all that failed. " + furtherBack},
	{verb: "skip", short: "Go on without a step that failed", kind: failover.Skip, operand: "STEP", long: `Goes on without a step that failed. A run that is being taken back goes on without a name in the DNS that its servers refuse to lead back, or are
silent about: you lead it by hand from then on. ` + furtherBack + " With a name left to you it is 4."},
	{verb: "answer", short: "Say that a manual task or approval is done", kind: failover.Answer, operand: "STEP"},
	{verb: "consent", short: "Say that a site has stopped, where nothing proves it", kind: failover.Consent, operand: "SITE"},
	{verb: "commit", short: "End a run: it can no longer be rolled back", kind: failover.Commit},
	{verb: "rollback", short: "Take back what a run did", kind: failover.RollBack, types: true},
	{verb: "cancel", short: "End a run that has changed nothing, or whose roll-back can never end, or only waits for its source", kind: failover.Cancel},
}

// Runs makes `runs`.
func Runs(h *Host) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "Look at runs, steer them and take them over",
		Long: `A run is a journal in the vault. What you ask of one is left in the vault for whoever carries it; if nobody does, this command
carries it on, at the run's target, until it is over or waits for people again. To approve, or answer an approval step, takes the right to "approve"
the run's recoveryplan at the target, and all else the right to "steer" it: the ClusterRoles davit-approver and davit-operator have them.`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return exit.Usage("`runs --help` lists them", "runs has no command %q", given[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(h.lsCommand(), h.showCommand(), h.reportCommand(), h.takeOverCommand(), h.abandonCommand(), h.settleCommand())
	for _, w := range wants {
		cmd.AddCommand(h.wantCommand(w))
	}
	return cmd
}

func operands(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < least || len(given) > most {
			return exit.Usage("", "%s takes %s, but was given %d arguments", cmd.Name(), names, len(given))
		}
		return nil
	}
}

func (h *Host) lsCommand() *cobra.Command {
	var a access.Address
	cmd := &cobra.Command{
		Use: "ls", Short: "List all runs, the newest first", Args: operands(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			in, _, err := h.look(ctx, cmd, &a)
			if err != nil {
				return err
			}
			lines, err := register.New(in.Project).List(ctx)
			if err != nil {
				return err
			}
			list := List{Runs: []Row{}, now: h.Now()}
			for _, line := range lines {
				list.Runs = append(list.Runs, row(line))
			}
			return h.Print(list)
		},
	}
	a.BreakGlass(cmd.Flags())
	return cmd
}

func (h *Host) showCommand() *cobra.Command {
	var a access.Address
	cmd := &cobra.Command{
		Short: "Show a run, step by step",
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			in, _, err := h.look(ctx, cmd, &a)
			if err != nil {
				return err
			}
			all, s, err := journal.Said(ctx, in.Project, given[0])
			if err != nil {
				return notFound(given[0], err)
			}
			switch step, wanted := words.Wanted(cmd, given); {
			case step != "" && s.Steps[step] == nil:
				return exit.Refuse("`runs show "+given[0]+"` lists its steps", "run %s has no step %q", given[0], step)
			case wanted:
				return h.Print(words.Of(given[0], step, all))
			}
			return h.Print(reportOf(s))
		},
	}
	words.Offer(cmd)
	a.BreakGlass(cmd.Flags())
	return cmd
}

func (h *Host) takeOverCommand() *cobra.Command {
	var a access.Address
	cmd := &cobra.Command{
		Use: "take-over RUN", Short: "Carry a run on whose process has died", Args: operands(1, 1, "one RUN"),
		Long: `Carries a run on from its journal, at the run's target, where no agent does so by itself. A process that died holds the run for
15 seconds. One that lives goes on carrying it, and this command says so.`,
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			at, err := h.open(ctx, cmd, &a, "")
			if err != nil {
				return err
			}
			s, err := at.takeOver(ctx, given[0], nil, func(s *failover.State) bool { return s.Executor == at.process && settled(s) })
			if errors.Is(err, standby.ErrCarried) {
				return exit.Refuse("`runs show "+given[0]+"` shows how far it is", "%v", err)
			}
			return at.conclude(s, err)
		},
	}
	a.BreakGlass(cmd.Flags())
	return cmd
}

func (h *Host) wantCommand(w want) *cobra.Command {
	var a access.Address
	var note, lose string
	var undone, yes bool
	use, least, most, names := w.verb+" RUN", 1, 1, "one RUN"
	if w.operand != "" {
		use, least, most, names = use+" "+w.operand, 2, 2, "a RUN and a "+w.operand
		if w.optional {
			use, least = w.verb+" RUN ["+w.operand+"]", 1
		}
	}
	cmd := &cobra.Command{
		Use: use, Short: w.short, Long: w.long, Args: operands(least, most, names),
		RunE: func(cmd *cobra.Command, given []string) error {
			r := execute.Request{Kind: w.kind, Note: note, Text: lose, Refused: undone}
			if len(given) > 1 {
				switch w.operand {
				case "SITE":
					r.Site, r.Text = given[1], given[1]
				default:
					r.Step = given[1]
				}
			}
			return h.ask(cmd, &a, given[0], r, yes)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&note, "note", "", "what to write into the journal")
	if w.types {
		flags.StringVar(&lose, "lose", "", "name of the target: what clients wrote there since they were let in is lost")
	}
	if w.kind == failover.Answer {
		flags.BoolVar(&undone, "failed", false, "it could not be done")
	}
	if w.kind == failover.Consent {
		flags.BoolVar(&yes, "yes", false, "do not ask for the site's name")
	}
	a.BreakGlass(flags)
	return cmd
}

// ask leaves a request and waits for what becomes of it. A run that nobody
// carries is carried on here.
func (h *Host) ask(cmd *cobra.Command, a *access.Address, run string, r execute.Request, yes bool) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	at, err := h.open(ctx, cmd, a, "")
	if err != nil {
		return err
	}
	s, err := journal.Read(ctx, at.in.Project, run)
	if err != nil {
		return notFound(run, err)
	}
	if s.Phase.Over() {
		return exit.Refuse("`runs show "+run+"` shows how it ended", "run %s is over: %s", run, s.Phase)
	}
	if r.Kind == failover.Consent && len(s.Facts.Holders) > 0 { // before anybody types; until it has looked, the run itself says so
		if why := s.WhyNoConsent(r.Site); why != "" {
			return exit.Refuse("`runs show "+run+"` shows how it stands", "run %s: consent: %s", run, why)
		}
	}
	if r.Kind == failover.Consent && !yes {
		if err := h.AskFor(r.Site, "the site, to say that you made sure that it has stopped"); err != nil {
			return err
		}
	}
	if s.Spec.To == at.in.Site { // elsewhere whoever carries the run asks his own cluster
		switch whyNot, err := permit.MaySelf(ctx, at.cluster, at.who, permit.Verb(r.Kind, r.Step, s.Spec.Steps), s.Spec.Plan); {
		case err != nil:
			return err
		case whyNot != "":
			return exit.Refuse("have an administrator of site "+at.in.Site+" bind it to you", "%s", whyNot)
		}
	}
	at.back = isBack(r.Kind, s)
	at.remedy = remedy(r.Kind, s)
	r.By, r.Groups, r.At = at.who.Name, at.who.Groups, h.Now()
	n, err := at.box.Put(ctx, run, r)
	if err != nil {
		return err
	}
	h.Progress().Step("waiting for whoever carries %s", run)
	return at.answer(ctx, run, at.until(n, s.Spec))
}

// isBack tells whether a run that ends as RolledBack does what was asked for: to take it back,
// to wait no longer for its source, or to go on with a roll-back.
func isBack(kind failover.EventKind, s *failover.State) bool {
	return kind == failover.RollBack || kind == failover.Cancel || s.Phase == failover.RollingBack || s.Phase == failover.RollbackFailed
}

// remedy is the next step of a person whose request is refused by the run, as it stands.
func remedy(kind failover.EventKind, s *failover.State) string {
	run := s.Spec.Run
	switch {
	case kind == failover.RollBack && s.Exposed() != "":
		return "`runs rollback " + run + " --lose " + s.Spec.To + "` loses it; once the run is committed, `failback " + s.Spec.Plan + "` at site " + s.Spec.From + " loses nothing"
	case kind == failover.Resume && s.Pause == nil && s.Phase == failover.Running:
		return "it goes on by itself; if nobody carries it any more, `runs take-over " + run + "` does"
	}
	return "`runs show " + run + "` shows how it stands"
}

func (h *here) answer(ctx context.Context, run string, u *until) error {
	n := u.number
	var state *failover.State
	begun := time.Now()
	for asked := begun; ; {
		reply, err := h.box.Answer(ctx, run, n)
		if err != nil {
			return err
		}
		if reply != nil {
			if reply.Refused != "" {
				return exit.Refuse(h.remedy, "run %s: %s", run, reply.Refused)
			}
			return h.conclude(h.follow(ctx, run))
		}
		if time.Since(asked) > replyPatience {
			state, err = h.takeOver(ctx, run, u, func(s *failover.State) bool { return u.done.Load() && settled(s) })
			switch {
			case err == nil && !u.done.Load():
				return exit.Refuse("`runs show "+run+"` shows how it ended", "run %s is over: %s", run, state.Phase)
			}
			if err := unanswered(run, err, time.Since(begun)); err != nil {
				return h.conclude(state, err)
			}
			asked = time.Now()
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the answer of run %s: %w", run, context.Cause(ctx))
		case <-time.After(replyLook):
		}
	}
}

// unanswered says why it is no use to wait on for an answer, given the error of carrying
// the run here; nil: it may come.
func unanswered(run string, err error, waited time.Duration) error {
	switch {
	case !forOthers(err):
		return err
	case errors.Is(err, standby.ErrCarried) || waited < longPatience:
		return nil
	}
	return exit.Hint(fmt.Errorf("nobody has answered for run %s in %s, and you may not carry it: what was asked for stays asked", run, longPatience),
		"have somebody who may carry runs give `runs take-over "+run+"`")
}

// forOthers tells whether an error of carrying a run says that it is not for this
// process: another one carries it, or this person may not, as one who only approves.
func forOthers(err error) bool {
	return errors.Is(err, standby.ErrCarried) || apierrors.IsForbidden(err)
}

// follow waits until the run is over, or waits for people, as it would if this
// process carried it: what was asked for is then done. A run whose carrier dies
// meanwhile is carried on here.
func (h *here) follow(ctx context.Context, run string) (*failover.State, error) {
	reader, told, seen, since := journal.Follow(h.in.Project, run), map[string]failover.Status{}, int64(0), time.Now()
	for {
		s, err := reader.Next(ctx)
		if err != nil {
			return nil, err
		}
		if s.Phase.Over() || settled(s) {
			return s, nil
		}
		if s.Sequence != seen {
			seen, since = s.Sequence, time.Now()
			h.tell(s, []string{"carried by " + s.Executor}, told)
		}
		if time.Since(since) > replyPatience && s.Spec.To == h.in.Site {
			done, err := h.takeOver(ctx, run, nil, func(s *failover.State) bool { return s.Executor == h.process && settled(s) })
			if !forOthers(err) {
				return done, err
			}
			since = time.Now()
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("wait for run %s: %w", run, context.Cause(ctx))
		case <-time.After(replyLook):
		}
	}
}
