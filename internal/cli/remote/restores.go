package remote

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/restoration"
)

func (h Host) restoresCommand() *cobra.Command {
	var project, app string
	cmd := &cobra.Command{
		Use:   "restores",
		Short: "The restores that a console asked sites for",
		Long: `Lists the restores and dry runs that people asked sites for at a console, the newest first. "restores show" shows one, "restores cancel" takes one
back that has not begun at its site. One that begins within an hour of being asked for is begun; later the site refuses it.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.ofRestores(cmd, project, func(ctx context.Context, s *session) error {
				all, err := s.Restorations(ctx, s.Project, app)
				if err != nil {
					return err
				}
				return h.Print(AskedFor{Items: all, now: h.Now()})
			})
		},
	}
	cmd.PersistentFlags().StringVar(&project, "project", "", "project of the console (default: the one given at login)")
	cmd.Flags().StringVar(&app, "application", "", "only of this application, by its name in the vault")
	show := &cobra.Command{
		Use:   "show NAME",
		Short: "How a restore stands that a console asked a site for",
		Long:  `Shows how a restore stands, by its name or id, and of a dry run what it found.`,
		Args:  exactly(1),
	}
	diff := show.Flags().Bool("diff", false, "show what would change in each object")
	show.RunE = func(cmd *cobra.Command, given []string) error {
		return h.ofRestores(cmd, project, func(ctx context.Context, s *session) error {
			id, err := s.restoreID(ctx, given[0])
			if err != nil {
				return err
			}
			got, err := s.Restoration(ctx, s.Project, id)
			if err != nil {
				return err
			}
			return h.Print(Restored{Shown: got, diff: *diff})
		})
	}
	cancel := &cobra.Command{
		Use:   "cancel NAME",
		Short: "Take a restore back that has not begun at its site",
		Long: `Has the site's agent take a restore back that waits there for others. What has begun goes on: half a restore is worse than a whole one.
Takes the permission recover.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			return h.ofRestores(cmd, project, func(ctx context.Context, s *session) error {
				id, err := s.restoreID(ctx, given[0])
				if err != nil {
					return err
				}
				got, err := s.CancelRestore(ctx, s.Project, id)
				switch {
				case err != nil:
					return err
				case got.State == "canceled":
					return h.Print(Restored{Shown: got})
				}
				return exit.Refuse("`davit restores show "+got.Name+"` shows how it stands", "restore %s was not taken back: it is %s: %s", got.Name, got.State, got.Why)
			})
		},
	}
	cmd.AddCommand(show, cancel)
	return cmd
}

func (h Host) ofRestores(cmd *cobra.Command, project string, do func(context.Context, *session) error) error {
	ctx, cancel := h.Working(cmd)
	defer cancel()
	s, err := h.working(project)
	if err != nil {
		return err
	}
	defer s.Close()
	err = do(ctx, s)
	if client.Is(err, http.StatusNotFound) {
		return exit.Refuse("`davit restores` lists them", "%v", err)
	}
	return h.explain(err)
}

// restoreID finds what was asked for by its name, which people know, or its id.
func (s *session) restoreID(ctx context.Context, name string) (string, error) {
	all, err := s.Restorations(ctx, s.Project, "")
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(all, func(r restoration.Shown) bool { return r.Name == name && !r.DryRun }); i >= 0 {
		return all[i].ID, nil
	}
	return name, nil
}

// AskedFor are the restores that sites were asked for.
type AskedFor struct {
	Items []restoration.Shown `json:"items"`
	now   time.Time
}

// Document implements output.Result.
func (a AskedFor) Document() any { return a }

// Names implements output.Named.
func (a AskedFor) Names() (all []string) {
	for _, r := range a.Items {
		all = append(all, "restore/"+r.Name)
	}
	return all
}

// Text implements output.Result.
func (a AskedFor) Text(t *output.Text) {
	if len(a.Items) == 0 {
		t.Line("No site was asked for a restore.")
		return
	}
	var rows [][]string
	for _, r := range a.Items {
		how := "in place"
		if r.Clone {
			how = "a copy"
		}
		if r.DryRun {
			how += ", dry run"
		}
		name := r.Name
		if r.DryRun {
			name = r.ID
		}
		rows = append(rows, []string{name, r.Application, r.Site, how, r.State, output.Age(r.At, a.now), r.By})
	}
	t.Table("", output.Columns("NAME", "APPLICATION", "SITE", "HOW", "STATE", "AGE", "+ASKED BY"), rows)
}
