package running

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/kube/permit"
	"davit.dev/davit/internal/settlement"
)

func (h *Host) settleCommand() *cobra.Command {
	var a access.Address
	var reason string
	cmd := &cobra.Command{
		Use: "settle RUN [STEP]", Short: "Say that what a run left to people is seen to", Args: operands(1, 2, "a RUN, and a STEP or none"),
		Long: `Says of what a run that is over left to people, by STEP or all of it, that somebody has seen to it. The run's journal keeps who, when and why, and
"davit status" does not count it any more, at all sites. Nothing else changes: what was left is not done, nor taken back, nor let go, and whatever refused
something because of it does so still. Said twice, the first word stands. A run that goes on, and a step that left nothing, are refused (3).

Nobody carries such a run, so the command works at any site. It takes the right to "steer" the run's recoveryplan there.`,
		Example: `  davit runs settle shop-failover-20261127-033000 warm-up --reason "emptied the cache by hand"`,
		RunE: func(cmd *cobra.Command, given []string) error {
			if strings.TrimSpace(reason) == "" {
				return exit.Usage("", "give --reason: the run's journal keeps it")
			}
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			in, cluster, err := h.Open(ctx, cmd, &a, "")
			if err != nil {
				return err
			}
			at := &here{Host: h, in: in, cluster: cluster, who: permit.Self(ctx, cluster), process: thisProcess()} // it carries nothing
			w := settlement.Word{By: at.who.Name, Reason: reason}
			if len(given) > 1 {
				w.Step = given[1]
			}
			return at.settle(ctx, given[0], w)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "how it was seen to, for whoever reads it later")
	a.BreakGlass(cmd.Flags())
	return cmd
}

// settle writes what the caller says into the journal of a run that is over.
func (h *here) settle(ctx context.Context, run string, w settlement.Word) error {
	s, err := journal.Read(ctx, h.in.Project, run)
	if err != nil {
		return notFound(run, err)
	}
	if _, whyNot := w.Entries(s, h.Now()); whyNot != "" {
		return unsettled(run, whyNot)
	}
	switch whyNot, err := permit.MaySelf(ctx, h.cluster, h.who, permit.Verb(failover.Settle, w.Step, s.Spec.Steps), s.Spec.Plan); {
	case err != nil:
		return err
	case whyNot != "":
		return exit.Refuse("have an administrator of site "+h.in.Site+" bind it to you", "%s", whyNot)
	}
	s, whyNot, err := settlement.Write(ctx, h.in.Project, run, h.process, w, h.Now)
	switch {
	case err != nil:
		return exit.Hint(err, "give the command again: what is written is not written twice")
	case whyNot != "":
		return unsettled(run, whyNot)
	}
	h.publish(ctx, run)
	return h.Print(reportOf(s))
}

func unsettled(run, whyNot string) error {
	return exit.Refuse("`runs show "+run+"` shows what it left", "run %s: settle: %s", run, whyNot)
}
