package forecast

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/runbook"
)

// Runbook makes `plan runbook`.
func (h *Host) Runbook() *cobra.Command {
	a := &asked{}
	verb, format, sites := string(plan.Failover), "markdown", false
	cmd := &cobra.Command{
		Use:   "runbook FILE",
		Short: "Write a plan down as instructions for a person",
		Long: `Writes a runbook of a plan: what to do with davit, and every step by hand, with what is to be seen and what to do if it is not. It
asks neither cluster nor vault, unless --sites adds what is known now. Keep it where it can be read when both sites are gone.`,
		Example: `  davit plan runbook shop.yaml --to west > shop.md
  davit plan runbook shop.yaml --to west --sites --as html > shop.html`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) != 1 {
				return exit.Usage("", "runbook takes one FILE, but was given %d arguments", len(given))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			if !slices.Contains(plan.Verbs(), plan.Verb(verb)) {
				return exit.Usage("", "--verb %q is not one of failover, switchover, failback, drill, restore", verb)
			}
			if format != "markdown" && format != "html" {
				return exit.Usage("", "--as %q is not markdown or html", format)
			}
			text, err := h.runbook(cmd, a, given[0], plan.Verb(verb), format, sites)
			if err != nil {
				return err
			}
			h.Progress().Done()
			_, err = io.WriteString(h.Out, text)
			return err
		},
	}
	cmd.Flags().StringVar(&verb, "verb", verb, "what the run does: failover, switchover, failback, drill, restore")
	cmd.Flags().StringVar(&format, "as", format, "markdown or html")
	cmd.Flags().BoolVar(&sites, "sites", false, "ask vault and sites, and write down what they say now")
	a.flags(cmd.Flags())
	_ = cmd.RegisterFlagCompletionFunc("as", cobra.FixedCompletions([]string{"markdown", "html"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (h *Host) runbook(cmd *cobra.Command, a *asked, file string, verb plan.Verb, format string, sites bool) (string, error) {
	p, err := h.Read(file)
	if err != nil {
		return "", err
	}
	if problems := p.Check(); len(problems) > 0 {
		return "", exit.Refuse("`plan validate` says all that is wrong", "%s: %w", p.Name, problems[0])
	}
	in := runbook.Input{Plan: p, Verb: verb, To: a.to, At: h.Now()}
	if file != "-" {
		in.File = file
	}
	if a.to != "" && !slices.ContainsFunc(p.Sites, func(s plan.Site) bool { return s.Name == a.to }) {
		return "", exit.Usage("", "--to %s: plan %s does not name that site", a.to, p.Name)
	}
	if a.to == "" && len(p.Sites) == 2 {
		in.From, in.To = p.Sites[0].Name, p.Sites[1].Name
	} else if len(p.Sites) == 2 {
		in.From = otherOf(p, a.to)
	}
	if sites {
		if err := h.addFacts(cmd, a, &in); err != nil {
			return "", err
		}
	}
	book, err := runbook.Make(in)
	if err != nil {
		return "", err
	}
	if format == "html" {
		return book.HTML(), nil
	}
	return book.Markdown(), nil
}

func otherOf(p *plan.Plan, site string) string {
	i := slices.IndexFunc(p.Sites, func(s plan.Site) bool { return s.Name != site })
	return p.Sites[i].Name
}

// addFacts adds what vault and sites say now.
func (h *Host) addFacts(cmd *cobra.Command, a *asked, in *runbook.Input) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	at, err := h.open(ctx, cmd, a)
	if err != nil {
		return err
	}
	out, err := at.look(ctx, in.Plan, in.Verb)
	if err != nil {
		return err
	}
	in.From, in.To, in.Findings, in.Needs = out.Input.From, out.Input.To, out.Findings, out.Input.Needs
	if in.Findings == nil {
		in.Findings = []preflight.Finding{}
	}
	var t output.Text
	OfOutlook(out).Foretell(&t, "")
	in.Expect = strings.Join(strings.Split(strings.TrimSpace(t.String()), "\n"), " ")
	if in.From == in.To {
		return fmt.Errorf("write runbook: site %s holds the applications: give another with --to", in.To)
	}
	return nil
}
