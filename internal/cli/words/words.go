// Package words shows what the steps of a run said.
package words

import (
	"strings"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/journal"
)

// Flag is the name of the flag that asks for it.
const Flag = "logs"

// Offer gives a command that shows a run the flag, and the name of a step behind the run's.
func Offer(cmd *cobra.Command) {
	cmd.Use = "show RUN [--logs [STEP]]"
	cmd.Long = `Shows a run, step by step. With --logs it shows instead what the programs of its steps said, or of STEP alone: Jobs, HTTP calls, and the
commands and databases that probes asked. The end of it is kept, at most 16 KiB a try, in the run's journal: values of the Secrets that a step names are left out.`
	cmd.Flags().Bool(Flag, false, "show what the programs of its steps said, or of one step")
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		switch wanted, _ := cmd.Flags().GetBool(Flag); {
		case len(given) == 0 || len(given) > 2:
			return exit.Usage("", "show takes one RUN, and with --logs a STEP, but was given %d arguments", len(given))
		case len(given) == 2 && !wanted:
			return exit.Usage("`runs show "+given[0]+" --logs "+given[1]+"` shows what the step said", "show takes one RUN; a STEP is for --logs")
		}
		return nil
	}
}

// Wanted tells whether it is asked for, and of which step; empty: of all.
func Wanted(cmd *cobra.Command, given []string) (step string, wanted bool) {
	wanted, _ = cmd.Flags().GetBool(Flag)
	if wanted && len(given) > 1 {
		step = given[1]
	}
	return step, wanted
}

// Said is what the steps of a run said, or one of them.
type Said struct {
	Run  string          `json:"run"`
	Step string          `json:"step,omitempty"` // empty: all
	Said []journal.Words `json:"said"`
}

// Of are the words of one step, or of all.
func Of(run, step string, all []journal.Words) Said {
	s := Said{Run: run, Step: step, Said: []journal.Words{}}
	for _, w := range all {
		if step == "" || w.Step == step {
			s.Said = append(s.Said, w)
		}
	}
	return s
}

// Document implements output.Result.
func (s Said) Document() any { return s }

// Text implements output.Result.
func (s Said) Text(t *output.Text) {
	switch {
	case len(s.Said) > 0:
	case s.Step != "":
		t.Line("Step %s of run %s has said nothing that is kept.", s.Step, s.Run)
	default:
		t.Line("The steps of run %s have said nothing that is kept.", s.Run)
	}
	for _, w := range s.Said {
		t.Section(w.Step + ", " + w.How() + ", " + output.Time(w.At))
		for line := range strings.Lines(w.Text) {
			t.Line("  %s", strings.TrimSuffix(line, "\n"))
		}
	}
}
