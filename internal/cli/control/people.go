package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/api"
)

func (h Host) membersCommand() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Who has which role in a project, and give or take roles",
		Long: `Lists who has which role in a project: viewer, operator, recoverer or admin. Admins of the project give roles with "members set"
and take them with "members remove".`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error {
				all, err := s.Members(ctx, s.Project)
				if err != nil {
					return h.Explain(err)
				}
				return h.Print(list[api.Member]{
					items: all, kind: "member", columns: output.Columns("NAME", "ROLE"), none: "Nobody has a role in project " + s.Project + ".",
					name: func(m api.Member) string { return m.Name }, row: func(m api.Member) []string { return []string{m.Name, m.Role} },
				})
			})
		},
	}
	projectFlag(cmd, &project)
	cmd.AddCommand(h.setMember(), h.removeMember())
	return cmd
}

func (h Host) setMember() *cobra.Command {
	var project, role string
	cmd := &cobra.Command{
		Use:     "set USER... --role ROLE",
		Short:   "Give users a role in a project, or another one",
		Example: `  davit members set vera --role viewer`,
		Args:    some,
		RunE: func(cmd *cobra.Command, names []string) error {
			if _, err := account.ParseRole(role); err != nil {
				return exit.Usage("give one of those with --role; docs/console.md says what they may", "%v", err)
			}
			return h.each(cmd, project, names, func(ctx context.Context, s *remote.Session, name string) (Done, error) {
				err := s.SetMember(ctx, s.Project, name, role)
				return Done{What: "member", Name: name, Change: "is " + role}, h.missing(err, "`members` lists who has a role; a user that the console does not have, an administrator makes: `users create`")
			})
		},
	}
	projectFlag(cmd, &project)
	cmd.Flags().StringVar(&role, "role", "", "viewer, operator, recoverer or admin")
	return cmd
}

func (h Host) removeMember() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use:   "remove USER...",
		Short: "Take users' roles in a project away",
		Args:  some,
		RunE: func(cmd *cobra.Command, names []string) error {
			return h.each(cmd, project, names, func(ctx context.Context, s *remote.Session, name string) (Done, error) {
				err := s.RemoveMember(ctx, s.Project, name)
				return Done{What: "member", Name: name, Change: "removed", say: "Robots' tokens that he made go on: `davit tokens` lists them."}, h.missing(err, "`members` lists who has a role")
			})
		},
	}
	projectFlag(cmd, &project)
	return cmd
}

// each does something to each name, and says of each what came of it. After the
// first that fails it goes no further.
func (h Host) each(cmd *cobra.Command, project string, names []string, do func(ctx context.Context, s *remote.Session, name string) (Done, error)) error {
	return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error {
		var all changes
		for _, name := range names {
			d, err := do(ctx, s, name)
			if err != nil {
				return h.stopped(all, err)
			}
			all = append(all, d)
		}
		return h.Print(all)
	})
}

// stopped says what was done before an error.
func (h Host) stopped(done changes, err error) error {
	if len(done) == 0 {
		return err
	}
	if printErr := h.Print(done); printErr != nil {
		return errors.Join(err, printErr)
	}
	return &exit.Error{Code: exit.Failed, Err: fmt.Errorf("%w; what is said above was done", err), Hint: "give the command again for those that are not said above"}
}

// changes are several of what was done.
type changes []Done

// Document implements output.Result.
func (c changes) Document() any {
	return struct {
		Items []Done `json:"items"`
	}{c}
}

// Names implements output.Named.
func (c changes) Names() (all []string) {
	for _, d := range c {
		all = append(all, d.Names()...)
	}
	return all
}

// Text implements output.Result.
func (c changes) Text(t *output.Text) {
	said := ""
	for _, d := range c {
		t.Line("%s/%s %s", d.What, d.Name, d.Change)
		said = d.say
	}
	if said != "" {
		t.Line("%s", said)
	}
}
