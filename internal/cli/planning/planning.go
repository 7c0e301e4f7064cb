// Package planning is the command line's `plan`: recovery plans in files,
// checked, drawn and compared. It asks no cluster and no vault itself.
package planning

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
)

// Host is what the command line gives its commands.
type Host struct {
	In    io.Reader
	Out   io.Writer
	Print func(output.Result) error
	// Judge judges a plan against its sites; more are commands beside these.
	Judge Judge
	More  []*cobra.Command
}

// Judge looks at the sites of a plan.
type Judge struct {
	Flags func(flags *pflag.FlagSet)
	Run   func(cmd *cobra.Command, p *plan.Plan) (found output.Result, fails bool, err error)
}

// maxPlan bounds a plan's file, in bytes.
const maxPlan = 4 << 20

// Command makes `plan`.
func Command(h Host) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Check, draw, compare, list and show recovery plans, and arm them",
		Long: `A recovery plan says how a set of applications moves between sites: which, in what order, with what besides. diff, graph,
runbook and validate read it from a file ("-" is standard input) and ask neither cluster nor vault unless told to with --sites. "kubectl
apply" makes a cluster know it; its agent keeps it in the vault. "davit failover" carries one out.`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return exit.Usage("", "plan has no command %q, only arm, diff, disarm, graph, ls, runbook, show, validate", given[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(validateCommand(h), graphCommand(h), diffCommand(h))
	cmd.AddCommand(h.More...)
	return cmd
}

func files(n int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) != n {
			return exit.Usage("", "%s takes %s, but was given %d arguments", cmd.Name(), names, len(given))
		}
		return nil
	}
}

func validateCommand(h Host) *cobra.Command {
	sites := false
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Say everything that is wrong with a plan, and with its sites",
		Long: `Says everything that is wrong with a plan, and what to do about each: names that lead nowhere, steps that wait for each other,
missing time limits, a fence that could never be met. Exit code 3 says that something is wrong.

With --sites it also judges, long before a disaster, whether a failover with it would work: room, storage classes, kinds, images, quotas,
rights, vault, name servers, clocks, recovery points and epochs (docs/preflight.md). What a site says of itself lies in the vault, so that
the vault alone is enough (--vault-url); the cluster of --kubeconfig, and those of --other-kubeconfig, are asked themselves.`,
		Example: `  davit plan validate shop.yaml
  davit plan validate shop.yaml --sites --to west`,
		Args: files(1, "one FILE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			p, err := h.read(given[0])
			if err != nil {
				return err
			}
			v := verdict(p)
			if sites && v.Valid {
				return h.judge(cmd, p)
			}
			if err := h.Print(v); err != nil {
				return err
			}
			if len(v.Problems) > 0 {
				return &exit.Error{Code: exit.Refused}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&sites, "sites", false, "judge also whether it would work with its sites as they are")
	h.Judge.Flags(cmd.Flags())
	return cmd
}

func (h Host) judge(cmd *cobra.Command, p *plan.Plan) error {
	found, fails, err := h.Judge.Run(cmd, p)
	if err != nil {
		return err
	}
	if err := h.Print(found); err != nil || !fails {
		return err
	}
	return exit.Quietly(exit.Refused)
}

func graphCommand(h Host) *cobra.Command {
	verb, format := string(plan.Failover), "text"
	cmd := &cobra.Command{
		Use:   "graph FILE",
		Short: "Draw the steps of a plan, in their order",
		Long: `Draws the steps that a run of the plan takes, with those that Davit adds by itself: claims, fence, data, objects, workloads. Steps
of one wave run at once. --as svg needs no other program; --as dot is for Graphviz. With -o json or -o yaml the steps are data.`,
		Example: `  davit plan graph shop.yaml
  davit plan graph shop.yaml --verb switchover --as svg > shop.svg`,
		Args: files(1, "one FILE"),
		RunE: func(_ *cobra.Command, given []string) error { return h.graph(given[0], verb, format) },
	}
	cmd.Flags().StringVar(&verb, "verb", verb, "what the run does: "+words(plan.Verbs()))
	cmd.Flags().StringVar(&format, "as", format, "text, dot or svg")
	_ = cmd.RegisterFlagCompletionFunc("verb", cobra.FixedCompletions(strings.Split(words(plan.Verbs()), ", "), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("as", cobra.FixedCompletions([]string{"text", "dot", "svg"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func words(verbs []plan.Verb) string {
	var all []string
	for _, v := range verbs {
		all = append(all, string(v))
	}
	return strings.Join(all, ", ")
}

func diffCommand(h Host) *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what differs between two plans",
		Long: `Says what differs between two plans, field by field. Applications, steps and all that has a name are compared by name: their
order in the file does not matter.`,
		Example: "  git show HEAD:shop.yaml | davit plan diff - shop.yaml",
		Args:    files(2, "two FILEs"),
		RunE: func(_ *cobra.Command, given []string) error {
			if given[0] == "-" && given[1] == "-" {
				return exit.Usage("", "only one of the plans can come from standard input")
			}
			old, err := h.read(given[0])
			if err != nil {
				return err
			}
			now, err := h.read(given[1])
			if err != nil {
				return err
			}
			return h.Print(changes(old, now))
		},
	}
}

func (h Host) graph(file, verb, format string) error {
	switch {
	case !slices.Contains(plan.Verbs(), plan.Verb(verb)):
		return exit.Usage("", "--verb %q is not one of %s", verb, words(plan.Verbs()))
	case !slices.Contains([]string{"text", "dot", "svg"}, format):
		return exit.Usage("", "--as %q is not text, dot or svg", format)
	}
	p, err := h.read(file)
	if err != nil {
		return err
	}
	if problems := p.Check(); len(problems) > 0 {
		return exit.Refuse("`plan validate` says all that is wrong", "%s: %w", p.Name, problems[0])
	}
	g, err := p.Graph(plan.Verb(verb))
	if err != nil {
		return err
	}
	switch format {
	case "dot":
		_, err = io.WriteString(h.Out, g.DOT())
	case "svg":
		_, err = io.WriteString(h.Out, g.SVG())
	default:
		return h.Print(drawing(g))
	}
	return err
}

// Read reads a plan from a file, or from standard input.
func (h Host) Read(file string) (*plan.Plan, error) { return h.read(file) }

// read reads a plan from a file, or from standard input.
func (h Host) read(file string) (*plan.Plan, error) {
	in := h.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, exit.AsUsage(err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPlan+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", file, err)
	case len(data) > maxPlan:
		return nil, exit.Refuse("", "%s has more than %s: that is no plan", file, output.Bytes(maxPlan))
	}
	p, err := document.Parse(data)
	if err != nil {
		return nil, exit.Refuse("docs/plans.md shows every field", "%s: %w", file, err)
	}
	return p, nil
}
