package control

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/quota"
)

func (h Host) quotaCommand() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "What a project may have at most, and what it has",
		Long: `Shows what a project has of documents, agents, members, robots' tokens, restores that are not over, and bytes of recovery points in its vault, and
what it may have at most. "quota set" sets that; administrators of the console may. Protection at the sites asks no quota.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error {
				q, err := s.Quota(ctx, s.Project)
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(Quota{q})
			})
		},
	}
	projectFlag(cmd, &project)
	cmd.AddCommand(h.setQuota())
	return cmd
}

func (h Host) setQuota() *cobra.Command {
	var project string
	var wanted quota.Numbers
	cmd := &cobra.Command{
		Use:     "set",
		Short:   "Set what a project may have at most",
		Long:    `Sets those limits that are given, and leaves the others. 0 is no limit. What a project has already, it keeps.`,
		Example: `  davit quota set --project shop --agents 4 --tokens 20 --bytes 500000000000`,
		Args:    exactly(0),
	}
	flags := cmd.Flags()
	flags.IntVar(&wanted.Documents, "documents", 0, "documents that the console keeps")
	flags.IntVar(&wanted.Agents, "agents", 0, "sites whose agents are let in")
	flags.IntVar(&wanted.Members, "members", 0, "people with a role")
	flags.IntVar(&wanted.Tokens, "tokens", 0, "robots' tokens that count")
	flags.IntVar(&wanted.Restores, "restores", 0, "restores that are not over")
	flags.Int64Var(&wanted.Bytes, "bytes", 0, "bytes of recovery points in the vault; over it no new application is taken")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		any := false
		for _, k := range quota.Kinds() {
			any = any || flags.Changed(string(k))
		}
		if !any {
			return exit.Usage("give --agents, or another limit", "no limit is given")
		}
		return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error {
			q, err := s.Quota(ctx, s.Project)
			if err != nil {
				return h.Explain(err)
			}
			next := q.Limits
			for kind, one := range map[quota.Kind]struct{ to, from *int }{
				quota.Documents: {&next.Documents, &wanted.Documents}, quota.Agents: {&next.Agents, &wanted.Agents}, quota.Members: {&next.Members, &wanted.Members},
				quota.Tokens: {&next.Tokens, &wanted.Tokens}, quota.Restores: {&next.Restores, &wanted.Restores},
			} {
				if flags.Changed(string(kind)) {
					*one.to = *one.from
				}
			}
			if flags.Changed(string(quota.Bytes)) {
				next.Bytes = wanted.Bytes
			}
			if q, err = s.SetQuota(ctx, s.Project, api.NewQuota{Numbers: next, Seen: &q.Limits}); err != nil {
				return h.Explain(err)
			}
			return h.Print(Quota{q})
		})
	}
	projectFlag(cmd, &project)
	return cmd
}

// Quota is what a project may have, and has.
type Quota struct{ api.Quota }

// Document implements output.Result.
func (q Quota) Document() any { return q.Quota }

// Names implements output.Named.
func (q Quota) Names() (all []string) {
	for _, k := range quota.Kinds() {
		all = append(all, string(k))
	}
	return all
}

// Text implements output.Result.
func (q Quota) Text(t *output.Text) {
	var rows [][]string
	for _, k := range quota.Kinds() {
		show := func(n int64) string {
			if k == quota.Bytes {
				return output.Bytes(n)
			}
			return fmt.Sprint(n)
		}
		most := "no limit"
		if n := q.Limits.Of(k); n > 0 {
			most = show(n)
		}
		rows = append(rows, []string{string(k), show(q.Used.Of(k)), most})
	}
	t.Table("", output.Columns("OF", ">HAS", ">MAY HAVE"), rows)
}
