package running

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/words"
	"davit.dev/davit/internal/evidence"
)

// reportTimeout bounds the making of a report when a run has ended: it may not
// keep anybody.
const reportTimeout = 30 * time.Second

// formats are those of `runs report`.
var formats = words.Formats()

func (h *Host) reportCommand() *cobra.Command {
	var a access.Address
	var verify bool
	format := formats[0]
	cmd := &cobra.Command{
		Use: "report RUN", Short: "Show a run's signed report, or check it", Args: operands(1, 1, "one RUN"),
		Long: `A report tells who asked for a run and when, what was decided, when each step ran, what was measured, what people were asked and
what failed. Whoever carries a run writes one into the vault when it ends or waits for people, signed with the project's key; this
command makes the newest where it is missing. As html it is one page that needs nothing else: mail it, print it, keep it.

--verify checks that the signature is the project's, and that the report was made from the journal that the vault holds; if not, the exit
code is 1.`,
		Example: `  davit runs report shop-drill-20261127-033000 -o html > drill.html
  davit runs report shop-drill-20261127-033000 --verify`,
		RunE: func(cmd *cobra.Command, given []string) error {
			if !slices.Contains(formats, format) {
				return exit.Usage("", "-o %q is not one of %s", format, strings.Join(formats, ", "))
			}
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			in, _, err := h.look(ctx, cmd, &a)
			if err != nil {
				return err
			}
			d, err := evidence.Publish(ctx, in.Project, given[0])
			if err != nil {
				return notFound(given[0], err)
			}
			if verify {
				if err := h.verify(ctx, in, d); err != nil {
					return err
				}
			}
			return h.show(d, format)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&format, "output", "o", format, strings.Join(formats, ", "))
	flags.BoolVar(&verify, "verify", false, "check the signature, and that the journal is the one that the report was made from")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	a.BreakGlass(flags)
	return cmd
}

func (h *Host) verify(ctx context.Context, in *access.Opened, d *evidence.Document) error {
	proof, err := evidence.Verify(ctx, in.Project, d)
	if errors.Is(err, evidence.ErrForged) {
		return exit.Hint(err, "who can write to the vault's store? Its journal is `runs show "+d.Run+"`")
	}
	if err != nil {
		return err
	}
	h.Progress().Note("Genuine: signed with the project's key %s, made from the %d records of the journal that the vault holds.", proof.Key[:16], proof.Records)
	return nil
}

// show prints a report.
func (h *Host) show(d *evidence.Document, format string) error {
	h.Progress().Done()
	return words.Report(h.Out, d, format)
}

// publish keeps the report of a run that this process has carried. The run is
// what its journal says: that the report is missing stops nothing, and it is
// made when somebody asks for it.
func (h *here) publish(ctx context.Context, run string) {
	if h.in.Project.IsCopy() {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	if _, err := evidence.Publish(bounded, h.in.Project, run); err != nil {
		h.Progress().Note("The report of %s was not written, `runs report` makes it: %v", run, err)
	}
}
